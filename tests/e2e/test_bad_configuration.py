"""A node that cannot start says why, one clear line a reason, with the documented exit code, and leaves nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.awake import within
from tests.commands import environment, warm_commands
from tests.nodes import UNTIDY, NodeUnderTest, a_node

MISCONFIGURED = 78
UNAVAILABLE = 69
QUICK_S = 10.0


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def refused(folder: Path, settings: Mapping[str, Any], **variables: str) -> tuple[int, list[str]]:
    """Start a node that must not start; its exit code and what it said on standard error."""
    node = NodeUnderTest(folder, settings)
    return await ended(node, **variables)


async def ended(node: NodeUnderTest, **variables: str) -> tuple[int, list[str]]:
    async with within(QUICK_S):
        code, said, complaint = await asyncio.to_thread(
            warm_commands().run,
            ["run", "--config", str(node.config)],
            folder=node.folder,
            environment={**environment(), **variables},
            stdin="",
            patience_s=2 * QUICK_S,
        )
    lines = complaint.splitlines()
    assert [mark for mark in UNTIDY if mark in complaint] == [], lines
    assert said == ""
    assert node.data.running_node() is None
    assert servers_on(node.folder) == []
    return code, [line for line in lines if not line.startswith("{")]


def servers_on(folder: Path) -> list[int]:
    """Bus servers whose configuration is in the folder."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        if "nats-server" in (process.info["name"] or "") and str(folder) in " ".join(process.info["cmdline"] or ()):
            found.append(process.pid)
    return found


async def starts_afterwards(folder: Path) -> None:
    """Nothing is in the way of a node that is configured well."""
    async with a_node(folder) as node:
        assert await node.is_ready()
        assert await node.stop() == 0


async def test_all_mistakes_come_in_one_report(tmp_path: Path) -> None:
    settings = {
        "node": {"nmae": "x", "shutdown_grace_s": "long"},
        "http": {"port": 99_999, "host": 7},
        "nats": {"prot": 4222, "token": 5},
        "systems": {"web": {"connector": "host", "interval_s": -1}, "db": {"interval_s": 1}},
        "weird": {"x": 1},
    }
    code, lines = await refused(tmp_path, settings, POLARIS_TELEMETRY__BATCH_MAX="many")
    assert code == MISCONFIGURED
    assert all(line.startswith("polaris: ") for line in lines)
    for key in (
        "node.nmae", "node.shutdown_grace_s", "http.port", "http.host", "nats.prot", "nats.token",
        "systems.web.interval_s", "systems.db.connector", "weird", "telemetry.batch_max",
    ):  # fmt: skip
        (line,) = [line for line in lines if f" {key}" in line]
        assert str(tmp_path / "polaris.toml") in line or "POLARIS_TELEMETRY__BATCH_MAX" in line
    assert len(lines) == 10
    assert "did you mean node.name?" in "".join(lines)
    assert not (tmp_path / "data").exists(), "nothing is made for a configuration that is refused"


@pytest.mark.parametrize(
    ("systems", "said"),
    [
        ({"web": {"connector": "hots"}}, "did you mean 'host'?"),
        ({"web": {"connector": "no.such:Thing"}}, "cannot be loaded"),
        ({"web": {"connector": "host", "options": {"proceses": []}}}, "proceses"),
        ({"web": {"connector": "gunicorn"}}, "pidfile"),
    ],
)
async def test_a_connector_that_cannot_be_made_is_named(tmp_path: Path, systems: Mapping[str, Any], said: str) -> None:
    code, lines = await refused(tmp_path, {"systems": systems})
    assert code == MISCONFIGURED
    assert len(lines) == 1
    assert "polaris.toml:11: systems.web" in lines[0]
    assert said in lines[0]
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("text", ["[node", "a = b", "\x00", "[node]\nname = 'x'\nname = 'y'\n"])
async def test_a_file_that_is_no_toml_is_named(tmp_path: Path, text: str) -> None:
    node = NodeUnderTest(tmp_path, {})
    node.config.write_text(text)
    code, (line,) = await ended(node)
    assert (code, line.startswith(f"polaris: {node.config}: not valid TOML")) == (MISCONFIGURED, True), line


