"""Aggregation in SQL: the numbers of fields, reduced by bucket, group and field as the definition has it."""

# ruff: noqa: S608 - statements are made of constants, names of own tables and marks of parameters

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from polaris.storage._aggregates import Number
from polaris.storage._aggregation import AggregatedRow, AggregationType, percent_of
from polaris.storage._buckets import FixedBuckets
from polaris.storage._timeseries_requests import AggregateRequest, Micros
from polaris.storage.backends.postgresql._aggregate_cells import (
    NUMBERS_A_CELL_MIN,
    RISE,
    Stretch,
    edges,
    percentiles,
    singles,
)
from polaris.storage.backends.postgresql._aggregate_numbers import is_cancelled_in
from polaris.storage.backends.postgresql._exact_sql import exact_sum
from polaris.storage.backends.postgresql._link import Link, Row
from polaris.storage.backends.postgresql._parameters import Parameters
from polaris.storage.backends.postgresql._piece_reads import PieceRead
from polaris.storage.backends.postgresql._question import NOWHERE, Numbering, Question
from polaris.storage.backends.postgresql._rise_sql import quotient
from polaris.storage.backends.postgresql._series import StoredSeries
from polaris.storage.backends.postgresql._window_reads import Split, Summaries, counted, split_of
from polaris.storage.backends.shared._row_table import COUNTED, Counted, RowTable

T = TypeVar("T")

CALENDAR_SPAN_US = 1_000 * 86_400_000_000
"""Beyond so long a range it is worth while to ask where there is anything, before its days are counted out."""
ROWS_A_TURN = 2_000
"""Buckets of groups from which on rows are made beside the event loop."""

# A sample is a float or an integer; `v` is either as a float.
_SAMPLES = (
    "WITH samples AS (SELECT {bucket} AS b, c.g, c.k, c.rank, p.ts, p.f[c.fp] AS fv, p.i[c.ip] AS iv,"
    " coalesce(p.f[c.fp], p.i[c.ip]::float8) AS v"
    " FROM unnest({columns}) AS c (series, rank, g, k, fp, ip)"
    " JOIN {table} p ON p.series = c.series WHERE p.ts >= {low} AND p.ts < {high}"
    " AND (p.f[c.fp] IS NOT NULL OR p.i[c.ip] IS NOT NULL))"
)
_KINDS = ("bigint[]", "int[]", "int[]", "int[]", "int[]", "int[]")
_PERCENTILES = " SELECT b, g, k, percentile_cont({wanted}) WITHIN GROUP (ORDER BY v) FROM samples GROUP BY b, g, k"
# Two passes, as the definition has it: one pass would lose the digits of small deviations of large numbers. The mean
# stands beside each number: joined to them, the means of many buckets would be compared with every one.
_DEVIATION = (
    " SELECT b, g, k, stddev_samp(v - mean)"
    " FROM (SELECT b, g, k, v, avg(v) OVER (PARTITION BY b, g, k) AS mean FROM samples) AS measured"
    " GROUP BY b, g, k HAVING count(*) > 1"
)
_EDGE = " SELECT DISTINCT ON (b, g, k) b, g, k, fv, iv FROM samples ORDER BY b, g, k, ts {way}, rank {way}"
_STEPS = (
    f", steps AS (SELECT b, g, k, rank, ts, CASE WHEN ev IS NOT NULL THEN {RISE} END AS step"
    " FROM (SELECT b, g, k, rank, ts, v, iv, lag(v) OVER w AS ev, lag(iv) OVER w AS ei FROM samples"
    # OFFSET keeps the server from finding out each step for either sum.
    " WINDOW w AS (PARTITION BY {within} ORDER BY ts)) AS numbers OFFSET 0)"
)
# With the sums of what is summed without its signs, and how much that is.
_RATE = (
    _STEPS.replace("{within}", "b, k, rank")
    + ", rises AS (SELECT b, g, k, (max(ts) - min(ts)) / 1e6::float8 AS elapsed_s, {steps} AS rise,"
    " sum(abs(step)) AS climb, count(*) AS n FROM steps GROUP BY b, g, k, rank)"
    + f" SELECT b, g, k, {{rates}}, sum({quotient('climb', 'elapsed_s')}), sum(n)::float8 FROM"
    f" (SELECT *, {quotient('rise', 'elapsed_s')} AS rate FROM rises WHERE elapsed_s > 0) AS rates GROUP BY b, g, k"
)
_INCREASE = (
    _STEPS.replace("{within}", "k, rank")
    + " SELECT b, g, k, {steps}, sum(abs(step)), count(*)::float8 FROM steps WHERE step IS NOT NULL GROUP BY b, g, k"
)
_SORTED: dict[str, str] = {
    AggregationType.STDDEV: _DEVIATION,
    AggregationType.RATE: _RATE,
    AggregationType.INCREASE: _INCREASE,
    AggregationType.FIRST: _EDGE.format(way="ASC"),
    AggregationType.LAST: _EDGE.format(way="DESC"),
}
_EDGES = (AggregationType.FIRST, AggregationType.LAST)


