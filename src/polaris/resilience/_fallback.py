"""An answer for when there is no answer."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Self, TypeVar

from polaris.exceptions import InvalidValueError
from polaris.resilience._signals import FallbackUsed, Listener, emit
from polaris.resilience._step import Operation, PolicyStep, Step, invoke

T = TypeVar("T")


class Fallback:
    """Answers with `handler(error)` when the operation fails with one of the types in `handles`.

    `handler` may be a plain or a coroutine function; what it raises is raised instead, with the first error as context.
    Say which errors are meant: a fallback for everything hides mistakes of the program. Cancellation is never handled.
    Each use is signalled, so that nothing falls back silently. Without state.
    """

    def __init__(
        self,
        handler: Callable[[Exception], object],
        *,
        handles: tuple[type[Exception], ...],
        listeners: Iterable[Listener] = (),
    ) -> None:
        if not handles or not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in handles):
            raise InvalidValueError("handles", "a tuple of at least one Exception type", handles)
        self.handles = handles
        self._handler = handler
        self._listeners = tuple(listeners)
        self._run = self.bind(invoke)

    @classmethod
    def value(cls, value: object, *, handles: tuple[type[Exception], ...], listeners: Iterable[Listener] = ()) -> Self:
        """A fallback that always answers with `value`, the very object."""
        return cls(lambda _: value, handles=handles, listeners=listeners)

    def execute(self, func: Operation[T], operation_name: str = "") -> Coroutine[Any, Any, T]:
        """Run `func`; its result, or that of the handler."""
        return self._run(func, operation_name)

    def bind(self, inner: Step, /) -> PolicyStep:
        """This fallback round `inner`; see `Policy`."""
        handles, handler, listeners = self.handles, self._handler, self._listeners

        async def run(func: Callable[[], Awaitable[Any]], operation: str) -> Any:
            try:
                return await inner(func, operation)
            except handles as error:
                if listeners:
                    emit(listeners, FallbackUsed(operation, error))
                answer = handler(error)
                return await answer if inspect.isawaitable(answer) else answer

        return run
