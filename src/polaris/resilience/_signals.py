"""What the policies report: typed facts that logs, metrics and traces render, each in its own way.

A policy calls its listeners synchronously, in order, outside its locks. A listener that raises changes nothing for the
call: the error goes to the log of this module. Signals may hold the error they speak of; a listener should not keep it,
since an error keeps the frames of its traceback alive.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from polaris.resilience._breaker_config import CircuitBreakerState

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BreakerStateChanged:
    """A breaker went from one state to another; `reason` says what drove it."""

    name: str
    former: CircuitBreakerState
    state: CircuitBreakerState
    reason: str
    break_s: float | None = None
    """How long the breaker stays open, when `state` is OPEN."""


@dataclass(frozen=True, slots=True)
class BreakerRejected:
    """A breaker refused a call."""

    name: str
    state: CircuitBreakerState
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class ProbeLeaseExpired:
    """A half-open probe held its permit longer than its lease; the permit was given to others."""

    name: str


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    """Attempt number `attempt` failed with `error`; the next one starts in `delay_s` seconds."""

    operation: str
    attempt: int
    delay_s: float
    error: Exception


@dataclass(frozen=True, slots=True)
class RetryRecovered:
    """An operation succeeded, but not at the first attempt."""

    operation: str
    attempts: int


@dataclass(frozen=True, slots=True)
class RetryGaveUp:
    """No further attempt will be made; `reason` is `attempts`, `deadline`, `retry_after`, `budget` or `refused`."""

    operation: str
    attempts: int
    reason: str
    error: Exception


@dataclass(frozen=True, slots=True)
class BulkheadRejected:
    """A bulkhead refused a call: it was full, or the call waited too long (`reason`)."""

    name: str
    operation: str
    reason: str
    active: int
    queued: int


@dataclass(frozen=True, slots=True)
class DeadlineExpired:
    """The time allowed for an operation ran out and it was cancelled."""

    operation: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class RateLimited:
    """A rate limiter or a throttle refused a call; `retry_after` is in seconds, None when not known."""

    name: str
    operation: str
    reason: str
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class FallbackUsed:
    """An operation failed with `error` and its fallback answered instead."""

    operation: str
    error: Exception


@dataclass(frozen=True, slots=True)
class HedgeStarted:
    """An operation was slow, and call number `call` (from 2) was started beside those that run."""

    operation: str
    call: int


@dataclass(frozen=True, slots=True)
class LimitChanged:
    """The adaptive limit of a bulkhead moved."""

    name: str
    former: int
    limit: int


@dataclass(frozen=True, slots=True)
class ChaosInjected:
    """Chaos delayed an operation by `latency_s` seconds and made it fail with `fault`, if that is not None."""

    operation: str
    latency_s: float
    fault: Exception | None


Signal: TypeAlias = (
    BreakerStateChanged
    | BreakerRejected
    | ProbeLeaseExpired
    | RetryScheduled
    | RetryRecovered
    | RetryGaveUp
    | BulkheadRejected
    | DeadlineExpired
    | RateLimited
    | FallbackUsed
    | HedgeStarted
    | LimitChanged
    | ChaosInjected
)
Listener: TypeAlias = Callable[[Signal], None]


def emit(listeners: Iterable[Listener], signal: Signal) -> None:
    """Tell every listener, in order; one that raises is logged and the rest still hear it."""
    for listener in listeners:
        try:
            listener(signal)
        except Exception:  # boundary: listeners are foreign code and must not change the outcome of a call
            _log.exception("a resilience listener failed on %s", type(signal).__name__)
