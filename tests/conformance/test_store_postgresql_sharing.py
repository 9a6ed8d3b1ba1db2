"""A long reading of a server's points is shared out among connections that see the same."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.awake import within
from tests.conformance.conftest import QuickPostgres, schema_numbers
from tests.postgres_servers import VERSIONS, PostgresServer

from polaris.exceptions import DataStoreError
from polaris.storage import AggregatedRow, PolarisDataStore, TimeRange, TimeSeriesPoint
from polaris.storage.backends.postgresql import PostgresEngine, _aggregate_cells, _sharing
from polaris.storage.backends.postgresql._connector import Connector
from polaris.storage.backends.postgresql._driver import asyncpg, driver_errors
from polaris.storage.backends.postgresql._link import Link

T0 = datetime(2030, 1, 1, tzinfo=UTC)
NAMES = ("p95", "median", "stddev", "rate")
COUNT = 2_000


def points(seed: int) -> list[TimeSeriesPoint]:
    """Of two systems, one of which counts in integers."""
    numbers = random.Random(seed)
    return [
        TimeSeriesPoint(
            T0 + timedelta(seconds=n // 2),
            {"system": "ab"[n % 2]},
            {"x": numbers.random() * 100 if n % 2 else n * seed, "y": numbers.gauss(1e6, 1)},
        )
        for n in range(COUNT)
    ]


@pytest.fixture(params=VERSIONS)
async def store(
    request: pytest.FixtureRequest, quick_postgres: QuickPostgres, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PolarisDataStore]:
    monkeypatch.setattr(_aggregate_cells, "NUMBERS_A_SHARE_MIN", 50)
    async with of(quick_postgres(request.param)) as made:
        await made.time_series.store_many("c", points(7))
        yield made


def of(server: PostgresServer, **options: Any) -> PolarisDataStore:
    """A store in a schema of its own."""
    return PolarisDataStore.postgresql(server.dsn, schema=f"sharing_{next(schema_numbers)}", pool_max=8, **options)


async def asked(store: PolarisDataStore, **more: Any) -> list[AggregatedRow]:
    return list(
        await store.time_series.aggregate_many(
            "c", TimeRange.all(), NAMES, group_by="system", bucket=timedelta(seconds=100), **more
        )
    )


def sharers(patch: pytest.MonkeyPatch) -> list[int]:
    """How many connections had a part, each time."""
    counts: list[int] = []
    shared_out = _sharing.shared_out

    async def counted(links: Any, *rest: Any) -> Any:
        counts.append(len(links))
        return await shared_out(links, *rest)

    patch.setattr(_aggregate_cells, "shared_out", counted)
    return counts


def assert_equal(found: list[AggregatedRow], expected: list[AggregatedRow]) -> None:
    assert [(row.timestamp, row.field, row.tags, row.count) for row in found] == [
        (row.timestamp, row.field, row.tags, row.count) for row in expected
    ]
    for one, other in zip(found, expected, strict=True):
        for name in NAMES:
            value, definition = one.values[name], other.values[name]
            assert isinstance(value, float)
            assert isinstance(definition, float)
            assert math.isclose(value, definition, rel_tol=1e-9), (name, one, other)


def engine_of(store: PolarisDataStore) -> PostgresEngine:
    engine = store.engines[0]
    assert isinstance(engine, PostgresEngine)
    return engine


async def expected_of(store: PolarisDataStore, seed: int = 7) -> list[AggregatedRow]:
    async with PolarisDataStore.memory() as memory:
        await memory.time_series.store_many("c", points(seed))
        return await asked(memory)


async def test_what_is_shared_out_comes_to_what_one_would_read(
    store: PolarisDataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = sharers(monkeypatch)
    assert_equal(await asked(store), await expected_of(store))
    assert set(counts) == {_sharing.SHARES_MAX}
    assert engine_of(store)._pool._users == 0


async def test_all_see_what_the_first_one_saw(store: PolarisDataStore, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = await expected_of(store)
    written = 0
    sees = _sharing._sees

    async def after_another_write(link: Link, *row: Any) -> bool:
        nonlocal written
        written += 1
        await store.time_series.store_many("c", points(7 + written))
        return await sees(link, *row)

    with monkeypatch.context() as patch:
        patch.setattr(_sharing, "_sees", after_another_write)
        assert_equal(await asked(store), expected)
    assert written
    assert_equal(await asked(store), await expected_of(store, 7 + written))


async def test_who_may_not_share_reads_alone(store: PolarisDataStore, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, counts = await expected_of(store), sharers(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(_sharing, "_EXPORT", "SELECT 1 / 0, 0")
        assert_equal(await asked(store), expected)
    assert set(counts) == {1}
    assert_equal(await asked(store), expected)  # for a while nobody tries again
    assert set(counts) == {1}
    pool = engine_of(store)._pool
    pool._refused_until_s = 0.0
    for broken in ("00000000-00000000-9", "'; DROP TABLE ts_series; --"):
        with monkeypatch.context() as patch:
            patch.setattr(_sharing, "_EXPORT", f"SELECT $${broken}$$, 0")
            assert_equal(await asked(store), expected)
    assert set(counts) == {1}
    async with store.unit_of_work() as work:
        found = await work.time_series.aggregate_many(
            "c", TimeRange.all(), NAMES, group_by="system", bucket=timedelta(seconds=100)
        )
    assert_equal(list(found), expected)
    assert set(counts) == {1}
    assert pool._users == 0


async def test_only_half_of_the_connections_are_shared_with(
    store: PolarisDataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, counts = await expected_of(store), sharers(monkeypatch)
    async with store.unit_of_work() as one, store.unit_of_work() as other:
        await one.documents.find_documents("d")
        await other.documents.find_documents("d")
        assert_equal(await asked(store), expected)
        assert max(counts) == 2
    for found in await asyncio.gather(*(asked(store) for _ in range(6))):
        assert_equal(found, expected)
    assert engine_of(store)._pool._users == 0


async def test_a_share_that_fails_ends_the_others(store: PolarisDataStore, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Link.rows
    seen: set[int] = set()

    async def failing(link: Link, sql: str, *values: Any) -> list[Any]:
        if "CROSS JOIN LATERAL" in sql and id(link) not in seen:
            seen.add(id(link))
            if len(seen) == 2:
                return await rows(link, "SELECT 1 / 0")
            return await rows(link, "SELECT pg_sleep(20)")
        return await rows(link, sql, *values)

    pool = engine_of(store)._pool
    with monkeypatch.context() as patch:
        patch.setattr(Link, "rows", failing)
        async with asyncio.timeout(10):
            with pytest.raises(DataStoreError):
                await asked(store)
    assert pool._users == 0
    assert_equal(await asked(store), await expected_of(store))


async def test_a_cancelled_reading_gives_all_connections_back(
    store: PolarisDataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, begun = Link.rows, asyncio.Event()

    async def slow(link: Link, sql: str, *values: Any) -> list[Any]:
        if "CROSS JOIN LATERAL" in sql:
            begun.set()
            return await rows(link, "SELECT pg_sleep(20)")
        return await rows(link, sql, *values)

    with monkeypatch.context() as patch:
        patch.setattr(Link, "rows", slow)
        reading = asyncio.ensure_future(asked(store))
        await begun.wait()
        reading.cancel()
        async with asyncio.timeout(10):
            with pytest.raises(asyncio.CancelledError):
                await reading
    assert engine_of(store)._pool._users == 0
    assert_equal(await asked(store), await expected_of(store))


async def test_a_reading_cancelled_at_each_of_its_steps_leaves_nothing_behind(store: PolarisDataStore) -> None:
    pool, cancelled = engine_of(store)._pool, 0
    for steps in (*range(0, 60, 3), *range(60, 400, 23)):
        reading = asyncio.ensure_future(asked(store))
        for _ in range(steps):
            await asyncio.sleep(0)
        for _ in range(1 + steps % 3):
            reading.cancel()
            await asyncio.sleep(0)
        with suppress(asyncio.CancelledError):
            await reading
        cancelled += reading.cancelled()
        assert pool._users == 0
    assert cancelled
    async with pool.link() as link:
        assert not await link.value(
            "SELECT count(*) FROM pg_stat_activity WHERE state LIKE '%in transaction%' AND pid <> pg_backend_pid()"
        )
    assert_equal(await asked(store), await expected_of(store))


async def test_a_cancelled_reading_waits_for_a_server_that_hangs_only_once(
    store: PolarisDataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, rollback, begun = Link.rows, Link._rollback, asyncio.Event()
    all_of_them, alone = asyncio.Barrier(_sharing.SHARES_MAX), 0

    async def slow(link: Link, sql: str, *values: Any) -> list[Any]:
        if "CROSS JOIN LATERAL" in sql:
            begun.set()
            return await rows(link, "SELECT pg_sleep(20)")
        return await rows(link, sql, *values)

    async def together(link: Link) -> None:
        nonlocal alone
        try:
            async with asyncio.timeout(2):
                await all_of_them.wait()
        except TimeoutError:
            alone += 1
        await rollback(link)

    with monkeypatch.context() as patch:
        patch.setattr(Link, "rows", slow)
        patch.setattr(Link, "_rollback", together)
        reading = asyncio.ensure_future(asked(store))
        await begun.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert not alone
    assert engine_of(store)._pool._users == 0
    assert_equal(await asked(store), await expected_of(store))


async def test_who_is_done_waits_for_the_slowest_however_soon_idle_transactions_are_ended(
    quick_postgres: QuickPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_aggregate_cells, "NUMBERS_A_SHARE_MIN", 50)
    counts: list[int] = []
    shared_out = _sharing.shared_out

    async def slowly(links: Any, work: Any, weights: Any, read: Any) -> Any:
        counts.append(len(links))

        async def slow(link: Link, some: Any) -> Any:
            if (link is links[0]) == (len(counts) > 1):
                await link.value("SELECT 1 FROM pg_sleep(0.8)")
            return await read(link, some)

        return await shared_out(links, work, weights, slow)

    async with of(quick_postgres(VERSIONS[-1]), idle_timeout_s=0.3) as store:
        await store.time_series.store_many("c", points(7))
        with monkeypatch.context() as patch:
            patch.setattr(_aggregate_cells, "shared_out", slowly)
            found = await asked(store)
        assert_equal(found, await expected_of(store))
        assert len(counts) > 2
        assert set(counts) == {_sharing.SHARES_MAX}
        assert (await store.stats())["postgresql"]["repetitions"] == 0


async def test_who_waits_for_the_whole_table_lets_the_first_one_read_alone(
    store: PolarisDataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, counts, sees = await expected_of(store), sharers(monkeypatch), _sharing._sees
    engine, waiting = engine_of(store), asyncio.Event()
    other = await asyncpg.connect(engine.dsn.addresses()[0])

    async def lock() -> None:
        table = await other.fetchval(
            "SELECT format('%I.%I', $1::text, relname) FROM pg_class WHERE relnamespace = $1::regnamespace"
            " AND relkind = 'p'",
            engine.schema,
        )
        waiting.set()
        async with other.transaction():
            await other.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")

    async def behind_another(link: Link, *row: Any) -> bool:
        if not waiting.is_set():
            locking.append(asyncio.ensure_future(lock()))
            while not await link.value("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
        return await sees(link, *row)

    locking: list[asyncio.Future[None]] = []
    monkeypatch.setattr(_sharing, "_sees", behind_another)
    try:
        async with within(8.0):
            assert_equal(await asked(store), expected)
        await locking[0]
    finally:
        await other.close()
    assert counts[0] == _sharing.SHARES_MAX
    assert set(counts[1:]) == {1}


async def test_who_can_have_no_other_connection_reads_alone(
    store: PolarisDataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, counts, pool = await expected_of(store), sharers(monkeypatch), engine_of(store)._pool
    connect = Connector._connect

    async def refused(connector: Connector, *where: Any) -> Any:
        if pool._users > 1:
            raise driver_errors.OutOfMemoryError("out of memory")
        return await connect(connector, *where)

    monkeypatch.setattr(Connector, "_connect", refused)
    await pool._pool.expire_connections()
    assert_equal(await asked(store), expected)
    assert set(counts) == {1}
    assert pool._users == 0


async def test_a_reading_whose_connection_is_lost_at_its_very_end_is_done_anew(
    store: PolarisDataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, lost = Link.commit, 0

    class Dying:
        """A connection whose server goes away while it commits."""

        def __init__(self, link: Link) -> None:
            self.link, self.connection = link, link.connection

        async def execute(self, _sql: str) -> str:
            self.link.connection = self.connection
            return str(await self.connection.execute("SELECT pg_terminate_backend(pg_backend_pid())"))

    async def commit_once_lost(link: Link) -> None:
        nonlocal lost
        if not lost:
            lost += 1
            link.connection = Dying(link)
        await commit(link)

    monkeypatch.setattr(Link, "commit", commit_once_lost)
    assert_equal(await asked(store), await expected_of(store))
    assert lost
    assert (await store.stats())["postgresql"]["repetitions"] == 1


@given(st.lists(st.integers(0, 1_000), min_size=1), st.integers(1, 8))
def test_runs_are_all_of_it_in_order(weights: list[int], count: int) -> None:
    runs = _sharing.runs(weights, count)
    assert [place for start, end in runs for place in range(start, end)] == list(range(len(weights)))
    assert all(start < end for start, end in runs)
    assert len(runs) <= count


@pytest.mark.parametrize("name", ["p0", "p0.1", "p5", "p25", "p26", "p74", "p75", "p90", "p99", "p99.9", "p100"])
async def test_percentiles_near_an_end_are_those_of_the_definition(store: PolarisDataStore, name: str) -> None:
    async with PolarisDataStore.memory() as memory:
        await memory.time_series.store_many("c", points(7))
        for seconds in (32, 100, 100_000):
            found, expected = [
                await one.time_series.aggregate_time_series(
                    "c", TimeRange.all(), name, group_by="system", bucket=timedelta(seconds=seconds)
                )
                for one in (store, memory)
            ]
            assert [point.value for point in found] == pytest.approx([point.value for point in expected], rel=1e-12)
