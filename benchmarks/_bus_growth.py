"""What grows with the number of managed systems, and with the number of subscriptions: cost of an event and memory.

One process publishes single events over core NATS, one handles them, both with the full chain. Every system has a topic
of its own. First each of them has sent one event, which is not counted; then they go on in turns.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil
from _bus_common import Meter, Sender, sample
from _bus_polaris import CORE, bus_of
from _harness import nats_server, print_table, read_line, release, say, start

from polaris.domain import TelemetryEvent
from polaris.messaging import telemetry_topic

SYSTEMS = (1, 10, 100, 1_000, 10_000, 100_000)
SUBSCRIPTIONS = (1, 10, 100, 1_000)
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "bus-growth.svg"


class Point(NamedTuple):
    """What was measured at one number of systems or subscriptions."""

    number: int
    publisher_us: float
    subscriber_us: float
    publisher_mib: float
    subscriber_mib: float
    server_mib: float


def rss_mib() -> float:
    return float(psutil.Process().memory_info().rss) / (1 << 20)


async def publish(url: str, events: int, systems: int) -> None:
    """Each system one event, then all in turns."""
    state = sample()

    def event(number: int) -> TelemetryEvent:
        return TelemetryEvent(msgspec.structs.replace(state, system_id=f"s{number % systems}"))

    async with bus_of(url, stored=False) as bus:
        sender = Sender(events)
        async with sender:
            for number in range(systems):
                made = event(number)
                await bus.publish(telemetry_topic(made.system_state.system_id), made, delivery=CORE)
            sender.begin()
            for number in range(events):
                made = event(number)
                await bus.publish(telemetry_topic(made.system_state.system_id), made, delivery=CORE)
        say(mib=rss_mib())


async def handle(url: str, events: int, systems: int, subscriptions: int) -> None:
    """One subscription to all systems, or one to each."""
    meter = Meter(systems + events)

    async def count(event: TelemetryEvent) -> None:
        if meter.count == systems:
            meter.begin()
        meter.add()

    async with bus_of(url, stored=False) as bus:
        if subscriptions == 1:
            await bus.subscribe("polaris.telemetry.*", count, delivery=CORE)
        else:
            for number in range(subscriptions):
                await bus.subscribe(telemetry_topic(f"s{number}"), count, delivery=CORE)
        say(ready=True)
        await meter.report()
        say(mib=rss_mib())


def measure(events: int, systems: int, subscriptions: int) -> Point:
    events = max(events, systems)
    with nats_server() as server:
        numbers = (str(events), str(systems), str(subscriptions))
        subscriber = start(__file__, "handle", server.url, *numbers)
        publisher = start(__file__, "publish", server.url, *numbers)
        read_line(subscriber)
        read_line(publisher)
        release(publisher)
        received, sent = read_line(subscriber), read_line(publisher)
        if received["received"] != systems + events:
            print(f"received {received['received']} of {systems + events}", file=sys.stderr)
        subscriber_mib, publisher_mib = read_line(subscriber)["mib"], read_line(publisher)["mib"]
        server_mib = server.rss_mib()
        for process in (subscriber, publisher):
            process.wait(60)
    publisher_us, subscriber_us = sent["cpu"] / events * 1e6, received["cpu"] / events * 1e6
    number = systems if subscriptions == 1 else subscriptions
    return Point(number, publisher_us, subscriber_us, publisher_mib, subscriber_mib, server_mib)


def rows(points: Sequence[Point]) -> list[Sequence[str]]:
    return [
        (
            f"{point.number:,}",
            f"{point.publisher_us:.1f}",
            f"{point.subscriber_us:.1f}",
            f"{point.publisher_mib:.0f}",
            f"{point.subscriber_mib:.0f}",
            f"{point.server_mib:.0f}",
        )
        for point in points
    ]


def plot(systems: Sequence[Point], subscriptions: Sequence[Point], path: Path) -> None:
    """Cost above, memory below; systems on the left, subscriptions on the right."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "bus-growth"
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(2, 2, sharex="col", sharey="row", figsize=(9, 5.5), layout="constrained")
    columns = (("managed systems", systems), ("subscriptions of one process", subscriptions))
    for column, (title, points) in enumerate(columns):
        numbers = [point.number for point in points]
        above: Any = grid[0][column]
        below: Any = grid[1][column]
        above.plot(numbers, [point.publisher_us for point in points], "o-", color="#b4552d", label="publisher")
        above.plot(numbers, [point.subscriber_us for point in points], "o-", color="#1f6f8b", label="subscriber")
        below.plot(numbers, [point.publisher_mib for point in points], "o-", color="#b4552d")
        below.plot(numbers, [point.subscriber_mib for point in points], "o-", color="#1f6f8b")
        below.plot(numbers, [point.server_mib for point in points], "o-", color="#888888", label="nats-server")
        below.set_xscale("log")
        below.set_xlabel(title)
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)
    for left in (grid[0][0], grid[1][0]):  # the right ones share it, once everything is drawn
        left.set_ylim(bottom=0)
    grid[0][0].set_ylabel("CPU us an event")
    grid[1][0].set_ylabel("memory, MiB")
    grid[0][0].legend(frameon=False)
    grid[1][0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def print_growth(events: int) -> None:
    heads = ("CPU us publisher", "CPU us subscriber", "MiB publisher", "MiB subscriber", "MiB server")
    systems = [measure(events, number, 1) for number in SYSTEMS]
    print_table("Growth with the managed systems, one subscription", ("systems", *heads), rows(systems))
    subscriptions = [measure(events, number, number) for number in SUBSCRIPTIONS]
    print_table(
        "Growth with the subscriptions of one process, each to a system of its own",
        ("subscriptions", *heads),
        rows(subscriptions),
    )
    plot(systems, subscriptions, PICTURE)
    print(f"\nplotted: docs/images/{PICTURE.name}")


if __name__ == "__main__":
    role, server_url, *counts = sys.argv[1:]
    event_count, system_count, subscription_count = map(int, counts)
    if role == "publish":
        asyncio.run(publish(server_url, event_count, system_count))
    else:
        asyncio.run(handle(server_url, event_count, system_count, subscription_count))
