"""Policies that keep a caller safe from a failing dependency, and the dependency safe from its callers.

Each policy may be used alone; `Pipeline` composes them. They need the standard library and `polaris.exceptions` only.
"""

from __future__ import annotations

from polaris.resilience._breaker import CircuitBreaker
from polaris.resilience._breaker_config import CircuitBreakerConfig, CircuitBreakerSnapshot, CircuitBreakerState
from polaris.resilience._bulkhead import Bulkhead, BulkheadConfig, BulkheadStats
from polaris.resilience._deadline import DeadlineScope, current_deadline, deadline_scope, monotonic_s, remaining_s
from polaris.resilience._pipeline import Pipeline
from polaris.resilience._retry import RetryPolicy
from polaris.resilience._retry_budget import RetryBudget
from polaris.resilience._retry_config import RetryConfig
from polaris.resilience._signals import (
    BreakerRejected,
    BreakerStateChanged,
    BulkheadRejected,
    DeadlineExpired,
    Listener,
    ProbeLeaseExpired,
    RetryGaveUp,
    RetryRecovered,
    RetryScheduled,
    Signal,
)
from polaris.resilience._step import Operation, Policy
from polaris.resilience._timeout import Timeout

__all__ = [
    "CircuitBreaker",
    "CircuitBreakerConfig",
    "CircuitBreakerState",
    "CircuitBreakerSnapshot",
    "RetryPolicy",
    "RetryConfig",
    "RetryBudget",
    "Bulkhead",
    "BulkheadConfig",
    "BulkheadStats",
    "Timeout",
    "Pipeline",
    "DeadlineScope",
    "deadline_scope",
    "current_deadline",
    "remaining_s",
    "monotonic_s",
    "Policy",
    "Operation",
    "Listener",
    "Signal",
    "BreakerRejected",
    "BreakerStateChanged",
    "BulkheadRejected",
    "DeadlineExpired",
    "ProbeLeaseExpired",
    "RetryGaveUp",
    "RetryRecovered",
    "RetryScheduled",
]
