"""The bus was away: it is told once, when it is back for good, with how long it was."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from polaris.domain import HealthEvent, HealthStatus
from polaris.messaging import ConnectionState, InMemoryHub, InMemoryMessageBroker, PolarisMessageBus
from polaris.observability import MetricsCollector, StructuredLogger
from polaris.runtime._absences import Absences
from polaris.runtime._health import HealthBoard
from polaris.runtime._storing import PublishOutcomes
from polaris.runtime._watch import BUS, Watch
from polaris.storage import PolarisDataStore
from polaris.testing import FaultyBroker, run_virtual, running_clock


def test_outages_are_counted_until_they_are_told() -> None:
    async def scenario() -> None:
        clock = running_clock()
        absences = Absences(clock=clock)
        absences.note(ConnectionState.CONNECTED)
        await clock.sleep(5.0)
        assert absences.untold() is None
        for away_s in (2.0, 0.5):
            absences.note(ConnectionState.RECONNECTING)
            await clock.sleep(away_s)
            absences.note(ConnectionState.CONNECTED)
            await clock.sleep(0.9)
            assert absences.untold() is None, "others may not be back yet"
        await clock.sleep(0.2)
        told = absences.untold()
        assert told is not None
        assert str(told) == "was away 2 times, for 2.5 s in all"
        # While it was being told, there was another one.
        absences.note(ConnectionState.RECONNECTING)
        await clock.sleep(3.0)
        assert absences.untold() is None
        absences.note(ConnectionState.CONNECTED)
        await clock.sleep(1.0)
        absences.told(told)
        rest = absences.untold()
        assert rest is not None
        assert str(rest) == "was away for 3.0 s"
        absences.told(rest)
        assert absences.untold() is None
        assert (absences.count, absences.last_s) == (3, 3.0)

    run_virtual(scenario())


@pytest.mark.parametrize("given_up", [ConnectionState.CLOSED, ConnectionState.DISCONNECTED])
def test_a_connection_that_was_given_up_was_not_away(given_up: ConnectionState) -> None:
    async def scenario() -> None:
        clock = running_clock()
        absences = Absences(clock=clock)
        absences.note(ConnectionState.CONNECTED)
        await clock.sleep(5.0)
        for state, away_s in ((ConnectionState.RECONNECTING, 2.0), (ConnectionState.CONNECTED, 0.5)):
            absences.note(state)
            await clock.sleep(away_s)
        absences.note(ConnectionState.RECONNECTING)
        await clock.sleep(2.0)
        absences.note(given_up)
        await clock.sleep(3_600.0)
        assert absences.untold() is None, "there is nobody to tell"
        absences.note(ConnectionState.CONNECTED)
        await clock.sleep(0.9)
        assert absences.untold() is None
        await clock.sleep(0.2)
        assert str(absences.untold()) == "was away for 2.0 s", "the one that ended"
        assert (absences.count, absences.last_s) == (1, 2.0)

    run_virtual(scenario())


def test_the_bus_says_itself_how_long_it_was_away() -> None:
    async def scenario() -> None:
        clock = running_clock()
        hub = InMemoryHub(clock=clock)
        broker = FaultyBroker(InMemoryMessageBroker(hub), clock=clock)
        outcomes = PublishOutcomes(clock=clock)
        bus = PolarisMessageBus(broker, [outcomes], clock=clock)
        board = HealthBoard(clock=clock)
        store = PolarisDataStore.memory(clock=clock)
        watch = Watch(
            broker,
            bus,
            store,
            board,
            MetricsCollector().instruments,
            StructuredLogger("test"),
            ingest=cast("Any", SimpleNamespace(subscription=None)),
            actions=cast("Any", SimpleNamespace(subscriptions=())),
            outcomes=outcomes,
            source="polaris/test",
            on_look=lambda: None,
            clock=clock,
        )
        told: list[tuple[HealthStatus, str]] = []

        async def hear(event: HealthEvent) -> None:
            told.append((event.status, event.message))

        await store.connect()
        async with bus:
            await bus.subscribe("polaris.health.bus", hear)
            await watch.start()
            await clock.sleep(5.0)
            assert told == [(HealthStatus.HEALTHY, "")]
            broker.cut()
            await clock.sleep(30.0)
            broker.mend()
            await clock.sleep(0.9)
            assert len(told) == 1
            await clock.sleep(4.0)
            assert told[1:] == [(HealthStatus.HEALTHY, "was away for 30.0 s")]
            view = board.get(BUS)
            assert view is not None
            assert view.details == {"outages": 1, "last_outage_s": 30.0}
            await clock.sleep(60.0)
            assert len(told) == 2
            await watch.stop()
        await store.disconnect()

    run_virtual(scenario())
