"""Subscribing: from a pattern and a handler to a route at work, and the end of all routes."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from polaris.clock import Clock
from polaris.exceptions import BusConnectionError, SubscriptionError
from polaris.ids import new_id
from polaris.messaging._acks import AckWish
from polaris.messaging._broker import (
    AckPolicy,
    ConsumerInfo,
    ConsumerSpec,
    Delivery,
    DeliveryClass,
    MessageBroker,
    Start,
    StreamSpec,
)
from polaris.messaging._chain import MiddlewareChain
from polaris.messaging._cloudevents import EventCodec
from polaris.messaging._cumulative import Cumulative
from polaris.messaging._dead_letters import DeadLetterWriter
from polaris.messaging._given_up import GivenUpWatch
from polaris.messaging._handlers import BoundHandler
from polaris.messaging._invocation import Invoker
from polaris.messaging._replay import ACK_WAIT_S as REPLAY_ACK_WAIT_S
from polaris.messaging._replay import FETCH_MAX as REPLAY_IN_FLIGHT_MAX
from polaris.messaging._replay import INACTIVE_S as REPLAY_INACTIVE_S
from polaris.messaging._replay import Replay, ReplayReport
from polaris.messaging._requests import Responder
from polaris.messaging._router import Route
from polaris.messaging._sequences import GapDetector
from polaris.messaging._settlement import Settlement
from polaris.messaging._sources import PulledSource, PushedSource, Source
from polaris.messaging._subjects import DEAD_LETTER_PREFIX, covers, overlap, topic_pattern
from polaris.messaging._subscription import (
    Subscription,
    SubscriptionOptions,
    SubscriptionStats,
    check_without_stream,
)

if TYPE_CHECKING:
    from polaris.observability import MetricsCollector, StructuredLogger

UNNAMED_INACTIVE_S = 300.0
UNSETTLED_MAX = 1_024
NAME_CHARS_MAX = 128
_ILLEGAL = re.compile(r"[^A-Za-z0-9_-]")


class Position(NamedTuple):
    """Where in a stream a subscription begins and who shares that place, as asked for."""

    delivery: DeliveryClass | None = None
    group: str | None = None
    durable: str | None = None
    start: Start | None = None

    @property
    def unnamed(self) -> bool:
        """Whether nobody could take it up again."""
        return self.durable is None and self.group is None

    def name(self, pattern: str, handler: BoundHandler, *, core: bool) -> str:
        """The consumer's name: as given, or of the group and pattern, or unlike any other; of a core one, for logs."""
        if self.durable is not None:
            return _legal_name(self.durable)
        if self.group is not None:
            return _legal_name(self.group, apart=pattern)
        short = handler.name.rpartition(".")[2]
        return pattern if core else _legal_name(short, apart=new_id())


def _legal_name(text: str, *, apart: str = "") -> str:
    """A name that every broker takes: itself if it is one, otherwise what is legal of it and a digest of the whole."""
    if not text:
        raise SubscriptionError("the name of a durable subscription or group must not be empty")
    legal = _ILLEGAL.sub("_", text[:NAME_CHARS_MAX])
    if legal == text and not apart:
        return text
    digest = hashlib.sha256(f"{text}\0{apart}".encode(errors="surrogatepass")).hexdigest()
    return f"{legal}-{digest[:16]}"


