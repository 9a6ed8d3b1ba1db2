"""Counting what points, summaries of windows and rollups know of each bucket: the union of the three is exact.

Where every bucket is one window of one series, rows are read as they lie in the file; everything else is united by SQL.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby, islice, repeat
from operator import itemgetter
from typing import Any

import apsw
import msgspec

from polaris.storage._aggregates import too_many_rows, total_of
from polaris.storage._aggregation import AggregationType
from polaris.storage._buckets import FixedBuckets
from polaris.storage._limits import LIMIT_MAX
from polaris.storage._timeseries_requests import AggregateRequest, Micros
from polaris.storage.backends.shared._row_table import NONE_IS_CUT, Columns, Counted
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
_NOTHING = repeat(None)
_FIVE = ", ".join(f"value ->> {place}" for place in range(5))
Run = tuple[int, Columns]
"""A cell and what is known of it."""


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
        self._streams: list[Iterator[tuple[int, Columns | None]]] = []
        self._found: defaultdict[int, list[Counted]] = defaultdict(list)

    def cells(self) -> Iterator[Run]:
        """Each cell that has numbers, in ascending order, with one entry for each of its buckets."""
        merged = heapq.merge(*self._streams, ((cell, None) for cell in sorted(self._found)), key=_cell_of)
        for cell, runs in groupby(merged, key=_cell_of):
            straight = [columns for _, columns in runs if columns is not None]
            found = self._found.get(cell, [])
            if len(straight) == 1 and (not found or min(entry[1] for entry in found) > straight[0].starts[-1]):
                yield cell, _joined(straight[0], found)
                continue
            found = [*found, *(entry for one in straight for entry in zip(repeat(cell), *one, strict=False))]
            if len({entry[1] for entry in found}) < len(found):
                found = _united(found)
            _, *columns = zip(*found, strict=True)
            yield cell, Columns(*columns)

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
            self._read_straight("ts_windows", "", stretches, {})
        else:
            self._read_united("ts_windows", stretches, None, edges)

    def add_rollups(self, width: int, edges: Sequence[object] | None) -> None:
        """Count the rollups of one width that start in the range."""
        stretches = [[self._request.micros]] * len(self._series)
        if self._is_straight(width):
            self._read_straight("ts_rollups", "AND width = :width", stretches, {"width": width})
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

    def _read_straight(
        self, table: str, condition: str, stretches: Sequence[Sequence[Micros]], bindings: dict[str, Any]
    ) -> None:
        """Read the windows of a table as they lie in the file, a statement for each field of each series."""
        asked = [name for name in self._columns if name != "NULL"]
        sql = (
            f"SELECT {', '.join(['start', 'count', *asked])} FROM {table} WHERE series = :series"  # noqa: S608
            f" AND place = :place AND start >= :low AND start < :high {condition} ORDER BY start"
        )
        ordered = sorted(range(len(self._series)), key=self._groups.__getitem__)
        chosen = [(*entry, *span) for rank in ordered for entry in self._entries(rank) for span in stretches[rank]]
        end = self._request.micros[1]

        def read() -> Iterator[tuple[int, Columns | None]]:
            # A statement that stays open: an interruption between two others reaches the next one.
            entries = self._connection.execute(f"SELECT {_FIVE} FROM json_each(?)", (_json(chosen),))  # noqa: S608
            with closing(entries):
                for cell, of_cell in groupby(entries, key=_cell_of):
                    found: list[Row] = []
                    for _, series, place, low, high in of_cell:
                        bound = {"series": series, "place": place, "low": low, "high": high}
                        found += rows(self._connection, sql, bound | bindings)
                    if found:
                        starts, counts, *told = zip(*found, strict=True)
                        by_name = dict(zip(asked, told, strict=True))
                        total, low, high = (by_name.get(name, _NOTHING) for name in ("total", "low", "high"))
                        cuts = [start + bindings["width"] > end for start in starts] if bindings else NONE_IS_CUT
                        yield cell, Columns(starts, counts, total, low, high, cuts)

        self._streams.append(read())

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
            + f" SELECT c.cell AS cell, {bucket} AS b, sum(w.count),"  # noqa: S608
            f" ifnull(total({columns[0]}), 9e999), min({columns[1]}),"  # NULL: infinite sums of both signs
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


def _joined(known: Columns, later: Sequence[Counted]) -> Columns:
    """The columns with what is known of buckets behind theirs, which are few: those that are not summarised yet."""
    if not later:
        return known
    _, starts, counts, *told = zip(*sorted(_united(later), key=itemgetter(1)), strict=True)
    total, low, high = (
        one if one is _NOTHING else (*one, *more) for one, more in zip(known[2:5], told[:3], strict=True)
    )
    cuts = known.cuts
    if cuts is not NONE_IS_CUT or any(told[3]):
        cuts = (*islice(cuts, len(known.starts)), *told[3])
    return Columns((*known.starts, *starts), (*known.counts, *counts), total, low, high, cuts)


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


_UNIONS: tuple[Callable[[tuple[Any, Any]], Any], ...] = (total_of, min, max, max)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
