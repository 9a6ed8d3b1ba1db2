"""Whether durable subscriptions take what waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.exceptions import PolarisException
from polaris.resilience import Timeout

if TYPE_CHECKING:
    from polaris.messaging import Subscription
    from polaris.observability import Instruments

ASK_TIMEOUT_S = 5.0
STILL_S_MAX = 10.0
"""Messages wait for so long and none is taken: the consumer is deaf or stuck."""


class Finding(NamedTuple):
    """What a look at one subscription found; `problem` is empty when it is well."""

    problem: str
    waiting: int = 0
    unacknowledged: int = 0


class ConsumerWatch:
    """Asks the server what waits for a subscription, and tells progress from standstill. One for each subscription.

    `busy_is_progress` is for handlers that may rightly take long: then what is being handled is never a fault, only
    that what waits is not taken.
    """

    def __init__(
        self,
        subscription: Subscription,
        instruments: Instruments,
        *,
        busy_is_progress: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.subscription = subscription
        self._busy_is_progress = busy_is_progress
        self._clock = clock
        self._limit = Timeout(ASK_TIMEOUT_S)
        self._pending = instruments.consumer_pending(subscription.name)
        self._unacknowledged = instruments.consumer_unacked(subscription.name)
        self._done = -1
        self._still_since: float | None = None

    async def look(self) -> Finding:
        """What is found now. Never raises but for cancellation."""
        subscription = self.subscription
        try:
            info = await self._limit.execute(subscription.info, "consumer info")
        except PolarisException as error:
            return Finding(f"its consumer does not answer: {error.message}")
        if info is None or not subscription.active:
            return Finding("takes no messages")
        self._pending.set(info.pending)
        self._unacknowledged.set(info.ack_pending)
        waiting = info.pending if self._busy_is_progress else info.pending + info.ack_pending
        still = self._still_s(waiting) >= STILL_S_MAX
        # Without numbers that change: every wording is news.
        problem = f"messages wait and none was handled for over {STILL_S_MAX:.0f} s" if still else ""
        return Finding(problem, info.pending, info.ack_pending)

    def _still_s(self, waiting: int) -> float:
        """For how long something has waited while nothing moved."""
        stats, now_s = self.subscription.stats, self._clock.monotonic()
        # A redelivery that fails again is no progress of the ingest, but shows that a lane of actions is not deaf.
        done = stats.received if self._busy_is_progress else stats.handled
        busy = self._busy_is_progress and self.subscription.in_flight > 0
        if not waiting or busy or done != self._done or self._still_since is None:
            self._still_since = now_s
        self._done = done
        return now_s - self._still_since
