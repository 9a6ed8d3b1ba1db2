"""The server is killed under a bus that publishes and handles: every confirmed event is handled, none silently lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from tests.awake import within
from tests.conftest import MakeNATSServer
from tests.faults.longest import ALLOWANCE_S, Longest

from polaris.clock import utc_now
from polaris.domain import SystemState, TelemetryEvent
from polaris.exceptions import MessageBusError
from polaris.messaging import DeduplicationMiddleware, NATSMessageBroker, PolarisMessageBus

KILLS = 3
EVENTS = 3_000
PUBLISHERS = 64
TIMEOUT_S = 3.0


async def test_every_event_is_handled_exactly_once_although_the_server_dies_again_and_again(
    make_nats_server: MakeNATSServer, record_property: Callable[[str, object], None]
) -> None:
    server = await make_nats_server()
    handled: list[str] = []
    confirmed: list[str] = []
    waiting = [TelemetryEvent(SystemState(f"s{n % 50}", utc_now())) for n in range(EVENTS)]
    todo = list(reversed(waiting))

    async def handle(event: TelemetryEvent) -> None:
        handled.append(event.event_id)

    async def publish() -> None:
        while todo:
            event = todo.pop()
            while True:
                try:
                    with longest.act():
                        await bus.publish_telemetry(event, timeout_s=TIMEOUT_S)
                except MessageBusError as error:
                    assert error.retryable
                    await asyncio.sleep(0.01)
                else:
                    confirmed.append(event.event_id)
                    break

    async def kill_now_and_then() -> None:
        for kill in range(1, KILLS + 1):
            while len(confirmed) < kill * EVENTS // (KILLS + 1):
                await asyncio.sleep(0.005)
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            await server.wait()
            await server.restart()

    broker = NATSMessageBroker(server.client_config("bus"))
    bus = PolarisMessageBus(broker, [DeduplicationMiddleware()], grace_s=2.0)
    async with within(90.0) as clock, bus:
        longest = Longest(clock)
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="w", ack_wait_s=2.0)
        async with asyncio.TaskGroup() as group:
            group.create_task(kill_now_and_then())
            for _ in range(PUBLISHERS):
                group.create_task(publish())
        while len(handled) < EVENTS or subscription.in_flight:
            await asyncio.sleep(0.02)
        await asyncio.sleep(2.5)
        assert await bus.dead_letters.list() == []
    assert sorted(confirmed) == sorted(event.event_id for event in waiting)
    assert sorted(handled) == sorted(confirmed)
    record_property("longest_s", longest.seconds)
    assert longest.seconds <= TIMEOUT_S + ALLOWANCE_S
