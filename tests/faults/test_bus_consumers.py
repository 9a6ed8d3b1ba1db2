"""Consumers in processes of their own: killed again and again under a backlog, and far too slow for their telemetry."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.awake import awake
from tests.conftest import MakeNATSServer
from tests.faults import bus_child
from tests.faults.sizes import size

from polaris.clock import utc_now
from polaris.domain import SystemState, TelemetryEvent
from polaris.messaging import EmbeddedNATSServer, NATSMessageBroker, PolarisMessageBus, topic_of

KILLS = 5
BACKLOG = size(3_000, 200_000)
SLACK = BACKLOG // (4 * KILLS)
"""So many events after the moment for a kill the consumer waits for it."""
FLOOD = size(8_000, 400_000)
LATE_S_MAX = 2.0
MEMORY_BYTES_MAX = 300 << 20
GROWN_BYTES_MAX = 10 << 20
"""Of the slow consumer, over what it had before the flood. The flood is larger even at its usual size."""
PATIENCE_S = size(60, 3_600)


class Child:
    """A process at work; it says what it has to say in lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def says(self) -> dict[str, Any]:
        """The next line."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE_S)
        assert line, "the child ended by itself"
        said: dict[str, Any] = json.loads(line)
        return said

    def let_end(self) -> None:
        """Close its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def kill(self) -> None:
        """kill -9 it, unless it has ended, and see it end."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def ends(self) -> int:
        return await asyncio.wait_for(self._process.wait(), PATIENCE_S)


@contextlib.asynccontextmanager
async def a_child(command: str, server: EmbeddedNATSServer, *arguments: object) -> AsyncIterator[Child]:
    """A process that runs a command of `bus_child`; gone at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        bus_child.__file__,
        command,
        server.url,
        *map(str, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    child = Child(process)
    try:
        assert process.stdin is not None
        process.stdin.write(f"{server.token}\n".encode())
        yield child
    finally:
        await child.kill()


async def worker_info(bus: PolarisMessageBus) -> dict[str, Any]:
    """What the server says of the position of the consumers that are killed."""
    assert isinstance(bus.broker, NATSMessageBroker)
    info = await bus.broker._api.call("CONSUMER.INFO.POLARIS_TELEMETRY.worker")
    assert info is not None
    return info


async def nothing_waits(bus: PolarisMessageBus) -> None:
    """Wait until the server has nothing left for them, and nothing that might come again."""
    while (info := await worker_info(bus))["num_pending"] or info["num_ack_pending"]:
        await asyncio.sleep(0.05)


async def published(bus: PolarisMessageBus, count: int) -> set[str]:
    """Publish so many events, each in a message of its own; their ids, all acknowledged."""
    left = iter(range(count))
    acknowledged: set[str] = set()

    async def publish() -> None:
        for number in left:
            event = TelemetryEvent(SystemState(f"system-{number % 50}", utc_now()))
            await bus.publish(topic_of(event), event, timeout_s=30.0)
            acknowledged.add(event.event_id)

    async with asyncio.TaskGroup() as group:
        for _ in range(256):
            group.create_task(publish())
    return acknowledged


@pytest.mark.slow
async def test_a_consumer_killed_five_times_under_a_backlog_handles_all_of_it_and_next_to_nothing_twice(
    make_nats_server: MakeNATSServer, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    server = await make_nats_server()
    file = tmp_path / "handled"
    file.touch()

    def handled() -> int:
        return file.stat().st_size // line_bytes

    async with PolarisMessageBus(NATSMessageBroker(server.client_config())) as bus:
        events = await published(bus, BACKLOG)
        line_bytes = len(next(iter(events))) + 1
        for kill in range(1, KILLS + 2):
            target = kill * BACKLOG // (KILLS + 1)
            hold_bytes = (target + SLACK if kill <= KILLS else 2 * BACKLOG) * line_bytes
            async with (
                a_child("consume", server, tmp_path, hold_bytes) as child,
                asyncio.timeout(PATIENCE_S),
            ):
                assert await child.says() == {"ready": True}
                while handled() < target:
                    await asyncio.sleep(0.002)
                if kill <= KILLS:
                    await child.kill()
                    assert (await worker_info(bus))["num_ack_pending"] > 0, "the kill hit nothing in hand"
                else:
                    await nothing_waits(bus)
        counts = Counter(file.read_text().split())
        assert set(counts) == events
        # A kill between the end of a handler and the note of it is all that can make it run again.
        twice = sum(counts.values()) - BACKLOG
        assert twice <= KILLS
        assert await bus.dead_letters.list() == []
        info = await worker_info(bus)
        assert (info["num_pending"], info["num_ack_pending"]) == (0, 0)
    record_property("twice", twice)


@pytest.mark.slow
async def test_orders_are_never_late_behind_telemetry_that_comes_faster_than_it_is_handled(
    make_nats_server: MakeNATSServer, record_property: Callable[[str, object], None]
) -> None:
    server = await make_nats_server()
    async with awake() as clock, a_child("slow", server, FLOOD) as consumer:
        assert await consumer.says() == {"ready": True}
        async with a_child("flood", server, FLOOD) as producer:
            flooded = await producer.says()
            result = await consumer.says()
            assert await consumer.ends() == 0
            producer.let_end()
            orders = await producer.says()
            assert await producer.ends() == 0
    record_property("flooded", flooded)
    record_property("result", result)
    record_property("orders", orders)
    assert flooded["acknowledged"] == result["distinct"] == result["calls"] == FLOOD
    assert flooded["took_s"] < 0.75 * result["took_s"], "the consumer was not slow"
    # What held up this idle process was the machine.
    machine_s = clock.longest_pause_s
    assert result["controls"] >= (result["took_s"] - machine_s) / bus_child.CONTROL_EVERY_S - 2
    assert result["late_s_max"] < LATE_S_MAX + machine_s
    assert orders["slowest_s"] < LATE_S_MAX + machine_s
    assert result["in_flight_max"] <= 256
    assert max(result["memory_bytes"], orders["memory_bytes"]) < MEMORY_BYTES_MAX
    assert result["grown_bytes"] < GROWN_BYTES_MAX
