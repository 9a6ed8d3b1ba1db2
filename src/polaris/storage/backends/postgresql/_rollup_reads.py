"""Aggregates over points and rollups of points that are gone, put together by the definition of all engines."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from polaris.storage._aggregation import AggregatedRow
from polaris.storage._rollup_cells import Reading, Rollup, SeriesContent, aggregate_united
from polaris.storage._rollup_summaries import total_of
from polaris.storage._timeseries_requests import AggregateRequest
from polaris.storage._turns import in_turns
from polaris.storage.backends.postgresql._aggregate_sql import numbered
from polaris.storage.backends.postgresql._link import Link
from polaris.storage.backends.postgresql._question import Numbering, Question
from polaris.storage.backends.postgresql._series import StoredSeries
from polaris.storage.backends.postgresql._window_reads import Summaries, counted, split_of
from polaris.storage.backends.shared._row_table import COUNTED, Counted, RowTable


async def aggregate_with_rollups(
    link: Link,
    table: str,
    series: Sequence[StoredSeries],
    request: AggregateRequest,
    rollups: Mapping[int, list[Rollup]],
    summaries: Summaries | None,
) -> list[AggregatedRow]:
    """The aggregates of a range with rollups in it.

    Where counts, sums and extremes are all that is asked for, the server adds up the points that are left; otherwise
    they are read one by one.
    """
    question = Question(table, series, request)
    if COUNTED.issuperset(name for field in question.fields for name in request.of(field)):
        return await _counted(link, question, rollups, summaries)
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


async def _counted(
    link: Link, question: Question, rollups: Mapping[int, list[Rollup]], summaries: Summaries | None
) -> list[AggregatedRow]:
    """What both tell of counts, sums and extremes, cell by cell."""
    known = [rollup for of_series in rollups.values() for rollup in of_series]
    extent = min(one.start_us for one in known), max(one.start_us + one.width_us for one in known)
    numbering = await numbered(link, question, extent)
    assert numbering is not None  # noqa: S101 # there are rollups
    cells = await counted(link, question, numbering, await split_of(link, question, numbering, summaries))
    return await asyncio.to_thread(_united, question, numbering, cells, rollups)


def _united(
    question: Question,
    numbering: Numbering,
    cells: Mapping[int, Sequence[Counted]],
    rollups: Mapping[int, list[Rollup]],
) -> list[AggregatedRow]:
    parts: dict[int, dict[int, list[Counted]]] = {}
    for cell, found in cells.items():
        parts[cell] = {entry[1]: [entry] for entry in found}
    places = {field: place for place, field in enumerate(question.fields)}
    for one, group in zip(question.series, question.groups, strict=True):
        for rollup in rollups.get(one.number, ()):
            cell = group * len(places) + places[rollup.field]
            start, summary = numbering.bucket_of(rollup.start_us), rollup.summary
            is_cut = rollup.start_us + rollup.width_us > numbering.span_of(start)[1]
            entry = (cell, start, summary.count, summary.total, summary.low, summary.high, int(is_cut))
            parts.setdefault(cell, {}).setdefault(start, []).append(entry)
    table = RowTable(question.request, question.names, question.fields)
    for cell, buckets in sorted(parts.items()):
        table.add(cell, [of_bucket[0] if len(of_bucket) == 1 else _sum(of_bucket) for of_bucket in buckets.values()])
    return table.rows()


def _sum(entries: Sequence[Counted]) -> Counted:
    """All of one bucket; what was not asked of the points is not known."""
    (cell, start, *_), (_, _, counts, totals, lows, highs, cuts) = entries[0], zip(*entries, strict=True)
    total: Any = None if None in totals else total_of(totals)
    low: Any = None if None in lows else min(lows)
    high: Any = None if None in highs else max(highs)
    return cell, start, sum(counts), total, low, high, max(cuts)
