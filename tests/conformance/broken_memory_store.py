"""Promises of the engine in memory, each broken in one place: its suite must notice exactly that. Here: time series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any

import msgspec
import pytest

from polaris.storage import _aggregates
from polaris.storage._aggregation import AggregationType
from polaris.storage._buckets import FixedBuckets
from polaris.storage._tag_filter import ALL_SERIES
from polaris.storage.backends.memory import _series as memory_series
from polaris.storage.backends.memory import _timeseries as memory_timeseries
from polaris.storage.backends.memory._timeseries import MemoryTimeSeries
from polaris.storage.backends.shared import _timeseries as shared_timeseries

Break = Callable[[pytest.MonkeyPatch], None]
BREAKS: dict[str, dict[str, Break]] = {}


def breaks(suite: str, promise: str) -> Callable[[Break], Break]:
    def register(function: Break) -> Break:
        BREAKS.setdefault(suite, {})[promise] = function
        return function

    return register


def wrap(patch: pytest.MonkeyPatch, owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace a method by `around(original, self, ...)`."""
    original = getattr(owner, name)
    patch.setattr(owner, name, lambda *args, **kwargs: around(original, *args, **kwargs))


# Time series


@breaks("time_series", "test_true_stays_true_and_is_not_one")
def booleans_become_integers(patch: pytest.MonkeyPatch) -> None:
    def put(original: Any, series: Any, time_us: int, fields: dict[str, Any]) -> None:
        original(
            series, time_us, {k: int(v) if isinstance(v, bool) and len(fields) == 3 else v for k, v in fields.items()}
        )

    wrap(patch, memory_series.Series, "put", put)


@breaks("time_series", "test_missing_is_kept_apart_from_absent_and_from_zero")
def missing_is_dropped(patch: pytest.MonkeyPatch) -> None:
    def put(original: Any, series: Any, time_us: int, fields: dict[str, Any]) -> None:
        original(series, time_us, {k: v for k, v in fields.items() if v is not None or len(fields) == 1})

    wrap(patch, memory_series.Series, "put", put)


@breaks("time_series", "test_the_last_write_of_a_point_wins_as_a_whole")
def old_fields_shine_through(patch: pytest.MonkeyPatch) -> None:
    def put(original: Any, series: Any, time_us: int, fields: dict[str, Any]) -> None:
        original(series, time_us, {**series.points.get(time_us, {}), **fields})

    wrap(patch, memory_series.Series, "put", put)


@breaks("time_series", "test_the_latest_point_is_the_newest_and_not_the_last_written")
def latest_is_the_last_written(patch: pytest.MonkeyPatch) -> None:
    def latest(original: Any, home: MemoryTimeSeries, collection: str, tags: Any, fields: Any) -> Any:
        if fields is not None:
            return original(home, collection, tags, fields)
        return [
            series.point(*next(reversed(series.points.items())))
            for series in home._chosen(collection, tags)
            if series.times
        ]

    wrap(patch, MemoryTimeSeries, "latest", latest)


@breaks("time_series", "test_retention_keeps_the_newest_point_of_each_series")
def retention_takes_everything(patch: pytest.MonkeyPatch) -> None:
    def retain(original: Any, home: MemoryTimeSeries, collection: str, since_us: int, *bounds: Any) -> int:
        if home.policy(collection) is not None:
            return int(original(home, collection, since_us, *bounds))
        return home.delete_range(collection, (-(2**62), since_us), ALL_SERIES)

    wrap(patch, MemoryTimeSeries, "retain", retain)


@breaks("time_series", "test_a_limit_counts_only_points_with_chosen_fields")
def the_limit_counts_all_points(patch: pytest.MonkeyPatch) -> None:
    def query(original: Any, home: MemoryTimeSeries, collection: str, asked: Any) -> Any:
        found = original(home, collection, msgspec.structs.replace(asked, fields=None))
        if asked.fields is None:
            return found
        return [
            msgspec.structs.replace(point, fields={k: v for k, v in point.fields.items() if k in asked.fields})
            for point in found
            if not asked.fields.isdisjoint(point.fields)
        ]

    wrap(patch, MemoryTimeSeries, "query", query)


@breaks("time_series", "test_the_deviation_is_that_of_a_sample")
def the_deviation_of_a_few_is_that_of_a_population(patch: pytest.MonkeyPatch) -> None:
    def deviating(original: Any, aggregation: AggregationType, samples: Sequence[Any]) -> Any:
        value = original(aggregation, samples)
        if aggregation == AggregationType.STDDEV and value is not None and len(samples) < 5:
            return value * ((len(samples) - 1) / len(samples)) ** 0.5
        return value

    wrap(patch, memory_timeseries, "aggregate", deviating)


@breaks("time_series", "test_a_rate_survives_the_restart_of_its_counter")
def a_restart_counts_as_a_fall(patch: pytest.MonkeyPatch) -> None:
    def falling(original: Any, aggregation: AggregationType, samples: Sequence[Any]) -> Any:
        if aggregation == AggregationType.RATE and len({rank for _, rank, _ in samples}) == 1 and len(samples) > 1:
            ordered = sorted(samples)
            return (ordered[-1][2] - ordered[0][2]) / ((ordered[-1][0] - ordered[0][0]) / 1e6)
        return original(aggregation, samples)

    wrap(patch, memory_timeseries, "aggregate", falling)


@breaks("time_series", "test_first_and_last_go_by_time_and_then_by_tags")
def the_last_of_one_instant_is_any(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_aggregates, "_place", lambda sample: (sample[0], -sample[1]))


@breaks("time_series", "test_percentiles_interpolate")
def percentiles_take_the_nearest_rank(patch: pytest.MonkeyPatch) -> None:
    original = _aggregates._percentile

    def nearest(ordered: Sequence[Any], percent: float) -> Any:
        return ordered[int(percent / 10)] if len(ordered) == 10 else original(ordered, percent)

    patch.setattr(_aggregates, "_percentile", nearest)


@breaks("time_series", "test_buckets_before_1970_are_aligned_as_well")
def buckets_are_cut_towards_zero(patch: pytest.MonkeyPatch) -> None:
    def cut(original: Any, buckets: FixedBuckets, micros: int) -> int:
        if micros < 0:
            return int(micros / buckets.width_us) * buckets.width_us
        return int(original(buckets, micros))

    wrap(patch, FixedBuckets, "start_of", cut)


@breaks("time_series", "test_times_of_other_zones_are_the_same_instants")
def zones_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    original = shared_timeseries.TimeSeriesPort.store_time_series

    async def store(port: Any, collection: str, timestamp: Any, tags: Any, fields: Any) -> None:
        if timestamp.utcoffset():
            timestamp = timestamp.replace(tzinfo=UTC)
        await original(port, collection, timestamp, tags, fields)

    patch.setattr(shared_timeseries.TimeSeriesPort, "store_time_series", store)
