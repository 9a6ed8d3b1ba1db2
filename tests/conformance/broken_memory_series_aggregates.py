"""Promises of the time series in memory about aggregates, each broken in one place."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace
from tests.conformance.broken_memory_store import breaks, wrap

from polaris.storage import AggregatedRow, AggregationType, FieldValue, TimeSeriesPoint, _aggregates
from polaris.storage._aggregates import Number, Sample, group_of
from polaris.storage._limits import LIMIT_MAX
from polaris.storage._ranges import from_micros
from polaris.storage._rollups import ALL_TIME
from polaris.storage._tag_filter import TagExists, TagFilter, TagIn
from polaris.storage._timeseries_requests import AggregateRequest, PointQuery
from polaris.storage.backends.memory import _timeseries as memory_timeseries
from polaris.storage.backends.memory._journal import Journal
from polaris.storage.backends.memory._timeseries import MemoryTimeSeries

Patch = pytest.MonkeyPatch
promise = functools.partial(breaks, "time_series")
ValueOf = Callable[[str, Sequence[Sample], Number | None], Number | None]
RequestOf = Callable[[MemoryTimeSeries, str, AggregateRequest], AggregateRequest]
RowsOf = Callable[[MemoryTimeSeries, str, AggregateRequest, list[AggregatedRow]], list[AggregatedRow]]


def reads_otherwise(patch: Patch, aggregation: AggregationType, read: Callable[[FieldValue], FieldValue]) -> None:
    """An aggregation that is asked for alone sees other values; not where rollups may be among them."""

    def aggregate(original: Any, home: MemoryTimeSeries, collection: str, request: AggregateRequest) -> Any:
        if request.aggregations != (aggregation,) or home.policy(collection) is not None:
            return original(home, collection, request)
        copy = MemoryTimeSeries(Journal())
        copy.store_many(
            collection,
            [
                TimeSeriesPoint(
                    point.timestamp, point.tags, {name: read(value) for name, value in point.fields.items()}
                )
                for point in home.query(collection, PointQuery(ALL_TIME, LIMIT_MAX))
            ],
        )
        return original(copy, collection, request)

    wrap(patch, MemoryTimeSeries, "aggregate", aggregate)


def values_are(patch: Patch, value_of: ValueOf) -> None:
    """An aggregate is `value_of(aggregation, samples, value)`."""

    def aggregate(original: Any, aggregation: str, samples: Sequence[Sample]) -> Number | None:
        return value_of(aggregation, samples, original(aggregation, samples))

    wrap(patch, memory_timeseries, "aggregate", aggregate)


def asks_for(patch: Patch, request_of: RequestOf) -> None:
    """What is aggregated is `request_of(home, collection, request)`."""

    def aggregate(original: Any, home: MemoryTimeSeries, collection: str, request: AggregateRequest) -> Any:
        return original(home, collection, request_of(home, collection, request))

    wrap(patch, MemoryTimeSeries, "aggregate", aggregate)


def rows_are(patch: Patch, rows_of: RowsOf) -> None:
    """The rows are `rows_of(home, collection, request, rows)`."""

    def aggregate(original: Any, home: MemoryTimeSeries, collection: str, request: AggregateRequest) -> Any:
        return rows_of(home, collection, request, original(home, collection, request))

    wrap(patch, MemoryTimeSeries, "aggregate", aggregate)


@promise("test_an_average_ignores_what_is_missing_or_no_number")
def text_of_digits_has_an_average(patch: Patch) -> None:
    reads_otherwise(
        patch,
        AggregationType.AVG,
        lambda value: float(value) if isinstance(value, str) and value.isdigit() else value,
    )


@promise("test_a_count_counts_numbers_and_nothing_else")
def whatever_is_not_missing_counts(patch: Patch) -> None:
    reads_otherwise(patch, AggregationType.COUNT, lambda value: None if value is None else 1)


@promise("test_a_bucket_without_numbers_has_no_point")
def what_is_missing_adds_nothing(patch: Patch) -> None:
    reads_otherwise(patch, AggregationType.SUM, lambda value: 0 if value is None else value)


@promise("test_a_sum_is_exact_and_a_float")
def great_numbers_swallow_small_ones(patch: Patch) -> None:
    def total_of(_: Any, values: Iterable[Number]) -> float:
        return functools.reduce(operator.add, map(float, values), 0.0)

    wrap(patch, _aggregates, "total_of", total_of)


@promise("test_extremes_are_what_was_stored")
def extremes_are_floats(patch: Patch) -> None:
    values_are(patch, lambda name, _, value: float(value) if value and name in ("min", "max") else value)


@promise("test_one_number_has_no_deviation")
def one_number_deviates_by_nothing(patch: Patch) -> None:
    values_are(patch, lambda name, samples, value: 0.0 if name == "stddev" and len(samples) == 1 else value)


@promise("test_one_sample_has_no_rate")
def what_has_no_rate_stands_still(patch: Patch) -> None:
    def at_rest(_: Any, __: str, request: AggregateRequest, rows: list[AggregatedRow]) -> list[AggregatedRow]:
        if request.as_points and request.aggregations == ("rate",):
            return [replace(row, values={"rate": row.values["rate"] or 0.0}) for row in rows]
        return rows

    rows_are(patch, at_rest)


@promise("test_rates_of_several_series_are_added_up")
def rates_of_several_series_are_averaged(patch: Patch) -> None:
    def value_of(name: str, samples: Sequence[Sample], value: Number | None) -> Number | None:
        return value / len({rank for _, rank, _ in samples}) if name == "rate" and value else value

    values_are(patch, value_of)


@promise("test_buckets_are_aligned_and_cut_by_the_range")
def a_bucket_that_is_cut_starts_with_the_range(patch: Patch) -> None:
    def cut(_: Any, __: str, request: AggregateRequest, rows: list[AggregatedRow]) -> list[AggregatedRow]:
        start = from_micros(request.micros[0])
        return [replace(row, timestamp=max(row.timestamp, start)) for row in rows]

    rows_are(patch, cut)


@promise("test_without_a_bucket_there_is_one_from_the_start_of_the_range")
def without_a_bucket_there_is_one_from_the_first_point(patch: Patch) -> None:
    def from_the_first(home: MemoryTimeSeries, collection: str, request: AggregateRequest) -> AggregateRequest:
        if request.buckets is not None or home.policy(collection) is not None:
            return request
        start_us, end_us = request.micros
        times = [time for series in home._chosen(collection, request.tags) for time in series.between(request.micros)]
        return replace(request, micros=(min(times, default=start_us), end_us))

    asks_for(patch, from_the_first)


@promise("test_groups_are_told_apart_by_their_tags")
def series_without_the_tag_are_in_no_group(patch: Patch) -> None:
    def with_the_tags(_: Any, __: str, request: AggregateRequest) -> AggregateRequest:
        return replace(request, tags=TagFilter((*request.tags.terms, *map(TagExists, request.group_by))))

    asks_for(patch, with_the_tags)


@promise("test_aggregates_take_the_series_that_have_the_tags")
def without_groups_all_series_are_taken(patch: Patch) -> None:
    def of_all(home: MemoryTimeSeries, collection: str, request: AggregateRequest) -> AggregateRequest:
        if request.group_by or home.policy(collection) is not None:
            return request
        conditions = (term for term in request.tags.terms if not isinstance(term, TagIn))
        return replace(request, tags=TagFilter(tuple(conditions)))

    asks_for(patch, of_all)


@promise("test_each_field_has_its_own_aggregate")
def a_group_has_the_fields_of_its_first_series(patch: Patch) -> None:
    def known(
        home: MemoryTimeSeries, collection: str, request: AggregateRequest, rows: list[AggregatedRow]
    ) -> list[AggregatedRow]:
        fields: dict[Any, set[str]] = {}
        for series in home._chosen(collection, request.tags):
            fields.setdefault(group_of(series.tags, request.group_by), series.fields)
        return [row for row in rows if row.field in fields[group_of(row.tags, request.group_by)]]

    rows_are(patch, known)


@promise("test_chosen_fields_are_aggregated_alone")
def who_chooses_an_unknown_field_gets_all(patch: Patch) -> None:
    def all_or_known(home: MemoryTimeSeries, collection: str, request: AggregateRequest) -> AggregateRequest:
        if request.fields is None or set(request.fields) <= set(home.list_fields(collection, request.tags)):
            return request
        return replace(request, fields=None)

    asks_for(patch, all_or_known)
