"""Units of work, and a second process that reads while the first one writes.

    python benchmarks/_store_units.py [--units 2000] [--batches 200]

A unit of work writes two documents, ten points, a node, an edge and an event of the outbox, made before the clock
starts. It is measured alone, from 64 tasks, and one after the other while telemetry comes in at 60 000 points/s. The
reader asks for latest values and for hours until the writer is done, at least 1 000 times.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import _store_contenders as contenders
from _harness import print_table, read_line, release, say, start
from _store_contenders import BATCH, BEGUN, SYSTEMS
from _store_servers import DSN, emptied, postgresql, postgresql_store

TASKS = 64
POINTS = 10
INGEST_RATE = 60_000
BATCHES_MADE = 200
QUERIES_MIN = 1_000
ENGINES = ("sqlite", "postgresql")

DOCUMENT = {"kind": "plan", "status": "open", "note": "x" * 300, "steps": [1, 2, 3]}


def opened(engine: str, folder: Path, **options: Any) -> Any:
    from polaris.storage import PolarisDataStore

    if engine == "postgresql":
        return postgresql_store("units", **options)
    return PolarisDataStore.sqlite(folder / "units.db", **options)


class Content(NamedTuple):
    """What a unit of work writes, made before the clock starts."""

    number: int
    points: list[Any]
    state: Any


def contents(first: int, count: int) -> list[Content]:
    return [
        Content(number, contenders.points(number * POINTS, POINTS), state)
        for number, state in enumerate(contenders.states(first, count), first)
    ]


async def unit(store: Any, content: Content) -> float:
    """One unit of work; its seconds."""
    from polaris.domain import TelemetryEvent

    number, made, state = content
    begun = time.perf_counter()
    async with store.unit_of_work() as work:
        await work.documents.put_document("plans", f"p{number}", DOCUMENT)
        await work.documents.put_document("runs", f"r{number}", DOCUMENT)
        await work.time_series.store_many("units", made)
        await work.graph.add_node(f"n{number}", {"tier": number % 5})
        await work.graph.add_edge(f"n{number}", "root", "serves", {})
        await work.outbox.add("polaris.telemetry.units", TelemetryEvent(state))
        await work.commit()
    return time.perf_counter() - begun


def at(calls_s: Sequence[float], percent: int) -> float:
    return statistics.quantiles(calls_s, n=100, method="inclusive")[percent - 1] * 1e3


async def measured_units(engine: str, folder: Path, units: int) -> dict[str, list[float]]:
    """Rate, median and 99th percentile in milliseconds: alone, from 64 tasks, and beside telemetry."""
    async with opened(engine, folder) as store:
        await store.graph.add_node("root", {})

        async def some(of: Sequence[Content]) -> list[float]:
            return [await unit(store, content) for content in of]

        found: dict[str, list[float]] = {}

        async def measure(name: str, tasks: int, made: Sequence[Content]) -> None:
            gc.freeze()  # what was made is no business of the collector while the clock runs
            begun = time.perf_counter()
            calls_s = [one for of in await asyncio.gather(*(some(made[n::tasks]) for n in range(tasks))) for one in of]
            found[name] = [len(calls_s) / (time.perf_counter() - begun), at(calls_s, 50), at(calls_s, 99)]

        shares = (units // 2, max(units, TASKS * 2), max(200, units // 4))
        alone, together, beside = (contents(sum(shares[:place]), count) for place, count in enumerate(shares))
        await measure("alone", 1, alone)
        await measure("64 tasks", TASKS, together)
        ended = asyncio.Event()
        batches = [contenders.points(number * BATCH, BATCH) for number in range(BATCHES_MADE)]
        telemetry = asyncio.create_task(ingest(store, batches, ended))
        await asyncio.sleep(0.2)
        await measure("beside telemetry", 1, beside)
        ended.set()
        found["telemetry"] = [await telemetry]
    return found


async def ingest(store: Any, made: Sequence[list[Any]], ended: asyncio.Event) -> float:
    """Telemetry at the rate that is the target, or as much of it as the store takes; points a second.

    The same values come again and again, each time as the points of a later time.
    """
    from polaris.storage._points import valid_point

    span = made[-1][-1].timestamp - made[0][0].timestamp + timedelta(seconds=contenders.INTERVAL_S)
    begun, count = time.perf_counter(), 0
    while not ended.is_set():
        later = span * (count // len(made))
        batch = [valid_point(of.timestamp + later, of.tags, of.fields) for of in made[count % len(made)]]
        await store.time_series.store_many("samples", batch)
        count += 1
        await asyncio.sleep(max(0.0, begun + count * BATCH / INGEST_RATE - time.perf_counter()))
    return count * BATCH / (time.perf_counter() - begun)


async def read_beside(engine: str, folder: Path) -> None:
    """Ask until the parent process says stop, and tell how that went."""
    from polaris.storage import TimeRange

    calls_s: list[float] = []
    errors: list[str] = []
    async with opened(engine, folder, read_only=True) as store:
        say(ready=True)
        stopped = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        hour = TimeRange(BEGUN, BEGUN + timedelta(hours=1))
        while not stopped.done() or len(calls_s) < QUERIES_MIN:
            tags = {"system": str(len(calls_s) % SYSTEMS)}
            begun = time.perf_counter()
            try:
                if len(calls_s) % 2:
                    await store.time_series.query_time_series("samples", hour, tags, fields=["cpu"])
                else:
                    await store.time_series.latest("samples", tags)
            except Exception as error:  # counted
                errors.append(repr(error))
            calls_s.append(time.perf_counter() - begun)
        await stopped
    say(queries=len(calls_s), errors=errors[:3], failed=len(errors), p50=at(calls_s, 50), p99=at(calls_s, 99))


async def write_beside(engine: str, folder: Path, batches: int, *, read: bool) -> dict[str, Any]:
    """Batches of 500 points, with or without a second process that reads what is there."""
    async with opened(engine, folder) as store:
        await store.time_series.store_many("samples", contenders.points(0, BATCH))
        reader = None
        if read:
            reader = start(__file__, "--role", "reader", "--engine", engine, "--folder", str(folder))
            await asyncio.to_thread(read_line, reader)
        figures = await contenders.write_batches(
            contenders.points, lambda batch: store.time_series.store_many("samples", batch), batches
        )
        told: dict[str, Any] = {}
        if reader is not None:
            release(reader, "stop")
            told = await asyncio.to_thread(read_line, reader)
            reader.wait(60)
    rate = figures.points / figures.seconds
    return {"rate": rate, "p50_ms": at(figures.calls_s, 50), "p99_ms": at(figures.calls_s, 99), **told}


def engines() -> list[str]:
    return [engine for engine in ENGINES if engine == "sqlite" or DSN in os.environ]


async def fresh(engine: str) -> None:
    if engine == "postgresql":
        await emptied("units")


async def measure_units(units: int, batches: int) -> None:
    rows = []
    for engine in engines():
        await fresh(engine)
        with tempfile.TemporaryDirectory() as folder:
            found = await measured_units(engine, Path(folder), units)
        telemetry = found.pop("telemetry")[0]
        rows += [(engine, name, f"{rate:,.0f}", f"{p50:.2f}", f"{p99:.2f}") for name, (rate, p50, p99) in found.items()]
        rows.append((engine, f"(the telemetry beside them: {telemetry:,.0f} points/s)", "", "", ""))
    print_table(
        "Units of work: 2 documents, 10 points, a node, an edge, an event",
        ("engine", "how", "a second", "p50 ms", "p99"),
        rows,
    )
    await measure_reading(batches)


async def measure_reading(batches: int) -> None:
    """Print what a writer loses to a reader in another process, and what the reader sees."""
    rows: list[tuple[str, ...]] = []
    for engine in engines():
        for read in (False, True):
            await fresh(engine)
            with tempfile.TemporaryDirectory() as folder:
                told = await write_beside(engine, Path(folder), batches, read=read)
            writing = (f"{told['rate']:,.0f}", f"{told['p50_ms']:.2f}", f"{told['p99_ms']:.2f}")
            reading = ("-",) * 4
            if read:
                reading = (str(told["queries"]), str(told["failed"]), f"{told['p50']:.2f}", f"{told['p99']:.2f}")
                for error in told["errors"]:
                    print(f"an error of the reader: {error}")
            rows.append((engine, "a second process reads" if read else "alone", *writing, *reading))
    print_table(
        f"Batches of {BATCH} points while a second process reads",
        ("engine", "writer", "points/s", "ms a call, p50", "p99", "queries", "errors", "ms a query, p50", "p99"),
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=2_000)
    parser.add_argument("--batches", type=int, default=200)
    for hidden in ("--role", "--engine", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "reader":
        asyncio.run(read_beside(options.engine, Path(options.folder)))
        return
    with postgresql():
        asyncio.run(measure_units(options.units, options.batches))


if __name__ == "__main__":
    main()
