"""The onion of middlewares round publish and delivery."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeGuard

from polaris.exceptions import ConfigurationError, InvalidValueError
from polaris.messaging._broker import Receipt
from polaris.messaging._context import MessageContext

if TYPE_CHECKING:
    from polaris.observability import MetricsCollector
    from polaris.observability._series import SlotHistogram

NextHandler: TypeAlias = Callable[[MessageContext], Awaitable[Any]]
MiddlewareFunction: TypeAlias = Callable[[MessageContext, NextHandler], Awaitable[Any]]
Send: TypeAlias = Callable[[MessageContext], Receipt | Awaitable[Any]]
"""Publishes: a receipt says that the message is out, anything else is awaited."""

_INSIDE_S: ContextVar[list[float]] = ContextVar("inside_s")
"""Of the innermost middleware that is timed and runs: the seconds spent in what stands inside it."""
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class MessageMiddleware(ABC):
    """One concern round every message, in both directions (`context.direction` says which).

    Call `next_handler(context)` once and return what it returns. Not calling it ends the message there: a publish then
    raises `PublishError`, a delivery counts as handled. An exception travels outwards; on delivery it decides, by its
    `retryable`, what becomes of the message. One instance serves many tasks at once.

    `process` is an async function as a rule. One with nothing to do when the message comes back may be a plain function
    that returns `next_handler(context)`; it is awaited at once.
    """

    order: ClassVar[int | None] = None
    """Where it belongs in a chain: outside of all with a greater number. None, as for one's own: anywhere."""
    order_reason: ClassVar[str] = ""
    """Why what has a greater number must stand inside."""

    @abstractmethod
    def process(self, context: MessageContext, next_handler: NextHandler) -> Awaitable[Any]:
        """Do your part, then hand on."""


class BoundMiddleware(MessageMiddleware):
    """One that becomes a function round what stands inside it when the chain is built, not with every message.

    That saves a call for each message. One with a `process` of its own is called by that, as all others are.
    """

    @abstractmethod
    def around(self, next_handler: NextHandler) -> NextHandler:
        """What does this middleware's part round `next_handler`."""

    def outward(self, send: Send) -> Send | None:
        """As `around` for single events that are published, if it can do its part without a coroutine.

        What is returned hands the receipt of `send` on, or does the rest of its part when what `send` gave was awaited.
        None leaves it to `around`.
        """
        return None

    def process(self, context: MessageContext, next_handler: NextHandler) -> Awaitable[Any]:
        return self.around(next_handler)(context)


Middleware: TypeAlias = MessageMiddleware | MiddlewareFunction


class MiddlewareChain:
    """Middlewares in order, the first outermost: instances, or plain async functions of the same shape.

    The nesting is built once per final handler, not per message. Middlewares that declare an `order` must stand in it,
    with any others between them: `ConfigurationError` says which two do not, and why.

    With `measure`, `polaris_operation_duration_seconds{component="middleware"}` shows for each middleware (`operation`,
    such as "circuit_breaker") how long it took, its waits included and what stands inside it not. That costs some two
    microseconds for each middleware and message; without it nothing is measured and nothing costs.
    """

    def __init__(self, middlewares: Iterable[Middleware] = (), *, measure: MetricsCollector | None = None) -> None:
        self.middlewares: tuple[Middleware, ...] = tuple(middlewares)
        self._measure = measure
        self._steps = [_step(middleware) for middleware in self.middlewares]
        _check_order(self.middlewares)
        self._bound: tuple[NextHandler, NextHandler] | None = None

    def within(self, outermost: Middleware) -> MiddlewareChain:
        """A chain like this one with another middleware round it."""
        return MiddlewareChain([outermost, *self.middlewares], measure=self._measure)

    def bind(self, final_handler: NextHandler) -> NextHandler:
        """The whole chain with `final_handler` at its heart, as one function."""
        handler = final_handler
        for middleware, step in self._inside_out():
            handler = self._nested(middleware, step, handler)
        return handler

    def bind_outward(self, send: Send) -> Send:
        """As `bind`, with what publishes single events at its heart.

        Until a middleware needs a coroutine none is made; those outside of it have theirs too.
        """
        handler: NextHandler | None = None
        for middleware, step in self._inside_out():
            if handler is None:
                outer = _outward(middleware, send) if self._measure is None else None
                if outer is not None:
                    send = outer
                    continue
                handler = awaited(send)
            handler = self._nested(middleware, step, handler)
        return send if handler is None else handler

    def _inside_out(self) -> Iterable[tuple[Middleware, MiddlewareFunction]]:
        return zip(reversed(self.middlewares), reversed(self._steps), strict=True)

    def _nested(self, middleware: Middleware, step: MiddlewareFunction, handler: NextHandler) -> NextHandler:
        if self._measure is None:
            return middleware.around(handler) if _is_bound(middleware) else _nest(step, handler)
        return _timed(middleware, step, handler, self._measure.operation_timer("middleware", _name_of(middleware)))

    async def process(self, context: MessageContext, final_handler: NextHandler) -> Any:
        """Send the context through all middlewares and then to `final_handler`; returns what the outermost returned."""
        bound = self._bound
        if bound is None or bound[0] != final_handler:
            bound = self._bound = (final_handler, self.bind(final_handler))
        return await bound[1](context)


