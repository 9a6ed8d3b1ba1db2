"""The store and its peers: each writes the same points in its own way, and some read them back.

A point is one sample of one system: five fields. Systems report in turns, every ten seconds, as they do in life.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

FIELDS = ("cpu", "memory", "response_time", "request_rate", "workers")
SYSTEMS = 100
INTERVAL_S = 10
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
BATCH = 500

SCHEMA = (
    "CREATE TABLE samples (ts INTEGER NOT NULL, series INTEGER NOT NULL, c0 REAL, c1 REAL, c2 REAL, c3 REAL, c4 REAL,"
    " PRIMARY KEY (ts, series)) WITHOUT ROWID"
)
INSERT = "INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?, ?, ?)"
HOUR = "SELECT ts, c0 FROM samples WHERE series = ? AND ts >= ? AND ts < ? ORDER BY ts"
LATEST = "SELECT * FROM samples WHERE series = ? ORDER BY ts DESC LIMIT 1"


class Figures(NamedTuple):
    """Points written, the seconds that took, and the seconds of every single call."""

    points: int
    seconds: float
    calls_s: list[float]


def values_of(number: int) -> tuple[float, ...]:
    """The fields of a point, by its number."""
    return tuple((number * 37 + field * 11) % 1000 / 7.0 for field in range(len(FIELDS)))


def rows(first: int, count: int) -> list[tuple[Any, ...]]:
    """Points as rows of the peers."""
    begun_us = int(BEGUN.timestamp() * 1e6)
    return [
        (begun_us + number // SYSTEMS * INTERVAL_S * 1_000_000, number % SYSTEMS, *values_of(number))
        for number in range(first, first + count)
    ]


def states(first: int, count: int) -> list[Any]:
    """Points as states."""
    from polaris.domain import HealthStatus, MetricValue, SystemState

    return [
        SystemState(
            f"system-{number % SYSTEMS}",
            BEGUN + timedelta(seconds=number // SYSTEMS * INTERVAL_S),
            {name: MetricValue(name, value) for name, value in zip(FIELDS, values_of(number), strict=True)},
            HealthStatus.HEALTHY,
        )
        for number in range(first, first + count)
    ]


def points(first: int, count: int) -> list[Any]:
    """Points as the time series port takes them."""
    from polaris.storage import TimeSeriesPoint

    return [
        TimeSeriesPoint(
            BEGUN + timedelta(seconds=number // SYSTEMS * INTERVAL_S),
            {"system": str(number % SYSTEMS)},
            dict(zip(FIELDS, values_of(number), strict=True)),
        )
        for number in range(first, first + count)
    ]


Make = Callable[[int, int], Sequence[Any]]
Write = Callable[[Sequence[Any]], Awaitable[object]]


async def write_batches(make: Make, write: Write, count: int) -> Figures:
    """One batch after the other; everything is made before the clock starts."""
    batches = [make(number * BATCH, BATCH) for number in range(count)]
    gc.freeze()  # what was made is no business of the collector while the clock runs
    calls_s = []
    begun = time.perf_counter()
    for batch in batches:
        called = time.perf_counter()
        await write(batch)
        calls_s.append(time.perf_counter() - called)
    return Figures(count * BATCH, time.perf_counter() - begun, calls_s)


async def write_singly(make: Make, write: Write, count: int, tasks: int) -> Figures:
    """`tasks` writers, each with its share of the points, one at a time."""
    made = make(0, count)
    shares = [iter(made[task::tasks]) for task in range(tasks)]
    gc.freeze()
    calls_s = []

    async def writer(share: Any) -> None:
        for one in share:
            called = time.perf_counter()
            await write([one])
            calls_s.append(time.perf_counter() - called)

    begun = time.perf_counter()
    await asyncio.gather(*map(writer, shares))
    return Figures(count, time.perf_counter() - begun, calls_s)


async def with_apsw(folder: Path, batches: int) -> Figures:
    """Rows straight into SQLite, on this thread, nothing else: about what the engine can do."""
    import apsw

    connection = apsw.Connection(str(folder / "apsw.db"))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.execute(SCHEMA)

    async def write(batch: Sequence[Any]) -> None:
        with connection:
            connection.executemany(INSERT, batch)

    figures = await write_batches(rows, write, batches)
    connection.close()
    return figures


async def opened_aiosqlite(folder: Path) -> Any:
    import aiosqlite

    connection = await aiosqlite.connect(folder / "aiosqlite.db")
    await connection.execute("PRAGMA journal_mode = wal")
    await connection.execute("PRAGMA synchronous = full")
    await connection.execute(SCHEMA)
    await connection.commit()
    return connection


async def with_aiosqlite(folder: Path, batches: int) -> Figures:
    connection = await opened_aiosqlite(folder)

    async def write(batch: Sequence[Any]) -> None:
        await connection.executemany(INSERT, batch)
        await connection.commit()

    figures = await write_batches(rows, write, batches)
    await connection.close()
    return figures


async def with_aiosqlite_singly(folder: Path, count: int, tasks: int) -> Figures:
    """Tasks share the connection's open transaction: one's commit is the others' too."""
    connection = await opened_aiosqlite(folder)

    async def write(batch: Sequence[Any]) -> None:
        await connection.execute(INSERT, batch[0])
        await connection.commit()

    figures = await write_singly(rows, write, count, tasks)
    await connection.close()
    return figures


