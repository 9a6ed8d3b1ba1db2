"""Correlation and trace of a message, made current while it is published or handled."""

from __future__ import annotations

from typing import Any, ClassVar

from polaris._correlation import correlation_scope, current_correlation_id
from polaris.messaging._chain import MessageMiddleware, NextHandler
from polaris.messaging._context import MessageContext, MessageDirection
from polaris.observability import trace_scope

_PUBLISH = MessageDirection.PUBLISH


class CorrelationMiddleware(MessageMiddleware):
    """Runs what follows under the message's correlation id and trace. The bus puts one round every chain by itself.

    An incoming id is kept; a new one is made only when there is none. What a handler publishes, logs, stores or raises
    carries the same id.
    """

    order: ClassVar[int | None] = 10
    order_reason: ClassVar[str] = "all others run under the message's correlation id and trace"

    async def process(self, context: MessageContext, next_handler: NextHandler) -> Any:
        correlation_id, trace = context.correlation_id, context.trace
        if context.direction is _PUBLISH:
            if correlation_id and correlation_id == current_correlation_id():
                return await next_handler(context)
            trace = None  # it is current already
        with correlation_scope(correlation_id) as context.correlation_id:
            if trace is None:
                return await next_handler(context)
            with trace_scope(trace.child()):
                return await next_handler(context)
