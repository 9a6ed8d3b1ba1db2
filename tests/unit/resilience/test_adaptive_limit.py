"""What adaptive concurrency limits promise, alone and in a bulkhead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from polaris.exceptions import BulkheadRejectedException, InvalidValueError
from polaris.resilience import (
    AimdLimit,
    Bulkhead,
    BulkheadConfig,
    ConcurrencyLimit,
    GradientLimit,
    LimitChanged,
    Signal,
    Timeout,
)

from .doubles import BoomError, fail, hang, settle, succeed, taking


def test_aimd_adds_one_when_used_and_multiplies_down_when_calls_time_out() -> None:
    limit = AimdLimit(initial=20, most=22, backoff_ratio=0.9, timeout=5)
    limit.observe(1, 9, False)
    assert limit.limit == 20
    for expected in (21, 22, 22):
        limit.observe(1, 11, False)
        assert limit.limit == expected
    limit.observe(1, 22, True)
    assert limit.limit == 19
    limit.observe(5.1, 22, False)
    assert limit.limit == 17


def test_gradient_follows_its_formula() -> None:
    limit = GradientLimit(initial=20, queue=4, tolerance=1.5, smoothing=0.2, warm_up=1)
    limit.observe(0.1, 20, False)
    assert limit.limit == int(20 * 0.8 + (20 + 4) * 0.2)
    # Four times slower: average 0.1 + (0.4 - 0.1) * 2 / 601, gradient clamped at the half.
    limit.observe(0.4, 20, False)
    assert limit._estimate == pytest.approx(20.8 * 0.8 + (20.8 * 0.5 + 4) * 0.2)


def test_gradient_does_not_move_while_little_is_in_use() -> None:
    limit = GradientLimit(initial=20)
    for _ in range(100):
        limit.observe(0.1, 9, False)
    assert limit.limit == 20


def test_gradient_recovers_after_a_slow_spell() -> None:
    limit = GradientLimit(initial=20, most=50)
    for _ in range(3_000):
        limit.observe(10.0, 50, False)
    for _ in range(200):
        limit.observe(0.1, 50, False)
    assert limit._average_s < 0.3
    assert limit.limit == 50


@pytest.mark.parametrize("make", [AimdLimit, GradientLimit])
def test_limits_stay_within_their_bounds_whatever_is_observed(make: Callable[..., ConcurrencyLimit]) -> None:
    limit = make(initial=5, least=2, most=9)
    for duration_s, dropped in ((0.0, False), (1e9, True), (1e-12, False), (100.0, True)):
        for _ in range(300):
            limit.observe(duration_s, 10, dropped)
            assert 2 <= limit.limit <= 9


def test_aimd_finds_the_capacity_of_an_overloaded_dependency() -> None:
    # Up to ten calls take 0.1 s each; more share the capacity, and everything takes longer.
    limit = AimdLimit(initial=100, most=200, timeout=0.3)
    seen = []
    for _ in range(3_000):
        in_flight = limit.limit
        limit.observe(0.1 * max(1.0, in_flight / 10), in_flight, False)
        seen.append(limit.limit)
    assert 20 <= sum(seen[-500:]) / 500 <= 35


def test_gradient_shrinks_before_anything_times_out_when_calls_become_slower() -> None:
    limit = GradientLimit(initial=20, most=60)
    for _ in range(300):
        limit.observe(0.1, 60, False)
    assert limit.limit == 60
    for _ in range(40):
        limit.observe(0.5, 60, False)
    assert limit.limit < 15


async def test_a_bulkhead_follows_its_limit_and_loses_no_permit(signals: list[Signal]) -> None:
    limit = AimdLimit(initial=4, least=1, most=50, backoff_ratio=0.5)
    bulkhead = Bulkhead("b", BulkheadConfig(10, 100), limit=limit, listeners=[signals.append])
    running = most = 0

    async def operation() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1

    await asyncio.gather(*(bulkhead.execute(operation) for _ in range(80)))
    assert most == 10
    assert signals[0] == LimitChanged("b", 4, 5)
    timeout = Timeout(1)
    outcomes = await asyncio.gather(
        *(bulkhead.execute(lambda: timeout.execute(hang)) for _ in range(30)), return_exceptions=True
    )
    assert all(isinstance(outcome, TimeoutError) for outcome in outcomes)
    stats = bulkhead.get_stats()
    assert (stats.max_concurrent_calls, stats.active_calls, stats.queued_calls) == (1, 0, 0)
    assert await bulkhead.execute(succeed) == "ok"


async def test_when_the_limit_falls_running_calls_go_on_and_newcomers_wait() -> None:
    limit = AimdLimit(initial=4, backoff_ratio=0.5)
    bulkhead = Bulkhead("b", limit=limit)
    long = [asyncio.create_task(bulkhead.execute(taking(10))) for _ in range(3)]
    with pytest.raises(TimeoutError):
        await bulkhead.execute(taking(1, TimeoutError()))
    with pytest.raises(BulkheadRejectedException):
        await bulkhead.execute(succeed)
    assert bulkhead.get_stats().available_permits == 0
    assert await asyncio.gather(*long) == ["ok"] * 3


async def test_errors_and_cancellation_say_nothing_about_the_load() -> None:
    limit = AimdLimit(initial=4)
    bulkhead = Bulkhead("b", limit=limit)
    for _ in range(5):
        with pytest.raises(BoomError):
            await bulkhead.execute(fail)
        task = asyncio.create_task(bulkhead.execute(hang))
        await settle()
        task.cancel()
        await asyncio.wait([task])
    assert limit.limit == 4
    assert bulkhead.get_stats().active_calls == 0


def test_bounds_that_make_no_sense_are_refused() -> None:
    for rules in ({"least": 0}, {"initial": 1, "least": 2}, {"most": 3, "initial": 4}):
        for make in (AimdLimit, GradientLimit):
            with pytest.raises(InvalidValueError):
                make(**rules)
