"""The machine's own readings: processors, memory, disks, network. Blocking; runs in a thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import psutil

from polaris.clock import Clock
from polaris.connectors._readings import CounterRates, Readings

T = TypeVar("T")

LOOPBACKS = frozenset({"lo", "lo0"})


class Machine:
    """Reads the machine and remembers the counters of the last reading. One thread at a time."""

    def __init__(self, filesystems: Sequence[str], clock: Clock) -> None:
        self._filesystems = filesystems
        self._clock = clock
        self._rates = CounterRates()
        self._cpu_before: tuple[float, float] | None = None

    def read_into(self, readings: Readings) -> None:
        """Add everything; what the platform does not tell is missing."""
        self._read_processors(readings)
        self._read_memory(readings)
        for path in self._filesystems:
            self._read_filesystem(path, readings)
        self._read_rates(readings)
        boot_time_s = told(psutil.boot_time)
        readings.add("system.process.count", told(lambda: len(psutil.pids())), "{process}")
        readings.add("system.boot_time", boot_time_s, "s")
        uptime_s = None if boot_time_s is None else self._clock.now().timestamp() - boot_time_s
        readings.add("system.uptime", uptime_s, "s")

    def _read_processors(self, readings: Readings) -> None:
        readings.add("system.cpu.utilization", self._cpu_utilization(), "1")
        readings.add("system.cpu.logical.count", told(psutil.cpu_count), "{cpu}")
        loads = told(os.getloadavg) or (None, None, None)
        for minutes, load in zip(("1m", "5m", "15m"), loads, strict=True):
            readings.add(f"system.cpu.load_average.{minutes}", load, "{thread}")

    def _cpu_utilization(self) -> float | None:
        """The busy share of processor time since the last reading.

        Not `psutil.cpu_percent`, whose memory is shared by the whole process and whose first answer is 0. Guest time
        is contained in user time (Linux proc(5)); waiting for a disk counts as idle.
        """
        times = told(psutil.cpu_times)
        if times is None:
            self._cpu_before = None
            return None
        total_s: float = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        idle_s: float = times.idle + getattr(times, "iowait", 0.0)
        before, self._cpu_before = self._cpu_before, (total_s, idle_s)
        if before is None or total_s <= before[0]:
            return None
        # Single fields may step back by a tick on Linux, so the share is kept within its range.
        return min(1.0, max(0.0, 1.0 - (idle_s - before[1]) / (total_s - before[0])))

    def _read_memory(self, readings: Readings) -> None:
        memory = told(psutil.virtual_memory)
        readings.add("system.memory.usage", memory and memory.used, "By")
        readings.add("system.memory.available", memory and memory.available, "By")
        readings.add("system.memory.limit", memory and memory.total, "By")
        readings.add("system.memory.utilization", memory and share(memory.total - memory.available, memory.total), "1")
        swap = told(psutil.swap_memory)
        readings.add("system.paging.usage", swap and swap.used, "By")
        readings.add("system.paging.limit", swap and swap.total, "By")
        readings.add("system.paging.utilization", swap and share(swap.used, swap.total), "1")

    def _read_filesystem(self, path: str, readings: Readings) -> None:
        usage = told(lambda: psutil.disk_usage(path))
        for part, value, unit in (
            ("usage", usage and usage.used, "By"),
            ("limit", usage and usage.total, "By"),
            ("utilization", usage and share(usage.used, usage.used + usage.free), "1"),
        ):
            readings.add_of(f"system.filesystem.{part}", "mountpoint", path, value, unit)

    def _read_rates(self, readings: Readings) -> None:
        disk = told(lambda: psutil.disk_io_counters(nowrap=False))
        interfaces = told(lambda: psutil.net_io_counters(pernic=True, nowrap=False)) or {}
        network = [counters for name, counters in interfaces.items() if name not in LOOPBACKS]

        def total(*fields: str) -> float | None:
            return sum(getattr(counters, field) for counters in network for field in fields) if network else None

        units = {
            "system.disk.io.read.rate": "By/s",
            "system.disk.io.write.rate": "By/s",
            "system.disk.operations.read.rate": "{operation}/s",
            "system.disk.operations.write.rate": "{operation}/s",
            "system.network.io.receive.rate": "By/s",
            "system.network.io.transmit.rate": "By/s",
            "system.network.errors.rate": "{packet}/s",
            "system.network.dropped.rate": "{packet}/s",
        }
        counters = (
            disk and disk.read_bytes,
            disk and disk.write_bytes,
            disk and disk.read_count,
            disk and disk.write_count,
            total("bytes_recv"),
            total("bytes_sent"),
            total("errin", "errout"),
            total("dropin", "dropout"),
        )
        rates = self._rates.rates(self._clock.monotonic(), dict(zip(units, counters, strict=True)))
        for name, unit in units.items():
            readings.add(name, rates[name], unit)


def told(ask: Callable[[], T]) -> T | None:
    """What the operating system answers, or None when it does not (absent, forbidden or unknown to this platform)."""
    try:
        return ask()
    except (OSError, RuntimeError, AttributeError, psutil.Error):
        return None


def share(part: float, whole: float) -> float | None:
    """`part` of `whole`, from 0 to 1; None when there is no whole."""
    return min(1.0, max(0.0, part / whole)) if whole > 0 else None