async def aggregate(
    link: Link, table: str, series: Sequence[StoredSeries], request: AggregateRequest, summaries: Summaries | None
) -> list[AggregatedRow]:
    """The aggregates of every field asked for; `summaries` are those of windows of the points, where there are any."""
    question = Question(table, series, request)
    if not question.fields or request.micros[0] >= request.micros[1]:
        return []
    numbering = await numbered(link, question)
    if numbering is None:
        return []
    split = await split_of(link, question, numbering, summaries)
    return await _Answer(link, question, numbering, split).rows()


async def numbered(link: Link, question: Question, rolled_up: Micros | None = None) -> Numbering | None:
    """The buckets of the range, or of the part of it in which there is anything; None where there is nothing.

    `rolled_up`: from where to where there are rollups of points that are gone.
    """
    request = question.request
    buckets, (low, high) = request.buckets, request.micros
    if buckets is None or isinstance(buckets, FixedBuckets):
        return Numbering(request, ())
    if high - low > CALENDAR_SPAN_US:
        row = await link.row(
            f"SELECT min(ts), max(ts) + 1 FROM {question.table} WHERE series = ANY($1::bigint[]) AND ts >= $2"
            " AND ts < $3",
            [one.number for one in question.series],
            *request.micros,
        )
        spans = [span for span in (row, rolled_up) if span is not None and span[0] is not None]
        if not spans:
            return None
        low, high = min(span[0] for span in spans), max(span[1] for span in spans)
    return Numbering(request, list(buckets.starts(low, high - 1)))


