"""Correlation and trace of a message, made current while it is published or handled."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Any, ClassVar

from polaris._correlation import CORRELATION_ID_CHARS_MAX, legal_correlation_id
from polaris._correlation import _correlation_id as correlation_variable
from polaris.messaging._chain import (
    BoundMiddleware,
    MessageMiddleware,
    MiddlewareChain,
    MiddlewareFunction,
    NextHandler,
)
from polaris.messaging._context import MessageContext, MessageDirection
from polaris.observability import TraceContext, trace_scope

_PUBLISH = MessageDirection.PUBLISH


class CorrelationMiddleware(BoundMiddleware):
    """Runs what follows under the message's correlation id and trace. The bus puts one round every chain by itself.

    An incoming id is kept; a new one is made only when there is none. What a handler publishes, logs, stores or raises
    carries the same id.
    """

    order: ClassVar[int | None] = 10
    order_reason: ClassVar[str] = "all others run under the message's correlation id and trace"

    def around(self, next_handler: NextHandler) -> NextHandler:
        async def under_id(context: MessageContext) -> Any:
            # `correlation_scope`, written out: every message passes here.
            chosen = context.correlation_id
            if not chosen or len(chosen) > CORRELATION_ID_CHARS_MAX or not chosen.isprintable():
                chosen = context.correlation_id = legal_correlation_id(chosen)
            token = correlation_variable.set(chosen)
            try:
                return await next_handler(context)
            finally:
                correlation_variable.reset(token)

        async def under_trace(context: MessageContext, trace: TraceContext) -> Any:
            with trace_scope(trace.child()):
                return await under_id(context)

        def run(context: MessageContext) -> Awaitable[Any]:
            if context.direction is _PUBLISH:
                # Its trace is current already, and its id may be.
                correlation_id = context.correlation_id
                if correlation_id and correlation_id == correlation_variable.get():
                    return next_handler(context)
            elif context.trace is not None:
                return under_trace(context, context.trace)
            return under_id(context)

        return run


def with_correlation(
    given: MiddlewareChain | Iterable[MessageMiddleware | MiddlewareFunction] | None,
) -> MiddlewareChain:
    """The chain that was asked for, within the one that every message passes first."""
    correlation = CorrelationMiddleware()
    if isinstance(given, MiddlewareChain):
        return given.within(correlation)
    return MiddlewareChain([correlation, *(given or ())])
