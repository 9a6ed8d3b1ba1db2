"""Aggregates over points, summaries of windows, and rollups of points that are gone: the union of the three is exact.

A window's summary stands for its points where nothing was written to it since; all else is read point by point.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import apsw
import msgspec

from polaris.storage._aggregates import group_of, too_many_rows
from polaris.storage._aggregation import AggregatedRow, percent_of
from polaris.storage._buckets import FixedBuckets
from polaris.storage._limits import LIMIT_MAX
from polaris.storage._rollups import ceiling, floor
from polaris.storage._timeseries_requests import AggregateRequest, Micros
from polaris.storage.backends.shared._row_table import RowTable
from polaris.storage.backends.sqlite._aggregate_sql import aggregate
from polaris.storage.backends.sqlite._rollup_scan import PieceScan
from polaris.storage.backends.sqlite._rollup_sql import OVER_PIECES
from polaris.storage.backends.sqlite._rollup_streams import IN_ORDER, StreamedRead
from polaris.storage.backends.sqlite._rollups import SUMMARY_COLUMNS, CollectionPolicy
from polaris.storage.backends.sqlite._series import COLUMNS, StoredSeries
from polaris.storage.backends.sqlite._sql import Row, rows, scalar


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
        self._window_us = self._usable_window()
        self._raw, self._summarised = self._split()

    def rows(self) -> list[AggregatedRow]:
        request = self._request
        fields = tuple(sorted(request.fields or {name for one in self._series for name in one.shape}))
        widths = self._rollup_widths(fields)
        if not widths and not self._summarised:
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

    def _rollup_widths(self, fields: Sequence[str]) -> list[int]:
        """The widths of which there are rollups in the range."""
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
        scan.add_points(self._raw)
        if self._summarised is not None and self._policy.window_us is not None:
            scan.add_windows(self._summarised, self._policy.window_us, self._edges)
        for width in widths:
            scan.add_rollups(width, self._edges)
        for cell, found in scan.cells():
            table.add(cell, found)

    def _reduce(self, field: str, names: Sequence[str], table: RowTable) -> None:
        """Put the values of one field that need more of its pieces than counts, into the rows."""
        source = self._pieces(field) if names else None
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
