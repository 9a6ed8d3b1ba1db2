"""Aggregates of groups of one series each, bucket by bucket: in the order of the index, so that nothing is sorted.

One statement over all numbers would sort them by their buckets. Where the buckets that have numbers are known, each is
a stretch of the index of its own.
"""

# ruff: noqa: S608 - statements are made of constants, names of own tables and marks of parameters

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from polaris.storage._aggregates import Number
from polaris.storage._aggregation import AggregationType
from polaris.storage.backends.postgresql._aggregate_numbers import is_cancelled_in
from polaris.storage.backends.postgresql._exact_sql import exact_sum
from polaris.storage.backends.postgresql._link import Link
from polaris.storage.backends.postgresql._parameters import Parameters
from polaris.storage.backends.postgresql._rise_sql import STEP, STEP_OF_FLOATS, quotient
from polaris.storage.backends.postgresql._sharing import shared_out, sharing

NUMBERS_A_CELL_MIN = 32
"""Numbers that a bucket must have on average to be worth a look-up of its own."""
ENDS_MAX = 0.25
"""Percentiles up to this fraction, or from as far below 1 on, are found without sorting all numbers."""
NUMBERS_A_SHARE_MIN = 100_000
"""Numbers that are worth a connection of their own, which takes a few ms to be told what to see."""

_EITHER = "coalesce(p.f[c.fp], p.i[c.ip]::float8)"
_POINTS = "{table} p WHERE p.series = c.series AND p.ts >= c.low AND p.ts < c.high"
RISE = STEP.format(v="ev", nv="v", iv="ei", ni="iv")
"""From the number before to this one."""
_ELAPSED_S = "(nullif(max(ts) - min(ts), 0) / 1e6::float8)"
_RATE = (
    f"SELECT {quotient('{{sum}}', _ELAPSED_S)} AS x, {quotient('sum(abs(step))', _ELAPSED_S)} AS y"
    " FROM (SELECT ts, {rise} AS step FROM (SELECT ts, v, lag(v) OVER w AS ev{ei}"
    " FROM (SELECT p.ts, {v} AS v{iv} FROM {{points}} AND {v} IS NOT NULL) AS samples WINDOW w AS (ORDER BY ts))"
    # OFFSET keeps the server from finding out each step for either sum.
    " AS numbers OFFSET 0) AS steps"
)
_RATE_OF_FLOATS = _RATE.format(rise=STEP_OF_FLOATS.format(v="ev", nv="v"), ei="", v="p.f[c.fp]", iv="")
_RATE_OF_EITHER = _RATE.format(rise=RISE, ei=", iv, lag(iv) OVER w AS ei", v=_EITHER, iv=", p.i[c.ip] AS iv")
# The mean is rounded, and so are the differences from it: what these add up to is taken out again.
_DEVIATION = f"SELECT stddev_samp({_EITHER} - c.mean) AS x FROM {{points}}"
_PERCENTILES = f"SELECT percentile_cont({{wanted}}) WITHIN GROUP (ORDER BY {_EITHER}) AS x FROM {{points}}"
# Of so many numbers the two next to the percentile: in ascending order they have the ranks `lower` and `lower + 1`.
_NEIGHBOURS = (
    f"SELECT array_agg(v) AS x FROM (SELECT v FROM (SELECT {_EITHER} AS v FROM {{points}}) AS numbers"
    " WHERE v IS NOT NULL ORDER BY v {way} OFFSET c.passed LIMIT 2) AS neighbours"
)
_EDGE = (
    "SELECT p.f[c.fp] AS x, p.i[c.ip] AS y FROM {points} AND (p.f[c.fp] IS NOT NULL OR p.i[c.ip] IS NOT NULL)"
    " ORDER BY p.ts {way} LIMIT 1"
)


class Stretch(msgspec.Struct, frozen=True):
    """The numbers of one field of one series in one bucket: where they are, and what is known of them."""

    group: int
    field: int
    start_us: int
    series: int
    low_us: int
    high_us: int
    float_place: int | None
    integer_place: int | None
    count: int
    total: float | None


async def edges(link: Link, table: str, stretches: Sequence[Stretch], *, last: bool) -> list[Number | None]:
    """The first number of each stretch, or the last."""
    rows = await _rows(link, table, stretches, _EDGE.replace("{way}", "DESC" if last else "ASC"))
    return [y if x is None else x for x, y in rows]


async def percentiles(
    link: Link, table: str, stretches: Sequence[Stretch], fractions: Sequence[float]
) -> list[list[Number] | None]:
    """These percentiles of each stretch."""
    if len(fractions) == 1 and not ENDS_MAX < fractions[0] < 1.0 - ENDS_MAX:
        return await _near_an_end(link, table, stretches, fractions[0])
    return [row[0] for row in await _all_read(link, table, stretches, _PERCENTILES, fractions)]


