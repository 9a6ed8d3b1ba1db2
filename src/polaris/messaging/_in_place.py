"""One after the other: messages in the order of the stream, and what failed is tried again before what is behind it."""

from __future__ import annotations

import asyncio
import heapq
import itertools

from polaris.clock import Clock
from polaris.messaging._accepted import Accepted
from polaris.messaging._guard import ProbeFailed
from polaris.messaging._settlement import Settlement


class InPlace:
    """The patience of the one worker of a subscription in which nothing may overtake what failed."""

    def __init__(self, settlement: Settlement, clock: Clock) -> None:
        self._settlement = settlement
        self._clock = clock
        self._delay_s = 0.0
        self._ended = asyncio.Event()

    def end(self) -> None:
        """The subscription ends: nothing is tried again any more."""
        self._ended.set()

    def keep(self, item: Accepted, error: BaseException) -> None:
        """The message failed with `error`; `wait` then takes at least the delay of the policy."""
        self._delay_s = max(self._delay_s, self._settlement.delay_s(item, error, item.repeats))
        item.repeats += not isinstance(error, ProbeFailed)

    async def wait(self) -> bool:
        """Until what was kept may be tried again, all of it together; False when the subscription ends before."""
        delay_s, self._delay_s = self._delay_s, 0.0
        waiting = {asyncio.ensure_future(self._clock.sleep(delay_s)), asyncio.ensure_future(self._ended.wait())}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        return not self._ended.is_set()


class InSequence:
    """Items for a backlog, lowest sequence first, whatever order they came in; None, the end, behind all others."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Accepted | None]] = []
        self._count = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def append(self, item: Accepted | None, /) -> None:
        """Add an item in its place."""
        sequence = float("inf") if item is None else item.delivery.sequence or 0
        heapq.heappush(self._heap, (sequence, next(self._count), item))

    def popleft(self) -> Accepted | None:
        """Take the first one."""
        return heapq.heappop(self._heap)[2]
