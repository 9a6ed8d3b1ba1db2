"""Commands in a terminal of their own, of any width: what they show is gathered, keys can be pressed."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

from tests.commands import ROOT, UNTIDY

PATIENCE_S = 40.0
CTRL_C = b"\x03"
POLARIS = (sys.executable, "-m", "polaris")


class Terminal:
    """A command with a terminal for input and output; variables for POLARIS and about colours are only those given."""

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        *,
        columns: int | None = None,
        variables: dict[str, str] | None = None,
    ) -> None:
        self._ours, theirs = pty.openpty()
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("POLARIS_", "NO_COLOR"))}
        inherited.pop("COLUMNS", None)  # it would go over the size of the terminal
        if columns is not None:
            self.resize(columns)
        path = f"{ROOT}{os.pathsep}{ROOT / 'src'}"
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**inherited, "PYTHONPATH": path, "TERM": "xterm", **(variables or {})},
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
        """The code that the command ends with."""
        self.read()
        assert not [mark for mark in UNTIDY if mark in self.shown], self.shown
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE_S)
        os.close(self._ours)
