"""What the contenders of the benchmark of the bus share: the event, what counts and reports, a tracer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from _harness import await_release, say

from polaris.domain import HealthStatus, MetricValue, SystemState, TelemetryEvent

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

SUBJECT = "polaris.telemetry.bench"
METRICS = ("cpu", "memory", "response_time", "request_rate", "workers")
EVENT_BYTES = 453
"""The event as plain JSON."""
FLUSH_EVERY = 256
PACE = 1_000.0
SAMPLED = 0.01
BEGIN_WITHIN_S = 60.0
QUIET_S = 5.0
"""Nothing has come for so long: the rest is lost."""

Role: TypeAlias = Callable[[str, int], Awaitable[None]]
"""What one process of a round does, given the server and the number of events."""


def sample() -> SystemState:
    """A state of five readings."""
    metrics = {name: MetricValue(name, 0.25 + index, "s") for index, name in enumerate(METRICS)}
    return SystemState("bench", datetime.now(UTC), metrics, HealthStatus.HEALTHY)


def raw_payload() -> bytes:
    """The event as bytes that nobody looks into."""
    return msgspec.json.encode(TelemetryEvent(sample())).ljust(EVENT_BYTES)


class Meter:
    """Counts what arrives and reports once everything has."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.count = 0
        self.begun = 0.0
        self.begun_cpu = 0.0
        self.latencies: list[float] = []
        self.done = asyncio.Event()

    def begin(self) -> None:
        """Count time from now on; without it, from the first event on."""
        self.begun, self.begun_cpu = time.perf_counter(), time.process_time()

    def add(self, number: int = 1) -> None:
        if not self.begun:
            self.begin()
        self.count += number
        if self.count >= self.wanted:
            self.done.set()

    def time(self, made_s: float) -> None:
        """Note how old the event is: all processes read the clock of the same machine."""
        self.latencies.append(time.time() - made_s)
        self.add()

    async def report(self) -> None:
        """Say what came and how long it took, once everything has come or nothing more comes."""
        say(**await self.measure())

    async def measure(self) -> dict[str, float]:
        """As `report`, for one who has more to say."""
        until = time.monotonic() + BEGIN_WITHIN_S
        before = -1
        while not self.done.is_set() and (self.count > before or (not self.count and time.monotonic() < until)):
            before = self.count
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.done.wait(), QUIET_S)
        seconds, cpu = time.perf_counter() - self.begun, time.process_time() - self.begun_cpu
        ordered = sorted(self.latencies[len(self.latencies) // 10 :])  # the first tenth warms up
        latency = {"p50": ordered[len(ordered) // 2], "p99": ordered[len(ordered) * 99 // 100]} if ordered else {}
        return {"received": self.count, "seconds": seconds, "cpu": cpu, **latency}


class Sender:
    """Ready on entry, and released when all others are; reports on exit what the sending cost."""

    def __init__(self, events: int) -> None:
        self._events = events

    async def __aenter__(self) -> None:
        say(ready=True)
        # Connected already: its pings must go on.
        await asyncio.to_thread(await_release)
        self.begin()

    def begin(self) -> None:
        """Count from now on."""
        self._begun, self._begun_cpu = time.perf_counter(), time.process_time()

    async def __aexit__(self, *exc_info: object) -> None:
        say(
            received=self._events,
            seconds=time.perf_counter() - self._begun,
            cpu=time.process_time() - self._begun_cpu,
        )


async def at_pace(events: int, per_second: float) -> AsyncIterator[int]:
    """Count at an even pace."""
    due = time.perf_counter()
    for number in range(events):
        due += 1 / per_second
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        yield number


def tracer() -> Tracer:
    """What records every span that it is asked for and exports none: the decision about sampling comes before."""
    from opentelemetry.sdk.trace import TracerProvider

    return TracerProvider().get_tracer("bench")
