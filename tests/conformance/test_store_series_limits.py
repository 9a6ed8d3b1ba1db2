"""The numbers of series are bounded, in a collection and in the store: what would be too many is refused as a whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.conftest import QuickPostgres, schema_numbers
from tests.postgres_servers import VERSIONS

from polaris.exceptions import SeriesLimitError
from polaris.storage import PolarisDataStore, SeriesLimits, TimeRange, TimeSeriesPoint
from polaris.storage.backends.memory import InMemoryEngine
from polaris.storage.backends.postgresql import PostgresEngine

T0 = datetime(2030, 1, 1, tzinfo=UTC)
LIMITS: dict[str, Any] = {"series_max": 5, "collection_series_max": 3}


@pytest.fixture(params=["memory", "sqlite", *VERSIONS])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, quick_postgres: QuickPostgres
) -> AsyncIterator[PolarisDataStore]:
    limits = SeriesLimits(**LIMITS)
    if request.param == "memory":
        made = PolarisDataStore(InMemoryEngine(series_limits=limits))
    elif request.param == "sqlite":
        made = PolarisDataStore.sqlite(tmp_path / "store.db", **LIMITS)
    else:
        server, schema = quick_postgres(request.param), f"limits_{next(schema_numbers)}"
        made = PolarisDataStore(PostgresEngine(server.dsn, schema=schema, pool_max=3, series_limits=limits))
    async with made:
        yield made


def points(*hosts: str, second: int = 0) -> list[TimeSeriesPoint]:
    return [TimeSeriesPoint(T0 + timedelta(seconds=second), {"host": host}, {"v": 1}) for host in hosts]


async def refused(store: PolarisDataStore, collection: str, *hosts: str) -> SeriesLimitError:
    before = [await store.time_series.list_series(name) for name in ("m", "n", "o")]
    with pytest.raises(SeriesLimitError) as caught:
        await store.time_series.store_many(collection, points(*hosts))
    assert [await store.time_series.list_series(name) for name in ("m", "n", "o")] == before
    return caught.value


async def test_a_collection_takes_no_more_series_than_it_may_have(store: PolarisDataStore) -> None:
    await store.time_series.store_many("m", points("a", "b"))
    error = await refused(store, "m", "a", "c", "d", "e")
    assert (error.collection, error.limit, error.count, error.scope) == ("m", 3, 4, "collection")
    assert "'m'" in error.message
    assert "3" in error.message
    assert error.context == {"collection": "m", "limit": 3, "count": 4, "scope": "collection"}
    await store.time_series.store_many("m", points("c"))
    assert len(await store.time_series.query_time_series("m", TimeRange.all())) == 3


async def test_the_store_takes_no_more_series_than_it_may_have(store: PolarisDataStore) -> None:
    await store.time_series.store_many("m", points("a", "b", "c"))
    await store.time_series.store_many("n", points("a", "b"))
    error = await refused(store, "o", "a")
    assert (error.collection, error.limit, error.count, error.scope) == ("o", 5, 6, "store")


async def test_series_that_exist_are_written_when_no_new_one_is(store: PolarisDataStore) -> None:
    await store.time_series.store_many("m", points("a", "b", "c"))
    await refused(store, "m", "d")
    await store.time_series.store_many("m", points("a", "c", second=1))
    assert len(await store.time_series.query_time_series("m", TimeRange.all())) == 5


async def test_deleted_series_make_room(store: PolarisDataStore) -> None:
    await store.time_series.store_many("m", points("a", "b", "c"))
    await refused(store, "m", "d")
    await store.time_series.delete_series("m", {"host": "b"})
    await store.time_series.store_many("m", points("d"))
    assert await store.time_series.list_series("m") == [{"host": "a"}, {"host": "c"}, {"host": "d"}]


async def test_what_was_rolled_back_takes_no_room(store: PolarisDataStore) -> None:
    async with store.unit_of_work() as work:
        await work.time_series.store_many("m", points("x", "y", "z"))
        assert await work.time_series.count_series("m") == 3
    await store.time_series.store_many("m", points("a", "b", "c"))
    async with store.unit_of_work() as work:
        await work.time_series.store_many("m", points("d"))
        with pytest.raises(SeriesLimitError):
            await work.commit()
    assert await store.time_series.count_series("m") == 3


async def test_nothing_is_refused_for_what_another_process_has_deleted(quick_postgres: QuickPostgres) -> None:
    server, schema = quick_postgres(15), f"limits_{next(schema_numbers)}"
    one, other = (
        PolarisDataStore(PostgresEngine(server.dsn, schema=schema, pool_max=2, series_limits=SeriesLimits(**LIMITS)))
        for _ in range(2)
    )
    async with one, other:
        await one.time_series.store_many("m", points("a", "b", "c"))
        assert (await refused(other, "m", "d")).count == 4
        await other.time_series.delete_series("m", {"host": "c"})
        # The first still knows of three; before it refuses it counts again.
        await one.time_series.store_many("m", points("d"))
        assert (await refused(one, "m", "e")).count == 4
        assert await other.time_series.count_series("m") == 3
