"""Single promises of the unit of work and of the outbox, each broken in one place of the engine in memory."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.conformance.broken_memory_store import breaks, wrap

from polaris.domain import PolarisEvent
from polaris.exceptions import ConflictError, StoreLockedError, TransactionConflictError, UnitOfWorkError
from polaris.storage import PolarisDataStore, PolarisUnitOfWork, Repository
from polaris.storage._operation import UNKNOWN, Operation
from polaris.storage.backends.memory import InMemoryEngine
from polaris.storage.backends.memory._documents import MemoryDocuments
from polaris.storage.backends.memory._outbox import MemoryOutbox
from polaris.storage.backends.shared import RecordedTransaction, Step, _transaction
from polaris.storage.backends.shared._documents import DocumentPort
from polaris.storage.backends.shared._outbox import OutboxPort

Patch = pytest.MonkeyPatch
promise = functools.partial(breaks, "unit_of_work")


def apply_otherwise(patch: Patch, around: Callable[..., Any]) -> None:
    """Let the engine do `around(original, engine, steps, on_commit)` for a commit."""
    wrap(patch, InMemoryEngine, "apply", around)


def leave_otherwise(patch: Patch, around: Callable[..., Any]) -> None:
    """Let a unit of work that is still open do `around(work, error)` before it is left."""
    original = PolarisUnitOfWork.__aexit__

    async def leave(work: PolarisUnitOfWork, kind: Any, error: BaseException | None, trace: Any) -> None:
        if work.is_open:
            await around(work, error)
        await original(work, kind, error, trace)

    patch.setattr(PolarisUnitOfWork, "__aexit__", leave)


def steps_of(work: PolarisUnitOfWork) -> list[Step]:
    transaction = work._transaction
    assert isinstance(transaction, RecordedTransaction)
    return transaction._steps


# All or nothing


@promise("test_a_commit_makes_everything_last")
def writes_that_nobody_read_go_in_one_batch_of_six(patch: Patch) -> None:
    async def apply(original: Any, engine: Any, steps: Sequence[Step], on_commit: Any) -> None:
        unread = all(step.mark is None for step in steps)
        await original(engine, steps[:6] if unread else steps, on_commit)

    apply_otherwise(patch, apply)


@promise("test_leaving_without_a_commit_undoes_everything")
def events_go_out_when_nothing_failed(patch: Patch) -> None:
    def publish(original: Any, work: PolarisUnitOfWork, topic: str, event: PolarisEvent) -> Any:
        vars(work).setdefault("published", []).append((topic, event))
        return original(work, topic, event)

    async def leave(work: PolarisUnitOfWork, error: BaseException | None) -> None:
        for topic, event in vars(work).get("published", []) if error is None else []:
            await work._engine.outbox.add(topic, event)

    wrap(patch, PolarisUnitOfWork, "publish", publish)
    leave_otherwise(patch, leave)


@promise("test_an_error_undoes_everything_and_comes_out")
def an_error_undoes_the_last_write_only(patch: Patch) -> None:
    async def leave(work: PolarisUnitOfWork, error: BaseException | None) -> None:
        if isinstance(error, Exception):
            del steps_of(work)[-1:]
            await work.commit()

    leave_otherwise(patch, leave)


@promise("test_cancellation_undoes_everything")
def a_cancelled_unit_of_work_is_committed(patch: Patch) -> None:
    async def leave(work: PolarisUnitOfWork, error: BaseException | None) -> None:
        if isinstance(error, asyncio.CancelledError):
            await work.commit()

    leave_otherwise(patch, leave)


@promise("test_cancellation_anywhere_leaves_all_or_nothing")
def a_commit_is_written_in_portions(patch: Patch) -> None:
    async def apply(original: Any, engine: Any, steps: Sequence[Step], on_commit: Any) -> None:
        await engine.rehearse(steps)
        for start in range(0, len(steps), 4):
            await original(engine, steps[start : start + 4], lambda: None)
        on_commit()

    apply_otherwise(patch, apply)


@promise("test_a_broken_rule_refuses_the_whole_commit")
def what_came_before_the_broken_rule_stays(patch: Patch) -> None:
    async def apply(original: Any, engine: Any, steps: Sequence[Step], on_commit: Any) -> None:
        try:
            await original(engine, steps, on_commit)
        except TransactionConflictError:
            raise
        except ConflictError:
            await original(engine, steps[:-1], lambda: None)
            raise

    apply_otherwise(patch, apply)


@promise("test_an_empty_commit_is_fine")
def an_empty_commit_leaves_an_event(patch: Patch) -> None:
    original = RecordedTransaction.commit

    async def commit(transaction: RecordedTransaction) -> None:
        if not transaction._steps:
            note = Operation(lambda session: session.outbox.add("t", "commit", 1, b"{}", 0), mutates=True, known=None)
            await transaction.execute(note)
        await original(transaction)

    patch.setattr(RecordedTransaction, "commit", commit)


@promise("test_an_explicit_rollback_undoes_and_ends")
def a_rollback_may_come_only_once(patch: Patch) -> None:
    original = RecordedTransaction.rollback

    async def rollback(transaction: RecordedTransaction) -> None:
        if transaction._ended == "rolled back" and getattr(transaction, "asked", False):
            raise UnitOfWorkError("twice")
        transaction.asked = True  # type: ignore[attr-defined] # for this test
        await original(transaction)

    patch.setattr(RecordedTransaction, "rollback", rollback)


# Isolation


def open_transactions(patch: Patch) -> Callable[[InMemoryEngine], list[RecordedTransaction]]:
    """What gives the transactions on an engine that are open."""
    made: list[RecordedTransaction] = []

    def transaction(original: Any, engine: InMemoryEngine) -> RecordedTransaction:
        made.append(original(engine))
        return made[-1]

    wrap(patch, InMemoryEngine, "transaction", transaction)
    return lambda engine: [one for one in made if one.is_open and one.engine is engine]


@promise("test_reads_inside_see_the_writes_made_inside")
def deletions_inside_are_not_seen_inside(patch: Patch) -> None:
    def delete(original: Any, home: MemoryDocuments, collection: str, document_id: str, **options: Any) -> bool:
        return home.get(collection, document_id, fields=None, now_us=0) is not None

    wrap(patch, MemoryDocuments, "delete", delete)


@promise("test_nobody_else_sees_what_is_not_committed")
def reads_see_what_is_not_committed(patch: Patch) -> None:
    opened = open_transactions(patch)
    original = InMemoryEngine.execute

    async def execute(engine: InMemoryEngine, operation: Operation[Any]) -> Any:
        if not operation.mutates:
            for transaction in opened(engine):
                return await engine.rehearse([*transaction._steps, Step(operation)])
        return await original(engine, operation)

    patch.setattr(InMemoryEngine, "execute", execute)


@promise("test_an_open_unit_of_work_holds_up_nobody")
def who_wrote_first_keeps_the_store_locked(patch: Patch) -> None:
    opened = open_transactions(patch)
    original = InMemoryEngine.execute

    async def execute(engine: InMemoryEngine, operation: Operation[Any]) -> Any:
        writers = [one for one in opened(engine) if any(step.operation.mutates for step in one._steps)]
        if operation.mutates and writers:
            raise StoreLockedError("another transaction is writing")
        return await original(engine, operation)

    patch.setattr(InMemoryEngine, "execute", execute)


@promise("test_a_commit_based_on_what_others_changed_is_refused")
def who_replaces_a_document_need_not_have_read_it(patch: Patch) -> None:
    def put(original: Any, port: DocumentPort, *args: Any, **options: Any) -> Any:
        if isinstance(port._executor, RecordedTransaction):
            for step in port._executor._steps:
                step.mark = None
        return original(port, *args, **options)

    wrap(patch, DocumentPort, "put_document", put)


@promise("test_what_a_caller_does_to_a_result_does_not_refuse_the_commit")
def the_callers_own_result_is_compared(patch: Patch) -> None:
    class Live:
        def __init__(self, result: Any) -> None:
            self.result = result

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Live) and self.result == other.result

        __hash__ = None  # type: ignore[assignment]

    patch.setattr(_transaction, "_fingerprint", Live)


@promise("test_of_many_increments_at_once_none_is_lost")
def only_the_store_itself_lets_one_at_a_time_check_and_write(patch: Patch) -> None:
    turn = asyncio.Lock()
    original = PolarisDataStore.in_unit_of_work

    async def apply(original: Any, engine: Any, steps: Sequence[Step], on_commit: Any) -> None:
        await engine.rehearse(steps)
        await original(engine, [Step(step.operation) for step in steps], on_commit)

    async def one_at_a_time(store: PolarisDataStore, body: Any, **options: Any) -> Any:
        async with turn:
            return await original(store, body, **options)

    apply_otherwise(patch, apply)
    patch.setattr(PolarisDataStore, "in_unit_of_work", one_at_a_time)


@promise("test_a_transaction_conflict_says_that_repeating_helps")
def conflicts_say_that_repeating_is_in_vain(patch: Patch) -> None:
    patch.setattr(TransactionConflictError, "retryable", False)


@promise("test_units_of_work_that_meet_are_repeated_until_each_was_alone")
def a_conflict_ends_it(patch: Patch) -> None:
    original = PolarisDataStore.in_unit_of_work

    async def once(store: PolarisDataStore, body: Any, *, attempts_max: int = 1) -> Any:
        return await original(store, body, attempts_max=min(attempts_max, 1))

    patch.setattr(PolarisDataStore, "in_unit_of_work", once)


@promise("test_an_error_of_the_body_is_not_repeated")
def every_error_is_repeated(patch: Patch) -> None:
    original = PolarisDataStore.in_unit_of_work

    async def stubborn(store: PolarisDataStore, body: Any, **options: Any) -> Any:
        try:
            return await original(store, body, **options)
        except LookupError:
            return await original(store, body, **options)

    patch.setattr(PolarisDataStore, "in_unit_of_work", stubborn)


# Savepoints


@promise("test_what_fails_in_a_savepoint_is_undone_alone")
def two_writes_survive_their_savepoint(patch: Patch) -> None:
    def take_back(original: Any, transaction: RecordedTransaction, mark: int) -> None:
        if len(transaction._steps) - mark != 2:
            original(transaction, mark)

    wrap(patch, RecordedTransaction, "_take_back", take_back)


@promise("test_savepoints_nest")
def an_inner_savepoint_takes_back_the_outer_one(patch: Patch) -> None:
    def take_back(original: Any, transaction: RecordedTransaction, mark: int) -> None:
        original(transaction, 0 if transaction._savepoints == 2 else mark)

    wrap(patch, RecordedTransaction, "_take_back", take_back)


@promise("test_errors_of_writes_come_at_the_end_of_their_savepoint")
def a_savepoint_checks_nothing(patch: Patch) -> None:
    original = RecordedTransaction._rehearse

    async def rehearse(transaction: RecordedTransaction, steps: Sequence[Step]) -> Any:
        return await original(transaction, steps) if steps[-1].operation.known is UNKNOWN else None

    patch.setattr(RecordedTransaction, "_rehearse", rehearse)


@promise("test_a_commit_within_a_savepoint_is_refused")
def a_commit_ignores_savepoints(patch: Patch) -> None:
    original = RecordedTransaction.commit

    async def commit(transaction: RecordedTransaction) -> None:
        transaction._savepoints = 0
        await original(transaction)

    patch.setattr(RecordedTransaction, "commit", commit)


@promise("test_what_was_read_in_a_savepoint_that_failed_still_counts")
def reads_are_forgotten_with_their_savepoint(patch: Patch) -> None:
    def take_back(_original: Any, transaction: RecordedTransaction, mark: int) -> None:
        del transaction._steps[mark:]

    wrap(patch, RecordedTransaction, "_take_back", take_back)


@promise("test_a_savepoint_left_without_an_error_is_kept")
def events_are_lost_in_a_savepoint(patch: Patch) -> None:
    original = OutboxPort.add

    async def add(port: OutboxPort, *args: Any, **options: Any) -> None:
        if not getattr(port._executor, "_savepoints", 0):
            await original(port, *args, **options)

    patch.setattr(OutboxPort, "add", add)


# What a unit of work is made of, and its end


@promise("test_after_its_end_every_use_is_an_error")
def reads_after_the_end_go_to_the_store(patch: Patch) -> None:
    original = RecordedTransaction.execute

    async def execute(transaction: RecordedTransaction, operation: Operation[Any]) -> Any:
        if transaction._ended and not operation.mutates:
            return await transaction.engine.execute(operation)
        return await original(transaction, operation)

    patch.setattr(RecordedTransaction, "execute", execute)


@promise("test_repositories_are_had_by_name_type_and_self")
def a_repository_is_made_whenever_it_is_asked_for(patch: Patch) -> None:
    def repository(original: Any, work: PolarisUnitOfWork, chosen: Any) -> Any:
        work._bound.clear()
        return original(work, chosen)

    wrap(patch, PolarisUnitOfWork, "repository", repository)


@promise("test_a_repository_of_another_engine_is_refused")
def any_repository_is_taken_for_one_of_this_engine(patch: Patch) -> None:
    def repository(original: Any, work: PolarisUnitOfWork, chosen: Any) -> Any:
        if isinstance(chosen, Repository) and chosen.storage_backend.engine is not work._engine:
            return type(chosen)(getattr(work, chosen.model))
        return original(work, chosen)

    wrap(patch, PolarisUnitOfWork, "repository", repository)


@promise("test_a_store_of_two_engines_has_no_unit_of_work_over_both")
def the_first_engine_will_do(patch: Patch) -> None:
    def unit_of_work(original: Any, store: PolarisDataStore, engine: Any = None) -> Any:
        return original(store, engine or store.engines[0])

    wrap(patch, PolarisDataStore, "unit_of_work", unit_of_work)


# The outbox


@promise("test_events_wait_in_the_order_of_their_commits")
def the_latest_events_come_first(patch: Patch) -> None:
    def pending(_original: Any, outbox: MemoryOutbox, limit: int, after: int) -> Any:
        return [row for sequence, row in sorted(outbox._rows.items(), reverse=True) if sequence > after][:limit]

    wrap(patch, MemoryOutbox, "pending", pending)


@promise("test_an_event_waits_until_it_is_marked")
def an_event_is_shown_once(patch: Patch) -> None:
    def pending(original: Any, outbox: MemoryOutbox, *args: Any) -> Any:
        shown: set[int] = vars(outbox).setdefault("shown", set())
        found = [row for row in original(outbox, *args) if row.sequence not in shown]
        shown.update(row.sequence for row in found)
        return found

    wrap(patch, MemoryOutbox, "pending", pending)


@promise("test_a_sequence_is_never_used_twice")
def sequences_are_counted_anew(patch: Patch) -> None:
    def remove(original: Any, outbox: MemoryOutbox, sequences: Sequence[int]) -> int:
        removed: int = original(outbox, sequences)
        outbox._last = max(outbox._rows, default=0)
        return removed

    wrap(patch, MemoryOutbox, "remove", remove)


@promise("test_waiting_for_events_ends_with_the_commit")
def commits_wake_nobody(patch: Patch) -> None:
    def add(original: Any, outbox: MemoryOutbox, *args: Any) -> None:
        original(outbox, *args)
        outbox.added = False

    wrap(patch, MemoryOutbox, "add", add)
