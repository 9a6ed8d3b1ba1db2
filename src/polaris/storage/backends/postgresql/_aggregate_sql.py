"""Aggregation in SQL: the numbers of fields, reduced by bucket, group and field as the definition has it."""

# ruff: noqa: S608 - statements are made of constants, names of own tables and marks of parameters

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

from polaris.storage._aggregates import Cell, Number, group_of, rows_of, too_many_rows
from polaris.storage._aggregation import AggregatedRow, AggregationType, percent_of
from polaris.storage._buckets import FixedBuckets
from polaris.storage._limits import LIMIT_MAX
from polaris.storage._timeseries_requests import AggregateRequest, SeriesKey
from polaris.storage.backends.postgresql._link import Link, Row
from polaris.storage.backends.postgresql._series import StoredSeries

# A sample is a float or an integer; `v` is either as a float.
_SAMPLES = (
    "WITH samples AS (SELECT {bucket} AS b, c.g, c.k, c.rank, p.ts, p.f[c.fp] AS fv, p.i[c.ip] AS iv,"
    " coalesce(p.f[c.fp], p.i[c.ip]::float8) AS v"
    " FROM unnest($1::bigint[], $2::int[], $3::int[], $4::int[], $5::int[], $6::int[])"
    " AS c (series, rank, g, k, fp, ip)"
    " JOIN {table} p ON p.series = c.series WHERE p.ts >= $7 AND p.ts < $8"
    " AND (p.f[c.fp] IS NOT NULL OR p.i[c.ip] IS NOT NULL))"
)
_NUMBERS = (
    " SELECT b, g, k, count(*), sum({float}), sum(iv), min(fv), min(iv), max(fv), max(iv), sum(abs(fv))"
    f" FROM samples GROUP BY b, g, k LIMIT {LIMIT_MAX + 1}"
)
_PERCENTILES = " SELECT b, g, k, percentile_cont({wanted}) WITHIN GROUP (ORDER BY v) FROM samples GROUP BY b, g, k"
# Two passes, as the definition has it: one pass would lose the digits of small deviations of large numbers. The mean
# stands beside each number: joined to them, the means of many buckets would be compared with every one.
_DEVIATION = (
    " SELECT b, g, k, sqrt(sum((v - mean) * (v - mean)) / (count(*) - 1))"
    " FROM (SELECT b, g, k, v, avg(v) OVER (PARTITION BY b, g, k) AS mean FROM samples) AS measured"
    " GROUP BY b, g, k HAVING count(*) > 1"
)
_EDGE = " SELECT DISTINCT ON (b, g, k) b, g, k, fv, iv FROM samples ORDER BY b, g, k, ts {way}, rank {way}"
# Integers are taken from each other exactly, whatever their size; after a fall a counter began again from zero.
_RISE = "CASE WHEN v < ev THEN v WHEN iv IS NOT NULL AND ei IS NOT NULL THEN (iv::numeric - ei)::float8 ELSE v - ev END"
_STEPS = (
    ", steps AS (SELECT b, g, k, rank, ts, v, iv, lag(v) OVER w AS ev, lag(iv) OVER w AS ei FROM samples"
    " WINDOW w AS (PARTITION BY {within} ORDER BY ts))"
)
_RATE = (
    _STEPS.format(within="b, k, rank")
    + ", rises AS (SELECT b, g, k, max(ts) - min(ts) AS elapsed,"
    + f" sum(CASE WHEN ev IS NULL THEN 0 ELSE {_RISE} END) AS rise FROM steps GROUP BY b, g, k, rank)"
    + " SELECT b, g, k, sum(rise / (elapsed / 1e6::float8)) FROM rises WHERE elapsed > 0 GROUP BY b, g, k"
)
_INCREASE = (
    _STEPS.format(within="k, rank") + f" SELECT b, g, k, sum({_RISE}) FROM steps WHERE ev IS NOT NULL GROUP BY b, g, k"
)

_CANCELLED = 1e-11
"""How much of a sum of doubles may be lost before it is added up exactly instead."""
_EPSILON = 2.0**-53

Values = dict[str, Number | None]
Place = tuple[int, int, int]
"""A bucket, the number of a group, the number of a field."""


async def aggregate(
    link: Link, table: str, series: Sequence[StoredSeries], request: AggregateRequest
) -> list[AggregatedRow]:
    """The aggregates of every field asked for."""
    question = _Question(link, table, series, request)
    return rows_of(await question.cells())


