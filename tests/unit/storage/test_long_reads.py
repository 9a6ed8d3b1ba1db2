"""Long results are read in pages: bounded memory, others get their turn, and writers are not waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from polaris.exceptions import InvalidValueError, QueryError
from polaris.storage import PolarisDataStore, TimeRange, TimeSeriesPoint
from polaris.storage._operation import Operation
from polaris.storage.backends.shared import TimeSeriesPort

T0 = datetime(2030, 1, 1, tzinfo=UTC)
ALL = TimeRange.all()


def points(start: int, end: int) -> list[TimeSeriesPoint]:
    return [TimeSeriesPoint(T0 + timedelta(seconds=n), {"h": str(n % 3)}, {"v": n}) for n in range(start, end)]


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PolarisDataStore]:
    made = PolarisDataStore.memory()
    if request.param == "sqlite":
        made = PolarisDataStore.sqlite(tmp_path / "store.db", hot_rows_max=50, slice_rows=40)
    async with made:
        await made.time_series.store_many("m", points(0, 300))
        yield made


async def test_a_reader_never_asks_for_more_than_a_page(
    store: PolarisDataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = store.time_series
    assert isinstance(port, TimeSeriesPort)
    sizes: list[int] = []
    original = port._executor.execute

    async def execute(operation: Operation[Any]) -> Any:
        found = await original(operation)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(port, "_executor", type("Counting", (), {"execute": staticmethod(execute)})())
    read = [one.fields["v"] async for one in store.time_series.iterate_time_series("m", ALL, page_points=64)]
    assert read == list(range(300))
    assert sizes == [64, 64, 64, 64, 44]


async def test_points_written_behind_a_reader_are_read_and_those_before_it_are_not(store: PolarisDataStore) -> None:
    read: list[Any] = []
    async for one in store.time_series.iterate_time_series("m", ALL, page_points=50):
        read.append(one.fields["v"])
        if len(read) == 100:
            await store.time_series.store_many("m", [*points(-5, 0), *points(300, 305)])
            await store.time_series.delete_range(
                "m", TimeRange(T0 + timedelta(seconds=150), T0 + timedelta(seconds=160))
            )
    assert read == [*range(150), *range(160, 305)]


async def test_a_reader_may_leave_early_or_be_cancelled(store: PolarisDataStore) -> None:
    async for one in store.time_series.iterate_time_series("m", ALL, page_points=10):
        if one.fields["v"] == 25:
            break

    async def read() -> None:
        async for _ in store.time_series.iterate_time_series("m", ALL, page_points=1):
            await asyncio.sleep(0)

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(await store.time_series.query_time_series("m", ALL)) == 300


@pytest.mark.parametrize("page_points", [0, -1, 100_001, True, 1.5, None])
async def test_sizes_of_pages_that_are_none_are_refused(store: PolarisDataStore, page_points: Any) -> None:
    with pytest.raises(QueryError, match="page_points"):
        await anext(store.time_series.iterate_time_series("m", ALL, page_points=page_points))


async def test_what_is_no_point_is_no_place_to_go_on(store: PolarisDataStore) -> None:
    place: Any = T0
    with pytest.raises(InvalidValueError, match="after"):
        await store.time_series.query_time_series("m", ALL, after=place)
