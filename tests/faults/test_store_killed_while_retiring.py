"""The embedded store killed between and within the slices that retire points: what is left of them counts them once."""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
from pathlib import Path

import pytest
from tests.faults import retention_child
from tests.faults.killed_child import run_and_kill
from tests.faults.retention_child import BATCH_POINTS, POLICIES, SMALL, StoreTime, check, counted, put, set_policies
from tests.faults.sizes import size

from polaris.storage import PolarisDataStore, SqliteEngine

ROUNDS = size(4, 50)
PLACES = size(3, 150)
"""Statements before which the process is killed: so many at the ends of slices, and so many anywhere."""
BATCHES = 50


@pytest.mark.slow
@pytest.mark.timeout(size(120, 900))
async def test_points_that_are_retired_count_once_however_often_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    chance = random.Random(20300101)
    acknowledged: set[int] = set()
    first, retired = 0, 0
    for _ in range(ROUNDS):
        said = await run_and_kill(retention_child.__file__, "ingest", path, first, after_lines=chance.randint(1, 150))
        for line in said:
            kind, _, number = line.partition(" ")
            if kind == "batch":
                acknowledged.add(int(number))
            elif kind == "retired":
                retired += int(number)
        # Those under way may be stored; the next process goes on behind them, at times so late that much is old then.
        first = max(acknowledged, default=first) + chance.choice([10, 10, 45])
        await check(path, acknowledged, first)
    assert len(acknowledged) > 10 * ROUNDS
    assert retired > 10 * ROUNDS * BATCH_POINTS


async def _template(path: Path) -> None:
    """A store with points of an hour, of which nothing is old yet: some cold and summarised, some late ones hot."""
    async with PolarisDataStore(SqliteEngine(path, clock=StoreTime(0), **SMALL)) as store:
        await set_policies(store)
        for number in [*range(0, BATCHES, 2), *range(1, BATCHES, 2)]:
            await put(store, number)


async def _retire(path: Path, nth: int) -> list[int]:
    """Retire in a process that is killed before its n-th statement; what it said if it was not."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        retention_child.__file__,
        "retire",
        str(path),
        str(BATCHES),
        str(nth),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode in (0, -9)
    return [int(number) for number in said.split()]


@pytest.mark.timeout(size(120, 3_600))
async def test_a_kill_before_any_statement_of_retention_leaves_every_point_counted_once(tmp_path: Path) -> None:
    template, path = tmp_path / "template.db", tmp_path / "store.db"
    await _template(template)
    acknowledged = set(range(BATCHES))
    shutil.copy(template, path)
    *between, statements = await _retire(path, 10**9)
    sound = await check(path, acknowledged, BATCHES)
    chance = random.Random(20300101)
    places = [*chance.sample(between, PLACES), *chance.sample(range(1, statements), PLACES)]
    killed = 0
    for nth in places:
        shutil.copy(template, path)
        killed += not await _retire(path, nth)
        assert await check(path, acknowledged, BATCHES) == sound, f"killed before statement {nth}"
        for end in ("-wal", "-shm"):
            path.with_name(path.name + end).unlink(missing_ok=True)
    # What the upkeep does by itself meanwhile comes in other slices each time, so there may be fewer statements.
    assert killed > 0.8 * len(places)


async def test_what_the_batches_say_is_what_is_counted(tmp_path: Path) -> None:
    """The measure itself: a batch left out, or written to another minute as well, is noticed."""
    async with PolarisDataStore(SqliteEngine(tmp_path / "store.db", clock=StoreTime(0), **SMALL)) as store:
        for number in (0, 1, 3, 7):
            await put(store, number)
        name = next(iter(POLICIES))
        expected = dict.fromkeys((0, 1, 3, 7), BATCH_POINTS)
        assert await counted(store, name, 5 * retention_child.MINUTE) == expected
        assert await counted(store, name, retention_child.MINUTE) == expected
        twice = [point for point in retention_child.batch(3) if point.tags["s"] == "0"]
        await store.time_series.store_many(
            name, [type(point)(point.timestamp, {"s": "copy"}, point.fields) for point in twice]
        )
        assert (await counted(store, name, 5 * retention_child.MINUTE))[3] == BATCH_POINTS + len(twice)