class _Answer:
    """The rows of one question, filled in statement by statement."""

    def __init__(self, link: Link, question: Question, numbering: Numbering, split: Split | None) -> None:
        self._link = link
        self._question = question
        self._numbering = numbering
        self._split = split
        self._table = RowTable(question.request, question.names, question.fields)
        self._counted: dict[int, list[Counted]] = {}

    async def rows(self) -> list[AggregatedRow]:
        self._counted = await counted(self._link, self._question, self._numbering, self._split)
        await self._beside(self._make_rows)
        percents: set[int] = set()
        named: dict[str, list[int]] = {}
        for number, field in enumerate(self._question.fields):
            for name in self._question.request.of(field):
                if percent_of(name) is not None:
                    percents.add(number)
                elif name not in COUNTED:
                    named.setdefault(name, []).append(number)
        if percents:
            await self._add_percentiles(sorted(percents))
        for name, fields in named.items():
            await self._add(name, fields)
        return await self._beside(self._table.rows)

    def _make_rows(self) -> None:
        for cell in sorted(self._counted):
            self._table.add(cell, self._counted[cell])

    async def _beside(self, work: Callable[[], T]) -> T:
        """Do what takes long beside the event loop."""
        is_long = sum(map(len, self._counted.values())) >= ROWS_A_TURN
        return await asyncio.to_thread(work) if is_long else work()

    async def _add_percentiles(self, fields: Sequence[int]) -> None:
        request = self._question.request
        asked = {name for field in fields for name in request.of(self._question.fields[field])}
        names = sorted(name for name in asked if percent_of(name) is not None)
        fractions = [(percent_of(name) or 0.0) / 100.0 for name in names]
        stretches = self._dense(fields)
        if stretches is not None:
            found = await percentiles(self._link, self._question.table, stretches, fractions)
            for one, told in zip(stretches, found, strict=True):
                self._put_percentiles(one.group, one.field, one.start_us, names, told or ())
            return
        parameters = Parameters()
        sql = _PERCENTILES.format(wanted=parameters.bind(fractions, "float8[]"))
        for row in await self._ask(sql, fields, parameters):
            self._put_percentiles(row[1], row[2], self._numbering.start_of(row[0]), names, row[3])

    def _put_percentiles(
        self, group: int, number: int, start_us: int, names: Sequence[str], told: Sequence[Number]
    ) -> None:
        field = self._question.fields[number]
        asked = self._question.request.of(field)
        for name, value in zip(names, told, strict=False):
            if name in asked:
                self._table.put(group, field, start_us, name, value)

    async def _add(self, name: str, fields: Sequence[int]) -> None:
        """Put one aggregation of these fields into the rows."""
        if self._split is not None and not (name in _EDGES and self._question.is_alone):
            pieces = PieceRead(self._link, self._question, self._numbering, self._split)
            told, fields = await pieces.values(name, fields)
            for bucket, group, number, known in told:
                self._table.put(group, self._question.fields[number], self._numbering.start_of(bucket), name, known)
            if not fields:
                return
        stretches = None if name == AggregationType.INCREASE else self._dense(fields, always=name in _EDGES)
        if stretches is None:
            await self._sort(name, fields)
            return
        table = self._question.table
        if name in _EDGES:
            found = await edges(self._link, table, stretches, last=name == AggregationType.LAST)
        else:
            found = await singles(self._link, table, stretches, name)
        for one, value in zip(stretches, found, strict=True):
            self._table.put(one.group, self._question.fields[one.field], one.start_us, name, value)

    async def _sort(self, name: str, fields: Sequence[int]) -> None:
        """The same by one statement over all numbers of these fields."""
        sums = {"{steps}": "sum(step)", "{rates}": "sum(rate)"}
        rows = await self._ask(_with(_SORTED[name], sums), fields, Parameters())
        if name in (AggregationType.RATE, AggregationType.INCREASE):
            lost = {row[2] for row in rows if is_cancelled_in(row[5], row[3], row[4])}
            if lost:
                size, count = (max(row[place] for row in rows) for place in (4, 5))
                low, high = self._question.request.micros
                steps = size * (high - low) / 1e6 if name == AggregationType.RATE else size
                sums = {"{steps}": exact_sum("step", steps, count), "{rates}": exact_sum("rate", size, count)}
                rows = [row for row in rows if row[2] not in lost]
                rows += await self._ask(_with(_SORTED[name], sums), sorted(lost), Parameters())
        for row in rows:
            value = row[4] if name in _EDGES and row[3] is None else row[3]
            self._table.put(row[1], self._question.fields[row[2]], self._numbering.start_of(row[0]), name, value)

    def _dense(self, fields: Sequence[int], *, always: bool = False) -> list[Stretch] | None:
        """What the buckets of the fields are in the index; None where it does not pay to look each of them up."""
        if not self._question.is_alone:
            return None
        cells = [(cell, found) for cell, found in self._counted.items() if cell % len(self._question.fields) in fields]
        count = sum(len(found) for _, found in cells)
        if not always and sum(one[2] for _, found in cells for one in found) < count * NUMBERS_A_CELL_MIN:
            return None
        ranks = {group: rank for rank, group in enumerate(self._question.groups)}
        places = {field: self._question.places(self._question.fields[field]) for field in fields}
        stretches: list[Stretch] = []
        for cell, found in cells:
            group, field = divmod(cell, len(self._question.fields))
            rank = ranks[group]
            number, where = self._question.series[rank].number, places[field][rank]
            stretches += [
                Stretch(group, field, start, number, *self._numbering.span_of(start), *where, numbers, total)
                for _, start, numbers, total, *_ in found
            ]
        return stretches

    async def _ask(self, sql: str, fields: Sequence[int], parameters: Parameters) -> list[Row]:
        """Run a reduction over the samples of these fields."""
        question = self._question
        columns: list[list[int | None]] = [[] for _ in _KINDS]
        for field in fields:
            for rank, places in enumerate(question.places(question.fields[field])):
                if places != NOWHERE:
                    entry = (question.series[rank].number, rank, question.groups[rank], field, *places)
                    for column, value in zip(columns, entry, strict=True):
                        column.append(value)
        low, high = (parameters.bind(value, "bigint") for value in question.request.micros)
        samples = _SAMPLES.format(
            bucket=self._numbering.sql(parameters),
            columns=", ".join(parameters.bind(column, kind) for column, kind in zip(columns, _KINDS, strict=True)),
            table=question.table,
            low=low,
            high=high,
        )
        return await self._link.rows(samples + sql, *parameters.values)


def _with(sql: str, sums: Mapping[str, str]) -> str:
    """The reduction with its sums of rises and rates."""
    for mark, of_all in sums.items():
        sql = sql.replace(mark, of_all)
    return sql
