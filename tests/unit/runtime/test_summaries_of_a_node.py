"""What a node does for long ranges without being told: it summarises its samples, also those that are there already."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.awake import PATIENCE_S, within

from polaris.domain import HealthStatus, MetricValue, SystemState
from polaris.runtime import Settings
from polaris.runtime._store import apply_retention
from polaris.storage import AggregatedPoint, AggregationType, PolarisDataStore, SqliteEngine, TimeRange
from polaris.storage.backends.sqlite._sql import scalar

T0 = datetime(2030, 1, 1, tzinfo=UTC)
SAMPLES = 3_000
"""One a second: ten windows."""
BUCKETS = (timedelta(minutes=5), timedelta(minutes=10), timedelta(seconds=777))


def opened(path: Path) -> tuple[PolarisDataStore, SqliteEngine]:
    """A store whose samples are soon where windows of them can be summarised."""
    engine = SqliteEngine(path, hot_rows_max=100, slice_rows=50)
    return PolarisDataStore(engine), engine


async def save(store: PolarisDataStore, first: int, last: int) -> None:
    for begin in range(first, last, 500):
        await store.states.save_many(
            [
                SystemState(
                    "s", T0 + timedelta(seconds=n), {"m": MetricValue("m", n * 37 % 1_000 / 7.0)}, HealthStatus.HEALTHY
                )
                for n in range(begin, begin + 500)
            ]
        )


async def asked(store: PolarisDataStore, bucket: timedelta) -> list[AggregatedPoint]:
    whole = TimeRange(T0, T0 + timedelta(seconds=SAMPLES))
    return await store.states.aggregate("s", "m", whole, AggregationType.AVG, bucket=bucket)


async def counted(engine: SqliteEngine, sql: str) -> int:
    assert engine._readers is not None
    return int(await engine._readers.run(lambda session: scalar(session.connection, sql)))


async def summarised(engine: SqliteEngine, windows: int) -> None:
    async with within(PATIENCE_S):
        while await counted(engine, "SELECT count(*) FROM ts_windows") < windows:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("first_opened_by", ["a node", "a release without summaries"])
async def test_a_node_summarises_its_samples_and_says_what_they_say(tmp_path: Path, first_opened_by: str) -> None:
    is_old = first_opened_by != "a node"
    store, engine = opened(tmp_path / "store.db")
    async with store:
        if not is_old:
            await apply_retention(store, Settings())
        await save(store, 0, SAMPLES)
        raw = [await asked(store, bucket) for bucket in BUCKETS]
        if is_old:
            assert await counted(engine, "SELECT count(*) FROM ts_windows") == 0
    store, engine = opened(tmp_path / "store.db")
    async with store:
        await apply_retention(store, Settings())
        await summarised(engine, 9)
        for bucket, points in zip(BUCKETS, raw, strict=True):
            found = await asked(store, bucket)
            assert [(one.timestamp, one.count, one.approximate) for one in found] == [
                (one.timestamp, one.count, False) for one in points
            ]
            assert [one.value for one in found] == pytest.approx([one.value for one in points], rel=1e-12)
        assert await engine.verify() == []
        # The answer is of summaries: it is there without the samples, but for the window that is not over.
        await engine._write(lambda session: session.connection.execute("DELETE FROM ts_cold"), keep=True)
        assert sum(one.count for one in await asked(store, BUCKETS[0])) >= 2_700
