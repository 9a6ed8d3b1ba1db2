"""The broker on NATS: core messages, JetStream with confirmations, durable consumers, requests."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence

from polaris.exceptions import (
    BusConnectionError,
    InvalidValueError,
    PayloadTooLargeError,
    RequestTimeoutError,
    SubscriptionError,
)
from polaris.messaging._broker import (
    MESSAGE_ID_HEADER,
    Capabilities,
    ConnectionState,
    ConsumerSpec,
    DeliveryClass,
    OnDelivery,
    OutgoingMessage,
    Receipt,
    StateListener,
    StoredMessage,
    StreamSpec,
)
from polaris.messaging._survey import Survey
from polaris.messaging.brokers import _nats_survey
from polaris.messaging.brokers._jetstream_api import JetStreamAPI
from polaris.messaging.brokers._nats_client import HardenedClient
from polaris.messaging.brokers._nats_config import NATSConfig
from polaris.messaging.brokers._nats_confirmation import receipt_of
from polaris.messaging.brokers._nats_connection import NATSConnection
from polaris.messaging.brokers._nats_consumer import NATSPullConsumer
from polaris.messaging.brokers._nats_delivery import CoreDelivery
from polaris.messaging.brokers._nats_direct import StoredReader
from polaris.messaging.brokers._nats_positions import Positions
from polaris.messaging.brokers._nats_protocol import encode_headers, encode_id
from polaris.messaging.brokers._nats_replies import NoReply
from polaris.messaging.brokers._nats_subscription import NATSSubscription
from polaris.messaging.brokers._wire_rules import check_pattern, check_subject

YIELD_EVERY = 96
"""Core publishes in a row before other tasks, the sending one among them, get a turn."""
HEADS_MAX = 8_192

# In Python 3.11 a member of an enumeration costs as much as a call when it is looked up in its class.
_AT_MOST_ONCE = DeliveryClass.AT_MOST_ONCE
_AT_LEAST_ONCE = DeliveryClass.AT_LEAST_ONCE
_NAME = re.compile(r"[A-Za-z0-9_\-]{1,255}")


class NATSMessageBroker:
    """A `MessageBroker` on NATS and JetStream.

    The connection, once made, is kept for ever unless configured otherwise: after a loss it is made again with jittered
    waits, subscriptions and consumers go on, streams and consumers that a server has lost are made again. Meanwhile
    everything that would send raises `BusConnectionError` at once: nothing is buffered that could be lost silently.
    What was in flight when the connection broke ends as unconfirmed, and is not sent later. A server that says it will
    end is left for another one in time, when what is in flight has been answered (for 0.25 s at most).

    Make it where its event loop runs. `disconnect` or `drain` closes it; it may be connected again afterwards, without
    its former subscriptions.
    """

    def __init__(self, config: NATSConfig | None = None) -> None:
        self.config = config or NATSConfig()
        self._connection = NATSConnection(self.config, on_lost=self._lost)
        self._api = JetStreamAPI(self._connection.ask_server)
        self._reader = StoredReader(self._connection, self._api)
        self._slots = asyncio.Semaphore(self.config.publish_in_flight_max)
        self._subscriptions: set[NATSSubscription] = set()
        self._consumers: set[NATSPullConsumer] = set()
        self._positions = Positions(self._api)
        self._capabilities = _capabilities(self._connection.payload_bytes_max)
        self._published = 0
        # Of the subjects published on: what their frames begin with.
        self._heads: dict[str, bytes] = {}
        self._dropped = 0

    @property
    def capabilities(self) -> Capabilities:
        limit = self._connection.payload_bytes_max
        if self._capabilities.payload_bytes_max != limit:
            self._capabilities = _capabilities(limit)
        return self._capabilities

    @property
    def state(self) -> ConnectionState:
        return self._connection.state

    @property
    def reconnects(self) -> int:
        """How often a lost connection was made again."""
        return self._connection.reconnects

    @property
    def dropped(self) -> int:
        """Messages of core subscriptions that were dropped because their handlers were too slow."""
        return self._dropped + sum(subscription.dropped for subscription in self._subscriptions)

    def on_state(self, listener: StateListener) -> Callable[[], None]:
        return self._connection.on_state(listener)

    async def connect(self) -> None:
        if await self._connection.open():
            # Those of a former connection that ended by itself.
            self._leave_consumers()
            for subscription in list(self._subscriptions):
                await subscription.cancel()

    async def disconnect(self) -> None:
        subscriptions = list(self._subscriptions)
        self._lost()
        self._leave_consumers()
        await self._connection.close()
        for subscription in subscriptions:
            await subscription.cancel()

    async def drain(self) -> None:
        """See `MessageBroker.drain`. Bounded by `drain_timeout_s`; callbacks that run longer are cancelled."""
        if self.state is ConnectionState.CONNECTED:
            self._connection.enter(ConnectionState.DRAINING)
            self._lost()
            try:
                async with asyncio.timeout(self.config.drain_timeout_s):
                    if self._subscriptions:
                        tasks = [asyncio.create_task(subscription.drain()) for subscription in self._subscriptions]
                        try:
                            await asyncio.wait(tasks)
                        finally:
                            for task in tasks:
                                task.cancel()
                    await self._connection.questions_answered()
            except TimeoutError:
                pass  # what is not finished ends with the connection
        await self.disconnect()

    async def publish(
        self,
        message: OutgoingMessage,
        *,
        delivery: DeliveryClass = DeliveryClass.AT_MOST_ONCE,
        timeout_s: float = 5.0,
    ) -> Receipt:
        """See `MessageBroker.publish`. Also raises `InvalidTopicError` and `InvalidValueError` (headers); nothing sent.

        A core publish is in the hands of the operating system shortly after it returns. Of stored publishes
        `publish_in_flight_max` may wait for their confirmation at once, in any number of tasks.
        """
        if delivery is _AT_LEAST_ONCE:
            return await self._store(message, timeout_s)
        headers = self._check(message, None)
        client = self._connection.require_client()
        if client.congested:
            client = await self._connection.room(timeout_s)
        client.send(message.subject, "", headers, message.payload)
        self._published += 1
        if self._published % YIELD_EVERY == 0:
            await asyncio.sleep(0)
        return Receipt(delivery=_AT_MOST_ONCE, message_id=message.message_id)

    def offer(self, message: OutgoingMessage) -> Receipt | None:
        """`publish` at most once, if that takes no waiting and no headers: None says that nothing was sent.

        So it says too where others are to have a turn. Raises as `publish` does.
        """
        head = self._heads.get(message.subject) or self._head(message.subject)
        client, number = self._connection.require_client(), self._published + 1
        if message.headers or number % YIELD_EVERY == 0 or not client.offer(head, message.payload):
            return None
        self._published = number
        return Receipt(delivery=_AT_MOST_ONCE, message_id=message.message_id)

    async def subscribe(self, pattern: str, on_delivery: OnDelivery, *, group: str | None = None) -> NATSSubscription:
        """See `MessageBroker.subscribe`. Raises `SubscriptionError` when the server forbids it."""
        check_pattern(pattern)
        if group is not None:
            _check_name("group", group)
        subscription = NATSSubscription(
            self._connection.require_client(),
            pattern,
            on_delivery,
            messages_max=self.config.pending_messages_max,
            bytes_max=self.config.pending_bytes_max,
            on_end=self._subscription_ended,
        )
        self._subscriptions.add(subscription)
        try:
            await subscription.open(group)
            await self._connection.flush()
            complaint = self._connection.complaint_of_subscribing(pattern)
            if complaint is not None:
                raise SubscriptionError(f"the server refuses {pattern!r}: {complaint}", {"pattern": pattern})
        except BaseException:  # boundary: undone, then raised again
            await subscription.cancel()
            raise
        return subscription

    async def consumer(self, spec: ConsumerSpec) -> NATSPullConsumer:
        check_pattern(spec.pattern)
        _check_name("stream", spec.stream)
        _check_name("durable", spec.durable)
        self._connection.require_client()
        progress = await self._positions.attach(spec)
        consumer = NATSPullConsumer(
            self, self._api, spec, progress, restore=self._positions.restore, on_close=self._consumer_closed
        )
        self._consumers.add(consumer)
        try:
            await consumer.open()
            await self._connection.flush()
        except BaseException:  # boundary: undone, then raised again
            await consumer.close()
            raise
        return consumer

    async def ensure_stream(self, spec: StreamSpec) -> None:
        _check_name("stream", spec.name)
        for pattern in spec.subjects:
            check_pattern(pattern)
        await self._positions.ensure_stream(spec)

    async def read_stored(
        self, stream: str, *, from_sequence: int = 1, count_max: int = 100
    ) -> Sequence[StoredMessage]:
        """See `MessageBroker.read_stored`, and `StoredReader` for streams with replicas."""
        _check_name("stream", stream)
        return await self._reader.read(stream, from_sequence, count_max)

    async def erase_stored(self, stream: str, sequence: int) -> bool:
        _check_name("stream", stream)
        return await self._api.erase(stream, sequence)

    async def survey(self, *, streams_max: int, consumers_max: int) -> Survey:
        return await _nats_survey.survey(self._api, streams_max=streams_max, consumers_max=consumers_max)

    async def count_stored(self, stream: str, subject: str | None = None) -> int:
        _check_name("stream", stream)
        return await _nats_survey.count_stored(self._api, stream, subject)

    async def request(self, message: OutgoingMessage, *, timeout_s: float) -> CoreDelivery:
        """See `MessageBroker.request`. A connection that breaks meanwhile also ends it with `RequestTimeoutError`."""
        headers = self._check(message, None)
        answer = await self._connection.ask(message.subject, message.payload, headers=headers, timeout_s=timeout_s)
        context = {"topic": message.subject, "timeout_s": timeout_s}
        if isinstance(answer, NoReply):
            why = f"within {timeout_s:g} s" if answer is NoReply.TIMEOUT else f": {answer.value}"
            raise RequestTimeoutError(f"no reply from {message.subject!r} {why}", context)
        if answer.nobody_listens:
            raise RequestTimeoutError(f"nobody listens on {message.subject!r}", context)
        return CoreDelivery(answer.subject, answer.payload, answer.headers, None)

    # For consumers and their deliveries

    def require_client(self) -> HardenedClient:
        """The client while messages can be received; raises `BusConnectionError` otherwise."""
        if self.state is ConnectionState.DRAINING:
            raise BusConnectionError("the broker is draining", {"state": self.state.value})
        return self._connection.require_client()

    async def tell(self, subject: str, payload: bytes) -> None:
        """Send a settlement."""
        client = self._connection.require_client(settling=True)
        if client.congested:
            client = await self._connection.room(self.config.api_timeout_s)
        client.send(subject, "", None, payload)

    async def confirm(self, subject: str, payload: bytes) -> None:
        """Send a settlement and wait until the server has noted it."""
        answer = await self._connection.ask(subject, payload, timeout_s=self.config.api_timeout_s)
        if isinstance(answer, NoReply) or answer.nobody_listens:
            why = answer.value if isinstance(answer, NoReply) else "the consumer is gone"
            raise BusConnectionError(f"the acknowledgement is not confirmed: {why}", {"subject": subject})

    async def _store(self, message: OutgoingMessage, timeout_s: float) -> Receipt:
        headers = self._check(message, message.message_id)
        self._connection.require_client()
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        if self._slots.locked():
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._slots.acquire()
            except TimeoutError as error:
                raise BusConnectionError(
                    f"no publish was confirmed for {timeout_s:g} s, and {self.config.publish_in_flight_max} wait",
                    {"topic": message.subject},
                ) from error
        else:
            await self._slots.acquire()
        try:
            remaining_s = max(0.001, deadline_s - loop.time())
            answer = await self._connection.ask(
                message.subject, message.payload, headers=headers, timeout_s=remaining_s
            )
        finally:
            self._slots.release()
        return receipt_of(message, answer, timeout_s)

    def _check(self, message: OutgoingMessage, message_id: str | None) -> bytes | None:
        """The header block of the message, after everything that can be refused before sending was looked at."""
        check_subject(message.subject)
        headers, block, size = message.headers, None, len(message.payload)
        if headers:
            block = encode_headers({**headers, MESSAGE_ID_HEADER: message_id} if message_id is not None else headers)
            size += len(block)
        elif message_id is not None:
            block = encode_id(message_id)
            size += len(block)
        limit = self._connection.payload_bytes_max
        if size > limit:
            # Without headers of its own the message is as large as the caller sees it, whatever the id adds.
            shown = len(message.payload) if len(message.payload) > limit else size
            raise PayloadTooLargeError(message.subject, payload_bytes=shown, payload_bytes_max=limit)
        return block

    def _head(self, subject: str) -> bytes:
        check_subject(subject)
        if len(self._heads) >= HEADS_MAX:
            self._heads.clear()
        head = self._heads[subject] = f"PUB {subject}  ".encode()
        return head

    def _consumer_closed(self, consumer: NATSPullConsumer) -> None:
        self._consumers.discard(consumer)
        position = consumer.spec.stream, consumer.spec.durable
        if position not in {(other.spec.stream, other.spec.durable) for other in self._consumers}:
            self._positions.leave(consumer.spec)

    def _leave_consumers(self) -> None:
        for consumer in self._consumers:
            self._positions.leave(consumer.spec)
        self._consumers.clear()

    def _lost(self) -> None:
        for consumer in list(self._consumers):
            consumer.connection_lost()

    def _subscription_ended(self, subscription: NATSSubscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.discard(subscription)
            self._dropped += subscription.dropped


def _capabilities(payload_bytes_max: int) -> Capabilities:
    return Capabilities(
        durable=True, redelivers=True, ordered=True, deduplicates=True, payload_bytes_max=payload_bytes_max
    )


def _check_name(field: str, name: str) -> None:
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise InvalidValueError(field, "1 to 255 letters, digits, - and _", name)
