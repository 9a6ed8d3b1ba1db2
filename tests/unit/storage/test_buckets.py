"""Buckets at the ends of time, at odd zones, and what cannot be a bucket."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from polaris.exceptions import InvalidValueError, QueryError
from polaris.storage._buckets import BUCKETS_MAX, CalendarBuckets, FixedBuckets, parse_buckets
from polaris.storage._ranges import TIME_MAX, TIME_MIN, from_micros, to_micros

FIRST, LAST = to_micros(TIME_MIN), to_micros(TIME_MAX) - 1
DAY_US = 86_400_000_000


@pytest.mark.parametrize("unit", ["day", "week", "month", "quarter", "year"])
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Niue", "Asia/Kathmandu"])
@pytest.mark.parametrize("at", [FIRST, FIRST + DAY_US, 0, LAST - DAY_US, LAST])
def test_every_instant_is_in_a_bucket_also_at_the_ends_of_time(unit: Any, zone: str, at: int) -> None:
    buckets = CalendarBuckets(unit, zone)
    low, high = max(FIRST, at - 3 * DAY_US), min(LAST, at + 3 * DAY_US)
    starts = list(buckets.starts(low, high))
    assert starts == sorted(set(starts))
    assert starts[0] <= low
    assert starts[-1] <= high
    assert all(FIRST <= start <= LAST for start in starts)
    own = buckets.starts(at, at)
    assert list(own) == [starts[bisect_right(starts, at) - 1]]


def test_a_start_that_comes_twice_is_the_first_of_the_two() -> None:
    # In Havana the clocks went from 01:00 back to 00:00 on 2026-11-01.
    starts = CalendarBuckets("day", "America/Havana").starts(
        to_micros(datetime(2026, 10, 31, 12, tzinfo=UTC)), to_micros(datetime(2026, 11, 2, 12, tzinfo=UTC))
    )
    lengths = [(after - before) / 3_600_000_000 for before, after in pairwise(starts)]
    assert lengths == [24, 25]


def test_a_day_that_a_zone_leaves_out_has_no_bucket() -> None:
    starts = CalendarBuckets("day", "Pacific/Apia").starts(
        to_micros(datetime(2011, 12, 29, 20, tzinfo=UTC)), to_micros(datetime(2011, 12, 31, 20, tzinfo=UTC))
    )
    assert [from_micros(start).isoformat()[:13] for start in starts] == [
        "2011-12-29T10",
        "2011-12-30T10",
        "2011-12-31T10",
    ]


def test_an_origin_gives_units_their_weekday_day_and_time() -> None:
    sunday = datetime(2026, 3, 1, 5, 30, tzinfo=UTC)
    asked = to_micros(datetime(2026, 7, 22, tzinfo=UTC))
    told = {
        unit: from_micros(found.starts(asked, asked)[0]).strftime("%F %R")
        for unit in ("day", "week", "month", "quarter", "year")
        if (found := parse_buckets(unit, "UTC", sunday)) is not None
    }
    assert told == {
        "day": "2026-07-21 05:30",
        "week": "2026-07-19 05:30",
        "month": "2026-07-01 05:30",
        "quarter": "2026-06-01 05:30",
        "year": "2026-03-01 05:30",
    }


def test_no_more_buckets_are_counted_out_than_may_be() -> None:
    assert len(FixedBuckets(10).starts(0, 10 * BUCKETS_MAX - 1)) == BUCKETS_MAX
    with pytest.raises(QueryError, match="more than 100000"):
        FixedBuckets(10).starts(0, 10 * BUCKETS_MAX)
    with pytest.raises(QueryError, match="more than 100000"):
        CalendarBuckets("day", "UTC").starts(FIRST, LAST)
    assert len(CalendarBuckets("year", "Europe/Berlin").starts(FIRST, LAST)) == 9_999


@pytest.mark.parametrize("bucket", [timedelta(0), timedelta(-1), timedelta.max, 60, True])
def test_lengths_that_are_none_are_refused(bucket: Any) -> None:
    with pytest.raises(InvalidValueError, match="bucket"):
        parse_buckets(bucket, None, None)


@pytest.mark.parametrize("zone", ["", "Mars", "/etc/passwd", "..", "Europe/Berlin\0", "x" * 300, 7, b"UTC", "Europe"])
def test_zones_that_are_none_are_refused(zone: Any) -> None:
    with pytest.raises(QueryError, match="timezone"):
        parse_buckets("day", zone, None)
