"""Policies that keep a caller safe from a failing dependency, and the dependency safe from its callers.

Each policy may be used alone; `Pipeline` composes them. They need the standard library and `polaris.exceptions` only.
"""

from __future__ import annotations

from polaris.resilience._adaptive_limit import AimdLimit, ConcurrencyLimit, GradientLimit
from polaris.resilience._breaker import CircuitBreaker
from polaris.resilience._breaker_config import CircuitBreakerConfig, CircuitBreakerSnapshot, CircuitBreakerState
from polaris.resilience._bulkhead import Bulkhead, BulkheadConfig, BulkheadStats
from polaris.resilience._chaos import Chaos, ChaosConfig
from polaris.resilience._deadline import DeadlineScope, current_deadline, deadline_scope, monotonic_s, remaining_s
from polaris.resilience._fallback import Fallback
from polaris.resilience._hedge import Hedge
from polaris.resilience._pipeline import Pipeline
from polaris.resilience._rate_limiter import RateLimiter, RateLimiterConfig, RateLimiterStats
from polaris.resilience._retry import RetryPolicy
from polaris.resilience._retry_budget import RetryBudget
from polaris.resilience._retry_config import RetryConfig
from polaris.resilience._signals import (
    BreakerRejected,
    BreakerStateChanged,
    BulkheadRejected,
    ChaosInjected,
    DeadlineExpired,
    FallbackUsed,
    HedgeStarted,
    LimitChanged,
    Listener,
    ProbeLeaseExpired,
    RateLimited,
    RetryGaveUp,
    RetryRecovered,
    RetryScheduled,
    Signal,
)
from polaris.resilience._step import Operation, Policy
from polaris.resilience._throttle import AdaptiveThrottle
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
    "RateLimiter",
    "RateLimiterConfig",
    "RateLimiterStats",
    "AdaptiveThrottle",
    "ConcurrencyLimit",
    "AimdLimit",
    "GradientLimit",
    "Fallback",
    "Hedge",
    "Chaos",
    "ChaosConfig",
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
    "ChaosInjected",
    "DeadlineExpired",
    "FallbackUsed",
    "HedgeStarted",
    "LimitChanged",
    "ProbeLeaseExpired",
    "RateLimited",
    "RetryGaveUp",
    "RetryRecovered",
    "RetryScheduled",
]
