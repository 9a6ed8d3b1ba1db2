"""A PostgreSQL server that is killed and comes back, or is replaced by its standby: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import random

import asyncpg  # type: ignore[import-untyped] # it ships no types
import pytest
from tests.awake import until
from tests.faults.postgres_work import Writers, check
from tests.faults.sizes import size
from tests.postgres_servers import VERSIONS, PostgresServer

from polaris.storage import PolarisDataStore
from polaris.storage._capabilities import CAPABILITIES

ROUNDS = size(3, 20)
STANDBY_ROUNDS = size(2, 10)
BACK_S_MAX = 10.0
"""How long a test waits; how soon it is, `benchmarks/store.py --only recovery` measures."""


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
async def test_nothing_acknowledged_is_lost_or_doubled_when_the_server_is_killed(version: int) -> None:
    chance = random.Random(version)
    with PostgresServer(version) as server:
        async with PolarisDataStore.postgresql(server.dsn, acquire_timeout_s=2.0) as store:
            writers = Writers(store)
            running = asyncio.create_task(writers.run())
            for _ in range(ROUNDS):
                written = len(writers.done)
                await _progress(writers, written + chance.randint(1, 40))
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(chance.random() * 0.2)
                await asyncio.to_thread(server.start)
            await _progress(writers, len(writers.done) + 10)
            writers.stopped = True
            await running
            await check(writers, store)
            assert writers.open | writers.undone
            assert (await store.health()).status == "healthy"


@pytest.mark.slow
@pytest.mark.timeout(60 + 40 * STANDBY_ROUNDS)
async def test_nothing_acknowledged_is_lost_when_the_standby_takes_over() -> None:
    primary = PostgresServer(18)
    servers = [primary]
    try:
        await asyncio.to_thread(primary.start)
        standby = await _attach(primary, servers)
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in servers)
        # The address names every server there will be: each takes the port of one that was killed.
        dsn = f"postgresql://polaris:hidden@{hosts}/postgres"
        async with PolarisDataStore.postgresql(dsn, acquire_timeout_s=2.0, connect_timeout_s=2.0) as store:
            writers = Writers(store)
            running = asyncio.create_task(writers.run())
            for _ in range(STANDBY_ROUNDS):
                await _progress(writers, len(writers.done) + 20)
                await asyncio.to_thread(primary.kill)
                await asyncio.to_thread(standby.promote)
                written = len(writers.done)
                await until(lambda: len(writers.done) > written, "writes go on", within_s=BACK_S_MAX)  # noqa: B023
                port = primary.port
                primary.close()
                primary, standby = standby, await _attach(standby, servers, port)
            await _progress(writers, len(writers.done) + 20)
            writers.stopped = True
            await running
            await check(writers, store)
            assert [name for name, engine in CAPABILITIES.items() if engine.replicated] == ["postgresql"]
    finally:
        for server in servers:
            server.close()


async def _attach(primary: PostgresServer, servers: list[PostgresServer], port: int | None = None) -> PostgresServer:
    """A standby that has everything before a commit is acknowledged."""
    standby = await asyncio.to_thread(PostgresServer.standby_of, primary)
    servers.append(standby)
    if port is not None:
        standby.port = port
        standby.configure({})
    await asyncio.to_thread(standby.start)
    primary.reload({"synchronous_standby_names": "standby"})
    connection = await asyncpg.connect(primary.dsn)
    try:
        async with asyncio.timeout(30):
            while await connection.fetchval("SELECT sync_state FROM pg_stat_replication") != "sync":
                await asyncio.sleep(0.02)
    finally:
        await connection.close()
    return standby


async def _progress(writers: Writers, count: int) -> None:
    """Wait until so many writes were acknowledged."""
    await until(lambda: len(writers.done) >= count, f"{count} writes are acknowledged")
