"""A broker in this process: the semantics of NATS and JetStream without a server, for tests and single-process use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime

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
    Capabilities,
    ConnectionState,
    ConsumerInfo,
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
from polaris.messaging._patterns import has_wildcard, matches, overlap
from polaris.messaging.brokers._memory_core import MemorySubscription
from polaris.messaging.brokers._memory_streams import NO_HEADERS, ConsumerPosition, MemoryStream, Record, Waiters

_log = logging.getLogger(__name__)

PAYLOAD_BYTES_MAX = 1 << 20
ROUTES_MAX = 16_384
YIELD_EVERY = 64


class InMemoryHub:
    """What a server would hold: streams and interest. Brokers that share a hub talk to each other."""

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self.streams: dict[str, MemoryStream] = {}
        self.inboxes: dict[str, asyncio.Future[Delivery]] = {}
        self._subscriptions: list[MemorySubscription] = []
        self._routes: dict[
            str, tuple[MemoryStream | None, list[MemorySubscription], list[list[MemorySubscription]]]
        ] = {}
        self._turn = 0

    def add(self, subscription: MemorySubscription) -> None:
        self._subscriptions.append(subscription)
        self._routes.clear()

    def remove(self, subscription: MemorySubscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            self._routes.clear()

    def stream_of(self, subject: str) -> MemoryStream | None:
        """The stream that stores the subject, or None."""
        return self._route(subject)[0]

    def ensure_stream(self, spec: StreamSpec) -> None:
        """Create or update the stream; subjects belong to one stream only."""
        for other in self.streams.values():
            if other.spec.name != spec.name and any(overlap(a, b) for a in other.spec.subjects for b in spec.subjects):
                raise MessageBusError(
                    f"stream {spec.name!r} would store subjects of stream {other.spec.name!r}",
                    {"stream": spec.name, "other": other.spec.name},
                )
        stream = self.streams.get(spec.name)
        if stream is None:
            self.streams[spec.name] = MemoryStream(spec, self.clock)
        else:
            stream.spec = spec
            stream.enforce_bounds()
        self._routes.clear()

    def fan_out(self, subject: str, delivery: Delivery) -> int:
        """Hand a message to every core subscription and to one member of every group; returns how many got it."""
        inbox = self.inboxes.get(subject)
        if inbox is not None:
            if not inbox.done():
                inbox.set_result(delivery)
            return 1
        _, alone, groups = self._route(subject)
        for subscription in alone:
            subscription.offer(delivery)
        for members in groups:
            self._turn += 1
            members[self._turn % len(members)].offer(delivery)
        return len(alone) + len(groups)

    def _route(
        self, subject: str
    ) -> tuple[MemoryStream | None, list[MemorySubscription], list[list[MemorySubscription]]]:
        route = self._routes.get(subject)
        if route is None:
            stream = next((found for found in self.streams.values() if found.captures(subject)), None)
            alone: list[MemorySubscription] = []
            groups: dict[str, list[MemorySubscription]] = {}
            for subscription in self._subscriptions:
                if matches(subscription.pattern, subject):
                    members = alone if subscription.group is None else groups.setdefault(subscription.group, [])
                    members.append(subscription)
            if len(self._routes) >= ROUTES_MAX:
                self._routes.clear()
            route = self._routes[subject] = (stream, alone, list(groups.values()))
        return route


class _CoreDelivery:
    """A pushed message: there is nothing to settle."""

    __slots__ = ("headers", "payload", "reply_to", "subject")

    attempt = 1
    sequence: int | None = None
    stored_at: datetime | None = None

    def __init__(self, subject: str, payload: bytes, headers: Mapping[str, str], reply_to: str | None) -> None:
        self.subject = subject
        self.payload = payload
        self.headers = headers
        self.reply_to = reply_to

    async def ack(self, *, confirm: bool = False) -> None:
        pass

    async def nak(self, *, delay_s: float) -> None:
        pass

    async def term(self) -> None:
        pass

    async def in_progress(self) -> None:
        pass


class _StreamDelivery:
    """A message of a consumer, to be settled on the connection it came by."""

    __slots__ = ("_broker", "_position", "_record", "attempt")

    reply_to: str | None = None

    def __init__(self, broker: InMemoryMessageBroker, position: ConsumerPosition, record: Record, attempt: int) -> None:
        self._broker = broker
        self._position = position
        self._record = record
        self.attempt = attempt

    @property
    def subject(self) -> str:
        return self._record.subject

    @property
    def payload(self) -> bytes:
        return self._record.payload

    @property
    def headers(self) -> Mapping[str, str]:
        return self._record.headers

    @property
    def sequence(self) -> int | None:
        return self._record.sequence

    @property
    def stored_at(self) -> datetime | None:
        return self._record.stored_at

    async def ack(self, *, confirm: bool = False) -> None:
        self._broker.require_connection()
        self._position.settle(self._record.sequence)

    async def nak(self, *, delay_s: float) -> None:
        self._broker.require_connection()
        self._position.postpone(self._record.sequence, delay_s)

    async def term(self) -> None:
        self._broker.require_connection()
        self._position.settle(self._record.sequence)

    async def in_progress(self) -> None:
        self._broker.require_connection()
        self._position.postpone(self._record.sequence, self._position.spec.ack_wait_s)


class _Subscription:
    """A core subscription as its owner sees it."""

    def __init__(self, broker: InMemoryMessageBroker, subscription: MemorySubscription) -> None:
        self._broker = broker
        self._subscription = subscription

    async def drain(self) -> None:
        self._broker.forget(self._subscription)
        await self._subscription.finish()

    async def unsubscribe(self) -> None:
        self._broker.forget(self._subscription)
        await self._subscription.end()


class _Consumer:
    """A durable consumer as attached by one broker."""

    def __init__(self, broker: InMemoryMessageBroker, position: ConsumerPosition, clock: Clock) -> None:
        self._broker = broker
        self._position = position
        self._clock = clock
        self._closed = False
        position.attach()

    async def fetch(self, count_max: int, *, wait_s: float) -> Sequence[Delivery]:
        deadline_s = self._clock.monotonic() + wait_s
        waiters = self._position.stream.waiters
        # Whoever fetches without end lets others run; and a cancellation takes effect here, before anything is taken.
        await asyncio.sleep(0)
        while True:
            self._broker.require_connection()
            if self._closed:
                raise SubscriptionError("the consumer is closed", {"durable": self._position.spec.durable})
            taken = self._position.take(count_max)
            if taken:
                return [_StreamDelivery(self._broker, self._position, record, attempt) for record, attempt in taken]
            now_s = self._clock.monotonic()
            if now_s >= deadline_s:
                return []
            due_s = self._position.next_due_s()
            until_s = deadline_s if due_s is None or due_s <= now_s else min(deadline_s, due_s)
            await wait_for_wake(waiters, self._clock, until_s - now_s)

    async def info(self) -> ConsumerInfo:
        self._broker.require_connection()
        return self._position.info()

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._position.detach()
            self._position.stream.waiters.wake()


async def wait_for_wake(waiters: Waiters, clock: Clock, delay_s: float) -> None:
    """Wait until somebody wakes the waiters, at most `delay_s` by the clock."""
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiters.add(waiter)
    sleeper = asyncio.ensure_future(clock.sleep(delay_s))
    try:
        await asyncio.wait((waiter, sleeper), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiters.discard(waiter)
        sleeper.cancel()
        await asyncio.gather(sleeper, return_exceptions=True)


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
        self._listeners: list[StateListener] = []
        self._subscriptions: list[MemorySubscription] = []
        self._published = 0

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def state(self) -> ConnectionState:
        return self._state

    def on_state(self, listener: StateListener) -> None:
        self._listeners.append(listener)

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
            self.forget(subscription)
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
        self.require_connection()
        self._check(message)
        stream = self.hub.stream_of(message.subject)
        if delivery is DeliveryClass.AT_LEAST_ONCE and stream is None:
            raise PublishError(f"no stream stores {message.subject!r}; nothing was sent", {"topic": message.subject})
        receipt = self._send(message, stream, delivery)
        self._published += 1
        if self._published % YIELD_EVERY == 0:
            await asyncio.sleep(0)  # a publisher in a tight loop must let the receivers run
        return receipt

    async def subscribe(self, pattern: str, on_delivery: OnDelivery, *, group: str | None = None) -> _Subscription:
        self.require_connection()
        subscription = MemorySubscription(pattern, on_delivery, group)
        self._subscriptions.append(subscription)
        self.hub.add(subscription)
        return _Subscription(self, subscription)

    async def consumer(self, spec: ConsumerSpec) -> _Consumer:
        self.require_connection()
        stream = self.hub.streams.get(spec.stream)
        if stream is None:
            raise SubscriptionError(f"there is no stream {spec.stream!r}", {"stream": spec.stream})
        if not any(overlap(pattern, spec.pattern) for pattern in stream.spec.subjects):
            raise SubscriptionError(
                f"stream {spec.stream!r} stores nothing of {spec.pattern!r}",
                {"stream": spec.stream, "pattern": spec.pattern},
            )
        return _Consumer(self, stream.position(spec), self._clock)

    async def ensure_stream(self, spec: StreamSpec) -> None:
        self.require_connection()
        self.hub.ensure_stream(spec)

    async def read_stored(
        self, stream: str, *, from_sequence: int = 1, count_max: int = 100
    ) -> Sequence[StoredMessage]:
        self.require_connection()
        held = self._require_stream(stream)
        held.enforce_bounds()
        found: list[StoredMessage] = []
        for sequence, record in held.records.items():
            if len(found) >= count_max:
                break
            if sequence >= from_sequence:
                found.append(
                    StoredMessage(
                        sequence=sequence,
                        subject=record.subject,
                        payload=record.payload,
                        headers=record.headers,
                        stored_at=record.stored_at,
                    )
                )
        return found

    async def erase_stored(self, stream: str, sequence: int) -> bool:
        self.require_connection()
        return self._require_stream(stream).erase(sequence)

    async def request(self, message: OutgoingMessage, *, timeout_s: float) -> Delivery:
        self.require_connection()
        self._check(message)
        inbox = f"_INBOX.{new_id()}"
        reply: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        self.hub.inboxes[inbox] = reply
        sleeper: asyncio.Future[None] | None = None
        try:
            delivery = _CoreDelivery(message.subject, message.payload, message.headers or NO_HEADERS, inbox)
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

    def require_connection(self) -> None:
        """Raise `BusConnectionError` unless the broker is connected."""
        if self._state not in (ConnectionState.CONNECTED, ConnectionState.DRAINING):
            raise BusConnectionError(f"the broker is {self._state.value}", {"state": self._state.value})

    def forget(self, subscription: MemorySubscription) -> None:
        """Send nothing more to the subscription."""
        self.hub.remove(subscription)
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def _send(self, message: OutgoingMessage, stream: MemoryStream | None, delivery: DeliveryClass) -> Receipt:
        sequence: int | None = None
        duplicate = False
        if stream is not None:
            sequence, duplicate = stream.store(message)
        headers = message.headers or NO_HEADERS
        self.hub.fan_out(message.subject, _CoreDelivery(message.subject, message.payload, headers, None))
        if delivery is DeliveryClass.AT_MOST_ONCE or stream is None:
            return Receipt(delivery=DeliveryClass.AT_MOST_ONCE, message_id=message.message_id)
        return Receipt(
            delivery=delivery,
            message_id=message.message_id,
            stream=stream.spec.name,
            sequence=sequence,
            duplicate=duplicate,
        )

    def _check(self, message: OutgoingMessage) -> None:
        size = len(message.payload)
        if message.headers:
            size += sum(len(name) + len(value) + 4 for name, value in message.headers.items())
        if size > self._capabilities.payload_bytes_max:
            raise PayloadTooLargeError(
                message.subject, payload_bytes=size, payload_bytes_max=self._capabilities.payload_bytes_max
            )
        if has_wildcard(message.subject):
            raise PublishError(f"{message.subject!r} is a pattern, not a subject", {"topic": message.subject})

    def _require_stream(self, name: str) -> MemoryStream:
        stream = self.hub.streams.get(name)
        if stream is None:
            raise MessageBusError(f"there is no stream {name!r}", {"stream": name})
        return stream

    def _enter(self, state: ConnectionState) -> None:
        if state is self._state:
            return
        self._state = state
        for listener in self._listeners:
            try:
                listener(state)
            except Exception:  # boundary: a listener is foreign code and changes nothing for the connection
                _log.exception("a listener for the state of the connection failed")
