"""What an error says about the other side: the one place where retry and breaker read `retryable`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from polaris.exceptions import (
    BulkheadError,
    CircuitBreakerError,
    PolarisException,
    RateLimitExceededError,
    RetryExhaustedError,
)

RetryRule: TypeAlias = tuple[type[Exception], ...] | Callable[[Exception], bool] | None

LOCAL_REJECTIONS: tuple[type[PolarisException], ...] = (BulkheadError, CircuitBreakerError, RateLimitExceededError)
"""Raised by policies on this side: the dependency was not asked, so nothing was learnt about it."""


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The error itself, or the members of an exception group, however deep."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from leaves(member)
    else:
        yield error


def blames_dependency(error: BaseException, ignored: tuple[type[BaseException], ...]) -> bool:
    """Whether a breaker should count the error as a failure of what it guards.

    Not counted: cancellation and exit, `ignored` types, rejections by local policies, and errors whose `retryable` is
    False, since these lie with the caller and not with the dependency. An exhausted retry counts as its last error, a
    group as its worst member.
    """
    for leaf in leaves(error):
        if not isinstance(leaf, Exception) or isinstance(leaf, (*ignored, *LOCAL_REJECTIONS)):
            continue
        if isinstance(leaf, RetryExhaustedError) and leaf.__cause__ is not None:
            if blames_dependency(leaf.__cause__, ignored):
                return True
        elif not (isinstance(leaf, PolarisException) and leaf.retryable is False):
            return True
    return False


class RetryVerdict:
    """Whether an error may be retried: `retryable` of a PolarisException first, then the caller's types.

    Of the types, the most specific one that the error is an instance of decides, so `retryable=(JSONDecodeError,)`
    holds although `non_retryable` names ValueError; a type named by both is retried. With `retryable=None` everything
    that is not named may be retried; with types or a predicate, only what they name. A group may be retried if all its
    members may. Cancellation and exit are no `Exception` and are never asked about.
    """

    __slots__ = ("_named", "_predicate", "_unnamed")

    def __init__(self, retryable: RetryRule, non_retryable: tuple[type[Exception], ...]) -> None:
        self._predicate: Callable[[Exception], bool] | None = None
        self._named: dict[type, bool] = dict.fromkeys(non_retryable, False)
        self._unnamed = retryable is None
        if isinstance(retryable, tuple):
            self._named.update(dict.fromkeys(retryable, True))
        else:
            self._predicate = retryable

    def __call__(self, error: Exception) -> bool:
        if isinstance(error, ExceptionGroup):
            return all(isinstance(leaf, Exception) and self(leaf) for leaf in leaves(error))
        if isinstance(error, PolarisException) and error.retryable is not None:
            return error.retryable
        if self._predicate is not None:
            return self._predicate(error)
        for kind in type(error).__mro__:
            if kind in self._named:
                return self._named[kind]
        return self._unnamed
