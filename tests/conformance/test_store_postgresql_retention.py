"""Retention on PostgreSQL beside others: who uses the collection for long, and who replaces its policy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from tests.conformance.conftest import EmptySchemas
from tests.faults.retention_acts import T0, MovedClock

from polaris.exceptions import TransactionConflictError
from polaris.storage import PolarisDataStore, RetentionPolicy, RollupPolicy, TimeRange, TimeSeriesPoint
from polaris.storage.backends.postgresql import PostgresEngine
from polaris.storage.backends.postgresql._drop_pauses import DROP_PAUSE_S
from polaris.storage.backends.postgresql._link import Link
from polaris.storage.backends.postgresql._rollups import PostgresRollups
from polaris.storage.backends.postgresql._verify_reader import snapshot
from polaris.storage.backends.shared import _timeseries as shared_timeseries

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
POINTS = [TimeSeriesPoint(T0 + n * 10 * MINUTE, {}, {"v": n}) for n in range(30)]
FOR_EVER = RetentionPolicy()
ROLLED_UP = RetentionPolicy(HOUR, [RollupPolicy(MINUTE, 9 * HOUR)])


class SetClock(MovedClock):
    """A clock that stands where the test puts it."""

    seconds = 1_000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture(autouse=True)
def _small_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_timeseries, "RETENTION_ROWS_MAX", 5)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def engines(empty_schemas: EmptySchemas, clock: SetClock) -> AsyncIterator[list[PostgresEngine]]:
    """Those of two processes on one store, which has the points, an hour in each partition."""
    dsn, schema = empty_schemas(15)
    made = [PostgresEngine(dsn, schema=schema, clock=clock, partition_hours=1, pool_max=3) for _ in range(2)]
    async with PolarisDataStore(made[0]) as store, PolarisDataStore(made[1]):
        await store.time_series.store_many("m", POINTS)
        yield made


async def partitions(engine: PostgresEngine) -> int:
    async with engine._pool.link() as link:
        return int(await link.value("SELECT count(*) FROM ts_partitions"))


@pytest.mark.parametrize("policy", [RetentionPolicy(HOUR), ROLLED_UP], ids=["points", "rollups"])
async def test_who_uses_a_collection_for_long_is_waited_for_once_and_not_by_every_slice(
    engines: list[PostgresEngine], clock: SetClock, policy: RetentionPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []
    run = Link.run

    async def noted(link: Link, sql: str, *values: Any, **options: Any) -> int:
        if sql.startswith("LOCK TABLE ONLY"):
            tries.append(sql)
        return await run(link, sql, *values, **options)

    engine, series = engines[0], engines[0].time_series
    await series.set_retention("m", policy)
    clock.time = T0 + 6 * HOUR
    monkeypatch.setattr(Link, "run", noted)
    async with engine._pool.link() as link:
        home = await engine._catalog.find_series_home(link, "m")
    assert home is not None
    async with snapshot(engine._pool, 30.0, [home.table]):
        assert await series.apply_retention("m") == 29
        await series.store_many("m", POINTS[:20])
        assert await series.apply_retention("m") == 20
        assert len(tries) == 1
        assert await partitions(engine) == 5
    clock.seconds += DROP_PAUSE_S / 2
    await series.apply_retention("m")
    assert await partitions(engine) == 5
    clock.seconds += DROP_PAUSE_S / 2
    await series.apply_retention("m")
    assert await partitions(engine) == 1


async def count_points(engine: PostgresEngine) -> int:
    return len(await engine.time_series.query_time_series("m", TimeRange.all()))


async def count_summarised(engine: PostgresEngine) -> int:
    (whole,) = await engine.time_series.aggregate_time_series("m", TimeRange.all(), "count")
    return whole.count


class SetsAnotherPolicy:
    """Another process sets a policy when the first slice has seen the one before."""

    def __init__(self, engine: PostgresEngine, policy: RetentionPolicy, count: Any) -> None:
        self._engine = engine
        self._policy = policy
        self._count = count
        self.setting: asyncio.Task[int] | None = None

    async def _set(self) -> int:
        """Gives what was there when it was set."""
        await self._engine.time_series.set_retention("m", self._policy)
        return int(await self._count(self._engine))

    async def begin(self) -> None:
        """Until it is set, or waits for the slice."""
        self.setting = asyncio.create_task(self._set())
        async with self._engine._pool.link() as link:
            while not (
                self.setting.done()
                or await link.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'")
            ):
                await asyncio.sleep(0.005)

    @asynccontextmanager
    async def at_the_first_slice(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
        settled = PostgresRollups.settled_policy

        async def seen(rollups: PostgresRollups) -> RetentionPolicy | None:
            policy = await settled(rollups)
            if self.setting is None:
                await self.begin()
            return policy

        with monkeypatch.context() as patched:
            patched.setattr(PostgresRollups, "settled_policy", seen)
            yield


@pytest.mark.parametrize("policy", [RetentionPolicy(HOUR), ROLLED_UP], ids=["points", "rollups"])
async def test_when_another_policy_is_set_no_point_goes_by_the_one_before(
    engines: list[PostgresEngine], clock: SetClock, policy: RetentionPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = engines
    await one.time_series.set_retention("m", policy)
    clock.time = T0 + 6 * HOUR
    another = SetsAnotherPolicy(other, FOR_EVER, count_points)
    async with another.at_the_first_slice(monkeypatch):
        gone = await one.time_series.apply_retention("m")
    assert another.setting is not None
    assert gone in (5, 6)
    assert await another.setting == await count_points(one) == 30 - gone


async def test_when_another_policy_is_set_no_rollup_goes_by_the_one_before(
    engines: list[PostgresEngine], clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = engines
    await one.time_series.set_retention("m", ROLLED_UP)
    clock.time = T0 + 6 * HOUR
    assert await one.time_series.apply_retention("m") == 29
    await one.time_series.set_retention("m", RetentionPolicy(None, [RollupPolicy(MINUTE, HOUR)]))
    another = SetsAnotherPolicy(other, FOR_EVER, count_summarised)
    async with another.at_the_first_slice(monkeypatch):
        assert await one.time_series.apply_retention("m") == 0
    assert another.setting is not None
    assert await another.setting == await count_summarised(one) == 30 - 5


async def test_when_a_first_policy_with_rollups_is_set_no_point_goes_without_a_rollup(
    engines: list[PostgresEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = engines
    another = SetsAnotherPolicy(other, RetentionPolicy(None, [RollupPolicy(MINUTE)]), count_summarised)
    async with another.at_the_first_slice(monkeypatch):
        assert await one.time_series.apply_retention("m", keep_since=T0 + 4 * HOUR) == 24
    assert another.setting is not None
    assert await another.setting == await count_summarised(one) == 30 - 6
    assert await count_points(one) == 6


async def test_a_unit_of_work_does_not_retain_by_a_policy_that_was_replaced_since_its_snapshot(
    engines: list[PostgresEngine], clock: SetClock
) -> None:
    one, other = engines
    await one.time_series.set_retention("m", RetentionPolicy(HOUR))
    clock.time = T0 + 6 * HOUR
    async with PolarisDataStore(one).unit_of_work() as work:
        assert await work.time_series.get_retention("m") == RetentionPolicy(HOUR)
        await other.time_series.set_retention("m", FOR_EVER)
        with pytest.raises(TransactionConflictError):
            await work.time_series.apply_retention("m")
    assert await count_points(other) == 30
    async with PolarisDataStore(one).unit_of_work() as work:
        await work.time_series.set_retention("m", RetentionPolicy(HOUR))
        assert await work.time_series.apply_retention("m") == 29
        await work.commit()
    assert await count_points(other) == 1
