"""What the test of a really full disk runs on it: `full_disk_child.py FOLDER`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from polaris.domain import HealthEvent, HealthStatus
from polaris.exceptions import StoreFullError
from polaris.storage import PolarisDataStore, SqliteEngine, TimeRange, TimeSeriesPoint

T0 = datetime(2030, 1, 1, tzinfo=UTC)
ROUNDS = 3
AT_ONCE = 4
POINTS = 50
LEFT_BYTES = 1 << 20
"""Room that a round begins with when the disk is to be full in the middle of it."""


def batch(number: int) -> list[TimeSeriesPoint]:
    return [
        TimeSeriesPoint(T0 + timedelta(seconds=number * POINTS + n), {"h": "web"}, {"v": number, "text": "x" * 200})
        for n in range(POINTS)
    ]


def free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class Ballast:
    """A file of somebody else that takes the room."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "ballast"

    def fill(self, *, left_bytes: int = 0) -> None:
        with (
            self.path.open("ab", buffering=0) as file,
            contextlib.suppress(OSError),
        ):  # somebody else took the last room
            while (room_bytes := free_bytes(self.folder) - left_bytes) > 0:
                file.write(bytes(min(room_bytes, 1 << 20)))

    async def fill_for_good(self, writers: Writers) -> None:
        """Until a write is refused: the store gives room back when it empties its log."""
        self.fill()
        while await writers.write():
            self.fill()

    def throw_away(self) -> None:
        self.path.unlink()


class Writers:
    """Writers who know what was acknowledged, and take nothing but `StoreFullError` for a refusal."""

    def __init__(self, store: PolarisDataStore) -> None:
        self.store = store
        self.batches: set[int] = set()
        self.works: set[int] = set()
        self.refused = 0
        self._next = 0

    async def write(self) -> bool:
        """A batch, and a unit of work over all models; whether both were done."""
        number, self._next = self._next, self._next + 1
        try:
            await self.store.time_series.store_many("m", batch(number))
            self.batches.add(number)
            async with self.store.unit_of_work() as work:
                await work.time_series.store_many("w", batch(number))
                await work.documents.insert_document("d", {"_id": str(number), "text": "x" * 2_000})
                await work.graph.add_edge(f"n{number}", "root", "needs", {"text": "x" * 500})
                await work.publish("t", HealthEvent(component=str(number), status=HealthStatus.HEALTHY))
                await work.commit()
            self.works.add(number)
        except StoreFullError:
            self.refused += 1
            return False
        return True

    async def write_until_refused(self) -> None:
        async def on() -> None:
            while await self.write():
                pass

        await asyncio.gather(*[on() for _ in range(AT_ONCE)])

    async def check(self) -> None:
        """The store has what was acknowledged, whole, and nothing that was not."""
        for name, known in (("m", self.batches), ("w", self.works)):
            points = await self.store.time_series.query_time_series(name, TimeRange.all())
            numbers = [point.fields["v"] for point in points]
            assert {number: numbers.count(number) for number in set(numbers)} == dict.fromkeys(known, POINTS), name
        names = {str(number) for number in self.works}
        assert {one["_id"] for one in await self.store.documents.find_documents("d")} == names
        edges = await self.store.graph.get_edges("root", direction="in")
        assert {edge.source.removeprefix("n") for edge in edges} == names
        pending = await self.store.outbox.pending(limit=10_000)
        assert sorted(entry.event().component for entry in pending) == sorted(names)  # type: ignore[attr-defined] # all are HealthEvent
        assert await self.store.verify() == []


async def main(folder: Path) -> None:
    path, ballast = folder / "store.db", Ballast(folder)
    engine = SqliteEngine(path, hot_rows_max=400, slice_rows=150)
    async with PolarisDataStore(engine) as store:
        writers = Writers(store)
        for _ in range(ROUNDS):
            done = len(writers.works)
            while len(writers.works) < done + 10:
                assert await writers.write(), "there is room, but a write was refused"
            assert (await store.health()).status is HealthStatus.HEALTHY
            ballast.fill(left_bytes=LEFT_BYTES)
            await writers.write_until_refused()
            await ballast.fill_for_good(writers)
            assert (await store.health()).status is HealthStatus.UNHEALTHY
            await writers.check()
            ballast.throw_away()
        assert await writers.write()
        await writers.check()
        await ballast.fill_for_good(writers)
        try:
            await engine.backup(folder / "copy.db")
        except StoreFullError:
            assert not list(folder.glob("copy*"))
        else:
            raise AssertionError("a backup found room on a full disk")
    async with PolarisDataStore.sqlite(path) as store:  # still full
        writers.store = store
        await writers.check()
        await ballast.fill_for_good(writers)
        ballast.throw_away()
        assert await writers.write()
        await writers.check()
    told = {"works": len(writers.works), "refused": writers.refused}
    sys.stdout.write(msgspec.json.encode(told).decode() + "\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
