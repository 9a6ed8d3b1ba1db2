"""A planted secret goes in by every way into a node, and comes out by none."""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path

from tests.commands import Polaris
from tests.nodes import a_node, eventually_true

from polaris.domain import AdaptationAction, AdaptationEvent
from polaris.messaging import DeliveryClass, OutgoingMessage, adaptation_topic, telemetry_topic

NEEDLE = "h4rdToGuess"
CONNECTOR = "tests.witness_connector:WitnessConnector"


async def test_no_way_out_of_a_node_shows_a_planted_secret(tmp_path: Path) -> None:
    log_file = tmp_path / "node.log"
    nowhere = str(tmp_path / "no" / f"password={NEEDLE}" / "folder.jsonl")
    settings = {
        "logging": {"format": "json", "file": str(log_file), "level": "debug"},
        "tracing": {"ratio": 1.0},
        "systems": {
            "pump": {"connector": CONNECTOR, "interval_s": 0.3, "options": {"journal": str(tmp_path / "pump.jsonl")}},
            "broken": {"connector": CONNECTOR, "interval_s": 0.3, "options": {"journal": nowhere}},
        },
    }
    async with a_node(tmp_path, settings) as node:
        action = AdaptationAction("a-1", "poke", "pump", {"password": NEEDLE, "note": f"token={NEEDLE}"})
        asked = AdaptationEvent(action, source=f"urn:client?password={NEEDLE}", correlation_id=f"password={NEEDLE}")
        async with node.bus() as bus:
            await bus.publish(adaptation_topic("pump"), asked)
        broker = node.broker()
        await broker.connect()
        torn = OutgoingMessage(telemetry_topic("pump"), f'{{"password": "{NEEDLE}", torn'.encode())
        await broker.publish(torn, delivery=DeliveryClass.AT_LEAST_ONCE, timeout_s=5.0)
        await broker.disconnect()

        async def everything_is_there() -> bool:
            _, done = await node.get("api/v1/traces?action_id=a-1")
            _, failed = await node.get("api/v1/traces?status=error&system=broken")
            _, logs = await node.get("api/v1/logs?level=warning&limit=1000")
            told = {line["message"] for line in logs["logs"]}
            return bool(done["traces"] and failed["traces"] and "sample could not be taken" in told and len(told) > 1)

        await eventually_true(everything_is_there, "action, failure and dead letter are told of")
        _, page = await node.get("api/v1/traces?limit=500")
        shown = [str(page)]
        for trace in page["traces"]:
            shown.append(str(await node.get(f"api/v1/traces/{trace['trace_id']}")))
        for path in (
            "logs?limit=1000",
            "actions",
            "components",
            "health",
            "health/history",
            "configuration",
            "bus",
            "bus/streams",
            f"systems/password={NEEDLE}",
            "systems?limit=x",
        ):
            shown.append(str(await node.get(f"api/v1/{path}")))
        shown += [str(await node.get("metrics")), await asyncio.to_thread(openmetrics, f"{node.file.http_url}metrics")]
        assert await node.stop() == 0
    history = await asyncio.to_thread(Polaris(tmp_path), "status", "--history")
    assert "connector:broken" in history.output
    shown.append(history.output)
    shown += [node.stderr(), node.stdout(), log_file.read_text()]
    assert "a-1" in "".join(shown)
    assert [text[max(0, text.index(NEEDLE) - 300) :][:400] for text in shown if NEEDLE in text] == []


def openmetrics(url: str) -> str:
    request = urllib.request.Request(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        text: str = answer.read().decode()
    assert text.endswith("# EOF\n")
    return text
