"""The store: a replay of real files through a whole node, and its speed beside the drivers by hand and other engines.

    python benchmarks/store.py [--data FOLDER] [--rounds 3] [--batches 200] [--only PART] [--quick]

1. replay: every `*.csv` (timestamp,value) below the folder is a managed system. A publisher process sends its lines as
   telemetry events to a node in another process: embedded NATS, JetStream, the telemetry path, the SQLite store. Then
   the hourly aggregates of the store are compared with those of pandas. Points per second are from the first publish to
   the last commit.
2. store: each contender in a process of its own, interleaved, medians: batches of 500 points of 5 fields, single
   points from 64 tasks, and reads of what was written. What is written is made before the clock starts; every commit is
   synced (WAL, synchronous=FULL; fsync=on).
3. units: units of work, and a second process that reads meanwhile; see `_store_units.py`.
4. ranges, served, scans: what page and command line ask for, in the store and of a node, aggregates over 10^7 values;
   see `_store_scans.py` and `_store_served.py`.
5. documents, graph: see `documents.py` and `_store_graph.py`.
6. specialists: servers made for time series alone; see `_store_specialists.py`.
7. recovery: a server replaced by its standby, an embedded store reopened after a kill; see `_store_recovery.py`.
8. growth: with the values and with the series; see `_store_growth.py`. It draws docs/images/store-growth.svg.

Servers of PostgreSQL are started and ended here; where there is none, its rows are left out. `--quick` takes a
hundredth of everything, to see whether it runs; it draws nothing into docs. `--values 100000000` grows to 10^8, which
takes 18 minutes by itself. All together takes some ten minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import _store_contenders as contenders
import _store_servers as servers
import psutil
from _harness import median, print_table, read_line, say, start
from _store_graph import measure_graph
from _store_growth import PICTURE, measure_growth
from _store_recovery import measure_recovery
from _store_scans import measure_ranges, measure_scans
from _store_served import measure_served
from _store_specialists import measure_specialists
from _store_units import measure_units
from documents import measure_documents

DATA = Path(__file__).resolve().parents[1] / "../shared/data/nab"
PARTS = (
    "replay",
    "store",
    "units",
    "ranges",
    "served",
    "scans",
    "documents",
    "graph",
    "specialists",
    "recovery",
    "growth",
)
TASKS = 64
READS = 500
MIB = 1 << 20

BATCHED_LABELS = {
    "apsw": "apsw rows by hand, no event loop",
    "points": "POLARIS time_series.store_many",
    "states": "POLARIS states.save_many",
    "aiosqlite": "aiosqlite rows, executemany + commit",
    "duckdb": "DuckDB, columns, a transaction a batch",
    "pg_points": "POLARIS, PostgreSQL, time_series.store_many",
    "pg_states": "POLARIS, PostgreSQL, states.save_many",
    "asyncpg": "asyncpg rows, COPY",
}
SINGLY_LABELS = {
    "states": "POLARIS states.save",
    "aiosqlite": "aiosqlite rows, tasks share transactions",
    "transactions": "aiosqlite rows, a transaction each",
    "pg_states": "POLARIS, PostgreSQL, states.save",
    "asyncpg": "asyncpg rows, a pool of 10",
}
BATCHED = {
    "apsw": contenders.with_apsw,
    "points": contenders.with_points,
    "states": contenders.with_states,
    "aiosqlite": contenders.with_aiosqlite,
    "duckdb": servers.with_duckdb,
    "pg_points": servers.with_points_postgresql,
    "pg_states": servers.with_states_postgresql,
    "asyncpg": servers.with_asyncpg,
}
SINGLY = {
    "states": contenders.with_states_singly,
    "aiosqlite": contenders.with_aiosqlite_singly,
    "transactions": contenders.with_aiosqlite_transactions,
    "pg_states": servers.with_states_singly_postgresql,
    "asyncpg": servers.with_asyncpg_singly,
}
SINGLY_SHARE = {"transactions": 20, "pg_states": 20, "asyncpg": 20}
"""Points of a contender for each batch of the other table, 100 unless it is much slower."""
READING = {
    "states": contenders.reading_states,
    "aiosqlite": contenders.reading_aiosqlite,
    "duckdb": servers.reading_duckdb,
    "pg_states": servers.reading_postgresql,
    "asyncpg": servers.reading_asyncpg,
}
READING_LABELS = {
    "states": "POLARIS, SQLite",
    "aiosqlite": "aiosqlite, rows",
    "duckdb": "DuckDB",
    "pg_states": "POLARIS, PostgreSQL",
    "asyncpg": "asyncpg, rows",
}
ON_A_SERVER = frozenset(("pg_points", "pg_states", "asyncpg"))
MODES = {"batches": "publish_many, 500 events a call", "singly": "publish_telemetry, 64 tasks"}


def peak_rss_bytes(pid: int | None = None) -> int:
    """The greatest resident size so far of this process or another one.

    Linux says it by process image; elsewhere it is this process's `getrusage`, which may count what forked it, and 0
    for others.
    """
    status = Path(f"/proc/{pid or 'self'}/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if pid is None else 0


# --- 1. replay: the node's process, the publisher's process, and the comparison ---


async def host_node(folder: Path, samples: int) -> None:
    """Run a node until all samples are stored; then wait to be told to stop."""
    from polaris.observability import LoggingConfig, configure_logging
    from polaris.runtime import Node, load_settings
    from polaris.runtime._ingest import TelemetryIngest

    configure_logging(LoggingConfig(level="warning"))
    config = folder / "polaris.toml"
    data = json.dumps(str(folder / "data"))
    config.write_text(f"[node]\ndata_dir = {data}\n[http]\nenabled = false\n[systems]\n")
    async with Node(load_settings(config, environment={})) as node:
        assert node.container is not None
        ingest = await node.container.aresolve(TelemetryIngest)
        idle = peak_rss_bytes()
        servers = [child for child in psutil.Process().children(recursive=True) if "nats-server" in child.name()]
        say(url=node.bus_url, token=node.bus_token, store=str(node.settings.store_path))
        while ingest.states_total < samples:
            await asyncio.sleep(0.005)
        ended_at = time.time()
        server = sum(peak_rss_bytes(child.pid) for child in servers)
        say(ended_at=ended_at, idle_rss=idle, peak_rss=peak_rss_bytes(), server_peak_rss=server)
        await asyncio.to_thread(sys.stdin.readline)


async def publish(url: str, token: str, data: Path, mode: str) -> None:
    """Read the files, then replay them."""
    import _nab

    from polaris.messaging import NATSConfig, NATSMessageBroker, PolarisMessageBus

    replay = _nab.read_folder(data)
    async with PolarisMessageBus(NATSMessageBroker(NATSConfig(servers=(url,), token=token))) as bus:
        begun_at = time.time()
        send = _nab.publish_in_batches if mode == "batches" else _nab.publish_one_by_one
        say(begun_at=begun_at, published=await send(bus, replay), ended_at=time.time())


async def compare(store_file: str, replay: Any) -> Any:
    import _nab

    from polaris.storage import PolarisDataStore

    async with PolarisDataStore.sqlite(store_file, read_only=True) as store:
        return await _nab.compare(store, replay)


def replay_once(data: Path, replay: Any, mode: str) -> dict[str, Any]:
    """One replay into a new node; its figures."""
    samples = sum(map(len, replay.values()))
    with tempfile.TemporaryDirectory() as folder:
        node = subprocess.Popen(
            [sys.executable, __file__, "--role", "node", "--folder", folder, "--count", str(samples)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            facts = read_line(node)
            address = ("--url", facts["url"], "--token", facts["token"], "--data", str(data), "--mode", mode)
            publisher = start(__file__, "--role", "publish", *address)
            published = read_line(publisher, 600)
            publisher.wait(60)
            stored = read_line(node, 600)
            begun = time.perf_counter()
            comparison = asyncio.run(compare(facts["store"], replay))
            compared_s = time.perf_counter() - begun
            assert node.stdin is not None
            node.stdin.write("stop\n")
            node.stdin.flush()
            node.wait(60)
        finally:
            if node.poll() is None:
                node.kill()
            node.communicate()
    seconds = stored["ended_at"] - published["begun_at"]
    rate = samples / seconds
    published_rate = samples / (published["ended_at"] - published["begun_at"])
    return {**stored, "rate": rate, "published": published_rate, "compared_s": compared_s, "by": comparison}


def measure_replay(data: Path, rounds: int) -> bool:
    """Print the figures of the replay; False when store and pandas differ."""
    import _nab

    replay = _nab.read_folder(data)
    runs: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
    for _ in range(rounds):
        for mode in MODES:
            runs[mode].append(replay_once(data, replay, mode))
    samples = sum(map(len, replay.values()))

    def middle(mode: str, key: str) -> float:
        return median([run[key] for run in runs[mode]])

    print_table(
        f"Replay of {samples:,} points of {len(replay)} systems: bus, stream, store (median of {rounds})",
        (
            "published by",
            "points/s stored",
            "points/s confirmed",
            "node, peak MiB",
            "before, MiB",
            "nats-server, peak MiB",
        ),
        [
            (
                label,
                f"{middle(mode, 'rate'):,.0f}",
                f"{middle(mode, 'published'):,.0f}",
                *(f"{middle(mode, key) / MIB:.0f}" for key in ("peak_rss", "idle_rss", "server_peak_rss")),
            )
            for mode, label in MODES.items()
        ],
    )
    return _tell_comparison([run for mode in MODES for run in runs[mode]])


def _tell_comparison(runs: list[dict[str, Any]]) -> bool:
    comparisons = [run["by"] for run in runs]
    differences = [difference for comparison in comparisons for difference in comparison.differences]
    if differences:
        print("\nDIFFERENT FROM PANDAS: " + "; ".join(differences[:10]))
        return False
    one, worst = comparisons[0], max(comparison.worst for comparison in comparisons)
    print(
        f"\nHourly avg, min, max, sum, count, p95 and median: the {one.numbers:,} numbers of {one.buckets:,} buckets"
        f" are those of pandas, at most {worst:.1e} apart (relative), in all {len(comparisons)} replays;"
        f" {median([run['compared_s'] for run in runs]):.1f} s each."
    )
    return True


# --- 2. the store alone ---


def percentile(values: list[float], percent: float) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[round(percent) - 1]


def play(role: str, contender: str, folder: Path, count: int) -> None:
    """One contender in this process; its figures as one line."""
    if role == "read":
        read = asyncio.run(READING[contender](folder, count))
        say(**{key: [percentile(calls_s, 50), percentile(calls_s, 99)] for key, calls_s in read.items()})
        return
    work = SINGLY[contender](folder, count, TASKS) if role == "singly" else BATCHED[contender](folder, count)
    figures = asyncio.run(work)
    calls_s = figures.calls_s
    say(rate=figures.points / figures.seconds, p50=percentile(calls_s, 50), p99=percentile(calls_s, 99))


def run(role: str, contender: str, folder: str, count: int) -> dict[str, Any]:
    """One contender in a process of its own."""
    arguments = ("--role", role, "--contender", contender, "--folder", folder, "--count", str(count))
    process = start(__file__, *arguments)
    result: dict[str, Any] = read_line(process, 600)
    process.wait(60)
    return result


def measure_store(rounds: int, batches: int) -> None:
    """Print the tables of the store alone."""

    def taking_part(table: Iterable[str]) -> list[str]:
        return [name for name in table if name not in ON_A_SERVER or servers.DSN in os.environ]

    batched: dict[str, list[dict[str, Any]]] = {name: [] for name in taking_part(BATCHED)}
    singly: dict[str, list[dict[str, Any]]] = {name: [] for name in taking_part(SINGLY)}
    reading: dict[str, list[dict[str, Any]]] = {name: [] for name in taking_part(READING)}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for name, figures in batched.items():
                figures.append(run("batched", name, folder, batches))
            for name, figures in reading.items():
                figures.append(run("read", name, folder, READS))
            for name, figures in singly.items():
                with tempfile.TemporaryDirectory() as fresh:
                    figures.append(run("singly", name, fresh, batches * SINGLY_SHARE.get(name, 100)))
    _print_writes(f"Batches of {contenders.BATCH} points of 5 fields", "call", BATCHED_LABELS, batched)
    _print_writes(f"Single points of 5 fields from {TASKS} tasks", "point", SINGLY_LABELS, singly)
    _print_reads(reading)


def _print_writes(title: str, unit: str, labels: dict[str, str], runs: dict[str, list[dict[str, Any]]]) -> None:
    rates = {name: median([run["rate"] for run in of]) for name, of in runs.items()}
    peers = [("x aiosqlite", rates["aiosqlite"])]
    peers += [("x apsw", rates["apsw"])] if "apsw" in rates else [("x a transaction each", rates["transactions"])]
    rows = []
    for name, rate in rates.items():
        waits = [f"{median([run[key] for run in runs[name]]) * 1000:.2f}" for key in ("p50", "p99")]
        rows.append((labels[name], f"{rate:,.0f}", *waits, *(f"{rate / peer:.2f}" for _, peer in peers)))
    print_table(title, ("contender", "points/s", f"ms a {unit}, p50", "p99", *(name for name, _ in peers)), rows)


def _print_reads(runs: dict[str, list[dict[str, Any]]]) -> None:
    labels = {
        "latest": "latest state of one system",
        "hour": "1 h of one metric of one system (360 values)",
        "hour_states": "1 h of whole states of one system (360 states, 1 800 values)",
    }

    def cell(name: str, key: str) -> str:
        if key not in runs[name][0]:
            return "-"
        p50, p99 = (median([run[key][place] for run in runs[name]]) * 1000 for place in (0, 1))
        return f"{p50:.3f} / {p99:.3f}"

    rows = [(label, *(cell(name, key) for name in runs)) for key, label in labels.items()]
    print_table("Reading back, ms (p50 / p99)", ("read", *(READING_LABELS[name] for name in runs)), rows)


def measure_all(options: argparse.Namespace) -> bool:
    """Print every table that was asked for; False when store and pandas differ."""
    share = 100 if options.quick else 1
    rounds = 1 if options.quick else options.rounds
    values = options.values // share
    picture = Path(tempfile.gettempdir()) / PICTURE.name if options.quick else PICTURE
    parts: dict[str, Callable[[], object]] = {
        "replay": lambda: measure_replay(options.data.resolve(), min(rounds, 2)),
        "store": lambda: measure_store(rounds, max(10, options.batches // share)),
        "units": lambda: asyncio.run(measure_units(max(128, 4_000 // share), max(20, options.batches // share))),
        "ranges": lambda: asyncio.run(measure_ranges(1_000_000 // share)),
        "scans": lambda: asyncio.run(measure_scans(min(values, 10_000_000))),
        "documents": lambda: measure_documents(rounds, max(20_000, 20_000 // share)),
        "graph": lambda: measure_graph(100_000 // share, 500_000 // share),
        "specialists": lambda: measure_specialists(rounds, 400 // share),
        "served": lambda: measure_served(1_000_000 // share, 3 if options.quick else 15),
        "recovery": lambda: measure_recovery(1 if options.quick else 10),
        "growth": lambda: asyncio.run(measure_growth(values, 100_000 // share, picture)),
    }
    same = True
    with servers.postgresql(options.postgresql):
        for name, measure in parts.items():
            if options.only in (None, name):
                begun = time.perf_counter()
                same = measure() is not False and same
                print(f"\n({name}: {time.perf_counter() - begun:.0f} s)", flush=True)
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of timestamp,value files (../shared/data/nab)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--values", type=int, default=10_000_000, help="how far the store grows")
    parser.add_argument("--postgresql", type=int, default=15, choices=(15, 18))
    parser.add_argument("--quick", action="store_true", help="a hundredth of everything, once")
    parser.add_argument("--only", choices=PARTS)
    for hidden in ("--role", "--contender", "--folder", "--url", "--token", "--mode"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "node":
        asyncio.run(host_node(Path(options.folder), options.count))
    elif options.role == "publish":
        asyncio.run(publish(options.url, options.token, options.data, options.mode))
    elif options.role:
        play(options.role, options.contender, Path(options.folder), options.count)
    else:
        raise SystemExit(0 if measure_all(options) else 1)


if __name__ == "__main__":
    main()
