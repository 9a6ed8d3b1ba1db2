"""For how long partitions are left alone that were in use: each try to drop one holds up whoever comes after it."""

from __future__ import annotations

DROP_PAUSE_S = 10.0
"""How long after a try in vain nobody of this process tries again."""


class DropPauses:
    """The collections of which a partition was not to be had of late, by the monotonic seconds of a clock."""

    __slots__ = ("_until_s",)

    def __init__(self) -> None:
        self._until_s: dict[int, float] = {}

    def begin(self, collection: int, now_s: float) -> None:
        """Somebody was in the way: for a while no partition of the collection is asked for."""
        self._until_s[collection] = now_s + DROP_PAUSE_S

    def lasts(self, collection: int, now_s: float) -> bool:
        """Whether the collection's partitions are to be left alone still."""
        if now_s < self._until_s.get(collection, now_s):
            return True
        self._until_s.pop(collection, None)
        return False
