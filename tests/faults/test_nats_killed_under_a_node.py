"""The bus server is killed three times under a running node: it comes back, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from tests.gunicorns import runs
from tests.nodes import NodeUnderTest, a_node, confirmed, eventually, eventually_true, reached

from polaris.domain import MetricValue, SystemState, TelemetryEvent
from polaris.messaging import PolarisMessageBus
from polaris.storage import TimeRange

KILLS = 3
PUBLISHERS = 32
SYSTEMS = 10
SAMPLES = 3_000
BEGAN_AT = datetime(2026, 3, 1, tzinfo=UTC)
WARNINGS_MAX = 60
"""Lines of warning or worse over three outages; a log storm has thousands."""
SAMPLED = {
    "counted": {
        "connector": "tests.witness_connector:WitnessConnector",
        "interval_s": 0.05,
    },
    "this-machine": {"connector": "host", "interval_s": 0.2},
}


def samples() -> dict[str, list[SystemState]]:
    per_system = SAMPLES // SYSTEMS
    return {
        f"pushed-{n}": [
            SystemState(
                f"pushed-{n}", BEGAN_AT + timedelta(milliseconds=k), {"value": MetricValue("value", n * 10_000 + k)}
            )
            for k in range(per_system)
        ]
        for n in range(SYSTEMS)
    }


async def history(node: NodeUnderTest, system_id: str) -> list[SystemState]:
    async with node.store() as store:
        return await store.states.get_state_history(system_id, TimeRange.all())


async def polls(node: NodeUnderTest, system_id: str) -> int:
    """How many samples the node has taken of the system."""
    _, text = await node.get("metrics")
    (line,) = [
        line
        for line in text.splitlines()
        if line.startswith("polaris_connector_polls_total")
        and f'system_id="{system_id}"' in line
        and 'status="success"' in line
    ]
    return int(float(line.split()[-1]))


class Readiness:
    """Asks the node, all the time, whether it is ready; `changes` lists the answers without repetitions."""

    def __init__(self, node: NodeUnderTest) -> None:
        self._node = node
        self.changes: list[bool] = []
        self.reasons: set[str] = set()

    def withdrawn(self) -> int:
        return self.changes.count(False)

    async def watch(self) -> None:
        while True:
            status, body = await self._node.get("readyz")
            if not self.changes or self.changes[-1] != (status == 200):
                self.changes.append(status == 200)
            if status == 503:
                self.reasons.update(check["component"] for check in body["checks"] if not check["ok"])
            await asyncio.sleep(0.005)


async def publish_all(bus: PolarisMessageBus, states: list[SystemState], receipts: list[str]) -> None:
    events = iter([TelemetryEvent(state) for state in states])

    async def publisher() -> None:
        for event in events:
            await confirmed(partial(bus.publish_telemetry, event, timeout_s=3.0))
            receipts.append(event.event_id)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(PUBLISHERS):
            tasks.create_task(publisher())


@pytest.mark.slow
async def test_nothing_is_lost_or_doubled_over_three_kills_of_the_bus_server(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    expected = samples()
    systems = {**SAMPLED, "counted": {**SAMPLED["counted"], "options": {"journal": str(tmp_path / "counted.jsonl")}}}
    receipts: list[str] = []
    async with a_node(tmp_path, {"systems": systems}) as node:
        readiness = Readiness(node)
        watching = asyncio.create_task(readiness.watch())
        await eventually(lambda: readiness.changes[-1:] == [True], "the node is ready")
        servers = []
        async with node.bus() as bus:
            shuffled = [state for batch in zip(*expected.values(), strict=True) for state in batch]
            publishing = asyncio.create_task(publish_all(bus, shuffled, receipts))
            for kill in range(1, KILLS + 1):
                await reached(receipts.__len__, kill * SAMPLES // (KILLS + 1), "receipts")
                servers.append(node.nats_server)
                servers[-1].kill()
                await eventually(lambda: not runs(servers[-1]), "the server is dead")
                await reached(readiness.withdrawn, kill, "withdrawals of readiness")
                await eventually(lambda: readiness.changes[-1], "the node is ready again")
            await publishing

        async def everything_is_stored() -> bool:
            async with node.store() as store:
                points = await store.time_series.query_time_series("system_states", TimeRange.all(), fields=["value"])
            return len(points) >= SAMPLES

        await eventually_true(everything_is_stored, "what was confirmed is stored")
        for system_id, states in expected.items():
            assert await history(node, system_id) == states
        assert len({server.pid for server in servers}) == KILLS
        assert readiness.reasons >= {"bus"}
        watching.cancel()

        # What the node itself sampled while its bus was away: the witness numbered its samples.
        async def no_gaps() -> bool:
            numbers = [state.value("number") for state in await history(node, "counted")]
            assert numbers == list(range(1, len(numbers) + 1))
            before, stored, after = (
                await polls(node, "this-machine"),
                len(await history(node, "this-machine")),
                await polls(node, "this-machine"),
            )
            return before == stored == after

        await eventually_true(no_gaps, "every sample of this machine is stored")
        status, body = await node.get("api/v1/components")
        details = {view["name"]: view.get("details", {}) for view in body["components"]}
        assert (status, details["bus server"]["restarts"]) == (200, KILLS)

        warnings = [line for line in node.log_lines() if line["level"] in ("WARNING", "ERROR", "CRITICAL")]
        record_property("warnings", len(warnings))
        assert len(warnings) <= WARNINGS_MAX, [line["message"] for line in warnings]
        assert node.untidy_lines() == []
        assert await node.stop() == 0
        assert node.untidy_lines() == []
        numbers = [state.value("number") for state in await history(node, "counted")]
        assert numbers == list(range(1, len(numbers) + 1))
        assert str(len(numbers)) == (tmp_path / "counted.samples").read_text(), "a sample taken is not in the store"
