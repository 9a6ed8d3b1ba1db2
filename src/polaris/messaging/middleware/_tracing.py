"""Spans for messages, of the traces that are recorded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from polaris._redaction import redact_text
from polaris.messaging._chain import BoundMiddleware, NextHandler
from polaris.messaging._context import MessageContext, MessageDirection
from polaris.messaging._subjects import topic_pattern
from polaris.observability import RatioSampler, TraceContext

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer
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
                return pass_over(context)
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

    async def _record(self, context: MessageContext, next_handler: NextHandler) -> Any:
        if self._tracer is None:
            # Loading it takes a tenth of a second, for which the event loop must not stand still.
            self._tracer = await asyncio.to_thread(self._make_tracer)
        from opentelemetry.trace import SpanKind

        from polaris.observability._tracing import record_span

        publishing = context.direction is _PUBLISH
        verb = ("request" if context.awaits_reply else "publish") if publishing else "process"
        pattern = topic_pattern(context.topic)
        trace = context.trace
        parent, links = _ancestry(context)
        with record_span(
            self._tracer,
            f"{verb} {pattern}",
            kind=SpanKind.PRODUCER if publishing else SpanKind.CONSUMER,
            parent=parent,
            is_remote=not publishing,
            links=links,
            attributes=_attributes(context, verb, pattern),
        ) as position:
            if position is not None:
                new = trace is None or position.span_id != trace.span_id
                context.trace = position.marked() if publishing and new else position
            try:
                return await next_handler(context)
            finally:
                context.trace = trace


def _global_tracer() -> Tracer:
    from opentelemetry.trace import get_tracer

    import_module("polaris.observability._tracing")
    return get_tracer("polaris.messaging")


def _ancestry(context: MessageContext) -> tuple[TraceContext | None, tuple[TraceContext, ...]]:
    """The parent of the span, and what it links to: events of one trace have a parent, those of several have links."""
    if len(context.links) > 1:
        return None, context.links
    return (context.links[0], ()) if context.links else (context.trace, ())


def _attributes(context: MessageContext, verb: str, pattern: str) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "messaging.system": "nats",
        "messaging.operation.name": verb,
        "messaging.operation.type": "send" if context.direction is _PUBLISH else "process",
        "messaging.destination.name": context.topic,
        "messaging.destination.template": pattern,
        "cloudevents.event_type": context.event_type,
    }
    if context.correlation_id is not None:
        attributes["messaging.message.conversation_id"] = context.correlation_id
    if len(context.events) == 1:
        attributes["messaging.message.id"] = context.event.event_id
    else:
        attributes["messaging.batch.message_count"] = len(context.events)
    if context.subscription is not None:
        attributes["messaging.consumer.group.name"] = context.subscription
    if context.attempt > 1:
        attributes["polaris.message.attempt"] = context.attempt
    return {key: redact_text(value) if isinstance(value, str) else value for key, value in attributes.items()}
