"""Copies of a store in use, and putting one back: whole or not at all, and never over what somebody uses."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import apsw
import pytest
from tests.awake import until
from tests.store_content import SMALL, T0, content_of, fill
from tests.unit.storage.test_store_versions import made

from polaris.exceptions import (
    DataStoreError,
    InvalidValueError,
    MigrationError,
    StoreConnectionError,
    StoreCorruptError,
    StoreLockedError,
)
from polaris.storage import PolarisDataStore, SqliteEngine, TimeRange
from polaris.storage.backends.sqlite import _backup
from polaris.storage.backends.sqlite._backup import CopyProgress, restore_store


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backup, "SLICE_PAGES", 4)


async def filled(path: Path) -> None:
    async with PolarisDataStore.sqlite(path, **SMALL) as store:
        await fill(store)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_a_backup_holds_everything_and_is_restored_as_a_store(tmp_path: Path) -> None:
    path, copy, again = tmp_path / "store.db", tmp_path / "copy.db", tmp_path / "again.db"
    engine = SqliteEngine(path, **SMALL)
    async with PolarisDataStore(engine) as store:
        await fill(store)
        expected = await content_of(store)
        told: list[CopyProgress] = []
        done = await engine.backup(copy, on_progress=told.append)
        await asyncio.sleep(0)
        assert (done.path, done.bytes) == (copy, copy.stat().st_size)
        await store.graph.add_node("after the backup")
    assert {one.doing for one in told} == {"copying", "checking"}
    copied = [one for one in told if one.doing == "copying"]
    assert len(copied) > 3
    assert [one.pages for one in copied] == sorted(one.pages for one in copied)
    assert copied[-1].pages == copied[-1].pages_total
    restored = await restore_store(copy, again)
    assert restored.bytes == done.bytes
    async with PolarisDataStore.sqlite(again) as store:
        assert await content_of(store) == expected
        assert await store.graph.get_node("after the backup") is None


async def test_a_backup_is_one_snapshot_while_others_write_and_compaction_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    engine = SqliteEngine(path, **SMALL)
    async with PolarisDataStore(engine) as store:
        await fill(store)
        number = 0

        async def write_on() -> None:
            nonlocal number
            while True:
                number += 1
                async with store.unit_of_work() as work:
                    await work.graph.add_node(f"n{number}")
                    await work.documents.put_document("numbers", f"n{number}", {"n": number})
                    await work.time_series.store_time_series(
                        "numbers", T0 + timedelta(seconds=number), {}, {"n": number}
                    )
                    await work.commit()

        writing = asyncio.create_task(write_on())
        for round_number in range(5):
            before = number
            await engine.backup(tmp_path / f"copy-{round_number}.db")
            if number == before:  # a copy may be quicker than a write
                await until(lambda: number > before, "writes go on")  # noqa: B023
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        assert (await engine.stats())["compacted_rows"] > 0
    last = -1
    for round_number in range(5):
        async with PolarisDataStore.sqlite(tmp_path / f"copy-{round_number}.db") as store:
            documents = await store.documents.count("numbers")
            points = await store.time_series.query_time_series("numbers", TimeRange.all())
            assert documents == len(points) > last
            last = documents
            assert await store.graph.get_node(f"n{documents}") is not None or documents == 0
            assert await store.graph.get_node(f"n{documents + 1}") is None


async def test_a_reader_beside_the_owner_can_make_a_backup(tmp_path: Path) -> None:
    path, copy = tmp_path / "store.db", tmp_path / "copy.db"
    async with PolarisDataStore.sqlite(path) as store:
        await fill(store)
        reader = SqliteEngine(path, read_only=True)
        async with reader:
            await reader.backup(copy)
        await store.graph.add_node("goes on")
    async with PolarisDataStore.sqlite(copy) as store:
        assert await store.graph.get_node("a") is not None
        assert await store.graph.get_node("goes on") is None


async def test_a_backup_can_be_read_in_a_folder_where_nothing_can_be_written(tmp_path: Path) -> None:
    await filled(tmp_path / "store.db")
    engine = SqliteEngine(tmp_path / "store.db", read_only=True)
    (tmp_path / "away").mkdir()
    async with engine:
        await engine.backup(tmp_path / "away" / "copy.db")
    assert names(tmp_path / "away") == {"copy.db"}
    connection = apsw.Connection(
        f"file:{tmp_path}/away/copy.db?mode=ro&immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    )
    assert connection.pragma("journal_mode") == "delete"
    connection.close()
    assert names(tmp_path / "away") == {"copy.db"}


async def test_an_existing_file_is_kept_unless_force_is_given(tmp_path: Path) -> None:
    path, copy = tmp_path / "store.db", tmp_path / "copy.db"
    copy.write_text("precious")
    engine = SqliteEngine(path)
    async with engine:
        for destination in (copy, tmp_path, path):
            with pytest.raises(InvalidValueError, match="destination"):
                await engine.backup(destination)
        assert copy.read_text() == "precious"
        await engine.backup(copy, force=True)
        with pytest.raises(InvalidValueError, match="destination"):
            await engine.backup(path, force=True)
        with pytest.raises(StoreConnectionError):
            await engine.backup(tmp_path / "none" / "copy.db")
    await filled(path)
    with pytest.raises(InvalidValueError, match="target"):
        await restore_store(copy, path)
    with pytest.raises(InvalidValueError, match="target"):
        await restore_store(copy, copy, force=True)
    await restore_store(copy, path, force=True)
    async with PolarisDataStore.sqlite(path) as store:
        assert await store.graph.get_node("a") is None


async def test_the_copy_has_the_permissions_of_the_store(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await filled(path)
    path.chmod(0o640)
    engine = SqliteEngine(path)
    async with engine:
        await engine.backup(tmp_path / "copy.db")
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o640


async def test_a_cancelled_backup_leaves_nothing_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    engine = SqliteEngine(path)
    async with PolarisDataStore(engine) as store:
        await fill(store)
        before = names(tmp_path)

        async def cut_off_after(slices: int) -> None:
            begun = asyncio.Event()
            seen = 0

            def told(_: CopyProgress) -> None:
                nonlocal seen
                seen += 1
                if seen > slices:
                    begun.set()

            copying = asyncio.create_task(engine.backup(tmp_path / "copy.db", on_progress=told))
            waiting = asyncio.create_task(begun.wait())
            await asyncio.wait({copying, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            copying.cancel()
            (outcome,) = await asyncio.gather(copying, return_exceptions=True)
            if isinstance(outcome, BaseException):
                assert isinstance(outcome, asyncio.CancelledError)
            # The rename may have been done when the cancellation came: then it is whole.
            assert names(tmp_path) - before <= {"copy.db"}

        for slices in range(12):
            await cut_off_after(slices)
            (tmp_path / "copy.db").unlink(missing_ok=True)
        await engine.backup(tmp_path / "copy.db")
        await store.graph.add_node("n")


async def test_what_a_killed_backup_left_is_overwritten_and_one_under_way_is_not(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await filled(path)
    (tmp_path / "copy.db.partial").write_bytes(b"half" * 100_000)
    engine = SqliteEngine(path)
    async with engine:
        outcomes = await asyncio.gather(
            *[engine.backup(tmp_path / "copy.db") for _ in range(2)], return_exceptions=True
        )
        kinds = sorted(type(outcome).__name__ for outcome in outcomes)
        assert kinds in (["StoreCopy", "StoreLockedError"], ["InvalidValueError", "StoreCopy"])
    assert names(tmp_path) == {"store.db", "store.db.lock", "copy.db"}


async def test_a_target_that_a_runtime_owns_or_anybody_reads_is_not_replaced(tmp_path: Path) -> None:
    path, copy = tmp_path / "store.db", tmp_path / "copy.db"
    await filled(path)
    engine = SqliteEngine(path, read_only=True)
    async with engine:
        await engine.backup(copy)
        with pytest.raises(StoreLockedError, match="open"):
            await restore_store(copy, path, force=True)
    async with PolarisDataStore.sqlite(path) as owner:
        await owner.graph.add_node("mine")
        with pytest.raises(StoreLockedError, match="owned by another runtime"):
            await restore_store(copy, path, force=True)
        assert await owner.graph.get_node("mine") is not None
    assert not (tmp_path / "store.db.partial").exists()
    await restore_store(copy, path, force=True)
    async with PolarisDataStore.sqlite(path) as store:
        assert await store.graph.get_node("mine") is None


async def test_the_log_of_the_store_that_was_replaced_does_not_get_into_the_next_one(tmp_path: Path) -> None:
    path, copy = tmp_path / "store.db", tmp_path / "copy.db"
    await filled(path)
    engine = SqliteEngine(path)
    async with PolarisDataStore(engine) as store:
        await engine.backup(copy)
        expected = await content_of(store)
        await store.graph.add_node("in the log only")
        # As after a kill: the files as they are, the log unfinished.
        left = {name: (tmp_path / name).read_bytes() for name in ("store.db", "store.db-wal")}
    for damaged in (False, True):
        for name, content in left.items():
            (tmp_path / name).write_bytes(content)
        if damaged:
            path.write_bytes(b"\0" * 4096 + left["store.db"][4096:])
        await restore_store(copy, path, force=True)
        assert not (tmp_path / "store.db-wal").exists()
        async with PolarisDataStore.sqlite(path) as store:
            assert await store.graph.get_node("in the log only") is None
            assert await content_of(store) == expected


async def test_what_is_no_whole_store_is_not_restored(tmp_path: Path) -> None:
    path, copy = tmp_path / "store.db", tmp_path / "copy.db"
    await filled(path)
    before = path.read_bytes()
    damaged = bytearray(before)
    damaged[5 * 4096 : 7 * 4096] = b"\xff" * 8192
    other = apsw.Connection(str(tmp_path / "other.db"))
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    newer = made(1, tmp_path / "newer.db")
    connection = apsw.Connection(str(newer))
    connection.pragma("user_version", 1_000)
    connection.close()
    for content, kind in (
        (bytes(damaged), StoreCorruptError),
        (before[: len(before) // 2], StoreCorruptError),
        (b"certainly not a database\n" * 400, StoreCorruptError),
        (b"", MigrationError),
        ((tmp_path / "other.db").read_bytes(), MigrationError),
        (newer.read_bytes(), MigrationError),
    ):
        copy.write_bytes(content)
        with pytest.raises(kind):
            await restore_store(copy, path, force=True)
        assert path.read_bytes() == before
    with pytest.raises(DataStoreError):
        await restore_store(tmp_path / "nothing.db", path, force=True)
    assert path.read_bytes() == before
    assert not (tmp_path / "store.db.partial").exists()


async def test_a_backup_of_an_earlier_version_is_restored_and_brought_up_to_date(tmp_path: Path) -> None:
    old = made(1, tmp_path / "old.db")
    await restore_store(old, tmp_path / "store.db")
    async with PolarisDataStore.sqlite(tmp_path / "store.db") as store:
        assert (await content_of(store))["points m"]


async def test_a_target_behind_a_link_is_replaced_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "far" / "store.db"
    path.parent.mkdir()
    await filled(path)
    engine = SqliteEngine(path)
    async with engine:
        await engine.backup(tmp_path / "copy.db")
    (tmp_path / "link.db").symlink_to(path)
    await restore_store(tmp_path / "copy.db", tmp_path / "link.db", force=True)
    assert (tmp_path / "link.db").is_symlink()
    await filled_again(path)


async def filled_again(path: Path) -> None:
    async with PolarisDataStore.sqlite(path) as store:
        assert await store.graph.get_node("a") is not None
