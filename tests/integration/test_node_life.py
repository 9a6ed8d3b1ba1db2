"""A node as a program of its own starts and stops it: nothing half started, nothing left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from polaris.exceptions import ConfigurationError
from polaris.runtime import Node, load_settings
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
