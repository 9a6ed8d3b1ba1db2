"""Time series on a server: a table for each collection, partitioned by time, rows of arrays."""

from __future__ import annotations

from collections.abc import Sequence

from polaris.clock import Clock
from polaris.storage._aggregation import AggregatedRow
from polaris.storage._points import TimeSeriesPoint
from polaris.storage._ranges import to_micros
from polaris.storage._rollup_steps import is_replaced
from polaris.storage._rollups import ALL_TIME, RetentionPolicy, floor
from polaris.storage._series_limits import SeriesLimits
from polaris.storage._tag_filter import ALL_SERIES, TagFilter
from polaris.storage._timeseries_requests import AggregateRequest, Micros, PointQuery, SeriesKey
from polaris.storage._turns import in_turns
from polaris.storage.backends.postgresql._aggregate_sql import aggregate
from polaris.storage.backends.postgresql._catalog import Catalog, Partitions
from polaris.storage.backends.postgresql._driver import driver_errors
from polaris.storage.backends.postgresql._errors import STALE, RepeatError, sqlstate
from polaris.storage.backends.postgresql._layout import Content, Slot, plain, slots_of
from polaris.storage.backends.postgresql._link import SCAN, SNAPSHOT, Link
from polaris.storage.backends.postgresql._marks import mark_spans
from polaris.storage.backends.postgresql._memory import Lessons
from polaris.storage.backends.postgresql._point_reads import read_latest, read_points
from polaris.storage.backends.postgresql._point_writes import Rows, put_points
from polaris.storage.backends.postgresql._retention import Retention
from polaris.storage.backends.postgresql._rollup_reads import aggregate_one_by_one, aggregate_with_rollups
from polaris.storage.backends.postgresql._rollups import PostgresRollups
from polaris.storage.backends.postgresql._series import SeriesRegistry
from polaris.storage.backends.postgresql._series_sql import canonical
from polaris.storage.backends.postgresql._windows import PostgresWindows

_FIND_LATEST = (
    "INSERT INTO ts_latest (series, ts) SELECT n.series, newest.ts FROM unnest($1::bigint[]) AS n (series)"
    " CROSS JOIN LATERAL (SELECT max(p.ts) AS ts FROM {table} p WHERE p.series = n.series) AS newest"
    " WHERE newest.ts IS NOT NULL ORDER BY n.series"
)


