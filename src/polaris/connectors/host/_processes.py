"""The readings of single processes, found by pid, pidfile or name. Blocking; runs in a thread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

from polaris.clock import Clock
from polaris.connectors._readings import Readings
from polaris.connectors.host._machine import told

PIDFILE_BYTES_MAX = 64


class Processes:
    """Reads the wanted processes and remembers their processor time. One thread at a time."""

    def __init__(self, wanted: Sequence[str], clock: Clock) -> None:
        self._wanted = wanted
        self._clock = clock
        self._cpu_before: dict[tuple[str, psutil.Process], tuple[float, float]] = {}

    def read_into(self, readings: Readings) -> None:
        """Add the readings of every wanted process; a forbidden pidfile makes all of its readings missing."""
        if not self._wanted:
            return
        by_name = _named(want for want in self._wanted if not want.isdigit() and "/" not in want)
        cpu_now: dict[tuple[str, psutil.Process], tuple[float, float]] = {}
        for want in self._wanted:
            found = by_name.get(want) if want in by_name else told(lambda want=want: _by_pid_or_pidfile(want))  # type: ignore[misc]
            self._read(want, found, readings, cpu_now)
        self._cpu_before = cpu_now

    def _read(
        self,
        want: str,
        found: list[psutil.Process] | None,
        readings: Readings,
        cpu_now: dict[tuple[str, psutil.Process], tuple[float, float]],
    ) -> None:
        def add(name: str, value: float | None, unit: str) -> None:
            readings.add_of(f"process.{name}", "process", want, value, unit)

        add("alive", None if found is None else int(bool(found)), "1")
        add("count", None if found is None else len(found), "{process}")
        add("thread.count", _total([told(process.num_threads) for process in found or ()]), "{thread}")
        add("memory.usage", _total([told(lambda p=process: p.memory_info().rss) for process in found or ()]), "By")  # type: ignore[misc]
        add("cpu.utilization", _total([self._cpu(want, process, cpu_now) for process in found or ()]), "1")

    def _cpu(
        self, want: str, process: psutil.Process, cpu_now: dict[tuple[str, psutil.Process], tuple[float, float]]
    ) -> float | None:
        times = told(process.cpu_times)
        if times is None:
            return None
        # The key holds the process's start time too (psutil compares it), so a reused pid has no past.
        key = (want, process)
        cpu_s: float = times.user + times.system
        now = cpu_now[key] = (self._clock.monotonic(), cpu_s)
        before = self._cpu_before.get(key)
        if before is None or now[0] <= before[0]:
            return None
        return max(0.0, (now[1] - before[1]) / (now[0] - before[0]))


def _total(values: list[float | None]) -> float | None:
    """The sum, or None when there is nothing to sum or a part of it is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _named(names: Iterable[str]) -> dict[str, list[psutil.Process]]:
    found: dict[str, list[psutil.Process]] = {name: [] for name in names}
    if found:
        for process in psutil.process_iter(["name", "status"]):
            if process.info["name"] in found and process.info["status"] != psutil.STATUS_ZOMBIE:
                found[process.info["name"]].append(process)
    return found


def _by_pid_or_pidfile(want: str) -> list[psutil.Process]:
    """The process in a list, or nothing when it does not run. Raises what forbids to know."""
    try:
        if want.isdigit():
            pid = int(want)
        else:
            with Path(want).open("rb") as file:
                pid = int(file.read(PIDFILE_BYTES_MAX))
        process = psutil.Process(pid)
        return [] if process.status() == psutil.STATUS_ZOMBIE else [process]
    except (FileNotFoundError, ValueError, OverflowError, psutil.NoSuchProcess):
        return []
