"""Where a route's deliveries come from: pulled from a durable consumer, or pushed by a core subscription."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from polaris.clock import Clock
from polaris.exceptions import BusConnectionError, MessageBusError
from polaris.messaging._broker import (
    AckPolicy,
    BrokerSubscription,
    ConnectionState,
    ConsumerInfo,
    ConsumerSpec,
    Delivery,
    MessageBroker,
    PullConsumer,
)
from polaris.messaging._settlement import ObserveDrop, is_being_cancelled
from polaris.messaging._subscription import SubscriptionStats
from polaris.resilience import Backoff

if TYPE_CHECKING:
    from polaris.observability import StructuredLogger

FETCH_MAX = 256
FETCH_WAIT_S = 5.0
FETCH_UNSETTLED_WAIT_S = 0.5
"""How long a fetch waits that is not broken off, as what it brings would be lost."""
FETCH_RARE_WAIT_S = 30.0
FETCH_OVERDUE_S = 10.0
OBSERVE_EVERY_S = 5.0
OBSERVE_RARE_EVERY_S = 120.0
DEAF_CHECKS = 3
OVERFLOW = "overflow"
"""Why a message of a core subscription was dropped: too many waited for the handler."""
AWAY = Backoff(0.05, 5.0, jitter="equal")

ObserveConsumer = Callable[[ConsumerInfo], None]


class Sink(Protocol):
    """Takes deliveries, as many as it has room for."""

    @property
    def room(self) -> int: ...

    async def wait_for_room(self) -> None: ...

    def accept(self, delivery: Delivery) -> bool:
        """Take a delivery, for which there must be room; False if there may be none for another one now."""
        ...


class Source(Protocol):
    """Feeds a sink until it is halted."""

    async def start(self, sink: Sink) -> None:
        """Begin. Raises `SubscriptionError` or `BusConnectionError`; nothing is subscribed then."""
        ...

    async def halt(self) -> None:
        """Take nothing more; what was taken stays valid. Idempotent."""
        ...

    async def close(self) -> None:
        """Let go of the broker's side. Idempotent; never raises for a broker that is away."""
        ...

    async def info(self) -> ConsumerInfo | None: ...


