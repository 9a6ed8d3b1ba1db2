"""Single promises of the repositories, each broken in one place of them or of the engine in memory below."""

from __future__ import annotations

import functools
from bisect import insort
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from tests.conformance.broken_memory_store import breaks, wrap

from polaris.domain import HealthStatus, Quality, SystemDependency, SystemState
from polaris.storage._buckets import FixedBuckets
from polaris.storage._filter_match import matches
from polaris.storage._graph_view import GraphView
from polaris.storage._ranges import to_micros
from polaris.storage._sorting import SortBy
from polaris.storage._tag_filter import ALL_SERIES, TagFilter
from polaris.storage._timeseries_requests import Micros, PointQuery
from polaris.storage.backends.memory import _timeseries as memory_timeseries
from polaris.storage.backends.memory._documents import MemoryDocuments
from polaris.storage.backends.memory._graph import MemoryGraph
from polaris.storage.backends.memory._series import Collection, Series
from polaris.storage.backends.memory._timeseries import MemoryTimeSeries
from polaris.storage.repositories import _actions, _dependencies, _patterns, _results, _states
from polaris.storage.repositories._state_codec import StateCodec

Patch = pytest.MonkeyPatch
promise = functools.partial(breaks, "repositories")


# States of systems


@promise("test_a_state_comes_back_equal_to_what_was_saved")
def quality_is_forgotten(patch: Patch) -> None:
    original = _states.SystemStateRepository._states

    async def forgetful(repository: Any, points: Any) -> list[SystemState]:
        return [
            msgspec.structs.replace(
                state,
                metrics={
                    key: msgspec.structs.replace(metric, quality=Quality.OK) if metric.value is not None else metric
                    for key, metric in state.metrics.items()
                },
            )
            for state in await original(repository, points)
        ]

    patch.setattr(_states.SystemStateRepository, "_states", forgetful)


@promise("test_a_state_without_metrics_comes_back")
def health_is_that_of_the_metrics(patch: Patch) -> None:
    original = StateCodec.decode

    def decode(point: Any, forms: Any) -> SystemState:
        state = original(point, forms)
        return state if state.metrics else msgspec.structs.replace(state, health_status=HealthStatus.UNKNOWN)

    patch.setattr(StateCodec, "decode", staticmethod(decode))


@promise("test_states_of_changing_form_come_back_each_with_its_own")
def one_form_serves_a_system_for_ever(patch: Patch) -> None:
    original = StateCodec.encode

    def encode(codec: Any, state: SystemState) -> Any:
        point, digest, text = original(codec, state)
        if digest and len(state.metrics) == 1:
            first = vars(codec).setdefault("first", (digest, text))
            point.fields["@form"] = first[0]
            return point, *first
        return point, digest, text

    patch.setattr(StateCodec, "encode", encode)


@promise("test_the_current_state_is_the_newest_however_late_others_come")
def the_current_state_of_one_system_is_the_last_written(patch: Patch) -> None:
    def latest(original: Any, home: MemoryTimeSeries, collection: str, tags: TagFilter, fields: Any) -> Any:
        if tags == ALL_SERIES:
            return original(home, collection, tags, fields)
        return [
            series.point(*next(reversed(series.points.items())))
            for series in home._chosen(collection, tags)
            if series.times
        ]

    wrap(patch, MemoryTimeSeries, "latest", latest)


@promise("test_saving_a_state_again_changes_nothing")
def a_point_written_again_is_a_second_one(patch: Patch) -> None:
    def put(original: Any, series: Series, time_us: int, fields: Any) -> None:
        if time_us in series.points:
            insort(series.times, time_us)
        original(series, time_us, fields)

    wrap(patch, Series, "put", put)


@promise("test_history_holds_the_range_by_time")
def the_end_of_a_range_lies_within_it(patch: Patch) -> None:
    def query(original: Any, home: MemoryTimeSeries, collection: str, asked: PointQuery) -> Any:
        start, end = asked.micros
        return original(home, collection, msgspec.structs.replace(asked, micros=(start, end + 1)))

    wrap(patch, MemoryTimeSeries, "query", query)


@promise("test_a_metric_is_reached_as_a_series")
def keys_are_not_escaped(patch: Patch) -> None:
    patch.setattr(_states, "field_of", lambda key: key)


@promise("test_a_metric_is_aggregated_by_bucket")
def the_start_of_a_bucket_belongs_to_the_one_before(patch: Patch) -> None:
    wrap(patch, FixedBuckets, "start_of", lambda original, buckets, micros: original(buckets, micros - 1))


@promise("test_a_metric_of_all_systems_is_aggregated_for_each")
def all_series_are_one_group(patch: Patch) -> None:
    patch.setattr(memory_timeseries, "group_of", lambda tags, keys: ())


@promise("test_systems_are_listed_with_their_latest_report")
def series_come_as_they_were_first_written(patch: Patch) -> None:
    def chosen(home: Collection, tags: TagFilter) -> list[Series]:
        return [series for series in home._candidates(tags) if tags.matches(series.tags)]

    patch.setattr(Collection, "chosen", chosen)


