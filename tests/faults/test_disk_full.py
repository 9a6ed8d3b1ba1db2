"""The disk is full under a node for a while: it says so and goes on when there is room; nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import resource
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.nodes import NodeUnderTest, a_node, confirmed, eventually_true

from polaris.domain import MetricValue, SystemState, TelemetryEvent
from polaris.messaging import PolarisMessageBus
from polaris.storage import TimeRange

UNREADY_S_MAX = 15.0
READY_S_MAX = 30.0
BEGAN_AT = datetime(2026, 3, 1, tzinfo=UTC)
UNLIMITED = resource.RLIM_INFINITY


def fill_disk(node: NodeUnderTest, *, room_bytes: int = UNLIMITED, of_bus: bool = True) -> None:
    """Let no file of the node and its bus server grow beyond `room_bytes`: every write beyond fails, as on a full disk.

    For a node this is the same as a full disk, needs no rights, and hits nobody else on the machine. What the node
    starts from now on inherits it.
    """
    node_itself = psutil.Process(node.process.pid)
    for process in (node_itself, node.nats_server) if of_bus else (node_itself,):
        process.rlimit(resource.RLIMIT_FSIZE, (room_bytes, UNLIMITED))


async def reasons(node: NodeUnderTest) -> dict[str, str]:
    """Why the node is not ready, by component; empty when it is."""
    status, body = await node.get("readyz")
    return {} if status == 200 else {check["component"]: check["reason"] for check in body["checks"] if not check["ok"]}


async def publish_for_ever(bus: PolarisMessageBus, receipts: list[float]) -> None:
    """One sample after the other, each until it is confirmed."""
    number = 0
    while True:
        number += 1
        at = BEGAN_AT + timedelta(milliseconds=number)
        event = TelemetryEvent(SystemState("pushed", at, {"value": MetricValue("value", number)}))
        await confirmed(partial(bus.publish_telemetry, event, timeout_s=2.0))
        receipts.append(float(number))
        await asyncio.sleep(0.02)


async def values(node: NodeUnderTest, system_id: str, name: str) -> list[Any]:
    async with node.store() as store:
        return [state.value(name) for state in await store.states.get_state_history(system_id, TimeRange.all())]


@pytest.mark.slow
async def test_a_full_disk_withdraws_readiness_and_samples_flow_again_when_there_is_room(tmp_path: Path) -> None:
    sampled = {
        "connector": "tests.witness_connector:WitnessConnector",
        "interval_s": 0.1,
        "options": {"journal": str(tmp_path / "counted.jsonl")},
    }
    receipts: list[float] = []
    async with a_node(tmp_path, {"systems": {"counted": sampled}}) as node, node.bus() as bus:
        await eventually_true(node.is_ready, "the node is ready")
        publishing = asyncio.create_task(publish_for_ever(bus, receipts))
        while len(receipts) < 20:
            await asyncio.sleep(0.05)

        fill_disk(node, room_bytes=1_024)

        async def says_why() -> bool:
            found = await reasons(node)
            return "cannot store" in found.get("bus storage", "") and "File too large" in found.get("bus server", "")

        await eventually_true(says_why, "readiness is withdrawn", timeout_s=UNREADY_S_MAX)
        full_at = len(receipts)
        server = node.nats_server

        fill_disk(node)
        await eventually_true(node.is_ready, "the node is ready again", timeout_s=READY_S_MAX)
        assert node.nats_server.pid != server.pid, "the server that could not write was not replaced"

        async def flows() -> bool:
            return len(receipts) > full_at + 20

        await eventually_true(flows, "samples are confirmed again")
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)

        async def stored() -> bool:
            return set(await values(node, "pushed", "value")) >= set(receipts)

        await eventually_true(stored, "what was confirmed is stored")
        found = await values(node, "pushed", "value")
        # The one that was on its way when the test ended may be stored without its receipt.
        assert found[: len(receipts)] == receipts
        assert len(found) <= len(receipts) + 1
        assert await node.stop() == 0
        assert node.untidy_lines() == []
        numbers = await values(node, "counted", "number")
        assert numbers == list(range(1, len(numbers) + 1)), "a sample was lost or doubled"
        assert str(len(numbers)) == (tmp_path / "counted.samples").read_text(), "a sample taken is not in the store"


@pytest.mark.slow
async def test_a_full_disk_of_the_store_alone_withdraws_readiness_and_the_stream_keeps_what_waits(
    tmp_path: Path,
) -> None:
    receipts: list[float] = []
    async with a_node(tmp_path) as node, node.bus() as bus:
        await eventually_true(node.is_ready, "the node is ready")
        publishing = asyncio.create_task(publish_for_ever(bus, receipts))
        while len(receipts) < 20:
            await asyncio.sleep(0.05)
        server = node.nats_server
        fill_disk(node, room_bytes=1_024, of_bus=False)

        async def says_why() -> bool:
            return "store" in await reasons(node)

        await eventually_true(says_why, "readiness is withdrawn", timeout_s=UNREADY_S_MAX)
        full_at = len(receipts)

        async def still_confirms() -> bool:
            return len(receipts) > full_at + 20

        await eventually_true(still_confirms, "the bus takes samples all the same")
        fill_disk(node)
        await eventually_true(node.is_ready, "the node is ready again", timeout_s=READY_S_MAX)
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)

        async def stored() -> bool:
            return set(await values(node, "pushed", "value")) >= set(receipts)

        await eventually_true(stored, "what was confirmed is stored")
        assert (await values(node, "pushed", "value"))[: len(receipts)] == receipts
        assert node.nats_server.pid == server.pid, "the server that could write was replaced"
        assert await node.stop() == 0
        assert node.untidy_lines() == []
