"""Time as stores keep it: whole microseconds since 1970 (UTC), and half-open ranges of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from msgspec.structs import force_setattr

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain._checks import utc
from polaris.exceptions import InvalidValueError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIME_MIN = datetime.min.replace(tzinfo=UTC)
TIME_MAX = datetime.max.replace(tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(stamp: datetime) -> int:
    """Microseconds since 1970, exact for every aware datetime."""
    since = stamp - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def from_micros(micros: int) -> datetime:
    """The inverse of `to_micros`."""
    return EPOCH + timedelta(microseconds=micros)


def span_micros(field: str, span: object) -> int:
    """A positive `timedelta` as microseconds. Raises `InvalidValueError`."""
    if not isinstance(span, timedelta) or span <= timedelta(0):
        raise InvalidValueError(field, "a positive timedelta", span)
    return span // _MICROSECOND


class TimeRange(msgspec.Struct, frozen=True):
    """The instants from `start` up to but not including `end`; neighbouring ranges neither overlap nor leave gaps.

    Raises `InvalidValueError` for naive datetimes and for an end before the start. Equal ends make an empty range.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        force_setattr(self, "start", utc("start", self.start))
        force_setattr(self, "end", utc("end", self.end))
        if self.end < self.start:
            raise InvalidValueError("end", "a time that is not before start", self.end)

    @classmethod
    def last(cls, duration: timedelta, *, clock: Clock = SYSTEM_CLOCK) -> TimeRange:
        """The past `duration` up to and including this very microsecond."""
        span_micros("duration", duration)
        now = clock.now()
        reach = now - TIME_MIN
        return cls(now - min(duration, reach), now + _MICROSECOND)

    @classmethod
    def last_hour(cls, *, clock: Clock = SYSTEM_CLOCK) -> TimeRange:
        """The past hour up to and including this very microsecond."""
        return cls.last(timedelta(hours=1), clock=clock)

    @classmethod
    def since(cls, start: datetime) -> TimeRange:
        """Everything from `start` on, also what clocks that run ahead have stamped."""
        return cls(start, TIME_MAX)

    @classmethod
    def before(cls, end: datetime) -> TimeRange:
        """Everything before `end`."""
        return cls(TIME_MIN, end)

    @classmethod
    def all(cls) -> TimeRange:
        """All of time, save its very last microsecond."""
        return cls(TIME_MIN, TIME_MAX)

    @property
    def duration(self) -> timedelta:
        return self.end - self.start

    def __contains__(self, stamp: object) -> bool:
        return isinstance(stamp, datetime) and self.start <= utc("stamp", stamp) < self.end

    @property
    def micros(self) -> tuple[int, int]:
        """Start and end in microseconds since 1970."""
        return to_micros(self.start), to_micros(self.end)
