"""Counting by summaries of windows where they are true, and by points elsewhere: what both tell together is exact."""

# ruff: noqa: S608 - statements are made of constants, names of own tables and marks of parameters

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import pairwise, repeat
from types import MappingProxyType
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

NOTHING: Mapping[int, Sequence[Micros]] = MappingProxyType({})
_OF_INTEGERS = ("least", "greatest")
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

    width_us: int
    points: list[list[Micros]]
    windows: list[list[Micros]]


async def counted(
    link: Link, question: Question, numbering: Numbering, split: Split | None
) -> dict[int, list[Counted]]:
    """What is counted of each cell (see `RowTable`), bucket by bucket."""
    if split is None:
        return await NumbersScan(link, question, numbering).cells()
    return await _UnitedScan(link, question, numbering, split).cells()


async def split_of(
    link: Link,
    question: Question,
    numbering: Numbering,
    summaries: Summaries | None,
    holes: Mapping[int, Sequence[Micros]] = NOTHING,
) -> Split | None:
    """Which parts are read in which way; None where all points are read.

    `holes`: of series by their numbers, what is not read by windows.
    """
    if summaries is None:
        return None
    whole = _whole_windows(question, numbering, summaries)
    if not whole:
        return None
    dirty: defaultdict[int, list[Micros]] = defaultdict(list)
    numbers = [one.number for one in question.series]
    for series, low, high in await link.rows(_MARKS, numbers, whole[0][0], whole[-1][1]):
        dirty[series].append((floor(low, summaries.width_us), ceiling(high, summaries.width_us)))
    for series, spans in holes.items():
        dirty[series] += [(floor(low, summaries.width_us), ceiling(high, summaries.width_us)) for low, high in spans]
        dirty[series].sort()
    windows = [_without(whole, dirty[number]) if number in dirty else whole for number in numbers]
    common = _without([question.request.micros], whole)
    points = [common if clean is whole else _without([question.request.micros], clean) for clean in windows]
    return Split(summaries.width_us, points, windows)


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
        asked = {name for field in question.fields for name in question.request.of(field)}
        self._has_sums = not _SUMS.isdisjoint(asked)
        self._extremes = [AggregationType.MIN in asked, AggregationType.MAX in asked]

    async def cells(self) -> dict[int, list[Counted]]:
        scan = NumbersScan(self._link, self._question, self._numbering, self._split.points)
        of_points = await scan.cells() if any(self._split.points) else {}
        rows = await self._of_windows()
        is_long = sum(len(row["bucket"]) for row in rows) >= ROWS_A_TURN
        arguments = of_points, scan.sizes, rows
        found, lost = await asyncio.to_thread(self._united, *arguments) if is_long else self._united(*arguments)
        if lost:
            again = await NumbersScan(self._link, self._question, self._numbering).cells(sorted(lost))
            count = len(self._question.fields)
            found = {cell: entries for cell, entries in found.items() if cell % count not in lost} | again
        return found

    async def _of_windows(self) -> list[Row]:
        """Of each group and field the buckets, and what the windows tell of them."""
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
        told = dict(self._columns({entry[3] > 0 for entry in entries}))
        found = await self._link.rows(
            # Of each cell one row of arrays: many thousand rows would cost more than what is in them.
            f"SELECT g, k, {', '.join(f'array_agg({name}) AS {name}' for name in ('bucket', *told))}"
            f" FROM (SELECT {self._numbering.sql(parameters)} AS bucket, c.g, c.k,"
            f" {', '.join(f'{column} AS {name}' for name, column in told.items())}"
            f" FROM unnest({', '.join(columns)}) AS c (series, g, k, slot, low, high)"
            # OFFSET keeps the server from joining all windows of a series with all of its stretches.
            ", LATERAL (SELECT w.*, w.start_us AS ts FROM ts_windows w WHERE w.series = c.series AND w.slot = c.slot"
            " AND w.start_us >= c.low AND w.start_us < c.high OFFSET 0) AS p"
            f" GROUP BY 1, 2, 3 LIMIT {LIMIT_MAX + 1}) AS buckets GROUP BY g, k",
            *parameters.values,
        )
        if sum(len(row["bucket"]) for row in found) > LIMIT_MAX:
            raise too_many_rows()
        return found

    def _columns(self, kinds: Container[bool]) -> Iterator[tuple[str, str]]:
        """What is asked of the windows, whose slots are of floats (True) or of integers (False)."""
        yield "count", "sum(p.count)::bigint"
        for is_float, sums, extremes in ((True, ("total", "size"), ("low", "high")), (False, ("whole",), _OF_INTEGERS)):
            if is_float in kinds:
                if self._has_sums:
                    yield from ((name, f"sum(p.{name})") for name in sums)
                for name, is_asked, extreme in zip(extremes, self._extremes, ("min", "max"), strict=True):
                    if is_asked:
                        yield name, f"{extreme}(p.{name})"

    def _united(
        self, of_points: dict[int, list[Counted]], sizes: dict[int, dict[int, float | None]], rows: Sequence[Row]
    ) -> tuple[dict[int, list[Counted]], set[int]]:
        """Both together, and the fields of which digits were lost that would be seen."""
        found = dict(of_points)
        lost: set[int] = set()
        for row in rows:
            cell = row["g"] * len(self._question.fields) + row["k"]
            entries, entry_sizes = self._told(cell, row)
            points = {entry[1]: entry for entry in of_points.get(cell, ())}
            if points:
                united = [
                    _sum(entry, size, points.pop(entry[1]), sizes[cell][entry[1]])
                    if entry[1] in points
                    else (entry, size)
                    for entry, size in zip(entries, entry_sizes, strict=True)
                ]
                entries, entry_sizes = [entry for entry, _ in united], [size for _, size in united]
            if any(
                size and is_cancelled_in(*entry[2:4], size) for entry, size in zip(entries, entry_sizes, strict=True)
            ):
                lost.add(row["k"])
            found[cell] = [*entries, *points.values()]
        return found, lost

    def _told(self, cell: int, row: Row) -> tuple[list[Counted], Sequence[float | None]]:
        """What the windows tell of each bucket, and how large its numbers are, where sums are asked for."""
        known: dict[str, Sequence[Any]] = dict(row.items())
        nothing = [None] * len(known["bucket"])
        totals, sizes = known.get("total", nothing), known.get("size", nothing)
        if "whole" in known:
            sizes = list(map(_size, sizes, known["whole"]))
            totals = list(map(total_of_both, totals, known["whole"]))
        lows, highs = known.get("low", nothing), known.get("high", nothing)
        if "least" in known:
            lows = list(map(_least, lows, known["least"]))
        if "greatest" in known:
            highs = list(map(_greatest, highs, known["greatest"]))
        starts = map(self._numbering.start_of, known["bucket"])
        return list(zip(repeat(cell), starts, known["count"], totals, lows, highs, repeat(0))), sizes


def _sum(entry: Counted, size: float | None, other: Counted, other_size: float | None) -> tuple[Counted, float | None]:
    """What is told of one bucket by windows and by points."""
    cell, start, count, total, low, high, _ = entry
    if size is not None:
        total += other[3]
        size += abs(other[3]) if other_size is None else other_size
    return (cell, start, count + other[2], total, _least(low, other[4]), _greatest(high, other[5]), 0), size


def _size(size: float | None, whole: Any) -> float | None:
    return size if whole is None else (size or 0.0) + abs(float(whole))


def _least(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _greatest(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)
