"""Single promises of the engine in memory, each broken in one place: its suite must notice exactly that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any

import msgspec
import pytest

from polaris.domain import Quality, SystemState
from polaris.exceptions import TransactionConflictError, UnitOfWorkError
from polaris.storage import PolarisDataStore, _aggregates
from polaris.storage._aggregation import AggregationType
from polaris.storage._buckets import FixedBuckets
from polaris.storage._operation import UNKNOWN
from polaris.storage._tag_filter import ALL_SERIES
from polaris.storage.backends.memory import _series as memory_series
from polaris.storage.backends.memory import _timeseries as memory_timeseries
from polaris.storage.backends.memory._documents import MemoryDocuments
from polaris.storage.backends.memory._outbox import MemoryOutbox
from polaris.storage.backends.memory._timeseries import MemoryTimeSeries
from polaris.storage.backends.shared import RecordedTransaction, Step
from polaris.storage.backends.shared import _timeseries as shared_timeseries
from polaris.storage.repositories import _results, _states
from polaris.storage.repositories._state_codec import StateCodec

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
    def retain(original: Any, home: MemoryTimeSeries, collection: str, since_us: int, rows_max: int) -> int:
        if home.policy(collection) is not None:
            return int(original(home, collection, since_us, rows_max))
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


# Unit of work


@breaks("unit_of_work", "test_reads_inside_see_the_writes_made_inside")
def deletions_inside_are_not_seen_inside(patch: pytest.MonkeyPatch) -> None:
    def delete(original: Any, home: MemoryDocuments, collection: str, document_id: str, **options: Any) -> bool:
        return home.get(collection, document_id, fields=None, now_us=0) is not None

    wrap(patch, MemoryDocuments, "delete", delete)


@breaks("unit_of_work", "test_what_a_caller_does_to_a_result_does_not_refuse_the_commit")
def the_callers_own_result_is_compared(patch: pytest.MonkeyPatch) -> None:
    from polaris.storage.backends.shared import _transaction

    class Live:
        def __init__(self, result: Any) -> None:
            self.result = result

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Live) and self.result == other.result

        __hash__ = None  # type: ignore[assignment]

    patch.setattr(_transaction, "_fingerprint", Live)


@breaks("unit_of_work", "test_a_sequence_is_never_used_twice")
def sequences_are_counted_anew(patch: pytest.MonkeyPatch) -> None:
    def remove(original: Any, outbox: MemoryOutbox, sequences: Sequence[int]) -> int:
        removed: int = original(outbox, sequences)
        outbox._last = max(outbox._rows, default=0)
        return removed

    wrap(patch, MemoryOutbox, "remove", remove)


@breaks("unit_of_work", "test_an_explicit_rollback_undoes_and_ends")
def a_rollback_may_come_only_once(patch: pytest.MonkeyPatch) -> None:
    original = RecordedTransaction.rollback

    async def rollback(transaction: RecordedTransaction) -> None:
        if transaction._ended == "rolled back" and getattr(transaction, "asked", False):
            raise UnitOfWorkError("twice")
        transaction.asked = True  # type: ignore[attr-defined] # for this test
        await original(transaction)

    patch.setattr(RecordedTransaction, "rollback", rollback)


@breaks("unit_of_work", "test_waiting_for_events_ends_with_the_commit")
def commits_wake_nobody(patch: pytest.MonkeyPatch) -> None:
    def add(original: Any, outbox: MemoryOutbox, *args: Any) -> None:
        original(outbox, *args)
        outbox.added = False

    wrap(patch, MemoryOutbox, "add", add)


@breaks("unit_of_work", "test_what_fails_in_a_savepoint_is_undone_alone")
def two_writes_survive_their_savepoint(patch: pytest.MonkeyPatch) -> None:
    def take_back(original: Any, transaction: RecordedTransaction, mark: int) -> None:
        if len(transaction._steps) - mark != 2:
            original(transaction, mark)

    wrap(patch, RecordedTransaction, "_take_back", take_back)


@breaks("unit_of_work", "test_savepoints_nest")
def an_inner_savepoint_takes_back_the_outer_one(patch: pytest.MonkeyPatch) -> None:
    def take_back(original: Any, transaction: RecordedTransaction, mark: int) -> None:
        original(transaction, 0 if transaction._savepoints == 2 else mark)

    wrap(patch, RecordedTransaction, "_take_back", take_back)


@breaks("unit_of_work", "test_errors_of_writes_come_at_the_end_of_their_savepoint")
def a_savepoint_checks_nothing(patch: pytest.MonkeyPatch) -> None:
    original = RecordedTransaction._rehearse

    async def rehearse(transaction: RecordedTransaction, steps: Sequence[Step]) -> Any:
        return await original(transaction, steps) if steps[-1].operation.known is UNKNOWN else None

    patch.setattr(RecordedTransaction, "_rehearse", rehearse)


@breaks("unit_of_work", "test_a_commit_within_a_savepoint_is_refused")
def a_commit_ignores_savepoints(patch: pytest.MonkeyPatch) -> None:
    original = RecordedTransaction.commit

    async def commit(transaction: RecordedTransaction) -> None:
        transaction._savepoints = 0
        await original(transaction)

    patch.setattr(RecordedTransaction, "commit", commit)


@breaks("unit_of_work", "test_what_was_read_in_a_savepoint_that_failed_still_counts")
def reads_are_forgotten_with_their_savepoint(patch: pytest.MonkeyPatch) -> None:
    def take_back(_original: Any, transaction: RecordedTransaction, mark: int) -> None:
        del transaction._steps[mark:]

    wrap(patch, RecordedTransaction, "_take_back", take_back)


@breaks("unit_of_work", "test_a_transaction_conflict_says_that_repeating_helps")
def conflicts_say_that_repeating_is_in_vain(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TransactionConflictError, "retryable", False)


@breaks("unit_of_work", "test_units_of_work_that_meet_are_repeated_until_each_was_alone")
def a_conflict_ends_it(patch: pytest.MonkeyPatch) -> None:
    original = PolarisDataStore.in_unit_of_work

    async def once(store: PolarisDataStore, body: Any, *, attempts_max: int = 1) -> Any:
        return await original(store, body, attempts_max=min(attempts_max, 1))

    patch.setattr(PolarisDataStore, "in_unit_of_work", once)


@breaks("unit_of_work", "test_an_error_of_the_body_is_not_repeated")
def every_error_is_repeated(patch: pytest.MonkeyPatch) -> None:
    original = PolarisDataStore.in_unit_of_work

    async def stubborn(store: PolarisDataStore, body: Any, **options: Any) -> Any:
        try:
            return await original(store, body, **options)
        except LookupError:
            return await original(store, body, **options)

    patch.setattr(PolarisDataStore, "in_unit_of_work", stubborn)


# Repositories


@breaks("repositories", "test_a_state_comes_back_equal_to_what_was_saved")
def quality_is_forgotten(patch: pytest.MonkeyPatch) -> None:
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


@breaks("repositories", "test_states_of_changing_form_come_back_each_with_its_own")
def one_form_serves_a_system_for_ever(patch: pytest.MonkeyPatch) -> None:
    codec = StateCodec
    original = codec.encode

    def encode(self: Any, state: SystemState) -> Any:
        point, digest, text = original(self, state)
        if digest and len(state.metrics) == 1:
            first = self.__dict__.setdefault("first", (digest, text))
            point.fields["@form"] = first[0]
            return point, *first
        return point, digest, text

    patch.setattr(codec, "encode", encode)


@breaks("repositories", "test_a_metric_is_reached_as_a_series")
def keys_are_not_escaped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_states, "field_of", lambda key: key)


@breaks("repositories", "test_results_are_paged_newest_first")
def results_go_by_their_start(patch: pytest.MonkeyPatch) -> None:
    def document(original: Any, repository: Any, entity: Any) -> Any:
        made = original(repository, entity)
        made["ended_us"] = None
        return made

    wrap(patch, _results.ExecutionResultRepository, "_document", document)


# The breaks of further promises register themselves.
from tests.conformance import broken_memory_documents, broken_memory_retention, broken_memory_series  # noqa: E402, F401
