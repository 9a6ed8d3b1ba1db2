"""What the fault tests of retention run in processes of their own, and what must be found in the store afterwards.

`retention_child.py ingest PATH FIRST` writes batches and retires old ones until it is killed;
`retention_child.py retire PATH NOW NTH` retires what is old at a time and kills itself before the n-th statement.

Batch n has the points of minute n: the sum of a bucket of five minutes tells, in digits of base 1000, how many points
of each of its batches are known.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw

from polaris.clock import SYSTEM_CLOCK
from polaris.storage import PolarisDataStore, RetentionPolicy, RollupPolicy, SqliteEngine, TimeRange, TimeSeriesPoint
from polaris.storage.backends.shared import _timeseries as shared_timeseries

T0 = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
BATCH_POINTS = 60
SERIES = 5
BASE = 1_000
RAW_MINUTES, FIRST_MINUTES = 10, 30
LATE_MINUTES_MAX = 5
SMALL: dict[str, Any] = {"hot_rows_max": 300, "slice_rows": 100}
SLICE_ROWS = 70
"""Rows of one transaction of `apply_retention`: so few that every step takes several."""

POLICIES = {
    "for.ever": RetentionPolicy(
        RAW_MINUTES * MINUTE, [RollupPolicy(MINUTE, FIRST_MINUTES * MINUTE), RollupPolicy(5 * MINUTE)]
    ),
    "a.while": RetentionPolicy(RAW_MINUTES * MINUTE, [RollupPolicy(MINUTE, FIRST_MINUTES * MINUTE)]),
    "points": RetentionPolicy(RAW_MINUTES * MINUTE),
}


def minute(number: int) -> datetime:
    return T0 + number * MINUTE


def batch(number: int) -> list[TimeSeriesPoint]:
    """The points of a batch. `n` counts up through all of them; texts go with their points."""
    return [
        TimeSeriesPoint(
            minute(number) + timedelta(seconds=place),
            {"s": str(place % SERIES)},
            {"v": BASE ** (number % 5), "n": number * BATCH_POINTS + place, "text": "t"},
        )
        for place in range(BATCH_POINTS)
    ]


class StoreTime:
    """A wall clock that stands at the minute of the oldest batch that is not written yet."""

    def __init__(self, at: int) -> None:
        self.open = {at}

    def now(self) -> datetime:
        return minute(min(self.open.copy()))

    monotonic = staticmethod(SYSTEM_CLOCK.monotonic)
    sleep = staticmethod(SYSTEM_CLOCK.sleep)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def set_policies(store: PolarisDataStore) -> None:
    for name, policy in POLICIES.items():
        await store.time_series.set_retention(name, policy)


async def put(store: PolarisDataStore, number: int, *, as_work: bool = False) -> None:
    """Write a batch to every collection."""
    if not as_work:
        for name in POLICIES:
            await store.time_series.store_many(name, batch(number))
        return
    async with store.unit_of_work() as work:
        for name in POLICIES:
            await work.time_series.store_many(name, batch(number))
        await work.commit()


async def ingest(path: str, first: int) -> None:
    """Write batches with three tasks, one of them late and one twice, while a fourth retires; say what is done."""
    clock = StoreTime(first)
    highest = first
    async with PolarisDataStore(SqliteEngine(path, clock=clock, **SMALL)) as store:
        await set_policies(store)
        say("ready")

        async def writer(kind: int) -> None:
            nonlocal highest
            while True:
                number, highest = highest, highest + 1
                clock.open.add(highest)
                if kind == 0:
                    while highest < number + LATE_MINUTES_MAX:
                        await asyncio.sleep(0.001)
                await put(store, number, as_work=kind == 1)
                if kind == 2:
                    await put(store, number)  # the same again: it replaces
                clock.open.discard(number)
                say(f"batch {number}")

        async def retire() -> None:
            while True:
                for name in POLICIES:
                    if retired := await store.time_series.apply_retention(name):
                        say(f"retired {retired}")
                await asyncio.sleep(0.01)

        await asyncio.gather(*[writer(kind) for kind in range(3)], retire())


async def retire(path: str, now: int, nth: int) -> None:
    """Retire all that is old now; say the numbers of statements between slices, and of the last one.

    The n-th statement is not lived to see.
    """
    count = 0
    between: list[int] = []

    def trace(_: object, sql: str, __: object) -> bool:
        nonlocal count
        count += 1
        if count == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        if sql.startswith(("BEGIN", "COMMIT")):
            between.append(count)
        return True

    def watch(connection: apsw.Connection) -> None:
        if not connection.open_flags & apsw.SQLITE_OPEN_READONLY:
            connection.exec_trace = trace

    engine = SqliteEngine(path, clock=StoreTime(now), **SMALL)
    apsw.connection_hooks.append(watch)
    async with PolarisDataStore(engine) as store:
        await engine.compact(rewrite_file=False)
        for name in POLICIES:
            await store.time_series.apply_retention(name)
        say(" ".join(map(str, [*between, count])))


async def counted(store: PolarisDataStore, name: str, width: timedelta) -> dict[int, int]:
    """How many points of each batch the aggregates know of, for those of which they know any."""
    rows = await store.time_series.aggregate_many(
        name, TimeRange(T0, minute(100_000)), {"v": ["sum", "count"]}, bucket=width
    )
    found: dict[int, int] = {}
    for row in rows:
        first = (row.timestamp - T0) // MINUTE
        total = int(row.values["sum"] or 0)
        for number in range(first, first + width // MINUTE):
            points = total // BASE ** (number % 5) % BASE
            if points:
                found[number] = points
        assert row.count == sum(found.get(number, 0) for number in range(first, first + width // MINUTE)), row
        assert not row.approximate
    return found


async def check(path: Path, acknowledged: set[int], now: int) -> dict[str, dict[int, int]]:
    """Look at the store after a kill, while its own upkeep goes on; gives what is known of each batch."""
    engine = SqliteEngine(path, clock=StoreTime(now), **SMALL)
    async with PolarisDataStore(engine) as store:
        assert await engine.verify() == []
        found: dict[str, dict[int, int]] = {}
        for retired in (False, True):
            for name in POLICIES:
                if retired:
                    await store.time_series.apply_retention(name)
                found[name] = await _check_collection(store, name, acknowledged, now, retired=retired)
        assert await engine.verify() == []
        return found


async def _check_collection(
    store: PolarisDataStore, name: str, acknowledged: set[int], now: int, *, retired: bool
) -> dict[int, int]:
    found = await counted(store, name, 5 * MINUTE if name == "for.ever" else MINUTE)
    points = await store.time_series.query_time_series(name, TimeRange.all())
    assert len({(point.timestamp, point.tags["s"]) for point in points}) == len(points)
    newest = {point.tags["s"]: point for point in points}
    latest = await store.time_series.latest(name)
    assert latest == sorted(newest.values(), key=lambda point: point.tags["s"])
    kept_minutes = {"for.ever": 10**9, "a.while": FIRST_MINUTES, "points": RAW_MINUTES}[name]
    inside = {number for number in acknowledged if number >= now - kept_minutes}
    last = max(found, default=0)
    lost = {number: found.get(number, 0) for number in inside if found.get(number, 0) != BATCH_POINTS}
    assert not lost, f"{name}: acknowledged, inside of the retention, and not whole: {lost}"
    wrong = {number: count for number, count in found.items() if count > BATCH_POINTS}
    assert not wrong, f"{name}: counted twice: {wrong}"
    if name == "for.ever":
        assert set(found.values()) <= {BATCH_POINTS}
        await _check_counters(store, name)
    elif retired:
        old = {number for number in found if number < now - kept_minutes and number != last}
        assert not old, f"{name}: older than the retention, and there still: {old}"
    if retired:
        raw = {int((point.timestamp - T0) // MINUTE) for point in points}
        assert all(number >= now - RAW_MINUTES or number == last for number in raw)
    return found


async def _check_counters(store: PolarisDataStore, name: str) -> None:
    """What counts up rose from the first to the last, wherever its parts are."""
    rows = await store.time_series.aggregate_many(
        name, TimeRange(T0, minute(100_000)), {"n": ["increase", "first", "last", "min", "max"]}, "s"
    )
    for row in rows:
        first, last = row.values["first"], row.values["last"]
        assert (row.values["min"], row.values["max"]) == (first, last)
        assert row.values["increase"] == (last or 0) - (first or 0)


if __name__ == "__main__":
    shared_timeseries.RETENTION_ROWS_MAX = SLICE_ROWS
    if sys.argv[1] == "ingest":
        asyncio.run(ingest(sys.argv[2], int(sys.argv[3])))
    else:
        asyncio.run(retire(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
