"""Rejections retain nothing, whichever policy rejects: an overload must not fill the memory too."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random

import pytest

from polaris.exceptions import (
    BulkheadRejectedException,
    CircuitBreakerOpenException,
    PolarisException,
    RateLimitExceededError,
)
from polaris.resilience import (
    AdaptiveThrottle,
    Bulkhead,
    BulkheadConfig,
    CircuitBreaker,
    CircuitBreakerConfig,
    Policy,
    RateLimiter,
    RateLimiterConfig,
)
from polaris.testing import VirtualClock

from .doubles import BoomError, fail, hang, settle, succeed

RETAINED_BYTES_MAX = 20_000


async def open_breaker(clock: VirtualClock) -> Policy:
    breaker = CircuitBreaker("c", CircuitBreakerConfig(1), clock=clock)
    with pytest.raises(BoomError):
        await breaker.call(fail)
    return breaker


async def half_open_breaker(clock: VirtualClock) -> Policy:
    breaker = await open_breaker(clock)
    clock.advance(30)
    occupy(breaker)
    await settle()
    return breaker


async def full_bulkhead(clock: VirtualClock) -> Policy:
    bulkhead = Bulkhead("b", BulkheadConfig(1, 1))
    for _ in range(2):
        occupy(bulkhead)
    await settle()
    return bulkhead


async def empty_limiter(clock: VirtualClock) -> Policy:
    limiter = RateLimiter("r", RateLimiterConfig(1, period=10**6, max_queued_calls=1))
    await limiter.execute(succeed)
    occupy(limiter)
    await settle()
    return limiter


async def closing_throttle(clock: VirtualClock) -> Policy:
    throttle = AdaptiveThrottle("t", clock=clock, random=Random(1))
    for _ in range(200):
        with suppress(BoomError, RateLimitExceededError):
            await throttle.execute(fail)
    return throttle


OCCUPANTS: set[asyncio.Task[str]] = set()


def occupy(policy: Policy) -> None:
    OCCUPANTS.add(asyncio.create_task(policy.execute(hang)))


async def leave() -> None:
    for task in OCCUPANTS:
        task.cancel()
    await asyncio.gather(*OCCUPANTS, return_exceptions=True)
    OCCUPANTS.clear()


async def rejected(policy: Policy, calls: int) -> int:
    """How many of the calls were rejected."""
    rejections = 0
    for _ in range(calls):
        try:
            await policy.execute(succeed)
        except PolarisException as error:
            assert isinstance(error, (BulkheadRejectedException, CircuitBreakerOpenException, RateLimitExceededError))
            rejections += 1
    return rejections


MAKERS = [open_breaker, half_open_breaker, full_bulkhead, empty_limiter, closing_throttle]
Maker = Callable[[VirtualClock], Awaitable[Policy]]


@pytest.mark.parametrize("make", [empty_limiter, closing_throttle])
async def test_a_hundred_thousand_rejections_retain_nothing(clock: VirtualClock, make: Maker) -> None:
    policy = await make(clock)
    await rejected(policy, 1_000)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        rejections = await rejected(policy, 100_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    await leave()
    assert rejections > 99_000
    assert after - before < RETAINED_BYTES_MAX


@pytest.mark.parametrize("make", MAKERS)
async def test_a_rejection_leaves_no_object_behind_without_the_collector(clock: VirtualClock, make: Maker) -> None:
    policy = await make(clock)
    await rejected(policy, 200)
    gc.collect()
    gc.disable()
    try:
        before = sys.getallocatedblocks()
        rejections = await rejected(policy, 2_000)
        after = sys.getallocatedblocks()
    finally:
        gc.enable()
    await leave()
    assert rejections > 1_900
    assert after - before < 200
