"""The waits of a retry policy: bounds, means and spread, at any attempt."""

from __future__ import annotations

import asyncio
import statistics
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polaris.exceptions import DeadlineExceededError, RetryExhaustedError
from polaris.resilience import RetryConfig, RetryPolicy
from polaris.resilience._backoff import JITTERS, Jitter
from polaris.testing import run_virtual, running_clock

DELAYS = st.floats(0, 1e6, allow_nan=False)


def policy_of(seed: int = 1, **rules: object) -> RetryPolicy:
    return RetryPolicy(RetryConfig(**rules), random=Random(seed))  # type: ignore[arg-type]


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