class _Question:
    """One aggregate query: the series with their groups, and what is asked of each field."""

    def __init__(self, link: Link, table: str, series: Sequence[StoredSeries], request: AggregateRequest) -> None:
        self._link = link
        self._table = table
        self._series = series
        self._request = request
        groups: dict[SeriesKey, int] = {}
        self._numbers = [groups.setdefault(group_of(one.tags, request.group_by), len(groups)) for one in series]
        self._groups = list(groups)
        known = dict.fromkeys(name for one in series for name, kind in one.layout.slots if kind != "x")
        self._fields = list(known) if request.fields is None else [name for name in request.fields if name in known]
        self._bucket = ("", [])  # type: tuple[str, list[Any]]

    async def cells(self) -> Iterable[tuple[Cell, int, Values]]:
        if not self._fields:
            return []
        bucket = await self._bucket_sql()
        if bucket is None:
            return []
        self._bucket = bucket
        rows = await self._ask(_NUMBERS.format(float="fv"), lambda _: True)
        if len(rows) > LIMIT_MAX:
            raise too_many_rows()
        if any(_is_cancelled(row) for row in rows):
            rows = await self._ask(_NUMBERS.format(float="fv::text::numeric"), lambda _: True)
        counts = {_place(row): int(row[3]) for row in rows}
        values: dict[Place, Values] = {place: dict.fromkeys(self._asked(place)) for place in counts}
        for row in rows:
            _fill(values[_place(row)], _simple(row))
        await self._add_percentiles(values)
        for name, sql in ((AggregationType.STDDEV, _DEVIATION), (AggregationType.RATE, _RATE)):
            await self._add(values, name, sql, lambda row: float(row[3]))
        await self._add(values, AggregationType.INCREASE, _INCREASE, lambda row: float(row[3]))
        for name, way in ((AggregationType.FIRST, "ASC"), (AggregationType.LAST, "DESC")):
            await self._add(values, name, _EDGE.format(way=way), lambda row: row[4] if row[3] is None else row[3])
        return [
            ((place[0], self._groups[place[1]], self._fields[place[2]]), count, values[place])
            for place, count in counts.items()
        ]

    def _asked(self, place: Place) -> tuple[str, ...]:
        return self._request.of(self._fields[place[2]])

    async def _add_percentiles(self, values: dict[Place, Values]) -> None:
        asked = {name for field in self._fields for name in self._request.of(field)}
        names = sorted(name for name in asked if percent_of(name) is not None)
        if not names:
            return
        fractions = [(percent_of(name) or 0.0) / 100.0 for name in names]
        chosen = set(names)
        sql = _PERCENTILES.format(wanted="$9::float8[]")
        rows = await self._ask(sql, lambda field: not chosen.isdisjoint(self._request.of(field)), fractions)
        for row in rows:
            _fill(values[_place(row)], dict(zip(names, row[3], strict=True)))

    async def _add(
        self, values: dict[Place, Values], name: str, sql: str, value_of: Callable[[Row], Number | None]
    ) -> None:
        for row in await self._ask(sql, lambda field: name in self._request.of(field)):
            _fill(values[_place(row)], {name: value_of(row)})

    async def _ask(self, sql: str, concerns: Callable[[str], bool], *more: Any) -> list[Row]:
        """Run a reduction over the samples of the fields that it concerns."""
        columns = self._chosen(concerns)
        if not columns[0]:
            return []
        bucket, parameters = self._bucket
        start = 9 + len(more)
        bucket = bucket.format(*(f"${start + place}" for place in range(len(parameters))))
        samples = _SAMPLES.format(bucket=bucket, table=self._table)
        return await self._link.rows(samples + sql, *columns, *self._request.micros, *more, *parameters)

    def _chosen(self, concerns: Callable[[str], bool]) -> list[list[int | None]]:
        columns: list[list[int | None]] = [[] for _ in range(6)]
        for k, field in enumerate(self._fields):
            if not concerns(field):
                continue
            for rank, one in enumerate(self._series):
                places = one.layout.floats.get(field), one.layout.integers.get(field)
                if places != (None, None):
                    entry = (one.number, rank, self._numbers[rank], k, *places)
                    for column, value in zip(columns, entry, strict=True):
                        column.append(value)
        return columns

    async def _bucket_sql(self) -> tuple[str, list[Any]] | None:
        """SQL for the start of a sample's bucket with its parameters; None when there are no samples."""
        buckets = self._request.buckets
        if buckets is None:
            return "{}::bigint", [self._request.micros[0]]
        if isinstance(buckets, FixedBuckets):
            sql = "p.ts - (((p.ts - {1}::bigint) % {0}::bigint) + {0}::bigint) % {0}::bigint"
            return sql, [buckets.width_us, buckets.origin_us]
        row = await self._link.row(
            f"SELECT min(ts), max(ts) FROM {self._table} WHERE series = ANY($1::bigint[]) AND ts >= $2 AND ts < $3",
            [one.number for one in self._series],
            *self._request.micros,
        )
        if row is None or row[0] is None:
            return None
        starts = list(buckets.starts(row[0], row[1]))
        return "({0}::bigint[])[width_bucket(p.ts, {0}::bigint[])]", [starts]


def _place(row: Row) -> Place:
    return row[0], row[1], row[2]


def _is_cancelled(row: Row) -> bool:
    """Whether the floats were so large for their sum that what is lost in adding them up would be seen."""
    count, total, size = row[3], row[4], row[10]
    return bool(size) and 4 * math.sqrt(count) * _EPSILON * size > _CANCELLED * abs(total)


def _simple(row: Row) -> Values:
    floats = 0.0 if row[4] is None else row[4]
    whole = 0 if row[5] is None else int(row[5])
    # Integers of 64 bits have more digits than a double: they are added as they are, and rounded once.
    total = float(Fraction(floats) + whole) if whole else float(floats)
    return {
        AggregationType.COUNT: int(row[3]),
        AggregationType.SUM: total,
        AggregationType.AVG: total / int(row[3]),
        AggregationType.MIN: min(value for value in (row[6], row[7]) if value is not None),
        AggregationType.MAX: max(value for value in (row[8], row[9]) if value is not None),
    }


def _fill(values: Values, found: Values) -> None:
    """Take over what was asked for."""
    for name in values.keys() & found.keys():
        values[name] = found[name]
