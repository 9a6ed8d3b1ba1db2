"""Time series in SQLite: writes go to the hot table, reads unite it with the cold one."""

from __future__ import annotations

from collections.abc import Sequence

import apsw
import msgspec

from polaris.storage._aggregation import AggregatedRow
from polaris.storage._points import TimeSeriesPoint
from polaris.storage._ranges import to_micros
from polaris.storage._rollup_steps import is_replaced
from polaris.storage._rollups import RetentionPolicy
from polaris.storage._series_limits import SeriesLimits
from polaris.storage._tag_filter import TagFilter
from polaris.storage._timeseries_requests import AggregateRequest, Micros, PointQuery, SeriesKey
from polaris.storage.backends.sqlite._aggregate_sql import aggregate
from polaris.storage.backends.sqlite._hot_rows import VALUES_A_STATEMENT, HotRows
from polaris.storage.backends.sqlite._memory import Memory
from polaris.storage.backends.sqlite._point_reads import read_latest, read_points
from polaris.storage.backends.sqlite._rollup_reads import aggregate_rolled_up
from polaris.storage.backends.sqlite._rollup_windows import retire
from polaris.storage.backends.sqlite._rollups import SqliteRollups
from polaris.storage.backends.sqlite._series import COLUMNS, Series, SeriesRegistry
from polaris.storage.backends.sqlite._sql import rows, scalar

NULL, TRUE, FALSE = b"n", b"t", b"f"
"""How the values are kept that SQLite has no type for, so that null differs from absent and true from 1."""

_NO_FIELDS = (None,) * COLUMNS
COLD_UNTIL_NONE = -(2**63)
EVER = (-(2**63), 2**63 - 1)


