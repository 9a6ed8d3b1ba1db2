"""Which documents have expired: in a table beside them, so that those which never do pay nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import apsw

from polaris.storage.backends.sqlite._memory import Memory
from polaris.storage.backends.sqlite._sql import row, rows


class Home(NamedTuple):
    """The number of a collection and its table, `doc_<number>`."""

    number: int
    table: str

    @classmethod
    def of(cls, number: int) -> Home:
        return cls(number, f"doc_{number}")


class Expiries:
    """Every document that expires has a row; one that is gone has none."""

    def __init__(self, connection: apsw.Connection, memory: Memory) -> None:
        self._connection = connection
        self._memory = memory

    def first_us(self, home: Home) -> int | None:
        """When the first of the documents expires; None while none does."""
        found = row(self._connection, "SELECT min(expires_us) FROM doc_expiries WHERE collection = ?", (home.number,))
        return None if found is None else found[0]

    def first_us_for_writing(self, home: Home) -> int | None:
        """As `first_us`. The one who writes remembers that there is none: nobody else can change it."""
        if self._memory.get(("never expires", home.number)):
            return None
        first = self.first_us(home)
        if first is None:
            self._memory.learn(("never expires", home.number), True)
        return first

    def visible(self, home: Home, now_us: int) -> tuple[str, tuple[int, ...]]:
        """The condition that a document is there, as far as there is one to state, and its parameters."""
        first = self.first_us(home)
        if first is None or first > now_us:
            return "", ()
        expired = f"SELECT 1 FROM doc_expiries AS x WHERE x.collection = ? AND x.id = {home.table}.id"  # noqa: S608
        return f" AND NOT EXISTS ({expired} AND x.expires_us <= ?)", (home.number, now_us)

    def set(self, home: Home, document_ids: Iterable[str], expires_us: int | None) -> None:
        """Let the documents expire at that instant, or never."""
        if expires_us is None:
            self.clear(home, document_ids)
            return
        self._memory.forget(("never expires", home.number))
        self._connection.executemany(
            "INSERT INTO doc_expiries VALUES (?, ?, ?)"
            " ON CONFLICT (collection, id) DO UPDATE SET expires_us = excluded.expires_us",
            ((home.number, document_id, expires_us) for document_id in document_ids),
        )

    def clear(self, home: Home, document_ids: Iterable[str]) -> None:
        """The documents are gone, or never expire any more."""
        if self.first_us_for_writing(home) is not None:
            self._connection.executemany(
                "DELETE FROM doc_expiries WHERE collection = ? AND id = ?",
                ((home.number, document_id) for document_id in document_ids),
            )

    def remove_these(self, home: Home, document_ids: Iterable[str], now_us: int) -> None:
        """Delete those of the documents that have expired."""
        for document_id in document_ids:
            self._connection.execute(
                "DELETE FROM doc_expiries WHERE collection = ? AND id = ? AND expires_us <= ?",
                (home.number, document_id, now_us),
            )
            if self._connection.changes():
                self._connection.execute(f"DELETE FROM {home.table} WHERE id = ?", (document_id,))  # noqa: S608

    def remove_due(self, home: Home, now_us: int, limit: int) -> int:
        """Delete documents that have expired, at most so many; gives how many."""
        due = rows(
            self._connection,
            "SELECT id FROM doc_expiries WHERE collection = ? AND expires_us <= ? ORDER BY expires_us LIMIT ?",
            (home.number, now_us, limit),
        )
        if due:
            self._connection.executemany(f"DELETE FROM {home.table} WHERE id = ?", due)  # noqa: S608
            self._connection.executemany(
                "DELETE FROM doc_expiries WHERE collection = ? AND id = ?", ((home.number, one[0]) for one in due)
            )
        return len(due)
