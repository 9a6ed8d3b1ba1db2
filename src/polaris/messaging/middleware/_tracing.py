"""Spans for messages, of the traces that are recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextvars import ContextVar
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from polaris.messaging._chain import BoundMiddleware, NextHandler
from polaris.messaging._context import MessageContext, MessageDirection
from polaris.messaging._subjects import topic_pattern
from polaris.observability import RatioSampler, TraceContext

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer
    from opentelemetry.util.types import AttributeValue

SAMPLED_RATIO = 0.01
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
    own and links to them; events published under a trace of their own keep it. Errors show as `error.type`.

    Args:
        tracer: None takes that of the global provider.
        ratio: which share of new traces is recorded, 0 to 1, or what decides that.
        begin_on_delivery: see above.
    """

    order: ClassVar[int | None] = 20
    order_reason: ClassVar[str] = "what a message causes, log lines too, belongs to its span"

    def __init__(
        self,
        tracer: Tracer | None = None,
        ratio: float | RatioSampler = SAMPLED_RATIO,
        *,
        begin_on_delivery: bool = False,
    ) -> None:
        self._tracer = tracer
        self._sample = (ratio if isinstance(ratio, RatioSampler) else RatioSampler(ratio)).sample
        self._begin_on_delivery = begin_on_delivery

    def around(self, next_handler: NextHandler) -> NextHandler:
        sample, begin_on_delivery = self._sample, self._begin_on_delivery

        def run(context: MessageContext) -> Awaitable[Any]:
            if not context.links:
                trace = context.trace
                if trace is not None:
                    if not trace.sampled:
                        return next_handler(context)
                elif context.direction is _PUBLISH:
                    if _passed_over.get() or not sample():
                        return next_handler(context)
                elif not (begin_on_delivery and sample()):
                    return pass_over(context)
            return self._record(context, next_handler)

        async def pass_over(context: MessageContext) -> Any:
            token = _passed_over.set(True)
            try:
                return await next_handler(context)
            finally:
                _passed_over.reset(token)

        return run

    async def _record(self, context: MessageContext, next_handler: NextHandler) -> Any:
        if self._tracer is None:
            # Loading it takes a tenth of a second, for which the event loop must not stand still.
            self._tracer = await asyncio.to_thread(_global_tracer)
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
                context.trace = position
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
    return attributes
