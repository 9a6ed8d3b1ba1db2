"""The embedded store when its process is killed in mid-ingest: what was acknowledged is there once, nothing is half."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.awake import until
from tests.faults import store_child
from tests.faults.sizes import size

from polaris.storage import PolarisDataStore, SqliteEngine, TimeRange

ROUNDS = size(10, 50)
READS = 340
"""Rounds of three queries each: over a thousand."""
BATCHES = 60
ANSWER_S_MAX = 30.0


async def _start(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, store_child.__file__, *arguments, stdin=pipe, stdout=pipe, stderr=pipe
    )


class Watcher:
    """A process that looks at the store again and again while it is told to have it open."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.looks = 0
        self.newest_batch = -1
        """That a look has seen."""
        self.is_open = True
        self.is_ended = False
        self.complaints: list[str] = []

    async def listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            kind, _, number = line.decode().strip().partition(" ")
            if kind == "saw":
                self.looks += 1
                self.newest_batch = int(number)
            elif kind == "closed":
                self.is_open = False
            else:
                self.complaints.append(line.decode())
        self.is_ended = True

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for what it says; AssertionError when it has found a fault, or ends before."""
        await until(lambda: holds() or self.is_ended or bool(self.complaints), what)
        assert not self.complaints
        assert holds(), f"the watcher ended before {what}"

    async def open(self) -> None:
        if not self.is_open:
            self.is_open = True
            await self._tell("open")

    async def close(self) -> None:
        await self._tell("close")
        await self.until(lambda: not self.is_open, "it has closed the store")

    async def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word.encode() + b"\n")
        await self._process.stdin.drain()


@asynccontextmanager
async def _watching(path: Path) -> AsyncIterator[Watcher]:
    """A watcher which ends by itself and has nothing to report, or the block fails."""
    process = await _start("look", str(path))
    assert process.stdin is not None
    assert process.stderr is not None
    watcher = Watcher(process)
    listening = asyncio.create_task(watcher.listen())
    errors = asyncio.create_task(process.stderr.read())
    try:
        await watcher.until(lambda: not watcher.is_open, "it is there")
        yield watcher
        await watcher.close()
        process.stdin.close()
        await asyncio.wait_for(process.wait(), ANSWER_S_MAX)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listening
        said = (await errors).decode()
        assert said == ""
    assert watcher.complaints == []
    assert process.returncode == 0


async def _ingest_and_kill(path: Path, first: int, after_lines: int, watcher: Watcher) -> list[str]:
    """Let a process ingest, kill it after so many acknowledgements and a look at them; everything it said."""
    process = await _start("ingest", str(path), str(first))
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[str] = []
    try:
        while len(lines) <= after_lines:
            line = await asyncio.wait_for(process.stdout.readline(), ANSWER_S_MAX)
            assert line, (await process.stderr.read()).decode()
            lines.append(line.decode().strip())
            await watcher.open()
        await watcher.until(lambda: watcher.newest_batch >= first, "it saw what is being written")
    finally:
        process.kill()
        rest, errors = await process.communicate()
    assert errors == b""
    looks = watcher.looks
    await watcher.until(lambda: watcher.looks >= looks + 2, "it looks on without the writer")
    return [*lines, *rest.decode().split("\n")[:-1]]


@pytest.mark.slow
@pytest.mark.timeout(size(180, 900))
async def test_nothing_acknowledged_is_lost_or_doubled_however_often_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    chance = random.Random(20300101)
    batches: set[int] = set()
    works: set[int] = set()
    async with _watching(path) as watcher:
        for round_number in range(ROUNDS):
            first = round_number * store_child.PROCESS_BATCHES
            said = await _ingest_and_kill(path, first, chance.randint(1, 60), watcher)
            for line in said:
                kind, _, number = line.partition(" ")
                if kind in ("batch", "work"):
                    (batches if kind == "batch" else works).add(int(number))
            if round_number % 2:
                # Whoever opens it next is alone with what the writer left; otherwise the watcher goes on reading.
                await watcher.close()
            await _check(path, batches, works, watcher.newest_batch)
    assert len(works) > ROUNDS
    assert len(batches) > ROUNDS


async def _check(path: Path, batches: set[int], works: set[int], seen: int) -> None:
    """All that was acknowledged is there once, and the batch that was seen; nothing is half there."""
    engine = SqliteEngine(path)
    async with PolarisDataStore(engine) as store:
        assert await engine.verify() == []
        points = await store.time_series.query_time_series("m", TimeRange.all())
        keys = {(point.timestamp, point.tags["s"]) for point in points}
        assert len(keys) == len(points)
        stored = Counter(int(point.fields["batch"] or 0) for point in points)
        assert set(stored.values()) <= {store_child.BATCH_POINTS}
        assert batches | works | {seen} <= set(stored)
        actions = {int(action.action_id[2:]) for action in await store.actions.find_all()}
        events = {int(entry.event().component) for entry in await store.outbox.pending(limit=10_000)}  # type: ignore[attr-defined] # a HealthEvent
        edges = {int(node[2:]) for node in await store.graph.get_neighbors("root", "in")}
        assert works <= actions
        assert actions == events == edges
        assert actions <= set(stored)
        newest = {point.tags["s"]: point.timestamp for point in points}
        assert {one.tags["s"]: one.timestamp for one in await store.time_series.latest("m")} == newest


@pytest.mark.slow
async def test_another_process_reads_while_this_one_writes(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with PolarisDataStore.sqlite(path, hot_rows_max=400, slice_rows=150) as store:
        await store.time_series.store_many("m", store_child.batch(0))
        process = await asyncio.create_subprocess_exec(
            sys.executable, store_child.__file__, "read", str(path), str(READS), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        answer = asyncio.create_task(process.stdout.read())
        number = 0
        try:
            while not answer.done():
                # Again and again the same ones: each read takes in all that there is, which must not grow for ever.
                number += 1
                await store.time_series.store_many("m", store_child.batch(number % BATCHES))
                await asyncio.sleep(0.005)
            said = (await answer).decode().split()
        finally:
            if process.returncode is None and not answer.done():
                process.kill()
            await process.wait()
    assert said[:2] == ["done", str(READS)]
    assert number > BATCHES
    assert store_child.BATCH_POINTS < int(said[2]) <= BATCHES * store_child.BATCH_POINTS
