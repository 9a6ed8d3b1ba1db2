"""The time series port of all engines: arguments are checked here, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from polaris.domain._checks import utc
from polaris.exceptions import InvalidValueError
from polaris.storage._aggregation import AggregatedPoint, AggregatedRow, AggregationType, Fill
from polaris.storage._buckets import CalendarUnit, parse_buckets
from polaris.storage._gaps import filled
from polaris.storage._limits import (
    BATCH_POINTS_MAX,
    TAG_CHARS_MAX,
    check_collection,
    check_name,
    rows_wanted,
    whole_answer,
)
from polaris.storage._operation import Executor, Operation, Session
from polaris.storage._points import FieldValue, Tags, TimeSeriesPoint, new_point
from polaris.storage._ranges import TimeRange, to_micros
from polaris.storage._rollup_steps import due_steps, run_step
from polaris.storage._rollups import RetentionPolicy
from polaris.storage._tag_filter import parse_tags
from polaris.storage._timeseries import PAGE_POINTS, Order, TagQuery, TimeSeriesStorageBackend
from polaris.storage._timeseries_requests import AggregateRequest, PointQuery
from polaris.storage._turns import TURN_ITEMS
from polaris.storage.backends.shared._timeseries_arguments import (
    checked_aggregations,
    checked_cursor,
    checked_descending,
    checked_fields,
    checked_fill,
    checked_group_keys,
    checked_key,
    checked_micros,
    checked_page,
)

if TYPE_CHECKING:
    from polaris.storage.backends.shared._engine import SharedEngine

RETENTION_ROWS_MAX = 5_000
"""Points that one transaction of retention, or of the deletion of series, deletes at most."""

INSTEAD_OF_POINTS = "give a limit or a shorter range, go on with `after`, or read them by iterate_time_series"

ROWS_A_TURN = 2_000
"""Rows of a result that are made before others get their turn: about a millisecond."""


class TimeSeriesPort(TimeSeriesStorageBackend):
    """Checks arguments and hands programs to its executor: the engine, or a transaction on it."""

    def __init__(self, engine: SharedEngine, executor: Executor) -> None:
        self._engine = engine
        self._executor = executor

    @property
    def engine(self) -> SharedEngine:
        return self._engine

    async def store_time_series(
        self, collection: str, timestamp: datetime, tags: Tags, fields: Mapping[str, FieldValue]
    ) -> None:
        check_collection(collection)
        await self._store(collection, (new_point(timestamp, tags, fields),))

    async def store_many(self, collection: str, points: Sequence[TimeSeriesPoint]) -> None:
        check_collection(collection)
        points = tuple(points)
        if len(points) > BATCH_POINTS_MAX:
            raise InvalidValueError("points", f"at most {BATCH_POINTS_MAX} points (found {len(points)})", points)
        for start in range(0, len(points), TURN_ITEMS):
            if start:
                await asyncio.sleep(0)
            for point in points[start : start + TURN_ITEMS]:
                if point.__class__ is not TimeSeriesPoint:
                    raise InvalidValueError("points", "TimeSeriesPoint objects", point)
        await self._store(collection, points)

    def _store(self, collection: str, points: Sequence[TimeSeriesPoint]) -> Awaitable[None]:
        return self._executor.execute(
            Operation(
                lambda session: session.time_series.store_many(collection, points),
                mutates=bool(points),
                known=None,
                weight=len(points),
            )
        )

    async def query_time_series(
        self,
        collection: str,
        time_range: TimeRange,
        tags: TagQuery | None = None,
        *,
        limit: int | None = None,
        order: Order = "asc",
        fields: Sequence[str] | None = None,
        after: TimeSeriesPoint | None = None,
    ) -> list[TimeSeriesPoint]:
        check_collection(collection)
        named = checked_fields(fields)
        query = PointQuery(
            checked_micros(time_range),
            rows_wanted(limit),
            parse_tags(tags),
            checked_descending(order),
            None if named is None else frozenset(named),
            checked_cursor(after),
        )
        points = await self._executor.execute(
            Operation(lambda session: session.time_series.query(collection, query), mutates=False)
        )
        return whole_answer(points, "points", INSTEAD_OF_POINTS)

    async def iterate_time_series(
        self,
        collection: str,
        time_range: TimeRange,
        tags: TagQuery | None = None,
        *,
        order: Order = "asc",
        fields: Sequence[str] | None = None,
        page_points: int = PAGE_POINTS,
    ) -> AsyncIterator[TimeSeriesPoint]:
        checked_page(page_points)
        last: TimeSeriesPoint | None = None
        while True:
            page = await self.query_time_series(
                collection, time_range, tags, limit=page_points, order=order, fields=fields, after=last
            )
            for point in page:
                yield point
            if len(page) < page_points:
                return
            last = page[-1]

    async def aggregate_time_series(
        self,
        collection: str,
        time_range: TimeRange,
        aggregation: AggregationType | str,
        group_by: str | Sequence[str] | None = None,
        *,
        bucket: timedelta | CalendarUnit | None = None,
        timezone: str | None = None,
        origin: datetime | None = None,
        fill: Fill = "none",
        tags: TagQuery | None = None,
        fields: Sequence[str] | None = None,
    ) -> list[AggregatedPoint]:
        (name,), _ = checked_aggregations([aggregation])
        rows = await self._aggregated(
            collection,
            time_range,
            [name],
            group_by,
            bucket=bucket,
            timezone=timezone,
            origin=origin,
            fill=fill,
            tags=tags,
            fields=fields,
            as_points=True,
        )
        if rows and rows[0].__class__ is AggregatedPoint:
            return rows
        points: list[AggregatedPoint] = []
        for first in range(0, len(rows), ROWS_A_TURN):
            points += [
                AggregatedPoint(row.timestamp, row.field, row.values[name], row.count, row.tags, row.approximate)
                for row in rows[first : first + ROWS_A_TURN]
                if fill != "none" or row.values[name] is not None
            ]
            await asyncio.sleep(0)
        return points

    async def aggregate_many(
        self,
        collection: str,
        time_range: TimeRange,
        aggregations: Sequence[AggregationType | str] | Mapping[str, Sequence[AggregationType | str]],
        group_by: str | Sequence[str] | None = None,
        *,
        bucket: timedelta | CalendarUnit | None = None,
        timezone: str | None = None,
        origin: datetime | None = None,
        fill: Fill = "none",
        tags: TagQuery | None = None,
        fields: Sequence[str] | None = None,
    ) -> list[AggregatedRow]:
        found: list[AggregatedRow] = await self._aggregated(
            collection,
            time_range,
            aggregations,
            group_by,
            bucket=bucket,
            timezone=timezone,
            origin=origin,
            fill=fill,
            tags=tags,
            fields=fields,
        )
        return found

    async def _aggregated(
        self,
        collection: str,
        time_range: TimeRange,
        aggregations: Sequence[AggregationType | str] | Mapping[str, Sequence[AggregationType | str]],
        group_by: str | Sequence[str] | None,
        *,
        bucket: timedelta | CalendarUnit | None,
        timezone: str | None,
        origin: datetime | None,
        fill: Fill,
        tags: TagQuery | None,
        fields: Sequence[str] | None,
        as_points: bool = False,
    ) -> list[Any]:
        """The rows, or points of the only aggregation where these are welcome and the engine makes them."""
        check_collection(collection)
        names, by_field = checked_aggregations(aggregations, fields)
        request = AggregateRequest(
            checked_micros(time_range),
            names,
            checked_group_keys(group_by),
            parse_buckets(bucket, timezone, origin),
            parse_tags(tags),
            tuple(by_field) if by_field else checked_fields(fields),
            by_field,
            as_points and fill == "none",
        )
        chosen = checked_fill(fill, request.buckets)
        rows = await self._executor.execute(
            Operation(lambda session: session.time_series.aggregate(collection, request), mutates=False)
        )
        if chosen == "none" or request.buckets is None:
            return rows
        return await filled(rows, request.buckets, request.micros, chosen)

    async def latest(
        self, collection: str, tags: TagQuery | None = None, *, fields: Sequence[str] | None = None
    ) -> list[TimeSeriesPoint]:
        check_collection(collection)
        chosen, named = parse_tags(tags), checked_fields(fields)
        wanted = None if named is None else frozenset(named)
        return await self._executor.execute(
            Operation(lambda session: session.time_series.latest(collection, chosen, wanted), mutates=False)
        )

    async def delete_range(self, collection: str, time_range: TimeRange, tags: TagQuery | None = None) -> int:
        check_collection(collection)
        micros, chosen = checked_micros(time_range), parse_tags(tags)
        return await self._executor.execute(
            Operation(lambda session: session.time_series.delete_range(collection, micros, chosen), mutates=True)
        )

    async def delete_series(self, collection: str, tags: TagQuery | None = None) -> int:
        check_collection(collection)
        chosen = parse_tags(tags)
        deleted = 0
        while True:
            part, is_done = await self._executor.execute(
                Operation(
                    lambda session: session.time_series.delete_series(collection, chosen, RETENTION_ROWS_MAX),
                    mutates=True,
                )
            )
            deleted += part
            if is_done:
                return deleted

    async def set_retention(self, collection: str, policy: RetentionPolicy) -> None:
        check_collection(collection)
        if not isinstance(policy, RetentionPolicy):
            raise InvalidValueError("policy", "a RetentionPolicy", policy)
        await self._executor.execute(
            Operation(lambda session: session.time_series.set_policy(collection, policy), mutates=True, known=None)
        )

    async def get_retention(self, collection: str) -> RetentionPolicy | None:
        check_collection(collection)
        return await self._executor.execute(
            Operation(lambda session: session.time_series.policy(collection), mutates=False)
        )

    async def apply_retention(self, collection: str, keep_since: datetime | None = None) -> int:
        check_collection(collection)
        if keep_since is not None:
            since_us = to_micros(utc("keep_since", keep_since))
            return await self._repeat(
                lambda session: session.time_series.retain(collection, since_us, RETENTION_ROWS_MAX)
            )
        now_us = to_micros(self._engine.clock.now())
        deleted = 0
        done: RetentionPolicy | None = None
        while (policy := await self.get_retention(collection)) != done:
            for step in [] if policy is None else due_steps(policy, now_us):
                went = await self._repeat(partial(run_step, collection, step, RETENTION_ROWS_MAX))
                deleted += went if step.of_points else 0
            done = policy
        if self._executor is self._engine:
            await self._engine.summarise(collection, now_us)
        return deleted

    async def _repeat(self, part: Callable[[Session], int]) -> int:
        """Run the part, each time in a transaction of its own, until it finds nothing more to do; gives the sum."""
        total = 0
        while went := await self._executor.execute(Operation(part, mutates=True)):
            total += went
        return total

    async def list_series(
        self,
        collection: str,
        tags: TagQuery | None = None,
        *,
        limit: int | None = None,
        after: Tags | None = None,
    ) -> list[dict[str, str]]:
        check_collection(collection)
        chosen, count, key = parse_tags(tags), rows_wanted(limit), checked_key(after)
        series = await self._executor.execute(
            Operation(lambda session: session.time_series.list_series(collection, chosen, count, key), mutates=False)
        )
        return whole_answer(series, "series")

    async def count_series(self, collection: str | None = None, tags: TagQuery | None = None) -> int:
        chosen = parse_tags(tags)
        if collection is not None:
            check_collection(collection)
        elif chosen.terms:
            raise InvalidValueError("tags", "none without a collection", tags)
        return await self._executor.execute(
            Operation(lambda session: session.time_series.count_series(collection, chosen), mutates=False)
        )

    async def list_collections(self) -> list[str]:
        return await self._executor.execute(
            Operation(lambda session: session.time_series.list_collections(), mutates=False)
        )

    async def list_fields(self, collection: str, tags: TagQuery | None = None) -> list[str]:
        check_collection(collection)
        chosen = parse_tags(tags)
        return await self._executor.execute(
            Operation(lambda session: session.time_series.list_fields(collection, chosen), mutates=False)
        )

    async def list_tag_keys(self, collection: str) -> list[str]:
        check_collection(collection)
        return await self._executor.execute(
            Operation(lambda session: session.time_series.list_tag_keys(collection), mutates=False)
        )

    async def list_tag_values(self, collection: str, key: str, tags: TagQuery | None = None) -> list[str]:
        check_collection(collection)
        check_name("key", key, chars_max=TAG_CHARS_MAX)
        chosen = parse_tags(tags)
        return await self._executor.execute(
            Operation(lambda session: session.time_series.list_tag_values(collection, key, chosen), mutates=False)
        )
