"""How soon the store goes on: after its primary server was killed and replaced, and after its own process was.

    python benchmarks/_store_recovery.py [--rounds 10]

1. Failover: a primary with a synchronous standby, one address that names both. The primary is killed (SIGKILL) under
   four writers, the standby promoted, and the time from the end of the promotion to the first acknowledged write of
   each is taken: POLARIS, and beside it asyncpg by hand (a pool over the same address that asks for the server which
   takes writes, tried again every 20 ms). Afterwards everything acknowledged is looked up. Then the killed server's
   place is taken by a new standby.
2. Reopening: a process that writes batches into an embedded store is killed, and another one opens the file: the time
   until `connect` returns, in which the log is read and checked, and until the first write is durable.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import _store_contenders as contenders
from _harness import launch, print_table, read_line, say
from _store_contenders import BATCH, BEGUN

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.postgres_servers import PostgresServer

WRITERS = 4
PAUSE_S = 0.02
BACK_S_MAX = 30.0
WRITTEN_S = 1.0
"""How long the writers write before each kill."""
LOGGED_S = 5.0
"""How long the embedded store is written before its process is killed."""


class Writing(Protocol):
    """One client of the servers, whose writers go on for ever."""

    label: str

    async def write(self, number: int) -> None: ...

    async def found(self) -> set[int]: ...


class OfPolaris:
    label = "POLARIS, PostgreSQL"

    def __init__(self, store: Any) -> None:
        self._store = store

    async def write(self, number: int) -> None:
        from polaris.storage import TimeSeriesPoint

        point = TimeSeriesPoint(BEGUN + timedelta(seconds=number), {"system": "a"}, {"number": number})
        await self._store.time_series.store_many("failover", [point])

    async def found(self) -> set[int]:
        from polaris.storage import TimeRange

        points = await self._store.time_series.query_time_series("failover", TimeRange.all())
        return {point.fields["number"] for point in points}


class ByHand:
    label = "asyncpg by hand"

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def write(self, number: int) -> None:
        await self._pool.execute("INSERT INTO by_hand VALUES ($1) ON CONFLICT DO NOTHING", number, timeout=2.0)

    async def found(self) -> set[int]:
        return {row[0] for row in await self._pool.fetch("SELECT number FROM by_hand")}


class Writers:
    """Tasks that write one number after the other, and note what was acknowledged."""

    def __init__(self, client: Writing) -> None:
        self.client = client
        self.done: set[int] = set()
        self.errors = 0
        self.numbers = iter(range(10**9))
        self.news = asyncio.Event()

    async def run(self) -> None:
        await asyncio.gather(*[self._write() for _ in range(WRITERS)])

    async def _write(self) -> None:
        for number in self.numbers:
            try:
                await self.client.write(number)
            except Exception:  # whatever it is: counted, and tried again with another number
                self.errors += 1
                await asyncio.sleep(PAUSE_S)
            else:
                self.done.add(number)
                self.news.set()

    async def next_one(self, begun: float) -> float:
        """Seconds from `begun` to the first write that begins after now and is acknowledged."""
        self.news.clear()
        async with asyncio.timeout(BACK_S_MAX):
            await self.news.wait()
        return time.perf_counter() - begun


async def follow(primary: PostgresServer, servers: list[PostgresServer], port: int | None = None) -> PostgresServer:
    """A standby that has everything before a commit is acknowledged."""
    import asyncpg  # type: ignore[import-untyped]

    standby = await asyncio.to_thread(PostgresServer.standby_of, primary)
    servers.append(standby)
    if port is not None:
        standby.port = port
        standby.configure({})
    await asyncio.to_thread(standby.start)
    primary.reload({"synchronous_standby_names": "standby"})
    connection = await asyncpg.connect(primary.dsn)
    async with asyncio.timeout(30):
        while await connection.fetchval("SELECT sync_state FROM pg_stat_replication") != "sync":
            await asyncio.sleep(PAUSE_S)
    await connection.close()
    return standby


def close_all(servers: list[PostgresServer]) -> None:
    for server in servers:
        server.close()


async def fail_over(rounds: int) -> None:
    import asyncpg

    from polaris.storage import PolarisDataStore

    primary = PostgresServer(15)
    servers = [primary]
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(close_all, servers)
        await asyncio.to_thread(primary.start)
        standby = await follow(primary, servers)
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        dsn = f"postgresql://polaris:hidden@{hosts}/postgres"
        pool = await stack.enter_async_context(
            asyncpg.create_pool(dsn, target_session_attrs="read-write", min_size=0, max_size=10, timeout=2.0)
        )
        await pool.execute("CREATE TABLE by_hand (number bigint PRIMARY KEY)")
        store = await stack.enter_async_context(
            PolarisDataStore.postgresql(dsn, acquire_timeout_s=2.0, connect_timeout_s=2.0)
        )
        all_writers = [Writers(OfPolaris(store)), Writers(ByHand(pool))]
        running = [asyncio.create_task(writers.run()) for writers in all_writers]
        back: dict[str, list[float]] = {writers.client.label: [] for writers in all_writers}
        for _ in range(rounds):
            await asyncio.sleep(WRITTEN_S)
            await asyncio.to_thread(primary.kill)
            await asyncio.to_thread(standby.promote)
            promoted = time.perf_counter()
            taken = await asyncio.gather(*[writers.next_one(promoted) for writers in all_writers])
            for writers, seconds in zip(all_writers, taken, strict=True):
                back[writers.client.label].append(seconds)
            port = primary.port
            primary.close()
            primary, standby = standby, await follow(standby, servers, port)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        rows = []
        for writers in all_writers:
            lost = writers.done - await writers.client.found()
            times = sorted(back[writers.client.label])
            rows.append(
                (
                    writers.client.label,
                    *(f"{seconds * 1e3:.0f}" for seconds in (times[len(times) // 2], times[-1])),
                    f"{len(writers.done):,}",
                    f"{len(lost)}",
                    f"{writers.errors:,}",
                )
            )
    print_table(
        f"Primary killed, standby promoted, {rounds} times: ms from the promotion to the next acknowledged write",
        ("client", "p50", "longest", "writes acknowledged", "of these lost", "writes refused"),
        rows,
    )


async def write_on(path: str) -> None:
    """In a process that is killed: batches into the store, and how many points that makes."""
    from polaris.storage import PolarisDataStore

    async with PolarisDataStore.sqlite(path) as store:
        first = 0
        while True:
            await store.time_series.store_many("samples", contenders.points(first, BATCH))
            first += BATCH
            say(points=first)


async def reopen(path: str) -> dict[str, float]:
    from polaris.storage import PolarisDataStore

    begun = time.perf_counter()
    async with PolarisDataStore.sqlite(path) as store:
        connected = time.perf_counter()
        await store.time_series.store_many("again", contenders.points(0, 1))
        return {"connect": connected - begun, "first write": time.perf_counter() - begun}


def measure_reopening(rounds: int) -> None:
    found: list[dict[str, float]] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "store.db"))
            writer = launch(sys.executable, __file__, "--write", path)
            facts = read_line(writer)
            begun = time.perf_counter()
            while time.perf_counter() - begun < LOGGED_S:
                facts = read_line(writer)
            writer.kill()
            writer.wait()
            log_mib = Path(f"{path}-wal").stat().st_size / (1 << 20)
            found.append({"log": log_mib, "points": facts["points"], **asyncio.run(reopen(path))})

    def cell(key: str, scale: float = 1e3) -> tuple[str, str]:
        values = sorted(one[key] * scale for one in found)
        return f"{values[len(values) // 2]:,.0f}", f"{values[-1]:,.0f}"

    print_table(
        f"Embedded store reopened after SIGKILL, {rounds} times",
        ("what", "p50", "most"),
        [
            ("log left behind, MiB", *cell("log", 1.0)),
            ("points in the store", *cell("points", 1.0)),
            ("until it is connected, ms", *cell("connect")),
            ("until the first write is durable, ms", *cell("first write")),
        ],
    )


def measure_recovery(rounds: int = 10) -> None:
    """Print both tables."""
    measure_reopening(rounds)
    try:
        asyncio.run(fail_over(rounds))
    except AssertionError as error:
        print(f"\nwithout PostgreSQL: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--write", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        asyncio.run(write_on(options.write))
    else:
        measure_recovery(options.rounds)


if __name__ == "__main__":
    main()
