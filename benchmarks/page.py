"""What clients of the live stream cost a node: its processor time with none, and with a hundred of them.

    python benchmarks/page.py [--clients 0 1 100] [--seconds 20] [--samples-per-s 20]

A node (embedded NATS, SQLite store, HTTP) stores the samples of ten systems with eight metrics each, which another
process publishes evenly. The clients follow `/api/v1/stream` and read all they get. Processor time is that of the
node's process alone, its bus server left out; the first column takes off what it costs without clients. Delay: from a
sample's timestamp to its arrival at a client, for samples of this machine's clock.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import psutil
from _harness import median, print_table
from runtime import node

from polaris.clock import utc_now
from polaris.domain import HealthStatus, MetricValue, SystemState, TelemetryEvent
from polaris.messaging import NATSConfig, NATSMessageBroker, PolarisMessageBus
from polaris.runtime import DataFolder

SYSTEMS = 10
METRICS = 8
CLIENTS = 100
SHARE_TARGET = 0.1
SETTLE_S = 3.0


def sample(number: int) -> TelemetryEvent:
    """A sample of one of the systems, taken now."""
    metrics = {f"metric.{at}": MetricValue(f"metric.{at}", random.random(), "1") for at in range(METRICS)}
    state = SystemState(f"system-{number % SYSTEMS}", utc_now(), metrics, HealthStatus.HEALTHY)
    return TelemetryEvent(state, source="benchmark")


async def publish(bus: PolarisMessageBus, per_s: float) -> None:
    """Samples in even steps, until it is cancelled."""
    loop = asyncio.get_running_loop()
    begun, number = loop.time(), 0
    while True:
        await bus.publish_telemetry(sample(number))
        number += 1
        await asyncio.sleep(max(0.0, begun + number / per_s - loop.time()))


class Follower:
    """One client: counts what it gets, and how late."""

    def __init__(self) -> None:
        self.samples = self.reads = 0
        self.delays_s: list[float] = []

    async def follow(self, port: int, *, timed: bool) -> None:
        """Read until it is cancelled; `timed` looks at every sample's timestamp."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while chunk := await reader.read(65_536):
                self.reads += 1
                self.samples += chunk.count(b"event: sample")
                if timed:
                    now = time.time()
                    for part in chunk.split(b'"timestamp":"')[1:]:
                        taken = datetime.fromisoformat(part.partition(b'"')[0].decode())
                        self.delays_s.append(now - taken.timestamp())
            raise SystemExit("the node ended the stream")
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def following(port: int, count: int) -> AsyncIterator[list[Follower]]:
    """So many clients, connected during the block."""
    followers = [Follower() for _ in range(count)]
    tasks = [asyncio.create_task(follower.follow(port, timed=at == 0)) for at, follower in enumerate(followers)]
    try:
        yield followers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def measure(process: psutil.Process, port: int, count: int, seconds: float) -> tuple[float, list[Follower]]:
    """The share of a core that the node takes with so many clients, and what these got."""
    async with following(port, count) as followers:
        await asyncio.sleep(SETTLE_S)
        for follower in followers:
            follower.samples = follower.reads = 0
            follower.delays_s.clear()
        before, begun = process.cpu_times(), time.perf_counter()
        await asyncio.sleep(seconds)
        after, elapsed_s = process.cpu_times(), time.perf_counter() - begun
        spent_s = after.user + after.system - before.user - before.system
        return spent_s / elapsed_s, followers


async def compare(folder: Path, process: psutil.Process, port: int, options: argparse.Namespace) -> None:
    """Print the table for one node."""
    data = DataFolder(folder / "data")
    while (facts := data.running_node()) is None:
        await asyncio.sleep(0.05)
    assert facts.bus_url is not None
    broker = NATSMessageBroker(NATSConfig(servers=(facts.bus_url,), token=facts.bus_token, name="benchmark"))
    bus = PolarisMessageBus(broker)
    await bus.start()
    publishing = asyncio.create_task(publish(bus, options.samples_per_s))
    rows, bare = [], 0.0
    try:
        await asyncio.sleep(SETTLE_S)
        for count in options.clients:
            share, followers = await measure(process, port, count, options.seconds)
            bare = share if count == 0 else bare
            row = [str(count), f"{share:.1%}", f"{share - bare:.1%}" if count else "-"]
            if followers:
                delays = sorted(followers[0].delays_s)
                row += [
                    f"{sum(one.samples for one in followers) / count / options.seconds:.1f}",
                    f"{sum(one.reads for one in followers) / count / options.seconds:.1f}",
                    f"{median(delays) * 1e3:.0f}",
                    f"{delays[int(len(delays) * 0.99)] * 1e3:.0f}",
                ]
            rows.append(row + ["-"] * (7 - len(row)))
    finally:
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        await bus.stop()
    headings = (
        "clients",
        "node, of a core",
        "for the clients",
        "samples/s each",
        "reads/s each",
        "delay ms, p50",
        "p99",
    )
    target = f"target: {CLIENTS} clients <= {SHARE_TARGET:.0%}"
    title = f"Live updates: {options.samples_per_s:g} samples/s of {SYSTEMS} systems ({target})"
    print_table(title, headings, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[0, 1, CLIENTS])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--samples-per-s", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, node(Path(folder)) as (process, port, _):
        asyncio.run(compare(Path(folder), psutil.Process(process.pid), port, options))


if __name__ == "__main__":
    main()
