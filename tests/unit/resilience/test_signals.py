"""Every policy says what it did, and a listener that fails changes nothing for any call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from random import Random
from typing import Any, get_args

import pytest

from polaris.exceptions import PolarisException
from polaris.resilience import (
    AdaptiveThrottle,
    AimdLimit,
    BreakerRejected,
    BreakerStateChanged,
    Bulkhead,
    BulkheadConfig,
    BulkheadRejected,
    Chaos,
    ChaosConfig,
    ChaosInjected,
    CircuitBreaker,
    CircuitBreakerConfig,
    DeadlineExpired,
    Fallback,
    FallbackUsed,
    Hedge,
    HedgeStarted,
    LimitChanged,
    Listener,
    ProbeLeaseExpired,
    RateLimited,
    RateLimiter,
    RateLimiterConfig,
    RetryConfig,
    RetryGaveUp,
    RetryPolicy,
    RetryRecovered,
    RetryScheduled,
    Signal,
    Timeout,
    deadline_scope,
)
from polaris.testing import VirtualClock, running_clock

from .doubles import BoomError, Script, fail, hang, succeed, taking

Listeners = Iterable[Listener]


async def outcome(call: Awaitable[Any]) -> str:
    try:
        return str(await call)
    except (BoomError, ConnectionError, PolarisException) as error:
        return type(error).__name__


async def breaker(listeners: Listeners, clock: VirtualClock) -> list[str]:
    policy = CircuitBreaker("c", CircuitBreakerConfig(1, 30, probe_lease=5), clock=clock, listeners=listeners)
    seen = [await outcome(policy.call(fail)), await outcome(policy.call(succeed))]
    clock.advance(30)
    hanging = asyncio.create_task(policy.call(hang))
    await asyncio.sleep(5)
    seen.append(await outcome(policy.call(succeed)))
    hanging.cancel()
    return seen


async def retry(listeners: Listeners, clock: VirtualClock) -> list[str]:
    policy = RetryPolicy(RetryConfig(2, 0.1), listeners=listeners, random=Random(1))
    return [await outcome(policy.execute(Script([BoomError(), "ok"]))), await outcome(policy.execute(fail))]


async def bulkhead(listeners: Listeners, clock: VirtualClock) -> list[str]:
    limit = AimdLimit(initial=1, most=2)
    policy = Bulkhead("b", BulkheadConfig(2), limit=limit, listeners=listeners)
    calls = [policy.execute(taking(1)), policy.execute(succeed)]
    return [*await asyncio.gather(*map(outcome, calls)), await outcome(policy.execute(succeed))]


async def timeout(listeners: Listeners, clock: VirtualClock) -> list[str]:
    with deadline_scope(9, listeners=tuple(listeners)):
        return [await outcome(Timeout(1, listeners=listeners).execute(hang))]


async def limiter(listeners: Listeners, clock: VirtualClock) -> list[str]:
    policy = RateLimiter("r", RateLimiterConfig(1), listeners=listeners)
    return [await outcome(policy.execute(succeed)) for _ in range(2)]


async def throttle(listeners: Listeners, clock: VirtualClock) -> list[str]:
    policy = AdaptiveThrottle("t", clock=clock, random=Random(1), listeners=listeners)
    return [await outcome(policy.execute(fail)) for _ in range(20)]


async def fallback(listeners: Listeners, clock: VirtualClock) -> list[str]:
    return [await outcome(Fallback.value("instead", handles=(BoomError,), listeners=listeners).execute(fail))]


async def hedge(listeners: Listeners, clock: VirtualClock) -> list[str]:
    return [await outcome(Hedge(1, listeners=listeners).execute(taking(5)))]


async def chaos(listeners: Listeners, clock: VirtualClock) -> list[str]:
    policy = Chaos(ChaosConfig(enabled=True, fault_rate=0.5, latency_rate=0.5), listeners=listeners)
    return [await outcome(policy.execute(succeed)) for _ in range(20)]


STORIES: dict[Callable[[Listeners, VirtualClock], Awaitable[list[str]]], set[type]] = {
    breaker: {BreakerStateChanged, BreakerRejected, ProbeLeaseExpired},
    retry: {RetryScheduled, RetryRecovered, RetryGaveUp},
    bulkhead: {BulkheadRejected, LimitChanged},
    timeout: {DeadlineExpired},
    limiter: {RateLimited},
    throttle: {RateLimited},
    fallback: {FallbackUsed},
    hedge: {HedgeStarted},
    chaos: {ChaosInjected},
}


@pytest.mark.parametrize("story", STORIES)
async def test_every_policy_reports_and_a_listener_that_raises_changes_nothing(
    story: Callable[[Listeners, VirtualClock], Awaitable[list[str]]], signals: list[Signal]
) -> None:
    def broken(signal: Signal) -> None:
        raise RuntimeError(str(signal))

    quiet = await story((), running_clock())
    assert await story((broken, signals.append), running_clock()) == quiet
    assert {type(signal) for signal in signals} == STORIES[story]


def test_no_signal_is_without_a_story() -> None:
    assert set().union(*STORIES.values()) == set(get_args(Signal))
