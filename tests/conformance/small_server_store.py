"""A small store on a server with a little of each model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.faults.retention_acts import MovedClock

from polaris.domain import HealthEvent, HealthStatus
from polaris.storage import PolarisDataStore, RetentionPolicy, RollupPolicy, TimeSeriesPoint

T0 = datetime(2030, 1, 1, tzinfo=UTC)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
FOR_EVER = RetentionPolicy(None, [RollupPolicy(10 * SECOND)])
ROLLED_UP = RetentionPolicy(timedelta(minutes=1), [RollupPolicy(10 * SECOND)])


async def filled(dsn: str, schema: str) -> None:
    """A little of each model, with summaries of points and rollups of points that are gone."""
    clock = MovedClock()
    store = PolarisDataStore.postgresql(dsn, schema=schema, clock=clock)
    async with store:
        points = [
            TimeSeriesPoint(T0 + n * SECOND, {"host": f"h{n % 2}", "zone": "z"}, {"v": n / 7, "n": n, "text": str(n)})
            for n in range(100)
        ]
        points.append(TimeSeriesPoint(datetime(1960, 1, 1, tzinfo=UTC), {"host": "h0", "zone": "z"}, {"v": 1.0}))
        for name, policy in (("m", FOR_EVER), ("other", ROLLED_UP)):
            await store.time_series.set_retention(name, policy)
            await store.time_series.store_many(name, points)
        clock.time = T0 + HOUR
        for name in ("m", "other"):
            await store.time_series.apply_retention(name)
        await store.documents.create_index("d", "n", unique=True)
        await store.documents.create_index("d", "text")
        await store.documents.insert_documents("d", [{"_id": f"d{n}", "n": n, "text": "\0"} for n in range(3)])
        await store.graph.add_edge("a", "b", "needs", {"strength": 0.5})
        await store.graph.add_edge("b", "a", "needs")
        async with store.unit_of_work() as work:
            for number in range(2):
                await work.publish("t", HealthEvent(component=f"c{number}", status=HealthStatus.HEALTHY))
            await work.commit()
