"""Keeping the write-ahead log short: the writer checkpoints it, and insists when readers keep it from ending."""

from __future__ import annotations

import apsw

PAGES_SOFT = 2_048
"""8 MiB: from here on, what readers do not need any more is moved to the database file, without waiting for anybody."""
PAGES_HARD = 16_384
"""64 MiB: from here on, wait up to 250 ms for readers to get out of the way."""
WAIT_MS = 250
GROWTH_PAGES = 1_024
"""After a checkpoint that could not finish, the log grows by this much before the next one."""
GROWTH_SHARE = 0.5
"""After waiting for readers in vain, the log grows by this share before they are waited for again: writers lose 250 ms
each time, and a reader that stays for hours must not cost them their speed."""


class Checkpointer:
    """Watches the length of the log after every commit."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._next_pages = PAGES_SOFT
        self._insist_pages = PAGES_HARD
        self.wal_pages = 0
        self.done = 0
        self.insisted = 0
        self.blocked = 0
        self.is_held_up = False
        """Whether readers kept the last checkpoint from moving the whole log."""
        connection.set_wal_hook(self._on_commit)

    def _on_commit(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self.wal_pages = pages
        return apsw.SQLITE_OK

    @property
    def is_overdue(self) -> bool:
        """Whether the log is twice as long as it should be: other housekeeping went first too often."""
        return self.wal_pages >= 2 * self._next_pages

    def make_room(self) -> None:
        """Be due whatever the length of the log: emptied, it is written from its beginning, which takes no room."""
        self._next_pages = 1

    def run_if_due(self) -> None:
        """Checkpoint when the log is long. Outside of a transaction."""
        if self.wal_pages < self._next_pages:
            return
        insist = self.wal_pages >= self._insist_pages
        mode = apsw.SQLITE_CHECKPOINT_RESTART if insist else apsw.SQLITE_CHECKPOINT_PASSIVE
        busy_timeout_ms = int(self._connection.pragma("busy_timeout"))
        self._connection.set_busy_timeout(WAIT_MS)
        try:
            pages, moved = self._connection.wal_checkpoint(mode=mode)
        except apsw.BusyError:
            pages, moved = self.wal_pages, 0
        finally:
            self._connection.set_busy_timeout(busy_timeout_ms)
        self.done += 1
        self.insisted += insist
        self.is_held_up = moved < pages
        if self.is_held_up:
            self.blocked += 1
            self._next_pages = self.wal_pages + GROWTH_PAGES
            if insist:
                self._insist_pages = int(self.wal_pages * (1 + GROWTH_SHARE))
        else:
            self._next_pages, self._insist_pages = PAGES_SOFT, PAGES_HARD

    def look_again(self) -> None:
        """Empty a log that was held up, if those who did so are gone. Waits for nobody; outside of a transaction."""
        if not self.is_held_up:
            return
        busy_timeout_ms = int(self._connection.pragma("busy_timeout"))
        self._connection.set_busy_timeout(0)
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            return
        finally:
            self._connection.set_busy_timeout(busy_timeout_ms)
        self.is_held_up = False
        self.wal_pages = 0
        self._next_pages, self._insist_pages = PAGES_SOFT, PAGES_HARD
