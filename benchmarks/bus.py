"""The bus beside its peers: one publisher process, one subscriber process, a real server, loopback.

    python benchmarks/bus.py [--events 20000] [--rounds 3] [--only raw,polaris-full]

Every contender moves the same telemetry event (about 450 bytes as JSON) and hands it, decoded and validated, to a
handler. Rates are events received per second, from the first to the last; CPU is that of each process per event, which
other work on the machine disturbs less. Rounds are interleaved, the median of each contender is taken, and the ratios
are the result: absolute figures depend on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import NamedTuple

from _bus_contenders import BATCHED, LABELS, PUBLISHERS, SUBSCRIBERS, polaris_memory
from _harness import median, nats_server, print_table, read_line, say, start

SLOW = {"faststream-slow": "FastStream typed + Prometheus + OpenTelemetry", "polaris-slow": "POLARIS typed, full chain"}
SLOW_EVENTS = 5_000


class Round(NamedTuple):
    """What one round gave: events received a second, CPU us an event on each side, age of the events at 1 k/s in us."""

    rate: float
    publisher_us: float
    subscriber_us: float
    p50_us: float = 0.0
    p99_us: float = 0.0


def measure(url: str, contender: str, events: int) -> Round:
    """One round; says so when something was lost."""
    if contender == "polaris-memory":
        alone = start(__file__, "--role", f"alone:{contender}", "--events", str(events))
        result = read_line(alone)
        return Round(result["rate"], 0.0, result["cpu"] / events * 1e6)
    arguments = ("--url", url, "--events", str(events))
    subscriber = start(__file__, "--role", f"sub:{contender}", *arguments)
    read_line(subscriber)
    publisher = start(__file__, "--role", f"pub:{contender}", *arguments)
    read_line(publisher)
    received, sent = read_line(subscriber), read_line(publisher)
    publisher.wait(60)
    subscriber.wait(60)
    if received["received"] != events:
        print(f"{contender}: received {received['received']} of {events}", file=sys.stderr)
    return Round(
        received["received"] / received["seconds"],
        sent["cpu"] / events * 1e6,
        received["cpu"] / max(1, received["received"]) * 1e6,
        received.get("p50", 0.0) * 1e6,
        received.get("p99", 0.0) * 1e6,
    )


def middle(rounds: list[Round]) -> Round:
    """The median of each figure."""
    return Round(*(median(column) for column in zip(*rounds, strict=True)))


def run_role(role: str, url: str, events: int) -> None:
    """Be one of the processes of a round."""
    side, contender = role.split(":")
    if side == "alone":
        rate, cpu = asyncio.run(polaris_memory(events))
        say(rate=rate, cpu=cpu)
        return
    roles = SUBSCRIBERS if side == "sub" else PUBLISHERS
    asyncio.run(roles[contender](url, events))  # type: ignore[arg-type]


def print_rates(medians: dict[str, Round], rounds: int, events: int) -> None:
    peer, raw = medians.get("faststream-full"), medians.get("raw")
    print_table(
        f"Events received per second (median of {rounds} interleaved rounds of {events})",
        ("contender", "events/s", "x FastStream full", "x raw nats-py", "CPU us/event pub", "CPU us/event sub"),
        [
            (
                LABELS[name],
                f"{found.rate:,.0f}",
                f"{found.rate / peer.rate:.2f}" if peer else "-",
                f"{found.rate / raw.rate:.2f}" if raw else "-",
                f"{found.publisher_us:.1f}" if found.publisher_us else "-",
                f"{found.subscriber_us:.1f}",
            )
            for name, found in medians.items()
            if name in LABELS
        ],
    )


def print_latencies(medians: dict[str, Round], rounds: int) -> None:
    rows = [
        (SLOW[name], f"{found.p50_us:.0f}", f"{found.p99_us:.0f}") for name, found in medians.items() if name in SLOW
    ]
    if rows:
        title = f"From event made to handler called, at 1,000 events/s (median of {rounds} rounds of {SLOW_EVENTS})"
        print_table(title, ("contender", "p50 us", "p99 us"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join([*LABELS, *SLOW]))
    parser.add_argument("--json", action="store_true", help="print the medians as JSON as well")
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        run_role(options.role, options.url, options.events)
        return
    rounds: dict[str, list[Round]] = {name: [] for name in options.only.split(",")}
    with nats_server() as url:
        for _ in range(options.rounds):
            for name, found in rounds.items():
                events = SLOW_EVENTS if name in SLOW else options.events * (10 if name in BATCHED else 1)
                found.append(measure(url, name, events))
    medians = {name: middle(found) for name, found in rounds.items()}
    print_rates(medians, options.rounds, options.events)
    print_latencies(medians, options.rounds)
    if options.json:
        print(json.dumps({name: found._asdict() for name, found in medians.items()}))


if __name__ == "__main__":
    main()
