"""A line in the log for what happens to a message."""

from __future__ import annotations

from collections.abc import Awaitable
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar

from polaris._correlation import _correlation_id as correlation_variable
from polaris._correlation import correlation_scope
from polaris.messaging._broker import Receipt
from polaris.messaging._chain import BoundMiddleware, NextHandler, Send, awaited
from polaris.messaging._context import MessageContext, MessageDirection

if TYPE_CHECKING:
    from polaris.observability import StructuredLogger

_DONE = {MessageDirection.PUBLISH: "message published", MessageDirection.DELIVER: "message handled"}
_FAILED = {MessageDirection.PUBLISH: "message not published", MessageDirection.DELIVER: "message not handled"}


class LoggingMiddleware(BoundMiddleware):
    """Logs every message: at debug when it went well, at warning with the error when it failed (which it hands on).

    An incoming correlation id is kept and made current; a new one is made only when there is none. Payloads are never
    logged.
    """

    order: ClassVar[int | None] = 30
    order_reason: ClassVar[str] = "it tells what became of the message after everything inside it"

    def __init__(self, logger: StructuredLogger) -> None:
        self._logger = logger
        # Asked before the fields are put together; a logger that cannot say is taken to want everything.
        self._wants = getattr(logger, "is_enabled_for", lambda level: True)

    def around(self, next_handler: NextHandler) -> NextHandler:
        logger, wants = self._logger, self._wants

        async def run(context: MessageContext) -> Any:
            correlation_id = context.correlation_id
            if correlation_id is None or correlation_id != correlation_variable.get():
                with correlation_scope(context.correlation_id) as context.correlation_id:
                    return await run(context)
            began_s = perf_counter()
            try:
                result = await next_handler(context)
            except Exception as error:  # boundary: whatever it was is logged, and raised again
                logger.warning(_FAILED[context.direction], error=error, **_fields(context, began_s))
                raise
            if wants("DEBUG"):
                logger.debug(_DONE[context.direction], **_fields(context, began_s))
            return result

        return run

    def outward(self, send: Send) -> Send:
        logger, wants, waiting = self._logger, self._wants, self.around(awaited(send))

        async def finish(context: MessageContext, rest: Awaitable[Any], began_s: float) -> Any:
            try:
                result = await rest
            except Exception as error:  # boundary: whatever it was is logged, and raised again
                logger.warning(_FAILED[context.direction], error=error, **_fields(context, began_s))
                raise
            if wants("DEBUG"):
                logger.debug(_DONE[context.direction], **_fields(context, began_s))
            return result

        def run(context: MessageContext) -> Receipt | Awaitable[Any]:
            correlation_id = context.correlation_id
            if correlation_id is None or correlation_id != correlation_variable.get():
                return waiting(context)
            began_s = perf_counter()
            try:
                sent = send(context)
            except Exception as error:  # boundary: whatever it was is logged, and raised again
                logger.warning(_FAILED[context.direction], error=error, **_fields(context, began_s))
                raise
            if not isinstance(sent, Receipt):
                return finish(context, sent, began_s)
            if wants("DEBUG"):
                logger.debug(_DONE[context.direction], **_fields(context, began_s))
            return sent

        return run


def _fields(context: MessageContext, began_s: float) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "topic": context.topic,
        "event_type": context.event_type,
        "event_id": context.event.event_id,
        "duration_ms": round((perf_counter() - began_s) * 1e3, 3),
    }
    if context.batch is not None:
        fields["events"] = len(context.batch)
    if context.direction is MessageDirection.DELIVER:
        fields["subscription"] = context.subscription
        fields["attempt"] = context.attempt
    return fields
