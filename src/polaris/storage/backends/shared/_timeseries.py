"""The time series port of all engines: arguments are checked here, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from polaris.domain._checks import utc
from polaris.exceptions import InvalidValueError, QueryError
from polaris.storage._limits import (
    BATCH_POINTS_MAX,
    FIELD_CHARS_MAX,
    FIELDS_MAX,
    TAG_CHARS_MAX,
    TAGS_MAX,
    check_collection,
    check_limit,
    check_name,
)
from polaris.storage._operation import AggregateRequest, Executor, Operation
from polaris.storage._ranges import TimeRange, span_micros, to_micros
from polaris.storage._timeseries import (
    AggregatedPoint,
    AggregationType,
    FieldValue,
    Order,
    Tags,
    TimeSeriesPoint,
    TimeSeriesStorageBackend,
    checked_tags,
)
from polaris.storage._turns import in_turns

if TYPE_CHECKING:
    from polaris.storage.backends.shared._engine import SharedEngine

RETENTION_ROWS_MAX = 5_000
"""Points that one transaction of retention deletes at most."""


class TimeSeriesPort(TimeSeriesStorageBackend):
    """Checks arguments and hands programs to its executor: the engine, or a transaction on it."""

    def __init__(self, engine: SharedEngine, executor: Executor) -> None:
        self._engine = engine
        self._executor = executor

    @property
    def engine(self) -> SharedEngine:
        return self._engine

    async def store_time_series(
        self, collection: str, timestamp: datetime, tags: Tags, fields: Mapping[str, FieldValue]
    ) -> None:
        await self.store_many(collection, [TimeSeriesPoint(timestamp, dict(tags or {}), dict(fields))])

    async def store_many(self, collection: str, points: Sequence[TimeSeriesPoint]) -> None:
        check_collection(collection)
        points = tuple(points)
        if len(points) > BATCH_POINTS_MAX:
            raise InvalidValueError("points", f"at most {BATCH_POINTS_MAX} points (found {len(points)})", points)
        async for point in in_turns(points):
            if point.__class__ is not TimeSeriesPoint:
                raise InvalidValueError("points", "TimeSeriesPoint objects", point)
        await self._executor.execute(
            Operation(
                lambda session: session.time_series.store_many(collection, points),
                mutates=bool(points),
                known=None,
                weight=len(points),
            )
        )

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
        check_collection(collection)
        micros, chosen = _micros(time_range), checked_tags(tags)
        count = check_limit(limit)
        if order not in ("asc", "desc"):
            raise QueryError(f"order: asc or desc, got {order!r}")
        named = _fields(fields)
        wanted = None if named is None else frozenset(named)
        return await self._executor.execute(
            Operation(
                lambda session: session.time_series.query(
                    collection, micros, chosen, limit=count, descending=order == "desc", fields=wanted
                ),
                mutates=False,
            )
        )

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
        check_collection(collection)
        request = AggregateRequest(
            _micros(time_range),
            _aggregation(aggregation),
            _group_keys(group_by),
            None if bucket is None else span_micros("bucket", bucket),
            checked_tags(tags),
            _fields(fields),
        )
        return await self._executor.execute(
            Operation(lambda session: session.time_series.aggregate(collection, request), mutates=False)
        )

    async def latest(self, collection: str, tags: Tags | None = None) -> list[TimeSeriesPoint]:
        check_collection(collection)
        chosen = checked_tags(tags)
        return await self._executor.execute(
            Operation(lambda session: session.time_series.latest(collection, chosen), mutates=False)
        )

    async def delete_range(self, collection: str, time_range: TimeRange, tags: Tags | None = None) -> int:
        check_collection(collection)
        micros, chosen = _micros(time_range), checked_tags(tags)
        return await self._executor.execute(
            Operation(lambda session: session.time_series.delete_range(collection, micros, chosen), mutates=True)
        )

    async def apply_retention(self, collection: str, keep_since: datetime) -> int:
        check_collection(collection)
        since_us = to_micros(utc("keep_since", keep_since))
        deleted = 0
        while True:
            part = await self._executor.execute(
                Operation(
                    lambda session: session.time_series.retain(collection, since_us, RETENTION_ROWS_MAX), mutates=True
                )
            )
            deleted += part
            if part == 0:
                return deleted

    async def list_series(self, collection: str, tags: Tags | None = None) -> list[dict[str, str]]:
        check_collection(collection)
        chosen = checked_tags(tags)
        return await self._executor.execute(
            Operation(lambda session: session.time_series.list_series(collection, chosen), mutates=False)
        )


def _micros(time_range: object) -> tuple[int, int]:
    if not isinstance(time_range, TimeRange):
        raise InvalidValueError("time_range", "a TimeRange", time_range)
    return time_range.micros


def _aggregation(aggregation: object) -> AggregationType:
    try:
        return AggregationType(aggregation)  # type: ignore[arg-type] # refused below
    except ValueError as error:
        raise QueryError("aggregation: one of " + ", ".join(AggregationType)) from error


def _group_keys(group_by: str | Sequence[str] | None) -> tuple[str, ...]:
    keys = () if group_by is None else (group_by,) if isinstance(group_by, str) else tuple(dict.fromkeys(group_by))
    if len(keys) > TAGS_MAX:
        raise QueryError(f"group_by: at most {TAGS_MAX} tags")
    for key in keys:
        check_name("group_by", key, chars_max=TAG_CHARS_MAX)
    return keys


def _fields(fields: Sequence[str] | None) -> tuple[str, ...] | None:
    if fields is None:
        return None
    if isinstance(fields, str) or len(fields) > FIELDS_MAX:
        raise QueryError(f"fields: a list of at most {FIELDS_MAX} names")
    for name in fields:
        check_name("fields", name, chars_max=FIELD_CHARS_MAX)
    return tuple(dict.fromkeys(fields))
