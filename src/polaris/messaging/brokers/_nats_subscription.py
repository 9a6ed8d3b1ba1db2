"""Core subscriptions on NATS: a bounded queue and the task that hands its messages on, in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable

from nats import errors
from nats.aio.subscription import Subscription

from polaris.messaging._broker import Delivery, OnDelivery
from polaris.messaging.brokers._nats_client import HardenedClient
from polaris.messaging.brokers._nats_delivery import CoreDelivery
from polaris.messaging.brokers._overflow import Overflow

_log = logging.getLogger(__name__)

YIELD_EVERY = 128
"""Messages handed on before other tasks get a turn, for callbacks that never wait."""


class NATSSubscription:
    """One core subscription. It survives reconnects; what is published while the connection is away is not received.

    At `messages_max` messages or `bytes_max` bytes waiting for the callback the newest are dropped and
    counted in `dropped`, see `Overflow`.
    """

    def __init__(
        self,
        client: HardenedClient,
        pattern: str,
        on_delivery: OnDelivery,
        *,
        messages_max: int,
        bytes_max: int,
        on_end: Callable[[NATSSubscription], None],
    ) -> None:
        self.pattern = pattern
        self._client = client
        self._on_delivery = on_delivery
        self._at_once: Callable[[Delivery], bool] | None = getattr(on_delivery, "at_once", None)
        self._busy = False
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._subscription: Subscription | None = None
        self._pending: deque[CoreDelivery] = deque()
        self._pending_bytes = 0
        self._overflow = Overflow(pattern, on_delivery)
        self._arrived = asyncio.Event()
        self._ended = False
        self._task = asyncio.create_task(self._run(), name=f"nats-subscription {pattern}")
        # Ended is it when its callback is, not before: until then the broker must be able to cancel that.
        self._task.add_done_callback(lambda _: on_end(self))
        self._task.add_done_callback(self._overflow.end)

    @property
    def dropped(self) -> int:
        """Messages that found no room."""
        return self._overflow.count

    async def open(self, group: str | None) -> None:
        """Ask the server for messages; of effect after the next flush."""
        self._subscription = await self._client.listen(self.pattern, self._offer, group=group or "")

    async def drain(self) -> None:
        """Receive nothing new, finish what was received, then end. Idempotent."""
        subscription = self._subscription
        if not self._ended and subscription is not None:
            self._client.mute(subscription)
            with contextlib.suppress(errors.Error, OSError):
                # The answer to the flush comes behind everything that the server had sent.
                await self._client.flush()
            self._client.forget(subscription)
            self._subscription = None
        await self._end()

    async def unsubscribe(self) -> None:
        """End at once: what was not handed on yet is dropped; the callback that runs is let finish. Idempotent."""
        self._pending.clear()
        await self._end()

    async def cancel(self) -> None:
        """End at once and cancel the callback: the connection closes."""
        self._pending.clear()
        self._close()
        if self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _end(self) -> None:
        self._close()
        # A callback may end its own subscription.
        if self._task is not asyncio.current_task():
            await asyncio.wait([self._task])

    def _close(self) -> None:
        self._ended = True
        self._arrived.set()
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._client.mute(subscription)
            self._client.forget(subscription)

    def _offer(self, subject: str, reply: str, payload: bytes, headers: bytes | None) -> None:
        delivery = CoreDelivery(subject, payload, headers, reply or None)
        if self._at_once is not None and not self._busy and not self._pending and self._at_once(delivery):
            return
        size = len(payload)
        if len(self._pending) >= self._messages_max or self._pending_bytes + size > self._bytes_max:
            self._overflow.drop(delivery)
            return
        self._pending_bytes += size
        self._pending.append(delivery)
        self._arrived.set()

    async def _run(self) -> None:
        pending, arrived, on_delivery = self._pending, self._arrived, self._on_delivery
        handed_on = 0
        while True:
            self._busy = True
            while pending:
                delivery = pending.popleft()
                self._pending_bytes -= len(delivery.payload)
                try:
                    await on_delivery(delivery)
                except Exception:  # boundary: a callback's failure must not end its subscription
                    _log.exception("the callback of subscription %s failed", self.pattern)
                handed_on += 1
                if handed_on % YIELD_EVERY == 0:
                    await asyncio.sleep(0)
            self._pending_bytes = 0
            self._busy = False
            if self._ended:
                return
            arrived.clear()
            await arrived.wait()
