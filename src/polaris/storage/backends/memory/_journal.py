"""How to take back what a transaction has done so far."""

from __future__ import annotations

from collections.abc import Callable


class Journal:
    """Inverse steps, run in reverse order to undo; forgotten at the commit."""

    __slots__ = ("_inverses",)

    def __init__(self) -> None:
        self._inverses: list[Callable[[], object]] = []

    def note(self, inverse: Callable[[], object]) -> None:
        """Remember how to take back the step that follows or has just been done."""
        self._inverses.append(inverse)

    def undo(self) -> None:
        while self._inverses:
            self._inverses.pop()()

    def forget(self) -> None:
        self._inverses.clear()
