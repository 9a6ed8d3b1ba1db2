"""A broker in this process: the semantics of NATS and JetStream without a server, for tests and single-process use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.exceptions import (
    BusConnectionError,
    MessageBusError,
    PayloadTooLargeError,
    PublishError,
    RequestTimeoutError,
    SubscriptionError,
)
from polaris.ids import new_id
from polaris.messaging._broker import (
    MESSAGE_ID_HEADER,
    NOBODY_STORES,
    Capabilities,
    ConnectionState,
    ConsumerSpec,
    Delivery,
    DeliveryClass,
    OnDelivery,
    OutgoingMessage,
    Receipt,
    StateListener,
    StoredMessage,
    StreamSpec,
)
from polaris.messaging._patterns import check_name, overlap
from polaris.messaging._state_listeners import StateListeners
from polaris.messaging._survey import Survey
from polaris.messaging.brokers import _memory_survey
from polaris.messaging.brokers._memory_core import MemorySubscription
from polaris.messaging.brokers._memory_deliveries import CoreDelivery, MemoryConsumer, MemoryCoreSubscription
from polaris.messaging.brokers._memory_hub import InMemoryHub
from polaris.messaging.brokers._memory_streams import NO_HEADERS, MemoryStream
from polaris.messaging.brokers._wire_rules import check_headers, check_pattern, check_subject, headers_bytes

PAYLOAD_BYTES_MAX = 1 << 20
YIELD_EVERY = 64
_CAN_SEND = (ConnectionState.CONNECTED, ConnectionState.DRAINING)
_CONNECTED = ConnectionState.CONNECTED
# In Python 3.11 a member of an enumeration costs as much as a call when it is looked up in its class.
_AT_MOST_ONCE = DeliveryClass.AT_MOST_ONCE
_AT_LEAST_ONCE = DeliveryClass.AT_LEAST_ONCE


class InMemoryMessageBroker:
    """A `MessageBroker` without a server.

    Streams, durable consumers, redelivery after `ack_wait_s`, delayed hand-back, deduplication, groups and
    request/reply behave as on NATS; nothing outlives the hub, so `capabilities.durable` is False. Brokers made with the
    same `hub` are clients of one server. A core publish to a subject of a stream is stored too, as JetStream does.

    Args:
        hub: the shared state; a hub of its own when None. Positions and stored messages live in it and survive
            `disconnect`.
        clock: drives redelivery, bounds and timeouts of a new hub; ignored when `hub` is given.
        payload_bytes_max: larger payloads (with their headers) are refused; 1 MiB as nats-server does.
    """

    def __init__(
        self,
        hub: InMemoryHub | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
        payload_bytes_max: int = PAYLOAD_BYTES_MAX,
    ) -> None:
        self.hub = hub if hub is not None else InMemoryHub(clock=clock)
        self._clock = self.hub.clock
        self._capabilities = Capabilities(
            durable=False, redelivers=True, ordered=True, deduplicates=True, payload_bytes_max=payload_bytes_max
        )
        self._state = ConnectionState.DISCONNECTED
        self._listeners = StateListeners()
        self._subscriptions: list[MemorySubscription] = []
        self._published = 0

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def state(self) -> ConnectionState:
        return self._state

    def on_state(self, listener: StateListener) -> Callable[[], None]:
        return self._listeners.add(listener)

    async def connect(self) -> None:
        self._enter(ConnectionState.CONNECTED)

    async def disconnect(self) -> None:
        if self._state in (ConnectionState.DISCONNECTED, ConnectionState.CLOSED):
            return
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            self.hub.remove(subscription)
        self._enter(ConnectionState.CLOSED)
        for stream in self.hub.streams.values():
            stream.waiters.wake()
        for subscription in subscriptions:
            await subscription.cancel()

    async def drain(self) -> None:
        if self._state is not ConnectionState.CONNECTED:
            return
        subscriptions = list(self._subscriptions)
        for subscription in subscriptions:
            self._forget(subscription)
        self._enter(ConnectionState.DRAINING)
        for subscription in subscriptions:
            await subscription.finish()
        await self.disconnect()

    async def publish(
        self,
        message: OutgoingMessage,
        *,
        delivery: DeliveryClass = DeliveryClass.AT_MOST_ONCE,
        timeout_s: float = 5.0,
    ) -> Receipt:
        if self._state is not _CONNECTED:
            self._require_connection()
        receipt = self._send(message, delivery)
        self._published += 1
        if self._published % YIELD_EVERY == 0:
            await asyncio.sleep(0)  # a publisher in a tight loop must let the receivers run
        return receipt

    def offer(self, message: OutgoingMessage) -> Receipt | None:
        """`publish` at most once, unless there is no connection or others are to have a turn: None says so."""
        if self._state is not _CONNECTED or (self._published + 1) % YIELD_EVERY == 0:
            return None
        receipt = self._send(message, _AT_MOST_ONCE)
        self._published += 1
        return receipt

    async def subscribe(
        self, pattern: str, on_delivery: OnDelivery, *, group: str | None = None
    ) -> MemoryCoreSubscription:
        check_pattern(pattern)
        if group is not None:
            check_name("group", group)
        self._require_connection()
        subscription = MemorySubscription(pattern, on_delivery, group, clock=self._clock)
        self._subscriptions.append(subscription)
        self.hub.add(subscription)
        return MemoryCoreSubscription(self._forget, subscription)

    async def consumer(self, spec: ConsumerSpec) -> MemoryConsumer:
        check_pattern(spec.pattern)
        check_name("stream", spec.stream)
        check_name("durable", spec.durable)
        self._require_connection()
        stream = self.hub.streams.get(spec.stream)
        if stream is None:
            raise SubscriptionError(f"there is no stream {spec.stream!r}", {"stream": spec.stream})
        if not any(overlap(pattern, spec.pattern) for pattern in stream.spec.subjects):
            raise SubscriptionError(
                f"stream {spec.stream!r} stores nothing of {spec.pattern!r}",
                {"stream": spec.stream, "pattern": spec.pattern},
            )
        return MemoryConsumer(self._require_connection, stream.position(spec), self._clock)

    async def ensure_stream(self, spec: StreamSpec) -> None:
        check_name("stream", spec.name)
        for pattern in spec.subjects:
            check_pattern(pattern)
        self._require_connection()
        self.hub.ensure_stream(spec)

    async def read_stored(
        self, stream: str, *, from_sequence: int = 1, count_max: int = 100
    ) -> Sequence[StoredMessage]:
        self._require_connection()
        return self._require_stream(stream).read(from_sequence, count_max)

    async def erase_stored(self, stream: str, sequence: int) -> bool:
        self._require_connection()
        held = self._require_stream(stream)
        held.enforce_bounds()
        return held.erase(sequence)

    async def survey(self, *, streams_max: int, consumers_max: int) -> Survey:
        self._require_connection()
        return _memory_survey.survey(self.hub, streams_max=streams_max, consumers_max=consumers_max)

    async def count_stored(self, stream: str, subject: str | None = None) -> int:
        self._require_connection()
        held = self._require_stream(stream)
        held.enforce_bounds()
        return sum(subject in (None, record.subject) for record in held.records.values())

    async def request(self, message: OutgoingMessage, *, timeout_s: float) -> Delivery:
        self._require_connection()
        headers, _ = self._check(message, None)
        inbox = f"_INBOX.{new_id()}"
        reply: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        self.hub.inboxes[inbox] = reply
        sleeper: asyncio.Future[None] | None = None
        try:
            delivery = CoreDelivery(message.subject, message.payload, headers, inbox)
            if not self.hub.fan_out(message.subject, delivery):
                raise RequestTimeoutError(f"nobody listens on {message.subject!r}", {"topic": message.subject})
            sleeper = asyncio.ensure_future(self._clock.sleep(timeout_s))
            await asyncio.wait((reply, sleeper), return_when=asyncio.FIRST_COMPLETED)
            if not reply.done():
                context = {"topic": message.subject, "timeout_s": timeout_s}
                raise RequestTimeoutError(f"no reply from {message.subject!r} within {timeout_s:g} s", context)
            return reply.result()
        finally:
            del self.hub.inboxes[inbox]
            if sleeper is not None:
                sleeper.cancel()
                await asyncio.gather(sleeper, return_exceptions=True)

    def _require_connection(self) -> None:
        """Raise `BusConnectionError` unless the broker is connected."""
        if self._state not in _CAN_SEND:
            raise BusConnectionError(f"the broker is {self._state.value}", {"state": self._state.value})

    def _forget(self, subscription: MemorySubscription) -> None:
        """Send nothing more to the subscription."""
        self.hub.remove(subscription)
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def _send(self, message: OutgoingMessage, delivery: DeliveryClass) -> Receipt:
        # JetStream knows the id by its header, which a core publish does not send.
        message_id = message.message_id if delivery is _AT_LEAST_ONCE else None
        headers, wire_bytes = self._check(message, message_id)
        stream = self.hub.stream_of(message.subject)
        sequence: int | None = None
        duplicate = False
        if stream is not None:
            sequence, duplicate = stream.store(message, headers, wire_bytes)
        elif delivery is _AT_LEAST_ONCE:
            context = {"topic": message.subject, "reason": NOBODY_STORES}
            raise PublishError(f"no stream stores {message.subject!r}; nothing was sent", context)
        self.hub.fan_out(message.subject, CoreDelivery(message.subject, message.payload, headers, None))
        if delivery is _AT_MOST_ONCE or stream is None:
            return Receipt(delivery=_AT_MOST_ONCE, message_id=message.message_id)
        return Receipt(
            delivery=delivery,
            message_id=message.message_id,
            stream=stream.spec.name,
            sequence=sequence,
            duplicate=duplicate,
        )

    def _check(self, message: OutgoingMessage, message_id: str | None) -> tuple[Mapping[str, str], int]:
        """Headers as they travel and the size with them; first all is looked at that can be refused before sending."""
        check_subject(message.subject)
        headers, size = NO_HEADERS, len(message.payload)
        if message_id is not None:
            headers = (
                {**message.headers, MESSAGE_ID_HEADER: message_id}
                if message.headers
                else {MESSAGE_ID_HEADER: message_id}
            )
        elif message.headers:
            headers = dict(message.headers)
        if headers:
            check_headers(headers)
            size += headers_bytes(headers)
        limit = self._capabilities.payload_bytes_max
        if size > limit:
            # Without headers of its own the message is as large as the caller sees it, whatever the id adds.
            shown = len(message.payload) if len(message.payload) > limit else size
            raise PayloadTooLargeError(message.subject, payload_bytes=shown, payload_bytes_max=limit)
        return headers, size

    def _require_stream(self, name: str) -> MemoryStream:
        stream = self.hub.streams.get(name)
        if stream is None:
            raise MessageBusError(f"there is no stream {name!r}", {"stream": name})
        return stream

    def _enter(self, state: ConnectionState) -> None:
        if state is self._state:
            return
        self._state = state
        self._listeners.tell(state)
