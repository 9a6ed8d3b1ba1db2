"""The waits of a retry policy: bounds, means and spread, at any attempt."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st
from tenacity import wait_random_exponential

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.exceptions import DeadlineExceededError, RetryExhaustedError
from polaris.resilience import RetryBudget, RetryConfig, RetryPolicy
from polaris.resilience._backoff import JITTERS, Jitter
from polaris.testing import VirtualClock, run_virtual, running_clock

DELAYS = st.floats(0, 1e6, allow_nan=False)


def policy_of(
    seed: int = 1, *, budget: RetryBudget | None = None, clock: Clock = SYSTEM_CLOCK, **rules: Any
) -> RetryPolicy:
    return RetryPolicy(RetryConfig(**rules), budget=budget, clock=clock, random=Random(seed))


@given(
    attempt=st.integers(1, 10**9),
    base=DELAYS,
    longest=DELAYS,
    multiplier=st.floats(1, 1e9),
    jitter=st.sampled_from(JITTERS),
    former=DELAYS,
)
def test_a_wait_is_within_its_bounds_at_any_attempt(
    attempt: int, base: float, longest: float, multiplier: float, jitter: Jitter, former: float
) -> None:
    policy = policy_of(base_delay=base, max_delay=longest, multiplier=multiplier, jitter=jitter)
    assert 0 <= policy.delay_s(attempt, former_s=min(former, longest)) <= longest


@pytest.mark.parametrize("attempt", [1, 2, 5, 7, 8, 10_000])
def test_the_wait_without_jitter_is_the_formula(attempt: int) -> None:
    policy = policy_of(base_delay=0.1, max_delay=10, multiplier=2, jitter="none")
    assert policy.delay_s(attempt) == pytest.approx(min(10, 0.1 * 2 ** min(attempt - 1, 60)))


def tenacity_waits(wait: wait_random_exponential, attempts: Iterable[int]) -> list[float]:
    """The waits that tenacity would draw after the given attempts."""
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    drawn = []
    for state.attempt_number in attempts:
        drawn.append(wait(state))
    return drawn


@pytest.fixture
def peer_random() -> Iterator[Callable[[int], None]]:
    """Seeds the generator that tenacity draws from, which is that of the whole process, and puts it back."""
    state = random.getstate()
    yield random.seed
    random.setstate(state)


@pytest.mark.parametrize(("base", "longest", "multiplier"), [(0.1, 10, 2), (1, 60, 3), (0.5, 0.4, 2), (2, 7, 1)])
def test_full_jitter_draws_what_tenacity_would_draw(
    base: float, longest: float, multiplier: float, peer_random: Callable[[int], None]
) -> None:
    attempts = [*range(1, 40), 1_000, 10_000]
    peer_random(3)
    theirs = tenacity_waits(wait_random_exponential(multiplier=base, max=longest, exp_base=multiplier), attempts)
    policy = policy_of(3, base_delay=base, max_delay=longest, multiplier=multiplier, jitter="full")
    assert [policy.delay_s(attempt) for attempt in attempts] == pytest.approx(theirs)


@pytest.mark.parametrize("attempt", [1, 2, 4, 7, 8, 10_000])
def test_the_mean_of_full_jitter_is_that_of_tenacity(attempt: int, peer_random: Callable[[int], None]) -> None:
    peer_random(4)
    theirs = tenacity_waits(wait_random_exponential(multiplier=0.1, max=10, exp_base=2), [attempt] * 4_000)
    policy = policy_of(5, base_delay=0.1, max_delay=10, multiplier=2, jitter="full")
    ours = [policy.delay_s(attempt) for _ in range(4_000)]
    assert statistics.fmean(ours) == pytest.approx(statistics.fmean(theirs), rel=0.05)
    assert statistics.stdev(ours) == pytest.approx(statistics.stdev(theirs), rel=0.05)


@pytest.mark.parametrize("attempt", [1, 3, 7, 8, 10_000])
@pytest.mark.parametrize(("jitter", "low", "mean"), [("full", 0.0, 0.5), ("equal", 0.5, 0.75)])
def test_jitter_has_the_mean_and_the_spread_of_its_formula_also_at_the_cap(
    attempt: int, jitter: str, low: float, mean: float
) -> None:
    policy = policy_of(base_delay=0.1, max_delay=10, multiplier=2, jitter=jitter)
    cap = min(10, 0.1 * 2 ** min(attempt - 1, 60))
    waits = [policy.delay_s(attempt) / cap for _ in range(4_000)]
    assert statistics.fmean(waits) == pytest.approx(mean, abs=0.02)
    # A uniform variable over [low, 1] has this deviation.
    assert statistics.stdev(waits) == pytest.approx((1 - low) / 12**0.5, rel=0.05)


def test_decorrelated_jitter_keeps_its_spread_at_the_cap() -> None:
    policy = policy_of(base_delay=0.1, max_delay=10, jitter="decorrelated")
    wait, waits = 0.0, []
    for attempt in range(1, 5_000):
        wait = policy.delay_s(attempt, former_s=wait)
        waits.append(wait)
    assert waits[0] <= 0.3
    late = waits[50:]
    assert min(late) >= 0.1
    assert max(late) > 9
    assert statistics.stdev(late) > 1
    assert late.count(10.0) == 0


@given(
    seed=st.integers(0, 10**6),
    attempt_s=st.floats(0.01, 5),
    total_s=st.floats(0.01, 20),
    base=st.floats(0, 3),
    hangs=st.booleans(),
)
def test_the_whole_never_takes_longer_than_the_total_timeout(
    seed: int, attempt_s: float, total_s: float, base: float, hangs: bool
) -> None:
    policy = policy_of(seed, max_attempts=50, base_delay=base, attempt_timeout=attempt_s, total_timeout=total_s)

    async def operation() -> None:
        await asyncio.sleep(1e9 if hangs else attempt_s * 0.7)
        raise ConnectionError

    async def main() -> float:
        clock = running_clock()
        began = clock.monotonic()
        with pytest.raises((RetryExhaustedError, DeadlineExceededError)):
            await policy.execute(operation)
        return clock.monotonic() - began

    assert run_virtual(main()) <= total_s + 1e-6


@given(
    seed=st.integers(0, 10**6),
    ratio=st.floats(0.01, 1),
    minimum_per_s=st.floats(0, 5),
    saved_max=st.integers(1, 20),
    policies=st.integers(1, 3),
)
def test_in_no_stretch_of_a_total_failure_are_there_more_retries_than_the_budget_gives(
    seed: int, ratio: float, minimum_per_s: float, saved_max: int, policies: int
) -> None:
    clock = VirtualClock()
    budget = RetryBudget(ratio, retries_per_s_min=minimum_per_s, retries_saved_max=saved_max, clock=clock)
    sharing = [
        policy_of(seed + number, max_attempts=10, base_delay=0.5, budget=budget, clock=clock)
        for number in range(policies)
    ]
    random = Random(seed)
    began: list[float] = []
    attempts: list[float] = []

    async def operation() -> None:
        attempts.append(clock.monotonic())
        raise ConnectionError

    async def caller(policy: RetryPolicy) -> None:
        await asyncio.sleep(random.uniform(0, 20))
        began.append(clock.monotonic())
        with pytest.raises(RetryExhaustedError):
            await policy.execute(operation)

    async def main() -> None:
        await asyncio.gather(*(caller(random.choice(sharing)) for _ in range(40)))

    start_s = clock.monotonic()
    run_virtual(main(), clock=clock)
    for moment in attempts:
        calls = sum(at <= moment for at in began)
        retries = sum(at <= moment for at in attempts) - calls
        assert retries <= ratio * calls + minimum_per_s * (moment - start_s + 1) + 1e-6
