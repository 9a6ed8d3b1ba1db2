"""The node is killed in mid-ingest, five times: all that was confirmed is in the store, once, and nothing else is."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import apsw
import pytest
from tests.nodes import NodeUnderTest, a_node, confirmed, eventually_true, reached

from polaris.domain import HealthStatus, MetricValue, SystemState, TelemetryBatch, TelemetryEvent
from polaris.messaging import PolarisMessageBus
from polaris.storage import PolarisDataStore, TimeRange

SYSTEMS = 25
SAMPLES_PER_SYSTEM = 160
KILLS = 5
PUBLISHERS = 48
TWICE = 0.15
"""The share of events that are published a second time, at some other time."""
BEGAN_AT = datetime(2026, 3, 1, tzinfo=UTC)

Event = TelemetryEvent | TelemetryBatch


def states_of_all_systems() -> dict[str, list[SystemState]]:
    """What each system reports, in order of time; no two states are alike."""
    return {
        f"system-{n}": [
            SystemState(
                f"system-{n}",
                BEGAN_AT + timedelta(milliseconds=250 * k),
                {
                    "load": MetricValue("load", n + k / 1000, "1"),
                    "requests": MetricValue("requests", k, None, tags={"zone": f"z{n % 3}"}),
                    "phase": MetricValue("phase", f"{n}-{k}"),
                },
                HealthStatus.WARNING if k % 7 == 0 else HealthStatus.HEALTHY,
                {"lot": k // 10},
            )
            for k in range(SAMPLES_PER_SYSTEM)
        ]
        for n in range(SYSTEMS)
    }


def batched_states() -> dict[str, list[SystemState]]:
    """Systems of their own whose samples travel in batches."""
    per_batch, batches = 20, 8
    return {
        f"batched-{n}": [
            SystemState(
                f"batched-{n}",
                BEGAN_AT + timedelta(seconds=k),
                {"load": MetricValue("load", n + k / 1000, "1")},
                HealthStatus.HEALTHY,
            )
            for k in range(per_batch * batches)
        ]
        for n in range(3)
    }


def events_of(single: dict[str, list[SystemState]], batched: dict[str, list[SystemState]]) -> list[Event]:
    """All states as events, in no order at all, and some of them twice with the same id."""
    draw = random.Random(7)
    events: list[Event] = [TelemetryEvent(state) for states in single.values() for state in states]
    for states in batched.values():
        events += [TelemetryBatch.from_states(states[begin : begin + 20]) for begin in range(0, len(states), 20)]
    events += draw.sample(events, int(len(events) * TWICE))
    draw.shuffle(events)
    return events


async def stored_states(store: PolarisDataStore) -> dict[str, list[SystemState]]:
    return {
        summary.system_id: await store.states.get_state_history(summary.system_id, TimeRange.all())
        for summary in await store.states.systems()
    }


async def stored_count(node: NodeUnderTest) -> int:
    async with node.store() as store:
        points = await store.time_series.query_time_series("system_states", TimeRange.all(), fields=["load"])
    return len(points)


@contextlib.contextmanager
def held(node: NodeUnderTest) -> Iterator[None]:
    """Another program has a transaction open on the store, so the node's writes wait."""
    connection = apsw.Connection(str(node.data.path / "polaris.db"))
    connection.set_busy_timeout(5_000)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


async def publish_all(
    bus: PolarisMessageBus, events: Sequence[Event], receipts: list[Event], allowed: Callable[[], int]
) -> None:
    """Publish everything until it is confirmed, many at a time, but not much more than is allowed now."""
    waiting = iter(events)

    async def publisher() -> None:
        for event in waiting:
            while len(receipts) >= allowed():
                await asyncio.sleep(0.005)
            await confirmed(partial(bus.publish_telemetry, event, timeout_s=3.0))
            receipts.append(event)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(PUBLISHERS):
            tasks.create_task(publisher())


@pytest.mark.slow
async def test_every_confirmed_sample_is_stored_exactly_once_over_five_kills_of_the_node(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    single, batched = states_of_all_systems(), batched_states()
    expected = {**single, **batched}
    total = sum(map(len, expected.values()))
    events = events_of(single, batched)
    receipts: list[Event] = []
    unwritten: list[int] = []
    waiting = len(events) // (KILLS + 2)

    async with a_node(tmp_path) as node:
        first_address = node.file.bus_url
        async with node.bus() as bus:
            # Otherwise nothing might be left for the last kills: the bus is back long before the node is ready.
            kill = 1
            publishing = asyncio.create_task(publish_all(bus, events, receipts, lambda: (kill + 1) * waiting))
            for kill in range(1, KILLS + 1):
                await reached(receipts.__len__, kill * waiting, "receipts")
                # The node's writer is held up, so the kill comes between the receipts and the commit.
                with held(node):
                    await reached(receipts.__len__, len(receipts) + waiting // 2, "receipts while the store is held")
                    node.kill()
                confirmed_samples = sum(map(count_of, {id(event): event for event in receipts}.values()))
                unwritten.append(confirmed_samples - await stored_count(node))
                await node.start()
                assert node.file.bus_url == first_address, "publishers would look for the bus in vain"
            kill = len(events)
            await publishing
        assert len(receipts) == len(events)

        async def everything_is_stored() -> bool:
            return await stored_count(node) >= total

        await eventually_true(everything_is_stored, "what was confirmed is stored")
        assert await node.is_ready()
        async with node.store() as store:
            assert await stored_states(store) == expected
            assert await store.time_series.query_time_series("system_states", TimeRange.all(), fields=["load"])
        status, _ = await node.get("api/v1/systems/system-3")
        assert status == 200
        assert node.untidy_lines() == []
        assert await node.stop() == 0
        async with node.store() as store:
            assert await stored_states(store) == expected
    record_property("unwritten_at_kills", unwritten)
    assert min(unwritten) > 0, f"a kill hit no sample between its receipt and the commit: {unwritten}"


def count_of(event: Event) -> int:
    return 1 if isinstance(event, TelemetryEvent) else len(event.timestamps)


async def test_a_store_that_another_program_holds_for_long_loses_nothing(tmp_path: Path) -> None:
    events = [TelemetryEvent(state) for state in states_of_all_systems()["system-1"][:50]]
    async with a_node(tmp_path) as node, node.bus() as bus:
        with held(node):
            for event in events:
                await confirmed(partial(bus.publish_telemetry, event))
            await asyncio.sleep(7.0)  # the writer's own patience is 5 s
            assert await stored_count(node) == 0

        async def everything_is_stored() -> bool:
            return await stored_count(node) == len(events)

        await eventually_true(everything_is_stored, "what was confirmed is stored")
        await eventually_true(node.is_ready, "the node is ready")
        assert await bus.dead_letters.list() == []
        assert await node.stop() == 0
        assert node.untidy_lines() == []