def awaited(send: Send) -> NextHandler:
    """What publishes, for those who await it."""

    async def run(context: MessageContext) -> Any:
        sent = send(context)
        return sent if isinstance(sent, Receipt) else await sent

    return run


def _step(middleware: Middleware) -> MiddlewareFunction:
    process = getattr(middleware, "process", middleware)
    if not callable(process) or isinstance(middleware, type):
        raise InvalidValueError("middlewares", "objects with process(context, next_handler)", middleware)
    return process


def _is_bound(middleware: Middleware) -> TypeGuard[BoundMiddleware]:
    """Whether it may be taken by its `around`: nobody has put another `process` in place of the one that does so."""
    return isinstance(middleware, BoundMiddleware) and (
        getattr(middleware.process, "__func__", None) is BoundMiddleware.process
    )


def _outward(middleware: Middleware, send: Send) -> Send | None:
    """What it does by its `outward`, unless somebody has put another `around` in place of the one that goes with it."""
    if not _is_bound(middleware):
        return None
    defined = next(vars(each) for each in type(middleware).__mro__ if "around" in vars(each))
    return middleware.outward(send) if "outward" in defined and "around" not in vars(middleware) else None


def _check_order(middlewares: Iterable[Middleware]) -> None:
    """Refuse declared orders that do not rise: for each misplaced one, the first that it must stand outside of."""
    problems = []
    declared: list[MessageMiddleware] = []
    for middleware in middlewares:
        if not isinstance(middleware, MessageMiddleware) or middleware.order is None:
            continue
        inner = next((one for one in declared if one.order is not None and one.order > middleware.order), None)
        if inner is not None:
            reason = f": {middleware.order_reason}" if middleware.order_reason else ""
            problems.append(f"{type(middleware).__name__} must stand before {type(inner).__name__}{reason}")
        declared.append(middleware)
    if problems:
        raise ConfigurationError(problems=problems)


def _name_of(middleware: Middleware) -> str:
    """For metrics: of `RateLimitMiddleware` it is "rate_limit", of a function its own name."""
    named = getattr(middleware, "__name__", None) or type(middleware).__name__.removesuffix("Middleware")
    return _WORD.sub("_", named or "middleware").lower()


def _nest(step: MiddlewareFunction, next_handler: NextHandler) -> NextHandler:
    # A plain function: it hands the coroutine of `step` on instead of wrapping it in one of its own.
    def run(context: MessageContext) -> Awaitable[Any]:
        return step(context, next_handler)

    return run


def _timed(middleware: Middleware, step: MiddlewareFunction, inside: NextHandler, timer: SlotHistogram) -> NextHandler:
    """As `_nest`, or bound, and seen by a timer: for what the middleware itself takes."""

    async def inner(context: MessageContext) -> Any:
        spent_s = _INSIDE_S.get(None)
        began_s = time.perf_counter()
        try:
            return await inside(context)
        finally:
            if spent_s is not None:  # else it was called in a context that does not come from its own
                spent_s[0] += time.perf_counter() - began_s

    outer = middleware.around(inner) if _is_bound(middleware) else _nest(step, inner)

    async def run(context: MessageContext) -> Any:
        spent_s = [0.0]
        token = _INSIDE_S.set(spent_s)
        began_s = time.perf_counter()
        try:
            return await outer(context)
        finally:
            # A middleware of somebody's own may call what is inside it several times at once.
            timer.observe(max(0.0, time.perf_counter() - began_s - spent_s[0]))
            with suppress(ValueError):  # thrown away unfinished, it is closed wherever that is noticed
                _INSIDE_S.reset(token)

    return run
