"""The onion of middlewares round publish and delivery."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias

from polaris.exceptions import InvalidValueError
from polaris.messaging._context import MessageContext

NextHandler: TypeAlias = Callable[[MessageContext], Awaitable[Any]]
MiddlewareFunction: TypeAlias = Callable[[MessageContext, NextHandler], Awaitable[Any]]


class MessageMiddleware(ABC):
    """One concern round every message, in both directions (`context.direction` says which).

    Call `next_handler(context)` once and return what it returns. Not calling it ends the message there: a publish then
    raises `PublishError`, a delivery counts as handled. An exception travels outwards; on delivery it decides, by its
    `retryable`, what becomes of the message. One instance serves many tasks at once.
    """

    @abstractmethod
    async def process(self, context: MessageContext, next_handler: NextHandler) -> Any:
        """Do your part, then hand on."""


class MiddlewareChain:
    """Middlewares in order, the first outermost: instances, or plain async functions of the same shape.

    The nesting is built once per final handler, not per message.
    """

    def __init__(self, middlewares: Iterable[MessageMiddleware | MiddlewareFunction] = ()) -> None:
        self.middlewares: tuple[MessageMiddleware | MiddlewareFunction, ...] = tuple(middlewares)
        self._steps = [_step(middleware) for middleware in self.middlewares]
        self._bound: tuple[NextHandler, NextHandler] | None = None

    def bind(self, final_handler: NextHandler) -> NextHandler:
        """The whole chain with `final_handler` at its heart, as one function."""
        handler = final_handler
        for step in reversed(self._steps):
            handler = _nest(step, handler)
        return handler

    async def process(self, context: MessageContext, final_handler: NextHandler) -> Any:
        """Send the context through all middlewares and then to `final_handler`; returns what the outermost returned."""
        bound = self._bound
        if bound is None or bound[0] != final_handler:
            bound = self._bound = (final_handler, self.bind(final_handler))
        return await bound[1](context)


def _step(middleware: MessageMiddleware | MiddlewareFunction) -> MiddlewareFunction:
    process = getattr(middleware, "process", middleware)
    if not callable(process):
        raise InvalidValueError("middlewares", "objects with process(context, next_handler)", middleware)
    return process


def _nest(step: MiddlewareFunction, next_handler: NextHandler) -> NextHandler:
    # A plain function: it hands the coroutine of `step` on instead of wrapping it in one of its own.
    def run(context: MessageContext) -> Awaitable[Any]:
        return step(context, next_handler)

    return run
