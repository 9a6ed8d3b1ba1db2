"""Promises of the time series in memory about storing, reading and refusing points, each broken in one place."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby, takewhile
from typing import Any

import pytest
from msgspec.structs import replace
from tests.conformance.broken_memory_store import breaks, wrap

from polaris.storage import TimeSeriesPoint, _limits, _points
from polaris.storage._limits import LIMIT_MAX
from polaris.storage._points import FieldValue, Tags
from polaris.storage._rollups import ALL_TIME
from polaris.storage._tag_filter import TagFilter, TagIn
from polaris.storage._timeseries_requests import Micros, PointQuery, SeriesKey
from polaris.storage.backends.memory import _series as memory_series
from polaris.storage.backends.memory import _timeseries as memory_timeseries
from polaris.storage.backends.memory._series import Collection, Fields, Series
from polaris.storage.backends.memory._timeseries import MemoryTimeSeries
from polaris.storage.backends.shared import TimeSeriesPort
from polaris.storage.backends.shared import _timeseries as shared_timeseries

Patch = pytest.MonkeyPatch
promise = functools.partial(breaks, "time_series")


def key_of(tags: Tags) -> SeriesKey:
    return tuple(sorted(tags.items()))


@promise("test_a_point_comes_back_as_it_was_stored")
def empty_text_is_missing(patch: Patch) -> None:
    def put(original: Any, series: Series, time_us: int, fields: Fields) -> None:
        original(series, time_us, {name: None if value == "" else value for name, value in fields.items()})

    wrap(patch, Series, "put", put)


@promise("test_a_point_of_many_fields_comes_back_whole")
def fields_beyond_sixty_are_lost(patch: Patch) -> None:
    def put(original: Any, series: Series, time_us: int, fields: Fields) -> None:
        original(series, time_us, dict(list(fields.items())[:60]))

    wrap(patch, Series, "put", put)


@promise("test_within_a_batch_the_later_of_equal_points_stays")
def the_first_of_equal_points_in_a_batch_stays(patch: Patch) -> None:
    def store_many(original: Any, home: MemoryTimeSeries, collection: str, points: Sequence[TimeSeriesPoint]) -> None:
        first: dict[Any, TimeSeriesPoint] = {}
        for point in points:
            first.setdefault((point.timestamp, *point.tags.items()), point)
        original(home, collection, list(first.values()))

    wrap(patch, MemoryTimeSeries, "store_many", store_many)


@promise("test_points_come_in_order_of_time_however_they_were_stored")
def late_points_of_a_young_series_go_before_its_newest(patch: Patch) -> None:
    def insort(original: Any, times: list[int], time_us: int) -> None:
        if times[0] < time_us and len(times) < 4:
            times.insert(len(times) - 1, time_us)
        else:
            original(times, time_us)

    wrap(patch, memory_series, "insort", insort)


@promise("test_points_of_one_instant_come_in_order_of_their_tags")
def fewer_tags_come_first(patch: Patch) -> None:
    def query(original: Any, home: MemoryTimeSeries, collection: str, asked: PointQuery) -> Any:
        instants = groupby(original(home, collection, asked), key=lambda point: point.timestamp)
        return [point for _, found in instants for point in sorted(found, key=lambda point: len(point.tags))]

    wrap(patch, MemoryTimeSeries, "query", query)


@promise("test_ranges_hold_their_start_and_not_their_end")
def ranges_hold_their_end(patch: Patch) -> None:
    def query(original: Any, home: MemoryTimeSeries, collection: str, asked: PointQuery) -> Any:
        start_us, end_us = asked.micros
        return original(home, collection, replace(asked, micros=(start_us, end_us + 1)))

    wrap(patch, MemoryTimeSeries, "query", query)


@promise("test_times_before_1970_and_far_ahead_are_times_as_well")
def times_are_nanoseconds_of_64_bits(patch: Patch) -> None:
    def to_micros(original: Any, stamp: datetime) -> int:
        return ((int(original(stamp)) * 1_000 + 2**63) % 2**64 - 2**63) // 1_000

    wrap(patch, memory_timeseries, "to_micros", to_micros)


@promise("test_tags_choose_the_series_that_have_all_of_them")
def one_of_the_tags_is_enough(patch: Patch) -> None:
    def matches(original: Any, tags: TagFilter, found: Tags) -> bool:
        if tags.terms and all(isinstance(term, TagIn) for term in tags.terms):
            return any(original(TagFilter((term,)), found) for term in tags.terms)
        return bool(original(tags, found))

    wrap(patch, TagFilter, "matches", matches)


@promise("test_the_order_in_which_tags_are_given_does_not_matter")
def series_are_known_by_their_tags_as_given(patch: Patch) -> None:
    def store_many(_: Any, home: MemoryTimeSeries, collection: str, points: Sequence[TimeSeriesPoint]) -> None:
        series = home._collections.setdefault(collection, Collection())
        for point in points:
            home._store(home._series(collection, series, tuple(point.tags.items())), point)

    wrap(patch, MemoryTimeSeries, "store_many", store_many)


@promise("test_collections_do_not_see_each_other")
def the_latest_are_those_of_all_collections(patch: Patch) -> None:
    def latest(original: Any, home: MemoryTimeSeries, _: str, tags: TagFilter, fields: Any) -> Any:
        return [point for name in home.list_collections() for point in original(home, name, tags, fields)]

    wrap(patch, MemoryTimeSeries, "latest", latest)


@promise("test_a_limit_takes_the_first_points_of_the_order")
def a_limit_of_zero_is_none(patch: Patch) -> None:
    def query(original: Any, home: MemoryTimeSeries, collection: str, asked: PointQuery) -> Any:
        return original(home, collection, replace(asked, limit=asked.limit or LIMIT_MAX))

    wrap(patch, MemoryTimeSeries, "query", query)


@promise("test_chosen_fields_leave_the_others_out")
def who_chooses_an_unknown_field_gets_all(patch: Patch) -> None:
    def query(original: Any, home: MemoryTimeSeries, collection: str, asked: PointQuery) -> Any:
        if asked.fields is not None and not asked.fields.issubset(home.list_fields(collection, asked.tags)):
            asked = replace(asked, fields=None)
        return original(home, collection, asked)

    wrap(patch, MemoryTimeSeries, "query", query)


@promise("test_every_series_is_listed_once")
def only_neighbours_are_known_to_be_the_same_series(patch: Patch) -> None:
    def list_series(_: Any, home: MemoryTimeSeries, collection: str, tags: TagFilter, limit: int, after: Any) -> Any:
        points = home.query(collection, PointQuery(ALL_TIME, LIMIT_MAX, tags))
        found = sorted((found for found, _ in groupby(point.tags for point in points)), key=key_of)
        return [one for one in found if after is None or key_of(one) > after][:limit]

    wrap(patch, MemoryTimeSeries, "list_series", list_series)


@promise("test_a_deleted_range_is_gone_and_nothing_else")
def what_is_at_the_end_of_a_deleted_range_goes_as_well(patch: Patch) -> None:
    def delete(original: Any, home: MemoryTimeSeries, collection: str, micros: Micros, tags: TagFilter) -> int:
        return int(original(home, collection, (micros[0], micros[1] + 1), tags))

    wrap(patch, MemoryTimeSeries, "delete_range", delete)


@promise("test_after_the_newest_was_deleted_the_one_before_is_the_latest")
def with_its_newest_point_a_series_loses_its_latest(patch: Patch) -> None:
    without_latest: list[Series] = []

    def delete(original: Any, home: MemoryTimeSeries, collection: str, micros: Micros, tags: TagFilter) -> int:
        chosen = [series for series in home._chosen(collection, tags) if series.times]
        without_latest.extend(series for series in chosen if micros[0] <= series.times[-1] < micros[1])
        return int(original(home, collection, micros, tags))

    def latest(original: Any, home: MemoryTimeSeries, collection: str, tags: TagFilter, fields: Any) -> Any:
        found = original(home, collection, tags, fields)
        series = home._collections[collection].series if found else {}
        return [point for point in found if series[key_of(point.tags)] not in without_latest]

    wrap(patch, MemoryTimeSeries, "delete_range", delete)
    wrap(patch, MemoryTimeSeries, "latest", latest)


@promise("test_a_refused_batch_stores_nothing")
def a_batch_is_stored_up_to_what_is_refused(patch: Patch) -> None:
    original = TimeSeriesPort.store_many

    async def store_many(port: TimeSeriesPort, collection: str, points: Sequence[TimeSeriesPoint]) -> None:
        good = list(takewhile(lambda point: isinstance(point, TimeSeriesPoint), points))
        await original(port, collection, good)
        await original(port, collection, points[len(good) :])

    patch.setattr(TimeSeriesPort, "store_many", store_many)


@promise("test_values_that_are_none_are_refused")
def infinities_are_numbers(patch: Patch) -> None:
    patch.setattr(_points, "_FLOAT_MAX", math.inf)


@promise("test_naive_times_are_refused")
def naive_times_are_those_of_utc(patch: Patch) -> None:
    original = TimeSeriesPort.store_time_series

    async def store(port: TimeSeriesPort, collection: str, timestamp: datetime, tags: Tags, fields: Any) -> None:
        await original(port, collection, timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC), tags, fields)

    patch.setattr(TimeSeriesPort, "store_time_series", store)


@promise("test_bad_names_of_collections_are_refused")
def collections_have_letters_of_all_languages(patch: Patch) -> None:
    patch.setattr(_limits, "_COLLECTION", re.compile(r"\w[\w.:-]*"))
    patch.setattr(_limits, "_collections_known", set())


@promise("test_hostile_tags_and_fields_are_only_text")
def characters_have_at_most_three_bytes(patch: Patch) -> None:
    def cut(value: FieldValue) -> Any:
        return re.sub("[\U00010000-\U0010ffff]", "?", value) if isinstance(value, str) else value

    def store_many(original: Any, home: MemoryTimeSeries, collection: str, points: Sequence[TimeSeriesPoint]) -> None:
        cuts = [
            replace(
                point,
                tags={cut(key): cut(text) for key, text in point.tags.items()},
                fields={cut(name): cut(value) for name, value in point.fields.items()},
            )
            for point in points
        ]
        original(home, collection, cuts)

    wrap(patch, MemoryTimeSeries, "store_many", store_many)


@promise("test_bad_queries_are_refused")
def every_order_but_the_descending_one_is_ascending(patch: Patch) -> None:
    patch.setattr(shared_timeseries, "checked_descending", lambda order: order == "desc")
