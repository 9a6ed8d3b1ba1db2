"""Counting what points, summaries of windows and rollups know of each bucket: the union of the three is exact.

Where every bucket is one window of one series, rows are read as they lie in the file; everything else is united by SQL.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import apsw
import msgspec

from polaris.storage._aggregates import too_many_rows
from polaris.storage._aggregation import AggregationType
from polaris.storage._buckets import FixedBuckets
from polaris.storage._limits import LIMIT_MAX
from polaris.storage._timeseries_requests import AggregateRequest, Micros
from polaris.storage.backends.shared._row_table import Counted
from polaris.storage.backends.sqlite._aggregate_cells import Bucket, CellReads
from polaris.storage.backends.sqlite._sample_sql import Samples
from polaris.storage.backends.sqlite._series import StoredSeries
from polaris.storage.backends.sqlite._sql import Row, rows

FIELDS_A_SCAN = 64
"""Fields whose points are read together."""
ENTRIES_A_STATEMENT = 20_000
"""Pairs of series and field that one statement is about, unless a single field has more."""

_TOLD = (AggregationType.SUM, AggregationType.MIN, AggregationType.MAX)
_cell_of = itemgetter(0)
Run = tuple[int, list[Counted]]
"""A cell and what one source knows of it."""


class PieceScan:
    """One request, its series with their groups, and how each stretch of each series is read."""

    def __init__(
        self,
        connection: apsw.Connection,
        series: Sequence[StoredSeries],
        groups: Sequence[int],
        request: AggregateRequest,
        fields: Sequence[str],
    ) -> None:
        self._connection = connection
        self._series = series
        self._groups = groups
        self._request = request
        self._fields = fields
        asked = {name for field in fields for name in request.of(field)}
        self._columns = [
            "total" if asked & {AggregationType.AVG, AggregationType.SUM} else "NULL",
            "low" if AggregationType.MIN in asked else "NULL",
            "high" if AggregationType.MAX in asked else "NULL",
        ]
        self._is_alone = len(set(groups)) == len(groups)
        self._streams: list[Iterator[Run]] = []
        self._found: defaultdict[int, list[Counted]] = defaultdict(list)

    def cells(self) -> Iterator[Run]:
        """Each cell that has numbers, in ascending order, with one entry for each of its buckets."""
        streams = [*self._streams, iter(sorted(self._found.items()))]
        for cell, runs in groupby(heapq.merge(*streams, key=_cell_of), key=_cell_of):
            found = [entry for _, run in runs for entry in run]
            yield cell, found if len({entry[1] for entry in found}) == len(found) else _united(found)

    def add_parts(self, series: StoredSeries, parts: Sequence[Bucket]) -> None:
        """Count the points in parts of buckets of the only series, one after the other."""
        names = [name for name, column in zip(_TOLD, self._columns, strict=True) if column != "NULL"]
        request = msgspec.structs.replace(self._request, aggregations=tuple(names), by_field={})
        cells = {field: cell for cell, field in enumerate(self._fields)}
        for start, field, count, told in CellReads(self._connection, series, request, parts).read(self._fields):
            cell = cells[field]
            total, low, high = map(told.get, _TOLD)
            self._found[cell].append((cell, start, count, total, low, high, 0))  # type: ignore[arg-type] # as asked

    def add_points(self, stretches: Sequence[Sequence[Micros]]) -> None:
        """Count the points in the stretches of each series."""
        if not any(stretches):
            return
        samples = Samples(self._connection, self._series, self._groups, self._request, stretches)
        places = {field: place for place, field in enumerate(self._fields)}
        for first in range(0, len(self._fields), FIELDS_A_SCAN):
            for together in samples.readable_together(tuple(self._fields[first : first + FIELDS_A_SCAN])):
                source = samples.sql(together)
                if source is None:
                    continue
                columns = ", ".join(f"count(x{n}), total(x{n}), min(x{n}), max(x{n})" for n, _ in enumerate(together))
                sql = f"{source.sql} SELECT b, g, {columns} FROM samples GROUP BY g, b"  # noqa: S608
                for bucket, group, *told in self._rows(sql, source.bindings):
                    for place, field in enumerate(together):
                        count, total, low, high = told[4 * place : 4 * place + 4]
                        if count:
                            cell = group * len(self._fields) + places[field]
                            self._found[cell].append((cell, bucket, count, total, low, high, 0))

    def add_windows(self, stretches: Sequence[Sequence[Micros]], width: int, edges: Sequence[object] | None) -> None:
        """Count the windows that start in the stretches of each series."""
        if self._is_straight(width):
            columns = ", ".join(self._columns)
            self._read_straight(
                f"SELECT ?1, start, count, {columns}, 0 FROM ts_windows"  # noqa: S608
                " WHERE series = ?2 AND place = ?3 AND start >= ?4 AND start < ?5 ORDER BY start",
                stretches,
                (),
            )
        else:
            self._read_united("ts_windows", stretches, None, edges)

    def add_rollups(self, width: int, edges: Sequence[object] | None) -> None:
        """Count the rollups of one width that start in the range."""
        stretches = [[self._request.micros]] * len(self._series)
        if self._is_straight(width):
            columns = ", ".join(self._columns)
            self._read_straight(
                f"SELECT ?1, start, count, {columns}, start + width > ?6 FROM ts_rollups"  # noqa: S608
                " WHERE series = ?2 AND place = ?3 AND start >= ?4 AND start < ?5 AND width = ?7 ORDER BY start",
                stretches,
                (self._request.micros[1], width),
            )
        else:
            self._read_united("ts_rollups", stretches, width, edges)

    def _is_straight(self, width: int) -> bool:
        """Whether each window of this width is a bucket, and each group a series."""
        buckets = self._request.buckets
        return (
            self._is_alone
            and isinstance(buckets, FixedBuckets)
            and buckets.width_us == width
            and buckets.origin_us % width == 0
        )

    def _read_straight(self, sql: str, stretches: Sequence[Sequence[Micros]], rest: tuple[int, ...]) -> None:
        ordered = sorted(range(len(self._series)), key=self._groups.__getitem__)
        bindings = (
            (cell, number, place, *span, *rest)
            for rank in ordered
            for cell, number, place in self._entries(rank)
            for span in stretches[rank]
        )
        found: Iterable[Counted] = self._connection.executemany(sql, bindings)
        self._streams.append((cell, list(run)) for cell, run in groupby(found, key=_cell_of))

    def _entries(self, rank: int, only: str | None = None) -> Iterator[tuple[int, int, int]]:
        """Cell, series and place of the fields that a series has, or of a single one."""
        one = self._series[rank]
        places = {name: place for place, name in enumerate(one.shape)}
        for number, field in enumerate(self._fields):
            if field in places and only in (None, field):
                yield self._groups[rank] * len(self._fields) + number, one.number, places[field]

    def _read_united(
        self, table: str, stretches: Sequence[Sequence[Micros]], width: int | None, edges: Sequence[object] | None
    ) -> None:
        bucket, inside, tables, cut = self._walk(table, edges, is_rollup=width is not None)
        columns = [f"w.{name}" if name != "NULL" else name for name in self._columns]
        sql = (
            "WITH chosen AS MATERIALIZED (SELECT CAST(value ->> 0 AS INTEGER) AS cell,"  # noqa: S608
            " CAST(value ->> 1 AS INTEGER) AS series, value ->> 2 AS place, value ->> 3 AS start, value ->> 4 AS until"
            " FROM json_each(:chosen))"
            + ("" if edges is None else _EDGES)
            + f" SELECT c.cell AS cell, {bucket} AS b, sum(w.count), total({columns[0]}), min({columns[1]}),"  # noqa: S608
            f" max({columns[2]}), max({cut}) FROM {tables} WHERE w.series = c.series AND w.place = c.place"
            f" {'' if width is None else 'AND w.width = :width'} {inside} GROUP BY cell, b"
        )
        start, end = self._request.micros
        bindings: dict[str, Any] = {"start": start, "end": end, "width": width, "edges": _json(edges)}
        buckets = self._request.buckets
        if isinstance(buckets, FixedBuckets):
            bindings |= {"origin": buckets.origin_us, "bucket": buckets.width_us}
        is_small = len(self._series) * len(self._fields) <= ENTRIES_A_STATEMENT
        for only in (None,) if is_small else self._fields:
            chosen = [
                (*entry, *span)
                for rank in range(len(self._series))
                for entry in self._entries(rank, only)
                for span in stretches[rank]
            ]
            for entry in self._rows(sql, bindings | {"chosen": _json(chosen)}):
                self._found[entry[0]].append(entry)

    def _walk(self, table: str, edges: Sequence[object] | None, *, is_rollup: bool) -> tuple[str, str, str, str]:
        """The bucket of a window, the bounds of its start, the tables in order, and whether it is cut."""
        bounds = "AND w.start >= c.start AND w.start < c.until"
        if edges is not None:
            # One bound on each side: of two, SQLite would take one for the index and read what is between them.
            bounds = "AND w.start >= max(c.start, e.low) AND w.start < min(c.until, e.high)"
            cut = "w.start + w.width > e.high" if is_rollup else "0"
            return "e.b", bounds, f"chosen c CROSS JOIN edges e CROSS JOIN {table} w", cut
        tables = f"chosen c CROSS JOIN {table} w"
        cut = "w.start + w.width > :end" if is_rollup else "0"
        if self._request.buckets is None:
            return ":start", bounds, tables, cut
        bucket = "w.start - ((w.start - :origin) % :bucket + :bucket) % :bucket"
        if is_rollup:
            cut += f" OR w.start + w.width > {bucket} + :bucket"
        return bucket, bounds, tables, cut

    def _rows(self, sql: str, bindings: dict[str, Any]) -> list[Row]:
        found = rows(self._connection, f"{sql} LIMIT {LIMIT_MAX + 1}", bindings)
        if len(found) > LIMIT_MAX:
            raise too_many_rows()
        return found


_EDGES = (
    ", edges AS MATERIALIZED (SELECT value ->> 0 AS b, value ->> 1 AS low, value ->> 2 AS high FROM json_each(:edges))"
)


def _united(found: Iterable[Counted]) -> list[Counted]:
    """One entry for each bucket: counts and sums are added up."""
    united: dict[int, Counted] = {}
    for entry in found:
        former = united.get(entry[1])
        united[entry[1]] = entry if former is None else _sum(former, entry)
    return list(united.values())


def _sum(one: Counted, other: Counted) -> Counted:
    """Both together; what was not asked for may be None in either."""
    pairs = zip(_UNIONS, one[3:], other[3:], strict=True)
    told: Any = [None if None in (left, right) else of((left, right)) for of, left, right in pairs]
    return (one[0], one[1], one[2] + other[2], *told)


_UNIONS: tuple[Callable[[tuple[Any, Any]], Any], ...] = (sum, min, max, max)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
