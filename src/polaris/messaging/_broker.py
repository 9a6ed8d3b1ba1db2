"""The port that brokers implement: they move bytes between subjects and know nothing of events.

A broker offers two ways to receive. A *core* subscription pushes what is published while it exists (at most once). A
*consumer* pulls from a stream, settles each delivery, and gets back what it did not settle (at least once). Everything
above (codec, middleware, retries, dead letters, concurrency) is the business of the bus.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import ClassVar, Protocol, runtime_checkable

import msgspec

from polaris.exceptions import InvalidValueError

MESSAGE_ID_HEADER = "Nats-Msg-Id"
GIVEN_UP_PREFIX = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES."
"""What brokers announce when a consumer with a limit gives a message up; stream and consumer follow."""
NOBODY_STORES = "no_stream"
"""The `reason` in the context of a `PublishError` when no stream stored the message: there is none, or it has no leader
now."""


class DeliveryClass(enum.StrEnum):
    """The guarantee a message travels with."""

    AT_MOST_ONCE = "at_most_once"
    """Core NATS: handed to whoever listens now."""
    AT_LEAST_ONCE = "at_least_once"
    """JetStream: stored and acknowledged before `publish` returns, redelivered until settled."""


class AckPolicy(enum.StrEnum):
    """What a settlement of a consumer covers."""

    EACH = "each"
    """The message alone: every message is settled by itself."""
    ALL = "all"
    """The message and every one before it in the stream: one settlement for many. For one client at a time, which must
    settle nothing before it is done with everything that came earlier."""
    NONE = "none"
    """Delivered is settled: nothing comes again, and what fails is lost."""


class ConnectionState(enum.StrEnum):
    """Where the connection to the broker stands."""

    DISCONNECTED = "disconnected"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    DRAINING = "draining"
    CLOSED = "closed"


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker can do, as data: the bus refuses at start what a broker cannot keep, suites choose tests by it."""

    durable: bool
    """Stored messages and consumer positions outlive the broker's process."""
    redelivers: bool
    """What a consumer does not settle comes again."""
    ordered: bool
    """Messages of one publisher on one subject arrive in the order of publishing."""
    deduplicates: bool
    """A second publish with the same message id within the window stores nothing."""
    payload_bytes_max: int
    """Larger payloads are refused before anything is sent."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What `publish` achieved. It exists only when the guarantee of its delivery class was given."""

    delivery: DeliveryClass
    message_id: str | None
    stream: str | None = None
    sequence: int | None = None
    duplicate: bool = False
    """The stream held this message id already; nothing was stored again."""


class StreamSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A stream: which subjects it stores and within which bounds. At a bound the oldest messages go first."""

    name: str
    subjects: tuple[str, ...]
    max_age_s: float | None = 7 * 86_400.0
    max_bytes: int | None = 1 << 30
    duplicate_window_s: float = 120.0
    replicas: int = 1


class Start(msgspec.Struct, frozen=True):
    """Where in a stream a new position begins: `Start.ALL`, `Start.NEW`, `Start.at_sequence(n)` or `Start.at_time(t)`.

    A position that exists already is kept, whatever is asked for.
    """

    new: bool = False
    sequence: int | None = None
    time: datetime | None = None

    ALL: ClassVar[Start]
    """With everything that is stored."""
    NEW: ClassVar[Start]
    """With what is published from now on."""

    @classmethod
    def at_sequence(cls, sequence: int) -> Start:
        """With the message of that number, or the first one after it."""
        if type(sequence) is not int or sequence < 1:
            raise InvalidValueError("sequence", "an integer of at least 1", sequence)
        return cls(sequence=sequence)

    @classmethod
    def at_time(cls, time: datetime) -> Start:
        """With the first message stored at or after that time, which must be timezone-aware."""
        if not isinstance(time, datetime) or time.tzinfo is None:
            raise InvalidValueError("time", "a timezone-aware datetime", time)
        return cls(time=time.astimezone(UTC))


Start.ALL = Start()
Start.NEW = Start(new=True)


class ConsumerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A durable pull consumer: a named position in a stream that any number of processes share."""

    stream: str
    durable: str
    pattern: str
    ack: AckPolicy = AckPolicy.EACH
    """What a settlement covers. A position that exists keeps its policy: asking for another one is refused."""
    ack_wait_s: float = 30.0
    """Without a settlement or a heartbeat for this long, a delivery comes again."""
    in_flight_max: int = 1024
    """Deliveries handed out and not settled, over all processes that share the consumer. Not for `AckPolicy.NONE`."""
    start: Start = Start.ALL
    """Where the position begins if it has to be made."""
    inactive_s: float | None = None
    """Forget the position after this long without anybody attached; None keeps it for ever."""
    deliveries_max: int | None = None
    """After so many deliveries a message never comes again on this consumer, settled or not; None sets no limit.

    The broker gives it up when it would be delivered once more, and says so on `GIVEN_UP_PREFIX` + "stream.durable":
    JSON with `stream`, `consumer`, `stream_seq` and `deliveries`, at most once.
    """


