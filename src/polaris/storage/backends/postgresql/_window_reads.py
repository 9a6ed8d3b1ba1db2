"""Counting by summaries of windows where they are true, and by points elsewhere: what both tell together is exact."""

# ruff: noqa: S608 - statements are made of constants, names of own tables and marks of parameters

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec

from polaris.storage._aggregates import too_many_rows
from polaris.storage._aggregation import AggregationType
from polaris.storage._buckets import FixedBuckets
from polaris.storage._limits import LIMIT_MAX
from polaris.storage._rollups import ceiling, floor
from polaris.storage._timeseries_requests import Micros
from polaris.storage.backends.postgresql._aggregate_numbers import NumbersScan, is_cancelled_in, total_of_both
from polaris.storage.backends.postgresql._link import Link, Row
from polaris.storage.backends.postgresql._parameters import Parameters
from polaris.storage.backends.postgresql._question import Numbering, Question
from polaris.storage.backends.shared._row_table import Counted

WINDOWS_MIN = 4
"""Windows in a row from which on their summaries are worth a statement of their own."""
BUCKET_WINDOWS_MIN = 4
"""Windows that a bucket of other limits must hold; the two at its ends are read point by point."""
STRETCHES_MAX = 20_000
"""Stretches between windows that buckets of other limits may make; over it all points are read."""
ROWS_A_TURN = 2_000
"""Rows from which on they are put together beside the event loop."""

_SUMS = frozenset((AggregationType.SUM, AggregationType.AVG, AggregationType.STDDEV))
_MARKS = (
    "SELECT series, start_us, end_us FROM ts_marks WHERE series = ANY($1::bigint[]) AND start_us < $3 AND end_us > $2"
    " ORDER BY series, start_us"
)


class Summaries(msgspec.Struct, frozen=True):
    """The width of the windows of a collection, and up to when they are summarised."""

    width_us: int
    done_us: int


class Split(msgspec.Struct, frozen=True):
    """Of each series the stretches that are read point by point, and those whose windows stand for them."""

    points: list[list[Micros]]
    windows: list[list[Micros]]


async def counted(
    link: Link, question: Question, numbering: Numbering, summaries: Summaries | None
) -> dict[int, list[Counted]]:
    """What is counted of each cell (see `RowTable`), bucket by bucket."""
    split = None if summaries is None else await _split(link, question, numbering, summaries)
    if split is None:
        return await NumbersScan(link, question, numbering).cells()
    return await _UnitedScan(link, question, numbering, split).cells()


async def _split(link: Link, question: Question, numbering: Numbering, summaries: Summaries) -> Split | None:
    """Which parts are read in which way; None where all points are read."""
    whole = _whole_windows(question, numbering, summaries)
    if not whole:
        return None
    dirty: defaultdict[int, list[Micros]] = defaultdict(list)
    numbers = [one.number for one in question.series]
    for series, low, high in await link.rows(_MARKS, numbers, whole[0][0], whole[-1][1]):
        dirty[series].append((floor(low, summaries.width_us), ceiling(high, summaries.width_us)))
    windows = [_without(whole, dirty[number]) if number in dirty else whole for number in numbers]
    common = _without([question.request.micros], whole)
    points = [common if clean is whole else _without([question.request.micros], clean) for clean in windows]
    return Split(points, windows)


def _whole_windows(question: Question, numbering: Numbering, summaries: Summaries) -> list[Micros]:
    """The stretches of windows that are summarised, each of which lies in one bucket or whose windows all do."""
    width = summaries.width_us
    (start, end), buckets = question.request.micros, question.request.buckets
    end = min(end, floor(summaries.done_us, width))
    if end - start < WINDOWS_MIN * width:
        return []
    edges: Sequence[int] = ()
    if isinstance(buckets, FixedBuckets):
        if buckets.width_us % width or buckets.origin_us % width:
            if buckets.width_us < BUCKET_WINDOWS_MIN * width:
                return []
            edges = range(buckets.start_of(start) + buckets.width_us, end, buckets.width_us)
    elif buckets is not None:
        edges = [edge for edge in numbering.starts if start < edge < end and edge % width]
    if len(edges) * len(question.series) > STRETCHES_MAX:
        return []
    parts = ((ceiling(low, width), floor(high, width)) for low, high in pairwise([start, *edges, end]))
    return [(low, high) for low, high in parts if low < high]


