"""Scans of many values: aggregates by system, percentiles, the ranges that page and command line ask for, and disk.

    python benchmarks/_store_scans.py [--values 10000000] [--range-points 1000000]

100 systems report 5 fields every 10 s. The store is asked through the public asynchronous API; the peers hold the same
numbers in rows of their own and answer on this thread. Best of three each, since what else the machine does only
adds; what takes seconds is asked once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import _store_contenders as contenders
from _harness import print_table
from _store_contenders import BEGUN, FIELDS, INTERVAL_S, SYSTEMS
from _store_servers import DSN, SAMPLES, emptied, postgresql, postgresql_store

STEP = 10_000
BUCKET = timedelta(minutes=5)
BUCKET_US = 300_000_000
SETTLED_S = 2.0
SETTLED_S_MAX = 60.0
ASKED_S_MAX = 3.0
SHOWN = 360
"""Buckets that the page shows."""

Cells = dict[str, str]


async def best(ask: Callable[[], Awaitable[Any]], times: int = 3) -> float:
    """The seconds of the quickest of some calls; of as many as fit into some seconds."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        await ask()
        taken.append(time.perf_counter() - begun)
        if sum(taken) > ASKED_S_MAX:
            break
    return min(taken)


async def fill(store: Any, points: int) -> float:
    """Write points of all systems in turns; the seconds of the writing alone."""
    taken = 0.0
    for first in range(0, points, STEP):
        batch = contenders.points(first, min(STEP, points - first))
        begun = time.perf_counter()
        await store.time_series.store_many("samples", batch)
        taken += time.perf_counter() - begun
    return taken


async def compacted(store: Any) -> None:
    """Bring the file into its densest form, as `polaris store compact` does."""
    await store.time_series.engine.compact()


async def with_rollups(store: Any, collection: str) -> float:
    """Have windows of 5 minutes summarised, as a node does it for systems that report each second; the seconds."""
    from polaris.storage import RetentionPolicy, RollupPolicy

    begun = time.perf_counter()
    await store.time_series.set_retention(collection, RetentionPolicy(None, [RollupPolicy(BUCKET)]))
    if "sqlite" not in await store.stats():
        await store.time_series.apply_retention(collection)
        return time.perf_counter() - begun
    slices, since = -1, begun
    while time.perf_counter() - begun < SETTLED_S_MAX:
        await asyncio.sleep(0.25)
        now = int((await store.stats()).get("sqlite", {}).get("rollup_slices", 0))
        if now != slices:
            slices, since = now, time.perf_counter()
        elif time.perf_counter() - since > SETTLED_S:
            break
    return since - begun


async def scanned(store: Any) -> dict[str, float]:
    """Seconds of the aggregates over everything."""
    from polaris.storage import AggregationType, TimeRange

    series, everything = store.time_series, TimeRange.all()
    few = list(FIELDS)
    return {
        "avg": await best(
            lambda: series.aggregate_time_series(
                "samples", everything, AggregationType.AVG, "system", bucket=BUCKET, fields=few
            )
        ),
        "p95": await best(
            lambda: series.aggregate_time_series("samples", everything, AggregationType.P95, "system", fields=few), 1
        ),
    }


async def in_sqlite(folder: Path, points: int) -> tuple[Cells, Path]:
    from polaris.storage import PolarisDataStore, TimeRange, export_time_series

    path = folder / "scans.db"
    async with PolarisDataStore.sqlite(path) as store:
        written_s = await fill(store, points)
        await compacted(store)
        disk = path.stat().st_size / (points * len(FIELDS))
        raw = await scanned(store)
        summarised_s = await with_rollups(store, "samples")
        rolled = await scanned(store)
        exported = folder / "samples.parquet"
        begun = time.perf_counter()
        await export_time_series(store.time_series, "samples", TimeRange.all(), exported)
        exported_s = time.perf_counter() - begun
    cells = {
        "written": f"{points / written_s:,.0f}",
        "avg": f"{raw['avg']:.2f}, rolled up {rolled['avg']:.3f}",
        "p95": f"{raw['p95']:.2f}",
        "disk": f"{disk:.1f}",
        "upkeep": f"summarised in {summarised_s:.0f} s, exported in {exported_s:.0f} s",
    }
    return cells, exported


async def in_postgresql(points: int) -> Cells:
    await emptied("scans")
    async with postgresql_store("scans") as store:
        written_s = await fill(store, points)
        size = await _pg_bytes("bench_scans") / (points * len(FIELDS))
        raw = await scanned(store)
    return {
        "written": f"{points / written_s:,.0f}",
        "avg": f"{raw['avg']:.2f}",
        "p95": f"{raw['p95']:.2f}",
        "disk": f"{size:.1f}",
    }


