"""What the engine of a server promises besides the ports: its schema, other processes, partitions, indexes, health."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg  # type: ignore[import-untyped] # it ships no types
import pytest
from tests.conformance.conftest import QuickPostgres, schema_numbers
from tests.postgres_servers import VERSIONS, PostgresServer

from polaris.domain import HealthEvent, HealthStatus
from polaris.exceptions import (
    ConflictError,
    MigrationError,
    StoreConnectionError,
    TransactionConflictError,
    UnitOfWorkError,
)
from polaris.storage import PolarisDataStore, PostgresEngine, TimeRange, TimeSeriesPoint
from polaris.storage._capabilities import CAPABILITIES
from polaris.storage.backends.postgresql._catalog import Partitions
from polaris.storage.backends.postgresql._link import SNAPSHOT

T0 = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
ALL = TimeRange.all()
EVENT = HealthEvent(component="store", status=HealthStatus.HEALTHY)
Ask = Callable[..., Awaitable[list[Any]]]


@pytest.fixture(params=VERSIONS)
def server(request: pytest.FixtureRequest, quick_postgres: QuickPostgres) -> PostgresServer:
    return quick_postgres(request.param)


@pytest.fixture
def schema() -> str:
    return f"test_{next(schema_numbers)}"


@pytest.fixture
async def ask(server: PostgresServer, schema: str) -> Any:
    """Statements to the schema that do not go through the engine."""
    connection = await asyncpg.connect(server.dsn, server_settings={"search_path": schema})
    yield connection.fetch
    await connection.close()


def store_on(server: PostgresServer, schema: str, **options: Any) -> PolarisDataStore:
    return PolarisDataStore.postgresql(server.dsn, schema=schema, **({"pool_max": 3} | options))


async def test_several_nodes_may_bring_a_new_schema_up_to_date_at_once(server: PostgresServer, schema: str) -> None:
    stores = [store_on(server, schema) for _ in range(4)]
    await asyncio.gather(*[store.connect() for store in stores])
    for number, store in enumerate(stores):
        await store.graph.add_node(str(number))
    assert await stores[0].graph.count_nodes() == 4
    for store in stores:
        await store.disconnect()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("DROP TABLE polaris_migrations", "another application"),
        ("INSERT INTO polaris_migrations VALUES (99, 'later', 'x')", "newer release"),
        ("UPDATE polaris_migrations SET checksum = 'x' WHERE number = 1", "not the one"),
    ],
)
async def test_a_schema_that_is_foreign_newer_or_altered_is_refused(
    server: PostgresServer, schema: str, ask: Ask, change: str, message: str
) -> None:
    async with store_on(server, schema):
        pass
    await ask(change)
    for read_only in (False, True):
        store = store_on(server, schema, read_only=read_only)
        with pytest.raises(MigrationError, match=message):
            await store.connect()
        assert not store.is_connected


async def test_a_store_that_is_read_only_reads_and_changes_nothing(server: PostgresServer, schema: str) -> None:
    reader = store_on(server, schema, read_only=True)
    with pytest.raises(MigrationError, match="version 0"):
        await reader.connect()
    async with store_on(server, schema) as writer:
        await writer.graph.add_node("n")
        async with reader:
            assert await reader.graph.count_nodes() == 1
            assert (await reader.health()).message == "read-only"
            for write in (
                reader.graph.add_node("m"),
                reader.documents.insert_document("d", {}),
                reader.time_series.store_time_series("m", T0, {}, {"v": 1}),
            ):
                with pytest.raises(StoreConnectionError, match="reading only"):
                    await write
            async with reader.unit_of_work() as work:
                await work.graph.add_node("m")
                with pytest.raises(StoreConnectionError):
                    await work.commit()
        assert await writer.graph.count_nodes() == 1


async def test_waiting_for_events_ends_with_the_commit_of_another_process(server: PostgresServer, schema: str) -> None:
    async with store_on(server, schema) as one, store_on(server, schema) as other:
        waiting = asyncio.create_task(one.outbox.wait(timeout_s=20))
        await asyncio.sleep(0.2)  # until it really waits
        async with other.unit_of_work() as work:
            await work.publish("t", EVENT)
            await work.commit()
        assert await asyncio.wait_for(waiting, 5) is True


async def test_sequences_are_in_the_order_of_the_commits_of_many_writers(server: PostgresServer, schema: str) -> None:
    async with store_on(server, schema) as one, store_on(server, schema) as other:
        seen: list[int] = []

        async def publish(store: PolarisDataStore) -> None:
            for _ in range(15):
                async with store.unit_of_work() as work:
                    await work.publish("t", EVENT)
                    await work.graph.get_node("n")
                    await work.commit()

        async def follow() -> None:
            while len(seen) < 60:
                for entry in await one.outbox.pending(after=seen[-1] if seen else 0):
                    seen.append(entry.sequence)
                await asyncio.sleep(0)

        await asyncio.wait_for(asyncio.gather(follow(), *[publish(store) for store in (one, other, one, other)]), 60)
        # Whoever reads on behind the last one that he has seen misses none.
        assert seen == sorted(set(seen))
        assert len(seen) == await one.outbox.count() == 60


async def test_writers_of_several_nodes_meet_in_one_new_collection(server: PostgresServer, schema: str) -> None:
    async with store_on(server, schema) as one, store_on(server, schema) as other:

        async def write(store: PolarisDataStore, first: int) -> None:
            for number in range(first, first + 12):
                fields = {f"f{number % 5}": number, f"g{number % 3}": 0.5, "t": "x" if first else None}
                points = [TimeSeriesPoint(T0 + number * 40 * HOUR, {"h": str(host)}, dict(fields)) for host in range(4)]
                await store.time_series.store_many("m", points)
                await store.documents.insert_document("d", {"n": number})

        await asyncio.gather(*[write(store, first) for store in (one, other) for first in (0, 100)])
        found = await one.time_series.query_time_series("m", ALL)
        assert found == await other.time_series.query_time_series("m", ALL)
        assert len(found) == 24 * 4
        assert all(point.fields[f"g{n % 3}"] == 0.5 for n in range(3) for point in found if f"g{n % 3}" in point.fields)
        assert len(await one.time_series.list_series("m")) == 4
        assert await one.documents.count("d") == 48


async def test_old_partitions_are_dropped_and_late_data_gets_new_ones(
    server: PostgresServer, schema: str, ask: Ask
) -> None:
    async with store_on(server, schema, partition_hours=1) as store, store_on(server, schema) as other:
        series = store.time_series
        await series.store_many("m", [TimeSeriesPoint(T0 + n * HOUR, {"h": "a"}, {"v": n}) for n in range(10)])
        await series.store_many("m", [TimeSeriesPoint(T0 + 2 * HOUR, {"h": "dead"}, {"v": -1})])
        await other.time_series.store_many("m", [TimeSeriesPoint(T0 + 3 * HOUR, {"h": "a"}, {"w": 1})])
        assert len(await ask("SELECT 1 FROM ts_partitions")) == 10
        assert await series.apply_retention("m", T0 + 6 * HOUR) == 6
        # All that were old went, but for the one with the newest point of a series.
        assert len(await ask("SELECT 1 FROM ts_partitions")) == 5
        assert len(await ask("SELECT 1 FROM pg_inherits WHERE inhparent = 'ts_1'::regclass")) == 5
        assert [name for name, engine in CAPABILITIES.items() if engine.drops_partitions] == ["postgresql"]
        assert await series.latest("m", {"h": "dead"}) == [TimeSeriesPoint(T0 + 2 * HOUR, {"h": "dead"}, {"v": -1})]
        # The other process remembers a partition that is gone.
        await other.time_series.store_many("m", [TimeSeriesPoint(T0 + 3 * HOUR, {"h": "a"}, {"v": "late"})])
        async with other.unit_of_work() as work:
            await work.time_series.store_time_series("m", T0, {"h": "a"}, {"v": "later"})
            await work.commit()
        assert [one.fields["v"] for one in await series.query_time_series("m", ALL, {"h": "a"})][:3] == [
            "later",
            "late",
            6,
        ]


async def test_an_open_unit_of_work_does_not_stop_retention(server: PostgresServer, schema: str) -> None:
    async with store_on(server, schema, partition_hours=1) as store, store.unit_of_work() as work:
        await store.time_series.store_many("m", [TimeSeriesPoint(T0 + n * HOUR, {}, {"v": n}) for n in range(5)])
        assert len(await work.time_series.query_time_series("m", ALL)) == 5
        assert await asyncio.wait_for(store.time_series.apply_retention("m", T0 + 3 * HOUR), 10) == 3
        await asyncio.wait_for(store.time_series.store_time_series("m", T0 + 99 * HOUR, {}, {"v": 1}), 5)
        with pytest.raises(TransactionConflictError):
            await work.time_series.delete_range("m", ALL)


async def test_points_at_random_times_do_not_make_partitions_without_end() -> None:
    home = Partitions(1, 3_600_000_000, (), ())
    for number in range(40_000):
        time_us = (number * 7_919 % 40_000 - 20_000) * 10**12
        if home.missing([time_us]):
            span = home.span_for(time_us)
            assert span[0] <= time_us < span[1]
            home = home.with_span(span)
    assert all(end <= start for end, start in zip(home.ends, home.starts[1:], strict=False))
    assert 500 < len(home.starts) < 2_100


async def test_health_says_what_the_server_is(server: PostgresServer, schema: str) -> None:
    async with store_on(server, schema) as store:
        health = await store.health()
        assert health.status is HealthStatus.HEALTHY
        assert health.details["server_version"].startswith(str(server.version))
        assert health.details["in_recovery"] is False
        assert health.details["connections"] >= 1
        assert "hidden" not in repr(health)


async def test_the_password_is_in_no_log_and_no_error(
    server: PostgresServer, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = server.dsn.replace("hidden", "wr0ng-s3cret")
    store = PolarisDataStore.postgresql(wrong, schema=schema)
    with pytest.raises(StoreConnectionError, match="password") as caught:
        await store.connect()
    told = f"{caught.value!r} {caught.value.to_dict()} {caught.value.__cause__!r} {store.engines[0].__dict__}"
    assert "wr0ng" not in caplog.text
    assert "wr0ng" not in told


async def test_a_refused_write_leaves_its_unit_of_work_usable(server: PostgresServer, schema: str) -> None:
    async with store_on(server, schema) as store:
        await store.documents.create_index("d", "n", unique=True)
        await store.documents.insert_documents("d", [{"_id": "a", "n": 1}, {"_id": "b", "n": 2}])
        async with store.unit_of_work() as work:
            await work.graph.add_node("kept")
            with pytest.raises(ConflictError):
                await work.documents.update_document("d", "b", {"n": 1})
            assert await work.documents.update_document("d", "b", {"n": 3})
            await work.commit()
            assert work.is_committed
        assert await store.graph.get_node("kept") is not None
        assert (await store.documents.get_document("d", "b") or {})["n"] == 3


async def test_blind_writes_of_many_units_of_work_at_once_all_succeed(server: PostgresServer, schema: str) -> None:
    async with store_on(server, schema, pool_max=8) as store:

        async def write(number: int) -> None:
            async with store.unit_of_work() as work:
                await work.documents.put_document("d", "x", {"n": number})
                await work.graph.add_edge("hub", str(number % 3), "needs")
                await work.time_series.store_time_series("m", T0, {"h": "x"}, {"v": number})
                await work.commit()

        await asyncio.gather(*[write(number) for number in range(24)])
        found = await store.documents.get_document("d", "x")
        assert found is not None
        assert found["_version"] == 24


async def test_a_unit_of_work_is_used_by_one_task_at_a_time(server: PostgresServer, schema: str) -> None:
    async with store_on(server, schema) as store, store.unit_of_work() as work:
        outcomes = await asyncio.gather(*[work.documents.count("d") for _ in range(3)], return_exceptions=True)
        assert outcomes[0] == 0
        assert all(isinstance(outcome, UnitOfWorkError) for outcome in outcomes[1:])


async def test_a_statement_that_the_driver_gives_up_leaves_its_connection_as_good_as_new(
    server: PostgresServer, schema: str
) -> None:
    store = store_on(server, schema, pool_max=1)
    async with store:
        (engine,) = store.engines
        assert isinstance(engine, PostgresEngine)
        with pytest.raises(asyncpg.DataError):
            async with engine._pool.link() as link:
                await link.value("SELECT $1::text", "\ud800")
        async with engine._pool.link() as link, link.atomic(SNAPSHOT):
            assert await link.value("SELECT 1") == 1
