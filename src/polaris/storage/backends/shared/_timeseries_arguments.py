"""The arguments of the time series port, checked: what comes out is plain data that every engine understands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from polaris.exceptions import InvalidValueError, QueryError
from polaris.storage._aggregation import AggregationType, Fill, percent_of
from polaris.storage._buckets import Buckets
from polaris.storage._limits import (
    BATCH_POINTS_MAX,
    FIELD_CHARS_MAX,
    FIELDS_MAX,
    TAG_CHARS_MAX,
    TAGS_MAX,
    check_name,
)
from polaris.storage._points import TimeSeriesPoint, checked_tags
from polaris.storage._ranges import TimeRange, to_micros
from polaris.storage._timeseries_requests import Micros, PointCursor, SeriesKey

AGGREGATIONS_MAX = 16
"""Aggregations of one field in one query."""

_FILLS: tuple[Fill, ...] = get_args(Fill)
_NAMES = frozenset(AggregationType)
Names = tuple[str, ...]


def checked_micros(time_range: object) -> Micros:
    """A range in microseconds."""
    if not isinstance(time_range, TimeRange):
        raise InvalidValueError("time_range", "a TimeRange", time_range)
    return time_range.micros


def checked_descending(order: object) -> bool:
    """Whether the order is the newest first."""
    if order not in ("asc", "desc"):
        raise QueryError(f"order: asc or desc, got {order!r}")
    return order == "desc"


def checked_cursor(after: object) -> PointCursor | None:
    """The place of a point."""
    if after is None:
        return None
    if not isinstance(after, TimeSeriesPoint):
        raise InvalidValueError("after", "a TimeSeriesPoint, the last of the page before", after)
    return PointCursor(to_micros(after.timestamp), tuple(sorted(after.tags.items())))


def checked_key(after: object) -> SeriesKey | None:
    """The place of a series; None stands for the beginning, the empty tags for the series that has none."""
    return None if after is None else tuple(sorted(checked_tags(after).items()))


def checked_page(page_points: object) -> None:
    """Refuse what is not a size of a page."""
    if type(page_points) is not int or not 1 <= page_points <= BATCH_POINTS_MAX:
        raise QueryError(f"page_points: an integer from 1 to {BATCH_POINTS_MAX}, got {page_points!r}")


def checked_aggregations(aggregations: Any, fields: object = None) -> tuple[Names, dict[str, Names]]:
    """The names of the aggregations of all fields, and those of single ones."""
    if not isinstance(aggregations, Mapping):
        return _names(aggregations), {}
    if fields is not None:
        raise QueryError("fields: the aggregations name the fields already")
    if not 0 < len(aggregations) <= FIELDS_MAX:
        raise QueryError(f"aggregations: 1 to {FIELDS_MAX} fields (found {len(aggregations)})")
    checked_fields(list(aggregations))
    return (), {field: _names(names) for field, names in aggregations.items()}


def _names(aggregations: Any) -> Names:
    if isinstance(aggregations, str) or not isinstance(aggregations, Sequence):
        raise QueryError(f"aggregations: a list of names, got {type(aggregations).__name__}")
    if not 0 < len(aggregations) <= AGGREGATIONS_MAX:
        raise QueryError(f"aggregations: 1 to {AGGREGATIONS_MAX} of a field (found {len(aggregations)})")
    for name in aggregations:
        if not isinstance(name, str) or (name not in _NAMES and percent_of(name) is None):
            raise QueryError("aggregation: a percentile such as p99.9, or one of " + ", ".join(AggregationType))
    return tuple(dict.fromkeys(str(name) for name in aggregations))


def checked_fill(fill: object, buckets: Buckets | None) -> Fill:
    """How gaps are filled."""
    for known in _FILLS:
        if fill == known:
            if known != "none" and buckets is None:
                raise QueryError("fill: gaps are between buckets, and none were asked for")
            return known
    raise QueryError(f"fill: one of {', '.join(_FILLS)}, got {fill!r}")


def checked_group_keys(group_by: str | Sequence[str] | None) -> tuple[str, ...]:
    """The tags that make the groups."""
    keys = () if group_by is None else (group_by,) if isinstance(group_by, str) else tuple(dict.fromkeys(group_by))
    if len(keys) > TAGS_MAX:
        raise QueryError(f"group_by: at most {TAGS_MAX} tags")
    for key in keys:
        check_name("group_by", key, chars_max=TAG_CHARS_MAX)
    return keys


def checked_fields(fields: Sequence[str] | None) -> tuple[str, ...] | None:
    """The names of fields, each once."""
    if fields is None:
        return None
    if isinstance(fields, str) or len(fields) > FIELDS_MAX:
        raise QueryError(f"fields: a list of at most {FIELDS_MAX} names")
    for name in fields:
        check_name("fields", name, chars_max=FIELD_CHARS_MAX)
    return tuple(dict.fromkeys(fields))
