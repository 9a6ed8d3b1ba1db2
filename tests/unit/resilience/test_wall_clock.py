"""Jumps of the wall clock, as an operator or NTP makes them, change nothing for any policy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest

from polaris.exceptions import PolarisException
from polaris.resilience import (
    AdaptiveThrottle,
    Bulkhead,
    BulkheadConfig,
    Chaos,
    ChaosConfig,
    CircuitBreaker,
    CircuitBreakerConfig,
    Hedge,
    Pipeline,
    Policy,
    RateLimiter,
    RateLimiterConfig,
    RetryBudget,
    RetryConfig,
    RetryPolicy,
    Timeout,
    deadline_scope,
    remaining_s,
)
from polaris.testing import VirtualClock, run_virtual

from .doubles import BoomError


class JumpyClock(VirtualClock):
    """Its wall clock is another one every time it is looked at."""

    def now(self) -> datetime:
        self.jump_wall(timedelta(days=Random(self.monotonic()).randint(-900, 1_000)))
        return super().now()


Make = Callable[[VirtualClock], Policy]
POLICIES: dict[str, Make] = {
    "breaker": lambda clock: CircuitBreaker("c", CircuitBreakerConfig(2, 7, probe_lease=3), clock=clock),
    "breaker with a time window": lambda clock: CircuitBreaker(
        "c",
        CircuitBreakerConfig(
            timeout=7,
            failure_rate_threshold=0.5,
            slow_call_rate_threshold=0.5,
            slow_call_duration=2,
            window_duration=10,
            minimum_calls=3,
        ),
        clock=clock,
    ),
    "retry": lambda clock: RetryPolicy(RetryConfig(4, 0.5, total_timeout=5), clock=clock, random=Random(1)),
    "retry with a budget": lambda clock: RetryPolicy(
        RetryConfig(4, 0.5), budget=RetryBudget(0.1, retries_per_s_min=0.1, clock=clock), clock=clock, random=Random(1)
    ),
    "bulkhead": lambda _: Bulkhead("b", BulkheadConfig(1, 5, max_wait=2)),
    "timeout": lambda _: Timeout(2),
    "rate limiter": lambda _: RateLimiter("r", RateLimiterConfig(1, 1.5, max_queued_calls=3, max_wait=4)),
    "throttle": lambda clock: AdaptiveThrottle("t", window=10, clock=clock, random=Random(1)),
    "hedge": lambda _: Hedge(1),
    "chaos": lambda clock: Chaos(ChaosConfig(enabled=True, fault_rate=0.3, latency_rate=0.5), clock=clock),
    "pipeline": lambda clock: Pipeline(
        deadline=6, retry=RetryPolicy(RetryConfig(3, 0.5), clock=clock, random=Random(1)), attempt_timeout=1
    ),
}


def story(make: Make, clock: VirtualClock) -> list[tuple[float, str]]:
    """What becomes of forty calls in virtual time: when each one began and ended, and how."""
    random = Random(5)
    began_s = clock.monotonic()
    told: list[tuple[float, str]] = []

    def tell(what: str) -> None:
        told.append((round(clock.monotonic() - began_s, 6), what))

    async def operation(number: int, lasts_s: float, fails: bool) -> None:
        tell(f"{number} begins with {remaining_s()} s left")
        await asyncio.sleep(lasts_s)
        if fails:
            raise BoomError

    async def caller(policy: Policy, number: int, doing: Callable[[], Awaitable[Any]]) -> None:
        try:
            with deadline_scope(30):
                await policy.execute(doing)
            tell(f"{number} ends")
        except (BoomError, ConnectionError, PolarisException) as error:
            tell(f"{number} {type(error).__name__} {getattr(error, 'retry_after', None)}")

    async def main() -> None:
        policy = make(clock)
        calls = []
        for number in range(40):
            await asyncio.sleep(random.random())
            lasts_s, fails = random.choice([0, 1, 3]), random.random() < 0.5
            doing = lambda number=number, lasts_s=lasts_s, fails=fails: operation(number, lasts_s, fails)  # noqa: E731
            calls.append(asyncio.create_task(caller(policy, number, doing)))
            clock.now()
        await asyncio.gather(*calls)

    run_virtual(main(), clock=clock)
    return told


@pytest.mark.parametrize("name", POLICIES)
def test_jumps_of_the_wall_clock_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calm = story(POLICIES[name], VirtualClock())
    jumps = Random(9)
    monkeypatch.setattr(time, "time", lambda: jumps.uniform(0, 4e9))
    assert story(POLICIES[name], JumpyClock()) == calm
    # Else the story would prove nothing: some calls failed for more reasons than their own.
    assert {what.split()[1] for _, what in calm} - {"begins", "ends", "BoomError"} != set() or name == "hedge"
