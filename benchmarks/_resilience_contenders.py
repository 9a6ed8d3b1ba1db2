"""The same operation under the policies of POLARIS, under those of other libraries, and bare."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import circuitbreaker
import hyx.bulkhead
import hyx.circuitbreaker
import hyx.retry
import pyresilience
import stamina
import tenacity

from polaris.resilience import (
    Bulkhead,
    BulkheadConfig,
    CircuitBreaker,
    CircuitBreakerConfig,
    Pipeline,
    RateLimiter,
    RateLimiterConfig,
    RetryConfig,
    RetryPolicy,
    Timeout,
)

Call = Callable[[], Awaitable[Any]]
PERMITS = 10
WINDOW = 100
NEVER_S = 3_600.0


async def operation() -> int:
    """What is guarded: it does nothing, so that only the guard costs."""
    return 1


def retries() -> dict[str, Call]:
    return {
        "POLARIS": functools.partial(RetryPolicy(RetryConfig()).execute, operation),
        "hyx": hyx.retry.retry(attempts=3)(operation),
        "pyresilience": pyresilience.resilient(retry=pyresilience.RetryConfig())(operation),
        "stamina": stamina.retry(on=OSError, attempts=3)(operation),
        "tenacity": tenacity.retry(stop=tenacity.stop_after_attempt(3))(operation),
    }


def breakers_with_a_window() -> dict[str, Call]:
    return {
        "POLARIS": functools.partial(_windowed_breaker().call, operation),
        "pyresilience": pyresilience.resilient(circuit_breaker=_window_of_pyresilience())(operation),
    }


def breakers_that_count() -> dict[str, Call]:
    counting = pyresilience.CircuitBreakerConfig()
    return {
        "POLARIS": functools.partial(CircuitBreaker("b").call, operation),
        "circuitbreaker": circuitbreaker.CircuitBreaker()(operation),
        "hyx": hyx.circuitbreaker.consecutive_breaker()(operation),
        "pyresilience": pyresilience.resilient(circuit_breaker=counting)(operation),
    }


def bulkheads() -> dict[str, Call]:
    semaphore = asyncio.Semaphore(PERMITS)

    async def with_semaphore() -> int:
        async with semaphore:
            return await operation()

    return {
        "POLARIS": functools.partial(_bulkhead().execute, operation),
        "asyncio.Semaphore": with_semaphore,
        "hyx": hyx.bulkhead.bulkhead(PERMITS, PERMITS)(operation),
        "pyresilience": pyresilience.resilient(bulkhead=pyresilience.BulkheadConfig(PERMITS))(operation),
    }


def three() -> dict[str, Call]:
    """Retry, breaker and bulkhead. hyx has no window: its breaker counts consecutive failures."""
    pipeline = Pipeline(retry=RetryPolicy(), breaker=_windowed_breaker(), bulkhead=_bulkhead())
    counting = Pipeline(retry=RetryPolicy(), breaker=CircuitBreaker("b"), bulkhead=_bulkhead())
    in_hyx = hyx.bulkhead.bulkhead(PERMITS, PERMITS)(operation)
    in_hyx = hyx.circuitbreaker.consecutive_breaker()(in_hyx)
    return {
        "POLARIS": functools.partial(pipeline.execute, operation),
        "POLARIS, consecutive failures": functools.partial(counting.execute, operation),
        "hyx, consecutive failures": hyx.retry.retry(attempts=3)(in_hyx),
        "pyresilience": pyresilience.resilient(
            retry=pyresilience.RetryConfig(),
            circuit_breaker=_window_of_pyresilience(),
            bulkhead=pyresilience.BulkheadConfig(PERMITS),
        )(operation),
    }


def three_and_a_deadline() -> dict[str, Call]:
    pipeline = Pipeline(
        deadline=NEVER_S,
        retry=RetryPolicy(),
        breaker=_windowed_breaker(),
        bulkhead=_bulkhead(),
    )
    return {
        "POLARIS": functools.partial(pipeline.execute, operation),
        "pyresilience": pyresilience.resilient(
            timeout=pyresilience.TimeoutConfig(NEVER_S, per_attempt=False),
            retry=pyresilience.RetryConfig(),
            circuit_breaker=_window_of_pyresilience(),
            bulkhead=pyresilience.BulkheadConfig(PERMITS),
        )(operation),
    }


def deadlines() -> dict[str, Call]:
    async def with_asyncio() -> int:
        async with asyncio.timeout(NEVER_S):
            return await operation()

    return {
        "POLARIS": functools.partial(Timeout(NEVER_S).execute, operation),
        "asyncio.timeout": with_asyncio,
        "pyresilience": pyresilience.resilient(timeout=pyresilience.TimeoutConfig(NEVER_S))(operation),
    }


class PlainError(Exception):
    """The least that a rejection can be."""


def rejections() -> dict[str, Call]:
    """Calls that are refused at once: the error is made, raised through the policy and caught."""
    breaker = CircuitBreaker("b")
    breaker.isolate()
    bulkhead = _bulkhead(permits=1)
    limiter = RateLimiter("r", RateLimiterConfig(max_calls=1, period=NEVER_S))
    of_pyresilience = pyresilience.resilient(
        circuit_breaker=pyresilience.CircuitBreakerConfig(failure_threshold=1, recovery_timeout=NEVER_S)
    )(_failing)
    of_hyx = hyx.circuitbreaker.consecutive_breaker(failure_threshold=1, recovery_time_secs=NEVER_S)(_failing)

    async def plain() -> None:
        raise PlainError("refused by hand: open")

    return {
        "a plain exception": _caught(plain),
        "POLARIS breaker": _caught(functools.partial(breaker.call, operation)),
        "POLARIS bulkhead": _occupied(bulkhead),
        "POLARIS rate limiter": _caught(functools.partial(limiter.execute, operation)),
        "pyresilience breaker": _caught(of_pyresilience),
        "hyx breaker": _caught(of_hyx),
    }


async def _failing() -> int:
    raise OSError


def _caught(call: Call) -> Call:
    async def caught() -> None:
        try:
            await call()
        except Exception:  # boundary: each library rejects with an error of its own
            return

    return caught


def _occupied(bulkhead: Bulkhead) -> Call:
    """A call of a bulkhead whose only permit is taken for good."""
    refused = _caught(functools.partial(bulkhead.execute, operation))
    holder: list[asyncio.Task[None]] = []

    async def caught() -> None:
        if not holder:
            holder.append(asyncio.create_task(bulkhead.execute(asyncio.Event().wait)))  # type: ignore[arg-type]
            await asyncio.sleep(0)
        await refused()

    return caught


def _windowed_breaker() -> CircuitBreaker:
    return CircuitBreaker("b", CircuitBreakerConfig(failure_rate_threshold=0.5, window_calls=WINDOW))


def _window_of_pyresilience() -> pyresilience.CircuitBreakerConfig:
    return pyresilience.CircuitBreakerConfig(sliding_window_size=WINDOW, failure_rate_threshold=0.5)


def _bulkhead(permits: int = PERMITS) -> Bulkhead:
    return Bulkhead("b", BulkheadConfig(permits))
