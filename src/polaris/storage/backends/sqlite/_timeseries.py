"""Time series in SQLite: writes go to the hot table, reads unite it with the cold one."""

from __future__ import annotations

from collections.abc import Sequence

import apsw
import msgspec

from polaris.storage._operation import AggregateRequest, Micros
from polaris.storage._ranges import to_micros
from polaris.storage._timeseries import AggregatedPoint, TimeSeriesPoint
from polaris.storage.backends.sqlite._aggregate_sql import aggregate
from polaris.storage.backends.sqlite._memory import Memory
from polaris.storage.backends.sqlite._point_reads import latest, query
from polaris.storage.backends.sqlite._series import COLUMN_NAMES, COLUMNS, SeriesRegistry
from polaris.storage.backends.sqlite._sql import scalar

NULL, TRUE, FALSE = b"n", b"t", b"f"
"""How the values are kept that SQLite has no type for, so that null differs from absent and true from 1."""

_WIDTH = COLUMNS + 3
_ROWS_A_STATEMENT = (64, 8, 1)
_COLUMN_LIST = ", ".join(COLUMN_NAMES)
_MARKS = "(" + ", ".join("?" * _WIDTH) + ")"
# Many rows in one statement: the driver lets other threads in once a statement, not once a row.
_PUT_HOT = {
    rows: f"INSERT OR REPLACE INTO ts_hot (ts, series, part, {_COLUMN_LIST}) VALUES " + ", ".join([_MARKS] * rows)  # noqa: S608
    for rows in _ROWS_A_STATEMENT
}
_PUT_LATEST = (
    "INSERT INTO ts_latest VALUES (?, ?) ON CONFLICT (series) DO UPDATE SET ts = excluded.ts WHERE excluded.ts > ts"
)
COLD_UNTIL_NONE = -(2**63)


class SqliteTimeSeries:
    """Points as rows of twelve columns. A point is in one of the two tables, so reading both is exact."""

    def __init__(self, connection: apsw.Connection, memory: Memory) -> None:
        self._connection = connection
        self._memory = memory
        self._registry = SeriesRegistry(connection, memory)
        self.rows_written = 0
        """Rows put into the hot table since the counter was last read by the compaction."""

    def store_many(self, collection: str, points: Sequence[TimeSeriesPoint]) -> None:
        rows: list[list[object]] = []
        newest: dict[int, int] = {}
        late: list[tuple[int, int]] = []
        cold_until = self.cold_until()
        for point in points:
            fields = point.fields
            series = self._registry.require(collection, point.tags, fields)
            number, slots, ts = series.number, series.slots, to_micros(point.timestamp)
            row: list[object] = [None] * _WIDTH
            row[0], row[1], row[2] = ts, number, 0
            if len(slots) <= COLUMNS:
                for name, value in fields.items():
                    row[slots[name] + 3] = value if value.__class__ is float else _kept(value)
                rows.append(row)
            else:
                rows.extend(_wide(ts, number, slots, fields, series.parts))
            if ts < cold_until:
                late.append((number, ts))
            if ts > newest.get(number, COLD_UNTIL_NONE - 1):
                newest[number] = ts
        if late:
            self._connection.executemany("DELETE FROM ts_cold WHERE series = ? AND ts = ?", late)
        self._put(rows)
        self._connection.executemany(_PUT_LATEST, newest.items())
        self.rows_written += len(rows)

    def _put(self, rows: list[list[object]]) -> None:
        start, count = 0, len(rows)
        for size in _ROWS_A_STATEMENT:
            while count - start >= size:
                values = [value for row in rows[start : start + size] for value in row]
                self._connection.execute(_PUT_HOT[size], values)
                start += size

    def cold_until(self) -> int:
        """Every cold timestamp is before this one; what is not late cannot be in the cold table."""
        known: int | None = self._memory.get("cold_until")
        if known is None:
            known = scalar(self._connection, "SELECT cold_until FROM ts_compaction")
            self._memory.learn("cold_until", known)
        return int(known)

    def query(
        self,
        collection: str,
        micros: Micros,
        tags: dict[str, str],
        *,
        limit: int,
        descending: bool,
        fields: frozenset[str] | None,
    ) -> list[TimeSeriesPoint]:
        series = self._registry.chosen(collection, tags)
        return query(self._connection, series, micros, limit=limit, descending=descending, fields=fields)

    def aggregate(self, collection: str, request: AggregateRequest) -> list[AggregatedPoint]:
        return aggregate(self._connection, self._registry.chosen(collection, request.tags), request)

    def latest(self, collection: str, tags: dict[str, str]) -> list[TimeSeriesPoint]:
        return latest(self._connection, self._registry.chosen(collection, tags))

    def list_series(self, collection: str, tags: dict[str, str]) -> list[dict[str, str]]:
        return [series.tags for series in self._registry.chosen(collection, tags)]

    def delete_range(self, collection: str, micros: Micros, tags: dict[str, str]) -> int:
        numbers = [series.number for series in self._registry.chosen(collection, tags)]
        text = msgspec.json.encode(numbers).decode()
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

    def retain(self, collection: str, since_us: int, rows_max: int) -> int:
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


def _wide(
    ts: int, number: int, slots: dict[str, int], fields: dict[str, bool | int | float | str | None], parts: int
) -> list[list[object]]:
    """The rows of a point whose series has more than one part: all of them, so that no older part shines through."""
    rows: list[list[object]] = [[ts, number, part, *[None] * COLUMNS] for part in range(parts)]
    for name, value in fields.items():
        part, column = divmod(slots[name], COLUMNS)
        rows[part][column + 3] = _kept(value)
    return rows
