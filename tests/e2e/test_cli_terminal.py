"""The command line in a terminal: colours only there, closed pipes, a resized window, Ctrl-C once and twice."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.commands import ROOT, Polaris
from tests.terminals import CTRL_C, PATIENCE_S, POLARIS, Terminal

from polaris.storage import PolarisDataStore

COLOUR = re.compile(r"\x1b\[\d+m")


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def opened(terminals: list[Terminal], folder: Path, *arguments: str, **variables: str) -> Terminal:
    terminals.append(Terminal(folder, [*POLARIS, *arguments], variables=variables))
    return terminals[-1]


def test_colours_and_the_next_step_are_for_terminals(terminals: list[Terminal], tmp_path: Path) -> None:
    coloured = opened(terminals, tmp_path, "check", "--offline")
    assert coloured.ended() == 0
    assert "\x1b[32mconfiguration is fine\x1b[0m" in coloured.shown
    assert "next: polaris run" in coloured.shown
    plain = opened(terminals, tmp_path, "check", "--offline", NO_COLOR="1")
    assert plain.ended() == 0
    assert COLOUR.search(plain.shown) is None
    assert plain.shown.replace("\r\n", "\n") == COLOUR.sub("", coloured.shown).replace("\r\n", "\n")
    piped = Polaris(tmp_path)("check", "--offline")
    assert COLOUR.search(piped.output) is None
    assert "next:" not in piped.output
    assert plain.shown.replace("\r\n", "\n") == f"{piped.output}next: polaris run\n"


def test_the_next_step_can_be_copied_whatever_a_file_is_called(terminals: list[Terminal], tmp_path: Path) -> None:
    async def make() -> None:
        (tmp_path / "polaris-data").mkdir()
        async with PolarisDataStore.sqlite(tmp_path / "polaris-data" / "polaris.db"):
            pass

    asyncio.run(make())
    backup = opened(terminals, tmp_path, "store", "backup", "my backup.db")
    assert backup.ended() == 0
    assert "next: polaris store restore 'my backup.db'" in backup.shown


def test_work_that_lasts_shows_what_it_does_and_leaves_nothing_of_it(terminals: list[Terminal], tmp_path: Path) -> None:
    terminal = opened(terminals, tmp_path, "bench", "--seconds", "4")
    terminal.resize(100)
    terminal.read("\r\x1b[K")
    terminal.resize(60)
    assert terminal.ended() == 0
    table = COLOUR.sub("", terminal.shown.rpartition("\r\x1b[K")[2]).replace("\r\n", "\n")
    assert "..." not in table
    assert len(re.findall(r"(?m)^(?:bus|store): .*/s  ", table)) == 5
    assert [line for line in table.splitlines() if len(line) > 60] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == []


def test_ctrl_c_during_work_ends_it_and_removes_what_it_had_made(terminals: list[Terminal], tmp_path: Path) -> None:
    terminal = opened(terminals, tmp_path, "bench", "--seconds", "60")
    terminal.read("\r\x1b[Kbus: ")
    terminal.press(CTRL_C)
    assert terminal.ended() == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == []


def test_ctrl_c_stops_a_node_in_order(terminals: list[Terminal], tmp_path: Path) -> None:
    terminal = opened(terminals, tmp_path, "run", "--port", "0")
    terminal.read("Ctrl-C stops it.")
    terminal.resize(30)
    terminal.press(CTRL_C)
    assert terminal.ended() == 0
    assert "stopping, at most" in terminal.shown
    assert terminal.shown.rstrip().endswith("stopped")


def test_a_second_ctrl_c_leaves_at_once(terminals: list[Terminal], tmp_path: Path) -> None:
    (tmp_path / "polaris.toml").write_text(
        "[node]\nshutdown_grace_s = 60\n[systems.slow]\n"
        'connector = "tests.witness_connector:WitnessConnector"\n'
        'options = { journal = "slow.jsonl", before_s = 60.0 }\n'
    )
    node = opened(terminals, tmp_path, "run", "--port", "0")
    node.read("Ctrl-C stops it.")
    assert Polaris(tmp_path)("act", "slow", "poke", "--no-wait").code == 0
    deadline_s = time.monotonic() + PATIENCE_S
    while not (tmp_path / "slow.jsonl").exists() or "begin" not in (tmp_path / "slow.jsonl").read_text():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    node.press(CTRL_C)
    node.read("Ctrl-C again leaves at once")
    begun_s = time.monotonic()
    node.press(CTRL_C)
    assert node.ended() == 130
    assert time.monotonic() - begun_s < 10


def test_a_reader_that_goes_away_ends_the_command_well(tmp_path: Path) -> None:
    command = f"{sys.executable} -m polaris export grafana | head -n 1; echo ${{PIPESTATUS[0]}}"
    path = f"{ROOT}{os.pathsep}{ROOT / 'src'}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.splitlines(), done.stderr) == (["{", "0"], "")
