"""Ranges over a million points of one system, as a running node gives them: by HTTP, and by `polaris query`.

    python benchmarks/_store_served.py [--points 1000000] [--times 15]

A node with no systems of its own runs over an embedded store with one system of a million states, summarised in windows
of five minutes as a node does it by itself. HTTP: from the request to the last byte of the answer, on one connection
that stays open, as the page has it. Command: from the start of the process to its end, its output thrown away; beside
it in the same turns `polaris --help` and the bare interpreter, which say what of it is starting.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

from _harness import median, print_table
from _store_contenders import BEGUN
from _store_scans import BUCKET, compacted, fill_one, with_rollups
from runtime import POLARIS, await_health, free_port

HOUR_S, DAY_S = 3_600, 86_400
SHOWN = 360


def text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


async def prepare(path: Path, points: int) -> None:
    from polaris.storage import PolarisDataStore

    path.parent.mkdir()
    async with PolarisDataStore.sqlite(path) as store:
        await fill_one(store, points)
        await compacted(store)
        await with_rollups(store, store.states.collection)


def asked_by_http(port: int, points: int) -> dict[str, Callable[[], int]]:
    """What the page asks for, by what it is; each gives how many values came."""
    import json

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    end = BEGUN + timedelta(seconds=points)

    def ask(kind: str, seconds: int, **arguments: str) -> int:
        span = {"start": text(end - timedelta(seconds=seconds)), "end": text(end)}
        connection.request("GET", f"/api/v1/systems/big/{kind}?{urlencode({'metric': 'cpu', **span, **arguments})}")
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return len(json.loads(body)["values"])

    def buckets(seconds: int, aggregation: str, width_s: int) -> int:
        return ask("aggregates", seconds, aggregation=aggregation, bucket_s=str(width_s))

    return {
        "HTTP, 15 min, single points": lambda: ask("series", 900),
        "HTTP, 24 h, averages": lambda: buckets(DAY_S, "avg", DAY_S // SHOWN),
        "HTTP, all, averages, buckets of an hour (page)": lambda: buckets(points, "avg", HOUR_S),
        "HTTP, all, averages, 360 buckets": lambda: buckets(points, "avg", -(-points // SHOWN)),
        "HTTP, all, p95, 360 buckets": lambda: buckets(points, "p95", -(-points // SHOWN)),
    }


def asked_by_command(folder: Path, points: int) -> dict[str, list[str]]:
    end = text(BEGUN + timedelta(seconds=points))
    query = [str(POLARIS), "query", "big", "cpu", "--start", text(BEGUN), "--end", end]
    return {
        "polaris query, all, averages, buckets of an hour": [*query, "--agg", "avg", "--bucket", "1h"],
        "polaris query, the latest state": [str(POLARIS), "query", "big"],
        "polaris --help": [str(POLARIS), "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }


def measure_served(points: int = 1_000_000, times: int = 15) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(prepare(folder / "data" / "polaris.db", points))
        port = free_port()
        config = folder / "polaris.toml"
        config.write_text(
            f'[node]\ndata_dir = "{folder}/data"\n[http]\nport = {port}\n[systems]\n'
            f"[store.retention]\nsummary_s = {int(BUCKET.total_seconds())}\n"  # the windows that are there already
        )
        environment = {key: value for key, value in os.environ.items() if not key.startswith("POLARIS_")}
        node = subprocess.Popen(
            [str(POLARIS), "run", "--config", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=environment,
        )
        taken: dict[str, list[float]] = {}
        try:
            await_health(node, port)
            by_http = asked_by_http(port, points)
            for _ in range(times):
                for label, ask in by_http.items():
                    begun = time.perf_counter()
                    assert ask() > 1
                    taken.setdefault(label, []).append(time.perf_counter() - begun)
            for _ in range(times):
                for label, command in asked_by_command(folder, points).items():
                    begun = time.perf_counter()
                    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, cwd=folder, env=environment)
                    taken.setdefault(label, []).append(time.perf_counter() - begun)
        finally:
            node.send_signal(signal.SIGINT)
            node.wait(60)
    print_table(
        f"A node's answers over {points:,} points of one system, ms (median and most of {times})",
        ("question", "median", "most"),
        [(label, f"{median(all_s) * 1e3:.0f}", f"{max(all_s) * 1e3:.0f}") for label, all_s in taken.items()],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=15)
    options = parser.parse_args()
    measure_served(options.points, options.times)


if __name__ == "__main__":
    main()