class PostgresTimeSeries:
    """Points as rows of (series, time, floats, integers, JSON of the rest)."""

    def __init__(self, link: Link, catalog: Catalog, lessons: Lessons, limits: SeriesLimits, clock: Clock) -> None:
        self._link = link
        self._catalog = catalog
        self._lessons = lessons
        self._clock = clock
        self._registry = SeriesRegistry(link, lessons, limits)

    async def _home(self, collection: str) -> Partitions | None:
        return await self._catalog.find_series_home(self._link, collection)

    async def store_many(self, collection: str, points: Sequence[TimeSeriesPoint]) -> None:
        times = [to_micros(point.timestamp) async for point in in_turns(points)]
        home = await self._catalog.require_series_home(collection, times)
        try:
            await self._store(collection, home, points, times)
        except driver_errors.PostgresError as error:
            if sqlstate(error) not in STALE:
                raise
            self._catalog.memory.clear()
            self._lessons.forget()
            raise RepeatError from error

    async def _store(
        self, collection: str, home: Partitions, points: Sequence[TimeSeriesPoint], times: Sequence[int]
    ) -> None:
        found: list[tuple[int, Content] | None] = []
        needs: dict[str, set[Slot]] = {}
        async for point in in_turns(points):
            series = self._registry.known(home.number, point.tags)
            content = None if series is None else series.layout.content(point.fields)
            if series is None or content is None:
                found.append(None)
                needs.setdefault(canonical(point.tags), set()).update(slots_of(point.fields))
            else:
                found.append((series.number, content))
        if not needs:
            await put_points(self._link, home, _rows(found, times))
            return
        async with self._link.atomic():
            made = await self._registry.require(collection, home.number, needs)
            for place, entry in enumerate(found):
                if entry is None:
                    point = points[place]
                    series = made[canonical(point.tags)]
                    content = series.layout.content(point.fields) or series.layout.content(plain(point.fields))
                    assert content is not None  # noqa: S101 # the registry gave every value a place
                    found[place] = (series.number, content)
            await put_points(self._link, home, _rows(found, times))

    async def query(self, collection: str, query: PointQuery) -> list[TimeSeriesPoint]:
        async with self._link.atomic(SNAPSHOT):
            home = await self._home(collection)
            if home is None or not query.limit:
                return []
            chosen = await self._registry.chosen(home.number, query.tags)
            return await read_points(self._link, home.table, chosen, query)

    async def latest(self, collection: str, tags: TagFilter, fields: frozenset[str] | None) -> list[TimeSeriesPoint]:
        async with self._link.atomic(SNAPSHOT):
            home = await self._home(collection)
            if home is None:
                return []
            return await read_latest(self._link, home.table, await self._registry.chosen(home.number, tags), fields)

    async def aggregate(self, collection: str, request: AggregateRequest) -> list[AggregatedRow]:
        is_part = self._link.in_transaction
        if is_part:
            await self._link.run("SAVEPOINT aggregating")
        try:
            found = await self._aggregate(collection, request)
        except driver_errors.NumericValueOutOfRangeError:
            # Beyond a float a sum is infinite, here; for the server it is an error, which ends its transaction.
            if is_part:
                await self._link.run("ROLLBACK TO SAVEPOINT aggregating")
            found = await self._aggregate(collection, request, one_by_one=True)
        if is_part:
            await self._link.run("RELEASE SAVEPOINT aggregating")
        return found

    async def _aggregate(
        self, collection: str, request: AggregateRequest, *, one_by_one: bool = False
    ) -> list[AggregatedRow]:
        async with self._link.atomic(SCAN):
            home = await self._home(collection)
            if home is None:
                return []
            chosen = await self._registry.chosen(home.number, request.tags)
            fields = None if request.fields is None else frozenset(request.fields)
            rollups = await self._rollups(home).within([one.number for one in chosen], request.micros, fields)
            if one_by_one:
                return await aggregate_one_by_one(self._link, home.table, chosen, request, rollups)
            summaries = await self._windows(home).summaries()
            if rollups:
                return await aggregate_with_rollups(self._link, home.table, chosen, request, rollups, summaries)
            return await aggregate(self._link, home.table, chosen, request, summaries)

    async def delete_range(self, collection: str, micros: Micros, tags: TagFilter) -> int:
        async with self._link.atomic():
            home = await self._home(collection)
            if home is None:
                return 0
            numbers = await self._registry.numbers(home.number, tags)
            await self._rollups(home).delete_range(numbers, micros)
            await self._lock(numbers)
            deleted = await self._link.run(
                f"DELETE FROM {home.table} WHERE series = ANY($1::bigint[]) AND ts >= $2 AND ts < $3",  # noqa: S608
                numbers,
                *micros,
            )
            if deleted:
                await mark_spans(self._link, home.number, [(number, micros) for number in numbers])
                await self._find_latest_anew(home.table, numbers, micros)
            return deleted

    async def _lock(self, numbers: Sequence[int]) -> None:
        """Wait for who is writing to these series, and make who comes later wait."""
        await self._link.rows(
            "SELECT 1 FROM ts_latest WHERE series = ANY($1::bigint[]) ORDER BY series FOR UPDATE", numbers
        )

    async def _find_latest_anew(self, table: str, numbers: Sequence[int], micros: Micros) -> None:
        lost = await self._link.rows(
            "DELETE FROM ts_latest WHERE series = ANY($1::bigint[]) AND ts >= $2 AND ts < $3 RETURNING series",
            numbers,
            *micros,
        )
        if lost:
            await self._link.run(_FIND_LATEST.format(table=table), [row[0] for row in lost])

    async def delete_series(self, collection: str, tags: TagFilter, rows_max: int) -> tuple[int, bool]:
        async with self._link.atomic():
            home = await self._home(collection)
            if home is None:
                return 0, True
            numbers = await self._registry.numbers(home.number, tags, rows_max)
            await self._lock(numbers)
            gone = await self._link.run(
                f"DELETE FROM {home.table} p USING (SELECT series, ts FROM {home.table}"  # noqa: S608
                " WHERE series = ANY($1::bigint[]) LIMIT $2) AS d WHERE p.series = d.series AND p.ts = d.ts",
                numbers,
                rows_max,
            )
            if gone >= rows_max:
                await mark_spans(self._link, home.number, [(number, ALL_TIME) for number in numbers])
                await self._find_latest_anew(home.table, numbers, ALL_TIME)
                return 0, False
            await self._registry.delete(home.number, numbers)
            self._catalog.memory.clear()
            return len(numbers), len(numbers) < rows_max

    async def retain(self, collection: str, since_us: int, rows_max: int, under: RetentionPolicy | None = None) -> int:
        async with self._link.atomic():
            home = await self._home(collection)
            if home is None:
                return 0
            policy = await self._rollups(home).settled_policy()
            if is_replaced(under, policy):
                return 0
            window_us = None if policy is None else policy.window_us
            if policy is None or window_us is None:
                return await self._retention(home).apply(since_us, rows_max)
            if policy.goes_along and since_us <= to_micros(self._clock.now()) - (policy.raw_kept_us or 0):
                return await self._retention(home, window_us).apply(floor(since_us, window_us), rows_max)
            retired = await self._rollups(home).retire(since_us, window_us, rows_max)
            if not retired:
                await self._retention(home).drop_empty(since_us)
            return retired

    async def thin(
        self,
        collection: str,
        since_us: int,
        into_us: int | None,
        rows_max: int,
        under: RetentionPolicy | None = None,
    ) -> int:
        async with self._link.atomic():
            home = await self._home(collection)
            if home is None or is_replaced(under, await self._rollups(home).settled_policy()):
                return 0
            return await self._rollups(home).thin(since_us, into_us, rows_max)

    async def set_policy(self, collection: str, policy: RetentionPolicy) -> None:
        home = await self._catalog.require_series_home(collection, ())
        async with self._link.atomic():
            await self._rollups(home).set_policy(policy)
            await self._windows(home).reset(policy.window_us)

    async def raise_frontier(self, collection: str, now_us: int) -> bool:
        async with self._link.atomic():
            home = await self._home(collection)
            return home is not None and await self._windows(home).raise_frontier(now_us)

    async def expand(self, collection: str) -> int | None:
        async with self._link.atomic():
            home = await self._home(collection)
            return None if home is None else await self._windows(home).expand()

    async def summarise(self, collection: str, until_id: int, rows_max: int) -> int:
        async with self._link.atomic():
            home = await self._home(collection)
            return 0 if home is None else await self._windows(home).summarise(until_id, rows_max)

    async def policy(self, collection: str) -> RetentionPolicy | None:
        home = await self._home(collection)
        return None if home is None else await self._rollups(home).policy()

    def _rollups(self, home: Partitions) -> PostgresRollups:
        return PostgresRollups(self._link, home, self._registry)

    def _retention(self, home: Partitions, window_us: int = 1) -> Retention:
        return Retention(self._link, home, self._catalog.drop_pauses, self._clock, window_us)

    def _windows(self, home: Partitions) -> PostgresWindows:
        return PostgresWindows(self._link, home, self._registry)

    async def list_series(
        self, collection: str, tags: TagFilter, limit: int, after: SeriesKey | None
    ) -> list[dict[str, str]]:
        home = await self._home(collection)
        return [] if home is None else await self._registry.listed(home.number, tags, limit, after)

    async def count_series(self, collection: str | None, tags: TagFilter) -> int:
        if collection is None:
            return await self._registry.count(None, ALL_SERIES)
        home = await self._home(collection)
        return 0 if home is None else await self._registry.count(home.number, tags)

    async def list_collections(self) -> list[str]:
        rows = await self._link.rows(
            "SELECT c.name FROM ts_collections c"
            " WHERE EXISTS (SELECT 1 FROM ts_series s WHERE s.collection = c.id) ORDER BY c.name"
        )
        return [row[0] for row in rows]

    async def list_fields(self, collection: str, tags: TagFilter) -> list[str]:
        home = await self._home(collection)
        return [] if home is None else await self._registry.fields(home.number, tags)

    async def list_tag_keys(self, collection: str) -> list[str]:
        home = await self._home(collection)
        return [] if home is None else await self._registry.tag_keys(home.number)

    async def list_tag_values(self, collection: str, key: str, tags: TagFilter) -> list[str]:
        home = await self._home(collection)
        return [] if home is None else await self._registry.tag_values(home.number, key, tags)


def _rows(found: Sequence[tuple[int, Content] | None], times: Sequence[int]) -> Rows:
    """The rows by their keys: of equal ones the last stays."""
    return {(entry[0], time_us): entry[1] for entry, time_us in zip(found, times, strict=True) if entry is not None}
