"""One closed loop is one trace, across processes: the controller here, the node in a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.nodes import NodeUnderTest, a_node, confirmed, eventually_true

from polaris.domain import AdaptationAction, AdaptationEvent, TelemetryEvent
from polaris.messaging import MessageContext, adaptation_topic, telemetry_topic
from polaris.observability import trace_of

CONNECTOR = "tests.witness_connector:WitnessConnector"
LOOP = {
    "collect telemetry",
    "decide",
    "process polaris.adaptations.*",
    "execute action",
    "attempt action",
    "store write",
    "publish polaris.executions.*",
}


def settings(folder: Path, ratio: float, **options: Any) -> dict[str, Any]:
    journal = str(folder / "pump.jsonl")
    pump = {"connector": CONNECTOR, "interval_s": 0.3, "options": {"journal": journal, **options}}
    return {"tracing": {"ratio": ratio}, "systems": {"pump": pump}}


async def close_the_loop(node: NodeUnderTest) -> tuple[TelemetryEvent, MessageContext, str]:
    """A controller: it answers the first sample it sees with an action, and knows nothing of traces."""
    seen: list[tuple[TelemetryEvent, MessageContext]] = []
    action = AdaptationAction("a-1", "poke", "pump")
    done = asyncio.Event()
    async with node.bus() as bus:

        async def decide(event: TelemetryEvent, context: MessageContext) -> None:
            if not seen:
                seen.append((event, context))
                answer = AdaptationEvent(action, source="controller")
                await confirmed(lambda: bus.publish(adaptation_topic("pump"), answer))
                done.set()

        await bus.subscribe(telemetry_topic("pump"), decide)
        async with asyncio.timeout(20):
            await done.wait()
    return *seen[0], action.action_id


async def trace_of_action(node: NodeUnderTest, action_id: str, names: Iterable[str]) -> dict[str, Any]:
    """The trace of the action once all these spans are in it."""
    found: dict[str, Any] = {}

    async def complete() -> bool:
        _, listed = await node.get(f"api/v1/traces?action_id={action_id}")
        if not listed["traces"]:
            return False
        assert len(listed["traces"]) == 1, "one loop, one trace"
        _, whole = await node.get(f"api/v1/traces/{listed['traces'][0]['trace_id']}")
        found.update(whole)
        return set(names) <= {span["name"] for span in (*whole["spans"], *whole["linked"])}

    try:
        await eventually_true(complete, "the trace is whole", timeout_s=15)
    except AssertionError:
        pytest.fail(f"spans: {[span['name'] for span in found.get('spans', [])]}\n{node.stderr()[-2000:]}")
    return found


def path_to_root(trace: dict[str, Any], name: str) -> list[str]:
    by_id = {span["span_id"]: span for span in trace["spans"]}
    span = next(span for span in trace["spans"] if span["name"] == name)
    names = [span["name"]]
    while span.get("parent_id"):
        span = by_id[span["parent_id"]]
        names.append(span["name"])
    return names


async def test_a_loop_that_began_with_an_unrecorded_sample_is_one_trace(tmp_path: Path) -> None:
    async with a_node(tmp_path, settings(tmp_path, 0.0, refuses_first=1)) as node:
        event, context, action_id = await close_the_loop(node)
        assert context.trace is None, "an unrecorded sample carries nothing"
        trace = await trace_of_action(node, action_id, LOOP)
        assert trace["trace_id"] == trace_of(event.event_id).trace_id
        assert path_to_root(trace, "attempt action") == [
            "attempt action",
            "execute action",
            "process polaris.adaptations.*",
            "decide",
            "collect telemetry",
        ]
        assert path_to_root(trace, "publish polaris.executions.*")[-3:] == [
            "process polaris.adaptations.*",
            "decide",
            "collect telemetry",
        ]
        attempts = [span for span in trace["spans"] if span["name"] == "attempt action"]
        assert [span["attributes"]["polaris.action.attempt"] for span in attempts] == [1, 2]
        assert [span.get("status", "ok") for span in attempts] == ["error", "ok"]
        assert [span["attributes"]["polaris.source"] for span in trace["spans"] if span["name"] == "decide"] == [
            "controller"
        ]
        starts = [span["start"] for span in trace["spans"]]
        assert starts == sorted(starts)


async def test_a_recorded_sample_is_followed_through_bus_store_controller_and_action(tmp_path: Path) -> None:
    async with a_node(tmp_path, settings(tmp_path, 1.0)) as node:
        _, context, action_id = await close_the_loop(node)
        assert context.trace is not None
        names = {*LOOP, "publish polaris.telemetry.*", "process polaris.telemetry.*"}
        trace = await trace_of_action(node, action_id, names)
        assert trace["trace_id"] == context.trace.trace_id
        assert path_to_root(trace, "execute action") == [
            "execute action",
            "process polaris.adaptations.*",
            "decide",
            "publish polaris.telemetry.*",
            "collect telemetry",
        ]
        all_spans = (*trace["spans"], *trace["linked"])  # it may have been stored with other samples at once
        writes = [span["attributes"] for span in all_spans if span["name"] == "store write"]
        assert {write["db.collection.name"] for write in writes} == {"system_states", "action_ledger"}


async def test_an_action_of_an_operator_begins_its_own_trace_and_its_log_is_found(tmp_path: Path) -> None:
    async with a_node(tmp_path, settings(tmp_path, 0.0)) as node:
        event = AdaptationEvent(AdaptationAction("by-hand", "poke", "pump"), correlation_id="ticket 4711", source="me")
        async with node.bus() as bus:
            await bus.publish(adaptation_topic("pump"), event)
        trace = await trace_of_action(node, "by-hand", LOOP - {"collect telemetry"})
        assert trace["trace_id"] == trace_of(event.event_id).trace_id
        status, logs = await node.get("api/v1/logs?correlation_id=ticket%204711")
        assert status == 200
        assert {line["message"] for line in logs["logs"]} >= {"action begins", "action ended"}
        assert {line["trace_id"] for line in logs["logs"]} == {trace["trace_id"]}
        status, page = await node.get("api/v1/logs?limit=1")
        assert (status, len(page["logs"])) == (200, 1)
        _, older = await node.get(f"api/v1/logs?limit=1&cursor={page['next_cursor']}")
        assert older["logs"][0]["log_id"] < page["logs"][0]["log_id"]


async def test_what_fails_is_recorded_whatever_the_ratio(tmp_path: Path) -> None:
    nowhere = {"pump": {"connector": CONNECTOR, "options": {"journal": str(tmp_path / "no" / "folder.jsonl")}}}
    async with a_node(tmp_path, {"tracing": {"ratio": 0.0}, "systems": nowhere}) as node:
        found: list[Any] = []

        async def recorded() -> bool:
            _, answer = await node.get("api/v1/traces?status=error&system=pump")
            found[:] = answer["traces"]
            return bool(found)

        await eventually_true(recorded, "the failed sample is recorded")
        _, whole = await node.get(f"api/v1/traces/{found[0]['trace_id']}")
        (span,) = whole["spans"]
        assert (span["name"], span["status"]) == ("collect telemetry", "error")
        assert span["attributes"]["error.type"].startswith("polaris.")
