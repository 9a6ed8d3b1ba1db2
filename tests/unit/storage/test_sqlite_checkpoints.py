"""When the log is begun anew, and what the checkpointer says of readers that keep it from that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from tests.foreign_reader import a_foreign_reader

from polaris.storage.backends.sqlite._checkpoint import Checkpointer
from polaris.storage.backends.sqlite._connection import open_writer


class Waits(apsw.VFS):
    """The file system of this machine, which notes how long SQLite sleeps to wait for others."""

    def __init__(self) -> None:
        self.microseconds: list[int] = []
        super().__init__("waits", "", makedefault=True)

    def xSleep(self, microseconds: int) -> int:  # noqa: N802 - SQLite's name
        self.microseconds.append(microseconds)
        return microseconds


@pytest.fixture
def waits() -> Iterator[Waits]:
    before = apsw.vfs_names()[0]
    found = Waits()
    yield found
    found.unregister()
    apsw.set_default_vfs(before)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def connection(path: Path) -> Iterator[apsw.Connection]:
    """One that finds a log of many pages, none of them its own."""
    before, found = (open_writer(path, size_bytes_max=None) for _ in range(2))
    before.execute("BEGIN")
    before.execute("CREATE TABLE numbers (n)")
    before.execute("INSERT INTO numbers VALUES (zeroblob(100000))")
    before.execute("COMMIT")
    before.close()
    yield found
    found.close()


def commit(connection: apsw.Connection) -> None:
    connection.execute("INSERT INTO numbers VALUES (0)")


def test_wanting_room_begins_a_log_anew_that_another_connection_left(connection: apsw.Connection) -> None:
    checkpointer = Checkpointer(connection)
    checkpointer.run_if_due()
    assert checkpointer.done == 0
    checkpointer.make_room()
    assert checkpointer.is_overdue
    checkpointer.run_if_due()
    assert (checkpointer.done, checkpointer.is_overdue, checkpointer.is_held_up) == (1, False, False)
    commit(connection)
    assert checkpointer.wal_pages == 1


def test_a_reader_that_keeps_the_log_from_being_begun_anew_is_told_of_until_it_is_gone(
    connection: apsw.Connection, path: Path
) -> None:
    checkpointer = Checkpointer(connection)
    with a_foreign_reader(path):
        checkpointer.make_room()
        checkpointer.run_if_due()
        assert (checkpointer.is_held_up, checkpointer.blocked) == (True, 1)
        assert checkpointer.is_overdue
    checkpointer.run_if_due()
    assert not checkpointer.is_held_up
    assert not checkpointer.is_overdue
    commit(connection)
    assert checkpointer.wal_pages == 1


def test_a_commit_that_found_room_ends_the_want_of_it(connection: apsw.Connection, path: Path) -> None:
    checkpointer = Checkpointer(connection)
    with a_foreign_reader(path):
        checkpointer.make_room()
        checkpointer.run_if_due()
        commit(connection)
        checkpointer.run_if_due()
        assert checkpointer.blocked == 1


def test_making_room_does_not_wait_for_readers(path: Path, waits: Waits) -> None:
    connection = open_writer(path, size_bytes_max=None)
    checkpointer = Checkpointer(connection)
    connection.execute("CREATE TABLE numbers (n)")
    with a_foreign_reader(path):
        checkpointer.make_room()
        checkpointer.run_if_due()
    assert checkpointer.is_held_up
    assert waits.microseconds == []
    connection.close()
