"""A node as a program of its own starts and stops it: nothing half started, nothing left behind."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path

import psutil
import pytest

from polaris.exceptions import ConfigurationError
from polaris.runtime import Node, _bus_host, load_settings
from polaris.storage import PolarisDataStore


def node_in(folder: Path, **environment: str) -> Node:
    places = {"POLARIS_NODE__DATA_DIR": str(folder), "POLARIS_HTTP__PORT": "0"}
    return Node(load_settings(environment={**places, **environment}))


def left_behind(before: set[int]) -> tuple[int, set[int]]:
    """Tasks beside the running one, and child processes that were not there before."""
    return len(asyncio.all_tasks()) - 1, {child.pid for child in psutil.Process().children()} - before


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


async def test_a_second_start_is_refused_and_the_node_can_still_be_stopped(tmp_path: Path) -> None:
    before, node = children(), node_in(tmp_path / "data", POLARIS_SYSTEMS__THIS_MACHINE__DEPENDS_ON='["power"]')
    await node.start()
    with pytest.raises(ConfigurationError, match="started already"):
        await node.start()
    await node.stop()
    async with PolarisDataStore.sqlite(tmp_path / "data" / "polaris.db", read_only=True) as store:
        assert [one.target_system for one in await store.dependencies.find_all()] == ["power"]
    assert left_behind(before) == (0, set())
    await node.start()
    await node.stop()


async def test_a_start_that_fails_at_its_last_step_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    before, node = children(), node_in(tmp_path / "data")
    obstacle = tmp_path / "data" / "node.json"
    obstacle.mkdir(parents=True)
    with pytest.raises(OSError, match=r"node\.json"):
        await node.start()
    assert left_behind(before) == (0, set())
    obstacle.rmdir()
    await node.start()
    await node.stop()
    assert left_behind(before) == (0, set())


async def test_the_streams_of_a_node_on_a_small_disk_are_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_bus_host, "disk_bytes", lambda _: 1 << 30)
    node = node_in(tmp_path / "data")
    await node.start()
    try:
        address = f"{node.http_url}api/v1/bus/streams"
        text = await asyncio.to_thread(lambda: urllib.request.urlopen(address, timeout=10).read())
    finally:
        await node.stop()
    bytes_max = {stream["name"]: stream["bytes_max"] for stream in json.loads(text)["streams"]}
    assert bytes_max["POLARIS_TELEMETRY"] == 1 << 27
    assert bytes_max["POLARIS_ADAPTATIONS"] == bytes_max["POLARIS_DEAD_LETTER"] == 1 << 25