async def test_servers_that_do_not_answer_are_unavailable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = f"nats://127.0.0.1:{listener.getsockname()[1]}"
    settings = {"nats": {"servers": [closed], "connect_timeout_s": 1.0}}
    code, (line,) = await refused(tmp_path, settings)
    assert (code, closed in line) == (UNAVAILABLE, True), line
    await starts_afterwards(tmp_path)


async def test_a_server_that_says_nothing_is_unavailable(tmp_path: Path, taken_port: int) -> None:
    settings = {"nats": {"servers": [f"nats://user:hunter2@127.0.0.1:{taken_port}"], "connect_timeout_s": 1.0}}
    code, (line,) = await refused(tmp_path, settings)
    assert (code, f"127.0.0.1:{taken_port}" in line) == (UNAVAILABLE, True), line
    assert "hunter2" not in line


@pytest.mark.parametrize("section", ["http", "nats"])
async def test_a_port_in_use_is_named(tmp_path: Path, section: str, taken_port: int) -> None:
    code, (line,) = await refused(tmp_path, {section: {"port": taken_port}})
    assert code == MISCONFIGURED
    assert line.startswith(f"polaris: {section}.port")
    assert str(taken_port) in line
    assert "in use" in line
    await starts_afterwards(tmp_path)


async def test_nothing_is_sampled_before_the_page_can_open(tmp_path: Path, taken_port: int) -> None:
    witness = {"connector": "tests.witness_connector:WitnessConnector", "options": {"journal": str(tmp_path / "w")}}
    code, _ = await refused(tmp_path, {"http": {"port": taken_port}, "systems": {"pump": witness}})
    assert code == MISCONFIGURED
    assert not (tmp_path / "w.samples").exists()


async def test_a_data_folder_of_another_node_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    async with a_node(tmp_path) as first:
        second = NodeUnderTest(tmp_path / "second", {"node": {"data_dir": str(first.data.path)}})
        second.launch()
        assert await second.ended(QUICK_S) == MISCONFIGURED
        (line,) = second.stderr().splitlines()
        assert line.startswith("polaris: ")
        assert "'under-test'" in line
        assert f"pid {first.process.pid}" in line
        running = first.data.running_node()
        assert running is not None
        assert running.pid == first.process.pid
        assert await first.is_ready()
        assert await first.stop() == 0
        await second.close()


async def test_a_store_of_another_node_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    async with a_node(tmp_path) as first:
        shared = {"store": {"path": str(first.data.path / "polaris.db")}}
        code, (line,) = await refused(tmp_path / "second", shared)
        assert code == MISCONFIGURED
        assert str(first.process.pid) in line
        assert await first.is_ready()
        assert await first.stop() == 0


@pytest.mark.parametrize("what", ["a file", "under a file", "no folder"])
async def test_a_data_folder_that_cannot_be_used_is_named(tmp_path: Path, what: str) -> None:
    target = tmp_path / "there"
    target.write_text("no folder")
    chosen = {"a file": target, "under a file": target / "data", "no folder": Path("/dev/null/data")}[what]
    code, (line,) = await refused(tmp_path, {"node": {"data_dir": str(chosen)}})
    assert code == MISCONFIGURED
    assert line.startswith(f"polaris: node.data_dir = '{chosen}'")
    assert target.read_text() == "no folder"


async def test_a_store_that_is_no_store_is_named_and_kept(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "polaris.db").write_bytes(b"this is no database, but somebody may want it" * 100)
    code, (line,) = await refused(tmp_path, {})
    assert code in (1, MISCONFIGURED)
    assert "not a store" in line
    assert (tmp_path / "data" / "polaris.db").read_bytes().startswith(b"this is no database")


async def test_no_bus_server_to_start_is_said(tmp_path: Path) -> None:
    code, (line,) = await refused(tmp_path, {}, POLARIS_NATS_SERVER=str(tmp_path / "missing"))
    assert (code, "missing" in line) == (MISCONFIGURED, True), line
