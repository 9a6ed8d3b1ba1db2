"""What the time series port asks of an engine, checked and as plain data."""

from __future__ import annotations

import msgspec

from polaris.storage._buckets import Buckets
from polaris.storage._tag_filter import ALL_SERIES, TagFilter

Micros = tuple[int, int]
SeriesKey = tuple[tuple[str, str], ...]
"""The tags of a series as sorted pairs; series are in this order."""


class PointCursor(msgspec.Struct, frozen=True):
    """A place in the order of time and tags; it need not be that of a point."""

    time_us: int
    key: SeriesKey


class PointQuery(msgspec.Struct, frozen=True):
    """The points of a range, by time in either direction, at one instant always in order of their tags.

    Only those behind `after`. `fields`: only these, and points that have one of them.
    """

    micros: Micros
    limit: int
    tags: TagFilter = ALL_SERIES
    descending: bool = False
    fields: frozenset[str] | None = None
    after: PointCursor | None = None

    @property
    def window(self) -> Micros:
        """The range, without what the cursor has left behind for certain; its own instant is in it."""
        start, end = self.micros
        if self.after is None:
            return start, end
        if self.descending:
            return start, min(end, self.after.time_us + 1)
        return max(start, self.after.time_us), end


class AggregateRequest(msgspec.Struct, frozen=True):
    """An aggregate query. `aggregations` are of all fields; where `by_field` has the field, its own instead."""

    micros: Micros
    aggregations: tuple[str, ...]
    group_by: tuple[str, ...] = ()
    buckets: Buckets | None = None
    tags: TagFilter = ALL_SERIES
    fields: tuple[str, ...] | None = None
    by_field: dict[str, tuple[str, ...]] = {}
    as_points: bool = False
    """Whether the answer may be the `AggregatedPoint`s of its only aggregation, where it exists in every row."""

    def of(self, field: str) -> tuple[str, ...]:
        """The aggregations of the field."""
        return self.by_field.get(field, self.aggregations)
