"""A single event on its way out, without a coroutine of its own where nothing has to be awaited."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Mapping
from typing import Any

from polaris._correlation import _correlation_id as correlation_variable
from polaris.domain import EventKind, EventType, PolarisEvent
from polaris.exceptions import PublishError
from polaris.messaging._broker import DeliveryClass, OutgoingMessage, Receipt
from polaris.messaging._chain import MiddlewareChain
from polaris.messaging._cloudevents import EventCodec
from polaris.messaging._content_encoding import packed
from polaris.messaging._context import MessageContext, MessageDirection
from polaris.messaging._publish_account import PublishBook, reason_of
from polaris.messaging._publisher import Publisher
from polaris.messaging._sequences import Numbering
from polaris.messaging._subjects import check_topic
from polaris.messaging._wire_format import CONTENT_TYPE_HEADER, WireFormat
from polaris.observability._trace import _current as trace_variable

TOPICS_MAX = 65_536
_PUBLISH = MessageDirection.PUBLISH
_AT_MOST_ONCE = DeliveryClass.AT_MOST_ONCE
_TELEMETRY = EventKind.TELEMETRY


class SingleEvents:
    """Publishes events one a message. `PolarisMessageBus.publish` documents what is promised.

    What the broker takes at once is out when `publish` returns, through as many plain calls as there are middlewares;
    a coroutine is made only for what has to wait: for a confirmation, for room, for the broker, for a middleware.
    """

    def __init__(
        self,
        codec: EventCodec,
        publisher: Publisher,
        chain: MiddlewareChain,
        *,
        books: Mapping[EventKind, PublishBook],
        numbering: Numbering,
    ) -> None:
        self._codec = codec
        self._encode = codec.encode
        self._publisher = publisher
        self._books = books
        self._number = numbering.next
        self._numbering = numbering
        self._send = chain.bind_outward(self._send_event)
        self._send_later = chain.bind(self._send_waiting)
        self._prompt = publisher.prompt
        self._marks = codec.wire_format is not WireFormat.JSON
        # Of the topics that were found legal.
        self._guarantees: dict[str, DeliveryClass] = {}
        # Of the classes that were published: what they are, whose account they are in, and whether they are numbered.
        self._known: dict[type[PolarisEvent], tuple[EventType, PublishBook, bool]] = {}

    def entry(self, event_class: type[PolarisEvent]) -> EventType:
        """What the class is registered as. Raises as `EventCodec.require` does."""
        return (self._known.get(event_class) or self._meet(event_class))[0]

    def _meet(self, event_class: type[PolarisEvent]) -> tuple[EventType, PublishBook, bool]:
        entry = self._codec.require(event_class)
        known = self._known[event_class] = entry, self._books[entry.kind], entry.kind is _TELEMETRY
        return known

    def publish(
        self,
        topic: str,
        event: PolarisEvent,
        delivery: DeliveryClass | None,
        headers: Mapping[str, str] | None,
        timeout_s: float,
    ) -> Receipt | Coroutine[Any, Any, Receipt]:
        """The receipt of an event that is out, else what waits for it, to be awaited at once."""
        guarantee = self._guarantees.get(topic) if type(topic) is str else None
        if guarantee is None:
            guarantee = self._guarantee(topic)
        if delivery is None:
            delivery = guarantee
        entry, book, numbered = self._known.get(type(event)) or self._meet(type(event))
        number = None
        book.published += 1
        # Written out: a context manager costs more than all that is in it.
        try:
            context = MessageContext(
                topic,
                event,
                _PUBLISH,
                dict(headers) if headers else {},
                event.correlation_id or correlation_variable.get(),
                entry.name,
                None,
                None,
                1,
                None,
                delivery,
                trace_variable.get(),
                timeout_s,
            )
            if numbered:
                number = context.sequence = self._number(topic, event.event_id)
            if self._prompt and delivery is _AT_MOST_ONCE:
                sent = self._send(context)
            else:
                sent = self._send_later(context)
            if not isinstance(sent, Receipt):
                return self._finish(topic, event, book, number, context, sent)
        except BaseException as error:  # boundary: noted, then raised again
            self._failed(topic, event, book, number, error)
            raise
        book.confirmed += 1
        return sent

    def _guarantee(self, topic: str) -> DeliveryClass:
        guarantee = self._publisher.guarantee(check_topic(topic))
        if len(self._guarantees) >= TOPICS_MAX:
            self._guarantees.clear()
        self._guarantees[topic] = guarantee
        return guarantee

    async def _finish(
        self,
        topic: str,
        event: PolarisEvent,
        book: PublishBook,
        number: str | None,
        context: MessageContext,
        rest: Awaitable[Any],
    ) -> Receipt:
        try:
            await rest
            receipt = receipt_of(context)
        except BaseException as error:  # boundary: noted, then raised again
            self._failed(topic, event, book, number, error)
            raise
        book.confirmed += 1
        return receipt

    def _failed(
        self, topic: str, event: PolarisEvent, book: PublishBook, number: str | None, error: BaseException
    ) -> None:
        book.drop(reason_of(error))
        if number is not None:
            self._numbering.not_confirmed(topic, event.event_id, number)

    def message(self, context: MessageContext) -> OutgoingMessage:
        """The event of a context as it travels."""
        event, trace = context.event, context.trace
        if trace is None:
            payload = self._encode(event, context.correlation_id, None, None, context.sequence)
        else:
            payload = self._encode(event, context.correlation_id, trace.traceparent, trace.tracestate, context.sequence)
        if self._marks:
            self.mark(context, batch=False)
        if context.encoding is not None:
            payload = packed(payload, context, context.encoding)
        return OutgoingMessage(context.topic, payload, event.event_id, context.headers or None)

    def mark(self, context: MessageContext, *, batch: bool) -> None:
        """Say in a header in which form the message is, if that is needed."""
        content_type = self._codec.wire_format.content_type(batch=batch)
        if content_type is not None:
            context.headers[CONTENT_TYPE_HEADER] = content_type

    def _send_event(self, context: MessageContext) -> Receipt | Awaitable[Receipt]:
        message = self.message(context)
        receipt = self._publisher.send_at_once(message, context.timeout_s)
        if receipt is None:
            return self._send_waiting(context, message)
        context.result = receipt
        return receipt

    async def _send_waiting(self, context: MessageContext, message: OutgoingMessage | None = None) -> Receipt:
        kind, delivery = self.entry(type(context.event)).kind, context.delivery or _AT_MOST_ONCE
        message = message or self.message(context)
        receipt = context.result = await self._publisher.send(message, delivery, context.timeout_s, kind=kind)
        return receipt


def receipt_of(context: MessageContext) -> Receipt:
    """The receipt of what was published. Raises `PublishError` when there is none."""
    if not isinstance(context.result, Receipt):
        raise PublishError(
            f"a middleware stopped the event for {context.topic!r}; nothing was sent", {"topic": context.topic}
        )
    return context.result
