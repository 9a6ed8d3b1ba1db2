"""What was accepted and not begun: the queue between a source and the workers of a subscription."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class Row(Protocol[T]):
    """What a backlog keeps its items in; a deque, or something that gives them in another order."""

    def __len__(self) -> int: ...

    def append(self, item: T, /) -> None: ...

    def popleft(self) -> T: ...


class Backlog(Generic[T]):
    """First in, first out (unless the `row` says otherwise), for any number of workers of one event loop.

    As `asyncio.Queue` without bound (the source has one) and without what is not needed here, at a third of its cost,
    because every message passes it. A worker that is cancelled while it waits takes nothing with it.
    """

    __slots__ = ("_waiting", "row")

    def __init__(self, row: Row[T] | None = None) -> None:
        self.row: Row[T] = deque() if row is None else row
        """What waits. Whoever finds something in it may take that from it."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self.row)

    def put(self, item: T) -> None:
        """Add behind the others; one who waits is woken."""
        self.row.append(item)
        if self._waiting:
            self._wake_one()

    def take(self) -> T:
        """The first item, which must be there (IndexError otherwise)."""
        return self.row.popleft()

    async def wait_and_take(self) -> T:
        """The first item, as soon as there is one."""
        while not self.row:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                elif not waiter.cancelled() and self.row:
                    # Woken and cancelled at once: another one must take what this one was woken for.
                    self._wake_one()
                raise
        return self.row.popleft()

    def _wake_one(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
