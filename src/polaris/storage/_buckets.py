"""Buckets of time: of equal length, or of the calendar of a time zone."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from polaris.domain._checks import utc
from polaris.exceptions import InvalidValueError, QueryError
from polaris.storage._ranges import TIME_MAX, TIME_MIN, from_micros, span_micros, to_micros

CalendarUnit = Literal["day", "week", "month", "quarter", "year"]
BUCKETS_MAX = 100_000
"""Buckets of one query that are counted out: those of a calendar, and those that are filled."""

_UNITS: tuple[str, ...] = get_args(CalendarUnit)
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_MONDAY = datetime(1970, 1, 5)  # noqa: DTZ001 - a time on the wall
_TIME_MIN_US, _TIME_MAX_US = to_micros(TIME_MIN), to_micros(TIME_MAX)


class FixedBuckets(msgspec.Struct, frozen=True):
    """Buckets of one length, one of which starts at the origin."""

    width_us: int
    origin_us: int = 0

    def start_of(self, micros: int) -> int:
        """The start of the bucket of an instant, also before the origin."""
        return micros - (micros - self.origin_us) % self.width_us

    def starts(self, first_us: int, last_us: int) -> Sequence[int]:
        """The starts of all buckets from that of the first instant to that of the last one.

        Raises `QueryError` when there are more than 100 000.
        """
        found = range(self.start_of(first_us), last_us + 1, self.width_us)
        if len(found) > BUCKETS_MAX:
            raise QueryError(f"bucket: the range has more than {BUCKETS_MAX}; ask for a shorter one")
        return found


class CalendarBuckets(msgspec.Struct, frozen=True):
    """Buckets between the same times on the wall, of a zone where days may have 23 or 25 hours.

    `origin`: the wall time of one of the starts; without it, midnight of a Monday or of the first of January. A start
    that comes twice is the first of the two; one that the zone leaves out is where it would have been had its clocks
    not been put forward yet. A day that a zone leaves out altogether has no bucket.
    """

    unit: CalendarUnit
    zone: str
    origin: datetime | None = None

    def starts(self, first_us: int, last_us: int) -> Sequence[int]:
        """The starts of all buckets from that of the first instant to that of the last one, ascending.

        Raises `QueryError` when there are more than 100 000.
        """
        zone = ZoneInfo(self.zone)
        found: list[int] = []
        step = self._step_before(first_us, zone)
        while True:
            start = self._start(step, zone)
            if start > last_us:
                break
            if found and start <= first_us:
                found[-1] = start
            elif not found or start > found[-1]:
                found.append(start)
            step += 1
            if len(found) > BUCKETS_MAX:
                raise QueryError(f"bucket: the range has more than {BUCKETS_MAX}; ask for a shorter one")
            if start >= _TIME_MAX_US:
                break
        return found

    @property
    def _origin(self) -> datetime:
        return self.origin or (_MONDAY if self.unit == "week" else _MONDAY.replace(day=1))

    def _step_before(self, micros: int, zone: ZoneInfo) -> int:
        """A step whose start is at or before the instant, by no more than a few."""
        wall = _on_the_wall(micros, zone)
        if self.unit in _MONTHS:
            months = (wall.year - self._origin.year) * 12 + wall.month - self._origin.month
            return months // _MONTHS[self.unit] - 2
        return (wall - self._origin).days // (7 if self.unit == "week" else 1) - 2

    def _start(self, step: int, zone: ZoneInfo) -> int:
        """The start of a bucket; one beyond the ends of time is that end."""
        try:
            if self.unit in _MONTHS:
                years, month = divmod(self._origin.month - 1 + step * _MONTHS[self.unit], 12)
                wall = self._origin.replace(year=self._origin.year + years, month=month + 1)
            else:
                wall = self._origin + timedelta(days=step * (7 if self.unit == "week" else 1))
            return to_micros(wall.replace(tzinfo=zone).astimezone(UTC))
        except (ValueError, OverflowError):
            return _TIME_MIN_US if step < 0 else _TIME_MAX_US


Buckets = FixedBuckets | CalendarBuckets


class Edges:
    """The starts of buckets, counted out: which one an instant belongs to."""

    def __init__(self, starts: Sequence[int]) -> None:
        self._starts = starts

    def start_of(self, micros: int) -> int:
        return self._starts[bisect_right(self._starts, micros) - 1]


def parse_buckets(bucket: object, timezone: object, origin: object) -> Buckets | None:
    """The buckets that the arguments of a query mean. Raises `QueryError`, and `InvalidValueError` for a bad length."""
    if bucket is None:
        if timezone is not None or origin is not None:
            raise QueryError("timezone and origin belong to a bucket, and none was asked for")
        return None
    start = None if origin is None else utc("origin", origin)
    if isinstance(bucket, str):
        if bucket not in _UNITS:
            raise QueryError(f"bucket: a timedelta or one of {', '.join(_UNITS)}, got {bucket[:64]!r}")
        return _calendar(bucket, timezone, start)
    width_us = span_micros("bucket", bucket)
    if width_us > _TIME_MAX_US - _TIME_MIN_US:
        raise InvalidValueError("bucket", "at most as long as time itself, 9 999 years", bucket)
    if timezone is not None:
        raise QueryError("timezone: a timedelta has one length everywhere; for days of a zone ask for bucket='day'")
    return FixedBuckets(width_us, 0 if start is None else to_micros(start) % width_us)


def _calendar(unit: str, timezone: object, origin: datetime | None) -> CalendarBuckets:
    name = "UTC" if timezone is None else timezone
    try:
        if not isinstance(name, str):
            raise QueryError(f"timezone: the name of a zone such as 'Europe/Berlin', got {type(name).__name__}")
        zone = ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise QueryError(f"timezone: no zone is known as {str(name)[:64]!r}") from error
    chosen: CalendarUnit = unit  # type: ignore[assignment] # checked by the caller
    if origin is None:
        return CalendarBuckets(chosen, name)
    wall = origin.astimezone(zone).replace(tzinfo=None)
    if chosen in _MONTHS and wall.day > 28:
        raise QueryError(f"origin: a {chosen} may begin on the days 1 to 28, got {wall.day}")
    return CalendarBuckets(chosen, name, wall)


def _on_the_wall(micros: int, zone: ZoneInfo) -> datetime:
    try:
        return from_micros(micros).astimezone(zone).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return datetime.combine(date.min if micros < 0 else date.max, datetime.min.time())
