"""What instant retries promise: no real time, and every deadline as it would be in earnest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from polaris.clock import Clock
from polaris.exceptions import DeadlineExceededError, RetryExhaustedError
from polaris.resilience import (
    CircuitBreaker,
    CircuitBreakerConfig,
    Pipeline,
    RateLimiter,
    RateLimiterConfig,
    RetryConfig,
    RetryPolicy,
    deadline_scope,
    monotonic_s,
    remaining_s,
)
from polaris.testing import InstantClock, VirtualClock, run_virtual

from .doubles import BoomError, Script, fail, hang, succeed


def in_no_time(main: Callable[[], Awaitable[Any]]) -> Any:
    """Run on an ordinary loop, and see that it did not really wait."""

    async def timed() -> Any:
        return await main()

    began_s = time.monotonic()
    result = asyncio.run(timed())
    assert time.monotonic() - began_s < 5
    return result


def test_the_waits_of_a_retry_take_no_time_and_are_written_down() -> None:
    clock = InstantClock()
    assert isinstance(clock, Clock)
    policy = RetryPolicy(RetryConfig(4, 1_000, max_delay=3_000, jitter="none"), clock=clock)
    assert in_no_time(lambda: policy.execute(Script([BoomError(), BoomError(), BoomError(), "ok"]))) == "ok"
    assert clock.waits == [1_000, 2_000, 3_000]


async def ending(policy: RetryPolicy, operation: Callable[[], Awaitable[object]], limit_s: float | None) -> str:
    try:
        with deadline_scope(limit_s):
            await policy.execute(operation, deadline=None if limit_s is None else timedelta(seconds=limit_s))
    except RetryExhaustedError as error:
        return f"{error.reason} after {error.attempts}"
    except DeadlineExceededError:
        return "deadline exceeded"
    return "ok"


async def attempts_of(clock: Clock, rules: dict[str, Any], limit_s: float | None) -> tuple[str, list[float]]:
    """How the retries of an operation that always fails end, and when its attempts began."""
    starts: list[float] = []
    began_s = monotonic_s()

    async def operation() -> None:
        starts.append(monotonic_s() - began_s)
        await fail()

    policy = RetryPolicy(RetryConfig(**rules), clock=clock, random=Random(3))
    return await ending(policy, operation, limit_s), starts


@pytest.mark.parametrize(
    ("rules", "limit_s"),
    [
        ({"max_attempts": 5, "base_delay": 100, "max_delay": 1_000}, None),
        ({"max_attempts": 50, "base_delay": 400, "max_delay": 400, "total_timeout": 1_500}, None),
        ({"max_attempts": 50, "base_delay": 100, "max_delay": 900, "multiplier": 3}, 2_000),
        ({"max_attempts": 50, "base_delay": 300, "max_delay": 900, "jitter": "decorrelated"}, 4_000),
        ({"max_attempts": 9, "base_delay": 50, "max_delay": 90, "attempt_timeout": 9, "total_timeout": 200}, 150),
    ],
)
def test_retries_end_as_and_when_they_would_in_virtual_time(rules: dict[str, Any], limit_s: float | None) -> None:
    virtual = VirtualClock()
    end, starts = run_virtual(attempts_of(virtual, rules, limit_s), clock=virtual)
    assert in_no_time(lambda: attempts_of(InstantClock(), rules, limit_s)) == (end, pytest.approx(starts, abs=5))
    assert len(starts) > 1


def test_what_is_left_of_a_deadline_after_the_waits_interrupts_an_attempt_that_hangs() -> None:
    script = Script([BoomError(), BoomError()])

    async def operation() -> None:
        if script.calls < 2:
            await script()
        await hang()

    policy = RetryPolicy(
        RetryConfig(5, 1_000, max_delay=1_000, jitter="none", total_timeout=2_000.05), clock=InstantClock()
    )
    assert in_no_time(lambda: ending(policy, operation, None)) == "deadline exceeded"


def test_policies_that_share_the_clock_see_the_wait() -> None:
    clock = InstantClock()

    async def main() -> Any:
        breaker = CircuitBreaker("c", CircuitBreakerConfig(1, 30), clock=clock)
        limiter = RateLimiter("r", RateLimiterConfig(1, period=20))
        retry = RetryPolicy(RetryConfig(2, 0, max_delay=60, jitter="none"), clock=clock)
        script = Script([BoomError(), "ok"])
        pipeline = Pipeline(retry=retry, breaker=breaker, rate_limiter=limiter)
        with pytest.raises(BoomError):
            await breaker.call(script)
        return await pipeline.execute(script)

    assert in_no_time(main) == "ok"
    assert clock.waits == [pytest.approx(30, abs=1)]


def test_timers_that_fall_due_meanwhile_fire_first_and_in_order() -> None:
    clock = InstantClock()
    fired: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for seconds in (20, 5, 11, 10):
            loop.call_later(seconds, fired.append, f"timer {seconds}")
        await clock.sleep(10.5)
        fired.append("slept")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await clock.sleep(3)
        fired.append("timed out")

    in_no_time(main)
    assert fired == ["timer 5", "timer 10", "slept", "timer 11", "timed out"]


def test_sleeps_of_the_same_turn_overlap_and_later_ones_follow() -> None:
    clock = InstantClock()

    async def main() -> float:
        began_s = clock.monotonic()
        woken: list[int] = []

        async def sleep(seconds: int) -> None:
            await clock.sleep(seconds)
            woken.append(seconds)

        await asyncio.gather(*(sleep(seconds) for seconds in (300, 100, 200)))
        assert woken == [100, 200, 300]
        await clock.sleep(50)
        return clock.monotonic() - began_s

    assert in_no_time(main) == pytest.approx(350, abs=1)
    assert clock.waits == [300, 100, 200, 50]


def test_a_cancelled_sleep_skips_nothing() -> None:
    clock = InstantClock()

    async def main() -> float:
        began_s = clock.monotonic()
        sleeper = asyncio.create_task(clock.sleep(500))
        asyncio.get_running_loop().call_soon(sleeper.cancel)
        with pytest.raises(asyncio.CancelledError):
            await sleeper
        return clock.monotonic() - began_s

    assert in_no_time(main) < 5


@pytest.mark.parametrize("delay_s", [0, -1, 60])
def test_every_sleep_yields(delay_s: float) -> None:
    clock = InstantClock()
    order: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().call_soon(order.append, "other")
        await clock.sleep(delay_s)
        order.append("slept")

    in_no_time(main)
    assert order == ["other", "slept"]


def test_time_never_goes_back_on_any_loop_or_outside_and_the_wall_clock_keeps_step() -> None:
    clock = InstantClock()
    seen = [clock.monotonic()]
    wall = [clock.now()]

    async def main() -> None:
        seen.append(clock.monotonic())
        await clock.sleep(100)
        seen.append(clock.monotonic())

    for _ in range(2):
        in_no_time(main)
        seen.append(clock.monotonic())
    wall.append(clock.now())
    assert seen == sorted(seen)
    assert seen[-1] - seen[0] == pytest.approx(200, abs=5)
    assert (wall[1] - wall[0]).total_seconds() == pytest.approx(200, abs=5)


def test_two_clocks_on_one_loop_agree() -> None:
    first, second = InstantClock(), InstantClock()

    async def main() -> None:
        await first.sleep(100)
        assert second.monotonic() == pytest.approx(first.monotonic(), abs=1)
        with deadline_scope(100):
            await second.sleep(60)
            assert remaining_s() == pytest.approx(40, abs=1)
        assert second.monotonic() == pytest.approx(first.monotonic(), abs=1)
        assert await asyncio.wait_for(succeed(), 1) == "ok"

    in_no_time(main)


DEEP_INSIDE = RetryPolicy(RetryConfig(4, 1_000, max_delay=3_000, jitter="none"))


def test_in_virtual_time_retries_are_instant_though_no_clock_was_handed_in() -> None:
    async def main() -> float:
        began_s = monotonic_s()
        with pytest.raises(RetryExhaustedError):
            await DEEP_INSIDE.execute(fail)
        return monotonic_s() - began_s

    real_s = time.monotonic()
    assert run_virtual(main()) == 6_000
    assert time.monotonic() - real_s < 5


async def test_it_is_refused_where_time_is_virtual_already() -> None:
    with pytest.raises(RuntimeError):
        await InstantClock().sleep(1)
