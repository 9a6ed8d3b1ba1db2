"""What taps hear the bus by: one subscription a pattern, on a connection of their own while somebody looks on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from polaris.messaging import ConnectionState

if TYPE_CHECKING:
    from polaris.messaging import Delivery, MessageBroker
    from polaris.messaging._broker import BrokerSubscription, OnDelivery

ENDED = (ConnectionState.DISCONNECTED, ConnectionState.CLOSED)
Take = Callable[["Delivery"], None]


class TapLine:
    """Hands on what passes to all who listen.

    Its own broker is connected for the first who listens and disconnected after the last, so that whatever amount
    passes, the connection of the actions carries none of it. A borrowed one is left as it is.
    """

    def __init__(self, broker: MessageBroker, *, own: bool) -> None:
        self._broker = broker
        self._own = own
        self._listening: dict[str, list[Take]] = {}
        self._subscriptions: dict[str, BrokerSubscription] = {}
        self._change = asyncio.Lock()

    async def listen(self, pattern: str, take: Take) -> None:
        """Call `take` with all that passes on `pattern` from now on. Raises what the broker raises.

        Whoever is cancelled or gets an error calls `leave` all the same.
        """
        self._listening.setdefault(pattern, []).append(take)
        async with self._change:
            if self._own:
                if self._broker.state in ENDED:
                    # What was heard by a connection that ended by itself is heard no more.
                    self._subscriptions.clear()
                await self._broker.connect()
            for unheard in self._listening.keys() - self._subscriptions.keys():
                self._subscriptions[unheard] = await self._broker.subscribe(unheard, self._to_all(unheard))

    async def leave(self, pattern: str, take: Take) -> None:
        """Call it no longer. Idempotent."""
        takers = self._listening.get(pattern, [])
        if take in takers:
            takers.remove(take)
        if not takers:
            self._listening.pop(pattern, None)
        async with self._change:
            # Also what somebody left behind who was cancelled here.
            for unwanted in self._subscriptions.keys() - self._listening.keys():
                await self._subscriptions.pop(unwanted).unsubscribe()
            if self._own and not self._listening:
                await self._broker.disconnect()

    def _to_all(self, pattern: str) -> OnDelivery:
        async def hand_on(delivery: Delivery) -> None:
            for take in self._listening.get(pattern, ()):
                take(delivery)

        return hand_on
