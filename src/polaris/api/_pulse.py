"""A common beat for many waiters: all wake at the same moments, so what they need then is made once."""

from __future__ import annotations

import asyncio
from collections import deque

AT_ONCE = 16
"""Waiters that are woken in one turn of the event loop, so that others get theirs between them."""

Waiters = deque[asyncio.Future[bool]]


class Pulse:
    """Beats as soon as somebody asks, but at most every `pause_s` seconds; and when nobody does, once in a while.

    Costs nothing while nobody waits. All methods belong to the event loop's thread.
    """

    def __init__(self, pause_s: float) -> None:
        self.pause_s = pause_s
        """Least time between two beats that were asked for; may be changed at any time."""
        self._waiters: Waiters = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._asked = False
        self._beaten_s = float("-inf")

    def ask(self) -> None:
        """Beat as soon as the pause allows; without waiters it changes nothing."""
        if self._waiters and not self._asked:
            self._asked = True
            self._arm(self._beaten_s + self.pause_s)

    async def wait(self, idle_s: float, *, soon: bool = False) -> bool:
        """Return at the next beat, within `idle_s` seconds; with `soon` it is asked for. Tells whether anybody asked.

        Cancelling the wait disturbs nobody else.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiters.append(waiter)
        if self._timer is None:
            self._arm(loop.time() + idle_s)
        if soon:
            self.ask()
        return await waiter

    def beat(self) -> None:
        """Wake all who wait, now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        asked, self._asked = self._asked, False
        self._beaten_s = asyncio.get_running_loop().time()
        waiting, self._waiters = self._waiters, deque()
        _wake(waiting, asked)

    def _arm(self, when_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when_s, self.beat)


def _wake(waiting: Waiters, asked: bool) -> None:
    for _ in range(min(AT_ONCE, len(waiting))):
        waiter = waiting.popleft()
        if not waiter.done():  # else its task was cancelled
            waiter.set_result(asked)
    if waiting:
        asyncio.get_running_loop().call_soon(_wake, waiting, asked)
