"""The shape that lets policies be nested: a step runs a function, and a policy turns one step into another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeAlias, TypeVar

T = TypeVar("T")

Operation: TypeAlias = Callable[[], Awaitable[T]]
"""What the caller wants done, once per attempt: a function without arguments that returns an awaitable."""

Step: TypeAlias = Callable[[Callable[[], Awaitable[Any]], str], Awaitable[Any]]
"""Runs an operation under a name. The innermost step just calls it; every policy wraps one step into another."""


PolicyStep: TypeAlias = Callable[[Callable[[], Awaitable[Any]], str], Coroutine[Any, Any, Any]]
"""A step that is a coroutine function, as those that policies make are."""


class Policy(Protocol):
    """Anything that may stand between a caller and an operation; compose several with `Pipeline`.

    `bind` is called once per place where the policy is used and returns a step with the policy round `inner`. The state
    stays in the policy object, so two pipelines that share a breaker share its state.
    """

    def bind(self, inner: Step, /) -> PolicyStep:
        """The policy wrapped round `inner`."""
        ...

    def execute(self, func: Operation[T], operation_name: str = "") -> Coroutine[Any, Any, T]:
        """Run `func` under this policy alone."""
        ...


def invoke(func: Callable[[], Awaitable[Any]], _operation: str) -> Awaitable[Any]:
    """The innermost step: call the operation and hand its awaitable to whoever awaits."""
    return func()
