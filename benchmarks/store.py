"""The store: a replay of real files through a whole node, and its speed beside SQLite driven by hand.

    python benchmarks/store.py [--data FOLDER] [--rounds 3] [--batches 300]

1. Replay: every `*.csv` (timestamp,value) below the folder is a managed system. A publisher process sends its lines as
   telemetry events to a node in another process: embedded NATS, JetStream, the telemetry path, the SQLite store. Then
   the hourly aggregates of the store are compared with those of pandas. Points per second are from the first publish to
   the last commit.
2. Store alone, each contender in a process of its own, interleaved, medians: batches of 500 points of 5 fields, single
   points from 64 tasks, and reads of what was written. What is written is made before the clock starts; every commit is
   synced (WAL, synchronous=FULL).
3. The graph: see `_store_graph.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _store_contenders as contenders
import psutil
from _harness import median, print_table, read_line, say, start
from _store_graph import measure_graph

DATA = Path(__file__).resolve().parents[1] / "../shared/data/nab"
TASKS = 64
READS = 2000
MIB = 1 << 20

BATCHED_LABELS = {
    "apsw": "apsw rows by hand, no event loop",
    "points": "POLARIS time_series.store_many",
    "states": "POLARIS states.save_many",
    "aiosqlite": "aiosqlite rows, executemany + commit",
}
SINGLY_LABELS = {
    "states": "POLARIS states.save",
    "aiosqlite": "aiosqlite rows, tasks share transactions",
    "transactions": "aiosqlite rows, a transaction each",
}
BATCHED = {
    "apsw": contenders.with_apsw,
    "points": contenders.with_points,
    "states": contenders.with_states,
    "aiosqlite": contenders.with_aiosqlite,
}
SINGLY = {
    "states": contenders.with_states_singly,
    "aiosqlite": contenders.with_aiosqlite_singly,
    "transactions": contenders.with_aiosqlite_transactions,
}
READING = {"states": contenders.reading_states, "aiosqlite": contenders.reading_aiosqlite}
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
    batched: dict[str, list[dict[str, Any]]] = {name: [] for name in BATCHED}
    singly: dict[str, list[dict[str, Any]]] = {name: [] for name in SINGLY}
    reading: dict[str, list[dict[str, Any]]] = {name: [] for name in READING}
    counts = dict(zip(SINGLY, (batches * 100, batches * 100, batches * 20), strict=True))
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for name in BATCHED:
                batched[name].append(run("batched", name, folder, batches))
            for name in READING:
                reading[name].append(run("read", name, folder, READS))
            for name in SINGLY:
                with tempfile.TemporaryDirectory() as fresh:
                    singly[name].append(run("singly", name, fresh, counts[name]))
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

    rows = [(label, cell("states", key), cell("aiosqlite", key)) for key, label in labels.items()]
    print_table("Reading back, ms (p50 / p99)", ("read", "POLARIS", "aiosqlite, rows"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of timestamp,value files (../shared/data/nab)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--only", choices=("replay", "store", "graph"))
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
        same = options.only in ("store", "graph") or measure_replay(options.data.resolve(), options.rounds)
        if options.only in (None, "store"):
            measure_store(options.rounds, options.batches)
        if options.only in (None, "graph"):
            measure_graph()
        raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()
