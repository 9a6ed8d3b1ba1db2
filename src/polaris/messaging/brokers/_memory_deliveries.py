"""Deliveries, consumers and subscriptions of the in-memory broker, as their owners hold them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import ClassVar

import msgspec

from polaris.clock import Clock
from polaris.exceptions import InvalidValueError, SubscriptionError
from polaris.messaging._broker import AckPolicy, ConsumerInfo, Delivery
from polaris.messaging.brokers._memory_core import MemorySubscription
from polaris.messaging.brokers._memory_streams import ConsumerPosition, Record, Waiters


class CoreDelivery(msgspec.Struct, eq=False):
    """A pushed message: there is nothing to settle."""

    subject: str
    payload: bytes
    headers: Mapping[str, str]
    reply_to: str | None

    attempt: ClassVar[int] = 1
    sequence: ClassVar[int | None] = None
    number: ClassVar[int | None] = None
    stored_at: ClassVar[datetime | None] = None

    async def ack(self, *, confirm: bool = False) -> None:
        pass

    async def nak(self, *, delay_s: float) -> None:
        pass

    async def term(self) -> None:
        pass

    async def in_progress(self) -> None:
        pass


class StreamDelivery:
    """A message of a consumer, to be settled on the connection it came by. The first settlement counts."""

    __slots__ = ("_position", "_record", "_require_connection", "_settled", "attempt", "number")

    reply_to: str | None = None

    def __init__(
        self,
        require_connection: Callable[[], None],
        position: ConsumerPosition,
        record: Record,
        attempt: int,
        number: int,
    ) -> None:
        self._require_connection = require_connection
        self._position = position
        self._record = record
        self._settled = position.spec.ack is AckPolicy.NONE
        self.attempt = attempt
        self.number: int | None = number

    @property
    def subject(self) -> str:
        return self._record.subject

    @property
    def payload(self) -> bytes:
        return self._record.payload

    @property
    def headers(self) -> Mapping[str, str]:
        return self._record.headers

    @property
    def sequence(self) -> int | None:
        return self._record.sequence

    @property
    def stored_at(self) -> datetime | None:
        return self._record.stored_at

    async def ack(self, *, confirm: bool = False) -> None:
        if self._settles():
            self._position.settle(self._record.sequence, self.number)

    async def nak(self, *, delay_s: float) -> None:
        if self._settles():
            self._position.hand_back(self._record.sequence, self.number, delay_s)

    async def term(self) -> None:
        if self._settles():
            self._position.settle(self._record.sequence, self.number)

    async def in_progress(self) -> None:
        if not self._settled:
            self._require_connection()
            self._position.postpone(self._record.sequence, self._position.spec.ack_wait_s)

    def _settles(self) -> bool:
        """Whether the settlement asked for is the first."""
        if self._settled:
            return False
        self._require_connection()
        self._settled = True
        return True


class MemoryCoreSubscription:
    """A core subscription as its owner sees it."""

    def __init__(self, forget: Callable[[MemorySubscription], None], subscription: MemorySubscription) -> None:
        self._forget = forget
        self._subscription = subscription

    async def drain(self) -> None:
        self._forget(self._subscription)
        await self._subscription.finish()

    async def unsubscribe(self) -> None:
        self._forget(self._subscription)
        await self._subscription.end()


class MemoryConsumer:
    """A durable consumer as attached by one broker."""

    def __init__(self, require_connection: Callable[[], None], position: ConsumerPosition, clock: Clock) -> None:
        self._require_connection = require_connection
        self._position = position
        self._clock = clock
        self._closed = False
        position.attach()

    async def fetch(self, count_max: int, *, wait_s: float) -> Sequence[Delivery]:
        if count_max < 1:
            raise InvalidValueError("count_max", "a number from 1", count_max)
        deadline_s = self._clock.monotonic() + wait_s
        waiters = self._position.stream.waiters
        # Whoever fetches without end lets others run; and a cancellation takes effect here, before anything is taken.
        await asyncio.sleep(0)
        while True:
            self._require_connection()
            if self._closed:
                raise SubscriptionError("the consumer is closed", {"durable": self._position.spec.durable})
            taken = self._position.take(count_max)
            if taken:
                return [
                    StreamDelivery(self._require_connection, self._position, record, attempt, number)
                    for record, attempt, number in taken
                ]
            now_s = self._clock.monotonic()
            if now_s >= deadline_s:
                return []
            due_s = self._position.next_due_s()
            until_s = deadline_s if due_s is None or due_s <= now_s else min(deadline_s, due_s)
            await wait_for_wake(waiters, self._clock, until_s - now_s)

    async def info(self) -> ConsumerInfo:
        self._require_connection()
        return self._position.info()

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._position.detach()
            self._position.stream.waiters.wake()


async def wait_for_wake(waiters: Waiters, clock: Clock, delay_s: float) -> None:
    """Wait until somebody wakes the waiters, at most `delay_s` by the clock."""
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiters.add(waiter)
    sleeper = asyncio.ensure_future(clock.sleep(delay_s))
    try:
        await asyncio.wait((waiter, sleeper), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiters.discard(waiter)
        sleeper.cancel()
        await asyncio.gather(sleeper, return_exceptions=True)