class Inbound:
    """The way into a bus: its routes. `PolarisMessageBus` documents what is promised."""

    def __init__(
        self,
        broker: MessageBroker,
        codec: EventCodec,
        answers: EventCodec,
        chain: MiddlewareChain,
        streams: Sequence[StreamSpec],
        *,
        grace_s: float,
        collector: MetricsCollector | None,
        logger: StructuredLogger,
        clock: Clock,
    ) -> None:
        self._broker = broker
        self._codec = codec
        self._chain = chain
        self._streams = streams
        self._grace_s = grace_s
        self._collector = collector
        self._logger = logger
        self._clock = clock
        self._responder = Responder(broker, answers, logger=logger)
        self._dead_letters: DeadLetterWriter | None = None
        self._given_up: GivenUpWatch | None = None
        dead_letter_stream = self.stream_of(DEAD_LETTER_PREFIX + ">")
        if dead_letter_stream is not None:
            self._dead_letters = DeadLetterWriter(broker, codec, clock=clock)
            (spec,) = (stream for stream in streams if stream.name == dead_letter_stream)
            self._given_up = GivenUpWatch(
                broker, codec, streams, spec, grace_s=grace_s, collector=collector, logger=logger, clock=clock
            )
        self._routes: list[Route] = []
        # Names of positions that are being taken by those who must be alone on them.
        self._alone: set[str] = set()
        self._subscriptions: list[Subscription] = []
        self._ending = False

    @property
    def subscriptions(self) -> Sequence[Subscription]:
        """Those that have not ended."""
        return [one for one in self._subscriptions if one.active]

    def stream_of(self, pattern: str) -> str | None:
        """The stream that stores everything the pattern matches, or None."""
        for stream in self._streams:
            if any(covers(subject, pattern) for subject in stream.subjects):
                return stream.name
        return None

    async def start(self) -> None:
        """Begin to put aside what the broker gives up for consumers of other clients; a broker that refuses is let."""
        self._ending = False
        if self._given_up is not None:
            await self._given_up.start()

    async def subscribe(
        self,
        pattern: str,
        handler: BoundHandler,
        options: SubscriptionOptions,
        position: Position,
        wish: AckWish,
    ) -> Subscription:
        stream = self._stream_for(pattern, position)
        if stream is None:
            check_without_stream(options, position.start)
        name = position.name(pattern, handler, core=stream is None)
        ack = wish.granted(options, core=stream is None, group=position.group, delivery=position.delivery)
        stats = SubscriptionStats()
        source = self._source(pattern, name, options, stats, stream, position, ack)
        once = stream is None or ack is AckPolicy.NONE
        given = DeliveryClass.AT_MOST_ONCE if once else DeliveryClass.AT_LEAST_ONCE
        invoker = Invoker(
            handler,
            self._chain,
            self._codec,
            subscription=name,
            delivery=given,
            timeout_s=options.handler_timeout_s,
            stats=stats,
            shared=stream is not None,
        )
        route = Route(
            source,
            invoker,
            self._settlement(name, options, stats, stream, ack, source),
            options,
            stats,
            clock=self._clock,
            logger=self._logger,
            grace_s=self._grace_s,
            answer=self._responder.answer,
            gaps=self._gap_detector(name, stats) if options.detect_gaps else None,
        )
        with self._alone_on(name, ack):
            await route.start()
        if self._ending:
            await route.stop()
            raise BusConnectionError("the bus has ended meanwhile")
        self._routes = [known for known in self._routes if known.active]
        self._routes.append(route)
        subscription = Subscription(pattern, name, given, route)
        self._subscriptions = [*self.subscriptions, subscription]
        return subscription

    @contextmanager
    def _alone_on(self, name: str, ack: AckPolicy) -> Iterator[None]:
        """Round the beginning of a subscription: one that must be alone on its position is the only one to begin."""
        if ack is not AckPolicy.ALL:
            yield
            return
        if name in self._alone or any(route.active and route.name == name for route in self._routes):
            raise SubscriptionError("one who settles all that came before is alone on a position", {"durable": name})
        self._alone.add(name)
        try:
            yield
        finally:
            self._alone.discard(name)

    async def replay(
        self, pattern: str, handler: BoundHandler, start: Start, until: datetime | None, batch_max: int
    ) -> ReplayReport:
        stream = self._stream_for(pattern, Position(DeliveryClass.AT_LEAST_ONCE))
        assert stream is not None  # noqa: S101 - at least once is refused otherwise
        name = _legal_name(f"replay-{handler.name.rpartition('.')[2]}", apart=new_id())
        invoker = Invoker(
            handler,
            self._chain,
            self._codec,
            subscription=name,
            delivery=DeliveryClass.AT_LEAST_ONCE,
            timeout_s=None,
            stats=SubscriptionStats(),
        )
        spec = ConsumerSpec(
            stream=stream,
            durable=name,
            pattern=pattern,
            ack_wait_s=REPLAY_ACK_WAIT_S,
            in_flight_max=REPLAY_IN_FLIGHT_MAX,
            start=start,
            inactive_s=REPLAY_INACTIVE_S,
        )
        return await Replay(self._broker, invoker, batch_max=batch_max, clock=self._clock).run(spec, until)

    async def stop(self, *, finish_all: bool) -> None:
        """End all routes at the same time; one that fails does not keep the others from ending."""
        self._ending = True
        routes, self._routes = self._routes, []
        endings = [route.stop(finish_all=finish_all) for route in routes]
        if self._given_up is not None:
            endings.append(self._given_up.stop())
        outcomes = await asyncio.gather(*endings, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                self._logger.error("a subscription did not end cleanly", error=outcome)

    def _source(
        self,
        pattern: str,
        name: str,
        options: SubscriptionOptions,
        stats: SubscriptionStats,
        stream: str | None,
        position: Position,
        ack: AckPolicy,
    ) -> Source:
        if stream is None:
            group = None if position.group is None else _legal_name(position.group)
            observe_drop = self._drop_observer(name)
            return PushedSource(
                self._broker, pattern, group, logger=self._logger, stats=stats, observe_drop=observe_drop
            )
        spec = ConsumerSpec(
            stream=stream,
            durable=name,
            pattern=pattern,
            ack_wait_s=options.ack_wait_s,
            ack=ack,
            # Where nothing can be settled before what is elsewhere has come here, there must be room for it here.
            in_flight_max=options.in_flight_max
            if ack is AckPolicy.ALL
            else max(UNSETTLED_MAX, 4 * options.in_flight_max),
            start=position.start or (Start.NEW if position.unnamed else Start.ALL),
            inactive_s=UNNAMED_INACTIVE_S if position.unnamed else None,
        )
        observe = self._consumer_observer(name)
        return PulledSource(self._broker, spec, clock=self._clock, logger=self._logger, stats=stats, observe=observe)

    def _settlement(
        self,
        name: str,
        options: SubscriptionOptions,
        stats: SubscriptionStats,
        stream: str | None,
        ack: AckPolicy,
        source: Source,
    ) -> Settlement:
        return Settlement(
            name,
            options,
            stats,
            stream=stream,
            ack=ack,
            cumulative=Cumulative(source.info) if ack is AckPolicy.ALL else None,
            dead_letters=self._dead_letters,
            clock=self._clock,
            logger=self._logger,
            observe=self._delivery_observer(name, durable=stream is not None),
            observe_drop=self._drop_observer(name),
        )

    def _stream_for(self, pattern: str, position: Position) -> str | None:
        delivery, durable = position.delivery, position.durable
        if delivery is DeliveryClass.AT_MOST_ONCE:
            if durable is not None:
                raise SubscriptionError("a durable subscription is at least once", {"durable": durable})
            return None
        stream = self.stream_of(pattern)
        if stream is None and (delivery is not None or durable is not None):
            touched = [spec.name for spec in self._streams if any(overlap(s, pattern) for s in spec.subjects)]
            hint = f"it reaches into {', '.join(touched)}; subscribe to each" if touched else "no stream stores it"
            raise SubscriptionError(f"{pattern!r} cannot be delivered at least once: {hint}", {"topic": pattern})
        return stream

    def _gap_detector(self, name: str, stats: SubscriptionStats) -> GapDetector:
        if self._collector is None:
            return GapDetector(stats)
        instruments = self._collector.instruments
        return GapDetector(
            stats, on_missed=instruments.sequence_missed(name).inc, on_late=instruments.sequence_late(name).inc
        )

    def _delivery_observer(self, name: str, *, durable: bool) -> Callable[[Delivery, str | None], None] | None:
        if self._collector is None:
            return None
        instruments = self._collector.instruments
        lag = instruments.consumer_lag(name) if durable else None
        clock = self._clock

        def observe(delivery: Delivery, reason: str | None) -> None:
            if reason is not None:
                instruments.dead_letters(topic_pattern(delivery.subject), reason).inc()
            if delivery.attempt > 1:
                instruments.redeliveries(topic_pattern(delivery.subject)).inc()
            if lag is not None and delivery.stored_at is not None:
                lag.set(max(0.0, (clock.now() - delivery.stored_at).total_seconds()))

        return observe

    def _drop_observer(self, name: str) -> Callable[[Delivery, str], None] | None:
        if self._collector is None:
            return None
        instruments = self._collector.instruments

        def observe(delivery: Delivery, reason: str) -> None:
            instruments.messages_dropped(topic_pattern(delivery.subject), name, reason).inc()

        return observe

    def _consumer_observer(self, name: str) -> Callable[[ConsumerInfo], None] | None:
        if self._collector is None:
            return None
        pending = self._collector.instruments.consumer_pending(name)
        unacked = self._collector.instruments.consumer_unacked(name)

        def observe(info: ConsumerInfo) -> None:
            pending.set(info.pending)
            unacked.set(info.ack_pending)

        return observe
