"""What the broker gives up for consumers of other clients, which have a limit of deliveries, becomes a dead letter."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec

from polaris.clock import Clock
from polaris.exceptions import MessageBusError, PolarisException
from polaris.messaging._broker import (
    GIVEN_UP_PREFIX,
    ConnectionState,
    ConsumerSpec,
    Delivery,
    MessageBroker,
    StoredMessage,
    StreamSpec,
)
from polaris.messaging._cloudevents import EventCodec
from polaris.messaging._dead_letter_entry import DeadLetterFilter, DeadLetterReason
from polaris.messaging._dead_letters import DeadLetters, DeadLetterWriter, Failure
from polaris.messaging._kept_back import KeptBack
from polaris.messaging._sources import AWAY, PulledSource
from polaris.messaging._streams import ADVISORY_STREAM
from polaris.messaging._subjects import topic_pattern
from polaris.messaging._subscription import SubscriptionStats
from polaris.resilience import Backoff

if TYPE_CHECKING:
    from polaris.observability import MetricsCollector, StructuredLogger

DURABLE = "polaris-given-up"
GONE = "gone"
UNREADABLE = "unreadable"
ABANDONED = "abandoned"
WAITING_MAX = 32
IN_FLIGHT_MAX = 256
ACK_WAIT_S = 60.0
ATTEMPTS_MAX = 1_000
"""To put one aside: about half a day. Those that are tried again fill the position of their stream."""
LATER = Backoff(1.0, 600.0, jitter="equal")
"""Before a server that refused is asked again; it writes a line each time."""
AGAIN = Backoff(0.5, 60.0, jitter="equal")


class Advisory(msgspec.Struct, frozen=True):
    """What JetStream says of a message that it will not deliver to a consumer any more."""

    stream: str
    consumer: str
    stream_seq: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    deliveries: int


class _GivenUp(NamedTuple):
    """The message, as the writer of dead letters takes it."""

    subject: str
    payload: bytes
    headers: Mapping[str, str]
    attempt: int
    sequence: int | None
    stored_at: datetime | None


_decode = msgspec.json.Decoder(Advisory).decode


class GivenUpWatch:
    """Puts aside what the broker gave up in the streams of the bus, with the reason `given_up`.

    Consumers of the bus have no limit of deliveries; those of other clients may, and a message that reached it would
    silently stop coming. The broker announces it once, to whoever listens, so the advisories are kept in a stream of
    their own. Each stream of the bus has one durable position there, shared by all processes, so that each advisory is
    handled by one of them, also when none runs at the time. It is acknowledged after its dead letter is stored; if it
    comes again because a process ended between the two, nothing is stored twice.

    A message that is gone from its stream by then (its bounds) is logged and counted; so is an advisory that cannot be
    read or says something else than its subject, and one that could not be put aside in a thousand attempts. A message
    of the dead-letter stream stays there, and gets no dead letter of its own. Advisories of other streams are not
    looked at.

    `grace_s` is how long the end waits for what is being put aside.
    """

    def __init__(
        self,
        broker: MessageBroker,
        codec: EventCodec,
        streams: Sequence[StreamSpec],
        dead_letter_stream: StreamSpec,
        *,
        grace_s: float,
        collector: MetricsCollector | None,
        logger: StructuredLogger,
        clock: Clock,
    ) -> None:
        self.stats = SubscriptionStats()
        self._broker = broker
        self._writer = DeadLetterWriter(broker, codec, clock=clock)
        self._letters = DeadLetters(broker, codec=codec, stream=dead_letter_stream)
        self._stream = msgspec.structs.replace(ADVISORY_STREAM, replicas=dead_letter_stream.replicas)
        self._watched = {stream.name: stream for stream in streams if stream.name != dead_letter_stream.name}
        self._grace_s = grace_s
        self._collector = collector
        self._logger = logger
        self._clock = clock
        self._lines: KeptBack[str] = KeptBack(clock)
        self._sources: dict[str, PulledSource] = {}
        self._waiting: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._freed = asyncio.Event()
        self._ending = False
        self._refusals = 0
        self._refused: set[str] = set()
        self._working: asyncio.Task[None] | None = None
        self._attaching: asyncio.Task[None] | None = None

    # Life.

    async def start(self) -> None:
        """Have the advisories kept from now on, and read them. What the broker refuses is tried again later."""
        self._ending = False
        self._refusals = 0
        self._refused.clear()
        self._working = asyncio.create_task(self._work(), name=DURABLE)
        try:
            if not await self._attached():
                self._attaching = asyncio.create_task(self._attach_later(), name=f"{DURABLE}-attach")
        except BaseException:  # boundary: undone, then raised again
            await self.stop()
            raise

    async def stop(self) -> None:
        """Finish what is being put aside, hand the rest back. Idempotent; never raises for a broker that is away."""
        working, self._working = self._working, None
        attaching, self._attaching = self._attaching, None
        if working is None:
            return
        if attaching is not None:
            attaching.cancel()
            await asyncio.wait([attaching])
        await asyncio.gather(*(source.halt() for source in self._sources.values()))
        self._ending = True
        self._arrived.set()
        await asyncio.wait([working], timeout=self._grace_s)
        working.cancel()
        await asyncio.wait([working])
        while self._waiting:
            await self._settle(self._waiting.popleft().nak(delay_s=0.0))
        for source in self._sources.values():
            await source.close()
        self._sources.clear()
        for line, count in self._lines.overdue(everything=True):
            self._logger.warning(line, kept_back=count, subscription=DURABLE)

    async def _attach_later(self) -> None:
        while True:
            connected = self._broker.state is ConnectionState.CONNECTED
            await self._clock.sleep((LATER if connected else AWAY).delay_s(self._refusals))
            if await self._attached():
                return

    async def _attached(self) -> bool:
        """Whether the broker has done it all; a stream that it refuses keeps no other from being watched."""
        try:
            await self._broker.ensure_stream(self._stream)
        except PolarisException as error:
            self._was_refused(self._stream.name, error)
            done = False
        else:
            missing = [name for name in self._watched if name not in self._sources]
            done = all(await asyncio.gather(*map(self._is_attached, missing)))
        self._refusals += not done
        return done

    async def _is_attached(self, name: str) -> bool:
        spec = ConsumerSpec(
            stream=self._stream.name,
            durable=f"{DURABLE}-{name}",
            pattern=f"{GIVEN_UP_PREFIX}{name}.>",
            ack_wait_s=ACK_WAIT_S,
            in_flight_max=IN_FLIGHT_MAX,
        )
        source = PulledSource(self._broker, spec, clock=self._clock, logger=self._logger, stats=self.stats, rare=True)
        try:
            await source.start(self)
        except PolarisException as error:
            self._was_refused(name, error)
            return False
        self._sources[name] = source
        return True

    def _was_refused(self, stream: str, error: PolarisException) -> None:
        """Said aloud once for each."""
        say = self._logger.debug if stream in self._refused else self._logger.warning
        self._refused.add(stream)
        line = "what the broker gives up cannot become a dead letter now; it is tried again later"
        say(line, stream=stream, error=error)

    # The sink of the sources.

    @property
    def room(self) -> int:
        return WAITING_MAX - len(self._waiting)

    async def wait_for_room(self) -> None:
        while self.room < WAITING_MAX // 4:
            self._freed.clear()
            await self._freed.wait()

    def accept(self, delivery: Delivery) -> bool:
        self.stats.received += 1
        self._waiting.append(delivery)
        self._arrived.set()
        return self.room > 0

    # From advisory to dead letter.

    async def _work(self) -> None:
        while not self._ending:
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            delivery = self._waiting[0]
            try:
                await self._put_aside(delivery)
            except Exception as error:  # boundary: one that cannot be put aside must not keep others from it
                await self._not_put_aside(delivery, error)
            else:
                await self._settle(delivery.ack())
            self._waiting.popleft()
            self._freed.set()

    async def _put_aside(self, delivery: Delivery) -> None:
        try:
            advisory = _read(delivery)
        except msgspec.DecodeError as error:
            self._drop(delivery, UNREADABLE)
            self._log("an advisory cannot be read", topic=delivery.subject, error=error)
            return
        if delivery.attempt > 1 and await self._is_stored(advisory, delivery):
            return
        message = await self._original(advisory, delivery)
        if message is None:
            self._drop(delivery, GONE)
            self._log("a message that the broker gave up is gone from its stream", **_facts(advisory))
            return
        reason, text = DeadLetterReason.GIVEN_UP, f"given up after {advisory.deliveries} deliveries, none acknowledged"
        original = _GivenUp(
            message.subject,
            message.payload,
            message.headers,
            advisory.deliveries,
            message.sequence,
            message.stored_at,
        )
        failure = Failure(reason, MessageBusError(text, {"attempts": advisory.deliveries}))
        receipt = await self._writer.store(original, failure, subscription=advisory.consumer, stream=advisory.stream)
        if receipt.duplicate:
            return
        self.stats.dead_lettered += 1
        self._log("a message is put aside", topic=message.subject, reason=reason, **_facts(advisory))
        if self._collector is not None:
            self._collector.instruments.dead_letters(topic_pattern(message.subject), reason.value).inc()

    async def _not_put_aside(self, delivery: Delivery, error: Exception) -> None:
        if delivery.attempt < ATTEMPTS_MAX:
            self._log("what the broker gave up could not be put aside; it is tried again", error=error)
            await self._settle(delivery.nak(delay_s=AGAIN.delay_s(delivery.attempt)))
            return
        self._drop(delivery, ABANDONED)
        line = "what the broker gave up could not be put aside; it is not tried any more"
        self._log(line, topic=delivery.subject, attempt=delivery.attempt, error=error)
        await self._settle(delivery.ack())

    def _drop(self, delivery: Delivery, reason: str) -> None:
        """Count an advisory of which nothing becomes."""
        self.stats.lost += 1
        if self._collector is not None:
            stream = delivery.subject.removeprefix(GIVEN_UP_PREFIX).partition(".")[0]
            topic = topic_pattern(self._watched[stream].subjects[0].replace(">", "x"))
            self._collector.instruments.messages_dropped(topic, DURABLE, reason).inc()

    async def _original(self, advisory: Advisory, delivery: Delivery) -> StoredMessage | None:
        """The message that was given up; None when the stream has it no more, or has been made anew since."""
        found = await self._broker.read_stored(advisory.stream, from_sequence=advisory.stream_seq, count_max=1)
        for message in found:
            told_at = delivery.stored_at
            if message.sequence == advisory.stream_seq and (told_at is None or message.stored_at <= told_at):
                return message
        return None

    async def _is_stored(self, advisory: Advisory, delivery: Delivery) -> bool:
        """Whether this advisory became a dead letter before, perhaps too long ago for the broker to know its id."""
        wanted = DeadLetterFilter(
            subscription=advisory.consumer, reason=DeadLetterReason.GIVEN_UP, since=delivery.stored_at
        )
        async with aclosing(self._letters.scan(wanted, newest_first=False)) as records:
            async for _, _, entry in records:
                if (entry.stream, entry.sequence) == (advisory.stream, advisory.stream_seq):
                    return True
        return False

    async def _settle(self, settlement: Awaitable[None]) -> None:
        """Without it the advisory comes again, which does no harm."""
        try:
            await settlement
        except MessageBusError as error:
            self.stats.unsettled += 1
            self._logger.debug("a settlement could not be sent", subscription=DURABLE, error=error)

    def _log(self, line: str, **fields: object) -> None:
        kept_back = self._lines.admit(line)
        if kept_back is not None:
            self._logger.warning(line, kept_back=kept_back or None, **{"subscription": DURABLE, **fields})


def _read(delivery: Delivery) -> Advisory:
    """Raises `msgspec.DecodeError`, also when it was not published by whom its subject says."""
    advisory = _decode(delivery.payload)
    if delivery.subject != f"{GIVEN_UP_PREFIX}{advisory.stream}.{advisory.consumer}":
        raise msgspec.ValidationError("it names another stream or consumer than its subject")
    return advisory


def _facts(advisory: Advisory) -> dict[str, object]:
    return {
        "stream": advisory.stream,
        "sequence": advisory.stream_seq,
        "subscription": advisory.consumer,
        "attempt": advisory.deliveries,
    }
