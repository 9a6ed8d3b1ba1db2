"""Policies that keep a caller safe from a failing dependency, and the dependency safe from its callers.

Each policy may be used alone; `Pipeline` composes them. They need the standard library and `polaris.exceptions` only.
Every name is loaded at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polaris._lazy import lazy_names

if TYPE_CHECKING:
    from polaris.resilience._adaptive_limit import AimdLimit, ConcurrencyLimit, GradientLimit
    from polaris.resilience._backoff import Backoff
    from polaris.resilience._breaker import CircuitBreaker
    from polaris.resilience._breaker_config import CircuitBreakerConfig, CircuitBreakerSnapshot, CircuitBreakerState
    from polaris.resilience._bulkhead import Bulkhead, BulkheadConfig, BulkheadStats
    from polaris.resilience._chaos import Chaos, ChaosConfig
    from polaris.resilience._deadline import DeadlineScope, current_deadline, deadline_scope, monotonic_s, remaining_s
    from polaris.resilience._fallback import Fallback
    from polaris.resilience._hedge import Hedge
    from polaris.resilience._pipeline import Pipeline
    from polaris.resilience._rate_limiter import RateLimiter, RateLimiterConfig, RateLimiterStats
    from polaris.resilience._rendering import SignalLog, SignalMetrics, SignalSpans
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
    "Backoff",
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
    "SignalLog",
    "SignalMetrics",
    "SignalSpans",
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

_HOMES = {
    "CircuitBreaker": "_breaker",
    "CircuitBreakerConfig": "_breaker_config",
    "CircuitBreakerState": "_breaker_config",
    "CircuitBreakerSnapshot": "_breaker_config",
    "RetryPolicy": "_retry",
    "RetryConfig": "_retry_config",
    "RetryBudget": "_retry_budget",
    "Backoff": "_backoff",
    "Bulkhead": "_bulkhead",
    "BulkheadConfig": "_bulkhead",
    "BulkheadStats": "_bulkhead",
    "Timeout": "_timeout",
    "RateLimiter": "_rate_limiter",
    "RateLimiterConfig": "_rate_limiter",
    "RateLimiterStats": "_rate_limiter",
    "AdaptiveThrottle": "_throttle",
    "ConcurrencyLimit": "_adaptive_limit",
    "AimdLimit": "_adaptive_limit",
    "GradientLimit": "_adaptive_limit",
    "Fallback": "_fallback",
    "Hedge": "_hedge",
    "Chaos": "_chaos",
    "ChaosConfig": "_chaos",
    "Pipeline": "_pipeline",
    "DeadlineScope": "_deadline",
    "deadline_scope": "_deadline",
    "current_deadline": "_deadline",
    "remaining_s": "_deadline",
    "monotonic_s": "_deadline",
    "Policy": "_step",
    "Operation": "_step",
    "Listener": "_signals",
    "SignalLog": "_rendering",
    "SignalMetrics": "_rendering",
    "SignalSpans": "_rendering",
    "Signal": "_signals",
    "BreakerRejected": "_signals",
    "BreakerStateChanged": "_signals",
    "BulkheadRejected": "_signals",
    "ChaosInjected": "_signals",
    "DeadlineExpired": "_signals",
    "FallbackUsed": "_signals",
    "HedgeStarted": "_signals",
    "LimitChanged": "_signals",
    "ProbeLeaseExpired": "_signals",
    "RateLimited": "_signals",
    "RetryGaveUp": "_signals",
    "RetryRecovered": "_signals",
    "RetryScheduled": "_signals",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