class PulledSource:
    """Fetches from a durable consumer while there is room.

    When the broker is away it asks again as soon as that is back; when it cannot be had otherwise, with growing,
    jittered pauses of at most 5 s. A consumer that fails, hangs, or gives nothing although messages wait (known to
    happen after a server's restart) is attached anew.

    With `AckPolicy.NONE` what is delivered is gone from the broker, so the end waits for the fetch that runs. With
    `rare`, where there is nearly never anything to fetch, the broker is asked less often; what comes is here at once.
    """

    def __init__(
        self,
        broker: MessageBroker,
        spec: ConsumerSpec,
        *,
        clock: Clock,
        logger: StructuredLogger,
        stats: SubscriptionStats,
        observe: ObserveConsumer | None = None,
        rare: bool = False,
    ) -> None:
        self._broker = broker
        self._spec = spec
        self._clock = clock
        self._logger = logger
        self._stats = stats
        self._observe = observe
        self._consumer: PullConsumer | None = None
        self._resumptions = 0
        self._task: asyncio.Task[None] | None = None
        self._back = asyncio.Event()
        self._forget: Callable[[], None] | None = None
        self._observed_s = clock.monotonic()
        self._deaf_checks = 0
        self._taken_at_check = 0
        self._fetch_wait_s = FETCH_RARE_WAIT_S if rare else FETCH_WAIT_S
        if spec.ack is AckPolicy.NONE:
            self._fetch_wait_s = FETCH_UNSETTLED_WAIT_S
        self._observe_every_s = OBSERVE_RARE_EVERY_S if rare else OBSERVE_EVERY_S
        self._fetching = False
        self._halting = False
        self._at_close: ConsumerInfo | None = None

    async def start(self, sink: Sink) -> None:
        self._consumer = await self._broker.consumer(self._spec)
        self._forget = self._broker.on_state(self._state_changed)
        self._task = asyncio.create_task(self._pull(sink), name=f"polaris-pull {self._spec.durable}")

    async def halt(self) -> None:
        if self._forget is not None:
            self._forget()
        if self._task is None:
            return
        self._halting = True
        if self._fetching and self._spec.ack is AckPolicy.NONE:
            await asyncio.wait([self._task], timeout=2 * self._fetch_wait_s)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def close(self) -> None:
        try:
            # What is still being handled can only be settled by one who knows whether all that was handed out is here.
            if self._spec.ack is AckPolicy.ALL and self._consumer is not None:
                self._at_close = await self._consumer.info()
        except MessageBusError as error:
            self._logger.debug("the broker did not tell what is out", subscription=self._spec.durable, error=error)
        finally:
            await self._detach()

    async def info(self) -> ConsumerInfo | None:
        if self._consumer is None and self._at_close is not None:
            return self._at_close
        if self._consumer is None:
            raise BusConnectionError("the consumer is not attached now", {"durable": self._spec.durable})
        return await self._consumer.info()

    async def _pull(self, sink: Sink) -> None:
        failures = 0
        while not self._halting:
            await sink.wait_for_room()
            if self._halting:
                return
            self._back.clear()
            try:
                await self._fetch(sink)
                failures = 0
                continue
            except BusConnectionError as error:
                # Once an outage: the attempts after it fail as long as it lasts.
                self._report("the broker is away; the subscription waits", error, again=failures > 0)
            except asyncio.CancelledError as error:
                if is_being_cancelled():
                    raise
                self._report("fetching was cancelled by somebody else; the consumer is attached anew", error)
                await self._detach()
            except Exception as error:  # boundary: whatever the driver raises must not end the subscription
                self._report("fetching failed; the consumer is attached anew", error)
                await self._detach()
            failures += 1
            if await self._pause(AWAY.delay_s(failures)):
                failures = 0

    async def _pause(self, delay_s: float) -> bool:
        """Wait so long, or until the broker is back; whether that it was."""
        nap = asyncio.ensure_future(self._clock.sleep(delay_s))
        back = asyncio.ensure_future(self._back.wait())
        try:
            await asyncio.wait((nap, back), return_when=asyncio.FIRST_COMPLETED)
        finally:
            nap.cancel()
            back.cancel()
        return self._back.is_set()

    def _state_changed(self, state: ConnectionState) -> None:
        if state is ConnectionState.CONNECTED:
            self._back.set()

    async def _fetch(self, sink: Sink) -> None:
        consumer = self._consumer
        if consumer is None:
            consumer = self._consumer = await self._broker.consumer(self._spec)
            self._stats.reattached += 1
        self._fetching = True
        try:
            async with asyncio.timeout(self._fetch_wait_s + FETCH_OVERDUE_S):
                deliveries = await consumer.fetch(max(1, min(sink.room, FETCH_MAX)), wait_s=self._fetch_wait_s)
        finally:
            self._fetching = False
        resumptions = getattr(consumer, "resumptions", 0)
        self._stats.reattached += resumptions > self._resumptions
        self._resumptions = resumptions
        for delivery in deliveries:
            sink.accept(delivery)
        if self._clock.monotonic() - self._observed_s >= self._observe_every_s:
            await self._look(consumer)

    async def _look(self, consumer: PullConsumer) -> None:
        """Report what waits; attach anew when messages wait and none came for three looks in a row."""
        self._observed_s = self._clock.monotonic()
        info = await consumer.info()
        if self._observe is not None:
            self._observe(info)
        quiet = self._stats.received == self._taken_at_check
        self._taken_at_check = self._stats.received
        deaf = quiet and info.pending > 0 and info.ack_pending < self._spec.in_flight_max
        self._deaf_checks = self._deaf_checks + 1 if deaf else 0
        if self._deaf_checks >= DEAF_CHECKS:
            self._deaf_checks = 0
            self._logger.warning(
                "messages wait but none come; the consumer is attached anew",
                subscription=self._spec.durable,
                pending=info.pending,
            )
            await self._detach()

    async def _detach(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        try:
            await consumer.close()
        except Exception as error:  # boundary: what is given up may fail as it likes
            self._logger.debug("detaching the consumer failed", subscription=self._spec.durable, error=error)

    def _report(self, message: str, error: BaseException, *, again: bool = False) -> None:
        log = self._logger.debug if again else self._logger.warning
        log(message, subscription=self._spec.durable, error=error)


class _Intake:
    """Hands what is pushed to a sink: at once while there is room for it. Keeps account of what the broker drops."""

    __slots__ = ("_accept", "_observe_drop", "_room", "_sink", "_stats")

    def __init__(self, sink: Sink, stats: SubscriptionStats, observe_drop: ObserveDrop | None) -> None:
        self._sink = sink
        self._accept = sink.accept
        self._stats = stats
        self._observe_drop = observe_drop
        self._room = True

    def at_once(self, delivery: Delivery) -> bool:
        if not self._room and self._sink.room <= 0:
            return False
        self._room = self._accept(delivery)
        return True

    async def __call__(self, delivery: Delivery) -> None:
        if not self._room and self._sink.room <= 0:
            await self._sink.wait_for_room()
        self._room = self._accept(delivery)

    def dropped(self, delivery: Delivery) -> None:
        self._stats.lost += 1
        self._stats.overflowed += 1
        if self._observe_drop is not None:
            self._observe_drop(delivery, OVERFLOW)


class PushedSource:
    """A core subscription. A full sink holds the broker's callback up; the broker's own bound then applies.

    What the broker drops at that bound counts as lost, and `observe_drop` is told of it.
    """

    def __init__(
        self,
        broker: MessageBroker,
        pattern: str,
        group: str | None,
        *,
        logger: StructuredLogger,
        stats: SubscriptionStats,
        observe_drop: ObserveDrop | None = None,
    ) -> None:
        self._broker = broker
        self._pattern = pattern
        self._group = group
        self._logger = logger
        self._stats = stats
        self._observe_drop = observe_drop
        self._subscription: BrokerSubscription | None = None

    async def start(self, sink: Sink) -> None:
        intake = _Intake(sink, self._stats, self._observe_drop)
        self._subscription = await self._broker.subscribe(self._pattern, intake, group=self._group)

    async def halt(self) -> None:
        await self._end(drain=True)

    async def close(self) -> None:
        await self._end(drain=False)

    async def info(self) -> ConsumerInfo | None:
        return None

    async def _end(self, *, drain: bool) -> None:
        if self._subscription is None:
            return
        try:
            await (self._subscription.drain() if drain else self._subscription.unsubscribe())
        except MessageBusError as error:
            self._logger.debug("ending the subscription failed", pattern=self._pattern, error=error)
        self._subscription = None
