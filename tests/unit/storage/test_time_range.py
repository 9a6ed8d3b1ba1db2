"""Time ranges and the microseconds of stores."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polaris.exceptions import InvalidValueError
from polaris.storage import TimeRange
from polaris.storage._ranges import from_micros, to_micros
from polaris.testing import VirtualClock

T0 = datetime(2030, 1, 1, tzinfo=UTC)


@given(st.datetimes(timezones=st.just(UTC)))
def test_microseconds_are_exact_for_every_datetime(stamp: datetime) -> None:
    assert from_micros(to_micros(stamp)) == stamp


def test_the_last_hour_ends_with_this_very_microsecond() -> None:
    clock = VirtualClock(wall=T0)
    hour = TimeRange.last_hour(clock=clock)
    assert clock.now() in hour
    assert clock.now() + timedelta(microseconds=1) not in hour
    assert clock.now() - timedelta(hours=1) in hour
    assert clock.now() - timedelta(hours=1, microseconds=1) not in hour


def test_since_holds_what_clocks_ahead_have_stamped() -> None:
    assert datetime(9000, 1, 1, tzinfo=UTC) in TimeRange.since(T0)
    assert T0 - timedelta(microseconds=1) not in TimeRange.since(T0)


def test_before_and_since_cover_all_without_overlap() -> None:
    for stamp in (T0, T0 - timedelta(days=9), T0 + timedelta(days=9)):
        assert (stamp in TimeRange.before(T0)) is not (stamp in TimeRange.since(T0))
        assert stamp in TimeRange.all()


def test_a_range_before_the_beginning_of_time_starts_there() -> None:
    assert TimeRange.last(timedelta.max).start.year == 1


def test_ends_are_kept_as_utc() -> None:
    east = timezone(timedelta(hours=5, minutes=30))
    assert TimeRange(T0.astimezone(east), T0.astimezone(east)) == TimeRange(T0, T0)


def test_an_end_before_the_start_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="end"):
        TimeRange(T0, T0 - timedelta(microseconds=1))


@pytest.mark.parametrize("duration", [timedelta(0), timedelta(seconds=-1), 3600])
def test_durations_that_are_none_are_refused(duration: timedelta) -> None:
    with pytest.raises(InvalidValueError, match="duration"):
        TimeRange.last(duration)
