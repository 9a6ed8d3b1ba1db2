"""A replay on a real server: complete and in order, also when the server is killed in the middle of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
from tests.conftest import ConnectNATS

from polaris.domain import MetricValue, SystemState, TelemetryEvent
from polaris.messaging import PolarisMessageBus, Start
from polaris.messaging.brokers._embedded import EmbeddedNATSServer

NOW = datetime(2026, 3, 1, tzinfo=UTC)
EVENTS = 1_000


def telemetry(number: int) -> TelemetryEvent:
    return TelemetryEvent(SystemState("web", NOW, {"n": MetricValue("n", float(number))}))


def number_of(event: TelemetryEvent) -> int:
    value = event.system_state.value("n")
    assert isinstance(value, float)
    return int(value)


@pytest.mark.parametrize("killed", [False, True])
async def test_a_replay_hands_over_everything_in_order(
    make_nats_server: Callable[..., Awaitable[EmbeddedNATSServer]], connect_nats: ConnectNATS, killed: bool
) -> None:
    server = await make_nats_server()
    seen: list[int] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))
        if killed and len(seen) == 300:
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            await server.wait()
            await server.restart()

    async with PolarisMessageBus(await connect_nats(server)) as bus:
        for number in range(EVENTS):  # a message each: many together would be gathered into few
            await bus.publish_telemetry(telemetry(number))
        report = await bus.replay("polaris.telemetry.*", handle)
        assert seen == list(range(EVENTS))
        assert (report.events, report.last_sequence) == (EVENTS, EVENTS)
        seen.clear()
        report = await bus.replay("polaris.telemetry.web", handle, start=Start.at_sequence(901))
        assert seen == list(range(900, EVENTS))
