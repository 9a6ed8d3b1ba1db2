"""Two connections to one broker: what must never wait, and what comes in bulk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from polaris.exceptions import InvalidValueError, MessageBusError
from polaris.messaging._broker import (
    BrokerSubscription,
    Capabilities,
    ConnectionState,
    ConsumerSpec,
    Delivery,
    DeliveryClass,
    MessageBroker,
    OnDelivery,
    OutgoingMessage,
    PullConsumer,
    Receipt,
    StateListener,
    StoredMessage,
    StreamSpec,
)
from polaris.messaging._patterns import matches, overlap
from polaris.messaging._state_listeners import StateListeners
from polaris.messaging._survey import Survey, SurveyedBroker

TELEMETRY = ("polaris.telemetry.>",)

_WORST_FIRST = (
    ConnectionState.CLOSED,
    ConnectionState.DISCONNECTED,
    ConnectionState.RECONNECTING,
    ConnectionState.DRAINING,
    ConnectionState.CONNECTED,
)


class LanedMessageBroker:
    """A `MessageBroker` of two: bulk traffic has a connection of its own, and control traffic never waits behind it.

    Behind one connection a command waits until the telemetry before it has left the socket, for a place among the
    publishes that are not confirmed yet, and for the reader to be through with what it has received. Here the lane
    follows from the subject: those of `bulk_patterns` go one way, all others the other. A subscription takes the bulk
    lane if it can match anything of bulk, a stream if it stores any. Order is kept within a subject, as ever.

    Both brokers must lead to the same servers; the lane broker owns them. Its state is the worse one of the two, and a
    failed connect of one disconnects the other.
    """

    def __init__(
        self, control: MessageBroker, bulk: MessageBroker, *, bulk_patterns: Sequence[str] = TELEMETRY
    ) -> None:
        if control is bulk:
            raise InvalidValueError("bulk", "a broker of its own", bulk)
        self.control = control
        self.bulk = bulk
        self._bulk_patterns = tuple(bulk_patterns)
        self._listeners = StateListeners()
        self._told = self.state
        for lane in (control, bulk):
            lane.on_state(self._lane_changed)

    @property
    def lanes(self) -> Mapping[str, MessageBroker]:
        """Both, by name."""
        return {"control": self.control, "bulk": self.bulk}

    @property
    def capabilities(self) -> Capabilities:
        """What both can."""
        control, bulk = self.control.capabilities, self.bulk.capabilities
        return Capabilities(
            durable=control.durable and bulk.durable,
            redelivers=control.redelivers and bulk.redelivers,
            ordered=control.ordered and bulk.ordered,
            deduplicates=control.deduplicates and bulk.deduplicates,
            payload_bytes_max=min(control.payload_bytes_max, bulk.payload_bytes_max),
        )

    @property
    def state(self) -> ConnectionState:
        """The worse one of the two."""
        return min(self.control.state, self.bulk.state, key=_WORST_FIRST.index)

    def on_state(self, listener: StateListener) -> Callable[[], None]:
        return self._listeners.add(listener)

    async def connect(self) -> None:
        outcomes = await asyncio.gather(self.control.connect(), self.bulk.connect(), return_exceptions=True)
        failed = next((outcome for outcome in outcomes if isinstance(outcome, BaseException)), None)
        if failed is not None:
            await self.disconnect()
            raise failed

    async def disconnect(self) -> None:
        await asyncio.gather(self.control.disconnect(), self.bulk.disconnect())

    async def drain(self) -> None:
        # Bulk first: what its handlers still have to say goes through the other lane.
        await self.bulk.drain()
        await self.control.drain()

    async def publish(
        self,
        message: OutgoingMessage,
        *,
        delivery: DeliveryClass = DeliveryClass.AT_MOST_ONCE,
        timeout_s: float = 5.0,
    ) -> Receipt:
        return await self.lane_of(message.subject).publish(message, delivery=delivery, timeout_s=timeout_s)

    async def subscribe(self, pattern: str, on_delivery: OnDelivery, *, group: str | None = None) -> BrokerSubscription:
        return await self._lane_of_pattern(pattern).subscribe(pattern, on_delivery, group=group)

    async def consumer(self, spec: ConsumerSpec) -> PullConsumer:
        return await self._lane_of_pattern(spec.pattern).consumer(spec)

    async def ensure_stream(self, spec: StreamSpec) -> None:
        # A broker remembers its streams to make them again: the one whose consumers read them must know them.
        lanes = {id(lane): lane for lane in map(self._lane_of_pattern, spec.subjects)}
        for lane in lanes.values():
            await lane.ensure_stream(spec)

    async def read_stored(
        self, stream: str, *, from_sequence: int = 1, count_max: int = 100
    ) -> Sequence[StoredMessage]:
        return await self.control.read_stored(stream, from_sequence=from_sequence, count_max=count_max)

    async def erase_stored(self, stream: str, sequence: int) -> bool:
        return await self.control.erase_stored(stream, sequence)

    async def survey(self, *, streams_max: int, consumers_max: int) -> Survey:
        return await self._surveyed().survey(streams_max=streams_max, consumers_max=consumers_max)

    async def count_stored(self, stream: str, subject: str | None = None) -> int:
        return await self._surveyed().count_stored(stream, subject)

    async def request(self, message: OutgoingMessage, *, timeout_s: float) -> Delivery:
        return await self.lane_of(message.subject).request(message, timeout_s=timeout_s)

    def lane_of(self, subject: str) -> MessageBroker:
        """The one that messages on this subject go by."""
        for pattern in self._bulk_patterns:
            if matches(pattern, subject):
                return self.bulk
        return self.control

    def _surveyed(self) -> SurveyedBroker:
        if isinstance(self.control, SurveyedBroker):
            return self.control
        raise MessageBusError("this broker cannot be surveyed")

    def _lane_of_pattern(self, pattern: str) -> MessageBroker:
        return self.bulk if any(overlap(bulk, pattern) for bulk in self._bulk_patterns) else self.control

    def _lane_changed(self, _: ConnectionState) -> None:
        state = self.state
        if state is self._told:
            return
        self._told = state
        self._listeners.tell(state)
