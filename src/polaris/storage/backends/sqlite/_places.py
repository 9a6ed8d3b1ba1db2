"""Room for jobs on their way to the writer: bounded, and given in the order in which it was asked for."""

from __future__ import annotations

import asyncio
from collections import deque


class Places:
    """A number of places. As `asyncio.Semaphore`, but that nothing is awaited while one is free: a third of the cost.

    Of one event loop. Whoever is cancelled while it waits takes none.
    """

    __slots__ = ("_waiting", "free")

    def __init__(self, count: int) -> None:
        self.free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Take a place if one is free and nobody waits for it."""
        if self.free <= 0:  # while somebody waits, none is
            return False
        self.free -= 1
        return True

    async def wait(self) -> None:
        """Take the next place that is given back."""
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(given)
        try:
            await given
        except asyncio.CancelledError:
            if not given.cancelled():
                self.give_back(1)  # it was given just before
            elif given in self._waiting:
                self._waiting.remove(given)
            raise

    def give_back(self, count: int) -> None:
        """Give places back: first to those who wait."""
        while count and self._waiting:
            given = self._waiting.popleft()
            if not given.cancelled():
                given.set_result(None)
                count -= 1
        self.free += count
