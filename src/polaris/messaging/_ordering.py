"""Keeps the order of a subscription's messages per key, through failures too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Hashable
from typing import TYPE_CHECKING

from polaris.exceptions import MessageDecodeError
from polaris.messaging._accepted import Accepted
from polaris.messaging._broker import Delivery
from polaris.messaging._event_wire import DecodedEvent
from polaris.messaging._guard import ProbeFailed
from polaris.messaging._invocation import Invoker
from polaris.messaging._key_order import KeyOrder
from polaris.messaging._settlement import Settlement
from polaris.messaging._subscription import OrderKey

if TYPE_CHECKING:
    from polaris.observability import StructuredLogger

_UNTOLD = object()
"""The common key of the events whose key could not be told."""


class Ordering:
    """Lines accepted messages up by key, and holds back those behind one that failed until it has ended.

    What fails is not handed back: it is kept, heartbeats and all, and tried again here after the delay of the policy.
    While the subscription ends nothing is tried again; after a failure whatever stands behind it must be handed back.
    Events for which the key function fails are in order among themselves, and its error is logged.
    """

    def __init__(
        self,
        key: OrderKey,
        ready: Callable[[Accepted], None],
        invoker: Invoker,
        settlement: Settlement,
        *,
        logger: StructuredLogger,
    ) -> None:
        self._key = key
        self._invoker = invoker
        self._settlement = settlement
        self._logger = logger
        self._order: KeyOrder[Accepted] = KeyOrder(ready)

    def enter(self, item: Accepted) -> None:
        """Line up behind those with the same key; it is ready when they have ended."""
        self._order.enter(item, self._keys(item.delivery))

    def repeats(self, item: Accepted) -> int:
        """How often the message was tried again here, since it was delivered."""
        return self._order.repeats(item)

    def repeat_later(self, item: Accepted, error: BaseException) -> None:
        """Keep the message that failed with `error` in its place, and try it again after the delay of the policy."""
        delay_s = self._settlement.delay_s(item, error, self._order.repeats(item))
        self._order.repeat_later(item, delay_s, counts=not isinstance(error, ProbeFailed))

    def ended(self, item: Accepted) -> None:
        """Let the next ones begin if the message is settled; one that is to be tried again keeps its place."""
        if not self._settlement.holds(item):
            self._order.leave(item)

    async def finish(self, *, within_s: float) -> bool:
        """Wait until everything lined up has ended, at most so long; False if it cannot, as something failed before."""
        if self._order.cancel_repeats():
            return False
        emptied = asyncio.ensure_future(self._order.emptied())
        await asyncio.wait([emptied], timeout=within_s)
        emptied.cancel()
        return True

    def _keys(self, delivery: Delivery) -> Collection[Hashable]:
        """The keys of the events of a message; bytes that are no event wait for nothing."""
        if not callable(self._key):
            return (delivery.subject,)
        try:
            found = self._invoker.decode(delivery)
        except MessageDecodeError:
            return ()
        return {self._key_of(member) for member in found if isinstance(member, DecodedEvent)}

    def _key_of(self, member: DecodedEvent) -> Hashable:
        assert callable(self._key)  # noqa: S101 - `_keys` has seen to it
        try:
            key: Hashable = self._key(member.event)
            hash(key)
        except Exception as error:  # boundary: the key function is foreign code; its failure must not stop the rest
            self._logger.warning(
                "the order key of an event could not be told",
                subscription=self._settlement.name,
                event_type=member.event_type,
                error=error,
            )
            return _UNTOLD
        return key
