"""The contract of `PolarisUnitOfWork` and its outbox as tests: they keep it on every engine.

Derive a class named `Test...` from `UnitOfWorkSuite` and give it a fixture `store`: a connected, empty store.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from polaris.domain import (
    AdaptationAction,
    AdaptationEvent,
    ExecutionResult,
    ExecutionStatus,
    HealthEvent,
    HealthStatus,
    MetricValue,
    SystemDependency,
    SystemState,
)
from polaris.exceptions import ConflictError, TransactionConflictError, UnitOfWorkError
from polaris.storage import (
    AdaptationActionRepository,
    InMemoryEngine,
    PolarisDataStore,
    PolarisUnitOfWork,
    SystemStateRepository,
    TimeRange,
)

T0 = datetime(2030, 1, 1, tzinfo=UTC)
ACTION = AdaptationAction("a-1", "scale", "web", created_at=T0)
STATE = SystemState("web", T0, {"cpu": MetricValue("cpu", 0.5, "1")}, HealthStatus.HEALTHY)
EVENT = HealthEvent(component="store", status=HealthStatus.HEALTHY)


async def _do_everything(work: PolarisUnitOfWork) -> None:
    await work.actions.save(ACTION)
    await work.results.save(ExecutionResult("a-1", ExecutionStatus.SUCCESS))
    await work.states.save_current_state(STATE)
    await work.dependencies.save(SystemDependency("web", "db", "calls"))
    await work.graph.add_node("extra", {"n": 1})
    await work.publish("polaris.health.store", EVENT)


async def _content(store: PolarisDataStore) -> dict[str, object]:
    return {
        "actions": await store.actions.find_all(),
        "results": len(await store.results.find_all()),
        "states": await store.states.get_state_history("web", TimeRange.all()),
        "systems": [one.system_id for one in await store.states.systems()],
        "dependencies": len(await store.dependencies.find_all()),
        "node": await store.graph.get_node("extra") is not None,
        "outbox": await store.outbox.count(),
    }


NOTHING = {"actions": [], "results": 0, "states": [], "systems": [], "dependencies": 0, "node": False, "outbox": 0}
EVERYTHING = {
    "actions": [ACTION],
    "results": 1,
    "states": [STATE],
    "systems": ["web"],
    "dependencies": 1,
    "node": True,
    "outbox": 1,
}


class UnitOfWorkSuite:
    """The promises of the unit of work and of the outbox."""

    async def test_a_commit_makes_everything_last(self, store: PolarisDataStore) -> None:
        async with store.unit_of_work() as work:
            await _do_everything(work)
            await work.commit()
        assert await _content(store) == EVERYTHING

    async def test_leaving_without_a_commit_undoes_everything(self, store: PolarisDataStore) -> None:
        async with store.unit_of_work() as work:
            await _do_everything(work)
            assert await work.actions.find_all() == [ACTION]
        assert await _content(store) == NOTHING

    async def test_an_error_undoes_everything_and_comes_out(self, store: PolarisDataStore) -> None:
        with pytest.raises(LookupError, match="mine"):
            async with store.unit_of_work() as work:
                await _do_everything(work)
                raise LookupError("mine")
        assert await _content(store) == NOTHING

    async def test_cancellation_undoes_everything(self, store: PolarisDataStore) -> None:
        reached = asyncio.Event()

        async def worker() -> None:
            async with store.unit_of_work() as work:
                await _do_everything(work)
                await work.actions.find_all()
                reached.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(worker())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await _content(store) == NOTHING

    async def test_cancellation_anywhere_leaves_all_or_nothing(self, store: PolarisDataStore) -> None:
        async def worker() -> None:
            async with store.unit_of_work() as work:
                await _do_everything(work)
                await work.actions.find_all()
                await work.commit()

        steps = 0
        while True:
            task = asyncio.create_task(worker())
            for _ in range(steps):
                await asyncio.sleep(0)
            finished = task.done()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            content = await _content(store)
            assert content in (NOTHING, EVERYTHING)
            if finished or content == EVERYTHING:
                break
            steps += 1
        async with store.unit_of_work() as work:
            await work.graph.add_node("after")
            await work.commit()
        assert await store.graph.get_node("after") is not None

    async def test_reads_inside_see_the_writes_made_inside(self, store: PolarisDataStore) -> None:
        await store.actions.save(AdaptationAction("a-0", "scale", "web", created_at=T0))
        async with store.unit_of_work() as work:
            await _do_everything(work)
            assert [one.action_id for one in await work.actions.newest()] == ["a-1", "a-0"]
            assert await work.actions.delete("a-0") is True
            assert await work.actions.find_by_id("a-0") is None
            assert await work.states.get_current_state("web") == STATE
            assert await work.graph.get_neighbors("web") == ["db"]
            assert await work.documents.count("adaptation_actions", {"target_system": "web"}) == 1

    async def test_nobody_else_sees_what_is_not_committed(self, store: PolarisDataStore) -> None:
        async with store.unit_of_work() as work:
            await _do_everything(work)
            assert await work.actions.find_all() == [ACTION]
            assert await _content(store) == NOTHING

    async def test_an_open_unit_of_work_holds_up_nobody(self, store: PolarisDataStore) -> None:
        async with store.unit_of_work() as work:
            await _do_everything(work)
            await work.actions.find_all()
            await asyncio.wait_for(store.states.save_current_state(STATE), 5)
            async with store.unit_of_work() as other:
                await other.graph.add_node("other")
                await asyncio.wait_for(other.commit(), 5)
            await work.commit()
        assert await store.graph.get_node("other") is not None
        assert await _content(store) == EVERYTHING

    async def test_a_commit_based_on_what_others_changed_is_refused(self, store: PolarisDataStore) -> None:
        await store.documents.put_document("d", "x", {"n": 1})
        async with store.unit_of_work() as work:
            found = await work.documents.get_document("d", "x")
            assert found is not None
            await store.documents.put_document("d", "x", {"n": 5})
            await work.documents.put_document("d", "x", {"n": found["n"] + 1})
            await work.graph.add_node("extra")
            with pytest.raises(ConflictError):
                await work.commit()
        assert await store.documents.get_document("d", "x") == {"_id": "x", "_version": 2, "n": 5}
        assert await store.graph.get_node("extra") is None

    async def test_what_a_caller_does_to_a_result_does_not_refuse_the_commit(self, store: PolarisDataStore) -> None:
        await store.documents.put_document("d", "x", {"n": [1]})
        async with store.unit_of_work() as work:
            found = await work.documents.get_document("d", "x")
            assert found is not None
            found["n"].append(2)
            await work.documents.put_document("d", "x", found)
            await work.commit()
        assert await store.documents.get_document("d", "x") == {"_id": "x", "_version": 2, "n": [1, 2]}

    async def test_of_many_increments_at_once_none_is_lost(self, store: PolarisDataStore) -> None:
        await store.documents.put_document("d", "x", {"n": 0})

        async def increment() -> None:
            while True:
                with suppress(ConflictError):
                    async with store.unit_of_work() as work:
                        found = await work.documents.get_document("d", "x")
                        assert found is not None
                        await work.documents.update_document("d", "x", {"n": found["n"] + 1})
                        await work.commit()
                    return

        await asyncio.gather(*[increment() for _ in range(8)])
        found = await store.documents.get_document("d", "x")
        assert found is not None
        assert found["n"] == 8

    async def test_a_broken_rule_refuses_the_whole_commit(self, store: PolarisDataStore) -> None:
        await store.documents.insert_document("d", {"_id": "x"})
        async with store.unit_of_work() as work:
            await work.graph.add_node("extra")
            await work.documents.insert_document("d", {"_id": "x"})
            with pytest.raises(ConflictError):
                await work.commit()
        assert await store.graph.get_node("extra") is None

    async def test_after_its_end_every_use_is_an_error(self, store: PolarisDataStore) -> None:
        async with store.unit_of_work() as work:
            actions = work.actions
            await work.commit()
            with pytest.raises(UnitOfWorkError, match="committed"):
                await actions.save(ACTION)
        with pytest.raises(UnitOfWorkError, match="committed"):
            await actions.find_all()
        with pytest.raises(UnitOfWorkError, match="committed"):
            await work.commit()
        async with store.unit_of_work() as work:
            pass
        with pytest.raises(UnitOfWorkError, match="rolled back"):
            await work.graph.add_node("late")
        with pytest.raises(UnitOfWorkError, match="once"):
            await work.__aenter__()

    async def test_an_explicit_rollback_undoes_and_ends(self, store: PolarisDataStore) -> None:
        async with store.unit_of_work() as work:
            await _do_everything(work)
            await work.rollback()
            await work.rollback()
            with pytest.raises(UnitOfWorkError):
                await work.commit()
        assert await _content(store) == NOTHING

    async def test_repositories_are_had_by_name_type_and_self(self, store: PolarisDataStore) -> None:
        async with store.unit_of_work() as work:
            assert work.repository("states") is work.repository(SystemStateRepository)
            assert work.repository(store.actions) is work.actions
            with pytest.raises(UnitOfWorkError, match="no repository"):
                work.repository("unknown")

    async def test_a_repository_of_another_engine_is_refused(self, store: PolarisDataStore) -> None:
        elsewhere = AdaptationActionRepository(InMemoryEngine().documents)
        async with store.unit_of_work() as work:
            with pytest.raises(UnitOfWorkError, match="another engine"):
                work.repository(elsewhere)

    async def test_a_store_of_two_engines_has_no_unit_of_work_over_both(self, store: PolarisDataStore) -> None:
        other = InMemoryEngine()
        mixed = PolarisDataStore({"time_series": store.time_series, "documents": other.documents, "graph": store.graph})
        with pytest.raises(UnitOfWorkError, match="several engines"):
            mixed.unit_of_work()
        async with mixed.unit_of_work(store.engines[0]) as work:
            await work.states.save_current_state(STATE)
            with pytest.raises(UnitOfWorkError, match="another engine"):
                _ = work.actions
            await work.commit()
        assert await store.states.get_current_state("web") == STATE

    async def test_an_empty_commit_is_fine(self, store: PolarisDataStore) -> None:
        async with store.unit_of_work() as work:
            await work.commit()
        assert await _content(store) == NOTHING

    async def test_events_wait_in_the_order_of_their_commits(self, store: PolarisDataStore) -> None:
        for n in range(3):
            async with store.unit_of_work() as work:
                for part in "ab":
                    await work.publish(f"polaris.adaptations.{n}{part}", AdaptationEvent(action=ACTION))
                await work.commit()
        entries = await store.outbox.pending(limit=4)
        assert [entry.topic[-2:] for entry in entries] == ["0a", "0b", "1a", "1b"]
        more = await store.outbox.pending(after=entries[-1].sequence)
        assert [entry.topic[-2:] for entry in more] == ["2a", "2b"]

    async def test_an_event_waits_until_it_is_marked(self, store: PolarisDataStore) -> None:
        await store.outbox.add("polaris.health.store", EVENT)
        (entry,) = await store.outbox.pending()
        assert (await store.outbox.pending())[0] == entry
        assert entry.event() == EVENT
        assert await store.outbox.mark_published([entry.sequence]) == 1
        assert await store.outbox.mark_published([entry.sequence]) == 0
        assert await store.outbox.pending() == []

    async def test_a_sequence_is_never_used_twice(self, store: PolarisDataStore) -> None:
        await store.outbox.add("t", EVENT)
        (first,) = await store.outbox.pending()
        await store.outbox.mark_published([first.sequence])
        await store.outbox.add("t", EVENT)
        (second,) = await store.outbox.pending()
        assert second.sequence > first.sequence

    async def test_waiting_for_events_ends_with_the_commit(self, store: PolarisDataStore) -> None:
        assert await store.outbox.wait(timeout_s=0.01) is False
        waiting = asyncio.create_task(store.outbox.wait(timeout_s=30))
        await asyncio.sleep(0.05)  # until it really waits
        async with store.unit_of_work() as work:
            await work.publish("t", EVENT)
            await work.commit()
        assert await asyncio.wait_for(waiting, 3) is True
        assert await store.outbox.wait(timeout_s=0) is True

    async def test_what_fails_in_a_savepoint_is_undone_alone(self, store: PolarisDataStore) -> None:
        async with store.unit_of_work() as work:
            await work.documents.insert_document("d", {"_id": "before"})
            with pytest.raises(LookupError, match="mine"):
                async with work.savepoint():
                    await work.documents.insert_document("d", {"_id": "inside"})
                    await work.publish("polaris.health.store", EVENT)
                    raise LookupError("mine")
            await work.documents.insert_document("d", {"_id": "after"})
            await work.commit()
        assert [one["_id"] for one in await store.documents.find_documents("d")] == ["after", "before"]
        assert await store.outbox.count() == 0

    async def test_a_savepoint_left_without_an_error_is_kept(self, store: PolarisDataStore) -> None:
        async with store.unit_of_work() as work:
            async with work.savepoint():
                await _do_everything(work)
            await work.commit()
        assert await _content(store) == EVERYTHING

    async def test_savepoints_nest(self, store: PolarisDataStore) -> None:
        async with store.unit_of_work() as work:
            async with work.savepoint():
                await work.documents.insert_document("d", {"_id": "outer"})
                with suppress(LookupError):
                    async with work.savepoint():
                        await work.documents.insert_document("d", {"_id": "inner"})
                        raise LookupError
                assert await work.documents.count("d") == 1
            with suppress(LookupError):
                async with work.savepoint():
                    async with work.savepoint():
                        await work.documents.insert_document("d", {"_id": "lost"})
                    raise LookupError
            await work.commit()
        assert [one["_id"] for one in await store.documents.find_documents("d")] == ["outer"]

    async def test_errors_of_writes_come_at_the_end_of_their_savepoint(self, store: PolarisDataStore) -> None:
        await store.documents.insert_document("d", {"_id": "taken"})
        async with store.unit_of_work() as work:
            with pytest.raises(ConflictError):
                async with work.savepoint():
                    await work.documents.insert_document("d", {"_id": "taken"})
            await work.documents.insert_document("d", {"_id": "free"})
            await work.commit()
        assert await store.documents.count("d") == 2

    async def test_a_commit_within_a_savepoint_is_refused(self, store: PolarisDataStore) -> None:
        async with store.unit_of_work() as work:
            with pytest.raises(UnitOfWorkError):
                async with work.savepoint():
                    await work.documents.insert_document("d", {"_id": "inside"})
                    await work.commit()
            assert work.is_open
        assert await store.documents.count("d") == 0

    async def test_what_was_read_in_a_savepoint_that_failed_still_counts(self, store: PolarisDataStore) -> None:
        """Write skew: each saw the store without what the other did, so they cannot both have been first."""
        await store.documents.insert_document("d", {"_id": "stock", "left": 1})
        await store.documents.insert_document("d", {"_id": "sold", "n": 0})
        async with store.unit_of_work() as one:
            with suppress(LookupError):
                async with one.savepoint():
                    assert await one.documents.get_document("d", "stock") is not None
                    raise LookupError
            async with store.unit_of_work() as other:
                assert await other.documents.get_document("d", "sold") is not None
                await other.documents.update_document("d", "stock", {"left": 0})
                await other.commit()
            with pytest.raises(TransactionConflictError):
                await one.documents.update_document("d", "sold", {"n": 1})
                await one.commit()

    async def test_a_transaction_conflict_says_that_repeating_helps(self, store: PolarisDataStore) -> None:
        await store.documents.insert_document("d", {"_id": "n", "count": 0})
        async with store.unit_of_work() as work:
            document = await work.documents.get_document("d", "n")
            assert document is not None
            await store.documents.update_document("d", "n", {"count": 7})
            with pytest.raises(TransactionConflictError) as caught:
                await work.documents.update_document("d", "n", {"count": document["count"] + 1})
                await work.commit()
        assert caught.value.retryable is True

    async def test_units_of_work_that_meet_are_repeated_until_each_was_alone(self, store: PolarisDataStore) -> None:
        await store.documents.insert_document("d", {"_id": "n", "count": 0})

        async def count_up(work: PolarisUnitOfWork) -> int:
            document = await work.documents.get_document("d", "n")
            assert document is not None
            await work.documents.update_document("d", "n", {"count": document["count"] + 1})
            return int(document["count"])

        told = await asyncio.gather(*(store.in_unit_of_work(count_up, attempts_max=100) for _ in range(8)))
        assert sorted(told) == list(range(8))
        document = await store.documents.get_document("d", "n")
        assert document is not None
        assert document["count"] == 8

    async def test_an_error_of_the_body_is_not_repeated(self, store: PolarisDataStore) -> None:
        calls = 0

        async def body(work: PolarisUnitOfWork) -> None:
            nonlocal calls
            calls += 1
            await work.documents.insert_document("d", {"_id": "x"})
            raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            await store.in_unit_of_work(body)
        assert calls == 1
        assert await store.documents.count("d") == 0
