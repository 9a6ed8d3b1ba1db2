"""The defaults that users rely on."""

from __future__ import annotations

from datetime import timedelta
from inspect import signature
from typing import Any

import pytest

from polaris.resilience import (
    AdaptiveThrottle,
    AimdLimit,
    BulkheadConfig,
    ChaosConfig,
    CircuitBreakerConfig,
    GradientLimit,
    Hedge,
    RateLimiterConfig,
    RetryBudget,
    RetryConfig,
)

DEFAULTS: dict[Any, dict[str, object]] = {
    CircuitBreakerConfig: {
        "failure_threshold": 5,
        "timeout": timedelta(seconds=30),
        "half_open_max_calls": 1,
        "success_threshold": 1,
        "ignored_exceptions": (),
        "failure_rate_threshold": None,
        "slow_call_rate_threshold": None,
        "window_calls": 100,
        "window_duration": None,
        "minimum_calls": 10,
        "probe_lease": None,
        "timeout_multiplier": 1,
        "timeout_max": timedelta(seconds=300),
    },
    RetryConfig: {
        "max_attempts": 3,
        "base_delay": 0.1,
        "max_delay": 10,
        "multiplier": 2,
        "jitter": "full",
        "retryable": None,
        "attempt_timeout": None,
        "total_timeout": None,
        "retry_after_max": None,
    },
    RetryBudget: {"ratio": 0.2, "retries_per_s_min": 1, "retries_saved_max": 100},
    BulkheadConfig: {"max_concurrent_calls": 10, "max_queued_calls": 0, "max_wait": None},
    RateLimiterConfig: {"max_calls": 100, "period": 1, "burst": None, "max_queued_calls": 0, "max_wait": None},
    AdaptiveThrottle: {"k": 2, "window": 120},
    AimdLimit: {"initial": 20, "least": 1, "most": 200, "backoff_ratio": 0.9, "timeout": 5},
    GradientLimit: {"initial": 20, "least": 1, "most": 200, "queue": 4, "tolerance": 1.5, "smoothing": 0.2},
    Hedge: {"hedges_max": 1, "budget": None},
    ChaosConfig: {"enabled": False, "fault_rate": 0, "latency_rate": 0, "latency_max": 1},
}


@pytest.mark.parametrize("kind", DEFAULTS, ids=lambda kind: kind.__name__)
def test_the_defaults_are_those_that_are_documented(kind: Any) -> None:
    parameters = signature(kind).parameters
    assert {name: parameters[name].default for name in DEFAULTS[kind]} == DEFAULTS[kind]


def test_programming_errors_are_not_retried_unless_asked_for() -> None:
    assert {ValueError, TypeError, LookupError, AttributeError, AssertionError} <= set(RetryConfig().non_retryable)
