"""When a circuit breaker opens, how long it stays open, and how it tries again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from polaris.exceptions import InvalidValueError
from polaris.resilience._backoff import Backoff
from polaris.resilience._durations import Duration, count_of, duration_s, ratio_of


class CircuitBreakerState(Enum):
    """Where a breaker stands."""

    CLOSED = "closed"
    """Calls pass."""
    OPEN = "open"
    """Calls are rejected until the break is over."""
    HALF_OPEN = "half_open"
    """A few probes pass; their outcome decides."""
    ISOLATED = "isolated"
    """Calls are rejected until somebody closes the breaker."""


@dataclass(frozen=True, slots=True)
class CircuitBreakerConfig:
    """The rules of a breaker. The default: five failures in a row open it for 30 s, then one probe decides.

    failure_threshold: consecutive failures that open the breaker; not used when a rate is given.
    timeout: how long it stays open (the break), in seconds or as timedelta.
    half_open_max_calls: probes in flight at the same time while half-open.
    success_threshold: successful probes that close it. One failed probe opens it again.
    ignored_exceptions: error types that say nothing about the dependency. Always so: cancellation, rejections by local
        policies, and errors whose `retryable` is False.
    failure_rate_threshold: open when at least this share (0..1] of the calls in the window failed.
    slow_call_rate_threshold, slow_call_duration: open when at least this share took longer than the duration. Such a
        probe counts as failed.
    window_calls: the window is the last so many calls (default, 100) ...
    window_duration: ... or, if given, the calls that ended within this time, in ten slices.
    minimum_calls: fewer calls in the window than this decide nothing.
    probe_lease: how long a probe may hold its permit before another caller may probe; default: `timeout`.
    timeout_multiplier, timeout_max: each break that follows a failed probe is longer by the factor, up to the maximum
        (default 300 s, or `timeout` if that is more).
    """

    failure_threshold: int = 5
    timeout: Duration = timedelta(seconds=30)
    half_open_max_calls: int = 1
    success_threshold: int = 1
    ignored_exceptions: tuple[type[BaseException], ...] = ()
    failure_rate_threshold: float | None = None
    slow_call_rate_threshold: float | None = None
    slow_call_duration: Duration | None = None
    window_calls: int = 100
    window_duration: Duration | None = None
    minimum_calls: int = 10
    probe_lease: Duration | None = None
    timeout_multiplier: float = 1.0
    timeout_max: Duration = timedelta(seconds=300)

    def __post_init__(self) -> None:
        for field in ("failure_threshold", "half_open_max_calls", "success_threshold", "window_calls", "minimum_calls"):
            count_of(field, getattr(self, field))
        for field in ("timeout", "timeout_max"):
            duration_s(field, getattr(self, field))
        for field in ("slow_call_duration", "window_duration", "probe_lease"):
            if getattr(self, field) is not None:
                duration_s(field, getattr(self, field))
        for field in ("failure_rate_threshold", "slow_call_rate_threshold"):
            if getattr(self, field) is not None:
                ratio_of(field, getattr(self, field))
        if (self.slow_call_rate_threshold is None) != (self.slow_call_duration is None):
            raise InvalidValueError(
                "slow_call_duration", "to be given together with slow_call_rate_threshold", self.slow_call_duration
            )
        if not 1 <= self.timeout_multiplier <= 1_000:
            raise InvalidValueError("timeout_multiplier", "a number in [1, 1000]", self.timeout_multiplier)
        if self.window_duration is None and self.minimum_calls > self.window_calls:
            raise InvalidValueError("minimum_calls", f"at most window_calls ({self.window_calls})", self.minimum_calls)
        if not isinstance(self.ignored_exceptions, tuple):
            raise InvalidValueError("ignored_exceptions", "a tuple of exception types", self.ignored_exceptions)

    @property
    def windowed(self) -> bool:
        """Whether rates over a window decide, and not consecutive failures."""
        return self.failure_rate_threshold is not None or self.slow_call_rate_threshold is not None

    def break_s(self, failed_breaks: int) -> float:
        """How long to stay open after so many breaks in a row that ended in a failed probe."""
        first_s = duration_s("timeout", self.timeout)
        longest_s = max(first_s, duration_s("timeout_max", self.timeout_max))
        return Backoff(first_s, longest_s, multiplier=self.timeout_multiplier).ceiling_s(failed_breaks + 1)


@dataclass(frozen=True, slots=True)
class CircuitBreakerSnapshot:
    """A breaker at one moment. `_calls` describe the window in use, `_total` count from the breaker's making."""

    name: str
    state: CircuitBreakerState
    epoch: int
    """Grows with every change of state; an outcome counts only in the epoch in which its call was admitted."""
    consecutive_failures: int
    window_calls: int
    failed_calls: int
    slow_calls: int
    active_probes: int
    probe_successes: int
    retry_after: float | None
    """Seconds until a call may be admitted, None when closed or not known."""
    opened_total: int
    rejected_total: int
    expired_probes_total: int
