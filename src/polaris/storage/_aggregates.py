"""The definition of the aggregations, on plain lists; the memory engine runs it, other engines must equal it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from polaris.storage._ranges import TIME_MIN, from_micros, to_micros
from polaris.storage._timeseries import PERCENTS, VALUES_MIN, AggregationType

Number = int | float
_TIME_MIN_US = to_micros(TIME_MIN)
Sample = tuple[int, int, Number]
"""Time in microseconds, the rank of the series in the order of its tags, and the number."""


def is_number(value: object) -> bool:
    """Whether the value takes part in aggregations; a bool is not a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def bucket_start(micros: int, bucket_us: int) -> int:
    """The start of the bucket, aligned to 1970, also before it."""
    return micros - micros % bucket_us


def bucket_time(micros: int) -> datetime:
    """The start of a bucket as a datetime; one before the year 1 shows as the beginning of time."""
    return from_micros(max(micros, _TIME_MIN_US))


def aggregate(aggregation: AggregationType, samples: Sequence[Sample]) -> Number | None:
    """The aggregate of the samples of one bucket, group and field, in any order; None when they are too few."""
    if len(samples) < VALUES_MIN.get(aggregation, 1):
        return None
    values = [value for _, _, value in samples]
    if aggregation is AggregationType.COUNT:
        return len(values)
    if aggregation is AggregationType.SUM:
        return math.fsum(values)
    if aggregation is AggregationType.AVG:
        return math.fsum(values) / len(values)
    if aggregation is AggregationType.MIN:
        return min(values)
    if aggregation is AggregationType.MAX:
        return max(values)
    if aggregation is AggregationType.FIRST:
        return min(samples, key=_place)[2]
    if aggregation is AggregationType.LAST:
        return max(samples, key=_place)[2]
    if aggregation is AggregationType.STDDEV:
        mean = math.fsum(values) / len(values)
        return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    if aggregation is AggregationType.RATE:
        return _rate(samples)
    return _percentile(sorted(values), PERCENTS[aggregation])


def _place(sample: Sample) -> tuple[int, int]:
    return sample[0], sample[1]


def _percentile(ordered: Sequence[Number], percent: float) -> Number:
    # Linear interpolation between the two nearest ranks: method 7 of Hyndman and Fan 1996.
    position = percent / 100.0 * (len(ordered) - 1)
    lower = int(position)
    upper = min(lower + 1, len(ordered) - 1)
    low, high = ordered[lower], ordered[upper]
    return float(low + (high - low) * (position - lower))


def _rate(samples: Sequence[Sample]) -> float | None:
    by_series: dict[int, list[tuple[int, Number]]] = {}
    for micros, series, value in samples:
        by_series.setdefault(series, []).append((micros, value))
    rates: list[float] = []
    for readings in by_series.values():
        readings.sort(key=lambda reading: reading[0])
        elapsed_us = readings[-1][0] - readings[0][0]
        if elapsed_us > 0:
            rises = [later if later < earlier else later - earlier for (_, earlier), (_, later) in pairwise(readings)]
            rates.append(math.fsum(rises) / (elapsed_us / 1e6))
    return math.fsum(rates) if rates else None
