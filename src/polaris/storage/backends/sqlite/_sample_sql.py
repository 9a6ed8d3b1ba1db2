"""The numbers of fields as a table: bucket, group, rank of the series, time, and a column for each field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import apsw
import msgspec

from polaris.storage._buckets import CalendarBuckets, FixedBuckets
from polaris.storage._timeseries_requests import AggregateRequest, Micros
from polaris.storage.backends.sqlite._series import COLUMNS, StoredSeries
from polaris.storage.backends.sqlite._sql import row

LAYOUTS_MAX = 16
"""Arrangements of fields in columns that one statement reads; with more, each field is read by itself."""
CALENDAR_SPAN_US = 1_000 * 86_400_000_000
"""Beyond so long a range it is worth while to ask where there is anything, before its days are counted out."""

Layout = tuple[int, tuple[tuple[int, int], ...]]
"""A part, and which of its columns hold which of the fields."""


class Source(NamedTuple):
    """The beginning of a statement that makes a table `samples`, and its parameters."""

    sql: str
    bindings: dict[str, Any]


def hot_extent(connection: apsw.Connection, micros: Micros) -> Micros | None:
    """The part of a range that the hot table reaches into; None when there is none, and it need not be asked."""
    found = row(connection, "SELECT (SELECT min(ts) FROM ts_hot), (SELECT max(ts) FROM ts_hot)")
    if found is None or found[0] is None:
        return None
    start, end = max(micros[0], found[0]), min(micros[1], found[1] + 1)
    return (start, end) if start < end else None


def within(entries: Sequence[tuple[int, ...]], extent: Micros) -> list[tuple[int, ...]]:
    """Those of the entries, which end with a stretch of time, that reach into the extent."""
    return [entry for entry in entries if entry[-2] < extent[1] and entry[-1] > extent[0]]


def is_walked_by_span(stretches: Sequence[Sequence[Micros]]) -> bool:
    """Whether the hot rows are better looked up for each stretch than each of them compared with all of its series."""
    return len(stretches) ** 2 < sum(map(len, stretches))


class Samples:
    """Makes the statements of one request. The hot table is walked by time, the cold one by series."""

    def __init__(
        self,
        connection: apsw.Connection,
        series: Sequence[StoredSeries],
        groups: Sequence[int],
        request: AggregateRequest,
        stretches: Sequence[Sequence[Micros]] | None = None,
    ) -> None:
        """`stretches`: of each series the parts of the range that are read; all of it without them."""
        self.connection = connection
        self._stretches = stretches
        self.request = request
        self._series = series
        self._groups = groups
        self._starts: list[tuple[int, int, int]] | None = None

    @cached_property
    def _hot(self) -> Micros | None:
        return hot_extent(self.connection, self.request.micros)

    def readable_together(self, fields: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """The fields in sets that one statement each can read."""
        if len(self._layouts(fields)) <= LAYOUTS_MAX:
            yield fields
        else:
            yield from ((field,) for field in fields)

    def sql(self, fields: tuple[str, ...]) -> Source | None:
        """The samples of the fields, as `x0`, `x1` and so on; None when no series has any of them."""
        layouts = self._layouts(fields)
        if not layouts:
            return None
        bindings = self._bindings()
        chosen: list[tuple[int, ...]]
        spans: Sequence[Sequence[Micros | tuple[()]]] = self._stretches or [((),)] * len(self._series)
        tables = ("cold",) if self._hot is None else ("hot", "cold")
        if len(layouts) <= LAYOUTS_MAX:
            columns_of, first = "value ->> 3 AS layout", 4
            chosen = [
                (self._series[rank].number, rank, self._groups[rank], place, *span)
                for place, ranks in enumerate(layouts.values())
                for rank in ranks
                for span in spans[rank]
            ]
            selections = [
                self._selection(table, layout, f"c.layout = {place}", len(fields))
                for place, layout in enumerate(layouts)
                for table in tables
            ]
        else:
            columns_of, first = "value ->> 3 AS part, value ->> 4 AS place", 5
            chosen = [
                (self._series[rank].number, rank, self._groups[rank], part, columns[0][1], *span)
                for (part, columns), ranks in layouts.items()
                for rank in ranks
                for span in spans[rank]
            ]
            selections = [self._selection(table, None, "p.part = c.part", 1) for table in tables]
        with_clause = self._chosen_table("chosen", f"{columns_of}{self._span_columns(first)}")
        bindings["chosen"] = msgspec.json.encode(chosen).decode()
        if self._hot is not None:
            with_clause += f", {self._chosen_table('late', f'{columns_of}{self._span_columns(first)}')}"
            late = chosen if self._stretches is None else within(chosen, self._hot)
            bindings["late"] = msgspec.json.encode(late).decode()
        if self._is_calendar:
            with_clause += (
                ", edges AS MATERIALIZED (SELECT value ->> 0 AS b, value ->> 1 AS low, value ->> 2 AS high"
                " FROM json_each(:edges))"
            )
        return Source(f"WITH {with_clause}, samples AS ({' UNION ALL '.join(selections)})", bindings)

    @staticmethod
    def _chosen_table(name: str, columns: str) -> str:
        # Without its cast the number of the series has no type, and SQLite would not look it up for the hot rows.
        return (
            f"{name} AS MATERIALIZED (SELECT CAST(value ->> 0 AS INTEGER) AS series, value ->> 1 AS rank,"  # noqa: S608
            f" value ->> 2 AS g, {columns} FROM json_each(:{name}))"
        )

    def _span_columns(self, first: int) -> str:
        return "" if self._stretches is None else f", value ->> {first} AS start, value ->> {first + 1} AS until"

    @property
    def _is_calendar(self) -> bool:
        return isinstance(self.request.buckets, CalendarBuckets)

    def _layouts(self, fields: tuple[str, ...]) -> dict[Layout, list[int]]:
        """Which series, by rank, hold the fields in which columns."""
        by_shape: dict[int, list[Layout]] = {}
        found: dict[Layout, list[int]] = {}
        for rank, one in enumerate(self._series):
            layouts = by_shape.get(one.shape_number)
            if layouts is None:
                layouts = by_shape[one.shape_number] = _layouts_of(one, fields)
            for layout in layouts:
                found.setdefault(layout, []).append(rank)
        return found

    def _selection(self, table: str, layout: Layout | None, condition: str, fields_count: int) -> str:
        """The samples of one arrangement in one of the tables."""
        if layout is None:
            columns = [f"CASE c.place {' '.join(f'WHEN {n} THEN p.c{n}' for n in range(COLUMNS))} END"]
        else:
            columns = ["NULL"] * fields_count
            for place, column in layout[1]:
                columns[place] = f"p.c{column}"
            condition += f" AND p.part = {layout[0]}"
        if fields_count == 1:
            # Numbers are what sorts before all texts. Of a single field, what is no number makes no row at all.
            condition += f" AND {columns[0]} < ''"
        else:
            columns = [
                column if column == "NULL" else f"CASE WHEN {column} < '' THEN {column} END" for column in columns
            ]
        values = ", ".join(f"{column} AS x{place}" for place, column in enumerate(columns))
        bucket, tables, inside = self._bucket(table)
        return (
            f"SELECT {bucket} AS b, c.g AS g, c.rank AS rank, p.ts AS ts, {values} FROM {tables}"  # noqa: S608
            f" WHERE p.series = c.series AND {inside} AND {condition}"
        )

    def _bucket(self, table: str) -> tuple[str, str, str]:
        """The start of a row's bucket, the tables in the order in which they are walked, and the bounds of time."""
        buckets = self.request.buckets
        within = "" if self._stretches is None else " AND p.ts >= c.start AND p.ts < c.until"
        if self._is_calendar:
            if table == "hot":
                return (
                    "e.b",
                    "edges e CROSS JOIN ts_hot p CROSS JOIN late c",
                    f"p.ts >= e.low AND p.ts < e.high{within}",
                )
            inside = "p.ts >= e.low AND p.ts < e.high"
            if within:  # one bound on each side: of two, SQLite would take one for the index and read what is between
                inside = "p.ts >= max(c.start, e.low) AND p.ts < min(c.until, e.high)"
            return "e.b", "chosen c CROSS JOIN edges e CROSS JOIN ts_cold p", inside
        bucket = ":start"
        if isinstance(buckets, FixedBuckets):
            bucket = "p.ts - ((p.ts - :origin) % :width + :width) % :width"
        if table == "hot":
            if self._stretches is not None and is_walked_by_span(self._stretches):
                return bucket, "late c CROSS JOIN ts_hot p", within[5:]
            return bucket, "ts_hot p CROSS JOIN late c", f"p.ts >= :start AND p.ts < :end{within}"
        return bucket, "chosen c CROSS JOIN ts_cold p", within[5:] or "p.ts >= :start AND p.ts < :end"

    def _bindings(self) -> dict[str, Any]:
        start, end = self.request.micros
        buckets = self.request.buckets
        if self._is_calendar:
            return {"edges": msgspec.json.encode(self.edges()).decode()}
        if isinstance(buckets, FixedBuckets):
            return {"start": start, "end": end, "origin": buckets.origin_us, "width": buckets.width_us}
        return {"start": start, "end": end}

    def edges(self) -> list[tuple[int, int, int]]:
        """The start of each bucket of a calendar, and its part of the range."""
        if self._starts is None:
            self._starts = self._counted_out()
        return self._starts

    def _counted_out(self) -> list[tuple[int, int, int]]:
        assert isinstance(self.request.buckets, CalendarBuckets)  # noqa: S101 # by the caller
        start, end = self.request.micros
        if end - start > CALENDAR_SPAN_US:
            start, end = self._extent(start, end)
        if start >= end:
            return []
        starts = self.request.buckets.starts(start, end - 1)
        return [(first, max(first, start), min(following, end)) for first, following in pairwise([*starts, end])]

    def _extent(self, start: int, end: int) -> Micros:
        """The range of time in which the series have anything."""
        sql = (
            "WITH chosen AS MATERIALIZED (SELECT CAST(value AS INTEGER) AS series FROM json_each(:chosen)), ends AS ("
            "SELECT p.ts AS low, p.ts AS high FROM ts_hot p CROSS JOIN chosen c"
            " WHERE p.series = c.series AND p.ts >= :start AND p.ts < :end"
            " UNION ALL SELECT"
            " (SELECT min(p.ts) FROM ts_cold p WHERE p.series = c.series AND p.ts >= :start AND p.ts < :end),"
            " (SELECT max(p.ts) FROM ts_cold p WHERE p.series = c.series AND p.ts >= :start AND p.ts < :end)"
            " FROM chosen c) SELECT min(low), max(high) + 1 FROM ends"
        )
        numbers = msgspec.json.encode([one.number for one in self._series]).decode()
        found = row(self.connection, sql, {"chosen": numbers, "start": start, "end": end})
        return (start, start) if found is None or found[0] is None else (int(found[0]), int(found[1]))


def _layouts_of(series: StoredSeries, fields: tuple[str, ...]) -> list[Layout]:
    parts: dict[int, list[tuple[int, int]]] = {}
    places = {name: place for place, name in enumerate(series.shape)}
    for wanted, field in enumerate(fields):
        place = places.get(field)
        if place is not None:
            parts.setdefault(place // COLUMNS, []).append((wanted, place % COLUMNS))
    return [(part, tuple(columns)) for part, columns in sorted(parts.items())]