class Delivery(Protocol):
    """One received message.

    Of a core subscription, or a consumer with `AckPolicy.NONE`, the settlements do nothing; `attempt` is then always 1.
    With `AckPolicy.ALL`, `ack` and `term` settle everything up to this message, `nak` and `in_progress` this one alone;
    a settlement that is behind the last one, by its place in the stream or by its `number`, does nothing.
    """

    @property
    def subject(self) -> str: ...

    @property
    def payload(self) -> bytes: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def reply_to(self) -> str | None:
        """Where a reply to a request goes; None when nobody waits for one."""
        ...

    @property
    def attempt(self) -> int:
        """How often this message was delivered, this time included; counts from 1."""
        ...

    @property
    def sequence(self) -> int | None:
        """Its position in the stream; None for a core delivery."""
        ...

    @property
    def number(self) -> int | None:
        """Which delivery of its consumer it is, over all clients, redeliveries included, from 1; None for a core one.

        Who is alone on a consumer misses something when a number is not the one after the last.
        """
        ...

    @property
    def stored_at(self) -> datetime | None:
        """When the broker stored it, UTC; None for a core delivery."""
        ...

    async def ack(self, *, confirm: bool = False) -> None:
        """Settle: it never comes again. `confirm` waits until the broker has noted it (double ack).

        Without `confirm` a lost acknowledgement leads to a redelivery. Raises `BusConnectionError` when it cannot be
        sent, or when `confirm` gets no answer; the message then comes again.
        """
        ...

    async def nak(self, *, delay_s: float) -> None:
        """Hand back: it comes again after `delay_s` seconds, here or elsewhere."""
        ...

    async def term(self) -> None:
        """Give up: it never comes again, and is not counted as handled."""
        ...

    async def in_progress(self) -> None:
        """Heartbeat: restart the `ack_wait_s` of this delivery."""
        ...


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message as a stream holds it."""

    sequence: int
    subject: str
    payload: bytes
    headers: Mapping[str, str]
    stored_at: datetime


OnDelivery = Callable[[Delivery], Awaitable[None]]
"""Takes what comes, one after the other.

An object that has a method `at_once(delivery) -> bool` may be asked by that instead while nothing waits for it: it has
taken the delivery, or says False and has done nothing. One that has a method `dropped(delivery)` is told by that, which
must not block, of every message that the broker dropped because too many waited for it.
"""


class BrokerSubscription(Protocol):
    """A core subscription."""

    async def drain(self) -> None:
        """Receive nothing new, finish what was received, then end. Idempotent."""
        ...

    async def unsubscribe(self) -> None:
        """End at once; deliveries not yet handed to the callback are dropped. Idempotent."""
        ...


class ConsumerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A consumer's position, as the broker sees it."""

    pending: int
    """Stored and not yet delivered."""
    ack_pending: int
    """Delivered and not yet settled."""
    redelivered: int
    ack_floor: int = 0
    """Everything of the stream up to this sequence is settled, or was never for this consumer."""
    delivered: int = 0
    """Everything of the stream up to this sequence was handed out, or was never for this consumer."""


