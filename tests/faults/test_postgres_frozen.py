"""A PostgreSQL server that hangs: calls end within their time, nothing leaks, and everything goes on afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import asyncpg  # type: ignore[import-untyped] # it ships no types
import pytest
from tests.awake import PATIENCE_S, until, within
from tests.faults.postgres_work import Writers, batch, check
from tests.postgres_servers import VERSIONS, PostgresServer

from polaris.exceptions import DataStoreError, StoreConnectionError
from polaris.storage import PolarisDataStore, TimeRange
from polaris.storage._capabilities import CAPABILITIES

STATEMENT_S = 0.5
ACQUIRE_S = 1.0
IMPATIENT: dict[str, Any] = {
    "statement_timeout_s": STATEMENT_S,
    "acquire_timeout_s": ACQUIRE_S,
    "connect_timeout_s": ACQUIRE_S,
}
PATIENT: dict[str, Any] = {**dict.fromkeys(IMPATIENT, PATIENCE_S), "pool_max": 4}
"""Where nothing is to end in time, a busy machine must not end it."""
# The client waits two seconds longer than the server works, then for its rollback or for a new connection.
ENDS_S_MAX = STATEMENT_S + 2.0 + 5.0 + 5.0


@pytest.fixture(scope="module", params=VERSIONS)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with PostgresServer(request.param) as started:
        yield started


def store_on(server: PostgresServer, schema: str, **options: Any) -> PolarisDataStore:
    return PolarisDataStore.postgresql(server.dsn, schema=schema, **(PATIENT | options))


async def test_calls_to_a_frozen_server_end_in_time_and_go_on_when_it_does(server: PostgresServer) -> None:
    async with store_on(server, "frozen"):
        pass  # so that its tables are there
    async with store_on(server, "frozen", **IMPATIENT) as store:
        writers = Writers(store)
        running = asyncio.create_task(writers.run())
        while len(writers.done) < 20:
            await asyncio.sleep(0.01)
        server.freeze()
        try:
            for call in (
                lambda: store.time_series.query_time_series("m", TimeRange.all()),
                lambda: store.time_series.store_many("m", batch(10**6)),
            ):
                async with within(ENDS_S_MAX):
                    with pytest.raises(DataStoreError):
                        await call()
            async with within(ENDS_S_MAX):
                health = await store.health()
            assert health.status == "unhealthy"
            writers.stopped = True
            async with within(ENDS_S_MAX):
                await running
        finally:
            server.thaw()
        writers.open.add(10**6)
        writers.stopped = False
        before = len(writers.done)
        running = asyncio.create_task(writers.run())
        await until(lambda: len(writers.done) >= before + 20, "the writers go on")
        writers.stopped = True
        await running
    async with store_on(server, "frozen") as store:
        await check(writers, store)


async def test_a_unit_of_work_that_stands_idle_is_ended_by_the_server_and_done_anew(server: PostgresServer) -> None:
    async with store_on(server, "idle", idle_timeout_s=0.2) as store, store.unit_of_work() as work:
        await work.documents.put_document("d", "x", {"n": 1})
        assert await work.documents.count("d") == 1
        async with within(PATIENCE_S):
            while await _connections(server, "idle in transaction"):
                await asyncio.sleep(0.05)
        assert await work.documents.count("d") == 1
        await work.commit()
        assert await store.documents.count("d") == 1
        assert [name for name, engine in CAPABILITIES.items() if engine.transactions_begin_anew] == ["postgresql"]


async def test_a_lock_that_is_not_to_be_had_ends_the_wait_with_an_error(server: PostgresServer) -> None:
    async with store_on(server, "locked", lock_timeout_s=0.1) as store, store.unit_of_work() as work:
        await store.documents.put_document("d", "x", {"n": 1})
        assert await work.documents.update_document("d", "x", {"n": 2})
        with pytest.raises(StoreConnectionError, match="lock"):
            await asyncio.wait_for(store.documents.put_document("d", "x", {"n": 3}), PATIENCE_S)
        await work.commit()
        assert await store.documents.get_document("d", "x") == {"_id": "x", "_version": 2, "n": 2}


async def test_cancellation_at_any_moment_leaks_no_connection_and_leaves_nothing_half(server: PostgresServer) -> None:
    async with store_on(server, "cancelled") as store:
        engine = store.engines[0]

        async def work(number: int) -> None:
            if number % 2:
                await store.time_series.store_many("m", batch(number))
                return
            async with store.unit_of_work() as unit:
                await unit.time_series.store_many("m", batch(number))
                await unit.documents.put_document("d", str(number), {"n": number})
                await unit.documents.count("d")
                await unit.graph.add_node(str(number))
                await unit.commit()

        for number in range(120):
            task = asyncio.create_task(work(number))
            for _ in range(number // 2):
                await asyncio.sleep(0)
            if number % 3 == 0:
                await asyncio.sleep(0.0004 * (number % 10))
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            points = await store.time_series.query_time_series("m", TimeRange.all(), fields=["batch"])
            mine = [point for point in points if point.fields["batch"] == number]
            assert len(mine) in (0, len(batch(number)))
            if number % 2 == 0:
                found = await store.documents.get_document("d", str(number))
                assert (found is not None) is bool(mine)
                assert (await store.graph.get_node(str(number)) is not None) is bool(mine)
        assert await _connections(server, "idle in transaction") == 0
        stats = await engine.stats()
        assert stats["connections"] == stats["connections_idle"]
        # As many at once as there are connections: every one of them is free.
        async with within(PATIENCE_S):
            works = [store.unit_of_work() for _ in range(4)]
            for unit in works:
                await unit.documents.count("d")
            for unit in works:
                await unit.rollback()


async def test_a_full_pool_makes_callers_wait_and_then_says_so(server: PostgresServer) -> None:
    async with store_on(server, "full", acquire_timeout_s=1.0, pool_max=1) as store, store.unit_of_work() as work:
        await work.documents.count("d")
        with pytest.raises(StoreConnectionError, match="came free"):
            await store.documents.count("d")
        await work.rollback()
        assert await store.documents.count("d") == 0


async def _connections(server: PostgresServer, state: str) -> int:
    connection = await asyncpg.connect(server.dsn)
    try:
        sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'polaris' AND state = $1"
        return int(await connection.fetchval(sql, state))
    finally:
        await connection.close()
