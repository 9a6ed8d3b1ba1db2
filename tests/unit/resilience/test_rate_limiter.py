"""What a rate limiter promises."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from polaris.exceptions import InvalidValueError, RateLimitExceededError
from polaris.resilience import RateLimited, RateLimiter, RateLimiterConfig, Signal, deadline_scope
from polaris.testing import VirtualClock, run_virtual, running_clock

from .doubles import hang, settle, succeed


def limiter_of(*, signals: list[Signal] | None = None, **rules: Any) -> RateLimiter:
    return RateLimiter("api", RateLimiterConfig(**rules), listeners=[] if signals is None else [signals.append])


async def test_a_burst_passes_and_the_next_call_is_told_when_to_come_back(signals: list[Signal]) -> None:
    limiter = limiter_of(max_calls=2, period=1.0, burst=3, signals=signals)
    for _ in range(3):
        await limiter.execute(succeed)
    with pytest.raises(RateLimitExceededError) as caught:
        await limiter.execute(succeed, "load")
    assert caught.value.retry_after == pytest.approx(0.5)
    assert signals == [RateLimited("api", "load", "rate", caught.value.retry_after)]
    assert limiter.get_stats().rejected_calls == 1
    await asyncio.sleep(0.5)
    assert await limiter.execute(succeed) == "ok"


async def test_a_long_quiet_time_saves_up_no_more_than_the_burst() -> None:
    limiter = limiter_of(max_calls=100, burst=2)
    await limiter.execute(succeed)
    await asyncio.sleep(1_000)
    assert limiter.get_stats().available_calls == 2
    for _ in range(2):
        await limiter.execute(succeed)
    with pytest.raises(RateLimitExceededError):
        await limiter.execute(succeed)


async def test_waiters_are_served_in_order_at_the_rate(clock: VirtualClock) -> None:
    limiter = limiter_of(max_calls=10, burst=1, max_queued_calls=100)
    began, served = clock.monotonic(), []

    async def call(number: int) -> None:
        async def operation() -> None:
            served.append((number, round(clock.monotonic() - began, 6)))

        await limiter.execute(operation)

    await asyncio.gather(*(call(number) for number in range(20)))
    assert served == [(number, round(number / 10, 6)) for number in range(20)]


async def test_a_call_whose_turn_would_come_too_late_is_rejected_at_once(clock: VirtualClock) -> None:
    limiter = limiter_of(max_calls=1, max_queued_calls=10, max_wait=2.5)
    tasks = [asyncio.create_task(limiter.execute(succeed)) for _ in range(3)]
    await settle()
    before = clock.monotonic()
    with pytest.raises(RateLimitExceededError) as caught:
        await limiter.execute(succeed)
    assert (caught.value.reason, clock.monotonic()) == ("wait", before)
    assert await asyncio.gather(*tasks) == ["ok"] * 3
    with pytest.raises(RateLimitExceededError), deadline_scope(0.5):
        await limiter.execute(succeed)


async def test_the_turn_of_a_waiter_that_leaves_goes_to_the_next(clock: VirtualClock) -> None:
    limiter = limiter_of(max_calls=1, max_queued_calls=10)
    await limiter.execute(succeed)
    before = clock.monotonic()
    leaving = asyncio.create_task(limiter.execute(succeed))
    await settle()
    staying = asyncio.create_task(limiter.execute(succeed))
    await settle()
    leaving.cancel()
    await staying
    assert clock.monotonic() - before == pytest.approx(1)
    assert leaving.cancelled()


async def test_a_waiter_cancelled_in_the_tick_of_its_turn_passes_it_on(clock: VirtualClock) -> None:
    limiter = limiter_of(max_calls=1, max_queued_calls=10)
    await limiter.execute(succeed)
    before = clock.monotonic()
    tasks = [asyncio.create_task(limiter.execute(succeed)) for _ in range(2)]
    await settle()
    clock.advance(1)
    limiter._ring()
    tasks[0].cancel()
    assert await tasks[1] == "ok"
    assert clock.monotonic() - before == pytest.approx(1)


def test_a_loop_that_ended_with_waiters_does_not_block_the_next_loop() -> None:
    limiter = limiter_of(max_calls=1, max_queued_calls=10)
    clock = VirtualClock()

    async def abandon() -> None:
        await limiter.execute(succeed)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await limiter.execute(succeed)

    run_virtual(abandon(), clock=clock)
    assert run_virtual(limiter.execute(succeed), clock=clock) == "ok"


@pytest.mark.parametrize("seed", range(50))
def test_in_no_stretch_of_time_do_more_calls_start_than_allowed(seed: int) -> None:
    random = Random(seed)
    rate, burst = random.choice([1, 3, 7, 1_000]), random.randint(1, 5)
    limiter = limiter_of(max_calls=rate, burst=burst, max_queued_calls=random.randint(0, 20))
    starts: list[float] = []

    async def operation() -> None:
        starts.append(running_clock().monotonic())

    async def call() -> None:
        await asyncio.sleep(random.uniform(0, 30 / rate))
        try:
            await limiter.execute(operation)
        except RateLimitExceededError:
            return

    async def main() -> None:
        calls = [asyncio.create_task(call()) for _ in range(60)]
        loop = asyncio.get_running_loop()
        for victim in random.sample(calls, 15):
            loop.call_later(random.uniform(0, 30 / rate), victim.cancel)
        await asyncio.gather(*calls, return_exceptions=True)

    run_virtual(main())
    assert limiter.get_stats().queued_calls == 0
    for first, start in enumerate(starts):
        for last in range(first, len(starts)):
            assert last - first + 1 <= burst + rate * (starts[last] - start) + 1e-3


async def test_a_call_that_never_ends_does_not_hold_up_the_others() -> None:
    limiter = limiter_of(max_calls=1, max_queued_calls=5)
    hanging = asyncio.create_task(limiter.execute(hang))
    await settle()
    assert await limiter.execute(succeed) == "ok"
    hanging.cancel()


@pytest.mark.parametrize("rules", [{"max_calls": 0}, {"period": 0}, {"burst": 0}, {"max_queued_calls": -1}])
def test_bounds_that_make_no_sense_are_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        RateLimiterConfig(**rules)
