"""Getting messages out: the guarantee of a topic, and the repetition of what was not confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache

from polaris.clock import Clock
from polaris.domain import EventKind
from polaris.exceptions import (
    BusConnectionError,
    DeadlineExceededError,
    InvalidValueError,
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
from polaris.messaging._line import Line
from polaris.messaging._outage import WAIT_S_MAX, NotSent, OutageBuffer, TimeIsUp, Waiting, WaitingRoom
from polaris.messaging._subjects import matches
from polaris.messaging._weak_listening import listen_weakly
from polaris.messaging.brokers._lanes import LanedMessageBroker
from polaris.resilience import RetryConfig, RetryPolicy

ATTEMPT_S_MIN = 0.5
ATTEMPT_S_MAX = 5.0
"""An answer that has not come by then will not come: a server that is alive answers, and one that is not is noticed."""
ATTEMPT_S_LEAST = 0.001
VERDICT_S = 0.005
"""So long before the deadline the last attempt ends: the broker can tell what it leaves behind, a deadline cannot."""
REFUSALS_MAX = 4
_AT_LEAST_ONCE = DeliveryClass.AT_LEAST_ONCE
UNTIL_CONFIRMED = RetryConfig(
    max_attempts=1_000_000,
    base_delay=0.05,
    max_delay=1.0,
    jitter="equal",
    retryable=(UnconfirmedPublishError, BusConnectionError, PublishError),
)
_ROUTES_MAX = 65_536


class Publisher:
    """Sends encoded messages. Safe to call from many tasks at once.

    What was not confirmed is sent again with the same message id, so that the stream keeps it once; what could not be
    sent waits until the line is back, see `Line`; a refusal is repeated at most four times, unless it says that the
    stream, which the bus knows, has no leader now. What waits is bounded, see `OutageBuffer`.
    """

    def __init__(
        self, broker: MessageBroker, streams: Sequence[StreamSpec], *, outage: OutageBuffer, clock: Clock
    ) -> None:
        self._broker = broker
        self._patterns = [pattern for stream in streams for pattern in stream.subjects]
        self._clock = clock
        self._monotonic = clock.monotonic
        # What the broker takes at the most, as it said last; 0 has it asked. It may change with the server.
        self._payload_bytes_max = 0
        self._routes: dict[str, tuple[DeliveryClass, Line]] = {}
        self.room = WaitingRoom(outage, clock)
        """What waits because the broker is away, or takes nothing more."""
        self.retried = 0
        lanes = broker.lanes.values() if isinstance(broker, LanedMessageBroker) else [broker]
        self._lines = {id(lane): Line(lane, clock) for lane in lanes}
        self.prompt = any(line.offer is not None for line in self._lines.values())
        """Some line may take what needs no confirmation at once."""
        listen_weakly(broker, self._state_changed)

    def guarantee(self, topic: str) -> DeliveryClass:
        """At least once for topics that a stream stores, at most once for all others."""
        return self._route(topic)[0]

    def line_of(self, topic: str) -> Line:
        """The way that messages on this topic go."""
        return self._route(topic)[1]

    @property
    def away(self) -> bool:
        """Some line is away."""
        return any(line.away for line in self._lines.values())

    def close(self) -> None:
        """The bus ends: nobody waits any more, until the broker is connected once more."""
        self.room.close()

    def send_at_once(self, message: OutgoingMessage, timeout_s: float) -> Receipt | None:
        """Publish at most once if nothing has to be waited for; None says that nothing was sent, and `send` must.

        Raises what no waiting changes; nothing was sent then either.
        """
        line = (self._routes.get(message.subject) or self._route(message.subject))[1]
        offer, size = line.offer, len(message.payload)
        if offer is None or line.away or not timeout_s >= 0 or "publish" in line.replaced:
            return None
        if size > self._payload_bytes_max and size > self._limit():
            return None
        try:
            receipt = offer(message)
        except (BusConnectionError, PublishError):
            # `send` finds it again, and deals with it.
            return None
        if receipt is not None:
            line.heard_s = self._monotonic()
        return receipt

    async def send(
        self,
        message: OutgoingMessage,
        delivery: DeliveryClass,
        timeout_s: float,
        *,
        kind: EventKind,
        place: Waiting | None = None,
        waits: bool = True,
    ) -> Receipt:
        """Publish within `timeout_s`, repeating where that is safe.

        `place` is where it waits already. Without `waits`, what cannot be sent raises `NotSent` at once.

        Raises `UnconfirmedPublishError` when any attempt may have been stored, otherwise the last attempt's error, or
        that there was no room to wait.
        """
        if not timeout_s >= 0:
            raise InvalidValueError("timeout_s", "seconds, at least 0", timeout_s)
        began_s = self._monotonic()
        if len(message.payload) > self._payload_bytes_max:
            limit = self._limit()
            if len(message.payload) > limit:
                raise PayloadTooLargeError(message.subject, payload_bytes=len(message.payload), payload_bytes_max=limit)
        guarantee, line = self._routes.get(message.subject) or self._route(message.subject)
        attempt_s = _attempt_s(timeout_s)
        if place is not None:
            place.begin(began_s + min(timeout_s, WAIT_S_MAX))
        failure: MessageBusError
        if line.away:
            state = self._broker.state.value
            failure = BusConnectionError(f"the broker is {state}; nothing was sent", {"state": state})
        else:
            try:
                receipt = await line.broker.publish(message, delivery=delivery, timeout_s=attempt_s)
            except (UnconfirmedPublishError, BusConnectionError, PublishError) as error:
                if error.retryable is not True:
                    raise
                self._told(line, error)
                failure = error
            else:
                line.heard_s = self._monotonic()
                if line.away:
                    line.back()
                return receipt
        if not waits and isinstance(failure, BusConnectionError):
            raise NotSent(failure.message, failure.context)
        repetition = _Repetition(failure, patient=delivery is _AT_LEAST_ONCE and guarantee is delivery)
        deadline_s = began_s + min(timeout_s, WAIT_S_MAX)
        return await self._repeat(repetition, line, message, delivery, deadline_s, attempt_s, kind, place)

    async def _repeat(
        self,
        repetition: _Repetition,
        line: Line,
        message: OutgoingMessage,
        delivery: DeliveryClass,
        deadline_s: float,
        attempt_s: float,
        kind: EventKind,
        place: Waiting | None,
    ) -> Receipt:
        async def publish() -> Receipt:
            self.retried += 1
            left_s = deadline_s - self._clock.monotonic() - VERDICT_S
            timeout_s = max(ATTEMPT_S_LEAST, min(attempt_s, left_s))
            try:
                receipt = await line.broker.publish(message, delivery=delivery, timeout_s=timeout_s)
            except MessageBusError as error:
                self._told(line, error)
                raise
            line.heard()
            return receipt

        waiting = place
        try:
            if waiting is None:
                waiting = self.room.enter(line, kind, len(message.payload), forced=repetition.in_doubt)
                waiting.begin(deadline_s)
            retry = RetryPolicy(UNTIL_CONFIRMED, clock=waiting)
            # Brokers end their attempts in time; one that does not is not waited for.
            async with asyncio.timeout(max(0.0, deadline_s - self._clock.monotonic())):
                return await retry.execute(lambda: repetition.attempt(publish), "publish")
        except (RetryExhaustedError, DeadlineExceededError, TimeIsUp, TimeoutError):
            raise repetition.verdict() from None
        except BusConnectionError as gone:
            raise repetition.verdict(gone) from None
        except Exception as error:  # boundary: whatever a broker raises, an earlier attempt may have been stored
            if repetition.in_doubt:
                raise repetition.verdict() from error
            raise
        finally:
            if waiting is not None:
                waiting.leave()

    def _limit(self) -> int:
        """Ask anew what the broker takes at the most."""
        limit = self._payload_bytes_max = self._broker.capabilities.payload_bytes_max
        return limit

    def _told(self, line: Line, error: MessageBusError) -> None:
        """What an attempt that failed says of the line."""
        if isinstance(error, BusConnectionError):
            line.lost()
        elif isinstance(error, PublishError):
            line.heard()

    def _route(self, topic: str) -> tuple[DeliveryClass, Line]:
        known = self._routes.get(topic)
        if known is None:
            stored = any(matches(pattern, topic) for pattern in self._patterns)
            lane = self._broker.lane_of(topic) if isinstance(self._broker, LanedMessageBroker) else self._broker
            known = (_AT_LEAST_ONCE if stored else DeliveryClass.AT_MOST_ONCE), self._lines[id(lane)]
            if len(self._routes) >= _ROUTES_MAX:
                self._routes.clear()
            self._routes[topic] = known
        return known

    def _state_changed(self, state: ConnectionState) -> None:
        self._payload_bytes_max = 0
        if state is ConnectionState.CONNECTED:
            self.room.closed = False


class _Repetition:
    """One message that is sent again and again: what became of it so far.

    `first` is why the first attempt failed, which was made before the policy was asked; it ends there once more.
    `patient`: the bus knows the stream that stores it, so that nobody answering means that it has no leader now.
    """

    def __init__(self, first: MessageBusError, *, patient: bool) -> None:
        self._patient = patient
        self._noted: MessageBusError | None = first
        self._doubt: UnconfirmedPublishError | None = None
        self._refusals = 0
        self._in_flight = False
        self._judge(first)

    @property
    def in_doubt(self) -> bool:
        """Whether an attempt may have been stored."""
        return self._doubt is not None or self._in_flight

    async def attempt(self, publish: Callable[[], Awaitable[Receipt]]) -> Receipt:
        """Publish, keeping count."""
        if self._noted is not None:
            noted, self._noted = self._noted, None
            raise noted
        self._in_flight = True
        try:
            receipt = await publish()
        except (UnconfirmedPublishError, BusConnectionError, PublishError) as error:
            self._in_flight = False
            self._judge(error)
            if self._refusals >= REFUSALS_MAX or error.retryable is not True:
                raise RetryExhaustedError(
                    "publish", attempts=max(1, self._refusals), reason="refused", cause=error
                ) from error
            raise
        except Exception:  # boundary: what a broker may raise besides; a cancellation leaves it in flight
            self._in_flight = False
            raise
        return receipt

    def _judge(self, error: MessageBusError) -> None:
        self._last = error
        if isinstance(error, UnconfirmedPublishError):
            self._doubt = error
        elif isinstance(error, PublishError) and not (self._patient and error.context.get("reason") == NOBODY_STORES):
            self._refusals += 1

    def verdict(self, end: MessageBusError | None = None) -> MessageBusError:
        """What to raise: an earlier attempt may have been stored whatever became of the later ones.

        `end` is why there will be no further attempt, if it was not for the last one's outcome.
        """
        if self._doubt is not None:
            return self._doubt
        if self._in_flight:
            return UnconfirmedPublishError("the time was up before the broker answered")
        if end is not None:
            return end
        return self._last


@lru_cache(maxsize=256)
def _attempt_s(timeout_s: float) -> float:
    """How long one attempt may take of a publish that may take so long."""
    return min(timeout_s, ATTEMPT_S_MAX, max(ATTEMPT_S_MIN, timeout_s / 3))
