"""Promises of retention in memory, each broken in one place."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
from msgspec.structs import replace
from tests.conformance.broken_memory_store import breaks, wrap

from polaris.exceptions import QueryError
from polaris.storage import RetentionPolicy, _rollup_cells
from polaris.storage._ranges import to_micros
from polaris.storage._rollups import floor
from polaris.storage.backends.memory import _rollups as memory_rollups
from polaris.storage.backends.memory import _timeseries as memory_timeseries
from polaris.storage.backends.memory._rollups import MemoryRollups
from polaris.storage.backends.memory._timeseries import MemoryTimeSeries
from polaris.storage.backends.shared import TimeSeriesPort
from polaris.storage.backends.shared import _timeseries as shared_timeseries

Patch = pytest.MonkeyPatch
promise = functools.partial(breaks, "time_series")
MINUTE_US = 60_000_000


@promise("test_a_policy_comes_back_and_the_next_one_replaces_it")
def the_policy_of_an_empty_collection_stays(patch: Patch) -> None:
    def set_policy(original: Any, home: MemoryTimeSeries, collection: str, policy: RetentionPolicy) -> None:
        if collection in home._collections or home.policy(collection) is None:
            original(home, collection, policy)

    wrap(patch, MemoryTimeSeries, "set_policy", set_policy)


@promise("test_without_a_policy_nothing_is_old")
def without_a_policy_everything_is_old(patch: Patch) -> None:
    original = TimeSeriesPort.apply_retention

    async def apply(port: TimeSeriesPort, collection: str, keep_since: Any = None) -> int:
        if keep_since is None and await port.get_retention(collection) is None:
            keep_since = port.engine.clock.now()
        return await original(port, collection, keep_since)

    patch.setattr(TimeSeriesPort, "apply_retention", apply)


@promise("test_points_go_in_whole_windows_and_once")
def the_window_of_the_instant_goes_as_well(patch: Patch) -> None:
    def retain(original: Any, home: MemoryTimeSeries, collection: str, since_us: int, *bounds: Any) -> int:
        if home.policy(collection) is None or since_us % MINUTE_US == 0:
            return int(original(home, collection, since_us, *bounds))
        return int(original(home, collection, floor(since_us, MINUTE_US) + MINUTE_US, *bounds))

    wrap(patch, MemoryTimeSeries, "retain", retain)


@promise("test_the_window_of_the_newest_point_stays")
def only_the_newest_point_itself_stays(patch: Patch) -> None:
    def retire(
        original: Any, home: MemoryTimeSeries, collection: str, series: Any, since_us: int, width_us: int, rows_max: int
    ) -> int:
        went = int(original(home, collection, series, since_us, width_us, rows_max))
        rest = [time_us for time_us in series.times[:-1] if time_us < floor(since_us, width_us)]
        return went + home._drop(series, rest)

    wrap(patch, MemoryTimeSeries, "_retire", retire)


@promise("test_aggregates_are_the_same_when_points_are_gone")
def deviations_of_whole_numbers_are_forgotten(patch: Patch) -> None:
    def summarise(original: Any, readings: Any, *, sketched: bool) -> Any:
        found = original(readings, sketched=sketched)
        return replace(found, spread=0.0) if isinstance(found.first, int) else found

    wrap(patch, memory_timeseries, "summarise", summarise)


@promise("test_an_increase_goes_on_over_what_is_gone")
def a_restart_that_is_gone_is_forgotten(patch: Patch) -> None:
    def summarise(original: Any, readings: Any, *, sketched: bool) -> Any:
        found = original(readings, sketched=sketched)
        return replace(found, rise=max(0.0, float(found.last - found.first)))

    wrap(patch, memory_timeseries, "summarise", summarise)


@promise("test_percentiles_of_what_is_gone_are_within_a_percent_and_say_so")
def percentiles_never_say_so(patch: Patch) -> None:
    patch.setattr(_rollup_cells, "_is_approximate", lambda part, names: part.is_cut)


@promise("test_a_window_that_is_gone_counts_where_it_starts_and_says_so")
def a_range_cuts_windows_silently(patch: Patch) -> None:
    def is_cut(original: Any, request: Any, rollup: Any, bucket_of: Any) -> bool:
        return request.buckets is not None and bool(original(request, rollup, bucket_of))

    wrap(patch, _rollup_cells, "_is_cut", is_cut)


@promise("test_of_what_is_no_number_nothing_is_left")
def true_counts_as_one(patch: Patch) -> None:
    def numbers(original: Any, fields: Any) -> Any:
        return original({name: int(value) if isinstance(value, bool) else value for name, value in fields.items()})

    wrap(patch, memory_timeseries, "numbers", numbers)


@promise("test_a_point_that_comes_late_counts_besides_what_is_gone")
def late_points_are_dropped(patch: Patch) -> None:
    def store_many(original: Any, home: MemoryTimeSeries, collection: str, points: Any) -> None:
        def is_late(point: Any) -> bool:
            windows = home._rollups._rows.get((collection, tuple(sorted(point.tags.items()))), {})
            return any(start <= to_micros(point.timestamp) < start + width for start, width in windows)

        original(home, collection, [point for point in points if not is_late(point)])

    wrap(patch, MemoryTimeSeries, "store_many", store_many)


@promise("test_a_range_that_cuts_what_is_left_cannot_be_deleted")
def what_is_cut_stays_silently(patch: Patch) -> None:
    def check(original: Any, rollups: MemoryRollups, collection: str, key: Any, micros: Any) -> Any:
        try:
            return original(rollups, collection, key, micros)
        except QueryError:
            return []

    wrap(patch, MemoryRollups, "check_deletable", check)


@promise("test_what_is_left_goes_with_its_series")
def what_is_left_stays_without_its_series(patch: Patch) -> None:
    def delete(original: Any, home: MemoryTimeSeries, *arguments: Any) -> Any:
        cells = {
            key: {window: dict(found) for window, found in windows.items()}
            for key, windows in home._rollups._rows.items()
        }
        result = original(home, *arguments)
        home._rollups._rows = cells
        return result

    wrap(patch, MemoryTimeSeries, "delete_series", delete)


@promise("test_retention_of_one_collection_leaves_the_others_alone")
def retention_reaches_all_collections(patch: Patch) -> None:
    def retain(
        original: Any, home: MemoryTimeSeries, collection: str, since_us: int, rows_max: int, *under: Any
    ) -> int:
        for other in home._collections:
            if other != collection:
                original(home, other, since_us, rows_max)
        return int(original(home, collection, since_us, rows_max, *under))

    wrap(patch, MemoryTimeSeries, "retain", retain)


@promise("test_what_is_left_outlives_its_policy")
def another_policy_forgets_what_is_left(patch: Patch) -> None:
    def set_policy(original: Any, home: MemoryTimeSeries, collection: str, policy: RetentionPolicy) -> None:
        original(home, collection, policy)
        if not policy.rollups:
            home._rollups._rows.clear()

    wrap(patch, MemoryTimeSeries, "set_policy", set_policy)


@promise("test_what_is_left_goes_into_wider_windows_and_at_last_for_good")
def the_last_of_several_rollups_stay(patch: Patch) -> None:
    def thin(original: Any, home: MemoryTimeSeries, collection: str, since_us: int, into_us: Any, *bounds: Any) -> int:
        policy = home.policy(collection)
        is_last_of_several = into_us is None and policy is not None and len(policy.rollups) > 1
        return 0 if is_last_of_several else int(original(home, collection, since_us, into_us, *bounds))

    wrap(patch, MemoryTimeSeries, "thin", thin)


@promise("test_aggregates_are_the_same_when_what_is_left_is_in_wider_windows")
def wider_windows_forget_how_far_their_parts_are_apart(patch: Patch) -> None:
    def merged(original: Any, one: Any, other: Any) -> Any:
        return replace(original(one, other), spread=one.spread + other.spread)

    wrap(patch, memory_rollups, "merged", merged)


@promise("test_a_rollup_that_is_kept_as_long_as_the_points_goes_when_they_would")
def a_rollup_that_goes_along_is_forgotten_about(patch: Patch) -> None:
    def due_steps(original: Any, policy: RetentionPolicy, now_us: int) -> Any:
        return [step for step in original(policy, now_us) if step.of_points or not policy.goes_along]

    wrap(patch, shared_timeseries, "due_steps", due_steps)


@promise("test_what_is_left_of_points_that_go_early_stays_as_long_as_they_would_have")
def of_points_that_go_early_nothing_is_left(patch: Patch) -> None:
    def retire(
        original: Any, home: MemoryTimeSeries, collection: str, series: Any, since_us: int, width_us: int, rows_max: int
    ) -> int:
        policy = home.policy(collection)
        if policy is None or not policy.goes_along:
            return int(original(home, collection, series, since_us, width_us, rows_max))
        bound = min(floor(since_us, width_us), floor(series.times[-1], width_us))
        return home._drop(series, [time_us for time_us in series.times if time_us < bound])

    wrap(patch, MemoryTimeSeries, "_retire", retire)


@promise("test_sums_beyond_a_float_are_infinite_and_hold_nothing_up")
def what_has_no_sum_cannot_be_united(patch: Patch) -> None:
    def merged(original: Any, one: Any, other: Any) -> Any:
        if math.inf in (abs(one.total), abs(other.total)):
            raise OverflowError
        return original(one, other)

    wrap(patch, memory_rollups, "merged", merged)


@promise("test_what_changes_where_points_were_summarised_counts_at_once")
def what_is_replaced_behind_the_newest_stays(patch: Patch) -> None:
    def store(original: Any, home: MemoryTimeSeries, series: Any, point: Any) -> None:
        time_us = to_micros(point.timestamp)
        is_summarised = home.policy("m") is not None and series.times and time_us < series.times[-1]
        if not is_summarised or time_us not in series.points:
            original(home, series, point)

    wrap(patch, MemoryTimeSeries, "_store", store)


@promise("test_without_rollups_old_points_leave_nothing")
def without_rollups_nothing_is_old(patch: Patch) -> None:
    wrap(
        patch,
        shared_timeseries,
        "due_steps",
        lambda original, policy, now_us: original(policy, now_us) if policy.rollups else [],
    )


@promise("test_what_is_no_policy_is_refused")
def what_is_no_policy_is_passed_over(patch: Patch) -> None:
    original = TimeSeriesPort.set_retention

    async def set_retention(port: TimeSeriesPort, collection: str, policy: Any) -> None:
        if isinstance(policy, RetentionPolicy):
            await original(port, collection, policy)

    patch.setattr(TimeSeriesPort, "set_retention", set_retention)


@breaks("unit_of_work", "test_policies_and_retention_are_undone_with_the_rest")
def policies_are_not_undone(patch: Patch) -> None:
    def set_policy(_: Any, rollups: MemoryRollups, collection: str, policy: RetentionPolicy) -> None:
        rollups._policies[collection] = policy

    wrap(patch, MemoryRollups, "set_policy", set_policy)
