"""What the test of very many series runs in a process of its own: `series_child.py COUNT PATH|DSN SCHEMA`."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import psutil

from polaris.exceptions import SeriesLimitError
from polaris.storage import PolarisDataStore, SeriesLimits, TimeRange, TimeSeriesPoint
from polaris.storage.backends.postgresql import PostgresEngine

T0 = datetime(2030, 1, 1, tzinfo=UTC)
BATCH = 1_000
PAGE = 1_000
TRIES = 10


def tags_of(number: int) -> dict[str, str]:
    return {"host": f"h{number:07}", "zone": f"z{number % 10}"}


def points(start: int, end: int, second: int) -> list[TimeSeriesPoint]:
    at = T0 + timedelta(seconds=second)
    return [TimeSeriesPoint(at, tags_of(number), {"v": number + second}) for number in range(start, end)]


def memory_bytes() -> int:
    """What this process has now; the peak that the system notes may be that of the process that started it."""
    used: int = psutil.Process().memory_info().rss
    return used


async def taken_s(ask: Callable[[], Awaitable[object]]) -> float:
    began_s = time.perf_counter()
    await ask()
    return time.perf_counter() - began_s


class VeryManySeries:
    """A store at the limit of its collection, and what was measured."""

    def __init__(self, store: PolarisDataStore, count: int) -> None:
        self.store = store
        self.series = store.time_series
        self.count = count
        self.told: dict[str, Any] = {}

    async def write(self) -> None:
        """Two points of every series, a batch after the other."""
        await self.series.store_many("m", points(0, BATCH, 0))
        before, most = memory_bytes(), 0
        for second in (0, 1):
            for start in range(0, self.count, BATCH):
                await self.series.store_many("m", points(start, min(start + BATCH, self.count), second))
                most = max(most, memory_bytes())
        self.told["growth_bytes"] = most - before

    async def listed(self) -> None:
        """Every series is listed once, in order, page by page."""
        number, after = 0, None
        while page := await self.series.list_series("m", limit=PAGE, after=after):
            assert page == [tags_of(number + place) for place in range(len(page))]
            number, after = number + len(page), page[-1]
        assert number == self.count

    async def counted(self) -> None:
        assert await self.series.count_series("m") == await self.series.count_series() == self.count
        assert await self.series.count_series("m", {"zone": "z3"}) == self.count // 10

    async def one(self, number: int) -> None:
        """Both points of one series, and the newest of them."""
        at = [point.fields["v"] for point in await self.series.query_time_series("m", TimeRange.all(), tags_of(number))]
        assert at == [number, number + 1]
        newest = await self.series.latest("m", {"host": tags_of(number)["host"]})
        assert [point.fields["v"] for point in newest] == [number + 1]

    async def refused(self) -> None:
        """One more is refused with all that came with it; those that are known are written."""
        try:
            await self.series.store_many("m", points(self.count - BATCH, self.count + 1, 2))
        except SeriesLimitError as error:
            assert (error.limit, error.count, error.scope) == (self.count, self.count + 1, "collection")
        else:
            raise AssertionError("one more series than there may be was taken")
        await self.one(self.count - 1)
        assert await self.series.count_series("m") == self.count
        await self.series.store_many("m", points(self.count - BATCH, self.count, 3))
        newest = await self.series.latest("m", tags_of(self.count - 1))
        assert [point.fields["v"] for point in newest] == [self.count + 2]

    async def run(self) -> None:
        self.told["write_s"] = await taken_s(self.write)
        self.told["count_s"] = await taken_s(self.counted)
        self.told["list_s"] = await taken_s(self.listed)
        step = self.count // TRIES
        self.told["one_s"] = min([await taken_s(partial(self.one, n)) for n in range(0, self.count, step)])
        self.told["refuse_s"] = await taken_s(self.refused)


async def main(count: int, address: str, schema: str | None = None) -> None:
    if schema is None:
        store = PolarisDataStore.sqlite(address, collection_series_max=count)
    else:
        limits = SeriesLimits(collection_series_max=count)
        store = PolarisDataStore(PostgresEngine(address, schema=schema, pool_max=2, series_limits=limits))
    async with store:
        many = VeryManySeries(store, count)
        await many.run()
    sys.stdout.write(msgspec.json.encode(many.told).decode() + "\n")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
