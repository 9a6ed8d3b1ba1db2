"""Aggregates over points, summaries of windows, and rollups of points that are gone: the union of the three is exact.

A window's summary stands for its points where nothing was written to it since; all else is read point by point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import apsw
import msgspec

from polaris.storage._aggregates import Cell, Number, group_of, rows_of, too_many_rows
from polaris.storage._aggregation import AggregatedRow, AggregationType, percent_of
from polaris.storage._buckets import FixedBuckets
from polaris.storage._limits import LIMIT_MAX
from polaris.storage._ranges import TIME_MIN, to_micros
from polaris.storage._rollup_cells import Reading, Rollup, SeriesContent, aggregate_united
from polaris.storage._rollup_summaries import Summary
from polaris.storage._rollups import ceiling, floor
from polaris.storage._timeseries_requests import AggregateRequest, Micros, SeriesKey
from polaris.storage.backends.sqlite._aggregate_sql import aggregate
from polaris.storage.backends.sqlite._rollup_sql import BASE, OVER_PIECES
from polaris.storage.backends.sqlite._rollups import SUMMARY_COLUMNS, CollectionPolicy
from polaris.storage.backends.sqlite._series import COLUMNS, StoredSeries
from polaris.storage.backends.sqlite._sql import Row, rows

_TIME_MIN_US = to_micros(TIME_MIN)
_NEEDS_ORDER = (AggregationType.RATE, AggregationType.INCREASE)


def aggregate_rolled_up(
    connection: apsw.Connection, series: Sequence[StoredSeries], request: AggregateRequest, policy: CollectionPolicy
) -> list[AggregatedRow]:
    """The aggregates of every field asked for, of a collection that has or had rollups."""
    if not series or request.micros[0] >= request.micros[1]:
        return []
    read = _RolledUpRead(connection, series, request, policy)
    return read.rows()


class _Cells:
    """The results, put together: a count and a value of every name for each cell."""

    def __init__(self, request: AggregateRequest) -> None:
        self._request = request
        self._cells: dict[Cell, tuple[int, dict[str, Number | None]]] = {}
        self.approximate: set[Cell] = set()

    def count(self, cell: Cell, count: int, *, approximate: bool) -> dict[str, Number | None]:
        values: dict[str, Number | None] = dict.fromkeys(self._request.of(cell[2]))
        self._cells[cell] = (count, values)
        if approximate:
            self.approximate.add(cell)
        return values

    def put(self, cell: Cell, name: str, value: Number | None) -> None:
        self._cells[cell][1][name] = value

    def rows(self) -> list[AggregatedRow]:
        found = rows_of((cell, count, values) for cell, (count, values) in self._cells.items())
        if not self.approximate:
            return found
        return [
            msgspec.structs.replace(row, approximate=True) if cell in self.approximate else row
            for cell, row in zip(sorted(self._cells), found, strict=True)
        ]


class _RolledUpRead:
    """One request, its series, and which parts of them are read in which way."""

    def __init__(
        self,
        connection: apsw.Connection,
        series: Sequence[StoredSeries],
        request: AggregateRequest,
        policy: CollectionPolicy,
    ) -> None:
        self._connection = connection
        self._series = series
        self._request = request
        self._policy = policy
        numbered: dict[SeriesKey, int] = {}
        self._groups = [numbered.setdefault(group_of(one.tags, request.group_by), len(numbered)) for one in series]
        self._names = list(numbered)
        self._edges = self._counted_out()
        self._window_us = self._usable_window()
        self._raw, self._summarised = self._split()

    def rows(self) -> list[AggregatedRow]:
        request = self._request
        fields = request.fields
        if fields is None:
            fields = tuple(dict.fromkeys(name for one in self._series for name in one.shape))
        has_rollups = self._has_rollups()
        if not has_rollups and not self._summarised:
            return aggregate(self._connection, self._series, request)
        by_hand = {
            field: tuple(name for name in request.of(field) if self._is_by_hand(name, has_rollups=has_rollups))
            for field in fields
        }
        cells = _Cells(request)
        for field in fields:
            self._reduce(field, [name for name in request.of(field) if name not in by_hand[field]], cells)
        if any(by_hand.values()):
            rest = msgspec.structs.replace(
                request, fields=tuple(name for name in fields if by_hand[name]), aggregations=(), by_field=by_hand
            )
            found = self._united(rest) if has_rollups else aggregate(self._connection, self._series, rest)
            self._take(found, cells)
        return cells.rows()

    @staticmethod
    def _is_by_hand(name: str, *, has_rollups: bool) -> bool:
        """Whether an aggregation cannot be read from summaries alone."""
        return percent_of(name) is not None or (has_rollups and name in _NEEDS_ORDER)

    @staticmethod
    def _take(found: Sequence[AggregatedRow], cells: _Cells) -> None:
        for row in found:
            cell = (to_micros(row.timestamp), tuple(row.tags.items()), row.field)
            for name, value in row.values.items():
                cells.put(cell, name, value)
            if row.approximate:
                cells.approximate.add(cell)

    # Which parts are read in which way

    def _counted_out(self) -> list[tuple[int, int, int]] | None:
        """The start of each bucket of a calendar, and its part of the range; None for other buckets."""
        buckets = self._request.buckets
        if buckets is None or isinstance(buckets, FixedBuckets):
            return None
        start, end = self._request.micros
        starts = buckets.starts(start, end - 1)
        return [(first, max(first, start), min(following, end)) for first, following in pairwise([*starts, end])]

    def _usable_window(self) -> int | None:
        """The width of the windows when every one of them is in one bucket."""
        width = self._policy.window_us
        buckets = self._request.buckets
        if width is None or buckets is None:
            return width
        if isinstance(buckets, FixedBuckets):
            return width if buckets.width_us % width == 0 and buckets.origin_us % width == 0 else None
        assert self._edges is not None  # noqa: S101 # of a calendar
        return width if all(start % width == 0 for start, _, _ in self._edges) else None

    def _split(self) -> tuple[list[list[Micros]], list[list[Micros]] | None]:
        """Of each series the stretches that are read point by point, and those whose windows stand for them."""
        start, end = self._request.micros
        width = self._window_us
        whole = (start, end) if width is None else (ceiling(start, width), floor(end, width))
        if width is None or whole[0] >= whole[1]:
            return [[(start, end)] for _ in self._series], None
        dirty: dict[int, list[Micros]] = {}
        for low, number, high in rows(
            self._connection, "SELECT start, series, until FROM ts_dirty WHERE start < ? AND until > ?", (end, start)
        ):
            dirty.setdefault(number, []).append((floor(low, width), ceiling(high, width)))
        raw: list[list[Micros]] = []
        summarised: list[list[Micros]] = []
        for one in self._series:
            points, windows = _parts((start, end), whole, sorted(dirty.get(one.number, ())))
            raw.append(points)
            summarised.append(windows)
        return raw, summarised if any(summarised) else None

    def _has_rollups(self) -> bool:
        if not self._policy.widths:
            return False
        start, end = self._request.micros
        found = rows(
            self._connection,
            "SELECT 1 FROM json_each(?) c CROSS JOIN json_each(?) w CROSS JOIN json_each(?) n CROSS JOIN ts_rollups r"
            " WHERE r.series = c.value AND r.place = n.value AND r.width = w.value AND r.start >= ? AND r.start < ?"
            " LIMIT 1",
            (
                _json([one.number for one in self._series]),
                _json(self._policy.widths),
                _json(list(range(max(len(one.shape) for one in self._series)))),
                start,
                end,
            ),
        )
        return bool(found)

    # Reading

    def _reduce(self, field: str, names: Sequence[str], cells: _Cells) -> None:
        """Put the values of one field, as far as pieces tell them, into their cells."""
        source = self._pieces(field)
        if source is None:
            return
        sql, bindings = source
        for start, group, count, total, low, high, is_cut in self._rows(f"{sql}{BASE}", bindings):
            bucket = max(start, _TIME_MIN_US)  # as the timestamp will show it
            values = cells.count((bucket, self._names[group], field), count, approximate=bool(is_cut))
            simple = {
                AggregationType.COUNT: count,
                AggregationType.SUM: total,
                AggregationType.AVG: total / count,
                AggregationType.MIN: low,
                AggregationType.MAX: high,
            }
            values.update((name, simple[AggregationType(name)]) for name in names if name in simple)
        for name in names:
            if name in OVER_PIECES:
                for bucket, group, value in self._rows(f"{sql}{OVER_PIECES[name]}", bindings):
                    cells.put((max(bucket, _TIME_MIN_US), self._names[group], field), name, value)

    def _rows(self, sql: str, bindings: dict[str, Any]) -> list[Row]:
        found = rows(self._connection, f"{sql} LIMIT {LIMIT_MAX + 1}", bindings)
        if len(found) > LIMIT_MAX:
            raise too_many_rows()
        return found

    def _pieces(self, field: str) -> tuple[str, dict[str, Any]] | None:
        """The beginning of a statement that makes a table `pieces` of what is known of a field, and its parameters."""
        chosen = [(rank, one.shape.index(field)) for rank, one in enumerate(self._series) if field in one.shape]
        if not chosen:
            return None
        start, end = self._request.micros
        bindings: dict[str, Any] = {"start": start, "end": end, "widths": _json(self._policy.widths)}
        buckets = self._request.buckets
        if isinstance(buckets, FixedBuckets):
            bindings |= {"origin": buckets.origin_us, "bucket": buckets.width_us}

        def spans(of: Sequence[Sequence[Micros]]) -> str:
            return _json(
                [
                    (self._series[rank].number, rank, self._groups[rank], place, *span)
                    for rank, place in chosen
                    for span in of[rank]
                ]
            )

        bindings["points"] = spans(self._raw)
        bindings["series"] = spans([[(start, end)]] * len(self._series))
        with_clause = [_span_table("points"), _span_table("series")]
        if self._edges is not None:
            bindings["edges"] = _json(self._edges)
            with_clause.append(
                "edges AS MATERIALIZED (SELECT value ->> 0 AS b, value ->> 1 AS low, value ->> 2 AS high"
                " FROM json_each(:edges))"
            )
        parts = [self._points(place, table) for place in sorted({p for _, p in chosen}) for table in ("hot", "cold")]
        if self._summarised is not None:
            bindings["windows"] = spans(self._summarised)
            with_clause.append(_span_table("windows"))
            parts.append(self._windows())
        parts.append(self._rollups())
        return f"WITH {', '.join(with_clause)}, pieces AS ({' UNION ALL '.join(parts)})", bindings

    def _points(self, place: int, table: str) -> str:
        column = f"p.c{place % COLUMNS}"
        bucket, inside = self._bucket("p.ts")
        edges = "" if self._edges is None else "edges e CROSS JOIN "
        tables = f"{edges}ts_hot p CROSS JOIN points c" if table == "hot" else f"{edges}points c CROSS JOIN ts_cold p"
        bounds = "AND p.ts >= :start AND p.ts < :end " if table == "hot" else ""
        return (
            f"SELECT {bucket} AS b, c.g AS g, c.rank AS rank, 0 AS source, 1 AS count, {column} AS total,"  # noqa: S608
            f" {column} AS low, {column} AS high, p.ts AS first_ts, {column} AS first, p.ts AS last_ts,"
            f" {column} AS last, 0.0 AS spread, 0.0 AS rise, 0 AS is_cut FROM {tables}"
            f" WHERE p.series = c.series AND c.place = {place} AND p.part = {place // COLUMNS} {bounds}{inside}"
            f" AND p.ts >= c.start AND p.ts < c.until AND typeof({column}) IN ('integer', 'real')"
        )

    def _windows(self) -> str:
        bucket, inside = self._bucket("w.start")
        edges = "" if self._edges is None else "edges e CROSS JOIN "
        columns = ", ".join(f"w.{name}" for name in SUMMARY_COLUMNS.split(", "))
        return (
            f"SELECT {bucket}, c.g, c.rank, 1, {columns}, 0 FROM {edges}windows c CROSS JOIN ts_windows w"  # noqa: S608
            f" WHERE w.series = c.series AND w.place = c.place AND w.start >= c.start AND w.start < c.until {inside}"
        )

    def _rollups(self) -> str:
        bucket, inside = self._bucket("r.start")
        edges = "" if self._edges is None else "edges e CROSS JOIN "
        columns = ", ".join(f"r.{name}" for name in SUMMARY_COLUMNS.split(", "))
        buckets = self._request.buckets
        cut = "r.start + r.width > :end"
        if self._edges is not None:
            cut = "r.start + r.width > e.high"
        elif isinstance(buckets, FixedBuckets):
            cut += f" OR r.start + r.width > {bucket} + :bucket"
        return (
            f"SELECT {bucket}, c.g, c.rank, 2, {columns}, {cut}"  # noqa: S608
            f" FROM {edges}series c CROSS JOIN json_each(:widths) v CROSS JOIN ts_rollups r"
            " WHERE r.series = c.series AND r.place = c.place AND r.width = v.value"
            f" AND r.start >= c.start AND r.start < c.until {inside}"
        )

    def _bucket(self, column: str) -> tuple[str, str]:
        """The start of the bucket of an instant, and what else must hold of the instant."""
        if self._edges is not None:
            return "e.b", f"AND {column} >= e.low AND {column} < e.high"
        if self._request.buckets is None:
            return ":start", ""
        return f"{column} - (({column} - :origin) % :bucket + :bucket) % :bucket", ""

    # By hand: what needs all numbers in order, or sketches

    def _united(self, request: AggregateRequest) -> list[AggregatedRow]:
        return aggregate_united(request, self._contents(frozenset(request.fields or ())))

    def _contents(self, fields: frozenset[str]) -> Iterator[SeriesContent]:
        start, end = self._request.micros
        widths = _json(self._policy.widths)
        for one in self._series:
            places = {place: name for place, name in enumerate(one.shape) if name in fields}
            found = rows(
                self._connection,
                f"SELECT r.start, r.width, r.place, {SUMMARY_COLUMNS}, sketch FROM json_each(?) n"  # noqa: S608
                " CROSS JOIN json_each(?) w CROSS JOIN ts_rollups r WHERE r.series = ? AND r.place = n.value"
                " AND r.width = w.value AND r.start >= ? AND r.start < ?",
                (_json(list(places)), widths, one.number, start, end),
            )
            rollups = [Rollup(first, width, places[place], Summary(*rest)) for first, width, place, *rest in found]
            yield SeriesContent(one.tags, self._readings(one, places), sorted(rollups, key=_when))

    def _readings(self, series: StoredSeries, places: dict[int, str]) -> list[Reading]:
        start, end = self._request.micros
        found: list[Reading] = []
        for place, name in places.items():
            column = f"c{place % COLUMNS}"
            sql = " UNION ALL ".join(
                f"SELECT ts, {column} AS x FROM {table} WHERE series = :series AND ts >= :start AND ts < :end"  # noqa: S608
                f" AND part = {place // COLUMNS} AND typeof({column}) IN ('integer', 'real')"
                for table in ("ts_hot", "ts_cold")
            )
            bindings = {"series": series.number, "start": start, "end": end}
            found += [(ts, name, value) for ts, value in rows(self._connection, f"{sql} ORDER BY ts", bindings)]
        return found


def _when(rollup: Rollup) -> tuple[int, int]:
    return rollup.start_us, rollup.width_us


def _parts(whole_range: Micros, whole: Micros, dirty: Sequence[Micros]) -> tuple[list[Micros], list[Micros]]:
    """The range without the clean windows inside `whole`, and these; the dirty spans come in order and may overlap."""
    points: list[Micros] = []
    windows: list[Micros] = []
    at = whole_range[0]
    clean_from = whole[0]
    for low, high in (*dirty, (whole[1], whole[1])):
        clean_until = min(low, whole[1])
        if clean_until > clean_from:
            if at < clean_from:
                points.append((at, clean_from))
            windows.append((clean_from, clean_until))
            at = clean_until
        clean_from = max(clean_from, high)
    if at < whole_range[1]:
        points.append((at, whole_range[1]))
    return points, windows


def _span_table(name: str) -> str:
    return (
        f"{name} AS MATERIALIZED (SELECT CAST(value ->> 0 AS INTEGER) AS series, value ->> 1 AS rank,"  # noqa: S608
        f" value ->> 2 AS g, value ->> 3 AS place, value ->> 4 AS start, value ->> 5 AS until FROM json_each(:{name}))"
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
