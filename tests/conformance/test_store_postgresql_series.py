"""Series found by their tags on a server without statistics of them, and series that go while they are found."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from tests.conformance.conftest import QuickPostgres, schema_numbers
from tests.conformance.postgres_plans import plans
from tests.postgres_servers import VERSIONS

from polaris.storage import PolarisDataStore, TimeRange, TimeSeriesPoint
from polaris.storage.backends.postgresql._series import SeriesRegistry

T0 = datetime(2030, 1, 1, tzinfo=UTC)
COUNT = 2_000


@pytest.mark.parametrize("version", VERSIONS)
async def test_one_of_many_new_series_is_looked_up(quick_postgres: QuickPostgres, version: int) -> None:
    dsn = quick_postgres(version).dsn
    async with PolarisDataStore.postgresql(dsn, schema=f"series_{next(schema_numbers)}", pool_max=2) as store:
        points = [TimeSeriesPoint(T0, {"system": f"s{number}"}, {"x": number}) for number in range(COUNT)]
        await store.time_series.store_many("c", points)
        plan = "\n".join(await plans(store, partial(store.time_series.latest, "c", {"system": "s77"})))
        assert "value = 's77'::text" in plan.replace("(", "").replace(")", ""), plan
        assert "Rows Removed by Filter" not in plan
        found = await store.time_series.latest("c", {"system": {"$in": ["s77", "s78", "s79"]}})
        assert {point.fields["x"] for point in found} == {77, 78, 79}


@pytest.mark.parametrize("version", VERSIONS)
async def test_writers_look_up_the_series_of_a_batch_among_many_new_ones(
    quick_postgres: QuickPostgres, version: int
) -> None:
    dsn, schema = quick_postgres(version).dsn, f"series_{next(schema_numbers)}"
    points = [TimeSeriesPoint(T0, {"system": f"s{number}"}, {"x": number}) for number in range(COUNT)]
    async with PolarisDataStore.postgresql(dsn, schema=schema, pool_max=2) as store:
        await store.time_series.store_many("c", points)
    async with PolarisDataStore.postgresql(dsn, schema=schema, pool_max=2) as newcomer:
        told = await plans(newcomer, partial(newcomer.time_series.store_many, "c", points[:50]))
    plan = "\n".join(one for one in told if "on ts_series" in one)
    assert "Index Scan using ts_series_collection_digest_key on ts_series" in plan, told
    assert "Rows Removed by Filter" not in plan


@pytest.mark.parametrize("step", ["_create", "_grow"])
@pytest.mark.parametrize("version", VERSIONS)
async def test_a_series_that_another_node_deletes_while_it_grows_or_is_made_is_made_anew(
    quick_postgres: QuickPostgres, monkeypatch: pytest.MonkeyPatch, version: int, step: str
) -> None:
    dsn, schema = quick_postgres(version).dsn, f"series_{next(schema_numbers)}"
    first, second = TimeSeriesPoint(T0, {"h": "a"}, {"v": 1.0}), TimeSeriesPoint(T0, {"h": "a"}, {"v": 1.0, "w": 2.0})
    one = PolarisDataStore.postgresql(dsn, schema=schema, pool_max=2)
    other = PolarisDataStore.postgresql(dsn, schema=schema, pool_max=2)
    async with one, other:
        original = getattr(SeriesRegistry, step)
        await other.time_series.store_many("c", [first] if step == "_grow" else [TimeSeriesPoint(T0, {}, {"v": 1})])

        async def overtaken(registry: SeriesRegistry, *arguments: Any) -> Any:
            monkeypatch.setattr(SeriesRegistry, step, original)
            if step == "_create":
                await other.time_series.store_many("c", [first])
                found = await original(registry, *arguments)
            await other.time_series.delete_series("c", {"h": "a"})
            return await original(registry, *arguments) if step == "_grow" else found

        monkeypatch.setattr(SeriesRegistry, step, overtaken)
        await one.time_series.store_many("c", [second])
        assert await one.time_series.query_time_series("c", TimeRange.all(), {"h": "a"}) == [second]
