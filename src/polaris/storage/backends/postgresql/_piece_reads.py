"""Deviations, rates, increases and edges of ranges with summaries: of windows where they are true, else of points.

Either is a piece: what is known of numbers that followed each other in one series and bucket. Points are pieces of no
more than a window, so nothing here grows with the points of a bucket.
"""

# ruff: noqa: S608 - statements are made of constants, names of own tables and marks of parameters

from __future__ import annotations

import math
from collections.abc import Sequence

from polaris.storage._aggregates import Number
from polaris.storage._aggregation import AggregationType
from polaris.storage.backends.postgresql._aggregate_numbers import is_cancelled_in
from polaris.storage.backends.postgresql._link import Link, Row
from polaris.storage.backends.postgresql._parameters import Parameters
from polaris.storage.backends.postgresql._question import NOWHERE, Numbering, Question
from polaris.storage.backends.postgresql._rise_sql import BOUND, BOUNDED_STEP, RISES, quotient, spread, walk
from polaris.storage.backends.postgresql._window_reads import Split

Value = tuple[int, int, int, Number]
"""Bucket, group and field by their numbers, and the aggregate."""

_ENDS = ("first_us", "first", "first_whole", "last_us", "last", "last_whole")
_RISEN = ("count", *_ENDS, "rise", "climb")
_COLUMNS: dict[str, tuple[str, ...]] = {
    AggregationType.STDDEV: ("count", "total", "spread"),
    AggregationType.RATE: _RISEN,
    AggregationType.INCREASE: _RISEN,
    AggregationType.FIRST: _ENDS,
    AggregationType.LAST: _ENDS,
}
"""What is to be known of each piece."""
_OF_POINTS = {
    "count": "u.count",
    "total": "u.total",
    "spread": "r.spread",
    "first_us": "u.first_us",
    "first": "u.floats[1]",
    "first_whole": "u.integers[1]",
    "last_us": "u.last_us",
    "last": "u.floats[u.count]",
    "last_whole": "u.integers[u.count]",
    "rise": "r.rise",
    "climb": "coalesce(r.climb, r.rise)",
}
_OF_WINDOWS = {name: f"p.{name}" for name in _OF_POINTS} | {
    "total": "coalesce(p.total, p.whole::float8)",
    "climb": "coalesce(p.climb, p.rise)",
}
_POINTS = (
    "SELECT u.b, c.g, c.k, c.rank, {columns} FROM unnest({given}) AS c (series, rank, g, k, fp, ip, low, high)"
    " CROSS JOIN LATERAL (SELECT b, count(*)::int AS count, {told} FROM (SELECT b, part, ts, fv, iv, v,"
    f" CASE WHEN v BETWEEN -{BOUND} AND {BOUND} THEN v END AS s"
    # OFFSET keeps the server from joining all points of a series with all of its stretches.
    " FROM (SELECT {bucket} AS b, p.ts / {width} AS part, p.ts, p.f[c.fp] AS fv, p.i[c.ip] AS iv,"
    " coalesce(p.f[c.fp], p.i[c.ip]::float8) AS v FROM {table} p WHERE p.series = c.series"
    " AND p.ts >= c.low AND p.ts < c.high AND p.ts >= {low} AND p.ts < {high} OFFSET 0) AS p"
    " WHERE v IS NOT NULL{order}) AS numbers GROUP BY b, part) AS u CROSS JOIN LATERAL ({walk}) AS r"
)
_WINDOWS = (
    "SELECT {bucket}, c.g, c.k, c.rank, {columns} FROM unnest({given}) AS c (series, rank, g, k, slot, low, high)"
    ", LATERAL (SELECT w.*, w.start_us AS ts FROM ts_windows w WHERE w.series = c.series AND w.slot = c.slot"
    " AND w.start_us >= c.low AND w.start_us < c.high {condition}OFFSET 0) AS p"
)
_TOLD_IN_ORDER = (
    f"min(ts) AS first_us, max(ts) AS last_us, CASE WHEN min(v) >= -{BOUND} AND max(v) <= {BOUND} THEN 0.0 END AS mean,"
    " array_agg(fv) AS floats, "
)
_TOLD_OF_FLOATS = f"{_TOLD_IN_ORDER}NULL::bigint[] AS integers"
_TOLD_OF_EITHER = f"{_TOLD_IN_ORDER}array_agg(iv) AS integers"
_TOLD_IN_NO_ORDER = "sum(s) AS total, CASE WHEN count(s) = count(*) THEN avg(s) END AS mean, array_agg(s) AS floats"
_KINDS = ("bigint[]", "int[]", "int[]", "int[]", "int[]", "int[]", "bigint[]", "bigint[]")
_WALKS: dict[str, str] = {
    AggregationType.STDDEV: f"SELECT {spread('x')} FROM unnest(u.floats) AS x WHERE u.mean IS NOT NULL",
    AggregationType.RATE: walk(RISES),
    AggregationType.INCREASE: walk(RISES),
}
# What is too large for a float is told by an infinite sum.
_SQUARE = "CASE WHEN abs({0}) > 1e150 THEN 'Infinity' WHEN abs({0}) < 1e-150 THEN 0 ELSE {0} * {0} END"
# Spreads are united as in Chan, Golub and LeVeque 1979.
_DEVIATION = (
    f" SELECT b, g, k, sum(spread + count * {_SQUARE.format('shift')}), min(n) FROM (SELECT b, g, k, spread, count, n,"
    f" {quotient('total', 'count')} - {quotient('whole', 'n')} AS shift"
    " FROM (SELECT *, sum(total) OVER w AS whole, (sum(count) OVER w)::float8 AS n FROM pieces"
    " WINDOW w AS (PARTITION BY b, g, k)) AS united WHERE n > 1) AS shifted GROUP BY b, g, k"
)
_STEPS = (
    ", steps AS (SELECT b, g, k, rank, count, first_us, last_us, rise, climb, "
    + BOUNDED_STEP.format(v="coalesce(fv, iv::float8)", nv="coalesce(nf, ni::float8)", iv="iv", ni="ni")
    + " AS step FROM (SELECT *, first AS nf, first_whole AS ni, lag(last) OVER w AS fv, lag(last_whole) OVER w AS iv"
    " FROM pieces WINDOW w AS (PARTITION BY {within}k, rank ORDER BY first_us)) AS ordered)"
)
_RATE = (
    _STEPS.format(within="b, ")
    + ", rises AS (SELECT b, g, k, (max(last_us) - min(first_us)) / 1e6::float8 AS elapsed_s, sum(count) AS n,"
    " sum(rise) + coalesce(sum(step), 0) AS rise, sum(climb) + coalesce(sum(abs(step)), 0) AS climb"
    " FROM steps GROUP BY b, g, k, rank)"
    f" SELECT b, g, k, sum({quotient('rise', 'elapsed_s')}), sum({quotient('climb', 'elapsed_s')}),"
    " sum(n)::float8 FROM rises WHERE elapsed_s > 0 GROUP BY b, g, k"
)
_INCREASE = (
    _STEPS.format(within="") + " SELECT b, g, k, sum(rise) + coalesce(sum(step), 0),"
    " sum(climb) + coalesce(sum(abs(step)), 0), sum(count)::float8 FROM steps"
    " WHERE step IS NOT NULL OR last_us > first_us GROUP BY b, g, k"
)
_EDGE = (
    " SELECT DISTINCT ON (b, g, k) b, g, k, {end}, {end}_whole FROM pieces ORDER BY b, g, k, {end}_us {way}, rank {way}"
)
_REDUCTIONS: dict[str, str] = {
    AggregationType.STDDEV: _DEVIATION,
    AggregationType.RATE: _RATE,
    AggregationType.INCREASE: _INCREASE,
    AggregationType.FIRST: _EDGE.format(end="first", way="ASC"),
    AggregationType.LAST: _EDGE.format(end="last", way="DESC"),
}


