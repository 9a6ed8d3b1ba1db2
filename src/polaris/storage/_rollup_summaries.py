"""Summaries of numbers: what a rollup keeps of one field of one series in one window, and how summaries are united.

The definition, for all engines. A summary stands for the numbers it was made of: for every aggregation but percentiles
what comes of summaries and numbers together is what would have come of all the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import compress
from operator import lt
from typing import TypeVar

import msgspec

from polaris.storage._aggregates import Number, Sample, aggregate, rise
from polaris.storage._aggregates import total_of as total_of  # noqa: PLC0414 - who unites summaries sums as well
from polaris.storage._aggregation import VALUES_MIN, AggregationType, percent_of
from polaris.storage._rollup_sketches import bins_of, decode_bins, encode_bins, percentile

T = TypeVar("T")
Piece = tuple[int, "Summary"]
"""The rank of the series in the order of its tags, and what is known of a part of it."""

PARTS_MAX = 4_096
"""Numbers that a sum holds at most."""
SKETCH_NONE = b""
"""The sketch of a summary whose numbers are all still there."""


class Summary(msgspec.Struct, frozen=True):
    """What is kept of numbers that followed each other in one series.

    `spread` is the sum of the squares of the differences to the mean, `rise` that of the rises between neighbours, a
    fall counting as a restart from zero. Times are microseconds since 1970.
    """

    count: int
    total: float
    low: Number
    high: Number
    first_us: int
    first: Number
    last_us: int
    last: Number
    spread: float
    rise: float
    sketch: bytes = SKETCH_NONE


def of_sample(time_us: int, value: Number) -> Summary:
    """A single number, without a sketch."""
    return Summary(1, float(value), value, value, time_us, value, time_us, value, 0.0, 0.0)


def summarise(readings: Sequence[tuple[int, Number]], *, sketched: bool) -> Summary:
    """The summary of the numbers of one series and field, in order of time; there is at least one."""
    times, values = zip(*readings, strict=True)
    return summarise_columns(times, values, sketched=sketched)


def summarise_columns(times: Sequence[int], values: Sequence[Number], *, sketched: bool) -> Summary:
    """The same of times and numbers apart. What is summed is summed exactly and rounded once."""
    total = total_of(values)
    count = len(values)
    distance = math.dist(values, (total / count,) * count)
    return Summary(
        count,
        total,
        min(values),
        max(values),
        times[0],
        values[0],
        times[-1],
        values[-1],
        distance * distance,
        rise_in(values),
        encode_bins(bins_of(values)) if sketched else SKETCH_NONE,
    )


def rise_in(values: Sequence[Number]) -> float:
    """The sum of the rises between neighbours: from the first to the last, and once more up to wherever it fell."""
    falls = list(compress(values, map(lt, values[1:], values)))
    if not falls:
        return float(values[-1] - values[0])
    parts = [values[-1], -values[0], *falls]
    return float(sum(parts)) if set(map(type, parts)) == {int} else total_of(parts)


def merged(one: Summary, other: Summary) -> Summary:
    """The summary of the numbers of both, of one series.

    Spreads are united as in Chan, Golub and LeVeque 1979. The rise is exact when one was over before the other began,
    and otherwise when the counter did not restart: see `risen`. Of two numbers at one instant, that of `other` stays.
    """
    count = one.count + other.count
    difference = other.total / other.count - one.total / one.count
    first, last = (
        other if other.first_us <= one.first_us else one,
        other if other.last_us >= one.last_us else one,
    )
    shift = difference * difference * (one.count / count) * other.count
    sketch = SKETCH_NONE
    if one.sketch and other.sketch:
        bins = decode_bins(one.sketch)
        bins.add(decode_bins(other.sketch))
        sketch = encode_bins(bins)
    return Summary(
        count,
        total_of((one.total, other.total)),
        min(one.low, other.low),
        max(one.high, other.high),
        first.first_us,
        first.first,
        last.last_us,
        last.last,
        total_of((one.spread, other.spread, shift)),
        risen_in_all((one, other)),
        sketch,
    )


def risen(summaries: Iterable[tuple[Summary, T]]) -> list[tuple[T, Number]]:
    """The rises of one series, in parts, each with the mark of the summary that it ends in.

    Between two summaries the counter rose from the last number of the one to the first of the other. Where they
    overlap in time, their numbers cannot be put in order any more: then it rose to the last number of the later one.
    That is exact unless the counter restarted in between. A number before which there is none has no rise.
    """
    rising = Rising()
    ordered = sorted(summaries, key=lambda entry: (entry[0].first_us, entry[0].last_us))
    steps = ((mark, rising.step(one)) for one, mark in ordered)
    return [(mark, step) for mark, step in steps if step is not None]


class Rising:
    """The rises of one series, told one by one; its parts come in order of their first and last times."""

    __slots__ = ("_last", "_last_us")

    def __init__(self) -> None:
        self._last_us: int | None = None
        self._last: Number = 0

    def step(self, one: Summary) -> Number | None:
        """The rise to the end of this part, None where there is nothing that it could have risen from."""
        step: Number | None
        if self._last_us is None:
            step = one.rise if one.count > 1 else None
        elif one.first_us > self._last_us:
            step = rise(self._last, one.first) + one.rise
        elif one.last_us > self._last_us:
            step = rise(self._last, one.last)
        else:
            return None
        self._last_us, self._last = one.last_us, one.last
        return step


class ExactSum:
    """A sum that is rounded once, at its end, as `math.fsum` does it, without keeping what was added."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[float] = []

    def add(self, value: Number) -> None:
        self._parts.append(float(value))
        if len(self._parts) >= PARTS_MAX:
            self._parts = _condensed(self._parts)

    @property
    def total(self) -> float:
        return total_of(self._parts)


