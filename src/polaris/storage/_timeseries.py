"""The time series port: points of named fields, identified by collection, tags and time."""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec
from msgspec.structs import force_setattr

from polaris.domain._checks import INTEGER_MAX, utc
from polaris.exceptions import InvalidValueError
from polaris.storage._backend import StorageBackend
from polaris.storage._limits import FIELD_CHARS_MAX, FIELDS_MAX, TAG_CHARS_MAX, TAGS_MAX, TEXT_CHARS_MAX, check_name
from polaris.storage._ranges import TimeRange

FieldValue = bool | int | float | str | None
Tags = Mapping[str, str]
Order = Literal["asc", "desc"]

_FLOAT_MAX = 1.7976931348623157e308


class AggregationType(enum.StrEnum):
    """What becomes of the numbers of one field in one bucket. Nothing but numbers counts: what is missing is not zero.

    `stddev` is the sample deviation (n - 1; pandas, PostgreSQL), `median` and `pNN` interpolate linearly between the
    two nearest ranks (numpy's default). `rate` is the increase of a counter per second, series by series: the rises
    between neighbouring samples in the bucket, a fall counting as a restart from zero, over the time between the first
    and the last of them; several series are added up.
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

    def unit_of(self, unit: str | None) -> str | None:
        """The unit of the result when the values have `unit`: a count has none, a rate is per second."""
        if self is AggregationType.COUNT:
            return None
        if self is AggregationType.RATE:
            return f"{unit or '1'}/s"
        return unit


PERCENTS = {
    AggregationType.MEDIAN: 50.0,
    AggregationType.P90: 90.0,
    AggregationType.P95: 95.0,
    AggregationType.P99: 99.0,
}
VALUES_MIN = {AggregationType.STDDEV: 2, AggregationType.RATE: 2}
"""How many numbers an aggregation needs to exist; all others need one."""


class TimeSeriesPoint(msgspec.Struct, frozen=True):
    """What was measured at one instant on one series.

    The series is given by the collection and all `tags` (at most 64; keys of 1 to 256, values of up to 256
    characters). `fields`: at most 10 240 of names with up to 512 characters; a value is a finite number of 64 bits, a
    bool, a string of at most 262 144 characters, or None for what could not be measured. Integers stay integers.

    Raises `InvalidValueError` naming the field; naive timestamps, NaN and infinities are refused.
    """

    timestamp: datetime
    tags: dict[str, str]
    fields: dict[str, FieldValue]

    def __post_init__(self) -> None:
        force_setattr(self, "timestamp", utc("timestamp", self.timestamp))
        force_setattr(self, "tags", checked_tags(self.tags))
        force_setattr(self, "fields", checked_fields(self.fields))


class AggregatedPoint(msgspec.Struct, frozen=True):
    """One number for one field of one group in one bucket.

    `timestamp` is the start of the bucket, or of the range when no bucket was asked for. `tags` are the tags of the
    group, without those that its series do not have. `count` is how many numbers went in; it is never 0, because a
    bucket without numbers has no point.
    """

    timestamp: datetime
    field: str
    value: int | float
    count: int
    tags: dict[str, str]


def checked_tags(tags: object) -> dict[str, str]:
    """A copy of `tags`, or `InvalidValueError`."""
    if tags is None:
        return {}
    if not isinstance(tags, Mapping):
        raise InvalidValueError("tags", "a mapping of strings", tags)
    if len(tags) > TAGS_MAX:
        raise InvalidValueError("tags", f"at most {TAGS_MAX} tags (found {len(tags)})", tags)
    for key, text in tags.items():
        check_name("tags", key, chars_max=TAG_CHARS_MAX)
        if text != "":
            check_name(f"tags.{key}", text, chars_max=TAG_CHARS_MAX)
    return dict(tags)


def checked_fields(fields: object) -> dict[str, FieldValue]:
    """A copy of `fields`, or `InvalidValueError`. A point without any field is refused: it would say nothing."""
    if not isinstance(fields, Mapping):
        raise InvalidValueError("fields", "a mapping of names to values", fields)
    if not 0 < len(fields) <= FIELDS_MAX:
        raise InvalidValueError("fields", f"1 to {FIELDS_MAX} fields (found {len(fields)})", fields)
    for name, value in fields.items():
        if not (type(name) is str and 0 < len(name) <= FIELD_CHARS_MAX and name.isascii() and name.isprintable()):
            check_name("fields", name, chars_max=FIELD_CHARS_MAX)
        if not (type(value) is float and -_FLOAT_MAX <= value <= _FLOAT_MAX):
            _check_value(f"fields.{name}", value)
    return dict(fields)


def _check_value(path: str, value: object) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, float):
        if not -_FLOAT_MAX <= value <= _FLOAT_MAX:
            raise InvalidValueError(path, "a finite number; what is missing is None", value)
    elif isinstance(value, int):
        if not -INTEGER_MAX - 1 <= value <= INTEGER_MAX:
            raise InvalidValueError(path, "an integer of at most 64 bits", value)
    elif isinstance(value, str):
        if len(value) > TEXT_CHARS_MAX:
            raise InvalidValueError(path, f"at most {TEXT_CHARS_MAX} characters (found {len(value)})", value)
        if "\0" in value:
            raise InvalidValueError(path, "a string without NUL characters", value)
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidValueError(path, "a string that UTF-8 can express", value) from error
    else:
        raise InvalidValueError(path, "a number, bool, string or None", value)


class TimeSeriesStorageBackend(StorageBackend):
    """Stores and finds points. All methods are safe to call from many tasks at once.

    Writes are idempotent: the same series and timestamp twice is one point, the last write wins as a whole (fields of
    the earlier one do not shine through). Late and out-of-order points are normal. A write is durable when its await
    returns. Cancelling a write leaves it done entirely or not at all; cancelling a read leaves nothing behind.

    Collections come into being with their first point. Names: 1 to 128 of ASCII letters, digits, `_ . : -`.
    All raise `InvalidValueError` or `QueryError` for bad input before anything is done, `StoreConnectionError` when
    not connected, `StoreFullError` with nothing written, and `DataStoreError` otherwise.
    """

    @abstractmethod
    async def store_time_series(
        self, collection: str, timestamp: datetime, tags: Tags, fields: Mapping[str, FieldValue]
    ) -> None:
        """Store one point."""

    @abstractmethod
    async def store_many(self, collection: str, points: Sequence[TimeSeriesPoint]) -> None:
        """Store up to 100 000 points in one transaction: all or none. Of equal series and time the last one stays."""

    @abstractmethod
    async def query_time_series(
        self,
        collection: str,
        time_range: TimeRange,
        tags: Tags | None = None,
        *,
        limit: int | None = None,
        order: Order = "asc",
        fields: Sequence[str] | None = None,
    ) -> list[TimeSeriesPoint]:
        """The points of every series that has all of `tags`, in order of time, ties in order of their tags.

        `fields` leaves the others out, and points that have none of them altogether. `limit` is 1 000 000 unless given.
        """

    @abstractmethod
    async def aggregate_time_series(
        self,
        collection: str,
        time_range: TimeRange,
        aggregation: AggregationType,
        group_by: str | Sequence[str] | None = None,
        *,
        bucket: timedelta | None = None,
        tags: Tags | None = None,
        fields: Sequence[str] | None = None,
    ) -> list[AggregatedPoint]:
        """One point for each bucket, group and field that has numbers, in that order.

        Buckets are aligned to 1970-01-01T00:00Z; the range may cut the first and the last. Without `group_by` all
        series are one group; with it, series are grouped by the values of these tags. Without `fields` all fields.
        `sum`, `avg` and `rate` are floats, `count` an integer, the others what was stored. For `first` and `last`,
        of several series at one instant the one whose tags sort first or last decides.
        """

    @abstractmethod
    async def latest(self, collection: str, tags: Tags | None = None) -> list[TimeSeriesPoint]:
        """The newest point of every series that has all of `tags`, however old, in order of their tags.

        One look-up for each series found; retention never takes these points away.
        """

    @abstractmethod
    async def delete_range(self, collection: str, time_range: TimeRange, tags: Tags | None = None) -> int:
        """Delete the points of the range, of the series that have all of `tags`; gives how many. One transaction."""

    @abstractmethod
    async def apply_retention(self, collection: str, keep_since: datetime) -> int:
        """Delete what is older than `keep_since`, but keep the newest point of each series; gives how many went.

        Works in short transactions, so writers are not held up; interrupted, it has done a part and may be repeated.
        """

    @abstractmethod
    async def list_series(self, collection: str, tags: Tags | None = None) -> list[dict[str, str]]:
        """The tags of every series that has all of `tags`, in order."""