async def _pg_bytes(schema: str) -> int:
    import asyncpg  # type: ignore[import-untyped]

    connection = await asyncpg.connect(os.environ[DSN])
    size = await connection.fetchval(
        "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND c.relkind IN ('r', 'm')",
        schema,
    )
    await connection.close()
    return int(size or 0)


AVERAGES = ", ".join(f"avg(c{place})" for place in range(len(FIELDS)))
BUCKETS = f"SELECT series, ts - ts % {BUCKET_US}, {AVERAGES} FROM {{table}} GROUP BY 1, 2"


def _percentiles(of: str) -> str:
    return ", ".join(of.format(f"c{place}") for place in range(len(FIELDS)))


async def in_asyncpg(points: int) -> Cells:
    import asyncpg

    connection = await asyncpg.connect(os.environ[DSN])
    await connection.execute("DROP TABLE IF EXISTS scans")
    await connection.execute(SAMPLES.format(name="scans"))
    written_s = 0.0
    for first in range(0, points, STEP):
        rows = contenders.rows(first, min(STEP, points - first))
        begun = time.perf_counter()
        await connection.copy_records_to_table("scans", records=rows)
        written_s += time.perf_counter() - begun
    await connection.execute("ANALYZE scans")
    size = await connection.fetchval("SELECT pg_total_relation_size('scans')") / (points * len(FIELDS))
    p95 = f"SELECT series, {_percentiles('percentile_cont(0.95) WITHIN GROUP (ORDER BY {})')} FROM scans GROUP BY 1"
    cells = {
        "written": f"{points / written_s:,.0f}",
        "avg": f"{await best(lambda: connection.fetch(BUCKETS.format(table='scans'))):.2f}",
        "p95": f"{await best(lambda: connection.fetch(p95), 1):.2f}",
        "disk": f"{size:.1f}",
    }
    await connection.execute("DROP TABLE scans")
    await connection.close()
    return cells


