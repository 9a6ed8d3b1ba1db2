"""The command line as people and scripts use it: real processes, in a folder of the test's own."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.warm_commands import WarmCommands

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 30.0
# What no command may ever say, whatever it was asked.
UNTIDY = ("Traceback", "Warning:", "never awaited", "never retrieved", "Exception ignored", "Task was destroyed")


class Ended:
    """What a command said, and the code that it ended with."""

    def __init__(self, code: int, output: str, complaint: str) -> None:
        self.code = code
        self.output = output
        self.complaint = complaint
        untidy = [mark for mark in UNTIDY if mark in complaint]
        assert not untidy, complaint

    @property
    def json(self) -> Any:
        return json.loads(self.output)

    @property
    def lines(self) -> list[str]:
        return self.output.splitlines()

    @property
    def rows(self) -> list[list[str]]:
        """The lines of a table as their cells, the heading first."""
        return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in self.lines]

    def __repr__(self) -> str:
        return f"Ended({self.code}, {self.output!r}, {self.complaint!r})"


def environment() -> dict[str, str]:
    """That of the tester without variables for POLARIS, and a terminal of 120 columns."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("POLARIS_")}
    return {**inherited, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default", "COLUMNS": "120"}


@functools.cache
def warm_commands() -> WarmCommands:
    return WarmCommands(environment())


class Polaris:
    """`polaris ...` in `folder`, where it finds `polaris.toml` by itself; no variables of the tester's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """The process, its output readable; who starts it waits for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "polaris", *arguments],
            cwd=self.folder,
            env=environment(),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, stdin: str = "") -> Ended:
        """Run it to its end: without loading the command line anew, as that takes longer than most commands."""
        try:
            ended = warm_commands().run(
                arguments, folder=self.folder, environment=environment(), stdin=stdin, patience_s=PATIENCE_S
            )
        except TimeoutError:
            raise AssertionError(f"polaris {arguments!r} does not end") from None
        return Ended(*ended)

    def while_running(self, process: subprocess.Popen[str], again: Callable[[], object]) -> Ended:
        """Do something again and again until the process ends: it may have missed the first."""
        deadline_s = time.monotonic() + PATIENCE_S
        while process.poll() is None and time.monotonic() < deadline_s:
            again()
        return end_of(process)


def end_of(process: subprocess.Popen[str], *, stdin: str | None = None) -> Ended:
    """What the process said when it has ended; it is ended when it takes too long, and the test fails."""
    try:
        output, complaint = process.communicate(stdin, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        output, complaint = process.communicate()
        raise AssertionError(f"{process.args!r} does not end: {output!r} {complaint!r}") from None
    return Ended(process.returncode, output, complaint)