class PieceRead:
    """One question, read by windows and by points."""

    def __init__(self, link: Link, question: Question, numbering: Numbering, split: Split) -> None:
        self._link = link
        self._question = question
        self._numbering = numbering
        self._split = split

    async def values(self, name: str, fields: Sequence[int]) -> tuple[list[Value], list[int]]:
        """One aggregation of these fields; and those of which nothing is told, because their points have to be read.

        That is where numbers are too large, or so many digits were lost that it would be seen.
        """
        parameters = Parameters()
        sources = [
            source
            for source in (self._points(name, fields, parameters), self._windows(name, fields, parameters))
            if source is not None
        ]
        if not sources:
            return [], []
        columns = ", ".join(("b", "g", "k", "rank", *_COLUMNS[name]))
        rows = await self._link.rows(
            f"WITH pieces ({columns}) AS ({' UNION ALL '.join(sources)}){_REDUCTIONS[name]}", *parameters.values
        )
        told = [(row[0], row[1], row[2], _value(name, row)) for row in rows]
        lost = {k for _, _, k, value in told if value is None}
        return [(b, g, k, value) for b, g, k, value in told if value is not None and k not in lost], sorted(lost)

    def _points(self, name: str, fields: Sequence[int], parameters: Parameters) -> str | None:
        entries = [
            (self._question.series[rank].number, rank, self._question.groups[rank], field, *places, *span)
            for field in fields
            for rank, places in enumerate(self._question.places(self._question.fields[field]))
            if places != NOWHERE
            for span in self._split.points[rank]
        ]
        if not entries:
            return None
        in_order = name != AggregationType.STDDEV
        told = _TOLD_OF_EITHER if any(entry[5] is not None for entry in entries) else _TOLD_OF_FLOATS
        return _POINTS.format(
            columns=", ".join(_OF_POINTS[column] for column in _COLUMNS[name]),
            given=_given(entries, _KINDS, parameters),
            told=told if in_order else _TOLD_IN_NO_ORDER,
            bucket=self._numbering.sql(parameters),
            width=parameters.bind(self._split.width_us, "bigint"),
            table=self._question.table,
            low=parameters.bind(self._question.request.micros[0], "bigint"),
            high=parameters.bind(self._question.request.micros[1], "bigint"),
            order=" ORDER BY b, part, ts" if in_order else "",
            walk=_WALKS.get(name, "SELECT 1"),
        )

    def _windows(self, name: str, fields: Sequence[int], parameters: Parameters) -> str | None:
        entries = [
            (self._question.series[rank].number, rank, self._question.groups[rank], field, slot, *span)
            for field in fields
            for rank, (place, whole) in enumerate(self._question.places(self._question.fields[field]))
            for slot in (place, None if whole is None else -whole)
            if slot is not None
            for span in self._split.windows[rank]
        ]
        if not entries:
            return None
        return _WINDOWS.format(
            bucket=self._numbering.sql(parameters),
            columns=", ".join(_OF_WINDOWS[column] for column in _COLUMNS[name]),
            given=_given(entries, (*_KINDS[:4], "int[]", *_KINDS[6:]), parameters),
            condition="" if name == AggregationType.STDDEV else "AND w.first_us IS NOT NULL ",
        )


def _given(entries: Sequence[Sequence[int | None]], kinds: Sequence[str], parameters: Parameters) -> str:
    return ", ".join(map(parameters.bind, zip(*entries, strict=True), kinds))


def _value(name: str, row: Row) -> Number | None:
    """The aggregate that a row of the reduction tells of, None where the points have to be asked."""
    if name == AggregationType.STDDEV:
        return math.sqrt(row[3] / (row[4] - 1)) if math.isfinite(row[3]) else None
    if name in (AggregationType.RATE, AggregationType.INCREASE):
        _, _, _, value, size, count = row
        return None if not math.isfinite(value) or is_cancelled_in(count, value, size) else value
    found: Number = row[4] if row[3] is None else row[3]
    return found
