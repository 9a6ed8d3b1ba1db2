"""The message bus: typed events in and out, over a broker that moves bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Self

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import EVENTS, EventKind, EventRegistry, PolarisEvent, TelemetryBatch, TelemetryEvent
from polaris.exceptions import (
    ConfigurationError,
)
from polaris.messaging._acks import AckPolicies
from polaris.messaging._broker import (
    AckPolicy,
    ConnectionState,
    DeliveryClass,
    MessageBroker,
    Receipt,
    Start,
    StreamSpec,
)
from polaris.messaging._chain import MessageMiddleware, MiddlewareChain, MiddlewareFunction
from polaris.messaging._cloudevents import EventCodec
from polaris.messaging._coalescing import LINGER_S
from polaris.messaging._connection_metrics import show_connections
from polaris.messaging._dead_letters import DeadLetters
from polaris.messaging._handlers import EventTypes, Handler, bind_handler
from polaris.messaging._inbound import Inbound, Position
from polaris.messaging._life import Life
from polaris.messaging._outage import OutageBuffer
from polaris.messaging._outbound import Outbound
from polaris.messaging._publish_account import PublishAccount, new_books
from polaris.messaging._publisher import Publisher
from polaris.messaging._redelivery import RedeliveryPolicy
from polaris.messaging._replay import ReplayReport
from polaris.messaging._requests import check_requestable
from polaris.messaging._sequences import Numbering
from polaris.messaging._streams import STANDARD_STREAMS
from polaris.messaging._subjects import check_pattern, check_topic, topic_of
from polaris.messaging._subscription import OrderKey, Subscription, options_for
from polaris.messaging._wire_format import WireFormat
from polaris.messaging.middleware._correlation import with_correlation
from polaris.resilience import CircuitBreaker

if TYPE_CHECKING:
    from polaris.observability import MetricsCollector, StructuredLogger

PUBLISH_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 5.0
GRACE_S = 10.0


class PolarisMessageBus:
    """Carries events between parts of POLARIS, and between POLARIS and the world.

    `start` connects the broker, which the bus then owns, and ensures the streams; `stop` ends the subscriptions, hands
    back what they had accepted and not finished, and disconnects; `drain` finishes it first. A bus may be started
    again, without its former subscriptions. Usable as an async context manager. One event loop; safe from many of its
    tasks.

    Events of topics that a stream stores travel at least once, all others at most once, unless asked otherwise. The
    correlation id of the running scope goes with every event that has none, and is current in its handlers.

    Args:
        broker: moves the bytes.
        middleware_chain: goes round every publish and every delivery.
        streams: ensured at start; `STANDARD_STREAMS` and whatever else the application stores. One of them must hold
            `polaris.dead_letter.>`, or nothing can be put aside.
        registry: the event types that can travel; one of your own has `EVENTS` for its parent.
        redelivery: for subscriptions that do not say otherwise.
        ack_policies: for the subscriptions to events of a kind (telemetry, if they get nothing else) that do not say
            otherwise and can have them; `AckPolicy.EACH` for a kind that is not mentioned. `AckPolicy.NONE` is not for
            control events.
        wire_format: how this bus writes events; it reads both forms, whatever it writes. Dead letters are JSON always.
        outage: how much may wait to be published while the broker is away, and what must go when there is more.
        telemetry_linger_s: the latency that `publish_telemetry` may add to gather more events in a message, up to 1 s;
            only under load, see there. 0 adds none.
        grace_s: how long running handlers may take to finish when a subscription ends.
        collector: counts dead letters, redeliveries, what waits for consumers and what became of what was published.
            (Messages are counted by `MetricsMiddleware`.)
        logger, clock: for tests and for those who want them elsewhere.
    """

    def __init__(
        self,
        broker: MessageBroker,
        middleware_chain: MiddlewareChain | Iterable[MessageMiddleware | MiddlewareFunction] | None = None,
        *,
        streams: Sequence[StreamSpec] = STANDARD_STREAMS,
        registry: EventRegistry = EVENTS,
        redelivery: RedeliveryPolicy | None = None,
        ack_policies: Mapping[EventKind, AckPolicy] | None = None,
        wire_format: WireFormat = WireFormat.JSON,
        outage: OutageBuffer | None = None,
        telemetry_linger_s: float = LINGER_S,
        grace_s: float = GRACE_S,
        collector: MetricsCollector | None = None,
        logger: StructuredLogger | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        _check(registry)
        chain = with_correlation(middleware_chain)
        self.broker = broker
        self.streams = tuple(streams)
        self._registry = registry
        self._redelivery = redelivery or RedeliveryPolicy()
        self._ack_policies = AckPolicies(ack_policies, registry)
        self._codec = EventCodec(registry)
        written = self._codec if wire_format is WireFormat.JSON else EventCodec(registry, wire_format=wire_format)
        self._books = new_books(collector)
        self._outbound = Outbound(
            broker,
            written,
            Publisher(broker, self.streams, outage=outage or OutageBuffer(), clock=clock),
            chain,
            books=self._books,
            numbering=Numbering(clock.now().timestamp()),
            linger_s=telemetry_linger_s,
        )
        self._inbound = Inbound(
            broker,
            self._codec,
            written,
            chain,
            self.streams,
            grace_s=grace_s,
            collector=collector,
            logger=_logger() if logger is None else logger,
            clock=clock,
        )
        self._life = Life(broker, self.streams, self._inbound, self._outbound, grace_s=grace_s)
        if collector is not None:
            show_connections(broker, collector, clock=clock)

    # Life.

    @property
    def started(self) -> bool:
        """Whether the bus may be used."""
        return self._life.started

    @property
    def state(self) -> ConnectionState:
        """Where the connection to the broker stands."""
        return self.broker.state

    def on_state(self, listener: Callable[[ConnectionState], None]) -> Callable[[], None]:
        """Call `listener`, which must not block, at every change of `state` until what is returned is called."""
        return self.broker.on_state(listener)

    @property
    def published(self) -> Mapping[EventKind, PublishAccount]:
        """What became of the events that were published here, by their kind: the account of this moment."""
        return {kind: book.account() for kind, book in self._books.items()}

    @property
    def subscriptions(self) -> Sequence[Subscription]:
        """Those that have not ended, in the order in which they began."""
        return self._inbound.subscriptions

    @property
    def dead_letters(self) -> DeadLetters:
        """What was put aside: list, show, replay, drop."""
        return DeadLetters(self.broker, codec=self._codec)

    async def start(self) -> None:
        """Connect and ensure the streams. Idempotent.

        Raises `BusConnectionError`, or `ConfigurationError` when the broker cannot keep what the streams promise; the
        broker is disconnected then.
        """
        await self._life.start()

    async def stop(self) -> None:
        """End all subscriptions, then disconnect. Idempotent.

        Running handlers get the grace period; what was accepted and not finished is handed back to the broker.
        """
        await self._life.end(finish_all=False)

    async def drain(self) -> None:
        """As `stop`, but everything that was accepted is handled first, within the grace period."""
        await self._life.end(finish_all=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    # Publishing.

    async def publish(
        self,
        topic: str,
        event: PolarisEvent,
        *,
        delivery: DeliveryClass | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = PUBLISH_TIMEOUT_S,
    ) -> Receipt:
        """Publish one event and say which guarantee it got.

        `delivery`: None takes at least once where a stream stores the topic, at most once elsewhere. An event published
        again with the same `event_id` is stored once. Ends within `timeout_s`, in which what was not confirmed is sent
        again with the same id. Many publishes may wait at once; they do not wait for each other.

        Raises, and nothing is stored: `InvalidTopicError`, `PayloadTooLargeError`, `PublishError`,
        `BusConnectionError`, and what a middleware raises. Raises `UnconfirmedPublishError` when it may be stored: safe
        to repeat.
        """
        if not self._life.started:
            self._life.require_started()
        sent = self._outbound.publish(topic, event, delivery, headers, timeout_s)
        return sent if isinstance(sent, Receipt) else await sent

    async def publish_telemetry(
        self, event: TelemetryEvent | TelemetryBatch, *, timeout_s: float = PUBLISH_TIMEOUT_S
    ) -> Receipt:
        """Publish on `polaris.telemetry.<system_id>`, at least once; see `publish`.

        While a message of the system is on its way, the next events of the system gather and leave together in the
        CloudEvents batch format; the receipt is that of the message. An event on an idle topic leaves at once; while
        many publish on one topic, those that gather wait up to `telemetry_linger_s` for as many as came last time. An
        event published again may be stored again in other company: consumers know it by its id.
        """
        self._life.require_started()
        return await self._outbound.publish_coalesced(topic_of(event), event, timeout_s)

    async def publish_many(
        self,
        events: Iterable[PolarisEvent],
        *,
        topic: str | None = None,
        delivery: DeliveryClass | None = None,
        timeout_s: float = PUBLISH_TIMEOUT_S,
    ) -> list[Receipt]:
        """Publish many events in few messages; returns one receipt per event, in their order.

        Events go to `topic`, or each to its natural topic (`topic_of`). Those of one topic keep their order and share
        messages in the CloudEvents batch format, whose receipt they share too. `timeout_s` holds for each message.

        When a message fails, the later ones of its topic are not sent, other topics go on, and the first error is
        raised at the end. Publishing the same events again is safe: what was stored as the same message is stored once,
        and consumers know events by their id.
        """
        self._life.require_started()
        return await self._outbound.publish_many(list(events), topic, delivery, timeout_s)

    async def request(self, topic: str, event: PolarisEvent, timeout: float = REQUEST_TIMEOUT_S) -> PolarisEvent:
        """Publish an event and wait for the event that its handler returns, at most `timeout` seconds.

        Raises `RequestTimeoutError` (at once when nobody listens), `RequestFailedError` when the handler failed,
        `MessageBusError` for a topic that a stream stores, and as `publish` does.
        """
        self._life.require_started()
        check_requestable(check_topic(topic), self._inbound.stream_of(topic))
        return await self._outbound.request(topic, event, timeout)

    # Subscribing.

    async def subscribe(
        self,
        topic: str,
        handler: Handler,
        *,
        event_type: EventTypes | None = None,
        group: str | None = None,
        durable: str | None = None,
        delivery: DeliveryClass | None = None,
        ack: AckPolicy | None = None,
        start: Start | None = None,
        concurrency: int = 1,
        in_flight_max: int | None = None,
        ack_wait_s: float = 30.0,
        handler_timeout_s: float | None = 300.0,
        batch_max: int = 500,
        batch_linger_s: float = 0.005,
        redelivery: RedeliveryPolicy | None = None,
        ordered_by: OrderKey | None = None,
        breaker: CircuitBreaker | None = None,
        conflate: bool = False,
        stale_after_s: float | None = None,
        detect_gaps: bool = False,
    ) -> Subscription:
        """Call `handler` with the events of a topic or pattern; when this returns, the interest is registered.

        The handler is an async function or an `EventHandler`; the events it gets are those of `event_type` or of its
        annotation (see `bind_handler`), others are passed over. Annotated with a list of events, it gets many at once;
        with a second parameter, the `MessageContext` too.
        Every subscription has its own queue and workers: a slow or failing handler holds up nobody else.

        `delivery`: None takes at least once when one stream stores everything that the pattern matches, at most once
        otherwise. At least once, the message is acknowledged after the handler returned; what the handler raises
        decides by `redelivery` whether it comes again or is put aside. The position in the stream:

        - `durable`: of that name; it outlives the subscription and begins with everything stored.
        - `group`: shared by all who give the same group and pattern; each message goes to one of them.
        - neither: of this subscription alone; it begins with what is published from now on and is forgotten five
          minutes after its end.

        `ack` says what an acknowledgement covers (`AckPolicy`); None takes what the bus has for the kind of the events.
        With `ALL`, what fails is tried again in its place before what comes after it, and after a crash up to
        `in_flight_max` handled messages come again. It is for one who is alone on a position: not for a `group`, more
        than one handler at once, `ordered_by` or `conflate`. With `NONE` the guarantee is at most once; what cannot be
        decoded is put aside all the same.

        `ordered_by` keeps order where `concurrency` would lose it: "topic" handles the messages of a topic (a managed
        system) one after the other, a function of the event those of a key, others beside them. It holds within this
        process, through failures too: what fails is tried again before what comes after it, or put aside. Not for batch
        handlers.

        `breaker` stands round the handler. While it is open, because what the handler depends on is down, messages wait
        here and then at the broker, instead of being delivered in vain until they are put aside.

        `conflate` and `stale_after_s` are for telemetry of which only the present matters: a subscriber who falls
        behind then passes over what a newer message of the same topic (of the same system) has replaced, and what was
        stored longer ago than `stale_after_s`. What is passed over is settled and counted, in the subscription's stats
        and as polaris_messages_dropped_total; one who keeps up drops nothing.

        `detect_gaps` counts the telemetry events that were published and did not come (lost on core NATS, or removed
        from the stream at one of its bounds before they were read), in the subscription's stats and as
        polaris_sequence_missed_total. It needs a subscriber who sees everything: not for groups, nor for a durable
        position that several processes share.

        `start` says where a new position begins instead (see `Start`). `in_flight_max`: None takes 256, or two batches
        of a batch handler if that is more. See `SubscriptionOptions` for the other arguments.

        Without a stream only what is published from now on comes, and has no age: `stale_after_s`, and to `start`
        earlier, are refused. Messages that find no room, as too many wait, are lost, and counted as above.

        Raises `InvalidTopicError`, `SubscriptionError`, `InvalidValueError`, `BusConnectionError`.
        """
        self._life.require_going_on()
        bound = bind_handler(handler, event_type, self._registry)
        options = options_for(
            bound,
            group=group,
            in_flight_max=in_flight_max,
            concurrency=concurrency,
            ack_wait_s=ack_wait_s,
            handler_timeout_s=handler_timeout_s,
            batch_max=batch_max,
            batch_linger_s=batch_linger_s,
            redelivery=redelivery or self._redelivery,
            ordered_by=ordered_by,
            breaker=breaker,
            conflate=conflate,
            stale_after_s=stale_after_s,
            detect_gaps=detect_gaps,
        )
        return await self._inbound.subscribe(
            check_pattern(topic),
            bound,
            options,
            Position(delivery, group, durable, start),
            self._ack_policies.wish(ack, bound.types),
        )

    async def replay(
        self,
        topic: str,
        handler: Handler,
        *,
        start: Start = Start.ALL,
        until: datetime | None = None,
        event_type: EventTypes | None = None,
        batch_max: int = 500,
    ) -> ReplayReport:
        """Hand what a stream has stored to `handler`, in order, and return when that is done.

        It begins at `start` and ends with the last message that was stored before `until` (None: before this call). The
        handler, the events it gets and the middlewares are as with `subscribe`; positions of subscriptions do not move,
        and nothing is published anew. What the handler raises ends the replay and is raised here, with
        a note that says how far it came. Messages that cannot be decoded are counted and passed over: they
        were put aside when they were first delivered.

        Raises `SubscriptionError` when no single stream stores what the topic matches, `InvalidTopicError`,
        `InvalidValueError` for a naive `until`, `BusConnectionError`.
        """
        self._life.require_started()
        bound = bind_handler(handler, event_type, self._registry)
        return await self._inbound.replay(check_pattern(topic), bound, start, until, batch_max)


def _logger() -> StructuredLogger:
    from polaris.observability import StructuredLogger

    return StructuredLogger("polaris.messaging")


def _check(registry: EventRegistry) -> None:
    if registry.find("polaris.dead_letter") is None:
        raise ConfigurationError("the bus has events of its own: use EventRegistry(parent=EVENTS)")
