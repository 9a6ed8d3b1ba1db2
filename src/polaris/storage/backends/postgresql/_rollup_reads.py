"""Aggregates over points and rollups of points that are gone, put together by the definition of all engines."""

# ruff: noqa: S608 - statements are made of constants, names of own tables and marks of parameters

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from polaris.storage._aggregation import AggregatedRow, AggregationType, percent_of
from polaris.storage._rollup_cells import Reading, Rollup, SeriesContent, aggregate_united
from polaris.storage._rollup_summaries import total_of
from polaris.storage._timeseries_requests import AggregateRequest, Micros
from polaris.storage._turns import in_turns
from polaris.storage.backends.postgresql._aggregate_sql import numbered
from polaris.storage.backends.postgresql._link import Link
from polaris.storage.backends.postgresql._question import Numbering, Question
from polaris.storage.backends.postgresql._series import StoredSeries
from polaris.storage.backends.postgresql._window_reads import Split, Summaries, counted, split_of
from polaris.storage.backends.postgresql._window_summaries import window_rollups
from polaris.storage.backends.shared._row_table import COUNTED, Counted, RowTable

_SUMS = (AggregationType.SUM, AggregationType.AVG)
_RISES = (AggregationType.RATE, AggregationType.INCREASE)


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
    they are read one by one, but for those whose windows tell of them.
    """
    question = Question(table, series, request)
    numbering = await numbered(link, question, _extent(rollups))
    assert numbering is not None  # noqa: S101 # there are rollups
    asked = {name for field in question.fields for name in request.of(field)}
    if asked <= COUNTED:
        cells = await counted(link, question, numbering, await split_of(link, question, numbering, summaries))
        return await asyncio.to_thread(_united, question, numbering, cells, rollups)
    split, windows = None, None
    if all(percent_of(name) is None for name in asked):
        # Numbers that came late to where there is a rollup cannot be put in order by a summary of them.
        holes = {number: [_span(one) for one in of_series] for number, of_series in rollups.items()}
        split = await split_of(link, question, numbering, summaries, holes)
    if split is not None:
        windows = await window_rollups(link, question, split)
    content = []
    if split is not None and windows is not None:
        content = await _content(link, question, [rollups, windows], split)
    if not content or await asyncio.to_thread(_may_cancel, content, asked):
        content = await _content(link, question, [rollups], None)
    return await asyncio.to_thread(aggregate_united, request, content)


async def aggregate_one_by_one(
    link: Link,
    table: str,
    series: Sequence[StoredSeries],
    request: AggregateRequest,
    rollups: Mapping[int, list[Rollup]],
) -> list[AggregatedRow]:
    """The aggregates of a range whose points are read one by one, as they have to be where the server cannot sum up."""
    content = await _content(link, Question(table, series, request), [rollups], None)
    return await asyncio.to_thread(aggregate_united, request, content)


def _may_cancel(content: Sequence[SeriesContent], asked: AbstractSet[str]) -> bool:
    """Whether so much may be lost in sums of windows, or in their rises, that it would be seen."""
    low = high = 0.0
    for one in content:
        low = min([low, *(value for _, _, value in one.readings), *(rollup.summary.low for rollup in one.rollups)])
        high = max([high, *(value for _, _, value in one.readings), *(rollup.summary.high for rollup in one.rollups)])
    return low < 0 and (not asked.isdisjoint(_RISES) or (high > 0 and not asked.isdisjoint(_SUMS)))


async def _content(
    link: Link, question: Question, known: Sequence[Mapping[int, Sequence[Rollup]]], split: Split | None
) -> list[SeriesContent]:
    """What is known of each series, and the points of the range, or those of the split that no window tells of."""
    readings = await _readings(link, question, split)
    return [
        SeriesContent(one.tags, readings[one.number], [rollup for of in known for rollup in of.get(one.number, ())])
        for one in question.series
    ]


async def _readings(link: Link, question: Question, split: Split | None) -> dict[int, list[Reading]]:
    """The numbers of each series in order of time: all, or those that are read point by point."""
    fields = question.request.fields
    wanted = None if fields is None else frozenset(fields)
    layouts = {one.number: one.layout for one in question.series}
    stretches = [[question.request.micros]] * len(layouts) if split is None else split.points
    spans = [(number, *span) for number, of_series in zip(layouts, stretches, strict=True) for span in of_series]
    readings: dict[int, list[Reading]] = {number: [] for number in layouts}
    rows = await link.rows(
        "SELECT p.series, p.ts, p.f, p.i FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS c (series, low, high)"
        # OFFSET keeps the server from joining all points of a series with all of its stretches.
        f", LATERAL (SELECT p.* FROM {question.table} p WHERE p.series = c.series AND p.ts >= c.low AND p.ts < c.high"
        " AND p.ts >= $4 AND p.ts < $5 OFFSET 0) AS p ORDER BY p.series, p.ts",
        *([span[place] for span in spans] for place in range(3)),
        *question.request.micros,
    )
    async for row in in_turns(rows):
        found = readings[row[0]]
        for name, value in layouts[row[0]].numbers(row):
            if wanted is None or name in wanted:
                found.append((row[1], name, value))
    return readings


def _extent(rollups: Mapping[int, list[Rollup]]) -> Micros:
    spans = [_span(one) for of_series in rollups.values() for one in of_series]
    return min(span[0] for span in spans), max(span[1] for span in spans)


def _span(rollup: Rollup) -> Micros:
    return rollup.start_us, rollup.start_us + rollup.width_us


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
