"""What a circuit breaker promises when rates over a window decide."""

from __future__ import annotations

import asyncio

import pytest

from polaris.resilience import CircuitBreaker, CircuitBreakerConfig, CircuitBreakerState
from polaris.testing import VirtualClock

from .doubles import BoomError, fail, succeed, taking


def breaker_of(clock: VirtualClock, **rules: object) -> CircuitBreaker:
    return CircuitBreaker("db", CircuitBreakerConfig(**rules), clock=clock)  # type: ignore[arg-type]


async def run(breaker: CircuitBreaker, outcomes: str) -> None:
    """`.` is a success, `x` a failure."""
    for outcome in outcomes:
        if outcome == ".":
            await breaker.call(succeed)
        else:
            with pytest.raises(BoomError):
                await breaker.call(fail)


def is_open(breaker: CircuitBreaker) -> bool:
    return breaker.state is CircuitBreakerState.OPEN


async def test_it_opens_at_the_rate_once_there_are_enough_calls(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, failure_rate_threshold=0.5, minimum_calls=6)
    await run(breaker, "xxxxx")
    assert not is_open(breaker)
    await run(breaker, ".")
    assert is_open(breaker)


async def test_consecutive_failures_alone_do_not_open_it_in_rate_mode(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, failure_rate_threshold=0.9, minimum_calls=10, failure_threshold=1)
    await run(breaker, ".." + "x" * 8)
    assert not is_open(breaker)


@pytest.mark.parametrize(("rate", "failures"), [(0.07, 7), (0.29, 29), (0.57, 57), (1.0, 100)])
async def test_a_rate_is_reached_exactly_in_spite_of_rounding(clock: VirtualClock, rate: float, failures: int) -> None:
    breaker = breaker_of(clock, failure_rate_threshold=rate, window_calls=100, minimum_calls=100)
    await run(breaker, "." * (100 - failures) + "x" * (failures - 1))
    assert not is_open(breaker)
    await run(breaker, "x")
    assert is_open(breaker)


async def test_calls_that_left_the_count_window_do_not_count(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, failure_rate_threshold=0.5, window_calls=10, minimum_calls=10)
    for _ in range(20):
        await run(breaker, "xxxx......")
    assert not is_open(breaker)
    snapshot = breaker.snapshot()
    assert (snapshot.window_calls, snapshot.failed_calls) == (10, 4)


async def test_calls_older_than_the_time_window_do_not_count(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, failure_rate_threshold=0.5, window_duration=10, minimum_calls=4)
    await run(breaker, "xxx")
    clock.advance(10)
    await run(breaker, ".x..")
    assert not is_open(breaker)
    assert breaker.snapshot().failed_calls == 1
    clock.advance(10)
    assert breaker.snapshot().window_calls == 0


async def test_calls_within_the_time_window_count(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, failure_rate_threshold=0.5, window_duration=10, minimum_calls=6)
    for _ in range(3):
        await run(breaker, ".x")
        clock.advance(2.9)
    assert is_open(breaker)


async def test_slow_calls_open_it_though_they_succeed(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, slow_call_rate_threshold=0.5, slow_call_duration=1.0, minimum_calls=4)
    for seconds in (0.5, 1.0, 1.5):
        await breaker.call(taking(seconds))
    assert breaker.snapshot().slow_calls == 1
    await breaker.call(taking(2))
    assert is_open(breaker)


async def test_a_slow_probe_opens_it_again(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, slow_call_rate_threshold=1.0, slow_call_duration=1.0, minimum_calls=1)
    await breaker.call(taking(2))
    await asyncio.sleep(30)
    await breaker.call(taking(2))
    assert is_open(breaker)
    await asyncio.sleep(30)
    await breaker.call(taking(0.5))
    assert breaker.state is CircuitBreakerState.CLOSED


async def test_a_closed_breaker_starts_with_an_empty_window(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, failure_rate_threshold=0.5, minimum_calls=2)
    await run(breaker, "xx")
    clock.advance(30)
    await run(breaker, ".x")
    assert breaker.state is CircuitBreakerState.CLOSED
    assert breaker.snapshot().window_calls == 1
