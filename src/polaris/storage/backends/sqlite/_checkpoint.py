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
        self._lacks_room = False
        """Whether the last commit was refused for want of room, and the log not begun anew since."""
        self.wal_pages = 0
        """Length of the log at the last commit of this connection; what others left there is not known before."""
        self.done = 0
        self.insisted = 0
        self.blocked = 0
        self.is_held_up = False
        """Whether readers kept the last checkpoint from its end: the log is not moved, or its room cannot be reused."""
        connection.set_wal_hook(self._on_commit)

    def _on_commit(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self.wal_pages = pages
        self._lacks_room = False
        return apsw.SQLITE_OK

    @property
    def is_overdue(self) -> bool:
        """Whether this goes before other housekeeping, which went first too often or has no room to be done in."""
        return self._lacks_room or self.wal_pages >= 2 * self._next_pages

    def make_room(self) -> None:
        """Be due whatever the length of the log: begun anew, it is written where it has its room already.

        Due until that is done or a commit succeeds.
        """
        self._lacks_room = True

    def run_if_due(self) -> bool:
        """Checkpoint when the log is long, or there is no room for more of it. Outside of a transaction.

        True when that was due and no reader kept it from its end.
        """
        finished = self.done - self.blocked
        if self._lacks_room:
            self._begin_anew()
        elif self.wal_pages >= self._next_pages:
            self._shorten()
        return self.done - self.blocked > finished

    def _begin_anew(self) -> None:
        """Let the next commit write the log from its beginning, unless readers need what is there. Waits for nobody."""
        # Not truncated: on a full disk, the room that the log gives back may be somebody else's at once.
        found = self._checkpoint(apsw.SQLITE_CHECKPOINT_RESTART, wait_ms=0)
        self.done += 1
        if found is None:
            self.is_held_up = True
            self.blocked += 1
        else:
            self._reset()

    def _shorten(self) -> None:
        insist = self.wal_pages >= self._insist_pages
        mode = apsw.SQLITE_CHECKPOINT_RESTART if insist else apsw.SQLITE_CHECKPOINT_PASSIVE
        pages, moved = self._checkpoint(mode, wait_ms=WAIT_MS) or (self.wal_pages, 0)
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
        if self.is_held_up and self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE, wait_ms=0) is not None:
            self._reset()

    def _reset(self) -> None:
        self._lacks_room = self.is_held_up = False
        self.wal_pages = 0
        self._next_pages, self._insist_pages = PAGES_SOFT, PAGES_HARD

    def _checkpoint(self, mode: int, *, wait_ms: int) -> tuple[int, int] | None:
        """The pages of the log, and how many of them are moved; None when others kept that from what the mode asks."""
        busy_timeout_ms = int(self._connection.pragma("busy_timeout"))
        self._connection.set_busy_timeout(wait_ms)
        try:
            return self._connection.wal_checkpoint(mode=mode)
        except apsw.BusyError:
            return None
        finally:
            self._connection.set_busy_timeout(busy_timeout_ms)
