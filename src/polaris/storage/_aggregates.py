"""The definition of the aggregations, on plain lists; the memory engine runs it, other engines must equal it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise

from polaris.exceptions import QueryError
from polaris.storage._aggregation import VALUES_MIN, AggregatedRow, AggregationType, percent_of
from polaris.storage._limits import LIMIT_MAX
from polaris.storage._ranges import TIME_MIN, from_micros, to_micros
from polaris.storage._timeseries_requests import SeriesKey

Number = int | float
_TIME_MIN_US = to_micros(TIME_MIN)
Sample = tuple[int, int, Number]
"""Time in microseconds, the rank of the series in the order of its tags, and the number."""
Cell = tuple[int, SeriesKey, str]
"""The start of a bucket, the tags of a group, and a field: where a row of a result stands, and its order."""


def is_number(value: object) -> bool:
    """Whether the value takes part in aggregations; a bool is not a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def bucket_time(micros: int) -> datetime:
    """The start of a bucket as a datetime; one before the year 1 shows as the beginning of time."""
    return from_micros(max(micros, _TIME_MIN_US))


def group_of(tags: dict[str, str], keys: tuple[str, ...]) -> SeriesKey:
    """The group of a series: its values of these tags, without those that it does not have."""
    return tuple((key, tags[key]) for key in keys if key in tags)


def rows_of(cells: Iterable[tuple[Cell, int, dict[str, Number | None]]]) -> list[AggregatedRow]:
    """The rows of cells with their counts and values, in order. Raises `QueryError` beyond 1 000 000."""
    ordered = sorted(cells, key=lambda cell: cell[0])
    if len(ordered) > LIMIT_MAX:
        raise too_many_rows()
    return [
        AggregatedRow(bucket_time(bucket), field, values, count, dict(group))
        for (bucket, group, field), count, values in ordered
    ]


def too_many_rows() -> QueryError:
    """The error for results that would be too long; they are not cut, because nobody could see it."""
    return QueryError(f"bucket: the result has more than {LIMIT_MAX} rows; ask for longer buckets or a shorter range")


def aggregate(aggregation: str, samples: Sequence[Sample]) -> Number | None:
    """The aggregate of the samples of one bucket, group and field, in any order; None when they are too few.

    Not of `increase`, which looks beyond the bucket.
    """
    if len(samples) < VALUES_MIN.get(aggregation, 1):
        return None
    values = [value for _, _, value in samples]
    if aggregation == AggregationType.COUNT:
        return len(values)
    if aggregation == AggregationType.SUM:
        return total_of(values)
    if aggregation == AggregationType.AVG:
        return total_of(values) / len(values)
    if aggregation == AggregationType.MIN:
        return min(values)
    if aggregation == AggregationType.MAX:
        return max(values)
    if aggregation == AggregationType.FIRST:
        return min(samples, key=_place)[2]
    if aggregation == AggregationType.LAST:
        return max(samples, key=_place)[2]
    if aggregation == AggregationType.STDDEV:
        mean = total_of(values) / len(values)
        differences = [value - mean for value in values]
        return math.sqrt(total_of([one * one for one in differences]) / (len(values) - 1))
    if aggregation == AggregationType.RATE:
        return _rate(samples)
    percent = percent_of(aggregation)
    assert percent is not None  # noqa: S101 # the port lets no other name pass
    return _percentile(sorted(values), percent)


def total_of(values: Iterable[Number]) -> float:
    """The sum, exact to the last digit; infinite where it is beyond a float or cannot be told. Never NaN."""
    numbers = values if isinstance(values, (tuple, list)) else list(values)
    try:
        found = math.fsum(numbers)
    except (OverflowError, ValueError):  # ValueError: infinite sums of both signs
        found = float(sum(map(float, numbers)))
    return math.inf if math.isnan(found) else found


def rise(earlier: Number, later: Number) -> Number:
    """What a counter has gained between two neighbouring samples; after a fall it began again from zero."""
    return later if later < earlier else later - earlier


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
            risen = [rise(earlier, later) for (_, earlier), (_, later) in pairwise(readings)]
            rates.append(total_of(risen) / (elapsed_us / 1e6))
    return total_of(rates) if rates else None
