"""A program beside a node gets its bus by the data folder; without a node it learns that at once."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

import polaris
from polaris.exceptions import BusConnectionError
from polaris.runtime import DataFolder, NodeFile, bus_of_node
from polaris.runtime._node_bus import broker_of_node


def test_where_no_node_runs_the_next_step_is_told(tmp_path: Path) -> None:
    with pytest.raises(BusConnectionError, match=r"no node runs on .*; start one with: polaris run"):
        bus_of_node(tmp_path / "nowhere")


def test_the_address_and_the_token_are_those_of_the_running_node(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.acquire()
    try:
        started = datetime.now(UTC)
        folder.write_node_file(
            NodeFile(name="n", pid=1, version="1", started_at=started, bus_url="nats://127.0.0.1:1", bus_token="t-1")
        )
        broker = broker_of_node(tmp_path, name="rule")
        assert (broker.config.servers, broker.config.token, broker.config.name) == (
            ("nats://127.0.0.1:1",),
            "t-1",
            "rule",
        )
    finally:
        folder.release()


def test_it_is_one_of_the_names_that_come_first() -> None:
    assert polaris.bus_of_node is bus_of_node
