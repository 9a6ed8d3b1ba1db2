"""Moving the oldest rows of the hot table to the clustered one, a slice at a time."""

from __future__ import annotations

from collections.abc import Callable

from polaris.storage.backends.sqlite._series import COLUMN_NAMES
from polaris.storage.backends.sqlite._session import SqliteSession
from polaris.storage.backends.sqlite._sql import scalar

HOT_ROWS_MAX = 32_768
SLICE_ROWS = 2_048
"""Some ten milliseconds, which whoever writes at that moment waits longer."""
PATIENCE = 1.25
"""As long as the hot table is no more than a quarter too long, a slice ends half-way when somebody waits to write.

Not sooner: small slices touch more pages for each row. A half costs two thirds of a whole one.
"""

_COLUMN_LIST = ", ".join(COLUMN_NAMES)
_MOVE = (
    f"INSERT OR REPLACE INTO ts_cold (series, ts, part, {_COLUMN_LIST})"  # noqa: S608
    f" SELECT series, ts, part, {_COLUMN_LIST} FROM ts_hot WHERE (ts, series) < (?, ?) ORDER BY series, ts, part"
)


class Compaction:
    """Keeps the hot table small: over `hot_rows_max`, it moves one slice whenever it is asked.

    Reads of one series walk the hot table by time, so its size bounds what they cost; a slice of some thousand rows,
    sorted by series, touches a page of the cold table for many rows at once instead of one.
    """

    def __init__(self, session: SqliteSession, *, hot_rows_max: int, slice_rows: int) -> None:
        self._session = session
        self._hot_rows_max = hot_rows_max
        self._slice_rows = slice_rows
        self._hot_rows = self._count()
        self.slices = 0
        self.rows_moved = 0

    def _count(self) -> int:
        return int(scalar(self._session.connection, "SELECT count(*) FROM ts_hot"))

    @property
    def is_due(self) -> bool:
        """Whether a slice should be moved now."""
        written, self._session.time_series.rows_written = self._session.time_series.rows_written, 0
        self._hot_rows += written
        if self._hot_rows <= self._hot_rows_max:
            return False
        # The sum counts rows twice that were replaced or rolled back: before acting on it, count.
        self._hot_rows = self._count()
        return self._hot_rows > self._hot_rows_max

    @property
    def is_behind(self) -> bool:
        """Whether the table is twice as long as it should be: more was written at once than a slice takes."""
        return self._hot_rows > 2 * self._hot_rows_max

    def move_slice(self, is_awaited: Callable[[], bool] = lambda: False) -> None:
        """Move the oldest rows, inside a transaction that the caller began. Parts of a point stay together.

        `is_awaited` is asked half-way whether somebody waits for the end.
        """
        is_long = self._hot_rows > self._hot_rows_max * PATIENCE
        half, before = max(1, self._slice_rows // 2), self.rows_moved
        self._move(half)
        if is_long or not is_awaited():
            self._move(self._slice_rows - half)
        self.slices += self.rows_moved > before

    def _move(self, rows: int) -> None:
        connection = self._session.connection
        bound = connection.execute(
            "SELECT ts, series FROM ts_hot ORDER BY ts, series LIMIT 1 OFFSET ?", (rows,)
        ).fetchone()
        if bound is None or not rows:
            return
        connection.execute(_MOVE, bound)
        connection.execute("DELETE FROM ts_hot WHERE (ts, series) < (?, ?)", bound)
        moved = connection.changes()
        connection.execute("UPDATE ts_compaction SET cold_until = max(cold_until, ?)", (bound[0] + 1,))
        self._session.memory.forget("cold_until")
        self._hot_rows -= moved
        self.rows_moved += moved
