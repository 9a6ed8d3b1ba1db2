"""The command line in a terminal: colours only there, closed pipes, a resized window, Ctrl-C once and twice."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.commands import ROOT, UNTIDY, Polaris

PATIENCE_S = 40.0
CTRL_C = b"\x03"
COLOUR = re.compile(r"\x1b\[\d+m")


class Terminal:
    """`polaris ...` with a terminal of its own for input and output; what it shows is gathered."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        self._ours, theirs = pty.openpty()
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("POLARIS_", "NO_COLOR"))}
        path = f"{ROOT}{os.pathsep}{ROOT / 'src'}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "polaris", *arguments],
            cwd=folder,
            env={**inherited, "PYTHONPATH": path, "TERM": "xterm", **variables},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self.shown = ""

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def read(self, until: str | None = None) -> str:
        """What is shown so far, when `until` is in it; without it, all until the command has ended."""
        deadline_s = time.monotonic() + PATIENCE_S
        while until is None or until not in self.shown:
            assert time.monotonic() < deadline_s, f"waited in vain for {until!r}: {self.shown!r}"
            if not select.select([self._ours], [], [], 0.2)[0]:
                continue
            try:
                piece = os.read(self._ours, 65_536)
            except OSError:  # Linux says so when the other side is closed
                piece = b""
            if not piece:
                assert until is None, f"ended before {until!r}: {self.shown!r}"
                break
            self.shown += piece.decode(errors="replace")
        return self.shown

    def ended(self) -> int:
        self.read()
        assert not [mark for mark in UNTIDY if mark in self.shown], self.shown
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE_S)
        os.close(self._ours)


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def opened(terminals: list[Terminal], folder: Path, *arguments: str, **variables: str) -> Terminal:
    terminals.append(Terminal(folder, *arguments, **variables))
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


def test_work_that_lasts_shows_what_it_does_and_leaves_nothing_of_it(terminals: list[Terminal], tmp_path: Path) -> None:
    terminal = opened(terminals, tmp_path, "bench", "--seconds", "4")
    terminal.read("\r\x1b[Kbus: ")
    terminal.resize(40)
    assert terminal.ended() == 0
    table = terminal.shown.rpartition("\r\x1b[K")[2]
    assert b"..." not in table.encode()
    assert len(re.findall(r"(?m)^(?:bus|store): .*/s  ", table)) == 5
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
