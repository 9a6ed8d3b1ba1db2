"""Correlation and trace of a message, made current while it is published or handled."""

from __future__ import annotations

from typing import Any

from polaris._correlation import correlation_scope, current_correlation_id
from polaris.messaging._chain import MessageMiddleware, NextHandler
from polaris.messaging._context import MessageContext, MessageDirection
from polaris.observability import trace_scope


class CorrelationMiddleware(MessageMiddleware):
    """Runs what follows under the message's correlation id and trace. The bus puts one round every chain by itself.

    An incoming id is kept; a new one is made only when there is none. What a handler publishes, logs, stores or raises
    carries the same id.
    """

    async def process(self, context: MessageContext, next_handler: NextHandler) -> Any:
        publishing = context.direction is MessageDirection.PUBLISH
        if publishing and context.correlation_id and context.correlation_id == current_correlation_id():
            return await next_handler(context)
        with correlation_scope(context.correlation_id) as chosen:
            context.correlation_id = chosen
            if context.trace is None or publishing:
                return await next_handler(context)
            with trace_scope(context.trace.child()):
                return await next_handler(context)
