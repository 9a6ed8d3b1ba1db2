"""Aggregates over points, summaries of windows, and rollups of points that are gone: the union of the three is exact.

A window's summary stands for its points where nothing was written to it since; all else is read point by point.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite
from typing import Any

import apsw
import msgspec

from polaris.storage._aggregates import group_of, too_many_rows
from polaris.storage._aggregation import AggregatedRow, AggregationType, percent_of
from polaris.storage._buckets import FixedBuckets
from polaris.storage._limits import LIMIT_MAX
from polaris.storage._rollups import ceiling, floor
from polaris.storage._timeseries_requests import AggregateRequest, Micros
from polaris.storage.backends.shared._row_table import RowTable
from polaris.storage.backends.sqlite._aggregate_cells import CellReads, of_numbers, parts_of
from polaris.storage.backends.sqlite._aggregate_sql import aggregate
from polaris.storage.backends.sqlite._rollup_scan import PieceScan
from polaris.storage.backends.sqlite._rollup_sql import OVER_PIECES
from polaris.storage.backends.sqlite._rollup_streams import IN_ORDER, StreamedRead
from polaris.storage.backends.sqlite._rollups import SUMMARY_COLUMNS, CollectionPolicy
from polaris.storage.backends.sqlite._sample_sql import hot_extent, is_walked_by_span, within
from polaris.storage.backends.sqlite._series import COLUMNS, StoredSeries
from polaris.storage.backends.sqlite._sql import Row, rows, scalar

_PIECE = f"b, g, rank, source, {SUMMARY_COLUMNS}, is_cut"
_TOLD_PIECES = f"SELECT {', '.join(f'value ->> {n}' for n in range(_PIECE.count(',')))}, 0 FROM json_each(:told)"  # noqa: S608
_ENDS = frozenset((AggregationType.FIRST, AggregationType.LAST))
LISTED_MAX = 1_000
"""Series whose spans alone are taken from the list of what was written to; of more, all of it is read."""
CUTS_MAX = 20_000
"""Windows that are cut by buckets and read point by point, of all series; beyond it everything is."""


def aggregate_rolled_up(
    connection: apsw.Connection, series: Sequence[StoredSeries], request: AggregateRequest, policy: CollectionPolicy
) -> list[AggregatedRow]:
    """The aggregates of every field asked for, of a collection that has or had rollups."""
    if not series or request.micros[0] >= request.micros[1]:
        return []
    read = _RolledUpRead(connection, series, request, policy)
    return read.rows()


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
        keys = [group_of(one.tags, request.group_by) for one in series]
        self._names = sorted(set(keys))
        numbers = {key: number for number, key in enumerate(self._names)}
        self._groups = [numbers[key] for key in keys]
        self._edges = self._counted_out()
        self._raw, self._summarised = self._split()
        self._parts = parts_of(request, self._raw[0], self._edges) if len(series) == 1 else None
        """What is read point by point, in parts of buckets that are worth a statement each."""

    def rows(self) -> list[AggregatedRow]:
        request = self._request
        fields = tuple(sorted(request.fields or {name for one in self._series for name in one.shape}))
        widths = self._rollup_widths(fields)
        are_points = all(percent_of(name) is not None for field in fields for name in request.of(field) or ("",))
        if not widths and (are_points or not self._summarised):
            return aggregate(self._connection, self._series, request)
        table = RowTable(request, self._names, fields)
        self._count(fields, widths, table)
        exact: dict[str, tuple[str, ...]] = {}
        streams = StreamedRead(self._connection, self._series, self._groups, request, widths, self._edges)
        for field in fields:
            names = request.of(field)
            in_order = [name for name in names if widths and name in IN_ORDER]
            self._reduce(field, [name for name in names if name in OVER_PIECES and name not in in_order], table)
            if in_order:
                streams.put_rises(field, in_order, table)
            exact[field] = tuple(name for name in names if percent_of(name) is not None)
        if any(exact.values()):
            named = tuple(field for field in fields if exact[field])
            rest = msgspec.structs.replace(request, fields=named, aggregations=(), by_field=exact)
            table.take(aggregate(self._connection, self._series, rest))
            for field in named:
                streams.put_percentiles(field, exact[field], table)
        return table.rows()

    # Which parts are read in which way

    def _counted_out(self) -> list[tuple[int, int, int]] | None:
        """The start of each bucket of a calendar, and its part of the range; None for other buckets."""
        buckets = self._request.buckets
        if buckets is None or isinstance(buckets, FixedBuckets):
            return None
        start, end = self._request.micros
        starts = buckets.starts(start, end - 1)
        return [(first, max(first, start), min(following, end)) for first, following in pairwise([*starts, end])]

    def _cuts(self) -> list[Micros] | None:
        """The windows that lie in two buckets, in order; None when no window is of use."""
        width = self._policy.window_us
        if width is None:
            return None
        buckets = self._request.buckets
        if buckets is None:
            return []
        if not isinstance(buckets, FixedBuckets):
            assert self._edges is not None  # noqa: S101 # of a calendar
            return [] if all(start % width == 0 for start, _, _ in self._edges) else None
        if buckets.width_us % width == 0 and buckets.origin_us % width == 0:
            return []
        start, end = self._request.micros
        if buckets.width_us < 2 * width or (end - start) // buckets.width_us * len(self._series) > CUTS_MAX:
            return None
        edges = range(buckets.start_of(start) + buckets.width_us, end, buckets.width_us)
        return [(floor(edge, width), floor(edge, width) + width) for edge in edges if edge % width]

    def _split(self) -> tuple[list[list[Micros]], list[list[Micros]] | None]:
        """Of each series the stretches that are read point by point, and those whose windows stand for them."""
        start, end = self._request.micros
        width = self._policy.window_us
        cuts = self._cuts()
        whole = (start, end) if width is None else (ceiling(start, width), floor(end, width))
        if width is None or cuts is None or whole[0] >= whole[1]:
            return [[(start, end)] for _ in self._series], None
        sql = "SELECT start, series, until FROM ts_dirty WHERE start < ?1 AND until > ?2"
        bindings: list[object] = [end, start]
        if len(self._series) <= LISTED_MAX:
            sql += " AND series IN (SELECT value FROM json_each(?3))"
            bindings.append(_json([one.number for one in self._series]))
        dirty: dict[int, list[Micros]] = {}
        for low, number, high in rows(self._connection, sql, bindings):
            dirty.setdefault(number, []).append((floor(low, width), ceiling(high, width)))
        raw: list[list[Micros]] = []
        summarised: list[list[Micros]] = []
        for one in self._series:
            points, windows = _parts((start, end), whole, sorted([*cuts, *dirty.get(one.number, ())]))
            raw.append(points)
            summarised.append(windows)
        return raw, summarised if any(summarised) else None

    def _rollup_widths(self, fields: Sequence[str]) -> list[int]:
        """The widths of which there are rollups in the range."""
        if not scalar(self._connection, "SELECT EXISTS (SELECT 1 FROM ts_rollups)"):
            return []
        wanted = set(fields)
        places = [
            (one.number, place)
            for one in self._series
            for place, name in enumerate(one.shape if self._policy.widths else ())
            if name in wanted
        ]
        sql = (
            "SELECT EXISTS (SELECT 1 FROM json_each(?1) c CROSS JOIN ts_rollups r WHERE r.series = c.value ->> 0"
            " AND r.place = c.value ->> 1 AND r.width = ?2 AND r.start >= ?3 AND r.start < ?4)"
        )
        text = _json(places)
        return [
            width
            for width in self._policy.widths
            if scalar(self._connection, sql, (text, width, *self._request.micros))
        ]

    # Reading

    def _count(self, fields: Sequence[str], widths: Sequence[int], table: RowTable) -> None:
        """Make the rows, with all that can be told from counts, sums and extremes."""
        scan = PieceScan(self._connection, self._series, self._groups, self._request, fields)
        if self._parts is None:
            scan.add_points(self._raw)
        else:
            scan.add_parts(self._series[0], self._parts)
        if self._summarised is not None and self._policy.window_us is not None:
            scan.add_windows(self._summarised, self._policy.window_us, self._edges)
        for width in widths:
            scan.add_rollups(width, self._edges)
        for cell, found in scan.cells():
            table.add_columns(cell, found)

    def _reduce(self, field: str, names: Sequence[str], table: RowTable) -> None:
        """Put the values of one field that need more of its pieces than counts, into the rows."""
        source = self._pieces(field, names) if names else None
        if source is None:
            return
        sql, bindings = source
        for name in names:
            for bucket, group, value in self._rows(f"{sql}{OVER_PIECES[name]}", bindings):
                table.put(group, field, bucket, name, value)

    def _rows(self, sql: str, bindings: dict[str, Any]) -> list[Row]:
        found = rows(self._connection, f"{sql} LIMIT {LIMIT_MAX + 1}", bindings)
        if len(found) > LIMIT_MAX:
            raise too_many_rows()
        return found

    def _pieces(self, field: str, names: Sequence[str]) -> tuple[str, dict[str, Any]] | None:
        """The beginning of a statement that makes a table `pieces` of what is known of a field, and its parameters."""
        chosen = [(rank, one.shape.index(field)) for rank, one in enumerate(self._series) if field in one.shape]
        if not chosen:
            return None
        start, end = self._request.micros
        bindings: dict[str, Any] = {"start": start, "end": end, "widths": _json(self._policy.widths)}
        buckets = self._request.buckets
        if isinstance(buckets, FixedBuckets):
            bindings |= {"origin": buckets.origin_us, "bucket": buckets.width_us}

        def spans(of: Sequence[Sequence[Micros]]) -> list[tuple[int, ...]]:
            return [
                (self._series[rank].number, rank, self._groups[rank], place, *span)
                for rank, place in chosen
                for span in of[rank]
            ]

        bindings["series"] = _json(spans([[(start, end)]] * len(self._series)))
        with_clause = [_span_table("series")]
        parts: list[str] = []
        told = self._told(field, names)
        if told is not None:
            bindings["told"] = _json(told)
            parts.append(_TOLD_PIECES)
        else:
            points = spans(self._raw)
            bindings["points"] = _json(points)
            with_clause.append(_span_table("points"))
            tables = ["cold"]
            hot = hot_extent(self._connection, self._request.micros)
            if hot is not None:
                tables.append("hot")
                with_clause.append(_span_table("late"))
                bindings["late"] = _json(within(points, hot))
            parts += [self._points(place, table) for place in sorted({p for _, p in chosen}) for table in tables]
        if self._edges is not None:
            bindings["edges"] = _json(self._edges)
            with_clause.append(
                "edges AS MATERIALIZED (SELECT value ->> 0 AS b, value ->> 1 AS low, value ->> 2 AS high"
                " FROM json_each(:edges))"
            )
        if self._summarised is not None:
            bindings["windows"] = _json(spans(self._summarised))
            with_clause.append(_span_table("windows"))
            parts.append(self._windows())
        parts.append(self._rollups())
        return f"WITH {', '.join(with_clause)}, pieces ({_PIECE}) AS ({' UNION ALL '.join(parts)})", bindings

    def _told(self, field: str, names: Sequence[str]) -> list[tuple[Any, ...]] | None:
        """The points of the only series as pieces, told of by a few statements each; None to have them read by SQL."""
        if self._parts is None:
            return None
        cells = CellReads(self._connection, self._series[0], self._request, self._parts)
        found = cells.ends(field) if _ENDS.issuperset(names) else cells.pieces(field, of_numbers)
        told = [(start, 0, 0, 0, *msgspec.structs.astuple(one)[:-1]) for start, one in found]
        # JSON knows no infinity, which sums may be.
        return told if all(isfinite(one[5] + one[12] + one[13]) for one in told) else None

    def _points(self, place: int, table: str) -> str:
        column = f"p.c{place % COLUMNS}"
        bucket, inside = self._bucket("p.ts")
        edges = "" if self._edges is None else "edges e CROSS JOIN "
        tables, bounds = f"{edges}points c CROSS JOIN ts_cold p", ""
        if table == "hot" and is_walked_by_span(self._raw):
            tables = f"{edges}late c CROSS JOIN ts_hot p"
        elif table == "hot":
            tables, bounds = f"{edges}ts_hot p CROSS JOIN late c", "AND p.ts >= :start AND p.ts < :end "
        return (
            f"SELECT {bucket}, c.g, c.rank, 0, 1, {column}, {column}, {column}, p.ts, {column}, p.ts, {column},"  # noqa: S608
            f" 0.0, 0.0, 0 FROM {tables}"
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
