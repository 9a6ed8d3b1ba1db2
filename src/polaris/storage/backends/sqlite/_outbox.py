"""The outbox in SQLite."""

from __future__ import annotations

from collections.abc import Sequence

import apsw
import msgspec

from polaris.storage._operation import OutboxRow
from polaris.storage._ranges import from_micros
from polaris.storage.backends.sqlite._sql import scalar


class SqliteOutbox:
    """Rows in the order of their commits: there is one writer, and sequences are never used twice."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.added = False

    def add(self, topic: str, event_type: str, version: int, payload: bytes, created_us: int) -> None:
        self._connection.execute(
            "INSERT INTO outbox (topic, event_type, version, payload, created_us) VALUES (?, ?, ?, ?, ?)",
            (topic, event_type, version, payload, created_us),
        )
        self.added = True

    def pending(self, limit: int, after: int) -> list[OutboxRow]:
        rows = self._connection.execute(
            "SELECT sequence, topic, event_type, version, payload, created_us FROM outbox"
            " WHERE sequence > ? ORDER BY sequence LIMIT ?",
            (after, limit),
        )
        return [
            OutboxRow(sequence, topic, event_type, version, payload, from_micros(created_us))
            for sequence, topic, event_type, version, payload, created_us in rows
        ]

    def remove(self, sequences: Sequence[int]) -> int:
        before = self._connection.total_changes()
        self._connection.execute(
            "DELETE FROM outbox WHERE sequence IN (SELECT value FROM json_each(?))",
            (msgspec.json.encode(sequences).decode(),),
        )
        return self._connection.total_changes() - before

    def count(self) -> int:
        return int(scalar(self._connection, "SELECT count(*) FROM outbox"))
