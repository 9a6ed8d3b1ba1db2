"""What writers do to a store on a server that fails, and what must be found there afterwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

from polaris.domain import AdaptationAction, HealthEvent, HealthStatus
from polaris.exceptions import DataStoreError, UnconfirmedWriteError
from polaris.storage import PolarisDataStore, TimeRange, TimeSeriesPoint

T0 = datetime(2030, 1, 1, tzinfo=UTC)
BATCH_POINTS = 20


def batch(number: int) -> list[TimeSeriesPoint]:
    """The points of a batch: its number is in each of them."""
    return [
        TimeSeriesPoint(T0 + timedelta(seconds=number * BATCH_POINTS + n), {"s": str(n % 3)}, {"batch": number})
        for n in range(BATCH_POINTS)
    ]


class Writers:
    """Tasks that write batches and units of work until told to stop, and note how each of them ended."""

    def __init__(self, store: PolarisDataStore) -> None:
        self.store = store
        self.numbers = iter(range(10**9))
        self.done: set[int] = set()
        self.open: set[int] = set()
        """Those of which nobody knows whether they were written."""
        self.undone: set[int] = set()
        self.works: set[int] = set()
        """Those that were units of work."""
        self.errors: Counter[str] = Counter()
        self.failures: dict[int, DataStoreError] = {}
        self.stopped = False

    async def run(self, count: int = 4) -> None:
        await asyncio.gather(*[self._write(worker % 2 == 0) for worker in range(count)])

    async def _write(self, as_work: bool) -> None:
        while not self.stopped:
            number = next(self.numbers)
            if as_work:
                self.works.add(number)
            try:
                await (self._work(number) if as_work else self.store.time_series.store_many("m", batch(number)))
                self.done.add(number)
            except UnconfirmedWriteError as error:
                self.open.add(number)
                self.errors[error.code] += 1
            except DataStoreError as error:
                self.undone.add(number)
                self.errors[error.code] += 1
                self.failures[number] = error
                await asyncio.sleep(0.02)

    async def _work(self, number: int) -> None:
        async with self.store.unit_of_work() as work:
            await work.time_series.store_many("m", batch(number))
            await work.actions.save(AdaptationAction(f"a-{number}", "scale", "web"))
            await work.graph.add_edge(f"n-{number}", "root", "needs")
            if number % 3 == 0:
                assert await work.actions.find_by_id(f"a-{number}") is not None
            await work.publish("t", HealthEvent(component=str(number), status=HealthStatus.HEALTHY))
            await work.commit()


async def check(writers: Writers, store: PolarisDataStore) -> None:
    """Everything acknowledged is there once, nothing that failed is, and nothing is half done."""
    points = await store.time_series.query_time_series("m", TimeRange.all())
    keys = {(point.timestamp, point.tags["s"]) for point in points}
    assert len(keys) == len(points)
    stored = Counter(int(point.fields["batch"] or 0) for point in points)
    assert set(stored.values()) <= {BATCH_POINTS}
    assert writers.done <= set(stored), f"acknowledged and lost: {writers.done - set(stored)}"
    wrong = set(stored) - writers.done - writers.open
    assert not wrong, f"refused and stored: {[writers.failures[number] for number in wrong]!r}"
    actions = {int(action.action_id[2:]) for action in await store.actions.find_all()}
    entries = await store.outbox.pending(limit=100_000)
    events = [int(entry.event().component) for entry in entries]  # type: ignore[attr-defined] # a HealthEvent
    edges = {int(node[2:]) for node in await store.graph.get_neighbors("root", "in")}
    assert len(set(events)) == len(events)
    assert actions == set(events) == edges == set(stored) & writers.works
    newest = {point.tags["s"]: point.timestamp for point in points}
    assert {one.tags["s"]: one.timestamp for one in await store.time_series.latest("m")} == newest
