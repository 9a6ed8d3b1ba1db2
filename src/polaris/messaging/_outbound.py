"""Publishing: from events, through the chain, to the bytes that leave; singly, in batches and as requests."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from polaris._correlation import current_correlation_id, new_correlation_id
from polaris.domain import EventKind, PolarisEvent
from polaris.exceptions import MessageDecodeError, PublishError
from polaris.messaging._batches import BATCH_BYTES, Batch, cut, places_by_topic
from polaris.messaging._broker import Delivery, DeliveryClass, MessageBroker, OutgoingMessage, Receipt
from polaris.messaging._chain import MiddlewareChain
from polaris.messaging._cloudevents import EventCodec
from polaris.messaging._coalescing import Coalescer
from polaris.messaging._content_encoding import packed
from polaris.messaging._context import MessageContext
from polaris.messaging._outage import Waiting
from polaris.messaging._publish_account import PublishBook, reason_of
from polaris.messaging._publisher import Publisher
from polaris.messaging._requests import reply_of
from polaris.messaging._sequences import Numbering
from polaris.messaging._single_events import SingleEvents, receipt_of
from polaris.messaging._subjects import check_topic
from polaris.observability import TraceContext, current_trace

TOPICS_AT_ONCE = 64
_BATCH = "polaris.batch"
_AT_MOST_ONCE = DeliveryClass.AT_MOST_ONCE
_TELEMETRY = EventKind.TELEMETRY


class Outbound:
    """The way out of a bus. `PolarisMessageBus` documents what is promised."""

    def __init__(
        self,
        broker: MessageBroker,
        codec: EventCodec,
        publisher: Publisher,
        chain: MiddlewareChain,
        *,
        books: Mapping[EventKind, PublishBook],
        numbering: Numbering,
        linger_s: float,
    ) -> None:
        self._broker = broker
        self._codec = codec
        self._publisher = publisher
        self._books = books
        self._numbering = numbering
        self._single = SingleEvents(codec, publisher, chain, books=books, numbering=numbering)
        self._entry = self._single.entry
        self.publish = self._single.publish
        """A single event: its receipt, or what is to be awaited for it; see `SingleEvents.publish`."""
        self._publish_batch = chain.bind(self._send_batch)
        self._ask = chain.bind(self._send_request)
        self._coalescer = Coalescer(self._publish_gathered, self._cut_encoded, publisher, linger_s=linger_s)
        # Under which trace each of the encoded events that gather was published, if any.
        self._traces: dict[int, TraceContext] = {}

    async def publish_coalesced(self, topic: str, event: PolarisEvent, timeout_s: float) -> Receipt:
        check_topic(topic)
        entry = self._entry(type(event))
        book, payload = self._books[entry.kind], b""
        number: str | None = None
        trace = current_trace()
        book.enter()
        try:
            if entry.kind is _TELEMETRY:
                number = self._numbering.next(topic, event.event_id)
            payload = self._codec.encode(
                event,
                correlation_id=event.correlation_id or current_correlation_id() or new_correlation_id(),
                traceparent=None if trace is None else trace.traceparent,
                tracestate=None if trace is None else trace.tracestate,
                sequence=number,
            )
            if trace is not None:
                self._traces[id(payload)] = trace
            receipt = await self._coalescer.publish(topic, event, payload, timeout_s, kind=entry.kind)
        except BaseException as error:  # boundary: noted, then raised again
            book.drop(reason_of(error))
            if number is not None:
                self._numbering.not_confirmed(topic, event.event_id, number)
            raise
        finally:
            if trace is not None:
                self._traces.pop(id(payload), None)
        book.confirm()
        return receipt

    async def finish(self, *, timeout_s: float) -> None:
        """Wait for what is under way, at most `timeout_s`, unless the broker is away; then nobody waits any more."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        while self._waiting and not self._publisher.away and loop.time() < until_s:  # noqa: ASYNC110 - seldom, and short
            await asyncio.sleep(0.005)
        self._publisher.close()
        await self._coalescer.finish(timeout_s=max(0.0, until_s - loop.time()))

    @property
    def _waiting(self) -> int:
        return sum(book.waiting for book in self._books.values())

    async def publish_many(
        self, events: Sequence[PolarisEvent], topic: str | None, delivery: DeliveryClass | None, timeout_s: float
    ) -> list[Receipt]:
        for event_class in dict.fromkeys(map(type, events)):
            self._entry(event_class)
        by_topic = places_by_topic(events, topic)
        for name in by_topic:
            check_topic(name)
        receipts: list[Receipt | None] = [None] * len(events)
        room = asyncio.Semaphore(TOPICS_AT_ONCE)
        begun: set[str] = set()

        async def publish_topic(name: str, indexes: Sequence[int]) -> None:
            async with room:
                begun.add(name)
                mine = [events[index] for index in indexes]
                for index, receipt in zip(
                    indexes, await self._publish_run(name, mine, delivery, timeout_s), strict=True
                ):
                    receipts[index] = receipt

        self._tally(events, PublishBook.enter)
        if len(by_topic) == 1:
            # As nearly always; what follows comes to the same.
            return await self._publish_run(next(iter(by_topic)), events, delivery, timeout_s)
        try:
            await _all(publish_topic(name, indexes) for name, indexes in by_topic.items())
        finally:
            left = [events[index] for name, indexes in by_topic.items() if name not in begun for index in indexes]
            self._tally(left, lambda book, count: book.drop("not_sent", count))
        return [receipt for receipt in receipts if receipt is not None]

    async def request(self, topic: str, event: PolarisEvent, timeout_s: float) -> PolarisEvent:
        context = self._context(topic, event, _AT_MOST_ONCE, timeout_s)
        context.awaits_reply = True
        await self._ask(context)
        reply: Delivery | None = context.result
        if reply is None:
            raise PublishError(f"a middleware stopped the request on {topic!r}; nothing was sent", {"topic": topic})
        return reply_of(topic, reply, self._codec)

    def _context(
        self, topic: str, event: PolarisEvent, delivery: DeliveryClass | None, timeout_s: float
    ) -> MessageContext:
        return MessageContext(
            topic,
            event,
            correlation_id=event.correlation_id or current_correlation_id(),
            event_type=self._entry(type(event)).name,
            delivery=self._publisher.guarantee(topic) if delivery is None else delivery,
            trace=current_trace(),
            timeout_s=timeout_s,
        )

    async def _publish_run(
        self, topic: str, events: Sequence[PolarisEvent], delivery: DeliveryClass | None, timeout_s: float
    ) -> list[Receipt]:
        """Publish events of one topic one message after the other; a receipt for each, or the error of the first.

        They stand in the books already; what becomes of them is entered here.
        """
        receipts: list[Receipt] = []
        numbers: Sequence[str | None] | None = None
        failed = len(events)
        try:
            encoded, numbers = self._encode(topic, events)
            for batch in self._cut_encoded(events, encoded):
                failed = len(batch.events)
                receipt = await self._publish_cut(topic, batch, timeout_s, delivery, current_trace())
                receipts += [receipt] * len(batch.events)
                self._tally(batch.events, PublishBook.confirm)
        except BaseException as error:  # boundary: noted, then raised again
            reason = reason_of(error)
            unsent = events[len(receipts) :]
            self._tally(unsent[:failed], lambda book, count: book.drop(reason, count))
            self._tally(unsent[failed:], lambda book, count: book.drop("not_sent", count))
            if numbers is not None:
                self._not_confirmed(topic, unsent, numbers[len(receipts) :])
            raise
        return receipts

    def _tally(self, events: Sequence[PolarisEvent], enter: Callable[[PublishBook, int], None]) -> None:
        for event_class, count in Counter(map(type, events)).items():
            enter(self._books[self._entry(event_class).kind], count)

    def _not_confirmed(self, topic: str, events: Sequence[PolarisEvent], numbers: Sequence[str | None]) -> None:
        for event, number in zip(events, numbers, strict=True):
            if number is not None:
                self._numbering.not_confirmed(topic, event.event_id, number)

    async def _send_batch(self, context: MessageContext) -> Receipt:
        batch: Batch
        batch, trace, place, waits = context.attributes[_BATCH]
        payload = self._joined(batch.encoded)
        if context.trace is not trace and context.trace is not None:
            payload = self._moved(payload, batch.encoded, trace, context.trace)
        self._single.mark(context, batch=len(batch.encoded) > 1)
        if context.encoding is not None:
            payload = packed(payload, context, context.encoding)
        message = OutgoingMessage(context.topic, payload, batch.message_id, context.headers or None)
        receipt = await self._publisher.send(
            message,
            context.delivery or _AT_MOST_ONCE,
            context.timeout_s,
            kind=self._kind(batch.events),
            place=place,
            waits=waits,
        )
        context.result = receipt
        return receipt

    def _kind(self, events: Sequence[PolarisEvent]) -> EventKind:
        """That of a message: one control event makes it precious."""
        if len(events) == 1:
            return self._entry(type(events[0])).kind
        kinds = {self._entry(event_class).kind for event_class in set(map(type, events))}
        return _TELEMETRY if kinds == {_TELEMETRY} else EventKind.CONTROL

    async def _send_request(self, context: MessageContext) -> Delivery:
        reply = await self._broker.request(self._single.message(context), timeout_s=context.timeout_s)
        context.result = reply
        return reply

    async def _publish_cut(
        self,
        topic: str,
        batch: Batch,
        timeout_s: float,
        delivery: DeliveryClass | None,
        trace: TraceContext | None,
        links: tuple[TraceContext, ...] = (),
        place: Waiting | None = None,
        waits: bool = True,
    ) -> Receipt:
        first = batch.events[0]
        context = self._context(topic, first, delivery, timeout_s)
        context.batch = batch.events
        context.trace, context.links = trace, links
        context.attributes[_BATCH] = batch, trace, place, waits
        await self._publish_batch(context)
        return receipt_of(context)

    async def _publish_gathered(self, topic: str, batch: Batch, timeout_s: float, place: Waiting | None) -> Receipt:
        """Events of different publishers: the trace of all of them, or links to those that they have."""
        trace: TraceContext | None = None
        links: tuple[TraceContext, ...] = ()
        if self._traces:
            traces = dict.fromkeys(self._traces.get(id(payload)) for payload in batch.encoded)
            if len(traces) == 1:
                (trace,) = traces
            else:
                links = tuple(one for one in traces if one is not None and one.sampled)
        return await self._publish_cut(topic, batch, timeout_s, None, trace, links, place, waits=len(batch.events) == 1)

    def _joined(self, encoded: Sequence[bytes]) -> bytes:
        return encoded[0] if len(encoded) == 1 else self._codec.join(encoded)

    def _moved(
        self, payload: bytes, encoded: Sequence[bytes], former: TraceContext | None, trace: TraceContext
    ) -> bytes:
        """The batch with its events under `trace` instead of `former`; those under a trace of their own keep it.

        Only what is recorded comes here, so the events, which had to be encoded to be cut into batches, are simply read
        and encoded again. A batch that would grow over the broker's limit stays as it was.
        """
        place = None if former is None else former.traceparent
        again = []
        for one in encoded:
            try:
                found = self._codec.decode(one)
            except MessageDecodeError:
                return payload
            if found.traceparent in (None, place):
                event = found.event
                again.append(
                    self._codec.encode(
                        event,
                        traceparent=trace.traceparent,
                        tracestate=trace.tracestate or None,
                        sequence=found.sequence if isinstance(found.sequence, str) else None,
                    )
                )
            else:
                again.append(one)
        moved = self._joined(again)
        return moved if len(moved) <= max(len(payload), self._broker.capabilities.payload_bytes_max) else payload

    def _encode(self, topic: str, events: Sequence[PolarisEvent]) -> tuple[list[bytes], Sequence[str | None]]:
        """Each under its own correlation id, else under that of the scope, else under one made for all of them.

        The second list has the numbers of those that are telemetry.
        """
        trace = current_trace()
        correlation_id = current_correlation_id() or new_correlation_id()
        number = self._numbering.next
        counted = {kind for kind in set(map(type, events)) if self._entry(kind).kind is _TELEMETRY}
        numbers = [number(topic, event.event_id) if type(event) in counted else None for event in events]
        try:
            encoded = self._codec.encode_each(
                events,
                numbers,
                correlation_id=correlation_id,
                traceparent=None if trace is None else trace.traceparent,
                tracestate=None if trace is None else trace.tracestate,
            )
        except BaseException:  # boundary: noted, then raised again
            self._not_confirmed(topic, events, numbers)
            raise
        return encoded, numbers

    def _cut_encoded(self, events: Sequence[PolarisEvent], encoded: Sequence[bytes]) -> list[Batch]:
        return list(cut(events, encoded, bytes_max=min(BATCH_BYTES, self._broker.capabilities.payload_bytes_max)))


async def _all(works: Iterable[Any]) -> None:
    """Run all to their end, then raise the first error, if any."""
    outcomes = await asyncio.gather(*works, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
