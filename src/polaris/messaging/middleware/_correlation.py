"""Correlation and trace of a message, made current while it is published or handled."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Any, ClassVar

from polaris._correlation import CORRELATION_ID_CHARS_MAX, legal_correlation_id, new_correlation_id
from polaris._correlation import _correlation_id as correlation_variable
from polaris.messaging._broker import Receipt
from polaris.messaging._chain import (
    BoundMiddleware,
    MessageMiddleware,
    MiddlewareChain,
    MiddlewareFunction,
    NextHandler,
    Send,
)
from polaris.messaging._context import MessageContext, MessageDirection
from polaris.observability import trace_scope

_PUBLISH = MessageDirection.PUBLISH


class CorrelationMiddleware(BoundMiddleware):
    """Runs what follows under the message's correlation id and trace. The bus puts one round every chain by itself.

    An incoming id is kept; a new one is made only when there is none. What a handler publishes, logs, stores or raises
    carries the same id.
    """

    order: ClassVar[int | None] = 10
    order_reason: ClassVar[str] = "all others run under the message's correlation id and trace"

    def around(self, next_handler: NextHandler) -> NextHandler:
        async def run(context: MessageContext) -> Any:
            # `correlation_scope`, written out: every message that is handled passes here.
            chosen = context.correlation_id
            if not chosen or len(chosen) > CORRELATION_ID_CHARS_MAX or not chosen.isprintable():
                chosen = context.correlation_id = legal_correlation_id(chosen)
            token = correlation_variable.set(chosen)
            try:
                trace = context.trace
                # That of what is published is current already.
                if trace is None or context.direction is _PUBLISH:
                    return await next_handler(context)
                with trace_scope(trace.child()):
                    return await next_handler(context)
            finally:
                correlation_variable.reset(token)

        return run

    def outward(self, send: Send) -> Send:
        async def under(correlation_id: str, rest: Awaitable[Any]) -> Any:
            token = correlation_variable.set(correlation_id)
            try:
                return await rest
            finally:
                correlation_variable.reset(token)

        def run(context: MessageContext) -> Receipt | Awaitable[Any]:
            known, current = context.correlation_id, correlation_variable.get()
            if not known:
                known = context.correlation_id = current or new_correlation_id()
            elif len(known) > CORRELATION_ID_CHARS_MAX or not known.isprintable():
                known = context.correlation_id = legal_correlation_id(known)
            if known == current:
                return send(context)
            token = correlation_variable.set(known)
            try:
                sent = send(context)
            finally:
                correlation_variable.reset(token)
            return sent if isinstance(sent, Receipt) else under(known, sent)

        return run


def with_correlation(
    given: MiddlewareChain | Iterable[MessageMiddleware | MiddlewareFunction] | None,
) -> MiddlewareChain:
    """The chain that was asked for, within the one that every message passes first."""
    correlation = CorrelationMiddleware()
    if isinstance(given, MiddlewareChain):
        return given.within(correlation)
    return MiddlewareChain([correlation, *(given or ())])
