"""Aggregates over points and rollups of points that are gone, put together by the definition of all engines."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from polaris.storage._aggregation import AggregatedRow
from polaris.storage._rollup_cells import Reading, Rollup, SeriesContent, aggregate_united
from polaris.storage._timeseries_requests import AggregateRequest
from polaris.storage._turns import in_turns
from polaris.storage.backends.postgresql._link import Link
from polaris.storage.backends.postgresql._series import StoredSeries


async def aggregate_with_rollups(
    link: Link,
    table: str,
    series: Sequence[StoredSeries],
    request: AggregateRequest,
    rollups: Mapping[int, list[Rollup]],
) -> list[AggregatedRow]:
    """The aggregates of a range with rollups in it. The points that are left in it are read one by one."""
    wanted = None if request.fields is None else frozenset(request.fields)
    layouts = {one.number: one.layout for one in series}
    readings: dict[int, list[Reading]] = {one.number: [] for one in series}
    rows = await link.rows(
        f"SELECT series, ts, f, i FROM {table} WHERE series = ANY($1::bigint[]) AND ts >= $2 AND ts < $3"  # noqa: S608
        " ORDER BY series, ts",
        list(layouts),
        *request.micros,
    )
    async for row in in_turns(rows):
        found = readings[row[0]]
        for name, value in layouts[row[0]].numbers(row):
            if wanted is None or name in wanted:
                found.append((row[1], name, value))
    content = [SeriesContent(one.tags, readings[one.number], rollups.get(one.number, [])) for one in series]
    return await asyncio.to_thread(aggregate_united, request, content)
