"""Publishing: from an event, through the chain, to the bytes that leave; singly, in batches and as requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from polaris._correlation import current_correlation_id, new_correlation_id
from polaris.domain import PolarisEvent
from polaris.exceptions import MessageDecodeError, PublishError
from polaris.messaging._batches import BATCH_BYTES, Batch, cut
from polaris.messaging._broker import Delivery, DeliveryClass, MessageBroker, OutgoingMessage, Receipt
from polaris.messaging._chain import MiddlewareChain
from polaris.messaging._cloudevents import EventCodec
from polaris.messaging._coalescing import Coalescer
from polaris.messaging._content_encoding import packed
from polaris.messaging._context import MessageContext, MessageDirection
from polaris.messaging._publisher import Publisher
from polaris.messaging._requests import reply_of
from polaris.messaging._subjects import check_topic, topic_of
from polaris.observability import TraceContext, current_trace

TOPICS_AT_ONCE = 64
_BATCH = "polaris.batch"
_PUBLISH = MessageDirection.PUBLISH
_AT_MOST_ONCE = DeliveryClass.AT_MOST_ONCE


class Outbound:
    """The way out of a bus. `PolarisMessageBus` documents what is promised."""

    def __init__(self, broker: MessageBroker, codec: EventCodec, publisher: Publisher, chain: MiddlewareChain) -> None:
        self._broker = broker
        self._codec = codec
        self._publisher = publisher
        self._publish_event = chain.bind(self._send_event)
        self._publish_batch = chain.bind(self._send_batch)
        self._ask = chain.bind(self._send_request)
        self._names: dict[type[PolarisEvent], str] = {}
        self._coalescer = Coalescer(self._publish_gathered, self._cut_encoded)
        # Under which trace each of the encoded events that gather was published, if any.
        self._traces: dict[int, TraceContext] = {}

    async def publish(
        self,
        topic: str,
        event: PolarisEvent,
        delivery: DeliveryClass | None,
        headers: Mapping[str, str] | None,
        timeout_s: float,
    ) -> Receipt:
        context = self._context(check_topic(topic), event, delivery, headers, timeout_s)
        await self._publish_event(context)
        return _receipt(context)

    async def publish_coalesced(self, topic: str, event: PolarisEvent, timeout_s: float) -> Receipt:
        (payload,) = self._encode([event])
        trace = current_trace()
        if trace is None:
            return await self._coalescer.publish(check_topic(topic), event, payload, timeout_s)
        self._traces[id(payload)] = trace
        try:
            return await self._coalescer.publish(check_topic(topic), event, payload, timeout_s)
        finally:
            del self._traces[id(payload)]

    async def finish(self, *, timeout_s: float) -> None:
        """Wait for what gathers to be sent, at most `timeout_s`."""
        await self._coalescer.finish(timeout_s=timeout_s)

    async def publish_many(
        self, events: Sequence[PolarisEvent], topic: str | None, delivery: DeliveryClass | None, timeout_s: float
    ) -> list[Receipt]:
        by_topic: dict[str, list[int]] = {}
        for index, event in enumerate(events):
            by_topic.setdefault(topic if topic is not None else topic_of(event), []).append(index)
        for name in by_topic:
            check_topic(name)
        receipts: list[Receipt | None] = [None] * len(events)
        room = asyncio.Semaphore(TOPICS_AT_ONCE)

        async def publish_topic(name: str, indexes: list[int]) -> None:
            async with room:
                done = 0
                mine = [events[index] for index in indexes]
                for batch in self._cut_encoded(mine, self._encode(mine)):
                    receipt = await self._publish_cut(name, batch, timeout_s, delivery, current_trace())
                    for index in indexes[done : done + len(batch.events)]:
                        receipts[index] = receipt
                    done += len(batch.events)

        await _all(publish_topic(name, indexes) for name, indexes in by_topic.items())
        return [receipt for receipt in receipts if receipt is not None]

    async def request(self, topic: str, event: PolarisEvent, timeout_s: float) -> PolarisEvent:
        context = self._context(topic, event, DeliveryClass.AT_MOST_ONCE, None, timeout_s)
        context.awaits_reply = True
        await self._ask(context)
        reply: Delivery | None = context.result
        if reply is None:
            raise PublishError(f"a middleware stopped the request on {topic!r}; nothing was sent", {"topic": topic})
        return reply_of(topic, reply, self._codec)

    def _context(
        self,
        topic: str,
        event: PolarisEvent,
        delivery: DeliveryClass | None,
        headers: Mapping[str, str] | None,
        timeout_s: float,
    ) -> MessageContext:
        name = self._names.get(type(event))
        if name is None:
            name = self._names[type(event)] = self._codec.require(type(event)).name
        return MessageContext(
            topic,
            event,
            _PUBLISH,
            dict(headers) if headers else {},
            event.correlation_id or current_correlation_id(),
            name,
            delivery=delivery if delivery is not None else self._publisher.guarantee(topic),
            trace=current_trace(),
            timeout_s=timeout_s,
        )

    async def _send_event(self, context: MessageContext) -> Receipt:
        receipt = await self._publisher.send(self._message(context), _delivery(context), context.timeout_s)
        context.result = receipt
        return receipt

    async def _send_batch(self, context: MessageContext) -> Receipt:
        batch: Batch
        batch, trace = context.attributes[_BATCH]
        payload = self._joined(batch.encoded)
        if context.trace is not trace and context.trace is not None:
            payload = self._moved(payload, batch.encoded, trace, context.trace)
        if context.encoding is not None:
            payload = packed(payload, context, context.encoding)
        message = OutgoingMessage(context.topic, payload, batch.message_id, context.headers or None)
        receipt = await self._publisher.send(message, _delivery(context), context.timeout_s)
        context.result = receipt
        return receipt

    async def _send_request(self, context: MessageContext) -> Delivery:
        reply = await self._broker.request(self._message(context), timeout_s=context.timeout_s)
        context.result = reply
        return reply

    def _message(self, context: MessageContext) -> OutgoingMessage:
        trace = context.trace
        payload = self._codec.encode(
            context.event,
            correlation_id=context.correlation_id,
            traceparent=None if trace is None else trace.traceparent,
            tracestate=None if trace is None else trace.tracestate,
        )
        if context.encoding is not None:
            payload = packed(payload, context, context.encoding)
        return OutgoingMessage(context.topic, payload, context.event.event_id, context.headers or None)

    async def _publish_cut(
        self,
        topic: str,
        batch: Batch,
        timeout_s: float,
        delivery: DeliveryClass | None,
        trace: TraceContext | None,
        links: tuple[TraceContext, ...] = (),
    ) -> Receipt:
        context = self._context(topic, batch.events[0], delivery, None, timeout_s)
        context.batch = batch.events
        context.trace, context.links = trace, links
        context.attributes[_BATCH] = batch, trace
        await self._publish_batch(context)
        return _receipt(context)

    async def _publish_gathered(self, topic: str, batch: Batch, timeout_s: float) -> Receipt:
        """Events of different publishers: the trace of all of them, or links to those that they have."""
        if not self._traces:
            return await self._publish_cut(topic, batch, timeout_s, None, None)
        traces = dict.fromkeys(self._traces.get(id(payload)) for payload in batch.encoded)
        if len(traces) == 1:
            (trace,) = traces
            return await self._publish_cut(topic, batch, timeout_s, None, trace)
        links = tuple(one for one in traces if one is not None and one.sampled)
        return await self._publish_cut(topic, batch, timeout_s, None, None, links)

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
                    self._codec.encode(event, traceparent=trace.traceparent, tracestate=trace.tracestate or None)
                )
            else:
                again.append(one)
        moved = self._joined(again)
        return moved if len(moved) <= max(len(payload), self._broker.capabilities.payload_bytes_max) else payload

    def _encode(self, events: Sequence[PolarisEvent]) -> list[bytes]:
        """Each under its own correlation id, else under that of the scope, else under one made for all of them."""
        trace = current_trace()
        correlation_id = current_correlation_id() or new_correlation_id()
        traceparent = None if trace is None else trace.traceparent
        tracestate = None if trace is None else trace.tracestate
        encode = self._codec.encode
        return [
            encode(
                event,
                correlation_id=event.correlation_id or correlation_id,
                traceparent=traceparent,
                tracestate=tracestate,
            )
            for event in events
        ]

    def _cut_encoded(self, events: Sequence[PolarisEvent], encoded: Sequence[bytes]) -> list[Batch]:
        return list(cut(events, encoded, bytes_max=min(BATCH_BYTES, self._broker.capabilities.payload_bytes_max)))


def _delivery(context: MessageContext) -> DeliveryClass:
    return context.delivery or _AT_MOST_ONCE


def _receipt(context: MessageContext) -> Receipt:
    if not isinstance(context.result, Receipt):
        raise PublishError(
            f"a middleware stopped the event for {context.topic!r}; nothing was sent", {"topic": context.topic}
        )
    return context.result


async def _all(works: Iterable[Any]) -> None:
    """Run all to their end, then raise the first error, if any."""
    outcomes = await asyncio.gather(*works, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
