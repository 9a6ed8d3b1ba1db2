"""A session of the embedded engine without its threads: on a database in memory, for tests that compare many cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import apsw

from polaris.storage.backends.sqlite._compaction import Compaction
from polaris.storage.backends.sqlite._connection import READER_CACHE_KIB, set_up
from polaris.storage.backends.sqlite._migrate import known_migrations, migrate
from polaris.storage.backends.sqlite._rollup_windows import WindowKeeper
from polaris.storage.backends.sqlite._session import SqliteSession


def new_session() -> SqliteSession:
    """A session on an empty store in memory."""
    connection = apsw.Connection(":memory:")
    set_up(connection, cache_kib=READER_CACHE_KIB)
    migrate(connection, known_migrations())
    return SqliteSession(connection)


@contextmanager
def scratch(session: SqliteSession) -> Iterator[SqliteSession]:
    """A transaction that is taken back afterwards."""
    session.connection.execute("BEGIN")
    try:
        yield session
    finally:
        session.connection.execute("ROLLBACK")
        session.memory.rolled_back()


def compact(session: SqliteSession, rows: int) -> None:
    """Move the oldest rows to the cold table."""
    Compaction(session, hot_rows_max=1, slice_rows=rows).move_slice()


def roll_up(session: SqliteSession, rows: int) -> bool:
    """Summarise some of the dirty windows behind the compaction; False when there are none."""
    keeper = WindowKeeper(session.connection, session.time_series.rollups, slice_rows=rows)
    return keeper.run_slice(session.time_series.cold_until())


def steps_of(session: SqliteSession, work: Callable[[], object]) -> int:
    """How many tens of steps SQLite's machine takes for something."""
    count = 0

    def tick() -> bool:
        nonlocal count
        count += 1
        return False

    session.connection.set_progress_handler(tick, 10)
    try:
        work()
    finally:
        session.connection.set_progress_handler(None)
    return count
