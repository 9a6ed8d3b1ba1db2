"""What each middleware of a node's bus takes is in `/metrics` when it is asked for, a series a middleware."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from pathlib import Path

import pytest

from polaris.clock import utc_now
from polaris.domain import SystemState, TelemetryEvent
from polaris.messaging import PolarisMessageBus
from polaris.runtime import Node, load_settings

SYSTEMS = 20
COUNT = re.compile(
    r'^polaris_operation_duration_seconds_count\{component="middleware",operation="(\w+)"\} (\S+)$', re.MULTILINE
)


async def counts(folder: Path, **environment: str) -> dict[str, float]:
    """How many times each middleware was measured in a node whose bus has carried events of twenty systems."""
    places = {"POLARIS_NODE__DATA_DIR": str(folder), "POLARIS_HTTP__PORT": "0"}
    node = Node(load_settings(environment={**places, **environment}))
    await node.start()
    try:
        assert node.container is not None
        bus = await node.container.aresolve(PolarisMessageBus)
        for number in range(SYSTEMS):
            await bus.publish_telemetry(TelemetryEvent(SystemState(f"system-{number}", utc_now())))
        text = await asyncio.to_thread(lambda: urllib.request.urlopen(f"{node.http_url}metrics").read().decode())
    finally:
        await node.stop()
    return {operation: float(count) for operation, count in COUNT.findall(text)}


@pytest.mark.parametrize("tracing", ["true", "false"])
async def test_each_middleware_has_one_series_however_many_systems_publish(tmp_path: Path, tracing: str) -> None:
    found = await counts(tmp_path, POLARIS_METRICS__MIDDLEWARE_DURATIONS="true", POLARIS_TRACING__ENABLED=tracing)
    usual = {"correlation", "logging", "metrics", "publish_outcomes"}
    assert set(found) == (usual | {"tracing"} if tracing == "true" else usual)
    assert min(found.values()) >= SYSTEMS


async def test_nothing_is_measured_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert await counts(tmp_path) == {}
