"""The page on the HTTP API: its commands work beside a node, in the order in which they stand."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from pathlib import Path

from tests.nodes import a_node, eventually_true

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "http-api.md"


async def test_the_commands_on_the_http_api_work_beside_a_node(tmp_path: Path) -> None:
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    assert script.count("curl") == 12
    script = script.replace("polaris-data", "data")
    async with a_node(tmp_path, {"systems": {"host": {"connector": "host", "interval_s": 0.2}}}) as node:

        async def has_samples() -> bool:
            # The first share of the processors is that of nothing.
            status, answer = await node.get("api/v1/systems/host/aggregates?metric=system.cpu.utilization&bucket_s=1")
            return status == 200 and any(value is not None for value in answer["values"])

        await eventually_true(has_samples, "the system has samples")
        echo = script.replace("curl ", "echo; curl ")
        ended = await asyncio.to_thread(
            subprocess.run,
            ["/bin/bash", "-eu", "-c", echo],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        answers = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
        systems, aggregates, document, health, history, configuration, bus, streams, asked, action, letters = answers
        assert [system["system_id"] for system in systems["systems"]] == ["host"]
        values = {setting["key"]: setting["value"] for setting in configuration["settings"]}
        assert values["systems.host.interval_s"] == 0.2
        tapped = [json.loads(line[6:]) for line in ended.stdout.splitlines() if line.startswith("data: ")]
        assert tapped[0] == {"pattern": "polaris.telemetry.*"}
        assert {event["topic"] for event in tapped[1:]} == {"polaris.telemetry.host"}
        assert bus["state"] == "connected"
        (consumer,) = streams["streams"][-1]["consumers"]
        assert (streams["streams"][-1]["name"], consumer["name"]) == ("POLARIS_TELEMETRY", "store-telemetry")
        assert history["next_cursor"] is None
        assert {"bus", "store", "action path"} <= {part["name"] for part in health["components"]}
        assert any(value is not None for value in aggregates["values"])
        assert document["openapi"].startswith("3.1")
        assert (asked["action_id"], asked["status"]) == ("renice-1", "pending")
        assert action.get("action_id") == "renice-1" or action["status"] == 404
        assert letters == {"dead_letters": [], "next_cursor": None}
