"""Who may open a store's file, and what is refused: locks, foreign, newer, altered and damaged files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest

from polaris.domain import HealthStatus
from polaris.exceptions import (
    InvalidValueError,
    MigrationError,
    StoreConnectionError,
    StoreCorruptError,
    StoreLockedError,
)
from polaris.storage import PolarisDataStore, SqliteEngine
from polaris.storage.backends.sqlite._migrate import known_migrations


async def _made(path: Path) -> None:
    async with PolarisDataStore.sqlite(path) as store:
        await store.graph.add_node("n")


async def test_a_second_owner_is_refused_and_a_reader_is_not(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with PolarisDataStore.sqlite(path) as owner:
        second = PolarisDataStore.sqlite(path)
        with pytest.raises(StoreLockedError, match="another runtime"):
            await second.connect()
        assert not second.is_connected
        async with PolarisDataStore.sqlite(path, read_only=True) as reader:
            await owner.graph.add_node("n")
            assert await reader.graph.get_node("n") is not None
    await _made(path)  # the lock is free again


async def test_a_reader_needs_no_owner_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await _made(path)
    before = path.read_bytes()
    async with PolarisDataStore.sqlite(path, read_only=True) as reader:
        assert await reader.graph.get_node("n") is not None
        with pytest.raises(StoreConnectionError, match="reading only"):
            await reader.graph.add_node("m")
        async with reader.unit_of_work() as work:
            assert await work.graph.get_node("n") is not None
            await work.graph.add_node("m")
            with pytest.raises(StoreConnectionError, match="reading only"):
                await work.commit()
        assert (await reader.health()).status is HealthStatus.HEALTHY
    assert path.read_bytes() == before


async def test_a_reader_of_nothing_is_refused_and_makes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with pytest.raises(StoreConnectionError):
        await PolarisDataStore.sqlite(path, read_only=True).connect()
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreConnectionError):
        await PolarisDataStore.sqlite(tmp_path / "none" / "store.db").connect()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"certainly not a database\n" * 400)
    for read_only in (False, True):
        with pytest.raises(StoreCorruptError):
            await PolarisDataStore.sqlite(path, read_only=read_only).connect()
    assert path.read_bytes() == b"certainly not a database\n" * 400


async def test_the_database_of_another_application_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    with pytest.raises(MigrationError, match="another application"):
        await PolarisDataStore.sqlite(path).connect()
    other = apsw.Connection(str(path))
    assert other.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]
    other.close()


async def test_the_schema_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await _made(path)
    file = apsw.Connection(str(path))
    file.pragma("user_version", len(known_migrations()) + 1)
    file.close()
    for read_only in (False, True):
        with pytest.raises(MigrationError, match="newer release"):
            await PolarisDataStore.sqlite(path, read_only=read_only).connect()


async def test_a_migration_that_was_altered_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await _made(path)
    file = apsw.Connection(str(path))
    file.execute("UPDATE polaris_migrations SET checksum = 'x'")
    file.close()
    with pytest.raises(MigrationError, match="initial"):
        await PolarisDataStore.sqlite(path).connect()


async def test_an_unfinished_schema_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    apsw.Connection(str(path)).close()
    path.touch()
    with pytest.raises(MigrationError, match="open it for writing once"):
        await PolarisDataStore.sqlite(path, read_only=True).connect()


def test_migrations_are_numbered_from_one_without_gaps() -> None:
    migrations = known_migrations()
    assert [migration.number for migration in migrations] == list(range(1, len(migrations) + 1))


async def test_damage_is_found_by_verify(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with PolarisDataStore.sqlite(path) as store:
        await store.documents.insert_documents("d", [{"_id": f"{n:05}", "text": "x" * 300} for n in range(500)])
        await store.documents.create_index("d", "text")
    engine = SqliteEngine(path)
    async with engine:
        assert await engine.verify() == []
    body = bytearray(path.read_bytes())
    for place in range(20 * 4096, 24 * 4096):
        body[place] ^= 0xFF
    path.write_bytes(body)
    try:
        async with engine:
            damage = await engine.verify()
    except StoreCorruptError:
        damage = ["found at once"]
    assert damage


@pytest.mark.parametrize(
    "options",
    [{"readers": 0}, {"writes_queued_max": 0}, {"size_bytes_max": 10}, {"hot_rows_max": "many"}, {"slice_rows": -1}],
)
def test_bounds_out_of_bounds_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=next(iter(options))):
        SqliteEngine(tmp_path / "store.db", **options)


async def test_before_and_after_its_life_a_store_says_that_it_is_not_connected(tmp_path: Path) -> None:
    for store in (PolarisDataStore.sqlite(tmp_path / "store.db"), PolarisDataStore.memory()):
        for _ in range(2):
            assert (await store.health()).status is HealthStatus.UNKNOWN
            with pytest.raises(StoreConnectionError, match="not connected"):
                await store.graph.get_node("n")
            with pytest.raises(StoreConnectionError, match="not connected"):
                await store.graph.add_node("n")
            async with store:
                await store.connect()
                await store.graph.add_node("n")
            await store.disconnect()
