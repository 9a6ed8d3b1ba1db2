"""Log lines that would come by the thousand: the first of a kind at once, the others counted and told once a minute."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from polaris.clock import Clock

SUMMARY_EVERY_S = 60.0
KINDS_MAX = 256

K = TypeVar("K", bound=Hashable)


class _Kind:
    """When a line of this kind was last written, and how many were not since then."""

    __slots__ = ("count", "written_s")

    def __init__(self, written_s: float) -> None:
        self.written_s = written_s
        self.count = 0


class KeptBack(Generic[K]):
    """Decides which lines are written, and knows how many were not.

    At most one line of a kind is written every `every_s`, so what is written is bounded by the number of kinds, however
    much happens. Nothing is forgotten: a line that is written tells how many of its kind were kept back before it, and
    `overdue` gives the counts that no further line has told. Of more than `KINDS_MAX` kinds the one that was written
    longest ago is forgotten, after its count was told.
    """

    def __init__(self, clock: Clock, *, every_s: float = SUMMARY_EVERY_S, kinds_max: int = KINDS_MAX) -> None:
        self._clock = clock
        self._every_s = every_s
        self._kinds_max = kinds_max
        self._kinds: dict[K, _Kind] = {}
        self._untold: dict[K, int] = {}

    def admit(self, kind: K) -> int | None:
        """None: keep the line back. Otherwise write it; the number is how many of its kind were kept back before it."""
        now_s = self._clock.monotonic()
        known = self._kinds.pop(kind, None)
        if known is None:
            self._make_room()
            self._kinds[kind] = _Kind(now_s)
            return self._untold.pop(kind, 0)
        self._kinds[kind] = known
        if now_s - known.written_s < self._every_s:
            known.count += 1
            return None
        known.written_s, kept_back = now_s, known.count
        known.count = 0
        return kept_back

    def overdue(self, *, everything: bool = False) -> list[tuple[K, int]]:
        """What was kept back and is to be told now, by kind: what is a minute old, or `everything` at the end."""
        now_s = self._clock.monotonic()
        found, self._untold = list(self._untold.items()), {}
        for kind, known in self._kinds.items():
            if known.count and (everything or now_s - known.written_s >= self._every_s):
                found.append((kind, known.count))
                known.written_s, known.count = now_s, 0
        return found

    def _make_room(self) -> None:
        if len(self._kinds) >= self._kinds_max:
            oldest = next(iter(self._kinds))
            count = self._kinds.pop(oldest).count
            if count:
                self._untold[oldest] = count
