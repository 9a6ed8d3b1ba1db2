"""A node is asked to stop with work in flight: it drains within its grace, or leaves the rest for the next start."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.awake import within
from tests.frozen import freeze
from tests.nodes import NodeUnderTest, a_node, confirmed, eventually, eventually_true, reached
from tests.witness_connector import read_journal

from polaris.domain import AdaptationAction, AdaptationEvent, ExecutionStatus, MetricValue, SystemState, TelemetryEvent
from polaris.messaging import PolarisMessageBus, adaptation_topic
from polaris.runtime._assembly import BREAK_OFF_S
from polaris.storage import TimeRange

GRACE_S = 3.0
MARGIN_S = 4.0
"""Beyond the grace period: for ending what would not end, on a busy machine."""
AT_ONCE_S = 2.0
"""For the end of a process: less than any of the waits that are left out."""
BEGAN_AT = datetime(2026, 3, 1, tzinfo=UTC)


def settings(folder: Path, *, action_s: float) -> Mapping[str, Any]:
    return {
        "node": {"shutdown_grace_s": GRACE_S},
        "systems": {
            "slow": {
                "connector": "tests.witness_connector:WitnessConnector",
                "interval_s": 0.05,
                "options": {"journal": str(folder / "slow.jsonl"), "before_s": action_s},
            },
            "this-machine": {"connector": "host", "interval_s": 0.1},
        },
    }


def events(folder: Path) -> list[str]:
    return [line.event for line in read_journal(folder / "slow.jsonl")]


async def ask(bus: PolarisMessageBus, action_id: str) -> None:
    action = AdaptationAction(action_id, "poke", "slow", timeout_seconds=120.0)
    await bus.publish(adaptation_topic("slow"), AdaptationEvent(action))


async def outcome(node: NodeUnderTest, action_id: str) -> ExecutionStatus | None:
    async with node.store() as store:
        result = await store.results.find_by_action(action_id)
    return None if result is None else result.status


@contextlib.asynccontextmanager
async def load(bus: PolarisMessageBus) -> AsyncIterator[list[SystemState]]:
    """Publish without a break; gives the list of the states that were confirmed."""
    confirmed_states: list[SystemState] = []

    async def publisher(n: int) -> None:
        for k in range(1_000_000):
            moment = BEGAN_AT + timedelta(milliseconds=k)
            state = SystemState(f"pushed-{n}", moment, {"value": MetricValue("value", k)})
            await confirmed(partial(bus.publish_telemetry, TelemetryEvent(state), timeout_s=1.0))
            confirmed_states.append(state)

    publishers = [asyncio.create_task(publisher(n)) for n in range(8)]
    try:
        yield confirmed_states
    finally:
        for task in publishers:
            task.cancel()
        await asyncio.gather(*publishers, return_exceptions=True)


async def all_are_stored(node: NodeUnderTest, states: list[SystemState]) -> bool:
    async with node.store() as store:
        found = {
            (state.system_id, state.timestamp)
            for n in range(8)
            for state in await store.states.get_state_history(f"pushed-{n}", TimeRange.all())
        }
    return {(state.system_id, state.timestamp) for state in states} <= found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_work_in_flight_is_drained(tmp_path: Path, number: signal.Signals) -> None:
    async with a_node(tmp_path, settings(tmp_path, action_s=1.0)) as node:
        async with node.bus() as bus, load(bus) as states:
            await ask(bus, "a1")
            await eventually(lambda: events(tmp_path) == ["begin"], "the action has begun")
            await reached(states.__len__, 300, "samples under way")
            node.send(number)
            async with within(GRACE_S + MARGIN_S):
                code = await node.ended()
        assert code == 0
        assert node.untidy_lines() == []
        assert "stopping, at most 8 s" in node.stderr()  # the grace period, and five seconds for what would not end
        await node.gone()
        assert node.data.running_node() is None
        assert events(tmp_path) == ["begin", "effect", "end"]
        assert await outcome(node, "a1") is ExecutionStatus.SUCCESS
        # What the node sampled itself was published and stored before the end.
        async with node.store() as store:
            numbers = [state.value("number") for state in await store.states.get_state_history("slow", TimeRange.all())]
        taken = int((tmp_path / "slow.samples").read_text())
        assert numbers in (list(range(1, taken + 1)), list(range(1, taken))), "a sample that was published is not there"
        await node.start()
        await eventually_true(partial(all_are_stored, node, states), "what was confirmed is stored")
        assert await node.stop() == 0
        assert node.untidy_lines() == []


async def test_an_action_that_outlasts_the_grace_is_cut_off_and_ends_as_unknown(tmp_path: Path) -> None:
    async with a_node(tmp_path, settings(tmp_path, action_s=60.0)) as node:
        async with node.bus() as bus:
            await ask(bus, "a1")
            await ask(bus, "a2")
            await eventually(lambda: events(tmp_path) == ["begin"], "the action has begun")
        asked_s = time.monotonic()
        async with within(GRACE_S + MARGIN_S):
            assert await node.stop() == 0
        assert time.monotonic() - asked_s > GRACE_S - 0.5
        assert node.untidy_lines() == []
        assert await outcome(node, "a1") is None
        node.configure(settings(tmp_path, action_s=0.0))
        await node.start()

        async def both_have_ended() -> bool:
            return (await outcome(node, "a1"), await outcome(node, "a2")) == (
                ExecutionStatus.UNKNOWN,
                ExecutionStatus.SUCCESS,
            )

        await eventually_true(both_have_ended, "the one is unknown, the other is executed")
        assert events(tmp_path) == ["begin", "begin", "effect", "end"]
        assert await node.stop() == 0


async def test_a_second_signal_leaves_at_once_and_the_next_start_is_fine(tmp_path: Path) -> None:
    async with a_node(tmp_path, settings(tmp_path, action_s=60.0)) as node:
        async with node.bus() as bus, load(bus) as states:
            await ask(bus, "a1")
            await eventually(lambda: events(tmp_path) == ["begin"], "the action has begun")
            await reached(states.__len__, 200, "samples under way")
            node.send(signal.SIGINT)
            await eventually(lambda: "stopping" in node.stderr(), "the node stops")
            node.send(signal.SIGTERM)
            async with within(AT_ONCE_S):
                assert await node.ended() == 130
        assert node.untidy_lines() == []
        await node.start()
        await eventually_true(partial(all_are_stored, node, states), "what was confirmed is stored")
        assert await outcome(node, "a1") is ExecutionStatus.UNKNOWN
        assert await node.is_ready()
        assert await node.stop() == 0


@pytest.mark.parametrize("after_s", [0.0, 0.2, 0.4, 0.6, 0.8])
async def test_a_signal_during_the_start_leaves_nothing_behind(tmp_path: Path, after_s: float) -> None:
    node = NodeUnderTest(tmp_path, settings(tmp_path, action_s=0.0))
    try:
        node.launch()
        await asyncio.sleep(after_s)
        node.send(signal.SIGINT)
        code = await node.ended()
        # Before Python minds signals it is killed by them, or ends while it makes itself ready; nothing of the node has
        # run then. Once the node runs it stops in order.
        is_python_begun = code != -signal.SIGINT and "Fatal Python error: init_" not in node.stderr()
        assert code in (0, 130) or not is_python_begun, node.stderr()
        if is_python_begun:
            assert node.untidy_lines() == []
        await node.gone()
        await node.start()
        assert await node.stop() == 0
    finally:
        await node.close()


@pytest.mark.slow
async def test_a_node_whose_bus_server_is_frozen_ends_all_the_same(tmp_path: Path) -> None:
    async with a_node(tmp_path, settings(tmp_path, action_s=0.5)) as node:
        async with node.bus() as bus, load(bus) as states:
            await reached(states.__len__, 100, "samples under way")
            await ask(bus, "a1")
            await eventually(lambda: events(tmp_path) == ["begin"], "the action has begun")
            freeze(node.nats_server.pid)
            async with within(GRACE_S + BREAK_OFF_S + MARGIN_S):
                code = await node.stop()
            assert code in (0, 1), node.stderr()
            if code == 1:
                assert "is broken off" in node.stderr()
            assert node.untidy_lines() == []
        await node.gone()
        await node.start()
        await eventually_true(partial(all_are_stored, node, states), "what was confirmed is stored")
        assert await outcome(node, "a1") is ExecutionStatus.SUCCESS
        assert events(tmp_path) == ["begin", "effect", "end"]
        assert await node.stop() == 0
