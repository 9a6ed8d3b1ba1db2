"""What a session remembers of the store, and how it forgets what a rollback made untrue."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

ENTRIES_MAX = 200_000


class Memory:
    """A bounded cache that knows which entries were learned since a mark. Full, it starts anew."""

    __slots__ = ("_entries", "_learned", "get")

    def __init__(self) -> None:
        self._entries: dict[Hashable, Any] = {}
        self._learned: list[Hashable] = []
        self.get: Callable[[Hashable], Any] = self._entries.get
        """What is remembered under the key, or None."""

    def learn(self, key: Hashable, value: Any) -> None:
        """Remember something that may be taken back with the transaction."""
        if len(self._entries) >= ENTRIES_MAX:
            self._entries.clear()
        self._entries[key] = value
        self._learned.append(key)

    def forget(self, key: Hashable) -> None:
        """Ask the store again for this one."""
        self._entries.pop(key, None)

    def forget_all(self) -> None:
        """Ask the store again for everything."""
        self._entries.clear()

    def mark(self) -> int:
        """A point to go back to."""
        return len(self._learned)

    def rolled_back(self, mark: int = 0) -> None:
        """Forget everything learned since the mark."""
        for key in self._learned[mark:]:
            self._entries.pop(key, None)
        del self._learned[mark:]

    def committed(self) -> None:
        """What was learned is true for good."""
        self._learned.clear()
