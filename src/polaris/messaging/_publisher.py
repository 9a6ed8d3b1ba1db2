"""Getting messages out: the guarantee of a topic, and the repetition of what was not confirmed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from polaris.clock import Clock
from polaris.exceptions import (
    BusConnectionError,
    DeadlineExceededError,
    MessageBusError,
    PayloadTooLargeError,
    PublishError,
    RetryExhaustedError,
    UnconfirmedPublishError,
)
from polaris.messaging._broker import DeliveryClass, MessageBroker, OutgoingMessage, Receipt, StreamSpec
from polaris.messaging._subjects import matches
from polaris.resilience import RetryConfig, RetryPolicy

ATTEMPT_S_MIN = 0.5
ATTEMPT_S_LEAST = 0.001
VERDICT_S = 0.005
"""So long before the deadline the last attempt ends: the broker can tell what it leaves behind, a deadline cannot."""
REFUSALS_MAX = 4
UNTIL_CONFIRMED = RetryConfig(max_attempts=1_000_000, base_delay=0.05, max_delay=1.0, jitter="equal")
_GUARANTEES_MAX = 65_536


class Publisher:
    """Sends encoded messages. Safe to call from many tasks at once; nothing is queued here.

    What was not confirmed is sent again with the same message id, so that the stream keeps it once; what could not be
    sent is tried again until the time is up; a refusal at most four times.
    """

    def __init__(self, broker: MessageBroker, streams: Sequence[StreamSpec], *, clock: Clock) -> None:
        self._broker = broker
        self._patterns = [pattern for stream in streams for pattern in stream.subjects]
        self._clock = clock
        self._guarantees: dict[str, DeliveryClass] = {}
        self._retry = RetryPolicy(UNTIL_CONFIRMED, clock=clock)
        self.retried = 0

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

    async def send(self, message: OutgoingMessage, delivery: DeliveryClass, timeout_s: float) -> Receipt:
        """Publish within `timeout_s`, repeating where that is safe.

        Raises `UnconfirmedPublishError` when any attempt may have been stored, otherwise the last attempt's error.
        """
        deadline_s = self._clock.monotonic() + timeout_s
        limit = self._broker.capabilities.payload_bytes_max
        if len(message.payload) > limit:
            raise PayloadTooLargeError(message.subject, payload_bytes=len(message.payload), payload_bytes_max=limit)
        attempt_s = timeout_s / 3 if timeout_s >= 3 * ATTEMPT_S_MIN else min(ATTEMPT_S_MIN, timeout_s)
        try:
            return await self._broker.publish(message, delivery=delivery, timeout_s=attempt_s)
        except (UnconfirmedPublishError, BusConnectionError, PublishError) as error:
            if error.retryable is not True:
                raise
            return await self._repeat(message, delivery, deadline_s, attempt_s, error)

    async def _repeat(
        self,
        message: OutgoingMessage,
        delivery: DeliveryClass,
        deadline_s: float,
        attempt_s: float,
        error: MessageBusError,
    ) -> Receipt:
        repetition = _Repetition(error)

        async def publish() -> Receipt:
            self.retried += 1
            left_s = deadline_s - self._clock.monotonic() - VERDICT_S
            timeout_s = max(ATTEMPT_S_LEAST, min(attempt_s, left_s))
            return await self._broker.publish(message, delivery=delivery, timeout_s=timeout_s)

        left = timedelta(seconds=max(0.0, deadline_s - self._clock.monotonic()))
        try:
            return await self._retry.execute(lambda: repetition.attempt(publish), "publish", deadline=left)
        except (RetryExhaustedError, DeadlineExceededError):
            raise repetition.verdict() from None


class _Repetition:
    """One message that is sent again and again: what became of it so far."""

    def __init__(self, first: MessageBusError) -> None:
        self._first: MessageBusError | None = first
        self._last = first
        self._doubt: UnconfirmedPublishError | None = None
        self._refusals = 0
        self._in_flight = False

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
            elif isinstance(error, PublishError):
                self._refusals += 1
                if self._refusals >= REFUSALS_MAX or error.retryable is not True:
                    raise RetryExhaustedError(
                        "publish", attempts=self._refusals, reason="refused", cause=error
                    ) from error
            raise
        return receipt

    def verdict(self) -> MessageBusError:
        """What to raise: an earlier attempt may have been stored whatever became of the later ones."""
        if self._doubt is None and self._in_flight:
            return UnconfirmedPublishError("the time was up before the broker answered")
        return self._doubt if self._doubt is not None else self._last
