"""What a subscriber asks for, and what he holds while it lasts."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from polaris.exceptions import InvalidValueError, SubscriptionError
from polaris.messaging._broker import ConsumerInfo, DeliveryClass, Start
from polaris.messaging._handlers import BoundHandler
from polaris.messaging._redelivery import RedeliveryPolicy
from polaris.resilience import CircuitBreaker

OrderKey: TypeAlias = Literal["topic"] | Callable[[Any], Hashable]
"""What must stay in order: the messages of each topic, or the events for which the function gives the same key."""


IN_FLIGHT_MAX = 256


class SubscriptionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How deliveries are handled. Durations in seconds."""

    concurrency: int = 1
    """Handlers running at once. 1 keeps the order (a redelivered message is out of order at any rate)."""
    in_flight_max: int = IN_FLIGHT_MAX
    """Messages taken from the broker and not settled; at the bound nothing more is taken."""
    ack_wait_s: float = 30.0
    """Silence after which the broker delivers again. Running handlers are kept alive by heartbeats."""
    handler_timeout_s: float | None = 300.0
    """A handler is cancelled after this long, and the message comes again; None lets it run for ever."""
    batch_max: int = 500
    """Events in one call of a batch handler; the last message's own batch may exceed it."""
    batch_linger_s: float = 0.005
    """How long a batch handler's list waits for more events once it has one."""
    redelivery: RedeliveryPolicy = RedeliveryPolicy()
    ordered_by: OrderKey | None = None
    """Events of one key are handled in order, by `concurrency` handlers in all; None orders nothing."""
    conflate: bool = False
    """Of the messages of one topic that wait here, handle the newest only; the others count as conflated."""
    stale_after_s: float | None = None
    """Pass over messages that were stored longer ago; they count as stale. Not for a core subscription."""
    detect_gaps: bool = False
    """Count the telemetry events that were published and did not come, by their numbers."""
    breaker: CircuitBreaker | None = None
    """Guards the handler: while it is open, messages wait instead of failing, and soon no more are taken."""

    def __post_init__(self) -> None:
        for name in ("concurrency", "in_flight_max", "batch_max"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InvalidValueError(name, "an integer of at least 1", value)
        if not self.ack_wait_s > 0:
            raise InvalidValueError("ack_wait_s", "seconds, over 0", self.ack_wait_s)
        if self.handler_timeout_s is not None and not self.handler_timeout_s > 0:
            raise InvalidValueError("handler_timeout_s", "seconds, over 0, or None", self.handler_timeout_s)
        if self.stale_after_s is not None and not self.stale_after_s > 0:
            raise InvalidValueError("stale_after_s", "seconds, over 0, or None", self.stale_after_s)
        if self.ordered_by is not None and self.ordered_by != "topic" and not callable(self.ordered_by):
            raise InvalidValueError("ordered_by", '"topic" or a function of the event', self.ordered_by)
        if self.detect_gaps and (self.conflate or self.stale_after_s is not None):
            raise InvalidValueError("detect_gaps", "False for one who passes over messages himself", True)
        if not self.batch_linger_s >= 0:
            raise InvalidValueError("batch_linger_s", "seconds, at least 0", self.batch_linger_s)


def options_for(
    handler: BoundHandler, *, group: str | None, in_flight_max: int | None, **asked: Any
) -> SubscriptionOptions:
    """The options that were asked for, with the bound that fits the handler.

    Raises `InvalidValueError` for a wrong one, `SubscriptionError` for those that contradict each other.
    """
    if in_flight_max is None:
        in_flight_max = IN_FLIGHT_MAX
        if handler.takes_batch:
            in_flight_max = max(in_flight_max, 2 * asked["batch_max"])
    options = SubscriptionOptions(in_flight_max=in_flight_max, **asked)
    if options.ordered_by is not None and handler.takes_batch:
        raise SubscriptionError(f"{handler.name} takes batches, which are in order as they are")
    if options.detect_gaps and group is not None:
        raise SubscriptionError("the members of a group see a part of the events each: no gaps to tell")
    return options


def check_without_stream(options: SubscriptionOptions, start: Start | None) -> None:
    """Raises `SubscriptionError` when a core subscription is asked for what only a stream can tell or give."""
    if start is not None and not start.new:
        raise SubscriptionError("a core subscription begins now: nothing is stored that it could start at")
    if options.stale_after_s is not None:
        raise SubscriptionError("stale_after_s needs a stream: only what is stored has an age")


class SubscriptionStats(msgspec.Struct):
    """Counts since the subscription began; events unless it says messages."""

    received: int = 0
    """Messages taken from the broker, redeliveries included."""
    redelivered: int = 0
    """Messages among them that had been delivered before."""
    handled: int = 0
    failed: int = 0
    """Calls of the handler that raised; of a batch handler all events of the call."""
    skipped: int = 0
    """Not of the handler's types, or declined by its `can_handle`."""
    dead_lettered: int = 0
    retried: int = 0
    """Messages handed back to come again."""
    conflated: int = 0
    """Messages passed over because a newer one of their topic waited."""
    stale: int = 0
    """Messages passed over because they were too old."""
    missed: int = 0
    """With `detect_gaps`: events that were not there when a later one of their publisher came."""
    late: int = 0
    """Missed events that came after all; `missed - late` are missing now."""
    lost: int = 0
    """Messages of a core subscription, or with `AckPolicy.NONE`, that failed, could not be finished or found no room;
    nobody delivers them again."""
    overflowed: int = 0
    """Messages among them that found no room: the broker dropped them because too many waited for the handler."""
    unsettled: int = 0
    """Messages whose settlement could not be sent; they come again."""
    reattached: int = 0
    """Times the consumer was attached anew, because it had failed, gone deaf, or been forgotten by the server."""


class RunningRoute(Protocol):
    """What a subscription needs of its route."""

    @property
    def stats(self) -> SubscriptionStats: ...

    @property
    def in_flight(self) -> int: ...

    @property
    def active(self) -> bool: ...

    @property
    def paused(self) -> bool: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    async def info(self) -> ConsumerInfo | None: ...

    async def stop(self, *, finish_all: bool = False) -> None: ...


class Subscription:
    """A live subscription. It ends with `unsubscribe`, `drain` or the bus."""

    def __init__(self, pattern: str, name: str, delivery: DeliveryClass, route: RunningRoute) -> None:
        self.pattern = pattern
        self.name = name
        """The durable name; of a core subscription or one without a name, a name for logs."""
        self.delivery = delivery
        self._route = route

    @property
    def stats(self) -> SubscriptionStats:
        """Live counts; do not change them."""
        return self._route.stats

    @property
    def in_flight(self) -> int:
        """Messages taken from the broker and not settled yet."""
        return self._route.in_flight

    @property
    def active(self) -> bool:
        """Whether it still takes messages."""
        return self._route.active

    @property
    def paused(self) -> bool:
        """Whether it was paused and not resumed since."""
        return self._route.paused

    def pause(self) -> None:
        """Begin no further message until `resume`; handlers that run finish.

        What waits at the broker stays there, what was taken is kept, within `in_flight_max`. Of a core subscription,
        which nothing waits for, messages are dropped and counted when the broker's own bound is reached. A NATS server
        forgets a subscription without a name when nothing is fetched or settled for 300 s: it goes on where it was
        left, with a warning. Ending the subscription ends the pause.
        """
        self._route.pause()

    def resume(self) -> None:
        """Go on after a pause. Idempotent."""
        self._route.resume()

    async def info(self) -> ConsumerInfo | None:
        """What waits at the broker; None for a core subscription. Raises `BusConnectionError`."""
        return await self._route.info()

    async def unsubscribe(self) -> None:
        """Take nothing more; running handlers finish within the grace period, what has not begun is handed back.

        A durable position stays with the broker. Idempotent; may be called from the handler itself, which is then not
        waited for.
        """
        await self._route.stop()

    async def drain(self) -> None:
        """Take nothing more, handle everything taken within the grace period, then end. Idempotent."""
        await self._route.stop(finish_all=True)

    def __repr__(self) -> str:
        return f"Subscription({self.pattern!r}, name={self.name!r}, delivery={self.delivery.value!r})"
