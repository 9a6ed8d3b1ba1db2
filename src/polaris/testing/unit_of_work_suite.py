"""The contract of `PolarisUnitOfWork` and its outbox as tests: they keep it on every engine.

Derive a class named `Test...` from `UnitOfWorkSuite` and give it a fixture `store`: a connected, empty store.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

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
from polaris.exceptions import ConflictError, UnitOfWorkError
from polaris.storage import (
    AdaptationActionRepository,
    InMemoryEngine,
    PolarisDataStore,
    PolarisUnitOfWork,
    RetentionPolicy,
    RollupPolicy,
    SystemStateRepository,
    TimeRange,
    TimeSeriesPoint,
)
from polaris.testing._unit_of_work_promises import SavepointPromises

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


class UnitOfWorkSuite(SavepointPromises):
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
            # A server takes its time, which is turns without number here: later ones are tried in growing strides.
            steps += 1 + max(0, steps - 100) // 10
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

    async def test_policies_and_retention_are_undone_with_the_rest(self, store: PolarisDataStore) -> None:
        minute = timedelta(minutes=1)
        points = [TimeSeriesPoint(T0 + n * minute / 2, {}, {"v": n}) for n in range(20)]
        await store.time_series.store_many("m", points)

        async def retire(work: PolarisUnitOfWork) -> None:
            await work.time_series.set_retention("m", RetentionPolicy(None, [RollupPolicy(minute)]))
            assert await work.time_series.apply_retention("m", T0 + 4 * minute) == 8
            assert await work.time_series.query_time_series("m", TimeRange.all()) == points[8:]
            (found,) = await work.time_series.aggregate_time_series("m", TimeRange.all(), "sum")
            assert (found.value, found.count) == (190.0, 20)

        async with store.unit_of_work() as work:
            await retire(work)
        assert await store.time_series.get_retention("m") is None
        assert await store.time_series.query_time_series("m", TimeRange.all()) == points
        async with store.unit_of_work() as work:
            await retire(work)
            await work.commit()
        assert await store.time_series.query_time_series("m", TimeRange.all()) == points[8:]
        (found,) = await store.time_series.aggregate_time_series("m", TimeRange.all(), "sum")
        assert (found.value, found.count) == (190.0, 20)

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
