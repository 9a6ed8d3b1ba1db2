"""Getting messages out: the guarantee of a topic, and the repetition of what was not confirmed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from polaris.clock import Clock
from polaris.domain import EventKind
from polaris.exceptions import (
    BusConnectionError,
    DeadlineExceededError,
    MessageBusError,
    PayloadTooLargeError,
    PublishError,
    RetryExhaustedError,
    UnconfirmedPublishError,
)
from polaris.messaging._broker import (
    NOBODY_STORES,
    ConnectionState,
    DeliveryClass,
    MessageBroker,
    OutgoingMessage,
    Receipt,
    StreamSpec,
)
from polaris.messaging._outage import OutageBuffer, WaitingRoom
from polaris.messaging._subjects import matches
from polaris.resilience import RetryConfig, RetryPolicy

ATTEMPT_S_MIN = 0.5
ATTEMPT_S_MAX = 5.0
"""An answer that has not come by then will not come: a server that is alive answers, and one that is not is noticed."""
ATTEMPT_S_LEAST = 0.001
VERDICT_S = 0.005
"""So long before the deadline the last attempt ends: the broker can tell what it leaves behind, a deadline cannot."""
REFUSALS_MAX = 4
UNTIL_CONFIRMED = RetryConfig(max_attempts=1_000_000, base_delay=0.05, max_delay=1.0, jitter="equal")
_GUARANTEES_MAX = 65_536


class Publisher:
    """Sends encoded messages. Safe to call from many tasks at once.

    What was not confirmed is sent again with the same message id, so that the stream keeps it once; what could not be
    sent is tried again until the time is up, and at once when the broker is back; a refusal at most four times, unless
    it says that the stream, which the bus knows, has no leader now. What waits is bounded, see `OutageBuffer`.
    """

    def __init__(
        self, broker: MessageBroker, streams: Sequence[StreamSpec], *, outage: OutageBuffer, clock: Clock
    ) -> None:
        self._broker = broker
        self._patterns = [pattern for stream in streams for pattern in stream.subjects]
        self._clock = clock
        self._guarantees: dict[str, DeliveryClass] = {}
        self.waiting = WaitingRoom(outage, clock)
        """What waits because the broker is away, or takes nothing more."""
        self.away = False
        """The last attempt of anybody could not be sent."""
        self.retried = 0
        broker.on_state(self._state_changed)

    def guarantee(self, topic: str) -> DeliveryClass:
        """At least once for topics that a stream stores, at most once for all others."""
        known = self._guarantees.get(topic)
        if known is None:
            stored = any(matches(pattern, topic) for pattern in self._patterns)
            known = DeliveryClass.AT_LEAST_ONCE if stored else DeliveryClass.AT_MOST_ONCE
            if len(self._guarantees) >= _GUARANTEES_MAX:
                self._guarantees.clear()
            self._guarantees[topic] = known
        return known

    async def send(
        self,
        message: OutgoingMessage,
        delivery: DeliveryClass,
        timeout_s: float,
        *,
        kind: EventKind,
        since_s: float | None = None,
    ) -> Receipt:
        """Publish within `timeout_s`, repeating where that is safe. `since_s` says since when it waits already.

        Raises `UnconfirmedPublishError` when any attempt may have been stored, otherwise the last attempt's error, or
        that there was no room to wait.
        """
        deadline_s = self._clock.monotonic() + timeout_s
        limit = self._broker.capabilities.payload_bytes_max
        if len(message.payload) > limit:
            raise PayloadTooLargeError(message.subject, payload_bytes=len(message.payload), payload_bytes_max=limit)
        attempt_s = min(timeout_s, ATTEMPT_S_MAX, max(ATTEMPT_S_MIN, timeout_s / 3))
        try:
            receipt = await self._broker.publish(message, delivery=delivery, timeout_s=attempt_s)
        except (UnconfirmedPublishError, BusConnectionError, PublishError) as error:
            if error.retryable is not True:
                raise
            self.away = isinstance(error, BusConnectionError)
            known = delivery is DeliveryClass.AT_LEAST_ONCE and self.guarantee(message.subject) is delivery
            repetition = _Repetition(error, patient=known)
        else:
            self.away = False
            return receipt
        return await self._repeat(repetition, message, delivery, deadline_s, attempt_s, kind, since_s)

    async def _repeat(
        self,
        repetition: _Repetition,
        message: OutgoingMessage,
        delivery: DeliveryClass,
        deadline_s: float,
        attempt_s: float,
        kind: EventKind,
        since_s: float | None,
    ) -> Receipt:
        async def publish() -> Receipt:
            self.retried += 1
            left_s = deadline_s - self._clock.monotonic() - VERDICT_S
            timeout_s = max(ATTEMPT_S_LEAST, min(attempt_s, left_s))
            receipt = await self._broker.publish(message, delivery=delivery, timeout_s=timeout_s)
            self.away = False
            return receipt

        try:
            waiting = self.waiting.enter(kind, len(message.payload), since_s=since_s)
        except BusConnectionError as full:
            raise repetition.verdict(full) from None
        try:
            expires_s = waiting.since_s + self.waiting.limits.age_max_s
            left = timedelta(seconds=max(0.0, min(deadline_s, expires_s) - self._clock.monotonic()))
            retry = RetryPolicy(UNTIL_CONFIRMED, clock=waiting)
            return await retry.execute(lambda: repetition.attempt(publish), "publish", deadline=left)
        except (RetryExhaustedError, DeadlineExceededError):
            raise repetition.verdict(waiting.expired() if expires_s <= deadline_s else None) from None
        except BusConnectionError as pushed_out:
            raise repetition.verdict(pushed_out) from None
        finally:
            waiting.leave()

    def _state_changed(self, state: ConnectionState) -> None:
        if state is ConnectionState.CONNECTED:
            self.waiting.wake()


class _Repetition:
    """One message that is sent again and again: what became of it so far.

    `patient`: the bus knows the stream that stores it, so that nobody answering means that it has no leader now.
    """

    def __init__(self, first: MessageBusError, *, patient: bool) -> None:
        self._first: MessageBusError | None = first
        self._last = first
        self._doubt: UnconfirmedPublishError | None = None
        self._refusals = 0
        self._in_flight = False
        self._patient = patient

    async def attempt(self, publish: Callable[[], Awaitable[Receipt]]) -> Receipt:
        """Publish, keeping count; the first attempt was made before the policy was asked, and ends here once more."""
        try:
            if self._first is not None:
                first, self._first = self._first, None
                raise first
            self._in_flight = True
            receipt = await publish()
        except (UnconfirmedPublishError, BusConnectionError, PublishError) as error:
            self._last, self._in_flight = error, False
            if isinstance(error, UnconfirmedPublishError):
                self._doubt = error
            elif isinstance(error, PublishError) and not (
                self._patient and error.context.get("reason") == NOBODY_STORES
            ):
                self._refusals += 1
                if self._refusals >= REFUSALS_MAX or error.retryable is not True:
                    raise RetryExhaustedError(
                        "publish", attempts=self._refusals, reason="refused", cause=error
                    ) from error
            raise
        return receipt

    def verdict(self, end: MessageBusError | None = None) -> MessageBusError:
        """What to raise: an earlier attempt may have been stored whatever became of the later ones.

        `end` is why there will be no further attempt, if it was not for the last one's outcome.
        """
        if self._doubt is not None:
            return self._doubt
        if self._in_flight:
            return UnconfirmedPublishError("the time was up before the broker answered")
        return end if end is not None and isinstance(self._last, BusConnectionError) else self._last
