"""`polaris store servers|move|moves`: systems over several PostgreSQL servers, as the page on them says."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped] # it ships no types
import pytest
from tests.commands import ROOT, Polaris
from tests.postgres_servers import PostgresServer

from polaris.domain import AdaptationAction, MetricValue, SystemState
from polaris.runtime import load_settings, open_routed_store
from polaris.storage import PolarisDataStore, RoutedDataStore, RoutedUnitOfWork, TimeRange

pytestmark = pytest.mark.xdist_group("cli")

PAGE = ROOT / "docs" / "how-to" / "several-servers.md"
T0 = datetime(2030, 1, 1, tzinfo=UTC)
MANY = 40_000
_numbers = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(15) as running:
        yield running


@pytest.fixture
def dsns(server: PostgresServer) -> dict[str, str]:
    """Two databases that stand for two servers."""
    number = next(_numbers)
    names = {name: f"{name}_{number}" for name in ("north", "south")}

    async def make() -> None:
        connection = await asyncpg.connect(server.dsn)
        try:
            for name in names.values():
                await connection.execute(f"CREATE DATABASE {name}")
        finally:
            await connection.close()

    asyncio.run(make())
    return {name: server.dsn.rsplit("/", 1)[0] + f"/{database}" for name, database in names.items()}


@pytest.fixture
def polaris(tmp_path: Path, dsns: dict[str, str]) -> Polaris:
    """In a folder with the configuration of the page, with addresses that are there."""
    (toml,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for name, dsn in dsns.items():
        toml, replaced = re.subn(rf"postgresql://polaris@db-{name}/polaris", dsn, toml)
        assert replaced == 1
    (tmp_path / "polaris.toml").write_text(toml)
    return Polaris(tmp_path)


def in_store(polaris: Polaris, body: Callable[[RoutedDataStore], Awaitable[Any]]) -> Any:
    """What `body` gives, run in the routed store of the settings."""

    async def run() -> Any:
        settings = load_settings(polaris.folder / "polaris.toml", environment={})
        async with open_routed_store(settings) as routed:
            return await body(routed)

    return asyncio.run(run())


def states(first: int, last: int) -> list[SystemState]:
    return [
        SystemState("web", T0 + timedelta(seconds=n), {"load": MetricValue("load", float(n))})
        for n in range(first, last)
    ]


async def fill(routed: RoutedDataStore) -> None:
    await routed.save_many(states(0, 50))
    await routed.save_current_state(SystemState("db", T0, {}))

    async def act(work: RoutedUnitOfWork) -> None:
        await work.actions.save(AdaptationAction("a-1", "scale", "web"))

    await routed.in_unit_of_work("web", act)


async def fill_with_many(routed: RoutedDataStore) -> str:
    """So much that a move takes a while; gives the server that has it."""
    for first in range(0, MANY, 20_000):
        await routed.save_many(states(first, first + 20_000))
    return await routed.store_of("web")


def other(server: str) -> str:
    return "south" if server == "north" else "north"


def place(polaris: Polaris) -> str:
    return str(in_store(polaris, lambda routed: routed.store_of("web")))


def test_the_commands_of_the_page_do_what_it_says(polaris: Polaris) -> None:
    (console,) = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    commands = [line.removeprefix("$ polaris ").split() for line in console.splitlines()]
    assert [command[1] for command in commands] == ["servers", "servers", "move", "moves"]
    adopted = polaris(*commands[0])
    assert (adopted.code, adopted.complaint) == (0, "")
    in_store(polaris, fill)
    shown = polaris(*commands[1], "--json").json["servers"]
    assert {one["server"]: (one["status"], one["weight"], one["shared"]) for one in shown} == {
        "north": ("healthy", 1, True),
        "south": ("healthy", 2, False),
    }
    assert sum(one["systems"] for one in shown) == 2
    if place(polaris) == "south":
        moved_away = polaris("store", "move", "web", "--to", "north", "--json").json
        assert moved_away == {"system_id": "web", "from": "south", "to": "north", "moved": True}
    moved = polaris(*commands[2])
    assert (moved.code, moved.output, moved.complaint) == (0, "web: moved from north to south\n", "")
    again = polaris(*commands[2])
    assert (again.code, again.output) == (0, "web: is at south already\n")
    nothing = polaris(*commands[3])
    assert (nothing.code, nothing.output) == (0, "no move is under way\n")
    assert place(polaris) == "south"
    assert in_store(polaris, lambda routed: routed.get_state_history("web", TimeRange.all())) == states(0, 50)
    actions = in_store(polaris, lambda routed: routed.read("web", lambda store: store.actions.find_by_system("web")))
    assert [action.action_id for action in actions] == ["a-1"]


def test_wrong_questions_get_the_exit_code_that_is_documented(polaris: Polaris, tmp_path: Path) -> None:
    assert polaris("store", "servers", "--adopt").code == 0
    in_store(polaris, fill)
    elsewhere = polaris("store", "move", "web", "--to", "west")
    assert elsewhere.code == 2
    assert "north, south" in elsewhere.complaint
    nobody = polaris("store", "move", "nobody", "--to", "north")
    assert (nobody.code, nobody.output) == (4, "")
    assert "no server has a system 'nobody'" in nobody.complaint
    assert polaris("store", "moves", "--abandon", "web").code == 1
    assert polaris("store", "moves", "--abandon", "web", "--resume").code == 2
    bare = Polaris(tmp_path / "bare")
    bare.folder.mkdir()
    for verb in (["servers"], ["move", "web", "--to", "north"], ["moves"]):
        ended = bare("store", *verb)
        assert ended.code == 78
        assert "store.routing.servers" in ended.complaint
    for of_one in (["run"], ["store", "stats"], ["store", "verify"]):
        refused = polaris(*of_one)
        assert refused.code == 78
        assert "a node keeps its store on one server" in refused.complaint


def test_a_server_that_is_away_is_told_of(polaris: Polaris) -> None:
    assert polaris("store", "servers", "--adopt").code == 0
    in_store(polaris, fill)
    config = polaris.folder / "polaris.toml"
    nowhere = re.sub(r'(north\]\ndsn = )".*"', r'\1"postgresql://nobody@127.0.0.1:1/none"', config.read_text())
    config.write_text(nowhere)
    shown = polaris("store", "servers", "--json")
    assert shown.code == 69
    found = {one["server"]: one for one in shown.json["servers"]}
    assert found["north"]["systems"] is None
    assert found["south"]["systems"] is not None
    assert polaris("store", "servers", "--adopt").code == 69
    assert polaris("store", "move", "web", "--to", "north").code == 69


def test_a_move_that_is_broken_off_is_shown_and_finished(polaris: Polaris, dsns: dict[str, str]) -> None:
    assert polaris("store", "servers", "--adopt").code == 0
    source = in_store(polaris, fill_with_many)
    target = other(source)
    process = polaris.start("store", "move", "web", "--to", target)

    async def has_begun() -> None:
        async with PolarisDataStore.postgresql(dsns[target], read_only=True) as store:
            while not await store.time_series.latest("system_states"):
                assert process.poll() is None, process.communicate()
                await asyncio.sleep(0.02)

    asyncio.run(has_begun())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    listed = polaris("store", "moves", "--json").json["moves"]
    assert [(one["system_id"], one["from"], one["to"]) for one in listed] == [("web", source, target)]
    assert polaris("store", "moves").rows[1][:3] == ["web", source, target]
    assert place(polaris) == source
    resumed = polaris("store", "moves", "--resume")
    assert (resumed.code, resumed.output) == (0, "web: moved\n")
    assert place(polaris) == target
    assert in_store(polaris, lambda routed: routed.get_state_history("web", TimeRange.all())) == states(0, MANY)


def test_on_a_terminal_a_move_says_what_it_does(polaris: Polaris) -> None:
    assert polaris("store", "servers", "--adopt").code == 0
    target = other(in_store(polaris, fill_with_many))
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "polaris", "store", "move", "web", "--to", target],
        cwd=polaris.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said, deadline_s = b"", time.monotonic() + 60
    while time.monotonic() < deadline_s:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                said += os.read(terminal, 4096)
            except OSError:
                break  # its end is closed
    os.close(terminal)
    assert process.wait(10) == 0
    assert f"copying web to {target}" in said.decode()
