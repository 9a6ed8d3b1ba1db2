"""The store beside servers made for time series alone: VictoriaMetrics and InfluxDB, from Debian's packages.

    python benchmarks/_store_specialists.py [--batches 400] [--rounds 3]

Each contender gets the same points in turns: batches of 500 points of 5 fields, one after the other, made before the
clock starts (for the servers: the text of their line protocol). Then random systems are asked for. The servers are
spoken to by HTTP on one connection that stays open, and what they say is decoded; the store works in this process.
What an answered write means differs: POLARIS and InfluxDB have it synced to disk, VictoriaMetrics holds it in memory
for some seconds. A contender whose program is missing is left out, with a line to say so (Debian: apt-get install
victoria-metrics influxdb).
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import random
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import _store_contenders as contenders
from _harness import median, print_table
from _store_contenders import BATCH, BEGUN, FIELDS, INTERVAL_S, SYSTEMS

ASKED = 200
STARTED_S_MAX = 20.0
SETTLE_S = 8.0
BUCKET = timedelta(minutes=5)
BEGUN_S = int(BEGUN.timestamp())
HOUR = timedelta(hours=1)


def lines_of(first: int, count: int) -> bytes:
    """Points in the line protocol, times in seconds."""
    return "\n".join(
        f"samples,system={number % SYSTEMS} "
        + ",".join(f"{name}={value!r}" for name, value in zip(FIELDS, contenders.values_of(number), strict=True))
        + f" {BEGUN_S + number // SYSTEMS * INTERVAL_S}"
        for number in range(first, first + count)
    ).encode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def size_of(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


class Contender(ABC):
    """One engine with a folder of its own. What it is asked for, it counts: a wrong number ends the run."""

    label = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def make(self, first: int, count: int) -> Any:
        """A batch, as this engine takes it."""

    @abstractmethod
    async def write(self, batch: Any) -> None: ...

    @abstractmethod
    async def settle(self) -> None:
        """Let it finish what it does behind the answers."""

    @abstractmethod
    async def latest(self, system: int, until_s: int) -> int:
        """Ask for the newest point; how many values came."""

    @abstractmethod
    async def hour(self, system: int, until_s: int) -> int:
        """Ask for an hour of one field; how many values came."""

    @abstractmethod
    async def averages(self, system: int, until_s: int) -> int:
        """Ask for the averages of one field by 5 minutes over everything; how many buckets came."""

    @abstractmethod
    async def open(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...


class Polaris(Contender):
    label = "POLARIS, SQLite"

    def make(self, first: int, count: int) -> Any:
        return contenders.points(first, count)

    async def open(self) -> None:
        from polaris.storage import PolarisDataStore

        self.store = PolarisDataStore.sqlite(self.folder / "store.db")
        await self.store.connect()

    async def write(self, batch: Any) -> None:
        await self.store.time_series.store_many("samples", batch)

    async def settle(self) -> None:
        await self.store.time_series.engine.compact()  # type: ignore[attr-defined]

    async def latest(self, system: int, until_s: int) -> int:
        (point,) = await self.store.time_series.latest("samples", {"system": str(system)})
        return len(point.fields)

    async def hour(self, system: int, until_s: int) -> int:
        from polaris.storage import TimeRange

        span = TimeRange(BEGUN, BEGUN + HOUR)
        return len(
            await self.store.time_series.query_time_series("samples", span, {"system": str(system)}, fields=["cpu"])
        )

    async def averages(self, system: int, until_s: int) -> int:
        from polaris.storage import TimeRange

        span = TimeRange(BEGUN, BEGUN + timedelta(seconds=until_s - BEGUN_S))
        return len(
            await self.store.time_series.aggregate_time_series(
                "samples", span, "avg", bucket=BUCKET, tags={"system": str(system)}, fields=["cpu"]
            )
        )

    async def close(self) -> None:
        await self.store.disconnect()


class Server(Contender):
    """A server of its own on a free port of loopback."""

    program = ""
    write_path = ""

    def make(self, first: int, count: int) -> Any:
        return lines_of(first, count)

    @abstractmethod
    def command(self, port: int) -> list[str]: ...

    @abstractmethod
    def is_ready(self) -> bool: ...

    async def open(self) -> None:
        self.port = free_port()
        self.process = subprocess.Popen(
            self.command(self.port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder
        )
        until = time.monotonic() + STARTED_S_MAX
        while True:
            try:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                if self.is_ready():
                    return
            except OSError:
                self.connection.close()
            if time.monotonic() > until or self.process.poll() is not None:
                raise RuntimeError(f"{self.program} does not start")
            await asyncio.sleep(0.05)

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        self.connection.request(method, path, body)
        response = self.connection.getresponse()
        answer = response.read()
        if response.status >= 300:
            raise RuntimeError(f"{self.program}: {response.status} {answer[:200]!r}")
        return answer

    async def write(self, batch: Any) -> None:
        self.ask("POST", self.write_path, batch)

    async def close(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.wait(30)


class VictoriaMetrics(Server):
    label = "VictoriaMetrics"
    program = "victoria-metrics"
    write_path = "/write?precision=s"

    def command(self, port: int) -> list[str]:
        return [
            self.program,
            f"-storageDataPath={self.folder}",
            f"-httpListenAddr=127.0.0.1:{port}",
            "-retentionPeriod=100y",
            "-search.latencyOffset=0",
            "-search.disableCache",
            "-loggerLevel=ERROR",
        ]

    def is_ready(self) -> bool:
        return self.ask("GET", "/health") == b"OK"

    async def settle(self) -> None:
        self.ask("GET", "/internal/force_flush")
        self.ask("GET", "/internal/force_merge")
        await asyncio.sleep(SETTLE_S)

    async def latest(self, system: int, until_s: int) -> int:
        # The fields of a point are metrics of their own here.
        query = urlencode({"query": f'last_over_time({{system="{system}"}}[1d])', "time": until_s})
        return len(json.loads(self.ask("GET", f"/api/v1/query?{query}"))["data"]["result"])

    async def hour(self, system: int, until_s: int) -> int:
        match = quote(f'samples_cpu{{system="{system}"}}')
        end_s = BEGUN_S + 3600
        answer = self.ask("GET", f"/api/v1/export?match[]={match}&start={BEGUN_S}&end={end_s - 1}")
        return sum(len(json.loads(line)["values"]) for line in answer.splitlines())

    async def averages(self, system: int, until_s: int) -> int:
        step = int(BUCKET.total_seconds())
        arguments = {
            "query": f'avg_over_time(samples_cpu{{system="{system}"}}[5m])',
            "start": BEGUN_S + step - 1,
            "end": until_s + step - 1,
            "step": f"{step}s",
            "nocache": "1",
        }
        (series,) = json.loads(self.ask("GET", f"/api/v1/query_range?{urlencode(arguments)}"))["data"]["result"]
        return len(series["values"])


class InfluxDB(Server):
    label = "InfluxDB 1.6"
    program = "influxd"
    write_path = "/write?db=bench&precision=s"

    def command(self, port: int) -> list[str]:
        settings = self.folder / "influxdb.conf"
        settings.write_text(
            f'reporting-disabled = true\nbind-address = "127.0.0.1:{free_port()}"\n'
            f'[meta]\ndir = "{self.folder}/meta"\n'
            f'[data]\ndir = "{self.folder}/data"\nwal-dir = "{self.folder}/wal"\n'
            'cache-snapshot-write-cold-duration = "2s"\nquery-log-enabled = false\n'
            f'[http]\nbind-address = "127.0.0.1:{port}"\nlog-enabled = false\n'
            "[monitor]\nstore-enabled = false\n"
        )
        return [self.program, "-config", str(settings)]

    def is_ready(self) -> bool:
        self.ask("GET", "/ping")
        self.ask("POST", "/query?" + urlencode({"q": "CREATE DATABASE bench"}))
        return True

    async def settle(self) -> None:
        await asyncio.sleep(SETTLE_S)

    def _rows(self, question: str) -> list[list[Any]]:
        answer = self.ask("GET", "/query?" + urlencode({"db": "bench", "epoch": "s", "q": question}))
        (result,) = json.loads(answer)["results"]
        return [row for series in result.get("series", ()) for row in series["values"]]

    async def latest(self, system: int, until_s: int) -> int:
        wanted = ", ".join(FIELDS)
        question = f"SELECT {wanted} FROM samples WHERE system = '{system}' ORDER BY time DESC LIMIT 1"
        return len(self._rows(question)[0]) - 1

    async def hour(self, system: int, until_s: int) -> int:
        where = f"system = '{system}' AND time >= {BEGUN_S}s AND time < {BEGUN_S + 3600}s"
        return len(self._rows(f"SELECT cpu FROM samples WHERE {where}"))

    async def averages(self, system: int, until_s: int) -> int:
        where = f"system = '{system}' AND time >= {BEGUN_S}s AND time < {until_s}s"
        return len(self._rows(f"SELECT mean(cpu) FROM samples WHERE {where} GROUP BY time(5m)"))


CONTENDERS: tuple[Callable[[Path], Contender], ...] = (Polaris, VictoriaMetrics, InfluxDB)
ROWS = {
    "rate": "points/s, 500 a batch",
    "p50": "a batch, p50 ms",
    "p99": "a batch, p99 ms",
    "latest": "newest point of one system, ms",
    "hour": "1 h of one field, 360 values, ms",
    "averages": "5-minute averages of one field, ms",
    "bytes": "bytes a value",
}


async def play(contender: Contender, batches: int) -> dict[str, float]:
    """One round of one contender: its figures by the keys of `ROWS`."""
    made = [contender.make(number * BATCH, BATCH) for number in range(batches)]
    points = batches * BATCH
    seconds = points // SYSTEMS * INTERVAL_S
    await contender.open()
    try:
        calls_s = []
        begun = time.perf_counter()
        for batch in made:
            called = time.perf_counter()
            await contender.write(batch)
            calls_s.append(time.perf_counter() - called)
        taken_s = time.perf_counter() - begun
        await contender.settle()
        figures = {"rate": points / taken_s, "p50": statistics.median(calls_s) * 1e3}
        figures["p99"] = statistics.quantiles(calls_s, n=100)[98] * 1e3
        buckets = -(-seconds // int(BUCKET.total_seconds()))
        questions = {
            "latest": (contender.latest, len(FIELDS)),
            "hour": (contender.hour, min(360, points // SYSTEMS)),
            "averages": (contender.averages, buckets),
        }
        chance = random.Random(3)
        for name, (question, expected) in questions.items():
            times = []
            for _ in range(ASKED):
                system = chance.randrange(SYSTEMS)
                asked = time.perf_counter()
                found = await question(system, BEGUN_S + seconds)
                times.append(time.perf_counter() - asked)
                if found != expected:
                    raise RuntimeError(f"{contender.label}: {name} of {system} gave {found}, expected {expected}")
            figures[name] = statistics.median(times) * 1e3
    finally:
        await contender.close()
    figures["bytes"] = size_of(contender.folder) / (points * len(FIELDS))
    return figures


def measure_specialists(rounds: int = 3, batches: int = 400) -> None:
    """Print the table: medians of the rounds."""
    figures: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        for make in CONTENDERS:
            with tempfile.TemporaryDirectory() as folder:
                contender = make(Path(folder))
                if isinstance(contender, Server) and shutil.which(contender.program) is None:
                    print(f"\nwithout {contender.label}: {contender.program} is not there")
                    continue
                figures.setdefault(contender.label, []).append(asyncio.run(play(contender, batches)))

    def cell(label: str, key: str) -> str:
        value = median([of[key] for of in figures[label]])
        return f"{value:,.0f}" if key == "rate" else f"{value:.2f}"

    print_table(
        f"Servers of time series: {batches * BATCH:,} points of {len(FIELDS)} fields (median of {rounds})",
        ("what", *figures),
        [(label, *(cell(name, key) for name in figures)) for key, label in ROWS.items()],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    measure_specialists(options.rounds, options.batches)


if __name__ == "__main__":
    main()
