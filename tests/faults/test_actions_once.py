"""The node is killed while it executes actions: none is executed twice, and each gets exactly one result."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.nodes import NodeUnderTest, a_node, confirmed, eventually_true, reached
from tests.witness_connector import Witnessed, read_journal

from polaris.domain import AdaptationAction, AdaptationEvent, ExecutionResult, ExecutionResultEvent, ExecutionStatus
from polaris.messaging import PolarisMessageBus, Start, adaptation_topic

KILLS = 5
ACTIONS_PER_SYSTEM = 60
RECALLING = ("recalling-1", "recalling-2")
FORGETFUL = ("forgetful-1", "forgetful-2")
REPEATED_SHARE = 0.2
"""Of the actions, those that are published again and again, under other event ids."""
OFTEN = 6


def settings(folder: Path) -> Mapping[str, Any]:
    def system(system_id: str, connector: str) -> Mapping[str, Any]:
        options = {"journal": str(journal(folder, system_id)), "before_s": 0.01, "after_s": 0.01}
        return {
            "connector": f"tests.witness_connector:{connector}",
            "interval_s": 60.0,
            "options": options,
        }

    systems = {system_id: system(system_id, "RecallingWitnessConnector") for system_id in RECALLING}
    systems |= {system_id: system(system_id, "WitnessConnector") for system_id in FORGETFUL}
    return {"systems": systems, "logging": {"level": "warning"}}


def journal(folder: Path, system_id: str) -> Path:
    return folder / f"{system_id}.jsonl"


def witnessed(folder: Path, system_id: str) -> dict[str, list[str]]:
    """What the system saw of each action, in order."""
    seen: dict[str, list[str]] = defaultdict(list)
    for line in read_journal(journal(folder, system_id)):
        seen[line.action_id].append(line.event)
    return seen


def all_lines(folder: Path) -> list[Witnessed]:
    return [line for system_id in (*RECALLING, *FORGETFUL) for line in read_journal(journal(folder, system_id))]


def ends(folder: Path) -> int:
    return sum(line.event == "end" for line in all_lines(folder))


async def ask(bus: PolarisMessageBus, action: AdaptationAction) -> None:
    """Ask for the action; every call is an event of its own, so the bus does not recognise a repetition."""
    event = AdaptationEvent(action)
    await confirmed(partial(bus.publish, adaptation_topic(action.target_system), event, timeout_s=3.0))


async def announcements(node: NodeUnderTest, expected: int) -> dict[str, set[tuple[str, ExecutionStatus]]]:
    """By action, the ids and outcomes of the events that announce its result, read from the beginning of time."""
    found: dict[str, set[tuple[str, ExecutionStatus]]] = defaultdict(set)

    async def listen(event: ExecutionResultEvent) -> None:
        found[event.result.action_id].add((event.event_id, event.result.status))

    async with node.bus() as bus:
        await bus.subscribe("polaris.executions.*", listen, start=Start.ALL)
        await reached(found.__len__, expected, "announcements")
        await asyncio.sleep(0.3)
    return found


async def results(node: NodeUnderTest) -> dict[str, list[ExecutionResult]]:
    by_action: dict[str, list[ExecutionResult]] = defaultdict(list)
    async with node.store() as store:
        for result in await store.results.find_all():
            by_action[result.action_id].append(result)
    return by_action


@pytest.mark.slow
async def test_no_action_is_executed_twice_and_each_has_one_result_over_five_kills_of_the_node(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    actions = [
        AdaptationAction(f"{system_id}-{n}", "poke", system_id, {"n": n}, timeout_seconds=30.0)
        for n in range(ACTIONS_PER_SYSTEM)
        for system_id in (*RECALLING, *FORGETFUL)
    ]
    draw = random.Random(3)
    repeated = draw.sample(actions, int(len(actions) * REPEATED_SHARE))
    async with a_node(tmp_path, settings(tmp_path)) as node, node.bus() as bus:
        for action in actions:
            await ask(bus, action)
        for kill in range(1, KILLS + 1):
            await reached(partial(ends, tmp_path), kill * len(actions) // (KILLS + 2), "executions")
            asking = asyncio.create_task(repeat(bus, draw.sample(repeated, len(repeated) // 2)))
            await node.restart_after_kill()
            await asking
        for _ in range(OFTEN):
            await repeat(bus, repeated[:5])

        async def all_have_ended() -> bool:
            return len(await results(node)) >= len(actions)

        await eventually_true(all_have_ended, "every action has a result", timeout_s=60.0)
        announced = await announcements(node, len(actions))
        # One more life: what came in between is known already, and changes nothing.
        before = all_lines(tmp_path)
        assert await node.stop() == 0
        await node.start()
        await repeat(bus, actions[:20])
        status, shown = await node.get(f"api/v1/actions/{actions[0].action_id}")
        assert (status, shown["status"]) == (200, announced_status(announced, actions[0]))
        assert await node.stop() == 0
        assert all_lines(tmp_path) == before
        assert node.untidy_lines() == []
        stored = await results(node)

    assert set(stored) == set(announced) == {action.action_id for action in actions}
    assert {len(found) for found in stored.values()} == {1}
    outcomes: Counter[str] = Counter()
    for action in actions:
        (result,) = stored[action.action_id]
        outcomes[f"{action.target_system[:-2]} {result.status}"] += 1
        assert result.status.is_final
        assert {outcome for _, outcome in announced[action.action_id]} == {result.status}
        assert len(announced[action.action_id]) == 1, "announced by several events"
        seen = witnessed(tmp_path, action.target_system)[action.action_id]
        if action.target_system in RECALLING:
            assert result.status is ExecutionStatus.SUCCESS
            assert seen.count("effect") == 1, seen
            assert seen.count("begin") <= 1 + seen.count("denied"), seen
        elif result.status is ExecutionStatus.UNKNOWN:
            assert seen.count("begin") <= 1, seen
            assert "executed again" in (result.error_message or "")
        else:
            assert result.status is ExecutionStatus.SUCCESS
            assert seen == ["begin", "effect", "end"]
    record_property("outcomes", dict(outcomes))
    # At every kill at most one action a system is under way, and that must have happened at least once.
    assert 0 < outcomes["forgetful unknown"] <= KILLS * len(FORGETFUL), outcomes
    recalled = sum(result.result_data.get("recalled") is True for found in stored.values() for result in found)
    denied = sum(line.event == "denied" for line in all_lines(tmp_path))
    record_property("recalled", recalled)
    assert recalled + denied > 0, "no kill cut a recalling system off"


async def repeat(bus: PolarisMessageBus, actions: list[AdaptationAction]) -> None:
    for action in actions:
        await ask(bus, action)


def announced_status(announced: Mapping[str, set[tuple[str, ExecutionStatus]]], action: AdaptationAction) -> str:
    ((_, status),) = announced[action.action_id]
    return status.value