def _without(spans: Sequence[Micros], holes: Sequence[Micros]) -> list[Micros]:
    """What is left of the spans, which are disjoint and in order; the holes are in order of their starts."""
    left: list[Micros] = []
    place = 0
    for low, high in spans:
        at = low
        while place < len(holes) and holes[place][1] <= low:
            place += 1
        for start, end in holes[place:]:
            if start >= high:
                break
            if start > at:
                left.append((at, start))
            at = max(at, end)
        if at < high:
            left.append((at, high))
    return left


class _UnitedScan:
    """One question, read by windows and by points."""

    def __init__(self, link: Link, question: Question, numbering: Numbering, split: Split) -> None:
        self._link = link
        self._question = question
        self._numbering = numbering
        self._split = split
        self._has_sums = any(not _SUMS.isdisjoint(question.request.of(field)) for field in question.fields)

    async def cells(self) -> dict[int, list[Counted]]:
        scan = NumbersScan(self._link, self._question, self._numbering, self._split.points)
        of_points = await scan.cells() if any(self._split.points) else {}
        rows = await self._of_windows()
        is_long = len(rows) >= ROWS_A_TURN
        arguments = of_points, scan.sizes, rows
        found, lost = await asyncio.to_thread(self._united, *arguments) if is_long else self._united(*arguments)
        if lost:
            again = await NumbersScan(self._link, self._question, self._numbering).cells(sorted(lost))
            count = len(self._question.fields)
            found = {cell: entries for cell, entries in found.items() if cell % count not in lost} | again
        return found

    async def _of_windows(self) -> list[Row]:
        """Bucket, group, field, and what the windows tell."""
        question, parameters = self._question, Parameters()
        entries = [
            (one.number, question.groups[rank], number, slot, *span)
            for number, field in enumerate(question.fields)
            for rank, (one, (floats, integers)) in enumerate(zip(question.series, question.places(field), strict=True))
            for slot in (floats, None if integers is None else -integers)
            if slot is not None
            for span in self._split.windows[rank]
        ]
        if not entries:
            return []
        kinds = ("bigint[]", "int[]", "int[]", "int[]", "bigint[]", "bigint[]")
        columns = map(parameters.bind, zip(*entries, strict=True), kinds)
        sums = "sum(p.total), sum(p.size), sum(p.whole)" if self._has_sums else "NULL, NULL, NULL"
        found = await self._link.rows(
            f"SELECT {self._numbering.sql(parameters)} AS b, c.g, c.k, sum(p.count)::bigint, {sums},"
            " min(p.low), max(p.high), min(p.least), max(p.greatest)"
            f" FROM unnest({', '.join(columns)}) AS c (series, g, k, slot, low, high)"
            # OFFSET keeps the server from joining all windows of a series with all of its stretches.
            ", LATERAL (SELECT w.*, w.start_us AS ts FROM ts_windows w WHERE w.series = c.series AND w.slot = c.slot"
            " AND w.start_us >= c.low AND w.start_us < c.high OFFSET 0) AS p"
            f" GROUP BY 1, 2, 3 LIMIT {LIMIT_MAX + 1}",
            *parameters.values,
        )
        if len(found) > LIMIT_MAX:
            raise too_many_rows()
        return found

    def _united(
        self, of_points: dict[int, list[Counted]], sizes: dict[int, dict[int, float | None]], rows: Sequence[Row]
    ) -> tuple[dict[int, list[Counted]], set[int]]:
        """Both together, and the fields of which digits were lost that would be seen."""
        fields = len(self._question.fields)
        start_of = self._numbering.start_of
        points = {cell: {entry[1]: entry for entry in entries} for cell, entries in of_points.items()}
        found: defaultdict[int, list[Counted]] = defaultdict(list)
        lost: set[int] = set()
        for row in rows:
            bucket, group, field, count, floats, size, whole, low, high, least, greatest = row
            cell, start = group * fields + field, start_of(bucket)
            total: Any = floats
            if whole is not None:
                total = total_of_both(floats, whole)
                size = (size or 0.0) + abs(float(whole))
            low, high = _least(low, least), _greatest(high, greatest)
            of_cell = points.get(cell)
            other = None if of_cell is None else of_cell.pop(start, None)
            if other is not None:
                count += other[2]
                if total is not None:
                    known = sizes[cell][start]
                    size += abs(other[3]) if known is None else known
                    total += other[3]
                low, high = _least(low, other[4]), _greatest(high, other[5])
            if total is not None and is_cancelled_in(count, total, size):
                lost.add(field)
            found[cell].append((cell, start, count, total, low, high, 0))
        for cell, of_cell in points.items():
            found[cell] += of_cell.values()
        return found, lost


def _least(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _greatest(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)