@promise("test_deleting_a_system_deletes_all_its_states")
def a_deletion_spares_the_newest_point(patch: Patch) -> None:
    def delete(original: Any, home: MemoryTimeSeries, collection: str, micros: Micros, tags: TagFilter) -> int:
        newest_us = [series.times[-1] for series in home._chosen(collection, tags) if series.times]
        return int(original(home, collection, (micros[0], min(micros[1], *newest_us, micros[1])), tags))

    wrap(patch, MemoryTimeSeries, "delete_range", delete)


# Actions and results


@promise("test_an_action_comes_back_equal")
def the_time_of_an_action_is_one_of_milliseconds(patch: Patch) -> None:
    patch.setattr(_actions, "to_micros", lambda stamp: to_micros(stamp) // 1_000 * 1_000)


@promise("test_actions_are_paged_newest_first")
def ties_of_time_go_by_their_ids_upwards(patch: Patch) -> None:
    def find(original: Any, *args: Any, order: tuple[SortBy, ...], **options: Any) -> Any:
        return original(*args, order=(*order[:1], *(SortBy(key.path, False) for key in order[1:])), **options)

    wrap(patch, MemoryDocuments, "find", find)


@promise("test_a_result_is_found_by_its_action")
def what_has_an_id_already_stays_as_it_is(patch: Patch) -> None:
    def put(
        original: Any, home: MemoryDocuments, collection: str, documents: Sequence[tuple[str, str]], **options: Any
    ) -> None:
        known = home._collections[collection].rows if collection in home._collections else {}
        original(home, collection, [one for one in documents if one[0] not in known], **options)

    wrap(patch, MemoryDocuments, "put_many", put)


@promise("test_results_are_paged_newest_first")
def results_go_by_their_start(patch: Patch) -> None:
    def document(original: Any, repository: Any, entity: Any) -> Any:
        made = original(repository, entity)
        made["ended_us"] = None
        return made

    wrap(patch, _results.ExecutionResultRepository, "_document", document)


# Patterns


@promise("test_a_pattern_comes_back_equal_and_by_type")
def the_least_confidence_is_not_enough(patch: Patch) -> None:
    original = _patterns._wanted

    def wanted(pattern_type: Any, confidence_min: float) -> Any:
        found = original(pattern_type, confidence_min)
        return {**found, "confidence": {"$gt": confidence_min}} if "confidence" in found else found

    patch.setattr(_patterns, "_wanted", wanted)


@promise("test_patterns_are_found_by_the_situation_that_they_speak_of")
def the_fields_of_an_object_are_not_spoken_of(patch: Patch) -> None:
    patch.setattr(_patterns, "matches", lambda term, situation: matches(term, {**situation, "cpu": 0.9}))


@promise("test_a_pattern_of_no_confidence_is_found_by_its_type")
def no_confidence_is_less_than_none(patch: Patch) -> None:
    original = _patterns._wanted

    def wanted(pattern_type: Any, confidence_min: float) -> Any:
        found = original(pattern_type, confidence_min)
        return {"confidence": {"$gt": 0.0}, **found} if pattern_type == "load" else found

    patch.setattr(_patterns, "_wanted", wanted)


@promise("test_every_usage_of_a_pattern_is_counted")
def a_usage_is_read_and_written_back(patch: Patch) -> None:
    async def record(repository: Any, pattern_id: str, *, times: int = 1) -> bool:
        known = await repository.documents.get_document("learned_patterns", pattern_id)
        if known is None or times < 1:
            return bool(await original(repository, pattern_id, times=times))
        count = known.get("usage_count", 0) + times
        return bool(await repository.documents.update_document("learned_patterns", pattern_id, {"usage_count": count}))

    original = _patterns.LearnedPatternRepository.record_usage
    patch.setattr(_patterns.LearnedPatternRepository, "record_usage", record)


@promise("test_conditions_that_say_nothing_sensible_are_not_saved")
def conditions_are_saved_unseen(patch: Patch) -> None:
    def document(original: Any, repository: Any, entity: Any) -> Any:
        return original(repository, entity) if entity.conditions != {"cpu": [1, 2]} else {"pattern_id": "p"}

    wrap(patch, _patterns.LearnedPatternRepository, "_document", document)


# Dependencies of systems


@promise("test_a_dependency_comes_back_equal")
def the_metadata_of_a_dependency_are_forgotten(patch: Patch) -> None:
    original = _dependencies._dependency

    def dependency(edge: Any) -> SystemDependency:
        return msgspec.structs.replace(original(edge), metadata={})

    patch.setattr(_dependencies, "_dependency", dependency)


@promise("test_dependencies_are_walked_both_ways")
def edges_are_listed_at_their_sources_only(patch: Patch) -> None:
    def edges(original: Any, graph: MemoryGraph, node_id: str | None, view: GraphView, *rest: Any) -> Any:
        return [] if node_id is not None and view.direction == "in" else original(graph, node_id, view, *rest)

    wrap(patch, MemoryGraph, "edges", edges)