async def in_duckdb(folder: Path, points: int, exported: Path) -> tuple[Cells, Cells]:
    """Its own file, filled in one statement; and the store's export read by it."""
    import duckdb

    path = folder / "scans.duckdb"
    connection = duckdb.connect(str(path))
    connection.execute("SET threads = 2")
    columns = ", ".join(f"((n * 37 + {place * 11}) % 1000) / 7.0 AS c{place}" for place in range(len(FIELDS)))
    connection.execute(
        f"CREATE TABLE scans AS SELECT {int(BEGUN.timestamp() * 1e6)} + n // {SYSTEMS} * {INTERVAL_S * 1_000_000}"
        " AS ts,"
        f" (n % {SYSTEMS})::INTEGER AS series, {columns} FROM range({points}) t(n)"
    )
    connection.execute("CHECKPOINT")

    def asked(sql: str) -> Callable[[], Awaitable[Any]]:
        async def ask() -> Any:
            return connection.execute(sql).fetchall()

        return ask

    p95 = f"SELECT series, {_percentiles('quantile_cont({}, 0.95)')} FROM scans GROUP BY 1"
    own = {
        "avg": f"{await best(asked(BUCKETS.format(table='scans'))):.3f}",
        "p95": f"{await best(asked(p95)):.2f}",
        "disk": f"{path.stat().st_size / (points * len(FIELDS)):.1f}",
    }
    names = [row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM '{exported}'").fetchall()]
    system = next(name for name in names if name.endswith("system"))
    instant = next(name for name in names if name in ("timestamp", "time", "ts"))
    values = [next(name for name in names if name.rsplit(".", 1)[-1] == field) for field in FIELDS]
    quoted = [f'"{name}"' for name in values]
    averages = ", ".join(f"avg({name})" for name in quoted)
    quantiles = ", ".join(f"quantile_cont({name}, 0.95)" for name in quoted)
    by_bucket = f"""SELECT "{system}", time_bucket(INTERVAL '5 minutes', "{instant}"), {averages} FROM '{exported}'"""
    by_system = f"""SELECT "{system}", {quantiles} FROM '{exported}' GROUP BY 1"""
    read = {
        "avg": f"{await best(asked(f'{by_bucket} GROUP BY 1, 2')):.3f}",
        "p95": f"{await best(asked(by_system)):.2f}",
        "disk": f"{exported.stat().st_size / (points * len(FIELDS)):.1f}",
    }
    connection.close()
    return own, read


HEADS = {
    "written": "points/s written, 10,000 a batch",
    "avg": "5-minute averages by system, s",
    "p95": "exact p95 by system, s",
    "disk": "bytes a value",
    "upkeep": "upkeep",
}


async def measure_scans(values: int) -> None:
    points = values // len(FIELDS)
    found: dict[str, Cells] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found["POLARIS, SQLite"], exported = await in_sqlite(folder, points)
        if DSN in os.environ:
            found["POLARIS, PostgreSQL"] = await in_postgresql(points)
            found["asyncpg rows, COPY"] = await in_asyncpg(points)
        own, read = await in_duckdb(folder, points, exported)
        found["DuckDB, a file of its own"] = own
        found["DuckDB, the store's Parquet export"] = read
    print_table(
        f"Scans of {values:,} values: {points:,} points of {len(FIELDS)} fields, {SYSTEMS} systems",
        ("contender", *HEADS.values()),
        [(label, *(cells.get(key, "-") for key in HEADS)) for label, cells in found.items()],
    )


# --- what page and command line ask for ---


async def fill_one(store: Any, points: int) -> None:
    """One system that reports every second."""
    from polaris.domain import HealthStatus, MetricValue, SystemState

    for first in range(0, points, STEP):
        await store.states.save_many(
            [
                SystemState(
                    "big",
                    BEGUN + timedelta(seconds=number),
                    {"cpu": MetricValue("cpu", number * 37 % 1000 / 7.0, "%")},
                    HealthStatus.HEALTHY,
                )
                for number in range(first, min(first + STEP, points))
            ]
        )


async def ranged(store: Any, points: int) -> dict[str, float]:
    """Milliseconds of the page's ranges, the last of them over everything."""
    from polaris.storage import AggregationType, TimeRange

    end = BEGUN + timedelta(seconds=points)
    states = store.states

    async def raw(seconds: int) -> None:
        span = TimeRange(end - timedelta(seconds=seconds), end)
        await states.series("big", "cpu", span, limit=5_001, order="desc")

    async def buckets(seconds: int, kind: Any, count: int = SHOWN, width_s: int | None = None) -> None:
        width = width_s or max(1, -(-seconds // count))
        await states.aggregate(
            "big",
            "cpu",
            TimeRange(end - timedelta(seconds=seconds), end),
            kind,
            bucket=timedelta(seconds=width),
        )

    asked: dict[str, Callable[[], Awaitable[None]]] = {
        "15 min, single points": lambda: raw(900),
        "1 h, averages": lambda: buckets(3_600, AggregationType.AVG),
        "24 h, averages": lambda: buckets(86_400, AggregationType.AVG),
        "all, averages, buckets of an hour (page)": lambda: buckets(points, AggregationType.AVG, width_s=3_600),
        "all, averages, 360 buckets": lambda: buckets(points, AggregationType.AVG),
        "all, averages, 60 buckets (command line)": lambda: buckets(points, AggregationType.AVG, 60),
        "all, p95, 360 buckets": lambda: buckets(points, AggregationType.P95),
        "all, last, 360 buckets": lambda: buckets(points, AggregationType.LAST),
        "all, stddev, 360 buckets": lambda: buckets(points, AggregationType.STDDEV),
        "all, rate, 360 buckets": lambda: buckets(points, AggregationType.RATE),
    }
    return {name: await best(ask) * 1e3 for name, ask in asked.items()}


async def measure_ranges(points: int) -> None:
    from polaris.storage import PolarisDataStore

    columns: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        async with PolarisDataStore.sqlite(Path(name) / "ranges.db") as store:
            await fill_one(store, points)
            await compacted(store)
            columns["SQLite, without summaries"] = await ranged(store, points)
            await with_rollups(store, store.states.collection)
            columns["SQLite, as a node keeps it"] = await ranged(store, points)
    if DSN in os.environ:
        await emptied("ranges")
        async with postgresql_store("ranges") as store:
            await fill_one(store, points)
            columns["PostgreSQL, without summaries"] = await ranged(store, points)
            await with_rollups(store, store.states.collection)
            columns["PostgreSQL, as a node keeps it"] = await ranged(store, points)
    rows = [(name, *(f"{columns[engine][name]:.1f}" for engine in columns)) for name in next(iter(columns.values()))]
    print_table(
        f"Ranges of one system with {points:,} points, as page and command line ask for them, ms",
        ("range", *columns),
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, default=10_000_000)
    parser.add_argument("--range-points", type=int, default=1_000_000)
    options = parser.parse_args()
    with postgresql():
        asyncio.run(measure_ranges(options.range_points))
        asyncio.run(measure_scans(options.values))


if __name__ == "__main__":
    main()