class SqliteTimeSeries:
    """Points as rows of twelve columns. A point is in one of the two tables, so reading both is exact."""

    def __init__(self, connection: apsw.Connection, memory: Memory) -> None:
        self._connection = connection
        self._memory = memory
        self._registry = SeriesRegistry(connection, memory)
        self._hot = HotRows(connection)
        self.gathers = False
        """Whether points are kept until something of this session reads them, or until `write_gathered`.

        For transactions whose errors nobody needs to know by the operation: those of a statement come later then.
        """
        self.rollups = SqliteRollups(connection, memory)
        self.rows_written = 0
        """Rows put into the hot table since the counter was last read by the compaction."""

    def limit_series(self, limits: SeriesLimits) -> None:
        """Refuse series beyond these numbers from now on."""
        self._registry.limits = limits

    def store_many(self, collection: str, points: Sequence[TimeSeriesPoint]) -> None:
        values, newest, known = self._hot.values, self._hot.newest, self._memory.get
        cold_until, window_us = self.cold_until(), self.rollups.window_us(collection)
        late: list[tuple[int, int]] = []
        stored: list[tuple[int, int]] = []
        for point in points:
            tags, fields, ts = point.tags, point.fields, to_micros(point.timestamp)
            series: Series | None = known(("series", collection, *tags.items()))
            if series is None or len(series.slots) > COLUMNS:
                number = self._put_any(collection, point, ts, series)
            else:
                number, slots = series.number, series.slots
                row: list[object] = [ts, number, 0, *_NO_FIELDS]
                try:
                    for name, value in fields.items():
                        row[slots[name] + 3] = value if value.__class__ is float else _kept(value)
                    values += row
                except KeyError:  # the series has to grow
                    self._put_any(collection, point, ts, series)
            if ts < cold_until:
                late.append((number, ts))
            if window_us:
                stored.append((ts, number))
            if ts > newest.get(number, COLD_UNTIL_NONE - 1):
                newest[number] = ts
            if len(values) >= VALUES_A_STATEMENT:
                self._hot.write_full()
        if stored:
            self.rollups.mark_points(window_us, stored)
        if late:
            self._connection.executemany("DELETE FROM ts_cold WHERE series = ? AND ts = ?", late)
        self.rows_written += len(points)
        if not self.gathers:
            self._hot.write()

    def _put_any(self, collection: str, point: TimeSeriesPoint, ts: int, series: Series | None) -> int:
        """Put a point whose series is new, has to grow, or has more fields than a row; gives the number of the series.

        All its parts are written, so that no older one shines through.
        """
        fields = point.fields
        if series is None or not fields.keys() <= series.slots.keys():
            series = self._registry.require(collection, point.tags, fields)
        slots = series.slots
        rows: list[list[object]] = [[ts, series.number, part, *_NO_FIELDS] for part in range(series.parts)]
        for name, value in fields.items():
            part, column = divmod(slots[name], COLUMNS)
            rows[part][column + 3] = value if value.__class__ is float else _kept(value)
        for row in rows:
            self._hot.values += row
        self.rows_written += len(rows) - 1
        return series.number

    def write_gathered(self) -> None:
        """Write what is gathered."""
        self._hot.write()

    def forget_gathered(self) -> None:
        """The transaction that stored it is taken back."""
        self._hot.forget()

    def cold_until(self) -> int:
        """Every cold timestamp is before this one; what is not late cannot be in the cold table."""
        known: int | None = self._memory.get("cold_until")
        if known is None:
            known = scalar(self._connection, "SELECT cold_until FROM ts_compaction")
            self._memory.learn("cold_until", known)
        return int(known)

    def query(self, collection: str, query: PointQuery) -> list[TimeSeriesPoint]:
        self._hot.write()
        return read_points(self._connection, self._registry.chosen(collection, query.tags), query)

    def aggregate(self, collection: str, request: AggregateRequest) -> list[AggregatedRow]:
        self._hot.write()
        series = self._registry.chosen(collection, request.tags)
        policy = self.rollups.of(collection)
        if policy is not None:
            return aggregate_rolled_up(self._connection, series, request, policy)
        return aggregate(self._connection, series, request)

    def latest(self, collection: str, tags: TagFilter, fields: frozenset[str] | None) -> list[TimeSeriesPoint]:
        self._hot.write()
        return read_latest(self._connection, collection, tags, self._registry.shape, fields)

    def list_series(
        self, collection: str, tags: TagFilter, limit: int, after: SeriesKey | None
    ) -> list[dict[str, str]]:
        return self._registry.listed(collection, tags, limit, after)

    def count_series(self, collection: str | None, tags: TagFilter) -> int:
        return self._registry.count(collection, tags)

    def list_collections(self) -> list[str]:
        return self._registry.collections()

    def list_fields(self, collection: str, tags: TagFilter) -> list[str]:
        return self._registry.fields(collection, tags)

    def list_tag_keys(self, collection: str) -> list[str]:
        return self._registry.tag_keys(collection)

    def list_tag_values(self, collection: str, key: str, tags: TagFilter) -> list[str]:
        return self._registry.tag_values(collection, key, tags)

    def delete_range(self, collection: str, micros: Micros, tags: TagFilter) -> int:
        self._hot.write()
        text = msgspec.json.encode(self._registry.numbers(collection, tags)).decode()
        self.rollups.delete_range(collection, text, micros)
        deleted = 0
        for table in ("ts_hot", "ts_cold"):
            condition = "WHERE series IN (SELECT value FROM json_each(?)) AND ts >= ? AND ts < ?"
            bindings = (text, *micros)
            count = scalar(self._connection, f"SELECT count(*) FROM {table} {condition} AND part = 0", bindings)  # noqa: S608
            if count:
                self._connection.execute(f"DELETE FROM {table} {condition}", bindings)  # noqa: S608
                deleted += count
        if deleted:
            self._find_latest_anew(text, micros)
        return deleted

    def delete_series(self, collection: str, tags: TagFilter, rows_max: int) -> tuple[int, bool]:
        self._hot.write()
        numbers = self._registry.numbers(collection, tags)[:rows_max]
        text = msgspec.json.encode(numbers).decode()
        self.rollups.delete_range(collection, text, EVER)
        left = rows_max
        for table, found in (
            ("ts_cold", "json_each(?) c CROSS JOIN ts_cold p WHERE p.series = c.value"),
            ("ts_hot", "ts_hot p WHERE p.series IN (SELECT value FROM json_each(?))"),
        ):
            keys = rows(
                self._connection,
                f"SELECT p.series, p.ts FROM {found} AND p.part = 0 LIMIT ?",  # noqa: S608
                (text, left),
            )
            self._connection.executemany(f"DELETE FROM {table} WHERE series = ? AND ts = ?", keys)  # noqa: S608
            left -= len(keys)
        if left <= 0:
            self._find_latest_anew(text, EVER)
            return 0, False
        self.rollups.forget(text)
        self._registry.delete(text)
        return len(numbers), len(numbers) < rows_max

    def _find_latest_anew(self, numbers: str, micros: Micros) -> None:
        bindings = {"series": numbers, "start": micros[0], "end": micros[1]}
        gone = "series IN (SELECT value FROM json_each(:series)) AND ts >= :start AND ts < :end"
        self._connection.execute("CREATE TEMP TABLE IF NOT EXISTS lost (series INTEGER PRIMARY KEY) STRICT")
        self._connection.execute("DELETE FROM temp.lost")
        self._connection.execute(f"INSERT INTO temp.lost SELECT series FROM ts_latest WHERE {gone}", bindings)  # noqa: S608
        self._connection.execute("DELETE FROM ts_latest WHERE series IN (SELECT series FROM temp.lost)")
        self._connection.execute(
            "INSERT INTO ts_latest SELECT series, max(ts) FROM ("
            " SELECT l.series, (SELECT max(c.ts) FROM ts_cold c WHERE c.series = l.series) AS ts FROM temp.lost l"
            " UNION ALL SELECT h.series, h.ts FROM ts_hot h WHERE h.series IN (SELECT series FROM temp.lost)"
            ") WHERE ts IS NOT NULL GROUP BY series"
        )

    def set_policy(self, collection: str, policy: RetentionPolicy) -> None:
        self._hot.write()
        self.rollups.set_policy(collection, policy)

    def policy(self, collection: str) -> RetentionPolicy | None:
        known = self.rollups.of(collection)
        return None if known is None else known.policy

    def thin(
        self,
        collection: str,
        since_us: int,
        into_us: int | None,
        rows_max: int,
        under: RetentionPolicy | None = None,
    ) -> int:
        if is_replaced(under, self.policy(collection)):
            return 0
        return self.rollups.thin(collection, since_us, into_us, rows_max)

    def retain(self, collection: str, since_us: int, rows_max: int, under: RetentionPolicy | None = None) -> int:
        self._hot.write()
        if is_replaced(under, self.policy(collection)):
            return 0
        window_us = self.rollups.window_us(collection)
        if window_us:
            return retire(self._connection, self.rollups, collection, since_us, window_us, rows_max)
        deleted = 0
        for table in ("ts_cold", "ts_hot"):
            keys = self._connection.execute(
                f"SELECT p.series, p.ts FROM ts_series s CROSS JOIN ts_latest l CROSS JOIN {table} p"  # noqa: S608
                " WHERE s.collection = ? AND l.series = s.id AND p.series = s.id"
                " AND p.ts < min(?, l.ts) AND p.part = 0 LIMIT ?",
                (collection, since_us, rows_max - deleted),
            ).fetchall()
            self._connection.executemany(f"DELETE FROM {table} WHERE series = ? AND ts = ?", keys)  # noqa: S608
            deleted += len(keys)
        return deleted


def _kept(value: object) -> object:
    if value is None:
        return NULL
    if value is True:
        return TRUE
    if value is False:
        return FALSE
    return value
