"""Deadlines by the thousand: those that fall together share a timer, and one that is not needed costs next to nothing.

A timer of the event loop for each is an entry in a heap, stays there after it was cancelled, and is looked at by the
garbage collector meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

TICKS_A_SECOND = 16
SHARED_S_MAX = 10.0

T = TypeVar("T")
Group: TypeAlias = dict[asyncio.Future[T], None]


class Deadlines(Generic[T]):
    """Calls `end` with each future whose time is up and that was not taken out of its group. Of one event loop.

    Never later than asked for, and up to a sixteenth of a second earlier. A timer whose group has become empty runs out
    for nobody, so it is for times of at most ten seconds.
    """

    def __init__(self, end: Callable[[asyncio.Future[T]], None]) -> None:
        self._end = end
        self._groups: dict[int, Group[T]] = {}

    def join(self, answer: asyncio.Future[T], within_s: float) -> Group[T]:
        """The group that holds `answer` now, to take it out of in time."""
        loop = asyncio.get_running_loop()
        tick = int((loop.time() + within_s) * TICKS_A_SECOND)
        group = self._groups.get(tick)
        if group is None:
            group = self._groups[tick] = {}
            loop.call_at(tick / TICKS_A_SECOND, self._due, tick)
        group[answer] = None
        return group

    def _due(self, tick: int) -> None:
        for answer in list(self._groups.pop(tick)):
            self._end(answer)
