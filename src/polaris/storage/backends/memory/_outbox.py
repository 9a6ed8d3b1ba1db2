"""The outbox of the engine in memory."""

from __future__ import annotations

from collections.abc import Sequence

from polaris.storage._operation import OutboxRow
from polaris.storage._ranges import from_micros
from polaris.storage.backends.memory._journal import Journal


class MemoryOutbox:
    """Rows by sequence, oldest first."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._rows: dict[int, OutboxRow] = {}
        self._last = 0
        self.added = False

    def add(self, topic: str, event_type: str, version: int, payload: bytes, created_us: int) -> None:
        sequence = self._last + 1
        self._rows[sequence] = OutboxRow(sequence, topic, event_type, version, payload, from_micros(created_us))
        self._last = sequence
        self.added = True
        self._journal.note(lambda: self._take_back(sequence))

    def _take_back(self, sequence: int) -> None:
        del self._rows[sequence]
        self._last = sequence - 1

    def pending(self, limit: int, after: int) -> list[OutboxRow]:
        return [self._rows[sequence] for sequence in sorted(self._rows) if sequence > after][:limit]

    def remove(self, sequences: Sequence[int]) -> int:
        removed = [self._rows.pop(sequence) for sequence in dict.fromkeys(sequences) if sequence in self._rows]
        self._journal.note(lambda: self._rows.update({row.sequence: row for row in removed}))
        return len(removed)

    def count(self) -> int:
        return len(self._rows)
