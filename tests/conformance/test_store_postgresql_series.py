"""Series found by their tags on a server that has no statistics of them yet."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import pytest
from tests.conformance.conftest import QuickPostgres, schema_numbers
from tests.conformance.test_store_postgresql_nodes import plans
from tests.postgres_servers import VERSIONS

from polaris.storage import PolarisDataStore, TimeSeriesPoint

T0 = datetime(2030, 1, 1, tzinfo=UTC)
COUNT = 2_000


@pytest.mark.parametrize("version", VERSIONS)
async def test_one_of_many_new_series_is_looked_up(quick_postgres: QuickPostgres, version: int) -> None:
    dsn = quick_postgres(version).dsn
    async with PolarisDataStore.postgresql(dsn, schema=f"series_{next(schema_numbers)}", pool_max=2) as store:
        points = [TimeSeriesPoint(T0, {"system": f"s{number}"}, {"x": number}) for number in range(COUNT)]
        await store.time_series.store_many("c", points)
        plan = await plans(store, partial(store.time_series.latest, "c", {"system": "s77"}))
        assert "value = 's77'::text" in plan.replace("(", "").replace(")", ""), plan
        assert "Rows Removed by Filter" not in plan
        found = await store.time_series.latest("c", {"system": {"$in": ["s77", "s78", "s79"]}})
        assert {point.fields["x"] for point in found} == {77, 78, 79}
