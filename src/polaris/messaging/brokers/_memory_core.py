"""Core subscriptions in memory: pushed to while they exist, each in its own task."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.messaging._broker import Delivery, OnDelivery
from polaris.messaging.brokers._overflow import Overflow

_log = logging.getLogger(__name__)

PENDING_MAX = 65_536


class MemorySubscription:
    """One core subscription: a bounded queue and the task that hands its messages to the callback, in order.

    At `PENDING_MAX` waiting messages the newest is dropped and counted in `dropped`, as on NATS, see `Overflow`.
    """

    def __init__(
        self, pattern: str, on_delivery: OnDelivery, group: str | None, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.pattern = pattern
        self.group = group
        self._on_delivery = on_delivery
        self._at_once: Callable[[Delivery], bool] | None = getattr(on_delivery, "at_once", None)
        self._pending: deque[Delivery] = deque()
        self._overflow = Overflow(pattern, on_delivery, clock=clock)
        self._arrived = asyncio.Event()
        self._ended = False
        self._busy = False
        self._task = asyncio.create_task(self._run(), name=f"memory-subscription {pattern}")
        self._task.add_done_callback(self._overflow.end)

    @property
    def dropped(self) -> int:
        """Messages that found no room."""
        return self._overflow.count

    @property
    def idle(self) -> bool:
        """Whether nothing waits and the callback does not run."""
        return not self._pending and not self._busy

    def offer(self, delivery: Delivery) -> None:
        """Hand over one message if that takes no waiting, else queue it; at the bound it is dropped and counted."""
        if self._ended:
            return
        pending = self._pending
        if not pending:
            if self._at_once is not None and not self._busy:
                try:
                    if self._at_once(delivery):
                        return
                except Exception:  # boundary: a callback's failure is not the publisher's
                    _log.exception("the callback of subscription %s failed", self.pattern)
                    return
            # Whoever takes from it goes on until it is empty, and only then waits to be told.
            self._arrived.set()
        elif len(pending) >= PENDING_MAX:
            self._overflow.drop(delivery)
            return
        pending.append(delivery)

    async def finish(self) -> None:
        """Take nothing new, hand over what waits, then end."""
        self._ended = True
        self._arrived.set()
        await self._join()

    async def end(self) -> None:
        """Drop what waits; the callback that runs now is left to finish."""
        self._pending.clear()
        await self.finish()

    async def cancel(self) -> None:
        """Drop what waits and cancel the callback."""
        self._pending.clear()
        self._ended = True
        if self._task is not asyncio.current_task():
            self._task.cancel()
        await self._join()

    async def _join(self) -> None:
        if self._task is not asyncio.current_task():
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        pending, arrived, on_delivery = self._pending, self._arrived, self._on_delivery
        while True:
            self._busy = True
            while pending:
                try:
                    await on_delivery(pending.popleft())
                except Exception:  # boundary: a callback's failure must not end its subscription
                    _log.exception("the callback of subscription %s failed", self.pattern)
            self._busy = False
            if self._ended:
                return
            arrived.clear()
            await arrived.wait()
