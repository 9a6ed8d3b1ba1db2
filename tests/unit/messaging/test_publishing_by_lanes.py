"""Two ways to the broker: while one of them is away, who publishes by the other one notices nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.unit.messaging.doubles import NOW, health, telemetry

from polaris.domain import EventKind, MetricValue, SystemState, TelemetryEvent
from polaris.exceptions import BusConnectionError
from polaris.messaging import (
    InMemoryHub,
    InMemoryMessageBroker,
    LanedMessageBroker,
    OutageBuffer,
    OutgoingMessage,
    PolarisMessageBus,
    Receipt,
)
from polaris.messaging._outage import WaitingRoom
from polaris.testing import FaultPlan, FaultyBroker, running_clock

COMMANDS = "polaris.adaptations.web"


class SlowToStore(InMemoryMessageBroker):
    """Takes a hundredth of a second, so that telemetry gathers."""

    async def publish(self, message: OutgoingMessage, **options: Any) -> Receipt:
        await asyncio.sleep(0.01)
        return await super().publish(message, **options)


class Lanes:
    """A bus whose two lanes lead to one server and can be cut one by one."""

    def __init__(self, **options: Any) -> None:
        clock = running_clock()
        hub = InMemoryHub(clock=clock)
        self.control = FaultyBroker(InMemoryMessageBroker(hub), FaultPlan(), clock=clock)
        self.bulk = FaultyBroker(SlowToStore(hub), FaultPlan(), clock=clock)
        self.bus = PolarisMessageBus(LanedMessageBroker(self.control, self.bulk), clock=clock, **options)

    @property
    def room(self) -> WaitingRoom:
        return self.bus._outbound._publisher.room


@asynccontextmanager
async def running_lanes(**options: Any) -> AsyncIterator[Lanes]:
    lanes = Lanes(**options)
    async with lanes.bus:
        yield lanes
        lanes.control.mend()
        lanes.bulk.mend()


def large(number: int) -> TelemetryEvent:
    """An event of a little over 1 000 bytes, all of one size."""
    text = MetricValue("note", "x" * 700)
    return TelemetryEvent(SystemState("web", NOW, {"note": text}), event_id=f"web{number:03}")


def started(*works: Any) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(work) for work in works]


async def kinds(*works: Any) -> list[type[Any]]:
    return [type(outcome) for outcome in await asyncio.gather(*works, return_exceptions=True)]


async def test_a_command_leaves_at_once_while_the_bulk_lane_is_away() -> None:
    async with running_lanes() as lanes:
        lanes.bulk.cut()
        reading = started(lanes.bus.publish_telemetry(telemetry(), timeout_s=30.0))
        await asyncio.sleep(1.0)
        began_s = running_clock().monotonic()
        await lanes.bus.publish(COMMANDS, health())
        assert running_clock().monotonic() == began_s
        assert not reading[0].done()
        lanes.bulk.mend()
        assert await kinds(*reading) == [Receipt]


async def test_commands_leave_at_once_when_their_lane_is_back_though_the_bulk_lane_is_not() -> None:
    async with running_lanes() as lanes:
        lanes.bulk.cut()
        lanes.control.cut()
        reading = started(lanes.bus.publish_telemetry(telemetry(), timeout_s=60.0))
        commands = started(*(lanes.bus.publish(COMMANDS, health(), timeout_s=30.0) for _ in range(20)))
        await asyncio.sleep(9.9)
        began_s = running_clock().monotonic()
        lanes.control.mend()
        assert await kinds(*commands) == [Receipt] * 20
        assert running_clock().monotonic() == began_s
        assert not reading[0].done()
        lanes.bulk.mend()
        assert await kinds(*reading) == [Receipt]


@pytest.mark.parametrize("newer", [5, 15])
async def test_a_command_that_gets_through_lets_no_batch_of_telemetry_ask_for_the_other_lane(newer: int) -> None:
    """A batch that asks is one thing, which one newer event would drive out as a whole."""
    async with running_lanes(outage=OutageBuffer(bytes_max=50_000)) as lanes:
        lanes.bulk.cut()
        tasks = started(lanes.bus.publish_telemetry(large(0), timeout_s=1.5))
        await asyncio.sleep(0.1)
        tasks += started(*(lanes.bus.publish_telemetry(large(n), timeout_s=60.0) for n in range(1, 41)))
        await asyncio.sleep(0.5)
        assert await kinds(lanes.bus.publish(COMMANDS, health())) == [Receipt]
        # Now the time of the first one is up, behind which the others gather.
        await asyncio.sleep(1.5)
        assert [task.done() for task in tasks] == [True] + [False] * 40
        assert len(lanes.room) == 40
        free = 50_000 * 40 // lanes.room.bytes - 40
        tasks += started(*(lanes.bus.publish_telemetry(large(n), timeout_s=60.0) for n in range(41, 41 + newer)))
        await asyncio.sleep(0.5)
        lanes.bulk.mend()
        found = await kinds(*tasks)
    # Each newer one, beyond those for which there was room, takes the place of one older one.
    dropped = max(0, newer - free)
    assert found[1:].count(BusConnectionError) == dropped
    assert found[1:].count(Receipt) == 40 + newer - dropped
    assert found[41:] == [Receipt] * newer


async def test_no_telemetry_is_dropped_for_a_control_lane_that_is_away() -> None:
    async with running_lanes(outage=OutageBuffer(bytes_max=5_000)) as lanes:
        lanes.control.cut()
        command = started(lanes.bus.publish(COMMANDS, health(), timeout_s=30.0))
        await asyncio.sleep(0.1)
        assert await kinds(*(lanes.bus.publish_telemetry(large(n)) for n in range(30))) == [Receipt] * 30
        assert lanes.bus.published[EventKind.TELEMETRY].dropped == {}
        assert not command[0].done()
        lanes.control.mend()
        assert await kinds(*command) == [Receipt]
