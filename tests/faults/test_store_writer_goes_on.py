"""The writer's thread outlives what it cannot open, and health forgets what housekeeping has made good."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.awake import PATIENCE_S, within

from polaris.domain import HealthStatus
from polaris.exceptions import DataStoreError, StoreFullError
from polaris.storage import SqliteEngine, TimeSeriesPoint
from polaris.storage.backends.sqlite import _writer
from polaris.storage.backends.sqlite._compaction import Compaction
from polaris.storage.backends.sqlite._connection import open_writer

T0 = datetime(2030, 1, 1, tzinfo=UTC)


class Room:
    """Opens connections while there is room for what the log needs."""

    def __init__(self) -> None:
        self.is_there = True
        self.refused = 0
        self._open = open_writer

    def open_writer(self, path: Path, *, size_bytes_max: int | None) -> apsw.Connection:
        if not self.is_there:
            self.refused += 1
            raise apsw.FullError("no room for the file of shared memory")
        return self._open(path, size_bytes_max=size_bytes_max)


async def until_healthy(engine: SqliteEngine) -> None:
    async with within(PATIENCE_S):
        while (await engine.health()).status is not HealthStatus.HEALTHY:
            await asyncio.sleep(0.01)


async def test_a_writer_that_cannot_open_the_file_anew_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room()
    monkeypatch.setattr(_writer, "open_writer", room.open_writer)
    monkeypatch.setattr(_writer, "IDLE_S", 0.05)
    async with SqliteEngine(tmp_path / "store.db") as engine:
        await engine.documents.insert_document("d", {"_id": "before"})
        room.is_there = False
        await engine._do_chore(lambda session: session.connection.close())
        with pytest.raises(DataStoreError):
            await engine.documents.insert_document("d", {"_id": "lost"})
        writes = [engine.documents.insert_document("d", {"_id": str(n)}) for n in range(3)]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StoreFullError] * 3
        assert room.refused >= 2
        assert (await engine.health()).status is HealthStatus.UNHEALTHY
        room.is_there = True
        await engine.documents.insert_document("d", {"_id": "after"})
        assert [one["_id"] for one in await engine.documents.find_documents("d")] == ["after", "before"]
        assert (await engine.health()).status is HealthStatus.HEALTHY
        assert await engine.verify() == []


async def test_housekeeping_that_succeeds_clears_what_housekeeping_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move_slice, disk_fails = Compaction.move_slice, True

    def move_slice_or_fail(self: Compaction, *given: Any) -> None:
        if disk_fails:
            raise apsw.IOError("the disk failed")
        move_slice(self, *given)

    monkeypatch.setattr(Compaction, "move_slice", move_slice_or_fail)
    monkeypatch.setattr(_writer, "IDLE_S", 0.01)
    async with SqliteEngine(tmp_path / "store.db", hot_rows_max=40, slice_rows=16) as engine:
        points = [TimeSeriesPoint(T0 + timedelta(seconds=n), {}, {"v": n}) for n in range(100)]
        await engine.time_series.store_many("m", points)
        async with within(PATIENCE_S):
            while (await engine.health()).status is not HealthStatus.UNHEALTHY:
                await asyncio.sleep(0.01)
        disk_fails = False
        await until_healthy(engine)  # though nobody writes
        assert (await engine.stats())["compacted_rows"] > 0
