"""What a node says of its health is true: each fault is told within fifteen seconds, with what to do; so is its end.

And it is remembered: from when to when, with its reason, over a restart.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.awake import within
from tests.commands import Polaris
from tests.frozen import freeze, thaw
from tests.nodes import NodeUnderTest, a_node, eventually_true

from polaris.domain import AdaptationAction, AdaptationEvent

TOLD_WITHIN_S = 15.0
PUMP = {
    "connector": "tests.witness_connector:MoodyWitnessConnector",
    "interval_s": 0.2,
    "options": {"journal": "pump.jsonl"},
}

Report = dict[str, Any]


def component(report: Report, name: str) -> Report:
    return next(one for one in report["components"] if one["name"] == name)


async def told(node: NodeUnderTest, holds: Callable[[Report], bool], what: str) -> Report:
    """The first report of which it holds, which must come soon."""
    found: Report = {}

    async def asked() -> bool:
        nonlocal found
        status, found = await node.get("api/v1/health")
        return status == 200 and holds(found)

    async with within(TOLD_WITHIN_S):
        await eventually_true(asked, what)
    return found


async def poke(node: NodeUnderTest, name: str) -> None:
    async with node.bus() as bus:
        await bus.publish("polaris.adaptations.pump", AdaptationEvent(AdaptationAction(name, "poke", "pump")))


async def test_each_fault_and_its_end_are_told_with_what_to_do(tmp_path: Path) -> None:
    actions = {"attempts_max": 1, "breaker_failures": 2, "breaker_open_s": 0.5}
    async with a_node(tmp_path, {"systems": {"pump": PUMP}, "actions": actions}) as node:
        await told(node, lambda said: said["ready"] and said["health_status"] == "healthy", "all is well")
        for fault in (a_silent_system, a_system_that_takes_no_orders, a_frozen_bus):
            await fault(node, tmp_path)
            await told(node, lambda said: said["ready"] and said["health_status"] == "healthy", "all is well again")
            assert await node.is_ready()
        before = await remembered(node)
        for faulty in (("connector:pump", "unhealthy"), ("bus", "unhealthy"), (None, "unknown")):
            period = before[faulty][0]
            assert period["since"] < period["until"]
            assert period["message"]
            assert period["remedy"]
            assert not period["cut_off"]
        silence = before[None, "unknown"][0]
        assert silence["system_id"] == "pump"
        node.kill()
        said = await asyncio.to_thread(Polaris(tmp_path), "status", "--history")
        assert said.code == 0
        assert re.search(r"^unhealthy +\S+ \S+Z  for .+ s +connector:pump\n +no sample: ", said.output, re.MULTILINE)
        assert re.search(
            r"^unknown +\S+ \S+Z  for .+ s +system pump\n +no sample for more than 3 s", said.output, re.MULTILINE
        )
        await node.start()
        await told(node, lambda said: said["ready"], "it is ready again")
        after = await remembered(node)
        assert {key: after[key] for key in before} == before


async def remembered(node: NodeUnderTest) -> dict[tuple[str | None, str], list[Report]]:
    """What was not well, by whose it was and how, when nothing of it lasts any more."""
    found: list[Report] = []

    async def over() -> bool:
        nonlocal found
        found = (await node.get("api/v1/health/history"))[1]["periods"]
        return bool(found) and all(one["until"] for one in found)

    async with within(TOLD_WITHIN_S):
        await eventually_true(over, "all of it is over, and stored")
    periods: dict[tuple[str | None, str], list[Report]] = {}
    for one in found:
        periods.setdefault((one["component"], one["status"]), []).append(one)
    return periods


async def a_silent_system(node: NodeUnderTest, folder: Path) -> None:
    """The node is ready all the same: it does its work for all others."""
    (folder / "silent").touch()
    report = await told(
        node, lambda said: component(said, "connector:pump")["status"] == "unhealthy", "silence is told"
    )
    said = component(report, "connector:pump")
    assert "it does not answer" in said["message"]
    assert "check that the managed system runs" in said["remedy"]
    assert (report["ready"], report["health_status"]) == (True, "warning")

    async def stale() -> bool:
        return bool((await node.get("api/v1/systems/pump"))[1]["stale"])

    async with within(TOLD_WITHIN_S):
        await eventually_true(stale, "its last sample is stale")
    (folder / "silent").unlink()


async def a_system_that_takes_no_orders(node: NodeUnderTest, folder: Path) -> None:
    (folder / "refusing").touch()
    for number in range(2):
        await poke(node, f"refused-{number}")
    report = await told(node, lambda said: bool(said["breakers"]), "the breaker is told")
    (breaker,) = report["breakers"]
    assert "pump" in breaker["name"]
    assert breaker["state"] in ("open", "half_open")
    assert breaker["remedy"]
    (folder / "refusing").unlink()
    tries: list[Awaitable[None]] = []

    async def closed() -> bool:
        tries.append(poke(node, f"tried-{len(tries)}"))
        await tries[-1]
        return not (await node.get("api/v1/health"))[1]["breakers"]

    async with within(TOLD_WITHIN_S):
        await eventually_true(closed, "the breaker has closed")


async def a_frozen_bus(node: NodeUnderTest, _: Path) -> None:
    server = node.nats_server.pid
    freeze(server)
    try:
        report = await told(
            node, lambda said: not said["ready"] and component(said, "bus")["status"] == "unhealthy", "it is told"
        )
        assert not await node.is_ready()
        assert component(report, "bus")["remedy"]
    finally:
        thaw(server)
