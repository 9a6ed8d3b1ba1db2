"""Getting messages out: the guarantee of a topic, and the repetition of what was not confirmed."""

from __future__ import annotations

import random
from collections.abc import Sequence

from polaris.clock import Clock
from polaris.exceptions import (
    BusConnectionError,
    MessageBusError,
    PayloadTooLargeError,
    PublishError,
    UnconfirmedPublishError,
)
from polaris.messaging._broker import DeliveryClass, MessageBroker, OutgoingMessage, Receipt, StreamSpec
from polaris.messaging._subjects import matches

ATTEMPT_S_MIN = 0.5
REFUSALS_MAX = 4
RETRY_DELAY_S = 0.05
RETRY_DELAY_S_MAX = 1.0
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
        unconfirmed = error if isinstance(error, UnconfirmedPublishError) else None
        refusals = int(isinstance(error, PublishError))
        delay_s = RETRY_DELAY_S
        while refusals < REFUSALS_MAX:
            wait_s = delay_s * random.uniform(0.5, 1.0)  # noqa: S311 # spreads retries, keeps no secret
            if self._clock.monotonic() + wait_s >= deadline_s:
                break
            await self._clock.sleep(wait_s)
            delay_s = min(2 * delay_s, RETRY_DELAY_S_MAX)
            self.retried += 1
            left_s = deadline_s - self._clock.monotonic()
            try:
                return await self._broker.publish(message, delivery=delivery, timeout_s=min(attempt_s, left_s))
            except (UnconfirmedPublishError, BusConnectionError, PublishError) as again:
                error = again
                if isinstance(again, UnconfirmedPublishError):
                    unconfirmed = again
                elif isinstance(again, PublishError):
                    refusals += 1
                    if again.retryable is not True:
                        break
        # An earlier attempt may have been stored whatever became of the later ones.
        raise unconfirmed if unconfirmed is not None else error
