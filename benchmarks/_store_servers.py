"""PostgreSQL servers for the benchmarks of the store, and what stands beside it there: asyncpg by hand, and DuckDB.

The servers sync every commit, as the embedded store does. Where there is none, its columns stay empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import _store_contenders as contenders
from _store_contenders import BEGUN, Figures

DSN = "POLARIS_BENCHMARK_DSN"
"""Where the contenders, each in a process of its own, find the server."""
CONNECTIONS = 10
_SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "2GB", "autovacuum_naptime": "1min"}

SAMPLES = (
    "CREATE TABLE {name} (ts bigint NOT NULL, series integer NOT NULL, c0 float8, c1 float8, c2 float8, c3 float8,"
    " c4 float8, PRIMARY KEY (series, ts))"
)
INSERT = (
    "INSERT INTO {name} VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (series, ts) DO UPDATE SET c0 = excluded.c0"
)
HOUR = "SELECT ts, c0 FROM {name} WHERE series = $1 AND ts >= $2 AND ts < $3 ORDER BY ts"
LATEST = "SELECT * FROM {name} WHERE series = $1 ORDER BY ts DESC LIMIT 1"


@contextlib.contextmanager
def postgresql(version: int = 15) -> Iterator[str | None]:
    """The address of a server of its own; None, with a line to say so, where PostgreSQL is missing."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.postgres_servers import PostgresServer

    try:
        server = PostgresServer(version, _SETTINGS)
        server.start()
    except AssertionError as error:
        print(f"\nwithout PostgreSQL: {error}")
        yield None
        return
    os.environ[DSN] = server.dsn
    try:
        yield server.dsn
    finally:
        del os.environ[DSN]
        server.close()


def postgresql_store(name: str, **options: Any) -> Any:
    """A store in a schema of its own on the server."""
    from polaris.storage import PolarisDataStore

    return PolarisDataStore.postgresql(os.environ[DSN], schema=f"bench_{name}", **options)


async def emptied(name: str) -> None:
    """Drop what an earlier round left in the schema."""
    import asyncpg  # type: ignore[import-untyped]

    connection = await asyncpg.connect(os.environ[DSN])
    await connection.execute(f"DROP SCHEMA IF EXISTS bench_{name} CASCADE")
    await connection.close()


async def with_points_postgresql(folder: Path, batches: int) -> Figures:
    await emptied("points")
    async with postgresql_store("points") as store:
        return await contenders.write_batches(
            contenders.points, lambda batch: store.time_series.store_many("samples", batch), batches
        )


async def with_states_postgresql(folder: Path, batches: int) -> Figures:
    await emptied("states")
    async with postgresql_store("states") as store:
        return await contenders.write_batches(contenders.states, store.states.save_many, batches)


async def with_states_singly_postgresql(folder: Path, count: int, tasks: int) -> Figures:
    await emptied("singly")
    async with postgresql_store("singly") as store:
        return await contenders.write_singly(contenders.states, lambda batch: store.states.save(batch[0]), count, tasks)


async def _asyncpg(name: str) -> Any:
    import asyncpg

    pool = await asyncpg.create_pool(os.environ[DSN], min_size=1, max_size=CONNECTIONS)
    await pool.execute(f"DROP TABLE IF EXISTS {name}")
    await pool.execute(SAMPLES.format(name=name))
    return pool


async def with_asyncpg(folder: Path, batches: int) -> Figures:
    """COPY, which refuses a row that is there already."""
    pool = await _asyncpg("samples")
    async with pool.acquire() as connection:

        async def write(batch: Sequence[Any]) -> None:
            await connection.copy_records_to_table("samples", records=batch)

        figures = await contenders.write_batches(contenders.rows, write, batches)
    await pool.close()
    return figures


async def with_asyncpg_singly(folder: Path, count: int, tasks: int) -> Figures:
    pool = await _asyncpg("singles")
    sql = INSERT.format(name="singles")
    figures = await contenders.write_singly(contenders.rows, lambda batch: pool.execute(sql, *batch[0]), count, tasks)
    await pool.close()
    return figures


async def with_duckdb(folder: Path, batches: int) -> Figures:
    """A transaction a batch, handed over as columns."""
    import duckdb
    import pandas as pd

    connection = duckdb.connect(str(folder / "duck.db"))
    connection.execute("SET threads = 2")
    connection.execute(
        "CREATE TABLE samples (ts BIGINT, series INTEGER, c0 DOUBLE, c1 DOUBLE, c2 DOUBLE, c3 DOUBLE, c4 DOUBLE)"
    )
    names = ["ts", "series", "c0", "c1", "c2", "c3", "c4"]

    async def write(batch: Sequence[Any]) -> None:
        frame = pd.DataFrame(batch, columns=names)
        connection.register("batch", frame)
        connection.execute("INSERT INTO samples SELECT * FROM batch")

    figures = await contenders.write_batches(contenders.rows, write, batches)
    connection.close()
    return figures


async def reading_postgresql(folder: Path, times: int) -> dict[str, list[float]]:
    """Reads of what `with_states_postgresql` left."""
    from polaris.storage import TimeRange

    hour = TimeRange(BEGUN + timedelta(hours=1), BEGUN + timedelta(hours=2))
    async with postgresql_store("states") as store:
        repository = store.states
        return {
            "latest": await contenders.timed(lambda n: repository.get_current_state(f"system-{n}"), times),
            "hour": await contenders.timed(lambda n: repository.series(f"system-{n}", "cpu", hour), times),
            "hour_states": await contenders.timed(lambda n: repository.get_state_history(f"system-{n}", hour), times),
        }


def _hour_us() -> tuple[int, int]:
    start = int((BEGUN + timedelta(hours=1)).timestamp() * 1e6)
    return start, start + 3_600_000_000


async def reading_asyncpg(folder: Path, times: int) -> dict[str, list[float]]:
    import asyncpg

    connection = await asyncpg.connect(os.environ[DSN])
    latest, hour = LATEST.format(name="samples"), HOUR.format(name="samples")
    found = {
        "latest": await contenders.timed(lambda n: connection.fetch(latest, n), times),
        "hour": await contenders.timed(lambda n: connection.fetch(hour, n, *_hour_us()), times),
    }
    await connection.close()
    return found


async def reading_duckdb(folder: Path, times: int) -> dict[str, list[float]]:
    import duckdb

    connection = duckdb.connect(str(folder / "duck.db"))
    connection.execute("SET threads = 2")

    def asking(sql: str, *values: int) -> Callable[[int], Awaitable[object]]:
        async def ask(number: int) -> object:
            return connection.execute(sql, [number, *values]).fetchall()

        return ask

    latest = "SELECT * FROM samples WHERE series = ? ORDER BY ts DESC LIMIT 1"
    hour = "SELECT ts, c0 FROM samples WHERE series = ? AND ts >= ? AND ts < ? ORDER BY ts"
    few = max(1, times // 20)
    found = {
        "latest": await contenders.timed(asking(latest), few),
        "hour": await contenders.timed(asking(hour, *_hour_us()), few),
    }
    connection.close()
    await asyncio.sleep(0)
    return found
