"""Promises of the time series in memory about choosing and charts, each broken in one place."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from msgspec.structs import replace
from tests.conformance.broken_memory_store import breaks, wrap

from polaris.exceptions import QueryError
from polaris.storage import _aggregates, _buckets, _gaps, _tag_filter
from polaris.storage._buckets import CalendarBuckets, Edges, FixedBuckets
from polaris.storage._ranges import to_micros
from polaris.storage._tag_filter import TagFilter, TagIn, TagNot, TagPrefix
from polaris.storage.backends.memory import _timeseries as memory_timeseries
from polaris.storage.backends.memory._series import Collection, Series
from polaris.storage.backends.memory._timeseries import MemoryTimeSeries
from polaris.storage.backends.shared import TimeSeriesPort
from polaris.storage.backends.shared import _timeseries as shared_timeseries
from polaris.storage.backends.shared import _timeseries_arguments as arguments

Patch = pytest.MonkeyPatch
promise = functools.partial(breaks, "time_series")
HOUR_US = 3_600_000_000


@promise("test_conditions_on_tags_choose_series")
def nothing_begins_with_nothing(patch: Patch) -> None:
    def holds(original: Any, term: Any, tags: Any) -> bool:
        if isinstance(term, TagPrefix) and not term.prefix:
            return bool(tags.get(term.key))
        return bool(original(term, tags))

    wrap(patch, _tag_filter, "_holds", holds)


@promise("test_opposites_let_series_without_the_tag_pass")
def opposites_ask_for_the_tag(patch: Patch) -> None:
    def holds(original: Any, term: Any, tags: Any) -> bool:
        if isinstance(term, TagNot) and isinstance(term.term, TagIn) and term.term.key not in tags:
            return False
        return bool(original(term, tags))

    wrap(patch, _tag_filter, "_holds", holds)


@promise("test_every_read_and_deletion_understands_conditions")
def deletions_understand_equality_only(patch: Patch) -> None:
    def delete(original: Any, home: MemoryTimeSeries, collection: str, micros: Any, tags: TagFilter) -> int:
        known = TagFilter(tuple(term for term in tags.terms if isinstance(term, TagIn)))
        return int(original(home, collection, micros, known))

    wrap(patch, MemoryTimeSeries, "delete_range", delete)


@promise("test_conditions_that_make_no_sense_are_refused")
def lists_may_be_long(patch: Patch) -> None:
    patch.setattr(_tag_filter, "FILTER_VALUES_MAX", 2_000)


@promise("test_pages_follow_each_other_without_gap_or_double")
def pages_leave_the_rest_of_an_instant_out(patch: Patch) -> None:
    def query(original: Any, home: MemoryTimeSeries, collection: str, asked: Any) -> Any:
        if asked.after is not None and asked.descending and asked.limit == 5:
            asked = replace(asked, after=replace(asked.after, key=(("\U0010ffff", ""),)))
        return original(home, collection, asked)

    wrap(patch, MemoryTimeSeries, "query", query)


@promise("test_a_page_goes_on_behind_a_point_that_is_gone")
def pages_look_for_their_point(patch: Patch) -> None:
    def query(original: Any, home: MemoryTimeSeries, collection: str, asked: Any) -> Any:
        after = asked.after
        if after is not None and after.key not in home._collections[collection].series:
            return []
        return original(home, collection, asked)

    wrap(patch, MemoryTimeSeries, "query", query)


@promise("test_what_is_written_between_two_pages_does_not_shift_them")
def pages_are_counted(patch: Patch) -> None:
    served: dict[int, int] = {}

    def query(original: Any, home: MemoryTimeSeries, collection: str, asked: Any) -> Any:
        if asked.after is None:
            found = original(home, collection, asked)
            served[id(home)] = len(found)
            return found
        if id(home) not in served:
            return original(home, collection, asked)
        start = served[id(home)]
        whole = original(home, collection, replace(asked, after=None, limit=10_000))
        page = whole[start : start + asked.limit]
        served[id(home)] += len(page)
        return page

    wrap(patch, MemoryTimeSeries, "query", query)


@promise("test_iterating_gives_every_point_in_order")
def iterating_goes_one_way(patch: Patch) -> None:
    original = TimeSeriesPort.iterate_time_series

    def iterate(port: Any, *args: Any, order: str = "asc", **options: Any) -> Any:
        return original(port, *args, **options)

    patch.setattr(TimeSeriesPort, "iterate_time_series", iterate)


@promise("test_the_latest_points_can_be_cut_to_fields")
def the_latest_come_whole(patch: Patch) -> None:
    wrap(
        patch,
        MemoryTimeSeries,
        "latest",
        lambda original, home, collection, tags, fields: original(home, collection, tags, None),
    )


@promise("test_series_are_listed_in_pages_and_counted")
def the_store_counts_its_collections(patch: Patch) -> None:
    def count(original: Any, home: MemoryTimeSeries, collection: Any, tags: TagFilter) -> int:
        return len(home._collections) if collection is None else int(original(home, collection, tags))

    wrap(patch, MemoryTimeSeries, "count_series", count)


@promise("test_collections_fields_and_tags_are_listed")
def fields_go_with_their_points(patch: Patch) -> None:
    def fields(original: Any, home: MemoryTimeSeries, collection: str, tags: TagFilter) -> list[str]:
        chosen = home._chosen(collection, tags)
        return sorted({name for series in chosen for found in series.points.values() for name in found})

    wrap(patch, MemoryTimeSeries, "list_fields", fields)


@promise("test_deleted_series_are_gone_with_their_points")
def collections_outlive_their_series(patch: Patch) -> None:
    wrap(patch, MemoryTimeSeries, "list_collections", lambda original, home: sorted(home._collections))


@promise("test_a_deleted_series_may_come_again_as_a_new_one")
def series_remember_their_former_life(patch: Patch) -> None:
    former: dict[Any, set[str]] = {}

    def remove(original: Any, home: Collection, series: Series) -> None:
        former[series.key] = series.fields
        original(home, series)

    def add(original: Any, home: Collection, series: Series) -> None:
        series.fields |= former.get(series.key, set())
        original(home, series)

    wrap(patch, Collection, "remove", remove)
    wrap(patch, Collection, "add", add)


@promise("test_days_of_a_zone_have_the_hours_that_its_clocks_give_them")
def no_day_is_longer_than_24_hours(patch: Patch) -> None:
    def start_of(original: Any, edges: Edges, micros: int) -> int:
        start = int(original(edges, micros))
        following = int(original(edges, micros + HOUR_US))
        return following if following - start == 25 * HOUR_US else start

    wrap(patch, Edges, "start_of", start_of)


@promise("test_units_of_the_calendar_begin_where_people_say")
def weeks_begin_on_sunday(patch: Patch) -> None:
    patch.setattr(_buckets, "_MONDAY", datetime(1970, 1, 4))  # noqa: DTZ001 - a time on the wall


@promise("test_an_origin_moves_the_buckets")
def equal_buckets_begin_in_1970(patch: Patch) -> None:
    def parse(original: Any, *args: Any) -> Any:
        found = original(*args)
        return replace(found, origin_us=0) if isinstance(found, FixedBuckets) else found

    wrap(patch, shared_timeseries, "parse_buckets", parse)


def fills_otherwise(patch: Patch, asked: str, value_of: Callable[[Any, Any], Any]) -> None:
    """What is filled in one way has other values, which are made of a row and the one before it of its column."""

    async def filled(rows: Any, buckets: Any, micros: Any, fill: Any) -> Any:
        found = await _gaps.filled(rows, buckets, micros, fill)
        if fill != asked:
            return found
        before: dict[str, Any] = {}
        otherwise = []
        for row in found:
            column = f"{row.field} {row.tags}"
            value = value_of(row, before.get(column))
            otherwise.append(row if row.count else replace(row, values=dict.fromkeys(row.values, value)))
            before[column] = row
        return otherwise

    patch.setattr(shared_timeseries, "filled", filled)


def only_value(row: Any) -> Any:
    return next(iter(row.values.values()))


@promise("test_gaps_are_shown_as_null")
def gaps_are_zero(patch: Patch) -> None:
    fills_otherwise(patch, "null", lambda row, before: 0)


@promise("test_gaps_keep_the_value_before_them")
def only_the_next_bucket_is_filled(patch: Patch) -> None:
    fills_otherwise(patch, "previous", lambda row, before: only_value(row) if before and before.count else None)


@promise("test_gaps_are_bridged_by_a_line")
def gaps_are_bridged_by_a_step(patch: Patch) -> None:
    fills_otherwise(
        patch, "linear", lambda row, _: 25.0 if only_value(row) and row.timestamp.minute else only_value(row)
    )


@promise("test_gaps_are_filled_within_the_range_only")
def filling_begins_before_the_range(patch: Patch) -> None:
    async def filled(rows: Any, buckets: Any, micros: Any, fill: Any) -> Any:
        early = micros[0] % 60_000_000 * 2
        return await _gaps.filled(rows, buckets, (micros[0] - early, micros[1]), fill)

    patch.setattr(shared_timeseries, "filled", filled)


@promise("test_each_group_and_field_has_gaps_of_its_own")
def rare_fields_have_no_gaps(patch: Patch) -> None:
    async def filled(*args: Any) -> Any:
        return [row for row in await _gaps.filled(*args) if row.count or row.field != "y"]

    patch.setattr(shared_timeseries, "filled", filled)


@promise("test_days_are_filled_over_a_change_of_the_clocks")
def filled_days_have_24_hours(patch: Patch) -> None:
    async def filled(rows: Any, buckets: Any, micros: Any, fill: Any) -> Any:
        if isinstance(buckets, CalendarBuckets):
            buckets = FixedBuckets(24 * HOUR_US, micros[0])
        return await _gaps.filled(rows, buckets, micros, fill)

    patch.setattr(shared_timeseries, "filled", filled)


@promise("test_more_than_can_be_filled_is_refused")
def what_is_too_much_stays_unfilled(patch: Patch) -> None:
    async def filled(rows: Any, *args: Any) -> Any:
        try:
            return await _gaps.filled(rows, *args)
        except QueryError:
            return rows

    patch.setattr(shared_timeseries, "filled", filled)


@promise("test_any_percentile_can_be_asked_for")
def percentiles_are_whole(patch: Patch) -> None:
    wrap(patch, _aggregates, "percent_of", lambda original, name: float(round(original(name))))


@promise("test_increases_of_buckets_add_up")
def counters_never_restart(patch: Patch) -> None:
    patch.setattr(memory_timeseries, "rise", lambda earlier, later: later - earlier)


@promise("test_an_increase_knows_nothing_from_before_the_range")
def an_increase_looks_back(patch: Patch) -> None:
    def aggregate(original: Any, home: MemoryTimeSeries, collection: str, request: Any) -> Any:
        if request.aggregations == ("increase",) and request.buckets is not None:
            wider = replace(request, micros=(-(2**62), request.micros[1]))
            first = request.buckets.start_of(request.micros[0])
            return [row for row in original(home, collection, wider) if to_micros(row.timestamp) >= first]
        return original(home, collection, request)

    wrap(patch, MemoryTimeSeries, "aggregate", aggregate)


@promise("test_many_aggregates_come_at_once")
def half_a_row_is_no_row(patch: Patch) -> None:
    def aggregate(original: Any, home: MemoryTimeSeries, collection: str, request: Any) -> Any:
        return [
            row
            for row in original(home, collection, request)
            if len(row.values) == 1 or None not in row.values.values()
        ]

    wrap(patch, MemoryTimeSeries, "aggregate", aggregate)


@promise("test_each_field_can_have_aggregates_of_its_own")
def all_fields_have_all_aggregates(patch: Patch) -> None:
    def checked(original: Any, aggregations: Any, fields: Any = None) -> Any:
        names, by_field = original(aggregations, fields)
        union = tuple(dict.fromkeys(name for own in by_field.values() for name in own))
        return names, dict.fromkeys(by_field, union)

    wrap(patch, shared_timeseries, "checked_aggregations", checked)


@promise("test_charts_that_make_no_sense_are_refused")
def percentiles_may_be_beyond_all(patch: Patch) -> None:
    wrap(patch, arguments, "percent_of", lambda original, name: 1.0 if name == "p101" else original(name))
