"""`polaris bench`: what this machine can do, measured for a few seconds through the same interfaces that users have.

A bus server and a store of its own are started in a folder of their own, on the disk that is asked about, and removed.
Figures are of one process that publishes, handles and writes at once; they are for comparing machines and disks.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from polaris.cli import _exit
from polaris.cli._output import print_json, print_table
from polaris.cli._waiting import Doing
from polaris.domain import MetricValue, SystemState, TelemetryEvent
from polaris.exceptions import InvalidValueError

if TYPE_CHECKING:
    from polaris.messaging import PolarisMessageBus
    from polaris.storage import PolarisDataStore

SECONDS_MIN, SECONDS_MAX = 1.0, 300.0
OVERHEAD_S_MAX = 20.0
"""What starting and stopping may take on top."""
IN_FLIGHT = 64
METRICS = 5
BATCH = 500
WRITERS = 64
READS_MAX = 2_000
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)

Step = Callable[[], Awaitable[int]]


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One figure. Rates are a second; `p50_ms` and `p99_ms` are of one step (a publish, a batch, a read)."""

    name: str
    count: int
    seconds: float
    per_s: float
    p50_ms: float
    p99_ms: float


def bench(folder: Path, seconds: float, *, as_json: bool) -> int:
    """Measure for about `seconds` in all and print the figures. Raises `InvalidValueError` for what cannot be done."""
    if not SECONDS_MIN <= seconds <= SECONDS_MAX:
        raise InvalidValueError("--seconds", f"{SECONDS_MIN:g} to {SECONDS_MAX:g}", seconds)
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".polaris-bench-", dir=folder))
    except OSError as error:
        raise InvalidValueError("--folder", f"a folder that can be written ({folder}: {error.strerror})", "") from error
    doing = Doing("starting a bus and a store")
    try:
        figures = doing.run(_measure(scratch, seconds / 5, doing))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if as_json:
        print_json({"seconds": seconds, "metrics_per_event": METRICS, "figures": msgspec.to_builtins(figures)})
        return _exit.OK
    rows = [
        (one.name, f"{one.per_s:,.0f}/s", f"{one.p50_ms:.3g} ms", f"{one.p99_ms:.3g} ms", f"{one.count:,}")
        for one in figures
    ]
    print_table(("WHAT", "RATE", "P50", "P99", "COUNT"), rows)
    return _exit.OK


async def _measure(scratch: Path, limit_s: float, doing: Doing) -> list[Measured]:
    async with asyncio.timeout(limit_s * 5 + OVERHEAD_S_MAX):
        return [*await _bus_figures(scratch, limit_s, doing), *await _store_figures(scratch, limit_s, doing)]


async def _bus_figures(scratch: Path, limit_s: float, doing: Doing) -> list[Measured]:
    from polaris.messaging import EmbeddedNATSConfig, EmbeddedNATSServer, NATSConfig, NATSMessageBroker
    from polaris.messaging import PolarisMessageBus as Bus

    server = EmbeddedNATSServer(EmbeddedNATSConfig(data_dir=scratch / "nats"))
    await server.start()
    try:
        bus = Bus(NATSMessageBroker(NATSConfig(servers=(server.url,), token=server.token, name="polaris-bench")))
        await bus.start()
        try:
            doing.text = "bus: telemetry, stored and acknowledged"
            many = await _repeat("bus: stored publish, 64 at once", limit_s, _publishing(bus, IN_FLIGHT))
            doing.text = "bus: one event after the other"
            one = await _repeat("bus: stored publish, one by one", limit_s, _publishing(bus, 1))
        finally:
            await bus.stop()
    finally:
        await server.stop()
    return [many, one]


def _publishing(bus: PolarisMessageBus, at_once: int) -> Step:
    numbers = iter(range(10**12))

    async def step() -> int:
        events = [TelemetryEvent(_state(next(numbers))) for _ in range(at_once)]
        await asyncio.gather(*(bus.publish_telemetry(event) for event in events))
        return at_once

    return step


async def _store_figures(scratch: Path, limit_s: float, doing: Doing) -> list[Measured]:
    from polaris.storage import PolarisDataStore as Store

    async with Store.sqlite(scratch / "polaris.db") as store:
        doing.text = "store: batches"
        batches = await _repeat("store: states, 500 a commit", limit_s, _writing(store))
        doing.text = "store: single writes"
        single = await _repeat("store: states, 64 writers", limit_s, _writing_singly(store))
        doing.text = "store: reads"

        async def read() -> int:
            await store.states.get_current_state("bench-1")
            return 1

        latest = await _repeat("store: latest state, read", limit_s, read, steps_max=READS_MAX)
    return [batches, single, latest]


def _writing(store: PolarisDataStore) -> Step:
    numbers = iter(range(10**12))

    async def step() -> int:
        await store.states.save_many([_state(next(numbers)) for _ in range(BATCH)])
        return BATCH

    return step


def _writing_singly(store: PolarisDataStore) -> Step:
    numbers = iter(range(10**9, 10**12))

    async def step() -> int:
        states = [_state(next(numbers)) for _ in range(WRITERS)]
        await asyncio.gather(*(store.states.save_current_state(state) for state in states))
        return WRITERS

    return step


async def _repeat(name: str, limit_s: float, step: Step, *, steps_max: int = 10**9) -> Measured:
    """Do it until the time is over, once at least; what the first step warms up does not count."""
    await step()
    took: list[float] = []
    count = 0
    begun_s = time.perf_counter()
    while not took or (time.perf_counter() - begun_s < limit_s and len(took) < steps_max):
        before_s = time.perf_counter()
        count += await step()
        took.append(time.perf_counter() - before_s)
    seconds = time.perf_counter() - begun_s
    took.sort()
    return Measured(
        name=name,
        count=count,
        seconds=round(seconds, 3),
        per_s=round(count / seconds, 1),
        p50_ms=round(took[len(took) // 2] * 1000, 4),
        p99_ms=round(took[min(len(took) - 1, len(took) * 99 // 100)] * 1000, 4),
    )


def _state(number: int) -> SystemState:
    metrics: dict[str, Any] = {f"metric-{k}": MetricValue(f"metric-{k}", number * 0.5 + k) for k in range(METRICS)}
    return SystemState(f"bench-{number % 10}", BEGUN + timedelta(milliseconds=number), metrics)
