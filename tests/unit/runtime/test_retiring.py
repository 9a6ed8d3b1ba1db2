"""Old telemetry retires where the engine does not see to that by itself."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from polaris.clock import utc_now
from polaris.domain import SystemState
from polaris.observability import StructuredLogger
from polaris.runtime._health import HealthBoard
from polaris.runtime._lease import BEAT_S, LEASES, Lease
from polaris.runtime._retiring import INTERVAL_S, Retiring
from polaris.storage import PolarisDataStore, RetentionPolicy, TimeRange
from polaris.testing import run_virtual, running_clock

LOGGER = StructuredLogger("test")
DAY = timedelta(days=1)


def test_samples_go_when_they_are_older_than_the_policy_says_and_the_newest_stays() -> None:
    async def scenario() -> None:
        clock = running_clock()
        async with PolarisDataStore.memory(clock=clock) as store:
            now = clock.now()
            states = [SystemState("web", now - age * DAY) for age in (9, 8, 1)] + [SystemState("db", now - 20 * DAY)]
            await store.states.save_many(states)
            await store.time_series.set_retention("system_states", RetentionPolicy(7 * DAY))
            service = Retiring(store, HealthBoard(clock=clock), LOGGER, clock=clock)
            await service.start()
            await clock.sleep(1)
            assert await store.states.get_state_history("web", TimeRange.all()) == states[2:3]
            assert await store.states.get_state_history("db", TimeRange.all()) == states[3:]
            await store.states.save_current_state(SystemState("web", now - 8 * DAY))
            await clock.sleep(INTERVAL_S)
            await service.stop()
            assert await store.states.get_state_history("web", TimeRange.all()) == states[2:3]
            assert service.points_retired == 3

    run_virtual(scenario())


def test_only_the_node_whose_turn_it_is_retires_anything() -> None:
    async def scenario() -> None:
        clock = running_clock()
        async with PolarisDataStore.memory(clock=clock) as store:
            turn = Lease(store.documents, LEASES, "upkeep", "mine", clock=clock)
            await store.states.save_many([SystemState("web", clock.now() - age * DAY) for age in (9, 1)])
            await store.time_series.set_retention("system_states", RetentionPolicy(7 * DAY))
            service = Retiring(store, HealthBoard(clock=clock), LOGGER, turn=turn, clock=clock)
            await service.start()
            await clock.sleep(2 * INTERVAL_S)
            assert service.points_retired == 0
            await turn.attempt()
            await clock.sleep(BEAT_S)
            assert service.points_retired == 1
            await service.stop()

    run_virtual(scenario())


async def test_an_engine_that_retires_by_itself_is_asked_for_expired_documents_only(tmp_path: Path) -> None:
    async with PolarisDataStore.sqlite(tmp_path / "store.db") as store:
        now = utc_now()
        await store.states.save_many([SystemState("web", now - age * DAY) for age in (9, 1)])
        await store.documents.insert_document("d", {"_id": "gone"}, ttl=timedelta(milliseconds=1))
        await asyncio.sleep(0.05)  # it looks once, and minutes later again
        service = Retiring(store, HealthBoard(), LOGGER)
        await service.start()
        async with asyncio.timeout(10):
            while not service.documents_expired:
                await asyncio.sleep(0.01)
        await service.stop()
        assert service.points_retired == 0
        assert len(await store.states.get_state_history("web", TimeRange.all())) == 2
