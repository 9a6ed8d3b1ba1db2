"""A bus for tests that tells what it did: wait for what was published, handled, failed or put aside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar, overload

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import PolarisEvent
from polaris.exceptions import MessageBusError, MessageDecodeError
from polaris.messaging import (
    DeadLetter,
    DeadLetterReason,
    Delivery,
    DeliveryClass,
    EventCodec,
    InMemoryHub,
    InMemoryMessageBroker,
    MessageBroker,
    MessageContext,
    MessageDirection,
    MessageMiddleware,
    MiddlewareChain,
    NextHandler,
    OutgoingMessage,
    PolarisMessageBus,
    Receipt,
)
from polaris.messaging._chain import MiddlewareFunction
from polaris.messaging._subjects import DEAD_LETTER_PREFIX
from polaris.testing._happenings import Happening, HappeningKind, Record, Sought
from polaris.testing._virtual_loop import VirtualTimeLoop

E = TypeVar("E", bound=PolarisEvent)

TIMEOUT_S = 5.0
LOOK_AFTER_S, LOOK_EVERY_S = 0.01, 0.2
QUIET_LOOKS = 3
Middlewares = MiddlewareChain | Iterable[MessageMiddleware | MiddlewareFunction]


class BusHarness:
    """A started bus on a broker in memory, and the record of what came of it.

        async with BusHarness() as harness:
            await harness.bus.subscribe("polaris.telemetry.*", controller.on_telemetry)
            await harness.bus.publish_telemetry(too_hot)
            asked = await harness.published(AdaptationEvent, where=lambda event: event.action.target_system == "web")
            await harness.settled()

    What is waited for may have happened before; `forget` begins a new record. A wait that is in vain raises
    AssertionError, with all that did happen. In a `VirtualTimeLoop` (`run_virtual`) all waits take no real time, and
    redeliveries come at once; elsewhere time is real.

    The record sees what passes the innermost place of the chain: events as they leave after all `middlewares`, and
    calls of handlers that no middleware has kept back. An event of a batch counts alone.

    Args:
        middlewares: as the second argument of `PolarisMessageBus`.
        around: wraps the broker of every bus, to inject faults:
            `around=lambda broker: FaultyBroker(broker, plan, clock=running_clock())`.
        options: further arguments of `PolarisMessageBus`.
    """

    def __init__(
        self,
        middlewares: Middlewares = (),
        *,
        around: Callable[[MessageBroker], MessageBroker] | None = None,
        **options: Any,
    ) -> None:
        self._middlewares = middlewares
        self._around = around
        self._options = options
        self._record = Record()
        self._waiting: set[asyncio.Future[None]] = set()
        self._buses: list[PolarisMessageBus] = []
        self._bus: PolarisMessageBus | None = None

    # Life.

    async def start(self) -> None:
        """Start the bus. Once."""
        loop = asyncio.get_running_loop()
        self.clock: Clock = loop.clock if isinstance(loop, VirtualTimeLoop) else SYSTEM_CLOCK
        self.hub = InMemoryHub(clock=self.clock)
        self._began_s = self.clock.monotonic()
        self._codec = EventCodec()
        self._observer = InMemoryMessageBroker(self.hub)
        await self._observer.connect()
        await self._observer.subscribe(DEAD_LETTER_PREFIX + ">", self._on_dead_letter)
        self._bus = await self.new_bus(**self._options)

    async def stop(self) -> None:
        """Stop all buses. Idempotent."""
        buses, self._buses = self._buses, []
        for bus in reversed(buses):
            await bus.stop()
        if self._bus is not None:
            await self._observer.disconnect()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    @property
    def bus(self) -> PolarisMessageBus:
        """The bus under test."""
        if self._bus is None:
            raise RuntimeError("the harness is not started")
        return self._bus

    async def new_bus(self, **options: Any) -> PolarisMessageBus:
        """One more bus of the same server, as another process would have it: started, recorded, stopped at the end."""
        broker: MessageBroker = InMemoryMessageBroker(self.hub)
        if self._around is not None:
            broker = self._around(broker)
        given = self._middlewares.middlewares if isinstance(self._middlewares, MiddlewareChain) else self._middlewares
        bus = PolarisMessageBus(broker, [*given, self._watch], **{"clock": self.clock, **options})
        await bus.start()
        self._buses.append(bus)
        return bus

    async def publish_bytes(
        self,
        topic: str,
        payload: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        delivery: DeliveryClass = DeliveryClass.AT_LEAST_ONCE,
    ) -> Receipt:
        """Publish what a stranger might: bytes that no bus has encoded. They are not in the record."""
        return await self._observer.publish(OutgoingMessage(topic, payload, None, headers), delivery=delivery)

    # What happened so far.

    @property
    def happenings(self) -> Sequence[Happening]:
        """The record, oldest first."""
        return tuple(self._record)

    def events(self, kind: HappeningKind, event_type: type[E], *, topic: str | None = None) -> list[E]:
        """All events of a type and kind so far: `harness.events(HappeningKind.PUBLISHED, AdaptationEvent)`."""
        found = self._record.find(Sought(kind=kind, event_type=event_type, topic=topic))
        return [happening.event for happening in found if isinstance(happening.event, event_type)]

    def forget(self) -> None:
        """Begin a new record."""
        self._record.clear()

    # Waiting for something.

    @overload
    async def published(
        self,
        *,
        topic: str | None = ...,
        where: Callable[[PolarisEvent], bool] | None = ...,
        nth: int = ...,
        timeout_s: float = ...,
    ) -> PolarisEvent: ...
    @overload
    async def published(
        self,
        event_type: type[E],
        *,
        topic: str | None = ...,
        where: Callable[[E], bool] | None = ...,
        nth: int = ...,
        timeout_s: float = ...,
    ) -> E: ...
    async def published(
        self,
        event_type: type[Any] = PolarisEvent,
        *,
        topic: str | None = None,
        where: Callable[[Any], bool] | None = None,
        nth: int = 1,
        timeout_s: float = TIMEOUT_S,
    ) -> Any:
        """The event of that type, on that topic or pattern, that satisfies `where`: the `nth` one published."""
        sought = Sought(kind=HappeningKind.PUBLISHED, event_type=event_type, topic=topic, where=where)
        return (await self._wait_for(sought, nth, timeout_s)).event

    @overload
    async def handled(
        self,
        *,
        topic: str | None = ...,
        subscription: str | None = ...,
        where: Callable[[PolarisEvent], bool] | None = ...,
        nth: int = ...,
        timeout_s: float = ...,
    ) -> PolarisEvent: ...
    @overload
    async def handled(
        self,
        event_type: type[E],
        *,
        topic: str | None = ...,
        subscription: str | None = ...,
        where: Callable[[E], bool] | None = ...,
        nth: int = ...,
        timeout_s: float = ...,
    ) -> E: ...
    async def handled(
        self,
        event_type: type[Any] = PolarisEvent,
        *,
        topic: str | None = None,
        subscription: str | None = None,
        where: Callable[[Any], bool] | None = None,
        nth: int = 1,
        timeout_s: float = TIMEOUT_S,
    ) -> Any:
        """The `nth` such event that a handler (of the subscription of that name) has returned from."""
        sought = Sought(
            kind=HappeningKind.HANDLED, event_type=event_type, topic=topic, subscription=subscription, where=where
        )
        return (await self._wait_for(sought, nth, timeout_s)).event

    async def failed(
        self,
        event_type: type[E] | None = None,
        *,
        topic: str | None = None,
        subscription: str | None = None,
        where: Callable[[E], bool] | None = None,
        nth: int = 1,
        timeout_s: float = TIMEOUT_S,
    ) -> BaseException:
        """What a handler raised at such an event, the `nth` time."""
        sought = Sought(
            kind=HappeningKind.FAILED, event_type=event_type, topic=topic, subscription=subscription, where=where
        )
        error = (await self._wait_for(sought, nth, timeout_s)).error
        assert error is not None
        return error

    async def dead_lettered(
        self,
        *,
        topic: str | None = None,
        subscription: str | None = None,
        reason: DeadLetterReason | None = None,
        where: Callable[[DeadLetter], bool] | None = None,
        nth: int = 1,
        timeout_s: float = TIMEOUT_S,
    ) -> DeadLetter:
        """The `nth` message of that topic, subscription and reason that was put aside."""

        def fits(letter: DeadLetter) -> bool:
            return reason in (None, letter.reason) and (where is None or where(letter))

        sought = Sought(kind=HappeningKind.DEAD_LETTERED, topic=topic, subscription=subscription, where=fits)
        letter = (await self._wait_for(sought, nth, timeout_s)).letter
        assert letter is not None
        return letter

    async def nothing_published(
        self,
        event_type: type[E] | None = None,
        *,
        topic: str | None = None,
        where: Callable[[E], bool] | None = None,
        within_s: float = 1.0,
    ) -> None:
        """Nothing such is in the record, and nothing comes into it for `within_s` more seconds."""
        sought = Sought(kind=HappeningKind.PUBLISHED, event_type=event_type, topic=topic, where=where)
        try:
            found = await self._wait_for(sought, 1, within_s)
        except _InVainError:
            return
        raise AssertionError(f"{sought}, where nothing was expected: {found}\n{self._record.story()}")

    async def settled(self, *, timeout_s: float = TIMEOUT_S) -> None:
        """Everything that was published and is subscribed to is handled or put aside, and acknowledged.

        So is what handlers published meanwhile, and what is to be delivered again: in real time give it the time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                quiet, pause_s = 0, LOOK_AFTER_S
                while quiet < QUIET_LOOKS:
                    open_ends = await self._open_ends()
                    quiet = 0 if open_ends else quiet + 1
                    await asyncio.sleep(pause_s if open_ends else 0)
                    pause_s = min(LOOK_EVERY_S, 1.2 * pause_s)
        except TimeoutError:
            left = "; ".join(await self._open_ends()) or "something comes again and again"
            raise AssertionError(f"not settled within {timeout_s:g} s: {left}\n{self._record.story()}") from None

    # The record.

    async def _watch(self, context: MessageContext, next_handler: NextHandler) -> Any:
        publishing = context.direction is MessageDirection.PUBLISH
        try:
            result = await next_handler(context)
        except Exception as error:  # boundary: written down, then raised again
            self._add(HappeningKind.NOT_PUBLISHED if publishing else HappeningKind.FAILED, context, error)
            raise
        self._add(HappeningKind.PUBLISHED if publishing else HappeningKind.HANDLED, context, None)
        return result

    def _add(self, kind: HappeningKind, context: MessageContext, error: BaseException | None) -> None:
        for event in context.events:
            self._happened(
                Happening(kind, self._now_s, context.topic, event, context.subscription, context.attempt, error)
            )

    async def _on_dead_letter(self, delivery: Delivery) -> None:
        try:
            letter = self._codec.decode(delivery.payload).event
        except MessageDecodeError:
            return  # bytes kept apart for an entry that follows
        if isinstance(letter, DeadLetter):
            self._happened(
                Happening(
                    HappeningKind.DEAD_LETTERED,
                    self._now_s,
                    letter.topic,
                    subscription=letter.subscription,
                    attempt=letter.attempts,
                    letter=letter,
                )
            )

    @property
    def _now_s(self) -> float:
        return self.clock.monotonic() - self._began_s

    def _happened(self, happening: Happening) -> None:
        self._record.add(happening)
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def _wait_for(self, sought: Sought, nth: int, timeout_s: float) -> Happening:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while len(found := self._record.find(sought)) < nth:
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiting.add(waiter)
            try:
                async with asyncio.timeout_at(deadline_s):
                    await waiter
            except TimeoutError:
                found = self._record.find(sought)
                if len(found) < nth:
                    raise _InVainError(self._record.disappointment(sought, len(found), nth, timeout_s)) from None
            finally:
                self._waiting.discard(waiter)
        return found[nth - 1]

    async def _open_ends(self) -> list[str]:
        """What is not settled, in words."""
        found = [] if self.hub.idle else ["core messages are on their way"]
        for bus in self._buses:
            for subscription in bus.subscriptions:
                in_flight = subscription.in_flight
                try:
                    info = await subscription.info()
                except MessageBusError as error:
                    found.append(f"{subscription.name} cannot tell: {error}")
                    continue
                pending = 0 if info is None else info.pending
                unacked = 0 if info is None else info.ack_pending
                if in_flight or pending or unacked:
                    found.append(
                        f"{subscription.name} has {in_flight} in hand, {pending} waiting, {unacked} not acknowledged"
                    )
        return found


class _InVainError(AssertionError):
    """What was waited for did not come."""
