"""Spans for messages, of the traces that are recorded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import cache, lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from polaris._redaction import redact_text
from polaris.messaging._broker import Receipt
from polaris.messaging._chain import BoundMiddleware, NextHandler, Send, awaited
from polaris.messaging._context import MessageContext, MessageDirection
from polaris.messaging._subjects import topic_pattern
from polaris.observability import RatioSampler, TraceContext

if TYPE_CHECKING:
    from opentelemetry.trace import SpanKind, Tracer
    from opentelemetry.util.types import AttributeValue

SAMPLED_RATIO = 0.01
Origin = Callable[[MessageContext], TraceContext | None]
"""Asked for every message: the position to go on from instead of that which it came with, else None."""
OnError = Callable[[MessageContext, Exception, int], None]
"""Told of a message that failed though its trace is not recorded; the number is when it began, in ns since 1970."""
_PUBLISH = MessageDirection.PUBLISH
# What runs follows from a message that carried no trace: whoever published it has decided for all of it.
_passed_over: ContextVar[bool] = ContextVar("polaris_trace_passed_over", default=False)


class TracingMiddleware(BoundMiddleware):
    """A PRODUCER span for each publish and a CONSUMER span for each delivery, by OpenTelemetry's messaging conventions.

    Only what belongs to a recorded trace gets spans, and OpenTelemetry is not touched, nor imported, before that is
    decided: where a trace begins, by `ratio`; after that by the `sampled` flag that travels in `traceparent`. A trace
    begins with a publish outside of any. A message that carries none was passed over by its publisher, and so is all
    that its handlers publish, unless `begin_on_delivery`: then it may begin a trace, for messages of clients that know
    nothing of traces.

    The position that travels is that of the PRODUCER span; the CONSUMER span is its child, and what the handler
    publishes, logs or stores belongs to that. Of a batch with events of several traces the span begins a trace of its
    own and links to them; events published under a trace of their own keep it. Errors show as `error.type`. That a
    position has a recorded span is noted in `tracestate`, see `TraceContext.marked`.

    Args:
        tracer: None takes that of the global provider; a function is called once, in a thread, when it is needed.
        ratio: which share of new traces is recorded, 0 to 1, or what decides that.
        begin_on_delivery: see above.
        origin: may have a message recorded whose trace is not, such as every action; asked for every message.
        on_error: may record what failed unrecorded.
    """

    order: ClassVar[int | None] = 20
    order_reason: ClassVar[str] = "what a message causes, log lines too, belongs to its span"

    def __init__(
        self,
        tracer: Tracer | Callable[[], Tracer] | None = None,
        ratio: float | RatioSampler = SAMPLED_RATIO,
        *,
        begin_on_delivery: bool = False,
        origin: Origin | None = None,
        on_error: OnError | None = None,
    ) -> None:
        self._make_tracer: Callable[[], Tracer] = tracer if callable(tracer) else _global_tracer
        self._tracer: Tracer | None = None if callable(tracer) else tracer
        self._sample = (ratio if isinstance(ratio, RatioSampler) else RatioSampler(ratio)).sample
        self._begin_on_delivery = begin_on_delivery
        self._origin = origin
        self._on_error = on_error

    def around(self, next_handler: NextHandler) -> NextHandler:
        sample, begin_on_delivery = self._sample, self._begin_on_delivery
        origin, on_error = self._origin, self._on_error

        def run(context: MessageContext) -> Awaitable[Any]:
            if origin is not None and (found := origin(context)) is not None:
                context.trace = found
            trace = context.trace
            if context.links or (trace is not None and trace.sampled):
                return self._record(context, next_handler)
            if trace is not None:
                return unrecorded(context)
            if context.direction is _PUBLISH:
                if _passed_over.get() or not sample():
                    return unrecorded(context)
            elif not (begin_on_delivery and sample()):
                return unrecorded(context) if _passed_over.get() else pass_over(context)
            return self._record(context, next_handler)

        async def pass_over(context: MessageContext) -> Any:
            token = _passed_over.set(True)
            try:
                return await unrecorded(context)
            finally:
                _passed_over.reset(token)

        async def watched(context: MessageContext) -> Any:
            began_ns = time.time_ns()
            try:
                return await next_handler(context)
            except Exception as error:  # boundary: told, and raised again
                if on_error is not None:
                    on_error(context, error, began_ns)
                raise

        unrecorded = next_handler if on_error is None else watched
        return run

    @staticmethod
    def follow() -> None:
        """What the running task does from now on follows from the messages that it handles, and from nothing else.

        So what carries no trace need not say that of itself, each time.
        """
        _passed_over.set(True)

    def outward(self, send: Send) -> Send:
        sample, origin, on_error, waiting = self._sample, self._origin, self._on_error, awaited(send)

        def run(context: MessageContext) -> Receipt | Awaitable[Any]:
            if origin is not None and (found := origin(context)) is not None:
                context.trace = found
            trace = context.trace
            if trace.sampled if trace is not None else not _passed_over.get() and sample():
                return self._record(context, waiting)
            return unrecorded(context)

        async def finish(context: MessageContext, rest: Awaitable[Any], began_ns: int) -> Any:
            try:
                return await rest
            except Exception as error:  # boundary: told, and raised again
                if on_error is not None:
                    on_error(context, error, began_ns)
                raise

        def watched(context: MessageContext) -> Receipt | Awaitable[Any]:
            began_ns = time.time_ns()
            try:
                sent = send(context)
            except Exception as error:  # boundary: told, and raised again
                if on_error is not None:
                    on_error(context, error, began_ns)
                raise
            return sent if isinstance(sent, Receipt) else finish(context, sent, began_ns)

        unrecorded = send if on_error is None else watched
        return run

    async def _record(self, context: MessageContext, next_handler: NextHandler) -> Any:
        if self._tracer is None:
            # Loading it takes a tenth of a second, for which the event loop must not stand still.
            self._tracer = await asyncio.to_thread(self._make_tracer)
        publishing = context.direction is _PUBLISH
        verb = ("request" if context.awaits_reply else "publish") if publishing else "process"
        record, kind = _recording(publishing)
        trace = context.trace
        parent, links = _ancestry(context)
        with record(
            self._tracer,
            f"{verb} {topic_pattern(context.topic)}",
            kind=kind,
            parent=parent,
            is_remote=not publishing,
            links=links,
            attributes=_attributes(context, verb),
        ) as position:
            if position is not None:
                new = trace is None or position.span_id != trace.span_id
                context.trace = position.marked() if publishing and new else position
            try:
                return await next_handler(context)
            finally:
                context.trace = trace


@cache
def _recording(publishing: bool) -> tuple[Callable[..., AbstractContextManager[TraceContext | None]], SpanKind]:
    """What records spans, and the kind of those of one direction; imported when the first is wanted."""
    from opentelemetry.trace import SpanKind

    from polaris.observability._tracing import record_span

    return record_span, SpanKind.PRODUCER if publishing else SpanKind.CONSUMER


def _global_tracer() -> Tracer:
    from opentelemetry.trace import get_tracer

    import_module("polaris.observability._tracing")
    return get_tracer("polaris.messaging")


def _ancestry(context: MessageContext) -> tuple[TraceContext | None, tuple[TraceContext, ...]]:
    """The parent of the span, and what it links to: events of one trace have a parent, those of several have links."""
    if len(context.links) > 1:
        return None, context.links
    return (context.links[0], ()) if context.links else (context.trace, ())


def _attributes(context: MessageContext, verb: str) -> dict[str, AttributeValue]:
    attributes = dict(_common_attributes(verb, context.topic, context.event_type, context.subscription))
    if context.correlation_id is not None:
        attributes["messaging.message.conversation_id"] = redact_text(context.correlation_id)
    if len(context.events) == 1:
        attributes["messaging.message.id"] = redact_text(context.event.event_id)
    else:
        attributes["messaging.batch.message_count"] = len(context.events)
    if context.attempt > 1:
        attributes["polaris.message.attempt"] = context.attempt
    return attributes


@lru_cache(maxsize=1_024)
def _common_attributes(
    verb: str, topic: str, event_type: str, subscription: str | None
) -> Mapping[str, AttributeValue]:
    """What the spans of all messages of a topic say for one receiver."""
    attributes = {
        "messaging.system": "nats",
        "messaging.operation.name": verb,
        "messaging.operation.type": "process" if verb == "process" else "send",
        "messaging.destination.name": topic,
        "messaging.destination.template": topic_pattern(topic),
        "cloudevents.event_type": event_type,
    }
    if subscription is not None:
        attributes["messaging.consumer.group.name"] = subscription
    return {key: redact_text(value) for key, value in attributes.items()}
