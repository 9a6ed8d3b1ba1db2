"""What may be asked of the numbers of a bucket, and what comes of it."""

from __future__ import annotations

import enum
import re
from datetime import datetime
from typing import Literal

import msgspec

Fill = Literal["none", "null", "previous", "linear"]


class AggregationType(enum.StrEnum):
    """What becomes of the numbers of one field in one bucket. Nothing but numbers counts: what is missing is not zero.

    `stddev` is the sample deviation (n - 1; pandas, PostgreSQL), `median` and `pNN` interpolate linearly between the
    two nearest ranks (numpy's default); any other percentile is written `p99.9`. `rate` is the increase of a counter
    per second, series by series: the rises between neighbouring samples in the bucket, a fall counting as a restart
    from zero, over the time between the first and the last of them; several series are added up. `increase` is the sum
    of the rises that end in the bucket, also of the one from the last sample before it, as far as the range reaches:
    so the increases of all buckets add up to that of the range.
    """

    AVG = "avg"
    SUM = "sum"
    MIN = "min"
    MAX = "max"
    COUNT = "count"
    FIRST = "first"
    LAST = "last"
    STDDEV = "stddev"
    MEDIAN = "median"
    P90 = "p90"
    P95 = "p95"
    P99 = "p99"
    RATE = "rate"
    INCREASE = "increase"

    def unit_of(self, unit: str | None) -> str | None:
        """The unit of the result when the values have `unit`: a count has none, a rate is per second."""
        if self is AggregationType.COUNT:
            return None
        if self is AggregationType.RATE:
            return f"{unit or '1'}/s"
        return unit


PERCENTS: dict[str, float] = {
    AggregationType.MEDIAN: 50.0,
    AggregationType.P90: 90.0,
    AggregationType.P95: 95.0,
    AggregationType.P99: 99.0,
}
VALUES_MIN: dict[str, int] = {AggregationType.STDDEV: 2, AggregationType.RATE: 2}
"""How many numbers an aggregation needs to exist; all others need one."""

_PERCENTILE = re.compile(r"p(\d{1,3}(?:\.\d{1,6})?)")


def percent_of(aggregation: str) -> float | None:
    """The percentage of a median or percentile, from 0 to 100; None for every other name."""
    known = PERCENTS.get(aggregation)
    if known is not None:
        return known
    named = _PERCENTILE.fullmatch(aggregation)
    percent = float(named[1]) if named else None
    return percent if percent is not None and percent <= 100.0 else None


class AggregatedPoint(msgspec.Struct, frozen=True, gc=False):
    """One number for one field of one group in one bucket.

    `timestamp` is the start of the bucket, or of the range when no bucket was asked for. `tags` are the tags of the
    group, without those that its series do not have; points of a group may share them, so they are not to be changed.
    `count` is how many numbers went in. A bucket without numbers has
    no point, unless gaps are filled: then `count` is 0, and `value` what filled it, None where nothing could.
    """

    timestamp: datetime
    field: str
    value: int | float | None
    count: int
    tags: dict[str, str]
    approximate: bool = False
    """Whether points are gone and what is left of them tells the value only nearly, or not of exactly these limits."""


class AggregatedRow(msgspec.Struct, frozen=True, gc=False):
    """All that was asked of one field of one group in one bucket: `values` by the names of the aggregations.

    A value is None where the numbers were too few, as for the deviation of a single one. The rest is as in
    `AggregatedPoint`.
    """

    timestamp: datetime
    field: str
    values: dict[str, int | float | None]
    count: int
    tags: dict[str, str]
    approximate: bool = False
