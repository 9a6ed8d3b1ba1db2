"""A broker round another one, that loses, repeats, delays and refuses as planned, the same at every run of a seed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.exceptions import BusConnectionError, PublishError, RequestTimeoutError, UnconfirmedPublishError
from polaris.messaging._broker import (
    Capabilities,
    ConnectionState,
    ConsumerSpec,
    Delivery,
    DeliveryClass,
    MessageBroker,
    OnDelivery,
    OutgoingMessage,
    Receipt,
    StateListener,
    StoredMessage,
    StreamSpec,
)
from polaris.messaging._state_listeners import StateListeners
from polaris.testing._faults import Fault, FaultDice, FaultPlan, Injection
from polaris.testing._faulty_deliveries import FaultyCallback, FaultyConsumer, FaultySubscription

T = TypeVar("T")

_OF_STORING = (Fault.REFUSED, Fault.VANISHED, Fault.UNCONFIRMED)


class FaultyBroker:
    """A `MessageBroker` that suffers the faults of `plan` on the way to and from `inner`, which it owns.

        broker = FaultyBroker(InMemoryMessageBroker(hub), FaultPlan(ack_lost=0.2, partition=0.01), seed=7)
        async with PolarisMessageBus(broker) as bus:
            ...
        assert broker.counts[Fault.ACK_LOST] > 0

    Nothing happens that a network and a restarted server could not do: what raises leaves behind what the port says
    that such an error leaves behind. Only this client suffers; others of the same server are as they were. The same
    seed gives the same faults on the same occasions, so a run in virtual time repeats exactly.

    `capabilities` are those of `inner`, without `ordered` if the plan may reorder. A partition ends by itself after
    `partition_s`, with the states RECONNECTING and CONNECTED; `cut` and `mend` make and end one by hand.

    Args:
        inner: any broker, not connected yet.
        plan: what may happen; without one, only what is done by hand.
        seed: of all draws.
        clock: waits and stamps; in virtual time `running_clock()`.
    """

    def __init__(
        self,
        inner: MessageBroker,
        plan: FaultPlan | None = None,
        *,
        seed: int = 0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.inner = inner
        self.plan = plan if plan is not None else FaultPlan()
        self._clock = clock
        self._dice = FaultDice(self.plan, seed, clock)
        self._listeners = StateListeners()
        self._subscriptions: set[FaultySubscription] = set()
        self._cut: asyncio.Event = asyncio.Event()
        self._mending: asyncio.Task[None] | None = None
        inner.on_state(self._inner_changed)

    # What happened.

    @property
    def injections(self) -> Sequence[Injection]:
        """Every fault so far, oldest first (of very many the newest)."""
        return tuple(self._dice.injections)

    @property
    def counts(self) -> Counter[Fault]:
        """How often each fault happened."""
        return Counter(self._dice.counts)

    # By hand.

    @property
    def is_cut(self) -> bool:
        """Whether the broker is away now."""
        return self._cut.is_set()

    def cut(self) -> None:
        """Begin a partition that lasts until `mend`. Idempotent."""
        if not self.is_cut:
            self._dice.note(Fault.PARTITION, "by hand")
            self._begin()

    def mend(self) -> None:
        """End the partition. Idempotent."""
        if self._mending is not None:
            self._mending.cancel()
            self._mending = None
        if self.is_cut:
            self._cut.clear()
            if self.inner.state is ConnectionState.CONNECTED:
                self._listeners.tell(ConnectionState.CONNECTED)

    # The port.

    @property
    def capabilities(self) -> Capabilities:
        inner = self.inner.capabilities
        return msgspec.structs.replace(inner, ordered=inner.ordered and not self.plan.may(Fault.REORDER))

    @property
    def state(self) -> ConnectionState:
        inner = self.inner.state
        return ConnectionState.RECONNECTING if self.is_cut and inner is ConnectionState.CONNECTED else inner

    def on_state(self, listener: StateListener) -> Callable[[], None]:
        return self._listeners.add(listener)

    async def connect(self) -> None:
        self.require("connect")
        await self.inner.connect()

    async def disconnect(self) -> None:
        try:
            await self.inner.disconnect()
        finally:
            await self._end(drained=False)

    async def drain(self) -> None:
        try:
            await self.inner.drain()
        finally:
            await self._end(drained=True)

    async def publish(
        self,
        message: OutgoingMessage,
        *,
        delivery: DeliveryClass = DeliveryClass.AT_MOST_ONCE,
        timeout_s: float = 5.0,
    ) -> Receipt:
        self.require("publish")
        if delivery is DeliveryClass.AT_MOST_ONCE:
            return await self.inner.publish(message, delivery=delivery, timeout_s=timeout_s)
        fault = self._dice.first_of(_OF_STORING, message.subject)
        context = {"topic": message.subject, "message_id": message.message_id}
        if fault is Fault.REFUSED:
            raise PublishError(f"the stream refused the message for {message.subject!r}: a fault was injected", context)
        if fault is not Fault.VANISHED:
            receipt = await self.inner.publish(message, delivery=delivery, timeout_s=timeout_s)
            if fault is None and not self.is_cut:
                return receipt
        raise UnconfirmedPublishError(
            f"the message for {message.subject!r} is not confirmed: a fault was injected", context
        )

    async def subscribe(self, pattern: str, on_delivery: OnDelivery, *, group: str | None = None) -> FaultySubscription:
        self.require("subscribe")
        callback = FaultyCallback(on_delivery, self, self._dice, self._clock)
        inner = await self.inner.subscribe(pattern, callback, group=group)
        subscription = FaultySubscription(inner, callback, self._subscriptions.discard)
        self._subscriptions.add(subscription)
        return subscription

    async def consumer(self, spec: ConsumerSpec) -> FaultyConsumer:
        self.require("consumer")
        return FaultyConsumer(await self.inner.consumer(spec), self, self._dice)

    async def ensure_stream(self, spec: StreamSpec) -> None:
        self.require("ensure_stream")
        await self.inner.ensure_stream(spec)

    async def read_stored(
        self, stream: str, *, from_sequence: int = 1, count_max: int = 100
    ) -> Sequence[StoredMessage]:
        self.require("read_stored")
        return await self.inner.read_stored(stream, from_sequence=from_sequence, count_max=count_max)

    async def erase_stored(self, stream: str, sequence: int) -> bool:
        self.require("erase_stored")
        return await self.inner.erase_stored(stream, sequence)

    async def request(self, message: OutgoingMessage, *, timeout_s: float) -> Delivery:
        self.require("request")
        if self._dice.strikes(Fault.LOSS, message.subject):
            await self._clock.sleep(timeout_s)
            context = {"topic": message.subject, "timeout_s": timeout_s}
            raise RequestTimeoutError(f"no reply from {message.subject!r} within {timeout_s:g} s", context)
        return await self.until_cut(self.inner.request(message, timeout_s=timeout_s))

    # What hangs on the connection.

    def require(self, where: str) -> None:
        """One call: a partition may begin with it. Raises `BusConnectionError` while there is one."""
        connected = self.inner.state is ConnectionState.CONNECTED
        if not self.is_cut and (connected or where == "connect") and self._dice.strikes(Fault.PARTITION, where):
            self._begin()
            self._mending = asyncio.create_task(self._mend_later(), name="faulty-partition")
        if self.is_cut:
            raise BusConnectionError("the broker is away: a fault was injected", {"call": where})

    async def until_cut(self, work: Awaitable[T]) -> T:
        """The result of `work`; `BusConnectionError` when a partition begins before, and `work` is cancelled then."""
        working = asyncio.ensure_future(work)
        cutting = asyncio.ensure_future(self._cut.wait())
        try:
            await asyncio.wait((working, cutting), return_when=asyncio.FIRST_COMPLETED)
            if cutting.done():
                raise BusConnectionError("the connection was lost meanwhile: a fault was injected")
            return working.result()
        finally:
            for task in (working, cutting):
                task.cancel()
            await asyncio.gather(working, cutting, return_exceptions=True)

    def _begin(self) -> None:
        self._cut.set()
        if self.inner.state is ConnectionState.CONNECTED:
            self._listeners.tell(ConnectionState.RECONNECTING)

    async def _mend_later(self) -> None:
        await self._clock.sleep(self.plan.partition_s)
        self._mending = None
        self.mend()

    async def _end(self, *, drained: bool) -> None:
        if self._mending is not None:
            mending, self._mending = self._mending, None
            mending.cancel()
            await asyncio.wait([mending])
        self._cut.clear()
        subscriptions, self._subscriptions = self._subscriptions, set()
        for subscription in subscriptions:
            await (subscription.finish() if drained else subscription.abandon())

    def _inner_changed(self, state: ConnectionState) -> None:
        if not self.is_cut or state is not ConnectionState.CONNECTED:
            self._listeners.tell(state)
