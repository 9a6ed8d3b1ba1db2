"""A real server dies and comes back: those who listen, scrape and subscribe to health events learn what happened."""

from __future__ import annotations

import asyncio
import os
import signal
from types import SimpleNamespace
from typing import Any, cast

from tests.awake import within
from tests.conftest import MakeNATSServer

from polaris.clock import utc_now
from polaris.domain import HealthEvent, HealthStatus, SystemState, TelemetryEvent
from polaris.messaging import (
    ConnectionState,
    LanedMessageBroker,
    NATSMessageBroker,
    PolarisMessageBus,
)
from polaris.observability import MetricsCollector, StructuredLogger
from polaris.runtime._health import HealthBoard
from polaris.runtime._storing import PublishOutcomes
from polaris.runtime._watch import BUS, Watch
from polaris.storage import PolarisDataStore

AWAY_S = 0.6
LANES = ("control", "bulk")


async def test_an_outage_is_told_to_listeners_metrics_readiness_and_the_bus(make_nats_server: MakeNATSServer) -> None:
    server = await make_nats_server()
    broker = LanedMessageBroker(
        NATSMessageBroker(server.client_config("a")), NATSMessageBroker(server.client_config("b"))
    )
    collector, outcomes, board = MetricsCollector(), PublishOutcomes(), HealthBoard()
    board.expect([BUS])
    bus = PolarisMessageBus(broker, [outcomes], collector=collector)
    elsewhere = PolarisMessageBus(NATSMessageBroker(server.client_config("c")))
    store = PolarisDataStore.memory()
    await store.connect()
    watch = Watch(
        broker,
        bus,
        store,
        board,
        collector.instruments,
        StructuredLogger("test"),
        ingest=cast("Any", SimpleNamespace(subscription=None)),
        actions=cast("Any", SimpleNamespace(subscriptions=())),
        outcomes=outcomes,
        source="polaris/test",
        on_look=lambda: None,
    )
    states: list[ConnectionState] = []
    told: asyncio.Queue[HealthEvent] = asyncio.Queue()

    def read(name: str) -> list[float | None]:
        return [collector.registry.get_sample_value(f"polaris_broker_{name}", {"broker": lane}) for lane in LANES]

    async def hear(event: HealthEvent) -> None:
        told.put_nowait(event)

    async with bus, elsewhere:
        bus.on_state(states.append)
        await elsewhere.subscribe("polaris.health.bus", hear)
        await watch.start()
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        await server.wait()
        publishing = asyncio.create_task(
            bus.publish_telemetry(TelemetryEvent(SystemState("web", utc_now())), timeout_s=30.0)
        )
        await asyncio.sleep(AWAY_S)
        assert (states, read("connected")) == ([ConnectionState.RECONNECTING], [0.0, 0.0])
        assert not board.readiness().ok
        await server.start()
        await publishing
        async with within(5.0):
            while bus.state is not ConnectionState.CONNECTED:
                await asyncio.sleep(0.005)
        assert states == [ConnectionState.RECONNECTING, ConnectionState.CONNECTED]
        assert (read("connected"), read("reconnects_total")) == ([1.0, 1.0], [1.0, 1.0])
        assert min(away_s or 0.0 for away_s in read("away_seconds_total")) >= AWAY_S
        assert board.readiness().ok
        async with within(10.0):
            while not (event := await told.get()).message:
                pass  # that it is healthy was news at the start
        assert (event.component, event.status) == (BUS, HealthStatus.HEALTHY)
        assert float(event.message.removeprefix("was away for ").removesuffix(" s")) >= AWAY_S
        await watch.stop()
    await store.disconnect()