async def with_aiosqlite_transactions(folder: Path, count: int, tasks: int) -> Figures:
    """Each write a transaction of its own, as it must be when a write is more than one statement."""
    connection = await opened_aiosqlite(folder)
    turn = asyncio.Lock()

    async def write(batch: Sequence[Any]) -> None:
        async with turn:
            await connection.execute(INSERT, batch[0])
            await connection.commit()

    figures = await write_singly(rows, write, count, tasks)
    await connection.close()
    return figures


async def with_states(folder: Path, batches: int) -> Figures:
    from polaris.storage import PolarisDataStore

    async with PolarisDataStore.sqlite(folder / "states.db") as store:
        return await write_batches(states, store.states.save_many, batches)


async def with_points(folder: Path, batches: int) -> Figures:
    from polaris.storage import PolarisDataStore

    async with PolarisDataStore.sqlite(folder / "points.db") as store:
        return await write_batches(points, lambda batch: store.time_series.store_many("samples", batch), batches)


async def with_states_singly(folder: Path, count: int, tasks: int) -> Figures:
    from polaris.storage import PolarisDataStore

    async with PolarisDataStore.sqlite(folder / "singly.db") as store:
        return await write_singly(states, lambda batch: store.states.save(batch[0]), count, tasks)


async def timed(read: Callable[[int], Awaitable[object]], times: int) -> list[float]:
    """The seconds of each read, over the systems in turn."""
    calls_s = []
    for number in range(times):
        called = time.perf_counter()
        await read(number % SYSTEMS)
        calls_s.append(time.perf_counter() - called)
    return calls_s


async def reading_states(folder: Path, times: int) -> dict[str, list[float]]:
    """Reads of what `with_states` left, through the public API."""
    from polaris.storage import PolarisDataStore, TimeRange

    hour = TimeRange(BEGUN + timedelta(hours=1), BEGUN + timedelta(hours=2))
    async with PolarisDataStore.sqlite(folder / "states.db") as store:
        repository = store.states
        return {
            "latest": await timed(lambda number: repository.get_current_state(f"system-{number}"), times),
            "hour": await timed(lambda number: repository.series(f"system-{number}", "cpu", hour), times),
            "hour_states": await timed(lambda number: repository.get_state_history(f"system-{number}", hour), times),
        }


async def reading_aiosqlite(folder: Path, times: int) -> dict[str, list[float]]:
    """The same reads of what `with_aiosqlite` left, with the index that they need."""
    import aiosqlite

    connection = await aiosqlite.connect(folder / "aiosqlite.db")
    await connection.execute("CREATE INDEX by_series ON samples (series, ts)")
    start = int((BEGUN + timedelta(hours=1)).timestamp() * 1e6)

    async def latest(number: int) -> object:
        return await connection.execute_fetchall(LATEST, (number,))

    async def hour(number: int) -> object:
        return await connection.execute_fetchall(HOUR, (number, start, start + 3_600_000_000))

    read = {"latest": await timed(latest, times), "hour": await timed(hour, times)}
    await connection.close()
    return read
