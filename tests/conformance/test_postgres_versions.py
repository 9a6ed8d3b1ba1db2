"""Every version of a server's schema there ever was is opened by the present code, with all of its content."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg  # type: ignore[import-untyped] # it ships no types
import pytest
from tests.conformance.conftest import QuickPostgres, schema_numbers
from tests.faults.retention_acts import MovedClock
from tests.postgres_servers import VERSIONS as SERVERS
from tests.postgres_servers import PostgresServer
from tests.postgres_versions import RETAINED, VERSIONS, content_for, restored, retained_of
from tests.sqlite_versions import EXPIRES, NUMBERS, PAST, SPAN
from tests.store_content import T0, content_of, fill, points

from polaris.domain import HealthEvent, HealthStatus
from polaris.exceptions import DataStoreError, MigrationError
from polaris.storage import AggregationType, PolarisDataStore, TimeRange, TimeSeriesPoint
from polaris.storage._ranges import to_micros
from polaris.storage.backends.postgresql import _engine
from polaris.storage.backends.postgresql._migrate import Migration, known_migrations

LATER = (
    "CREATE TABLE later (n integer); INSERT INTO later VALUES (1); SELECT pg_sleep(0.3); ALTER TABLE outbox ADD x text"
)
POLICIES = ("windows", "tens", "hours")
"""The collections of what is retained; each has its policy."""

# What is there, by name; the tables of collections are told from the others by their numbers.
_COLUMNS = (
    "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, co.collname"
    " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_collation co ON co.oid = a.attcollation"
    " WHERE c.relnamespace = $1::regnamespace AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, a.attname"
)
_INDEXES = "SELECT replace(indexdef, $1 || '.', '') FROM pg_indexes WHERE schemaname = $1 ORDER BY 1"
_FUNCTIONS = (
    "SELECT proname, replace(pg_get_functiondef(oid), $1 || '.', '') FROM pg_proc"
    " WHERE pronamespace = $1::regnamespace ORDER BY 1"
)
_CONSTRAINTS = (
    "SELECT conrelid::regclass::text, replace(pg_get_constraintdef(oid), $1 || '.', '') FROM pg_constraint"
    " WHERE connamespace = $1::regnamespace AND contype <> 'n' ORDER BY 1, 2"
)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, quick_postgres: QuickPostgres) -> PostgresServer:
    return quick_postgres(request.param)


@pytest.fixture
def oldest_server(quick_postgres: QuickPostgres) -> PostgresServer:
    return quick_postgres(SERVERS[0])


@pytest.fixture
def schema() -> str:
    return f"version_{next(schema_numbers)}"


async def shape_of(server: PostgresServer, schema: str) -> list[Any]:
    """Everything that the migrations made."""
    connection = await asyncpg.connect(server.dsn, server_settings={"search_path": schema})
    try:
        found = []
        for sql in (_COLUMNS, _INDEXES, _FUNCTIONS, _CONSTRAINTS):
            found.append([tuple(row) for row in await connection.fetch(sql, schema)])
        return found
    finally:
        await connection.close()


async def ask(server: PostgresServer, schema: str, sql: str) -> Any:
    connection = await asyncpg.connect(server.dsn, server_settings={"search_path": schema})
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def rounded(told: Any) -> Any:
    """What a store told, its deviations to 14 digits: the last ones differ between points and their summaries."""
    if isinstance(told, dict):
        return {key: float(f"{x:.14g}") if key == "stddev" and x else rounded(x) for key, x in told.items()}
    return [rounded(one) for one in told] if isinstance(told, list) else told


def test_a_store_of_every_version_is_kept() -> None:
    every = list(range(1, len(known_migrations()) + 1))
    assert every == VERSIONS
    assert every == RETAINED


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_store_of_an_earlier_version_is_opened_with_all_its_content(
    version: int, server: PostgresServer, schema: str
) -> None:
    await restored(server, version, schema)
    async with PolarisDataStore.postgresql(server.dsn, schema=schema, pool_max=2) as store:
        assert await content_of(store) == content_for(version)
    async with PolarisDataStore.postgresql(server.dsn, schema=schema, pool_max=2, read_only=True) as store:
        assert await content_of(store) == content_for(version)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_store_of_an_earlier_version_takes_what_a_new_one_takes(
    version: int, server: PostgresServer, schema: str
) -> None:
    await restored(server, version, schema)
    async with PolarisDataStore.postgresql(server.dsn, schema=schema, pool_max=2) as store:
        before = await content_of(store)
        await store.time_series.store_many("m", points())
        await store.time_series.store_many("new", points())
        await store.documents.put_document("d", "d0", {"n": 0, "new": True})
        await store.graph.remove_node("a")
        async with store.unit_of_work() as work:
            await work.publish("t", HealthEvent(component="late", status=HealthStatus.HEALTHY))
            await work.commit()
        after = await content_of(store)
    assert len(after["points m"]) == len(before["points m"]) + 10
    assert len(after["outbox"]) == len(before["outbox"]) + 1
    assert after["outbox"][-1]["sequence"] > before["outbox"][-1]["sequence"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_upgraded_store_has_the_schema_of_a_new_one(version: int, server: PostgresServer, schema: str) -> None:
    await restored(server, version, schema)
    new = f"{schema}_new"
    async with PolarisDataStore.postgresql(server.dsn, schema=schema, pool_max=2):
        pass
    async with PolarisDataStore.postgresql(server.dsn, schema=new, pool_max=2) as store:
        await fill(store)
    assert await shape_of(server, schema) == await shape_of(server, new)


@pytest.mark.parametrize("version", RETAINED)
async def test_what_cannot_be_made_again_is_carried_through_the_upgrade(
    version: int, server: PostgresServer, schema: str
) -> None:
    await restored(server, version, schema, "retained")
    expected = rounded(content_for(version, "retained"))
    rollups = "SELECT count(*) FROM ts_rollups"
    before = await ask(server, schema, rollups)
    assert len(expected["left hours"]) == 6  # of 120: what is told of the others is told by rollups
    assert before > 0
    # Nothing is old to this clock, so that no retention repairs what the upgrade lost.
    async with PolarisDataStore.postgresql(server.dsn, schema=schema, pool_max=2, clock=MovedClock(PAST)) as store:
        assert rounded(await retained_of(store)) == expected
        assert await store.verify() == []
    assert await ask(server, schema, rollups) == before
    async with PolarisDataStore.postgresql(server.dsn, schema=schema, pool_max=2, read_only=True) as store:
        assert rounded(await retained_of(store)) == expected


@pytest.mark.parametrize("version", RETAINED)
async def test_retention_goes_on_after_the_upgrade_where_it_was(
    version: int, oldest_server: PostgresServer, schema: str
) -> None:
    async def counts() -> dict[str, int]:
        series = store.time_series
        rows = {name: await series.aggregate_time_series(name, SPAN, "count", fields=NUMBERS) for name in POLICIES}
        return {name: sum(int(row.value) for row in found if row.value is not None) for name, found in rows.items()}

    await restored(oldest_server, version, schema, "retained")
    expected = rounded(content_for(version, "retained"))
    clock = MovedClock(PAST + timedelta(days=400))
    async with PolarisDataStore.postgresql(oldest_server.dsn, schema=schema, pool_max=2, clock=clock) as store:
        for name in POLICIES:
            await store.time_series.apply_retention(name)
        assert await ask(oldest_server, schema, "SELECT count(*) FROM ts_windows WHERE spread >= 0") > 0
        told = rounded(await retained_of(store))
        changed = [name for name in expected if told[name] != expected[name]]
        assert changed == ["left tens"]  # its late point is rolled up
        before = await counts()
        late = [TimeSeriesPoint(PAST + timedelta(seconds=n), {"host": "b"}, {"load": n}) for n in range(1, 60)]
        for name in POLICIES:
            await store.time_series.store_many(name, late)
            await store.time_series.apply_retention(name)
        assert await counts() == {name: count + len(late) for name, count in before.items()}
        assert await store.verify() == []


@pytest.mark.parametrize("version", RETAINED)
async def test_documents_of_an_earlier_version_expire_when_they_were_to(
    version: int, oldest_server: PostgresServer, schema: str
) -> None:
    await restored(oldest_server, version, schema, "retained")
    clock = MovedClock(EXPIRES - timedelta(seconds=1))
    async with PolarisDataStore.postgresql(oldest_server.dsn, schema=schema, pool_max=2, clock=clock) as store:
        assert await store.documents.count("expiring") == 2
        clock.time = EXPIRES
        assert [document["_id"] for document in await store.documents.find_documents("expiring")] == ["long"]


async def test_summaries_of_windows_that_know_nothing_of_rises_are_forgotten_and_made_anew(
    server: PostgresServer, schema: str
) -> None:
    await restored(server, 3, schema)
    minute_us = 60_000_000
    of_m = "(SELECT id FROM ts_collections WHERE name = 'm')"
    frontier = f"{of_m}, {minute_us}, 2 * {to_micros(T0)}"
    await ask(server, schema, f"INSERT INTO ts_policies SELECT {of_m}, '[null,[[{minute_us},null]]]', {minute_us}")
    await ask(server, schema, f"INSERT INTO ts_frontiers SELECT {frontier}, 1")
    await ask(server, schema, f"INSERT INTO ts_summaries SELECT {frontier}, 2 * {to_micros(T0)}")
    # What they tell is wrong, so that it would be seen who believes them.
    wrong = f"{to_micros(T0)}, 7, 7, 7, 7, 7 FROM ts_series WHERE collection = {of_m}"
    names = "series, slot, start_us, count, total, size, low, high"
    await ask(server, schema, f"INSERT INTO ts_windows ({names}) SELECT id, 1, {wrong}")
    await ask(server, schema, f"INSERT INTO ts_marks (collection, series, start_us, end_us) SELECT {of_m}, 1, 0, 1")
    asked = [AggregationType.SUM, AggregationType.RATE, AggregationType.INCREASE, AggregationType.LAST]
    span, fields = TimeRange(T0, T0 + timedelta(hours=1)), ["load", "users"]
    async with PolarisDataStore.memory() as memory:
        await fill(memory)
        expected = await memory.time_series.aggregate_many("m", span, asked, fields=fields)
    clock = MovedClock(T0 + timedelta(days=1))
    async with PolarisDataStore.postgresql(server.dsn, schema=schema, pool_max=2, clock=clock) as store:
        assert await ask(server, schema, "SELECT count(*) FROM ts_windows") == 0
        assert await store.time_series.aggregate_many("m", span, asked, fields=fields) == expected
        await store.time_series.apply_retention("m")
        assert await ask(server, schema, "SELECT count(*) FROM ts_windows WHERE rise > 0") > 0
        assert await store.time_series.aggregate_many("m", span, asked, fields=fields) == expected
    with pytest.raises(asyncpg.NotNullViolationError):  # what a program of the release before leaves behind
        await ask(server, schema, f"INSERT INTO ts_windows ({names}) SELECT id, 2, {wrong}")


async def test_nodes_that_migrate_at_once_do_it_once(
    server: PostgresServer, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await restored(server, 1, schema)
    former = known_migrations()[:1]
    monkeypatch.setattr(_engine, "known_migrations", lambda: [*former, Migration(2, "later", LATER)])
    stores = [PolarisDataStore.postgresql(server.dsn, schema=schema, pool_max=2) for _ in range(4)]
    await asyncio.gather(*[store.connect() for store in stores])
    try:
        assert await ask(server, schema, "SELECT count(*) FROM later") == 1
        assert await ask(server, schema, "SELECT string_agg(name, ' ' ORDER BY number) FROM polaris_migrations") == (
            "initial later"
        )
        assert await content_of(stores[3]) == content_for(1)
    finally:
        for store in stores:
            await store.disconnect()
    monkeypatch.setattr(_engine, "known_migrations", lambda: former)
    with pytest.raises(MigrationError, match="newer release"):
        await PolarisDataStore.postgresql(server.dsn, schema=schema).connect()


async def test_a_migration_that_fails_leaves_the_version_before_it(
    server: PostgresServer, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await restored(server, 1, schema)
    before = await shape_of(server, schema)
    former = known_migrations()[:1]
    broken = Migration(
        2, "broken", "CREATE TABLE half (x int); UPDATE graph_nodes SET properties = '{}'; SELECT nonsense"
    )
    with monkeypatch.context() as patch:
        patch.setattr(_engine, "known_migrations", lambda: [*former, broken])
        with pytest.raises(DataStoreError, match="nonsense"):
            await PolarisDataStore.postgresql(server.dsn, schema=schema).connect()
    assert await shape_of(server, schema) == before
    async with PolarisDataStore.postgresql(server.dsn, schema=schema, pool_max=2) as store:
        assert await content_of(store) == content_for(1)


async def test_an_applied_migration_whose_text_was_altered_is_refused(
    server: PostgresServer, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await restored(server, len(known_migrations()), schema)
    for place, migration in enumerate(known_migrations()):
        altered = known_migrations()
        altered[place] = Migration(migration.number, migration.name, migration.sql + "-- once more\n")
        monkeypatch.setattr(_engine, "known_migrations", lambda altered=altered: altered)
        with pytest.raises(MigrationError, match=migration.name):
            await PolarisDataStore.postgresql(server.dsn, schema=schema).connect()


async def test_a_list_of_applied_migrations_that_lacks_one_is_refused(server: PostgresServer, schema: str) -> None:
    await restored(server, len(known_migrations()), schema)
    before = await shape_of(server, schema)

    async def refused(error: type[DataStoreError], message: str, *, read_only: bool) -> None:
        with pytest.raises(error, match=message):
            await PolarisDataStore.postgresql(server.dsn, schema=schema, read_only=read_only).connect()

    await ask(server, schema, f"DELETE FROM polaris_migrations WHERE number = {len(known_migrations())}")
    await refused(MigrationError, "open it for writing once", read_only=True)
    await refused(DataStoreError, "already exists", read_only=False)  # it is applied once more, and that fails
    for lost, message in (("number = 2", "3 .* not the one"), ("number = 1", "3 .* not the one"), ("true", "lost")):
        await ask(server, schema, f"DELETE FROM polaris_migrations WHERE {lost}")
        await refused(MigrationError, message, read_only=True)
        await refused(MigrationError, message, read_only=False)
    assert await shape_of(server, schema) == before
