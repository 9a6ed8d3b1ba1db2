"""The connections to PostgreSQL when something is wrong: with a host, with the time, with who stands in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg  # type: ignore[import-untyped] # it ships no types
import pytest
from tests.awake import within
from tests.postgres_servers import QUICK, PostgresServer

from polaris.domain import HealthEvent, HealthStatus
from polaris.exceptions import DataStoreError, StoreConnectionError
from polaris.storage import PolarisDataStore, TimeRange, TimeSeriesPoint
from polaris.storage.backends.postgresql import PostgresOptions
from polaris.storage.backends.postgresql._link import Link, UnknownOutcomeError
from polaris.storage.backends.postgresql._migrate import SCHEMA_LOCK, lock_number

T0 = datetime(2030, 1, 1, tzinfo=UTC)
ALL = TimeRange.all()
EVENT = HealthEvent(component="store", status=HealthStatus.HEALTHY)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(15, QUICK) as started:
        yield started


@pytest.fixture(scope="module")
def other_server() -> Iterator[PostgresServer]:
    with PostgresServer(18, QUICK) as started:
        yield started


def points(count: int) -> list[TimeSeriesPoint]:
    return [TimeSeriesPoint(T0 + timedelta(seconds=n), {"h": str(n % 3)}, {"v": n}) for n in range(count)]


def dsn_of(*servers: PostgresServer, query: str = "") -> str:
    hosts = ",".join(f"127.0.0.1:{one.port}" for one in servers)
    return f"postgresql://polaris:hidden@{hosts}/postgres{query}"


async def ask(server: PostgresServer, sql: str) -> Any:
    connection = await asyncpg.connect(server.dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


# Several hosts


async def test_a_host_that_hangs_does_not_keep_the_next_one_from_being_tried(
    server: PostgresServer, other_server: PostgresServer
) -> None:
    bounds: dict[str, Any] = {"connect_timeout_s": 2.0, "acquire_timeout_s": 20.0, "pool_max": 3}
    async with PolarisDataStore.postgresql(dsn_of(server, other_server), schema="hosts", **bounds) as store:
        assert (await store.health()).details["server_version"].startswith("15")
    server.freeze()
    try:
        async with PolarisDataStore.postgresql(dsn_of(server, other_server), schema="hosts", **bounds) as store:
            assert (await store.health()).details["server_version"].startswith("18")
            works = [store.unit_of_work() for _ in range(3)]
            # Only the first connection has waited for the host that hangs: the others begin at the right one.
            async with within(1.5):
                for work in works:
                    assert await work.documents.count("d") == 0
            for work in works:
                await work.rollback()
    finally:
        server.thaw()


async def test_a_caller_without_time_for_all_hosts_leaves_the_others_to_the_next(
    server: PostgresServer, other_server: PostgresServer
) -> None:
    bounds: dict[str, Any] = {"connect_timeout_s": 20.0, "acquire_timeout_s": 1.5}
    store = PolarisDataStore.postgresql(dsn_of(server, other_server), schema="hosts", **bounds)
    server.freeze()
    try:
        with pytest.raises(StoreConnectionError):
            await store.connect()
        await store.connect()
        assert (await store.health()).details["server_version"].startswith("18")
    finally:
        server.thaw()
        await store.disconnect()


async def test_an_address_without_the_server_that_is_asked_for_says_so(
    server: PostgresServer, other_server: PostgresServer
) -> None:
    both = (server, other_server)
    standby, preferred = (f"?target_session_attrs={wanted}" for wanted in ("standby", "prefer-standby"))
    with pytest.raises(StoreConnectionError, match="no host of the address is 'standby'"):
        await PolarisDataStore.postgresql(dsn_of(*both, query=standby), schema="hosts").connect()
    async with PolarisDataStore.postgresql(dsn_of(*both, query=preferred), schema="hosts") as store:
        assert (await store.health()).status == "healthy"


async def test_a_server_that_takes_no_writes_any_more_is_left(server: PostgresServer) -> None:
    async with PolarisDataStore.postgresql(server.dsn, schema="left", pool_max=1) as store:
        await store.documents.put_document("d", "x", {"n": 1})
        server.reload({"default_transaction_read_only": "on"})
        try:
            async with within(30.0):
                while await ask(server, "SHOW default_transaction_read_only") != "on":
                    await asyncio.sleep(0.02)
            with pytest.raises(StoreConnectionError, match="takes no writes"):
                await store.documents.put_document("d", "x", {"n": 2})
            # The connection was thrown away, and no host is what the address asks for.
            with pytest.raises(StoreConnectionError, match="'read-write'"):
                await store.documents.put_document("d", "x", {"n": 2})
        finally:
            server.reload({"default_transaction_read_only": "off"})
        async with within(30.0):
            while await ask(server, "SHOW default_transaction_read_only") != "off":
                await asyncio.sleep(0.02)
        await store.documents.put_document("d", "x", {"n": 3})
        assert await store.documents.get_document("d", "x") == {"_id": "x", "_version": 2, "n": 3}


async def test_whoever_drops_the_settings_of_a_connection_is_refused(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = PostgresOptions.server_settings

    def dropped(options: PostgresOptions, schema: str, *, read_only: bool) -> dict[str, str]:
        kept = original(options, schema, read_only=read_only)
        return {name: value for name, value in kept.items() if name != "search_path"}

    monkeypatch.setattr(PostgresOptions, "server_settings", dropped)
    with pytest.raises(StoreConnectionError, match="pooler"):
        await PolarisDataStore.postgresql(server.dsn, schema="pooled").connect()
    assert await ask(server, "SELECT to_regnamespace('pooled') IS NULL")


# Time


async def test_disconnecting_waits_for_what_is_under_way_and_no_longer(server: PostgresServer) -> None:
    store = PolarisDataStore.postgresql(server.dsn, schema="closing", pool_max=2)
    await store.connect()
    await store.time_series.store_many("m", points(1))
    writes = [asyncio.create_task(store.time_series.store_many("m", points(3_000))) for _ in range(4)]
    await asyncio.sleep(0.05)
    async with within(20.0):
        await store.disconnect()
    assert all(write.done() for write in writes)
    for write in writes:
        await write
    async with store:
        assert len(await store.time_series.query_time_series("m", ALL)) == 3_000


async def test_many_who_need_a_new_table_of_a_frozen_server_all_end_in_time(server: PostgresServer) -> None:
    bounds: dict[str, Any] = {"acquire_timeout_s": 1.0, "connect_timeout_s": 1.0, "statement_timeout_s": 0.5}
    async with PolarisDataStore.postgresql(server.dsn, schema="queue", pool_max=2, **bounds) as store:
        server.freeze()
        try:
            calls = [store.time_series.store_time_series(f"m{n}", T0, {}, {"v": 1}) for n in range(30)]
            # One after the other they would have waited for half a minute.
            async with within(14.0):
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(outcome, DataStoreError) for outcome in outcomes), outcomes
        finally:
            server.thaw()
        async with within(30.0):
            while True:
                try:
                    await store.time_series.store_time_series("m0", T0, {}, {"v": 1})
                    break
                except DataStoreError:
                    await asyncio.sleep(0.1)
        assert len(await store.time_series.query_time_series("m0", ALL)) == 1


@asynccontextmanager
async def locked(server: PostgresServer, collection: str, mode: str) -> AsyncIterator[None]:
    """Hold a lock on the table of a collection of the schema `slow`."""
    connection = await asyncpg.connect(server.dsn)
    try:
        number = await connection.fetchval("SELECT id FROM slow.doc_collections WHERE name = $1", collection)
        await connection.execute("BEGIN")
        await connection.execute(f"LOCK TABLE slow.doc_{number} IN {mode} MODE")
        yield
    finally:
        await connection.close()


async def test_an_index_may_take_longer_than_other_statements(server: PostgresServer) -> None:
    async with PolarisDataStore.postgresql(server.dsn, schema="slow") as store:
        await store.documents.insert_documents("d", [{"_id": str(n), "n": n} for n in range(10)])
        await store.documents.insert_document("other", {})
    short: dict[str, Any] = {"statement_timeout_s": 0.6}
    async with PolarisDataStore.postgresql(server.dsn, schema="slow", schema_timeout_s=0.6, **short) as store:
        async with locked(server, "d", "ROW EXCLUSIVE"):
            with pytest.raises(StoreConnectionError, match="time limit"):
                await store.documents.create_index("d", "n")
        assert await store.documents.list_indexes("d") == []
    async with PolarisDataStore.postgresql(server.dsn, schema="slow", **short) as store:
        async with locked(server, "d", "ROW EXCLUSIVE"):
            creating = asyncio.create_task(store.documents.create_index("d", "n"))
            await asyncio.sleep(1.5)
            assert not creating.done()
        await creating
        # The limit of the others holds again, also on this connection, in this transaction.
        async with store.unit_of_work() as work:
            await work.documents.create_index("d", ["n", "text"])
            async with locked(server, "other", "ACCESS EXCLUSIVE"):
                with pytest.raises(StoreConnectionError, match="time limit"):
                    await work.documents.find_documents("other", {})


async def test_a_node_waits_for_the_migration_of_another_one(server: PostgresServer) -> None:
    connection = await asyncpg.connect(server.dsn)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SELECT pg_advisory_xact_lock($1, $2)", SCHEMA_LOCK, lock_number("waiting"))
    store = PolarisDataStore.postgresql(server.dsn, schema="waiting", lock_timeout_s=0.1, statement_timeout_s=0.1)
    connecting = asyncio.create_task(store.connect())
    done, _ = await asyncio.wait([connecting], timeout=0.6)
    assert not done
    await transaction.rollback()
    await connection.close()
    await asyncio.wait_for(connecting, 20)
    await store.disconnect()


# What is lost


async def test_who_waits_for_events_hears_of_them_after_the_server_was_restarted() -> None:
    with PostgresServer(15, QUICK) as own:
        async with (
            PolarisDataStore.postgresql(own.dsn, schema="heard") as one,
            PolarisDataStore.postgresql(own.dsn, schema="heard") as other,
        ):
            assert await one.outbox.wait(timeout_s=0.2) is False
            await asyncio.to_thread(own.stop)
            await asyncio.to_thread(own.start)
            waiting = asyncio.create_task(one.outbox.wait(timeout_s=60))
            await asyncio.sleep(1.0)  # the listener is back long before it would have asked by itself
            async with other.unit_of_work() as work:
                await work.publish("t", EVENT)
                await work.commit()
            async with within(10.0):
                assert await waiting is True


async def test_a_table_that_may_have_been_made_leaves_the_write_undone(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with PolarisDataStore.postgresql(server.dsn, schema="tables") as store:
        original = Link.commit

        async def lost(link: Link) -> None:
            await original(link)
            raise UnknownOutcomeError

        writes: list[Callable[[], Awaitable[None]]] = [
            lambda: store.time_series.store_time_series("m", T0, {}, {"v": 1}),
            lambda: store.documents.put_document("d", "x", {}),
        ]
        for write in writes:
            with monkeypatch.context() as patch:
                patch.setattr(Link, "commit", lost)
                with pytest.raises(StoreConnectionError, match="while a table was made"):
                    await write()
        assert await store.time_series.query_time_series("m", ALL) == []
        assert await store.documents.count("d") == 0
        async with store.unit_of_work() as work:
            await work.time_series.store_time_series("m2", T0, {}, {"v": 1})
            with monkeypatch.context() as patch:
                patch.setattr(Link, "commit", lost)
                with pytest.raises(StoreConnectionError, match="while a table was made"):
                    await work.time_series.query_time_series("m2", ALL)
            assert len(await work.time_series.query_time_series("m2", ALL)) == 1
            await work.commit()
        assert len(await store.time_series.query_time_series("m2", ALL)) == 1
