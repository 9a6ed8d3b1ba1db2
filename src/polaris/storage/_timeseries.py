"""The time series port: points of named fields, identified by collection, tags and time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from polaris.storage._aggregation import AggregatedPoint, AggregatedRow, AggregationType, Fill
from polaris.storage._backend import StorageBackend
from polaris.storage._buckets import CalendarUnit
from polaris.storage._points import FieldValue, Tags, TimeSeriesPoint
from polaris.storage._ranges import TimeRange
from polaris.storage._rollups import RetentionPolicy

__all__ = [
    "AggregatedPoint",
    "AggregatedRow",
    "AggregationType",
    "CalendarUnit",
    "FieldValue",
    "Fill",
    "Order",
    "PAGE_POINTS",
    "TagQuery",
    "Tags",
    "TimeSeriesPoint",
    "TimeSeriesStorageBackend",
]

Order = Literal["asc", "desc"]
TagQuery = Mapping[str, str | Mapping[str, object]]
"""Conditions on tags: of each key to a string, for equality, or to a dictionary of operators."""

PAGE_POINTS = 2_000
"""Points that a reader of a long result holds at a time."""


class TimeSeriesStorageBackend(StorageBackend):
    """Stores and finds points. All methods are safe to call from many tasks at once.

    Writes are idempotent: the same series and timestamp twice is one point, the last write wins as a whole (fields of
    the earlier one do not shine through). Late and out-of-order points are normal. A write is durable when its await
    returns. Cancelling a write leaves it done entirely or not at all; cancelling a read leaves nothing behind.

    Collections come into being with their first point. Names: 1 to 128 of ASCII letters, digits, `_ . : -`.

    `tags` of reads and deletions choose the series that pass all conditions; None or nothing chooses all. A condition
    is a string, for equality, or a dictionary of `$eq`, `$ne`, `$in`, `$nin`, `$exists` and `$prefix`, of which all
    must hold: `{"zone": "a", "host": {"$prefix": "web-"}}`. `$ne` and `$nin` are the opposites of `$eq` and `$in`: a
    series without the tag passes them. At most 64 tags, and 1 000 values of a list. An index of the tags finds series
    by `$eq`, `$in`, `$prefix` and `$exists: true`; `$ne`, `$nin` and `$exists: false` are checked for each series of
    the collection that the other conditions leave.

    All raise `InvalidValueError` or `QueryError` for bad input before anything is done, `StoreConnectionError` when
    not connected, `StoreFullError` with nothing written, and `DataStoreError` otherwise.
    """

    @abstractmethod
    async def store_time_series(
        self, collection: str, timestamp: datetime, tags: Tags, fields: Mapping[str, FieldValue]
    ) -> None:
        """Store one point. Raises as `store_many`."""

    @abstractmethod
    async def store_many(self, collection: str, points: Sequence[TimeSeriesPoint]) -> None:
        """Store up to 100 000 points in one transaction: all or none. Of equal series and time the last one stays.

        Raises `SeriesLimitError` when the new series among them are more than the collection or the store may have;
        points of series that exist are always taken.
        """

    @abstractmethod
    async def query_time_series(
        self,
        collection: str,
        time_range: TimeRange,
        tags: TagQuery | None = None,
        *,
        limit: int | None = None,
        order: Order = "asc",
        fields: Sequence[str] | None = None,
        after: TimeSeriesPoint | None = None,
    ) -> list[TimeSeriesPoint]:
        """The points of every series that passes `tags`, in order of time, ties in order of their tags.

        `fields` leaves the others out, and points that have none of them altogether. `limit`, of 1 000 000 at most,
        gives the first ones. Without it more than 1 000 000 are a `QueryError`: an answer is whole, or it is none. Read
        many by `iterate_time_series`.

        `after`: only points behind this one in the order asked for: the last one of a page begins the next. It is only
        a place and need not be stored any more, so whatever others write meanwhile, no point comes twice, and none is
        left out that was there all the time; what is written behind it is seen, what is written before it is not.
        """

    @abstractmethod
    def iterate_time_series(
        self,
        collection: str,
        time_range: TimeRange,
        tags: TagQuery | None = None,
        *,
        order: Order = "asc",
        fields: Sequence[str] | None = None,
        page_points: int = PAGE_POINTS,
    ) -> AsyncIterator[TimeSeriesPoint]:
        """All points that `query_time_series` would give, however many, read in pages of 1 to 100 000 points.

        Holds one page in memory, and nothing of the store between two pages: no snapshot, but what `after` promises.
        """

    @abstractmethod
    async def aggregate_time_series(
        self,
        collection: str,
        time_range: TimeRange,
        aggregation: AggregationType | str,
        group_by: str | Sequence[str] | None = None,
        *,
        bucket: timedelta | CalendarUnit | None = None,
        timezone: str | None = None,
        origin: datetime | None = None,
        fill: Fill = "none",
        tags: TagQuery | None = None,
        fields: Sequence[str] | None = None,
    ) -> list[AggregatedPoint]:
        """One point for each bucket, group and field that has numbers, in that order; at most 1 000 000.

        `bucket`: a length, aligned to 1970-01-01T00:00Z or to `origin`, or a unit of the calendar: "day", "week" (from
        Monday), "month", "quarter" or "year" in `timezone` (UTC unless given), where a day has 23 to 25 hours when the
        clocks change. With `origin` the units begin at its time on the wall: days at 06:00, weeks on its weekday,
        months on its day. The range may cut the first bucket and the last. Without `bucket` the range is one.

        `fill`: with another value than "none" every bucket of the range has a point, for each group and field that has
        numbers in the range at all. Those of the gaps have `count` 0, and as `value` None ("null"), that of the bucket
        before ("previous"), or one on the line between its neighbours ("linear"); None where there is no neighbour. At
        most 100 000 buckets, so the range must have two ends; the same goes for units of the calendar.

        Without `group_by` all series are one group; with it, series are grouped by the values of these tags. Without
        `fields` all fields. `sum`, `avg`, `rate` and `increase` are floats, `count` an integer, the others what was
        stored. For `first` and `last`, of several series at one instant the one whose tags sort first or last decides.
        """

    @abstractmethod
    async def aggregate_many(
        self,
        collection: str,
        time_range: TimeRange,
        aggregations: Sequence[AggregationType | str] | Mapping[str, Sequence[AggregationType | str]],
        group_by: str | Sequence[str] | None = None,
        *,
        bucket: timedelta | CalendarUnit | None = None,
        timezone: str | None = None,
        origin: datetime | None = None,
        fill: Fill = "none",
        tags: TagQuery | None = None,
        fields: Sequence[str] | None = None,
    ) -> list[AggregatedRow]:
        """Up to 16 aggregations of each field at once: of all `fields` the same, or a mapping of fields to their own.

        One row for each bucket, group and field, and everything as in `aggregate_time_series`, on one snapshot. Points
        and summaries are read once for all fields and aggregations, save what is exact only when the numbers of its
        field are read again: percentiles, `first` and `last`, and on some engines `stddev`, `rate` and `increase`.
        """

    @abstractmethod
    async def latest(
        self, collection: str, tags: TagQuery | None = None, *, fields: Sequence[str] | None = None
    ) -> list[TimeSeriesPoint]:
        """The newest point of every series that passes `tags`, however old, in order of their tags.

        `fields` leaves the others out, and newest points that have none of them. One look-up for each series found;
        retention never takes these points away.
        """

    @abstractmethod
    async def delete_range(self, collection: str, time_range: TimeRange, tags: TagQuery | None = None) -> int:
        """Delete the points of the range, of the series that pass `tags`; gives how many. One transaction."""

    @abstractmethod
    async def delete_series(self, collection: str, tags: TagQuery | None = None) -> int:
        """Delete the series that pass `tags`, with all of their points; gives how many series.

        Works in short transactions, so writers are not held up: points first, then their series; interrupted, it has
        done a part and may be repeated. Afterwards the series are no longer listed and count for no limit.
        """

    @abstractmethod
    async def set_retention(self, collection: str, policy: RetentionPolicy) -> None:
        """Keep the points of the collection, and rollups of them, for as long as the policy says, from now on.

        The policy is part of the store; it replaces the one before. What is gone is not brought back by it, and rollups
        of other widths stay until the last of the new policy are due. Rollups hold numbers only: strings, booleans and
        nulls go with their points. Aggregates unite points and rollups as if all points were there still: `avg`,
        `sum`, `min`, `max`, `count`, `first`, `last`, `stddev`, `rate` and `increase` exactly, percentiles within 1 %,
        where points are gone. A window of which only a rollup is left counts as a whole where it starts; buckets of
        other limits than its own, and percentiles from rollups, have `approximate` set.
        """

    @abstractmethod
    async def get_retention(self, collection: str) -> RetentionPolicy | None:
        """The policy of the collection, None when none was ever set."""

    @abstractmethod
    async def apply_retention(self, collection: str, keep_since: datetime | None = None) -> int:
        """Delete what is older than `keep_since`, but keep the newest point of each series; gives how many went.

        Without `keep_since` the collection's policy says what is old, by the engine's clock, of points and rollups
        alike; without a policy, nothing is. Where the policy has rollups, points go in whole windows, into their
        rollup in the same transaction, and the window of the newest point stays. A point that comes later than that
        is stored, and counts besides the rollup; if it was in it already, it counts twice. A server's engine also
        summarises windows of points that are there, for aggregates to be told from.

        Works in short transactions, so writers are not held up; interrupted, it has done a part and may be repeated. A
        policy that is set meanwhile counts from the next transaction on.
        """

    @abstractmethod
    async def list_series(
        self,
        collection: str,
        tags: TagQuery | None = None,
        *,
        limit: int | None = None,
        after: Tags | None = None,
    ) -> list[dict[str, str]]:
        """The tags of every series that passes `tags`, in order; `after`: only those behind this one.

        A series is listed from its first point until `delete_series`, also without points. `limit`, of 1 000 000 at
        most, gives the first ones; without it more than 1 000 000 are a `QueryError`.
        """

    @abstractmethod
    async def count_series(self, collection: str | None = None, tags: TagQuery | None = None) -> int:
        """How many series `list_series` would give without a limit; without a collection, those of the whole store."""

    @abstractmethod
    async def list_collections(self) -> list[str]:
        """The names of the collections that have series, in order."""

    @abstractmethod
    async def list_fields(self, collection: str, tags: TagQuery | None = None) -> list[str]:
        """The fields that the series passing `tags` have ever had, in order, also those whose points are gone."""

    @abstractmethod
    async def list_tag_keys(self, collection: str) -> list[str]:
        """The names of the tags that the series of the collection have, in order."""

    @abstractmethod
    async def list_tag_values(self, collection: str, key: str, tags: TagQuery | None = None) -> list[str]:
        """The values that the series passing `tags` have of this tag, in order."""