class PullConsumer(Protocol):
    """A durable consumer attached by this process."""

    async def fetch(self, count_max: int, *, wait_s: float) -> Sequence[Delivery]:
        """At most `count_max` deliveries, as soon as there is one; an empty sequence after `wait_s` without any.

        Raises `BusConnectionError` when the broker is away; the caller decides when to ask again. Cancelling it loses
        nothing: what was on its way comes again after `ack_wait_s`.
        """
        ...

    async def info(self) -> ConsumerInfo: ...

    async def close(self) -> None:
        """Detach. The durable position stays with the broker. Idempotent.

        What was fetched can still be settled. What came for a fetch that was cancelled is handed back; what is handed
        back from now on goes to others.
        """
        ...


class OutgoingMessage(msgspec.Struct, frozen=True, gc=False):
    """Bytes for a subject. `message_id` is the key of deduplication for stored messages."""

    subject: str
    payload: bytes
    message_id: str | None = None
    headers: Mapping[str, str] | None = None


StateListener = Callable[[ConnectionState], None]


@runtime_checkable
class MessageBroker(Protocol):
    """Moves bytes. Safe to use from many tasks of one event loop.

    One that can send without waiting may also have `offer(message) -> Receipt | None`: it publishes at most once what
    can leave now, and otherwise says None, or raises as `publish` does, and has sent nothing. The bus asks it first.
    """

    @property
    def capabilities(self) -> Capabilities:
        """Known after `connect`; before it, what is configured or assumed."""
        ...

    @property
    def state(self) -> ConnectionState: ...

    def on_state(self, listener: StateListener) -> Callable[[], None]:
        """Call `listener` at every change of state, until what is returned is called; that is idempotent.

        One that raises is reported and changes nothing.
        """
        ...

    async def connect(self) -> None:
        """Connect within the configured time. Idempotent. Raises `BusConnectionError`; nothing is left open then."""
        ...

    async def disconnect(self) -> None:
        """Flush and close. Idempotent; never raises for a connection that is gone."""
        ...

    async def drain(self) -> None:
        """Stop receiving on all subscriptions, finish what was received, flush what was published; then disconnect."""
        ...

    async def publish(
        self,
        message: OutgoingMessage,
        *,
        delivery: DeliveryClass = DeliveryClass.AT_MOST_ONCE,
        timeout_s: float = 5.0,
    ) -> Receipt:
        """Send one message with the guarantee asked for.

        Raises `PayloadTooLargeError` (nothing sent), `PublishError` (refused, nothing stored),
        `UnconfirmedPublishError` (no answer within `timeout_s`: maybe stored, repeat with the same id) or
        `BusConnectionError` (not sent).
        """
        ...

    async def subscribe(self, pattern: str, on_delivery: OnDelivery, *, group: str | None = None) -> BrokerSubscription:
        """Push what is published on `pattern` from now on; in a `group`, each message goes to one member.

        When it returns, the broker has the interest registered. `on_delivery` is awaited message by message in order.
        """
        ...

    async def consumer(self, spec: ConsumerSpec) -> PullConsumer:
        """Attach to the durable consumer, creating or updating it. Raises `SubscriptionError` when it cannot be had."""
        ...

    async def ensure_stream(self, spec: StreamSpec) -> None:
        """Create the stream or bring its bounds and subjects up to `spec`. Raises `MessageBusError` when refused."""
        ...

    async def read_stored(
        self, stream: str, *, from_sequence: int = 1, count_max: int = 100
    ) -> Sequence[StoredMessage]:
        """At most `count_max` messages of the stream, in order, from `from_sequence` on; no position is moved.

        An empty sequence means that there is nothing at or after it. What was stored before the call is found. What was
        erased before it is not, except that of several messages read from a stream with replicas some may have been
        erased a moment ago; a single message (`count_max` 1) is there. Raises `MessageBusError` for an unknown stream.
        """
        ...

    async def erase_stored(self, stream: str, sequence: int) -> bool:
        """Remove one message from the stream for good; False when it was not there (any more)."""
        ...

    async def request(self, message: OutgoingMessage, *, timeout_s: float) -> Delivery:
        """Send and wait for one reply. Raises `RequestTimeoutError`, at once when nobody listens."""
        ...