def _condensed(parts: list[float]) -> list[float]:
    """A few numbers of exactly the same sum: the sum as it is rounded, what is left of it, and so on."""
    found: list[float] = []
    try:
        while left := math.fsum([*parts, *(-one for one in found)]):
            found.append(left)
    except (OverflowError, ValueError):
        return [total_of(parts)]
    return found


def risen_in_all(summaries: Iterable[Summary]) -> float:
    """The sum of the rises of one series."""
    return total_of(step for _, step in risen((one, None) for one in summaries))


def unite(aggregation: str, samples: Sequence[Sample], pieces: Sequence[Piece]) -> Number | None:
    """The aggregate of numbers and of what is left of others; None when they are too few. Not of `increase`.

    Without pieces it is `aggregate`. Percentiles come from sketches then.
    """
    if not pieces:
        return aggregate(aggregation, samples)
    united = [summary for _, summary in pieces]
    count = len(samples) + sum(summary.count for summary in united)
    if count < VALUES_MIN.get(aggregation, 1):
        return None
    percent = percent_of(aggregation)
    if percent is not None:
        return _percentile(percent, samples, united)
    if aggregation == AggregationType.COUNT:
        return count
    if aggregation == AggregationType.MIN:
        return min([value for _, _, value in samples] + [summary.low for summary in united])
    if aggregation == AggregationType.MAX:
        return max([value for _, _, value in samples] + [summary.high for summary in united])
    everything = [*((rank, of_sample(at, value)) for at, rank, value in samples), *pieces]
    if aggregation == AggregationType.RATE:
        return _rate(everything)
    if aggregation == AggregationType.FIRST:
        return min(everything, key=lambda piece: (piece[1].first_us, piece[0]))[1].first
    if aggregation == AggregationType.LAST:
        return max(everything, key=lambda piece: (piece[1].last_us, piece[0]))[1].last
    total = total_of(summary.total for _, summary in everything)
    if aggregation == AggregationType.SUM:
        return total
    mean = total / count
    if aggregation == AggregationType.AVG:
        return mean
    assert aggregation == AggregationType.STDDEV  # noqa: S101 # the port lets no other name pass
    differences = [(one.count, one.total / one.count - mean) for _, one in everything]
    shifts = [number * difference * difference for number, difference in differences]
    return math.sqrt(total_of([*(one.spread for _, one in everything), *shifts]) / (count - 1))


def by_series(pieces: Iterable[Piece]) -> list[list[Summary]]:
    """The summaries of each series."""
    found: dict[int, list[Summary]] = {}
    for rank, summary in pieces:
        found.setdefault(rank, []).append(summary)
    return list(found.values())


def _rate(pieces: Sequence[Piece]) -> float | None:
    rates: list[float] = []
    for summaries in by_series(pieces):
        elapsed_us = max(one.last_us for one in summaries) - min(one.first_us for one in summaries)
        if elapsed_us > 0:
            rates.append(risen_in_all(summaries) / (elapsed_us / 1e6))
    return total_of(rates) if rates else None


def _percentile(percent: float, samples: Sequence[Sample], summaries: Sequence[Summary]) -> float:
    values = [value for _, _, value in samples]
    bins = bins_of(values)
    for summary in summaries:
        bins.add(decode_bins(summary.sketch))
    low = min([*values, *(summary.low for summary in summaries)])
    high = max([*values, *(summary.high for summary in summaries)])
    return percentile(bins, percent, low, high)
