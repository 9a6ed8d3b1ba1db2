"""A log that somebody else's read keeps long is told of, with what to do, and no longer than it is so."""

from __future__ import annotations

from pathlib import Path

import apsw
from tests.foreign_reader import a_foreign_reader

from polaris.domain import HealthStatus
from polaris.storage import PolarisDataStore

MIB = 1 << 20
TEXTS = ("x" * 500_000, "y" * 500_000)


async def write(store: PolarisDataStore, mib: int) -> None:
    """Write so much into the log, and next to nothing into the file: the same document again and again."""
    for number in range(2 * mib):
        await store.documents.put_document("notes", "one", {"text": TEXTS[number % 2]})


def log_bytes(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


async def test_a_log_that_a_foreign_reader_keeps_over_the_limit_is_told_of_until_the_reader_goes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    async with PolarisDataStore.sqlite(path, size_bytes_max=6 * MIB) as store:
        await write(store, 1)
        with a_foreign_reader(path):
            await write(store, 12)
            assert log_bytes(path) > 6 * MIB
            health = await store.health()
            assert health.status is HealthStatus.WARNING
            assert "end that program" in health.message
            assert "store.db" in health.message
            first = health.message
            await write(store, 2)
            assert (await store.health()).message == first  # no numbers: what changes would be news each time
        # Nothing has to be written for it to be well again, and the room is given back.
        health = await store.health()
        assert (health.status, health.message) == (HealthStatus.HEALTHY, "")
        assert log_bytes(path) < MIB
        await write(store, 1)
        document = await store.documents.get_document("notes", "one")
        assert document is not None
        assert document["text"] == TEXTS[1]
    assert is_whole(path)


def is_whole(path: Path) -> bool:
    connection = apsw.Connection(str(path))
    try:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()


async def test_without_a_limit_a_log_is_told_of_when_it_is_very_long(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with PolarisDataStore.sqlite(path) as store:
        await write(store, 1)
        with a_foreign_reader(path):
            await write(store, 30)
            assert (await store.health()).status is HealthStatus.HEALTHY
            await write(store, 45)
            assert (await store.health()).status is HealthStatus.WARNING
        assert (await store.health()).status is HealthStatus.HEALTHY


async def test_a_reader_that_keeps_a_short_log_is_nobodys_trouble(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with PolarisDataStore.sqlite(path, size_bytes_max=100 * MIB) as store:
        await write(store, 1)
        with a_foreign_reader(path):
            await write(store, 12)
            assert (await store.health()).status is HealthStatus.HEALTHY
