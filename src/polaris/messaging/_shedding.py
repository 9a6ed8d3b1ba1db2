"""What a subscription under overload need not handle any more: what newer messages replace, and what is too old."""

from __future__ import annotations

import enum

from polaris.clock import Clock
from polaris.messaging._accepted import Accepted
from polaris.messaging._settlement import Settlement
from polaris.messaging._subscription import SubscriptionOptions, SubscriptionStats


class Dropped(enum.StrEnum):
    """Why a message was settled without being handled."""

    CONFLATED = "conflated"
    """A newer message of its topic had been taken before it was begun."""
    STALE = "stale"
    """It was stored longer ago than the subscriber cares for."""


class Shedding:
    """Decides, when a message is about to begin, whether it still matters. Only a subscriber who falls behind drops.

    It knows of what waits here: a message that comes again after a newer one was handled is handled, unless the
    subscription keeps the order of its topics.
    """

    def __init__(
        self, options: SubscriptionOptions, settlement: Settlement, stats: SubscriptionStats, clock: Clock
    ) -> None:
        self._settlement = settlement
        self._stats = stats
        self._conflates = options.conflate
        self._stale_after_s = options.stale_after_s
        self._clock = clock
        self._newest: dict[str, Accepted] = {}

    def accept(self, item: Accepted) -> None:
        """Take note of a message that was taken from the broker."""
        if not self._conflates:
            return
        delivery = item.delivery
        known = self._newest.get(delivery.subject)
        if known is None or (delivery.sequence or 0) >= (known.delivery.sequence or 0):
            self._newest[delivery.subject] = item

    async def drops(self, item: Accepted) -> bool:
        """Settle the message, which is about to begin, unhandled if it does not matter any more; whether it was."""
        reason = self._reason(item)
        if reason is None:
            return False
        if reason is Dropped.CONFLATED:
            self._stats.conflated += 1
        else:
            self._stats.stale += 1
        await self._settlement.drop(item, reason)
        return True

    def _reason(self, item: Accepted) -> Dropped | None:
        """Why the message need not be handled, None if it must."""
        delivery = item.delivery
        if self._conflates and self._newest.get(delivery.subject) is not item:
            return Dropped.CONFLATED
        if self._stale_after_s is not None and delivery.stored_at is not None:
            age_s = (self._clock.now() - delivery.stored_at).total_seconds()
            if age_s > self._stale_after_s:
                self._forget(item)
                return Dropped.STALE
        return None

    def ended(self, item: Accepted) -> None:
        """If the message is settled, nothing is kept of it."""
        if not self._settlement.holds(item):
            self._forget(item)

    def _forget(self, item: Accepted) -> None:
        if self._conflates and self._newest.get(item.delivery.subject) is item:
            del self._newest[item.delivery.subject]
