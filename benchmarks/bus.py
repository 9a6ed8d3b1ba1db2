"""The bus beside its peers: publishers and subscribers in processes of their own, a real server, loopback.

    python benchmarks/bus.py [--events 20000] [--rounds 3] [--only NAME ...]

NAME is a table (received, prototype, stored, consumed, latency, memory, chain, resume, growth) or a contender. Every
contender moves the same telemetry event (453 bytes as plain JSON) and hands it, decoded and validated unless it is
called raw, to a handler. Rates are events received per second, from the first to the last; CPU is that of each process
per event, which other work on the machine disturbs less. Rounds are interleaved, the median of each contender is taken,
and the ratios are the result: absolute figures depend on the machine. A run of all tables ends within eight minutes;
where that is not enough for all rounds, it says which are left out.

The C library takes part when a compiler and its header are there (on Debian: apt-get install gcc libnats-dev).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from _bus_common import EVENT_BYTES, SUBJECT
from _bus_contenders import (
    BATCHED,
    BOTH_WAYS,
    CONSUMED,
    FILLERS,
    LATENCY,
    MEMORY,
    NATIVE,
    PROTOTYPES,
    RECEIVED,
    STORED,
    Contender,
)
from _bus_libnats import APT, Libnats
from _harness import NATSServer, ended, launch, median, nats_server, print_table, read_line, release, say, start

PACED_EVENTS = 3_000
CHAIN_ROUNDS = 9
"""At least: differences of microseconds need a few quiet ones."""
MANY = 4
"""Those with at least as many times the events are quick, or send them many a message."""
BATCHES = 12_800
"""Whole messages of 100 events, and of 512."""


class Round(NamedTuple):
    """What one round gave: events a second, CPU us an event in each process, age of the events at 1 k/s in us."""

    rate: float
    sender_us: float = 0.0
    receiver_us: float = 0.0
    server_us: float = 0.0
    p50_us: float = 0.0
    p99_us: float = 0.0


def middle(rounds: Sequence[Round]) -> Round:
    """The median of each figure."""
    return Round(*(median(column) for column in zip(*rounds, strict=True)))


Results = Mapping[str, Round]


SECONDS = {
    "received": 190.0,
    "stored": 50.0,
    "both": 20.0,
    "consumed": 55.0,
    "latency": 60.0,
    "memory": 16.0,
    "resume": 75.0,
}
"""What each table may take of a full run of eight minutes: on a busy machine rounds are left out, and it says so."""


class Bench:
    """Runs rounds of contenders against servers."""

    def __init__(self, events: int, rounds: int, only: Sequence[str], libnats: Libnats) -> None:
        self.events = events
        self.rounds = rounds
        self.done = rounds
        """How many rounds the last table had."""
        self.skipped: list[str] = []
        self._only = only
        self.libnats = libnats

    def turns(self, table: str) -> Iterator[int]:
        """The rounds of a table, as many as its time allows; those of a run of chosen tables take what they need."""
        began_s = time.monotonic()
        for number in range(self.rounds):
            spent_s = time.monotonic() - began_s
            if number and not self._only and spent_s * (number + 1) / number > SECONDS[table]:
                self.skipped.append(f"{self.rounds - number} of {self.rounds} rounds of {table!r}")
                return
            self.done = number + 1
            yield number

    def seconds(self, table: str) -> float:
        """What the table may take."""
        return math.inf if self._only else SECONDS[table]

    def wanted(self, table: str, contenders: Mapping[str, Contender]) -> dict[str, Contender]:
        """Those of a table that are asked for and can take part."""
        found = {
            name: contender
            for name, contender in contenders.items()
            if not self._only or table in self._only or name in self._only
        }
        return {name: each for name, each in found.items() if each.module != "libnats" or self.libnats.path}

    def asked_for(self, table: str) -> bool:
        return not self._only or table in self._only

    def count(self, contender: Contender) -> int:
        """How many events a round of the contender has; of those that travel many a message, whole messages."""
        events = round(self.events * contender.times)
        return max(1, events // BATCHES) * BATCHES if contender.times >= MANY else events

    def spawn(
        self, role: str, name: str, contender: Contender, server: NATSServer, events: int
    ) -> subprocess.Popen[str]:
        """One process of a round."""
        if contender.module == "libnats":
            mode = NATIVE[name][role == "receiver"]
            subject = "raw.telemetry.bench" if mode == "store" else SUBJECT
            assert self.libnats.path is not None
            stream = ["POLARIS_TELEMETRY"] if mode == "fetch" else []
            return launch(self.libnats.path, mode, server.url, subject, str(events), str(EVENT_BYTES), *stream)
        arguments = ("--role", f"{contender.module}:{role}:{name}", "--url", server.url, "--events", str(events))
        return start(__file__, *arguments)

    def pair(self, name: str, contender: Contender, server: NATSServer, events: int) -> Round:
        """A publisher and a subscriber at the same time; what was received counts."""
        receiver = self.spawn("receiver", name, contender, server, events)
        sender = self.spawn("sender", name, contender, server, events)
        with ended(receiver, sender):
            read_line(receiver)
            read_line(sender)
            began_s = server.cpu_s()
            release(sender)
            received, sent = read_line(receiver), read_line(sender)
            spent_s = server.cpu_s() - began_s
        check_count(name, received, events)
        return Round(
            received["received"] / received["seconds"],
            sent["cpu"] / events * 1e6,
            received["cpu"] / max(1, received["received"]) * 1e6,
            spent_s / events * 1e6,
            received.get("p50", 0.0) * 1e6,
            received.get("p99", 0.0) * 1e6,
        )

    def alone(self, role: str, name: str, contender: Contender, server: NATSServer, events: int) -> Round:
        """One process against the server: it publishes and waits for confirmations, or handles what is stored."""
        process = self.spawn(role, name, contender, server, events)
        with ended(process):
            read_line(process)
            began_s = server.cpu_s()
            release(process)
            found = read_line(process)
            spent_s = server.cpu_s() - began_s
        check_count(name, found, events)
        us = found["cpu"] / events * 1e6
        rate = found["received"] / found["seconds"]
        return (
            Round(rate, us, 0.0, spent_s / events * 1e6)
            if role == "sender"
            else Round(rate, 0.0, us, spent_s / events * 1e6)
        )

    def received(self, table: str, contenders: Mapping[str, Contender], *, events: int = 0) -> dict[str, Round]:
        """Rounds of publisher and subscriber."""
        rounds: dict[str, list[Round]] = {name: [] for name in contenders}
        for _ in self.turns(table):
            with nats_server() as server:
                for name, contender in contenders.items():
                    rounds[name].append(self.pair(name, contender, server, events or self.count(contender)))
        return {name: middle(found) for name, found in rounds.items()}

    def stored(self, contenders: Mapping[str, Contender]) -> dict[str, Round]:
        """Rounds of publishing alone, each on streams that are empty at the beginning of the round."""
        from _bus_stored import make_stream

        rounds: dict[str, list[Round]] = {name: [] for name in contenders}
        for _ in self.turns("stored"):
            with nats_server() as server:
                asyncio.run(make_stream(server.url))
                for name, contender in contenders.items():
                    rounds[name].append(self.alone("sender", name, contender, server, self.count(contender)))
        return {name: middle(found) for name, found in rounds.items()}

    def consumed(self, contenders: Mapping[str, Contender]) -> dict[str, Round]:
        """Rounds of handling what a stream holds: all contenders of one filling read the same messages."""
        rounds: dict[str, list[Round]] = {name: [] for name in contenders}
        filler = Contender("", 1, "_bus_polaris")
        for _ in self.turns("consumed"):
            for filling in ("fill-single", *FILLERS.values()):
                mine = {name: one for name, one in contenders.items() if FILLERS.get(name, "fill-single") == filling}
                if not mine:
                    continue
                with nats_server() as server:
                    most = max(self.count(contender) for contender in mine.values())
                    self.alone("sender", filling, filler, server, most)
                    for name, contender in mine.items():
                        rounds[name].append(self.alone("receiver", name, contender, server, self.count(contender)))
        return {name: middle(found) for name, found in rounds.items()}

    def in_memory(self, contenders: Mapping[str, Contender]) -> dict[str, Round]:
        """Rounds of one process without a server."""
        rounds: dict[str, list[Round]] = {name: [] for name in contenders}
        for _ in self.turns("memory"):
            for name, contender in contenders.items():
                events = self.count(contender)
                role = f"{contender.module}:memory:{name}"
                found = read_line(start(__file__, "--role", role, "--events", str(events)))
                rounds[name].append(Round(found["rate"], found["cpu"] / events * 1e6))
        return {name: middle(found) for name, found in rounds.items()}


def check_count(name: str, found: Mapping[str, float], events: int) -> None:
    """Say so when a round is none: events are missing, came twice, or were not acknowledged."""
    problems = [f"{found['received']:,} of {events:,} received"] if found["received"] != events else []
    problems += [f"{found[key]:,} {key}" for key in ("repeated", "unsettled") if found.get(key)]
    if problems:
        print(f"{name}: {', '.join(problems)}", file=sys.stderr)


def run_role(role: str, url: str, events: int) -> None:
    """Be one of the processes of a round."""
    module_name, side, name = role.split(":")
    module = importlib.import_module(module_name)
    if side == "memory":
        rate, cpu = asyncio.run(module.IN_MEMORY[name](events))
        say(rate=rate, cpu=cpu)
    else:
        roles = module.RECEIVERS if side == "receiver" else module.SENDERS
        asyncio.run(roles[name](url, events))


def us(value: float) -> str:
    return f"{value:.1f}" if value >= 0.05 else "-"


def times(mine: Round, other: Round | None) -> str:
    return "-" if other is None else f"{mine.rate / other.rate:.2f}"


def print_received(
    title: str, contenders: Mapping[str, Contender], results: Results, peers: Mapping[str, str], *, why_not: str = ""
) -> None:
    """A row a contender that took part; `peers` are those that the rates are set in relation to.

    `why_not` says why the C library is not among them.
    """
    rows: list[Sequence[str]] = []
    for name, contender in contenders.items():
        found = results.get(name)
        if found is None:
            if why_not and contender.module == "libnats" and results:
                rows.append((contender.label, why_not, *["-"] * (len(peers) + 3)))
            continue
        cost = (us(found.sender_us), us(found.receiver_us), us(found.server_us))
        ratios = [times(found, results.get(peer)) for peer in peers]
        rows.append((contender.label, f"{found.rate:,.0f}", *ratios, *cost))
    if rows:
        heads = [f"x {short}" for short in peers.values()]
        print_table(title, ("contender", "events/s", *heads, "CPU us publisher", "subscriber", "server"), rows)


def print_latencies(results: Results, rounds: int) -> None:
    rows = [
        (LATENCY[name].label, f"{found.p50_us:.0f}", f"{found.p99_us:.0f}", us(found.sender_us), us(found.receiver_us))
        for name, found in results.items()
    ]
    if rows:
        title = f"From event made to handler called, at 1,000 events/s (median of {rounds} rounds of {PACED_EVENTS:,})"
        print_table(title, ("contender", "p50 us", "p99 us", "CPU us publisher", "subscriber"), rows)


def core_tables(bench: Bench) -> None:
    """Single events, batches and the prototype, in the same interleaved rounds."""
    groups = {"received": RECEIVED | BATCHED, "prototype": PROTOTYPES}
    taking_part: dict[str, Contender] = {}
    for table, contenders in groups.items():
        taking_part |= bench.wanted(table, contenders)
    results = bench.received("received", taking_part)
    rounds = f"median of {bench.done} interleaved rounds"
    peers = {"faststream-full": "FastStream full", "hand-chain": "by hand", "raw": "nats-py raw"}
    print_received(f"Single events received ({rounds})", RECEIVED, results, peers, why_not=bench.libnats.why)
    peers = {"libnats": "C libnats raw", "raw": "nats-py raw", "polaris-full": "single"}
    print_received(f"Telemetry in batches received, POLARIS with its full chain ({rounds})", BATCHED, results, peers)
    peers = {"raw": "nats-py raw", "polaris-full": "POLARIS full chain", "polaris-many-100": "100 a message"}
    print_received(f"A client of our own ({rounds})", PROTOTYPES, results, peers)


def stored_tables(bench: Bench) -> None:
    publishing = bench.wanted("stored", STORED)
    if publishing:
        results = bench.stored(publishing)
        peers = {"libnats-store": "C libnats", "nats-py-4096": "nats-py 4096"}
        title = f"Publishing to JetStream, events confirmed (median of {bench.done} interleaved rounds)"
        print_received(title, STORED, results, peers, why_not=bench.libnats.why)
    both = bench.wanted("stored", BOTH_WAYS)
    if both:
        results = bench.received("both", both)
        print_received(f"Stored and handled at the same time (median of {bench.done} rounds)", BOTH_WAYS, results, {})
    consuming = bench.wanted("consumed", CONSUMED)
    if consuming:
        results = bench.consumed(consuming)
        peers = {"libnats-fetch": "C libnats", "nats-py-pull": "nats-py", "faststream-pull": "FastStream"}
        rounds = f"median of {bench.done} interleaved rounds"
        title = f"Consuming from JetStream, every message acknowledged ({rounds})"
        print_received(title, CONSUMED, results, peers, why_not=bench.libnats.why)


def other_tables(bench: Bench) -> None:
    pacing = bench.wanted("latency", LATENCY)
    if pacing:
        print_latencies(bench.received("latency", pacing, events=PACED_EVENTS), bench.done)
    memory = bench.wanted("memory", MEMORY) if bench.asked_for("memory") else {}
    if memory:
        results = bench.in_memory(memory)
        rows = [
            (MEMORY[name].label, f"{found.rate:,.0f}", times(found, results.get("faststream")), us(found.sender_us))
            for name, found in results.items()
        ]
        title = f"In one process, nothing stored (median of {bench.done} rounds)"
        print_table(title, ("contender", "events/s", "x FastStream", "CPU us"), rows)
    if bench.asked_for("chain"):
        import _bus_chain

        _bus_chain.print_tables(rounds=max(CHAIN_ROUNDS, bench.rounds))
    if bench.asked_for("resume"):
        import _bus_resume

        bench.skipped += _bus_resume.print_table_of_resuming(within_s=bench.seconds("resume"))
    if bench.asked_for("growth"):
        import _bus_growth

        _bus_growth.print_growth(bench.events)


@contextlib.contextmanager
def benches(options: argparse.Namespace) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as folder:
        yield Bench(options.events, options.rounds, options.only, Libnats.build(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000, help="in a round of a contender of middling speed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="tables or contenders")
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        run_role(options.role, options.url, options.events)
        return
    with benches(options) as bench:
        if bench.libnats.path is None:
            print(f"C libnats does not take part: {bench.libnats.why}. {APT}")
        core_tables(bench)
        stored_tables(bench)
        other_tables(bench)
        if bench.skipped:
            print(f"\nLeft out for want of time: {', '.join(bench.skipped)}.")


if __name__ == "__main__":
    main()
