"""How often, how soon and for how long to try again."""

from __future__ import annotations

from dataclasses import dataclass

from polaris.exceptions import InvalidValueError
from polaris.resilience._backoff import JITTERS, Jitter
from polaris.resilience._durations import Duration, count_of, duration_s
from polaris.resilience._verdict import RetryRule

NON_RETRYABLE: tuple[type[Exception], ...] = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    NameError,
    ArithmeticError,
    AssertionError,
    ImportError,
    RecursionError,
    MemoryError,
)
"""Errors that say that the program or its input is wrong, which no repetition changes."""


@dataclass(frozen=True, slots=True)
class RetryConfig:
    """The rules of a retry policy. Durations are seconds or timedelta.

    max_attempts: calls of the operation in all, the first included.
    base_delay, max_delay, multiplier, jitter: the wait after attempt n is drawn below
        `min(max_delay, base_delay * multiplier ** (n - 1))`: "full" jitter from 0 up, "equal" from the half up, "none"
        exactly that; "decorrelated" between base_delay and three times the former wait.
    retryable, non_retryable: decide where the error's own `retryable` is None; see `RetryPolicy`.
    attempt_timeout: limit for each attempt.
    total_timeout: limit for the whole, waits included; it interrupts an attempt that hangs.
    retry_after_max: the longest `retry_after` of an error that is waited for; an error that asks for more ends the
        retries at once. None: `max_delay`.
    """

    max_attempts: int = 3
    base_delay: Duration = 0.1
    max_delay: Duration = 10.0
    multiplier: float = 2.0
    jitter: Jitter = "full"
    retryable: RetryRule = None
    non_retryable: tuple[type[Exception], ...] = NON_RETRYABLE
    attempt_timeout: Duration | None = None
    total_timeout: Duration | None = None
    retry_after_max: Duration | None = None

    def __post_init__(self) -> None:
        count_of("max_attempts", self.max_attempts)
        duration_s("base_delay", self.base_delay, zero=True)
        duration_s("max_delay", self.max_delay, zero=True)
        for field in ("attempt_timeout", "total_timeout"):
            if getattr(self, field) is not None:
                duration_s(field, getattr(self, field))
        if self.retry_after_max is not None:
            duration_s("retry_after_max", self.retry_after_max, zero=True)
        if not 1 <= self.multiplier < float("inf"):
            raise InvalidValueError("multiplier", "a finite number >= 1", self.multiplier)
        if self.jitter not in JITTERS:
            raise InvalidValueError("jitter", f"one of {', '.join(JITTERS)}", self.jitter)
        for field in ("retryable", "non_retryable"):
            rule = getattr(self, field)
            if isinstance(rule, tuple) and not all(
                isinstance(kind, type) and issubclass(kind, Exception) for kind in rule
            ):
                raise InvalidValueError(field, "a tuple of Exception types", rule)
        if not isinstance(self.non_retryable, tuple):
            raise InvalidValueError("non_retryable", "a tuple of Exception types", self.non_retryable)
        if not (self.retryable is None or isinstance(self.retryable, tuple) or callable(self.retryable)):
            raise InvalidValueError("retryable", "a tuple of Exception types, a predicate or None", self.retryable)
