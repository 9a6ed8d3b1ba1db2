"""Real Prometheus and a real node: sums are exact, systems make no series, exemplars lead to traces."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.nodes import NodeUnderTest, a_node, eventually_true

from polaris.clock import utc_now
from polaris.domain import AdaptationAction, AdaptationEvent, HealthStatus, MetricValue, SystemState, TelemetryEvent
from polaris.messaging import PolarisMessageBus, adaptation_topic
from polaris.observability import trace_of

SYSTEMS = 10_000
ACTIONS = 5
AT_ONCE = 500


class Prometheus:
    """A server of its own that scrapes one node every second."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def ask(self, path: str, **query: str) -> Any:
        address = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(query)}"

        def get() -> Any:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return json.load(answer)["data"]

        return await asyncio.to_thread(get)

    async def number(self, query: str) -> float | None:
        result = (await self.ask("query", query=query))["result"]
        return float(result[0]["value"][1]) if result else None

    async def shows(self, query: str, expected: float) -> None:
        seen: list[float | None] = []

        async def holds() -> bool:
            seen.append(await self.number(query))
            return seen[-1] == expected

        try:
            await eventually_true(holds, query, timeout_s=40)
        except AssertionError as error:
            raise AssertionError(f"{query} is {seen[-1]}, not {expected}") from error


@contextlib.asynccontextmanager
async def prometheus(folder: Path, node: NodeUnderTest) -> AsyncIterator[Prometheus]:
    binary = shutil.which("prometheus")
    assert binary is not None, "prometheus is missing: Debian's package prometheus"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert node.file.http_url is not None
    target = urllib.parse.urlsplit(node.file.http_url).netloc
    scrape = {"job_name": "node", "static_configs": [{"targets": [target]}]}
    settings = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [scrape]}
    (folder / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML
    command = [
        binary,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    found = Prometheus(f"http://127.0.0.1:{port}")

    async def scraped() -> bool:
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        with contextlib.suppress(OSError):
            return await found.number("up") == 1.0
        return False

    try:
        await eventually_true(scraped, "Prometheus scrapes the node", timeout_s=40)
        yield found
    finally:
        process.terminate()
        process.wait(20)


def sample(number: int) -> TelemetryEvent:
    values = {"load": MetricValue("load", 0.5)}
    return TelemetryEvent(SystemState(f"system-{number}", utc_now(), values, HealthStatus.HEALTHY), source="test")


async def push(bus: PolarisMessageBus, numbers: range) -> None:
    for begin in range(numbers.start, numbers.stop, AT_ONCE):
        some = range(begin, min(begin + AT_ONCE, numbers.stop))
        await asyncio.gather(*(bus.publish_telemetry(sample(number), timeout_s=30) for number in some))


@pytest.mark.slow
async def test_sums_are_exact_and_ten_thousand_systems_make_no_series(tmp_path: Path) -> None:
    connector = "tests.witness_connector:WitnessConnector"
    pump = {"connector": connector, "interval_s": 86_400.0, "options": {"journal": str(tmp_path / "pump.jsonl")}}
    async with a_node(tmp_path, {"systems": {"pump": pump}}) as node, prometheus(tmp_path, node) as seen:
        stored = 'polaris_store_writes_total{collection="system_states",status="committed"}'
        handled = 'polaris_messages_total{topic="polaris.telemetry.*",status="processed"}'
        last = AdaptationEvent(AdaptationAction("action-last", "poke", "pump"), source="test")
        async with node.bus() as bus:
            await push(bus, range(10))
            for number in range(ACTIONS - 1):
                action = AdaptationAction(f"action-{number}", "poke", "pump")
                await bus.publish(adaptation_topic("pump"), AdaptationEvent(action, source="test"))
            await bus.publish(adaptation_topic("pump"), last)
            await seen.shows("sum(polaris_adaptations_total)", ACTIONS)
            await seen.shows(f"sum({stored})", 11)  # with the one sample of the pump
            await seen.shows('sum(polaris_messages_total{topic="polaris.executions.*",status="published"})', ACTIONS)
            await asyncio.sleep(6.0)  # what is asked for every five seconds has been asked for
            before = await seen.number('count({job="node"})')
            await push(bus, range(10, SYSTEMS))
            await seen.shows(f"sum({stored})", SYSTEMS + 1)
            await seen.shows(f"sum({handled})", SYSTEMS + 1)
        assert await seen.number('count({job="node"})') == before
        assert await seen.number("sum(polaris_telemetry_sampled_total)") == 1
        assert await seen.number("sum(polaris_metric_series_overflow_total)") in (None, 0)
        assert await seen.number('polaris_adaptations_total{status="failure"}') == 0, "there before the first failure"
        assert await seen.number("sum(polaris_action_seconds_count)") == ACTIONS
        await exemplars_lead_to_the_trace(seen, trace_of(last.event_id).trace_id)
        await promtool_is_content(node)


async def exemplars_lead_to_the_trace(seen: Prometheus, trace_id: str) -> None:
    now = utc_now().timestamp()
    found = await seen.ask(
        "query_exemplars", query="polaris_action_seconds_bucket", start=str(now - 300), end=str(now + 5)
    )
    assert trace_id in {one["labels"]["trace_id"] for series in found for one in series["exemplars"]}


async def promtool_is_content(node: NodeUnderTest) -> None:
    status, text = await node.get("metrics")
    assert status == 200
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
