"""What the client-side throttle promises."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from polaris.exceptions import BulkheadRejectedException, InvalidValueError, RateLimitExceededError
from polaris.resilience import AdaptiveThrottle, RateLimited, Signal
from polaris.testing import VirtualClock

from .doubles import BoomError, fail, succeed, taking


def throttle_of(clock: VirtualClock, signals: list[Signal] | None = None) -> AdaptiveThrottle:
    listeners = [] if signals is None else [signals.append]
    return AdaptiveThrottle("api", k=2, window=10, clock=clock, random=Random(3), listeners=listeners)


async def test_a_healthy_dependency_is_never_throttled(clock: VirtualClock) -> None:
    throttle = throttle_of(clock)
    for _ in range(200):
        await throttle.execute(succeed)
    assert throttle.rejection_probability == 0


async def test_half_of_the_calls_may_fail_before_any_is_rejected(clock: VirtualClock) -> None:
    throttle = throttle_of(clock)
    for _ in range(100):
        await throttle.execute(succeed)
        with pytest.raises(BoomError):
            await throttle.execute(fail)
    assert throttle.rejection_probability == 0


async def test_a_dead_dependency_is_asked_less_and_less_but_never_given_up(
    clock: VirtualClock, signals: list[Signal]
) -> None:
    throttle = throttle_of(clock, signals)
    asked = 0
    for _ in range(2_000):
        try:
            await throttle.execute(fail)
        except BoomError:
            asked += 1
        except RateLimitExceededError:
            continue
    assert 3 <= asked <= 60
    assert throttle.rejection_probability == pytest.approx(2_000 / 2_001)
    assert signals[0] == RateLimited("api", "", "throttled", None)
    clock.advance(10)
    assert throttle.rejection_probability == 0


async def test_cancellation_and_local_rejections_count_as_nothing(clock: VirtualClock) -> None:
    throttle = throttle_of(clock)
    for error in (asyncio.CancelledError(), BulkheadRejectedException("b", active=1, queued=0)):
        for _ in range(20):
            with pytest.raises(type(error)):
                await throttle.execute(taking(0, error))
    assert throttle.rejection_probability == 0


def test_a_factor_below_one_is_refused() -> None:
    with pytest.raises(InvalidValueError):
        AdaptiveThrottle("api", k=0.5)
