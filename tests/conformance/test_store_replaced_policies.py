"""A policy that is replaced while its retention goes on deletes nothing any more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.conftest import QuickPostgres, schema_numbers
from tests.postgres_servers import VERSIONS

from polaris.storage import PolarisDataStore, RetentionPolicy, RollupPolicy, TimeRange, TimeSeriesPoint
from polaris.storage.backends.shared import _timeseries
from polaris.storage.backends.shared._timeseries import TimeSeriesPort

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
SLICE = 5


@pytest.fixture(params=["memory", "sqlite", *VERSIONS])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, quick_postgres: QuickPostgres
) -> AsyncIterator[PolarisDataStore]:
    if request.param == "memory":
        made = PolarisDataStore.memory()
    elif request.param == "sqlite":
        made = PolarisDataStore.sqlite(tmp_path / "store.db")
    else:
        schema = f"policies_{next(schema_numbers)}"
        made = PolarisDataStore.postgresql(quick_postgres(request.param).dsn, schema=schema, pool_max=2)
    async with made:
        yield made


def engine_of(store: PolarisDataStore) -> Any:
    (engine,) = store.engines
    return engine


class ReplacesThePolicy:
    """The engine as an executor, which sets another policy behind the second slice of retention."""

    def __init__(self, store: PolarisDataStore, policy: RetentionPolicy) -> None:
        self._store = store
        self._engine = engine_of(store)
        self._policy = policy
        self._slices = 0

    async def execute(self, operation: Any) -> Any:
        result = await self._engine.execute(operation)
        if operation.mutates:
            self._slices += 1
            if self._slices == 2:
                await self._store.time_series.set_retention("m", self._policy)
        return result


@pytest.mark.parametrize("rollups", [[], [RollupPolicy(MINUTE, 2 * HOUR), RollupPolicy(HOUR)]], ids=["none", "two"])
@pytest.mark.parametrize(
    ("kept", "left"),
    [(None, 20), (timedelta(days=365_000), 20), (2 * HOUR, 1)],
    ids=["for ever", "longer", "old all the same"],
)
async def test_from_the_next_slice_on_the_new_policy_counts(
    store: PolarisDataStore,
    monkeypatch: pytest.MonkeyPatch,
    rollups: list[RollupPolicy],
    kept: timedelta | None,
    left: int,
) -> None:
    monkeypatch.setattr(_timeseries, "RETENTION_ROWS_MAX", SLICE)
    points = [TimeSeriesPoint(LONG_AGO + n * MINUTE, {}, {"v": n}) for n in range(30)]
    await store.time_series.set_retention("m", RetentionPolicy(HOUR, rollups))
    await store.time_series.store_many("m", points)
    port = TimeSeriesPort(engine_of(store), ReplacesThePolicy(store, RetentionPolicy(kept)))
    assert await port.apply_retention("m") == 30 - left
    assert await store.time_series.query_time_series("m", TimeRange.all()) == points[30 - left :]
