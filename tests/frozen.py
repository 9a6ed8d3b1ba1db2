"""Processes that stand still: SIGSTOP is asked for at once, and takes effect when each thread next meets the kernel."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

PATIENCE_S = 30.0


def freeze(*pids: int) -> None:
    """SIGSTOP the processes, and wait until their last thread stands: until then they may still answer."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    until_s = time.monotonic() + PATIENCE_S
    while not all(_stands(pid) for pid in pids):
        assert time.monotonic() < until_s, f"process {pids} does not stop"
        time.sleep(0.001)


def thaw(*pids: int) -> None:
    """SIGCONT the processes. Does nothing to one that is not frozen."""
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def _stands(pid: int) -> bool:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return True  # it has ended instead
    return all(_state(task) in "TtZX" for task in tasks)


def _state(task: Path) -> str:
    """The letter of its state, after the name in brackets that may hold anything. "X" for a thread that is gone."""
    try:
        return (task / "stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"
