"""What the fault tests run in processes of their own: `store_child.py ingest|read|look PATH ...`."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta

from polaris.domain import AdaptationAction, HealthEvent, HealthStatus
from polaris.storage import PolarisDataStore, TimeRange, TimeSeriesPoint

T0 = datetime(2030, 1, 1, tzinfo=UTC)
BATCH_POINTS = 50
SERIES = 7
LATE_MS = 100_000
PROCESS_BATCHES = 100_000
"""Numbers of batches for each process that ingests: more than it writes, its points have a time of their own."""


def batch(number: int) -> list[TimeSeriesPoint]:
    """The points of a batch: its number is in each of them, every fifth is late."""
    points = []
    for place in range(BATCH_POINTS):
        index = number * BATCH_POINTS + place
        late = LATE_MS if place % 5 == 0 else 0
        stamp = T0 + timedelta(milliseconds=index - late)
        points.append(TimeSeriesPoint(stamp, {"s": str(index % SERIES)}, {"batch": number, "v": index / 2}))
    return points


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def ingest(path: str, first: int) -> None:
    """Four tasks write batches and units of work, and say the number of each that was acknowledged."""
    numbers = iter(range(first, 10**9))
    async with PolarisDataStore.sqlite(path, hot_rows_max=400, slice_rows=150) as store:
        say("ready")

        async def worker(kind: int) -> None:
            for number in numbers:
                if kind == 0:
                    async with store.unit_of_work() as work:
                        await work.time_series.store_many("m", batch(number))
                        await work.actions.save(AdaptationAction(f"a-{number}", "scale", "web"))
                        await work.dependencies.graph.add_edge(f"n-{number}", "root", "needs")
                        await work.publish("t", HealthEvent(component=str(number), status=HealthStatus.HEALTHY))
                        await work.commit()
                    say(f"work {number}")
                else:
                    await store.time_series.store_many("m", batch(number))
                    say(f"batch {number}")

        await asyncio.gather(*[worker(kind) for kind in range(4)])


async def read(path: str, rounds: int) -> None:
    """Read the store of another process again and again; say how often, and what was seen."""
    async with PolarisDataStore.sqlite(path, read_only=True) as store:
        seen = 0
        for _ in range(rounds):
            points = await store.time_series.query_time_series("m", TimeRange.all())
            count = len(points)
            if count < seen or count % BATCH_POINTS:
                say(f"torn {seen} {count}")
                return
            seen = count
            latest = await store.time_series.latest("m")
            if len(latest) != (SERIES if count else 0) and count:
                say(f"latest {len(latest)}")
                return
            await store.actions.newest(limit=5)
        say(f"done {rounds} {seen}")


class Looks:
    """Looks at what the process that ingests now has written: nothing is half there, and nothing seen goes again."""

    def __init__(self) -> None:
        self._begin = T0
        self._seen: set[int] = set()

    async def look(self, store: PolarisDataStore) -> str:
        """`saw` with the newest batch (-1: none yet), or what is wrong."""
        latest = await store.time_series.latest("m")
        if not latest:
            return "saw -1"
        newest = max(point.timestamp for point in latest) - T0
        first = newest // timedelta(milliseconds=BATCH_POINTS) // PROCESS_BATCHES * PROCESS_BATCHES
        begin = T0 + timedelta(milliseconds=first * BATCH_POINTS - LATE_MS)
        if begin != self._begin:
            self._begin, self._seen = begin, set()
        # An action is written with a batch: asked for first, its batch is there when the points are.
        works = {int(action.action_id[2:]) for action in await store.actions.newest(limit=5)}
        points = await store.time_series.query_time_series("m", TimeRange.since(begin))
        batches = Counter(int(point.fields["batch"] or 0) for point in points)
        if set(batches.values()) != {BATCH_POINTS}:
            return f"torn {batches}"
        missing = (self._seen | {number for number in works if number >= first}) - set(batches)
        if missing:
            return f"lost {missing}"
        self._seen = set(batches)
        return f"saw {max(batches)}"


async def look(path: str) -> None:
    """Look at the store, from one line of standard input to the next; say what each look saw, and when it is closed."""
    looks, told = Looks(), asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin)
    say("closed")
    while await told.readline():
        ending = asyncio.create_task(told.readline())
        async with PolarisDataStore.sqlite(path, read_only=True) as store:
            while not ending.done():
                say(await looks.look(store))
        say("closed")


if __name__ == "__main__":
    if sys.argv[1] == "ingest":
        asyncio.run(ingest(sys.argv[2], int(sys.argv[3])))
    elif sys.argv[1] == "look":
        asyncio.run(look(sys.argv[2]))
    else:
        asyncio.run(read(sys.argv[2], int(sys.argv[3])))
