"""A full disk: a typed error, nothing half written, and it goes on when there is room again."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw
import msgspec
import pytest
from tests.faults import full_disk_child
from tests.faults.small_disk import run_on_small_disk
from tests.foreign_reader import a_foreign_reader

from polaris.domain import HealthStatus
from polaris.exceptions import DataStoreError, StoreFullError
from polaris.storage import PolarisDataStore, SqliteEngine, TimeRange, TimeSeriesPoint
from polaris.storage.backends.sqlite import restore_store
from polaris.storage.backends.sqlite._session import SqliteSession

T0 = datetime(2030, 1, 1, tzinfo=UTC)


def batch(number: int) -> list[TimeSeriesPoint]:
    return [
        TimeSeriesPoint(T0 + timedelta(seconds=number * 100 + n), {"h": "web"}, {"v": n, "text": "x" * 500})
        for n in range(100)
    ]


async def stored(store: PolarisDataStore) -> list[int]:
    """The numbers of the batches that are there, each of which has to be whole."""
    points = await store.time_series.query_time_series("m", TimeRange.all())
    numbers = [int((point.timestamp - T0).total_seconds()) // 100 for point in points]
    assert all(numbers.count(number) == 100 for number in set(numbers))
    return sorted(set(numbers))


async def test_a_store_at_its_size_limit_refuses_whole_writes_and_recovers(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db", size_bytes_max=1 << 20, hot_rows_max=250, slice_rows=100)
    async with PolarisDataStore(engine) as store:
        written: list[int] = []

        async def write_on() -> None:
            while len(written) < 100:
                await store.time_series.store_many("m", batch(len(written)))
                written.append(len(written))

        with pytest.raises(StoreFullError):
            await write_on()
        assert 3 < len(written) < 100
        assert await stored(store) == written
        assert (await store.health()).status is HealthStatus.UNHEALTHY
        assert await engine.verify() == []
        await store.time_series.delete_range("m", TimeRange(T0, T0 + timedelta(seconds=300)))
        await store.time_series.store_many("m", batch(90))
        assert await stored(store) == [*written[3:], 90]
        assert (await store.health()).status is HealthStatus.HEALTHY


class FullDisk(apsw.VFS):
    """The file system of this machine, until it is said to be full."""

    def __init__(self) -> None:
        self.is_full = False
        self.overwrites = False
        """Whether a full disk lets files be written where they have room already."""
        self._before = apsw.vfs_names()[0]
        super().__init__("full-disk", self._before, makedefault=True)

    def xOpen(self, name: object, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        return FullDiskFile(self, self._before, name, flags)


class FullDiskFile(apsw.VFSFile):
    """A file that cannot grow any more once the disk is full."""

    def __init__(self, disk: FullDisk, base: str, name: object, flags: list[int]) -> None:
        self._disk = disk
        super().__init__(base, name, flags)  # type: ignore[arg-type] # SQLite's own name object is handed on

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        if self._disk.is_full and not (self._disk.overwrites and offset + len(data) <= self.xFileSize()):
            raise apsw.FullError("no space left on device")
        super().xWrite(data, offset)


@pytest.fixture
def disk() -> Iterator[FullDisk]:
    found = FullDisk()
    yield found
    found.unregister()
    apsw.set_default_vfs(found._before)


async def test_a_full_disk_fails_every_writer_and_lets_them_go_on_when_there_is_room(
    tmp_path: Path, disk: FullDisk
) -> None:
    engine = SqliteEngine(tmp_path / "store.db", hot_rows_max=250, slice_rows=100)
    async with PolarisDataStore(engine) as store:
        await store.time_series.store_many("m", batch(0))
        for attempt in range(3):
            disk.is_full = True
            writes = [store.time_series.store_many("m", batch(10 * attempt + n)) for n in range(1, 6)]
            outcomes = await asyncio.gather(*writes, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [StoreFullError] * 5
            assert len({id(outcome) for outcome in outcomes}) == 5
            disk.is_full = False
            assert await stored(store) == [0, *range(1, attempt + 1)]
            await store.time_series.store_many("m", batch(attempt + 1))
        assert await engine.verify() == []


async def leave_room_in_the_file(engine: SqliteEngine, store: PolarisDataStore) -> None:
    """Have a long log, and a file with free pages for some batches."""
    for number in range(20):
        await store.time_series.store_many("m", batch(number))
    await engine.compact(rewrite_file=True)
    await store.time_series.delete_range("m", TimeRange.all())


async def check_that_the_log_has_room(engine: SqliteEngine, store: PolarisDataStore) -> None:
    """Nearly all writes are done, though no file can grow."""
    written: list[int] = []
    for number in range(12):
        with contextlib.suppress(StoreFullError):
            await store.time_series.store_many("m", batch(number))
            written.append(number)
    assert len(written) >= 10, written
    assert await stored(store) == written
    assert await engine.verify() == []


async def test_the_room_of_the_log_is_used_again_when_there_is_no_other(tmp_path: Path, disk: FullDisk) -> None:
    disk.overwrites = True
    engine = SqliteEngine(tmp_path / "store.db")
    async with PolarisDataStore(engine) as store:
        await leave_room_in_the_file(engine, store)
        disk.is_full = True
        await check_that_the_log_has_room(engine, store)


async def test_a_store_killed_on_a_full_disk_goes_on_there_by_the_room_of_its_log(
    tmp_path: Path, disk: FullDisk
) -> None:
    disk.overwrites = True
    engine = SqliteEngine(tmp_path / "store.db")
    left = tmp_path / "left"
    left.mkdir()
    async with PolarisDataStore(engine) as store:
        await leave_room_in_the_file(engine, store)
        for path in tmp_path.glob("store.db*"):
            shutil.copy(path, left)
    disk.is_full = True
    engine = SqliteEngine(left / "store.db")
    async with PolarisDataStore(engine) as store:
        await check_that_the_log_has_room(engine, store)


async def test_a_connection_replaced_on_a_full_disk_goes_on_by_the_room_of_the_log(
    tmp_path: Path, disk: FullDisk
) -> None:
    disk.overwrites = True
    engine = SqliteEngine(tmp_path / "store.db")
    async with PolarisDataStore(engine) as store:
        await leave_room_in_the_file(engine, store)
        disk.is_full = True
        await engine._do_chore(lambda session: session.connection.close())
        with pytest.raises(DataStoreError, match="ConnectionClosed"):
            await store.time_series.store_many("m", batch(0))
        await check_that_the_log_has_room(engine, store)


async def test_a_chore_that_finds_no_room_makes_some_for_the_next_write(tmp_path: Path, disk: FullDisk) -> None:
    def delete_everything(session: SqliteSession) -> None:
        session.connection.execute("DELETE FROM ts_hot")

    disk.overwrites = True
    engine = SqliteEngine(tmp_path / "store.db")
    async with PolarisDataStore(engine) as store:
        await leave_room_in_the_file(engine, store)
        await store.time_series.store_many("m", batch(0))
        disk.is_full = True
        with pytest.raises(StoreFullError):
            await engine._do_chore(delete_everything)
        await store.time_series.store_many("m", batch(1))
        assert await stored(store) == [0, 1]


async def test_a_reader_that_keeps_the_room_of_the_log_on_a_full_disk_is_told_of(
    tmp_path: Path, disk: FullDisk
) -> None:
    disk.overwrites = True
    path = tmp_path / "store.db"
    engine = SqliteEngine(path)
    async with PolarisDataStore(engine) as store:
        await leave_room_in_the_file(engine, store)
        with a_foreign_reader(path):
            disk.is_full = True
            for _ in range(3):  # the second is refused after a checkpoint that the first one asked for
                with pytest.raises(StoreFullError):
                    await store.time_series.store_many("m", batch(0))
            health = await store.health()
            assert health.status is HealthStatus.UNHEALTHY
            assert "full" in health.message
            assert "for a program keeps a read open; end that program" in health.message
            assert health.message.endswith("store.db")
            assert (await engine.stats())["checkpoints_blocked"] >= 2
        await store.time_series.store_many("m", batch(0))
        assert (await store.health()).status is HealthStatus.HEALTHY
        assert await stored(store) == [0]


async def test_a_backup_onto_a_full_disk_leaves_nothing_and_the_next_one_is_whole(
    tmp_path: Path, disk: FullDisk
) -> None:
    engine = SqliteEngine(tmp_path / "store.db")
    (tmp_path / "away").mkdir()
    async with PolarisDataStore(engine) as store:
        for number in range(5):
            await store.time_series.store_many("m", batch(number))
        for _ in range(3):
            disk.is_full = True
            with pytest.raises(StoreFullError):
                await engine.backup(tmp_path / "away" / "copy.db")
            disk.is_full = False
            assert list((tmp_path / "away").iterdir()) == []
        await engine.backup(tmp_path / "away" / "copy.db")
        await store.time_series.store_many("m", batch(5))
    async with PolarisDataStore.sqlite(tmp_path / "away" / "copy.db") as copy:
        assert await stored(copy) == list(range(5))


async def test_a_restoration_onto_a_full_disk_leaves_the_target_as_it_was(tmp_path: Path, disk: FullDisk) -> None:
    engine = SqliteEngine(tmp_path / "store.db")
    async with PolarisDataStore(engine) as store:
        await store.time_series.store_many("m", batch(0))
        await engine.backup(tmp_path / "copy.db")
        await store.time_series.store_many("m", batch(1))
    before = (tmp_path / "store.db").read_bytes()
    disk.is_full = True
    with pytest.raises(StoreFullError):
        await restore_store(tmp_path / "copy.db", tmp_path / "store.db", force=True)
    disk.is_full = False
    assert (tmp_path / "store.db").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"store.db", "store.db.lock", "copy.db"}
    await restore_store(tmp_path / "copy.db", tmp_path / "store.db", force=True)
    async with PolarisDataStore.sqlite(tmp_path / "store.db") as store:
        assert await stored(store) == [0]


async def test_a_compaction_on_a_full_disk_changes_nothing_and_the_store_goes_on(
    tmp_path: Path, disk: FullDisk
) -> None:
    engine = SqliteEngine(tmp_path / "store.db", slice_rows=50)
    async with PolarisDataStore(engine) as store:
        for number in range(6):
            await store.time_series.store_many("m", batch(number))
        for rewrite_file in (False, True):
            disk.is_full = True
            with pytest.raises(StoreFullError):
                await engine.compact(rewrite_file=rewrite_file)
            disk.is_full = False
            assert await stored(store) == list(range(6))
            assert await engine.verify() == []
        await store.time_series.store_many("m", batch(6))
        report = await engine.compact(rewrite_file=True)
        assert report.rewritten
        assert await stored(store) == list(range(7))
        assert await engine.verify() == []
        assert (await store.health()).status is HealthStatus.HEALTHY


def test_a_store_on_a_small_disk_that_is_really_full_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """Everything is checked on the disk itself, by a process that has it as a file system of its own."""
    told = msgspec.json.decode(run_on_small_disk(tmp_path, 24 << 20, full_disk_child.__file__, timeout_s=100))
    assert told["works"] >= 30
    assert told["refused"] >= 3 * full_disk_child.AT_ONCE