async def _near_an_end(
    link: Link, table: str, stretches: Sequence[Stretch], fraction: float
) -> list[list[Number] | None]:
    """One percentile that is not far from the least or the greatest number: only those beyond it are put in order."""
    way = "ASC" if fraction <= ENDS_MAX else "DESC"
    rows = await _all_read(link, table, stretches, _NEIGHBOURS.replace("{way}", way), (fraction,))
    found: list[list[Number] | None] = []
    for one, (values, _) in zip(stretches, rows, strict=True):
        position = fraction * (one.count - 1)
        low, high = min(values), max(values)
        is_greatest = int(position) == one.count - 1
        found.append([high if is_greatest else low + (high - low) * (position - int(position))])
    return found


async def singles(link: Link, table: str, stretches: Sequence[Stretch], name: str) -> list[Number | None]:
    """The deviation or the rate of each stretch; None where the numbers are too few."""
    if name == AggregationType.RATE:
        return await _rates(link, table, stretches)
    return [row[0] for row in await _all_read(link, table, stretches, _DEVIATION)]


async def _rates(link: Link, table: str, stretches: Sequence[Stretch]) -> list[Number | None]:
    has_integers = any(one.integer_place is not None for one in stretches)
    sql = _RATE_OF_EITHER if has_integers else _RATE_OF_FLOATS
    told = await _all_read(link, table, stretches, sql.replace("{sum}", "sum(step)"))
    found = [rate for rate, _ in told]
    lost = [
        place
        for place, (one, (rate, size)) in enumerate(zip(stretches, told, strict=True))
        if rate is not None and is_cancelled_in(one.count, rate, size)
    ]
    if lost:
        size = max(told[place][1] * (stretches[place].high_us - stretches[place].low_us) / 1e6 for place in lost)
        exact = sql.replace("{sum}", exact_sum("step", size, max(stretches[place].count for place in lost)))
        again = await _all_read(link, table, [stretches[place] for place in lost], exact)
        for place, (rate, _) in zip(lost, again, strict=True):
            found[place] = rate
    return found


async def _all_read(
    link: Link, table: str, stretches: Sequence[Stretch], reduction: str, fractions: Sequence[float] = ()
) -> list[tuple[Any, Any]]:
    """As `_rows`, of a reduction that reads every number: many of them are read by several connections."""

    async def read(one: Link, some: Sequence[Stretch]) -> list[tuple[Any, Any]]:
        return await _rows(one, table, some, reduction, fractions)

    counts = [stretch.count for stretch in stretches]
    async with sharing(link, min(sum(counts) // NUMBERS_A_SHARE_MIN, len(stretches))) as links:
        return await shared_out(links, stretches, counts, read)


async def _rows(
    link: Link, table: str, stretches: Sequence[Stretch], reduction: str, fractions: Sequence[float] = ()
) -> list[tuple[Any, Any]]:
    """What the reduction gives for each of the stretches."""
    parameters = Parameters()
    if "{wanted}" in reduction:
        reduction = reduction.replace("{wanted}", parameters.bind(fractions, "float8[]"))
    columns = {
        "series": parameters.bind([one.series for one in stretches], "bigint[]"),
        "low": parameters.bind([one.low_us for one in stretches], "bigint[]"),
        "high": parameters.bind([one.high_us for one in stretches], "bigint[]"),
        "fp": parameters.bind([one.float_place for one in stretches], "int[]"),
        "ip": parameters.bind([one.integer_place for one in stretches], "int[]"),
    }
    if "c.passed" in reduction:
        columns["passed"] = parameters.bind([_passed(one.count, fractions[0]) for one in stretches], "bigint[]")
    if "c.mean" in reduction:
        means = [None if one.total is None else one.total / one.count for one in stretches]
        columns["mean"] = parameters.bind(means, "float8[]")
    reduction = reduction.replace("{points}", _POINTS.format(table=table))
    found: list[tuple[Any, Any]] = [(None, None)] * len(stretches)
    for row in await link.rows(
        f"SELECT c.n, r.* FROM unnest({', '.join(columns.values())}) WITH ORDINALITY AS c ({', '.join(columns)}, n)"
        f" CROSS JOIN LATERAL ({reduction}) AS r",
        *parameters.values,
    ):
        found[row[0] - 1] = (row[1], row[2] if len(row) > 2 else None)
    return found


def _passed(count: int, fraction: float) -> int:
    """How many numbers come before the two next to the percentile, from the end that it is nearer to."""
    lower = int(fraction * (count - 1))
    return lower if fraction <= ENDS_MAX else count - 1 - min(lower + 1, count - 1)
