"""What a process remembers of the store, and what a transaction has learned but may still take back."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

ENTRIES_MAX = 200_000


class Memory:
    """A bounded cache of facts that never change once they are committed. Full, it starts anew."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[Hashable, Any] = {}

    def get(self, key: Hashable) -> Any:
        """What is remembered under the key, or None."""
        return self._entries.get(key)

    def learn(self, key: Hashable, value: Any) -> None:
        """Remember a fact."""
        if len(self._entries) >= ENTRIES_MAX:
            self._entries.clear()
        self._entries[key] = value

    def clear(self) -> None:
        """Ask the store again for everything: it may be another one now."""
        self._entries.clear()


class Lessons:
    """What one transaction knows: the memory of the process, and what it has learned itself."""

    __slots__ = ("_learned", "_memory")

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._learned: dict[Hashable, Any] = {}

    def get(self, key: Hashable) -> Any:
        found = self._learned.get(key)
        return self._memory.get(key) if found is None else found

    def learn(self, key: Hashable, value: Any) -> None:
        self._learned[key] = value

    def keep(self) -> None:
        """What was learned is committed: the process may know it."""
        for key, value in self._learned.items():
            self._memory.learn(key, value)
        self._learned.clear()

    def forget(self) -> None:
        """What was learned since the last commit is untrue."""
        self._learned.clear()
