"""Aggregates over points and what is left of others: sorted into buckets and groups, each reduced by the definition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from polaris.storage._aggregates import Cell, Number, Sample, group_of, rows_of
from polaris.storage._aggregation import AggregatedRow, AggregationType, percent_of
from polaris.storage._buckets import Edges, FixedBuckets
from polaris.storage._rollup_summaries import Piece, Summary, of_sample, risen, total_of, unite
from polaris.storage._timeseries_requests import AggregateRequest

Reading = tuple[int, str, Number]
"""Time, field and number of a point."""


class Rollup(msgspec.Struct, frozen=True):
    """What is left of the numbers of one field in one window: it counts as a whole, where the window starts."""

    start_us: int
    width_us: int
    field: str
    summary: Summary


class SeriesContent(msgspec.Struct, frozen=True):
    """What is known of one series in the range: numbers that are there, in order of time, and rollups of others."""

    tags: dict[str, str]
    readings: Sequence[Reading]
    rollups: Sequence[Rollup] = ()


class _Part(msgspec.Struct):
    """What falls into one cell."""

    samples: list[Sample]
    pieces: list[Piece]
    rises: list[Number]
    count: int = 0
    is_cut: bool = False
    """Whether a window reaches beyond the bucket or the range."""


def aggregate_united(request: AggregateRequest, content: Iterable[SeriesContent]) -> list[AggregatedRow]:
    """The rows of an aggregate query over the series, which come in the order of their tags."""
    chosen = list(content)
    bucket_of = _bucket_of(request, chosen)
    parts: dict[Cell, _Part] = {}
    for rank, series in enumerate(chosen):
        group = group_of(series.tags, request.group_by)
        known: dict[str, list[tuple[Summary, Cell]]] = {}
        rising = {name for name in _fields(series) if AggregationType.INCREASE in request.of(name)}
        for time_us, name, value in series.readings:
            cell = (bucket_of(time_us), group, name)
            part = _part(parts, cell)
            part.samples.append((time_us, rank, value))
            part.count += 1
            if name in rising:
                known.setdefault(name, []).append((of_sample(time_us, value), cell))
        for rollup in series.rollups:
            cell = (bucket_of(rollup.start_us), group, rollup.field)
            part = _part(parts, cell)
            part.pieces.append((rank, rollup.summary))
            part.count += rollup.summary.count
            part.is_cut |= _is_cut(request, rollup, bucket_of)
            if rollup.field in rising:
                known.setdefault(rollup.field, []).append((rollup.summary, cell))
        for entries in known.values():
            for cell, step in risen(entries):
                parts[cell].rises.append(step)
    return _rows(request, parts)


def _fields(series: SeriesContent) -> set[str]:
    return {name for _, name, _ in series.readings} | {rollup.field for rollup in series.rollups}


def _part(parts: dict[Cell, _Part], cell: Cell) -> _Part:
    found = parts.get(cell)
    if found is None:
        found = parts[cell] = _Part([], [], [])
    return found


def _rows(request: AggregateRequest, parts: dict[Cell, _Part]) -> list[AggregatedRow]:
    rows = rows_of(
        (cell, part.count, {name: _value(name, part) for name in request.of(cell[2])}) for cell, part in parts.items()
    )
    ordered = sorted(parts)
    return [
        msgspec.structs.replace(row, approximate=True) if _is_approximate(parts[cell], request.of(cell[2])) else row
        for cell, row in zip(ordered, rows, strict=True)
    ]


def _value(name: str, part: _Part) -> Number | None:
    if name == AggregationType.INCREASE:
        return total_of(part.rises) if part.rises else None
    return unite(name, part.samples, part.pieces)


def _is_approximate(part: _Part, names: Sequence[str]) -> bool:
    return part.is_cut or (bool(part.pieces) and any(percent_of(name) is not None for name in names))


def _is_cut(request: AggregateRequest, rollup: Rollup, bucket_of: Callable[[int], int]) -> bool:
    end_us = rollup.start_us + rollup.width_us
    return end_us > request.micros[1] or bucket_of(end_us - 1) != bucket_of(rollup.start_us)


def _bucket_of(request: AggregateRequest, content: Sequence[SeriesContent]) -> Callable[[int], int]:
    """What gives the start of the bucket of each of these times."""
    buckets = request.buckets
    if buckets is None:
        return lambda _: request.micros[0]
    if isinstance(buckets, FixedBuckets):
        return buckets.start_of
    times = [at for series in content for at, _, _ in series.readings]
    for series in content:
        for rollup in series.rollups:
            times += (rollup.start_us, rollup.start_us + rollup.width_us - 1)
    return Edges(buckets.starts(min(times), max(times))).start_of if times else lambda time_us: time_us
