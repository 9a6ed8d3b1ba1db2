"""Policies nested in any order, under chaos, in virtual time: each member keeps its own promises."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar, Token
from itertools import permutations
from random import Random
from typing import Any

import pytest

from polaris.exceptions import (
    BulkheadRejectedException,
    CircuitBreakerOpenException,
    DeadlineExceededError,
    RateLimitExceededError,
    RetryExhaustedError,
)
from polaris.resilience import (
    AdaptiveThrottle,
    Bulkhead,
    BulkheadConfig,
    Chaos,
    ChaosConfig,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerState,
    Fallback,
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
)
from polaris.testing import VirtualClock, run_virtual

HALF_OPEN = CircuitBreakerState.HALF_OPEN
EXPECTED = (
    BulkheadRejectedException,
    CircuitBreakerOpenException,
    ConnectionError,
    DeadlineExceededError,
    RateLimitExceededError,
    RetryExhaustedError,
    ZeroDivisionError,
)
MOMENT_S = 1e-6
"""What rounding may add to a time."""


class Watch:
    """A policy that only looks: `enter` is called when a call passes its place in the nest, `leave` when it is back."""

    def __init__(self, enter: Callable[[], Any], leave: Callable[[Any], object] = lambda _: None) -> None:
        self._enter = enter
        self._leave = leave

    def bind(self, inner: Callable[..., Awaitable[Any]], /) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def run(func: Callable[[], Awaitable[Any]], operation: str) -> Any:
            seen = self._enter()
            try:
                return await inner(func, operation)
            finally:
                self._leave(seen)

        return run

    def execute(self, func: Callable[[], Awaitable[Any]], operation_name: str = "") -> Coroutine[Any, Any, Any]:
        raise AssertionError("a watch stands in a nest")


class Admission:
    """What the watches inside bulkhead and breaker see. Violations are kept, since a nest could swallow an error."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self.inside: Counter[object] = Counter()
        self.most: Counter[object] = Counter()

    def expect(self, kept: bool, what: str) -> None:
        if not kept:
            self.broken.append(what)

    def _enter(self, place: object, most: int) -> object:
        self.inside[place] += 1
        self.most[place] = max(self.most[place], self.inside[place])
        self.expect(self.inside[place] <= most, f"{self.inside[place]} calls inside {place}, {most} permitted")
        return place

    def _leave(self, place: object) -> None:
        self.inside[place] -= 1

    def inside_bulkhead(self, bulkhead: Bulkhead) -> Watch:
        most = bulkhead.config.max_concurrent_calls
        return Watch(lambda: self._enter("bulkhead", most), self._leave)

    def inside_breaker(self, breaker: CircuitBreaker) -> Watch:
        def enter() -> object:
            snapshot = breaker.snapshot()
            if snapshot.state is not HALF_OPEN:
                return None
            return self._enter(f"half-open breaker of epoch {snapshot.epoch}", breaker.config.half_open_max_calls)

        def leave(place: object) -> None:
            if place is not None:
                self._leave(place)

        return Watch(enter, leave)

    def all_are_out(self) -> bool:
        return not any(self.inside.values())


class Storm:
    """Random policies in a random order, callers with random arrival, patience and fate; all by one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.clock = VirtualClock()
        self.began_s = self.clock.monotonic()
        self.admission = Admission()
        self.attempts_max = 1
        self.attempts: Counter[int] = Counter()
        self.starts: list[float] = []
        self.running = self.retries = self.retry_calls = 0
        self.attempts_here: ContextVar[list[int]] = ContextVar("attempts_here")
        self._make_policies()
        layers: list[list[Policy]] = [
            self.around_bulkhead(),
            self.around_breaker(),
            self.around_retry(),
            self.around_timeout(),
            self.around_hedge(),
            self.around_limiter(),
            [Fallback.value("instead", handles=random.choice([(ConnectionError,), (Exception,)]))],
            [AdaptiveThrottle("t", window=20, clock=self.clock, random=Random(seed))],
        ]
        chosen = random.sample(layers, random.randint(2, len(layers)))
        chaos = Chaos(ChaosConfig(enabled=True, seed=seed, fault_rate=0.3, latency_rate=0.3, latency_max=3.0))
        self.nest = Pipeline.in_order(*(policy for layer in chosen for policy in layer), chaos)
        for policy in self.nest.policies:
            if isinstance(policy, RetryPolicy):
                self.attempts_max *= policy.config.max_attempts
            if isinstance(policy, Hedge):
                self.attempts_max *= 1 + policy.hedges_max

    def _make_policies(self) -> None:
        random = self.random
        self.bulkhead = Bulkhead(
            "b", BulkheadConfig(random.randint(1, 3), random.randint(0, 6), random.choice([None, 0.0, 2.0]))
        )
        self.breaker = CircuitBreaker(
            "c",
            CircuitBreakerConfig(
                failure_threshold=random.randint(1, 4),
                timeout=random.randint(1, 4),
                half_open_max_calls=random.randint(1, 2),
                success_threshold=random.randint(1, 2),
                probe_lease=1_000,
            ),
            clock=self.clock,
        )
        self.limiter = RateLimiter("r", RateLimiterConfig(random.randint(1, 5), burst=3, max_queued_calls=5))
        self.budget = RetryBudget(0.3, retries_per_s_min=0.5, clock=self.clock) if random.random() < 0.5 else None

    def around_bulkhead(self) -> list[Policy]:
        return [self.bulkhead, self.admission.inside_bulkhead(self.bulkhead)]

    def around_breaker(self) -> list[Policy]:
        return [self.breaker, self.admission.inside_breaker(self.breaker)]

    def no_longer_than(self, limit_s: float) -> Watch:
        def leave(began: float) -> None:
            taken_s = self.clock.monotonic() - began
            self.admission.expect(taken_s <= limit_s + MOMENT_S, f"took {taken_s} s, {limit_s} s allowed")

        return Watch(self.clock.monotonic, leave)

    def around_timeout(self) -> list[Policy]:
        limit_s = self.random.randint(1, 8)
        return [self.no_longer_than(limit_s), Timeout(limit_s)]

    def around_retry(self) -> list[Policy]:
        random = self.random
        total_s = random.choice([None, 5, 9])
        config = RetryConfig(
            max_attempts=random.randint(1, 4),
            base_delay=random.choice([0, 1]),
            jitter=random.choice(["none", "full", "decorrelated"]),
            attempt_timeout=random.choice([None, 1, 2]),
            total_timeout=total_s,
        )
        policy = RetryPolicy(config, budget=self.budget, clock=self.clock, random=Random(random.random()))

        def begin() -> Token[list[int]]:
            self.retry_calls += 1
            return self.attempts_here.set([0])

        def count() -> None:
            here = self.attempts_here.get()
            here[0] += 1
            self.retries += here[0] > 1
            self.admission.expect(here[0] <= config.max_attempts, f"attempt {here[0]} of {config.max_attempts}")

        whole = Watch(begin, self.attempts_here.reset)
        limit = [] if total_s is None else [self.no_longer_than(total_s)]
        return [*limit, whole, policy, Watch(count)]

    def around_hedge(self) -> list[Policy]:
        return [Hedge(self.random.randint(0, 2), hedges_max=self.random.randint(1, 2))]

    def around_limiter(self) -> list[Policy]:
        return [self.limiter, Watch(lambda: self.starts.append(self.clock.monotonic()))]

    async def operation(self, number: int) -> str:
        self.attempts[number] += 1
        self.running += 1
        try:
            # Whole numbers, so that ends, timeouts and cancellations meet in the same tick.
            await asyncio.sleep(self.random.choice([0, 0, 1, 2, 3, 1_000]))
            if self.random.random() < 0.2:
                raise ZeroDivisionError
            return "ok"
        finally:
            self.running -= 1

    async def caller(self, number: int) -> str:
        await asyncio.sleep(self.random.randint(0, 20))
        with deadline_scope(self.random.choice([None, 1, 4, 7])):
            return await self.nest.execute(lambda: self.operation(number), "op")

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.admission.broken.append(f"lost: {context}"))
        callers = [asyncio.create_task(self.caller(number)) for number in range(40)]
        cancelled_at: dict[asyncio.Task[str], float] = {}
        ended_at: dict[asyncio.Task[str], float] = {}

        def cancel(task: asyncio.Task[str]) -> None:
            if task.cancel():
                cancelled_at.setdefault(task, self.clock.monotonic())

        for caller in callers:
            caller.add_done_callback(lambda task: ended_at.setdefault(task, self.clock.monotonic()))
        for caller in self.random.sample(callers, 12):
            loop.call_later(self.random.randint(0, 24), cancel, caller)
        for caller in callers:
            loop.call_later(60, cancel, caller)
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
        for caller, outcome in zip(callers, outcomes, strict=True):
            if caller in cancelled_at:
                assert caller.cancelled()
                assert ended_at[caller] == cancelled_at[caller]
            else:
                assert outcome in ("ok", "instead") or isinstance(outcome, EXPECTED), repr(outcome)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def check(self) -> None:
        assert self.admission.broken == []
        assert self.admission.all_are_out()
        assert self.running == 0
        assert max(self.attempts.values(), default=0) <= self.attempts_max
        stats = self.bulkhead.get_stats()
        assert (stats.active_calls, stats.queued_calls) == (0, 0)
        assert self.breaker.snapshot().active_probes == 0
        assert self.limiter.get_stats().queued_calls == 0
        if self.budget is not None:
            elapsed_s = self.clock.monotonic() - self.began_s
            assert self.retries <= 0.3 * self.retry_calls + 0.5 * (elapsed_s + 1) + MOMENT_S
        rate_per_s, burst = self.limiter.config.max_calls, self.limiter.config.burst
        assert burst is not None
        for first, began in enumerate(self.starts):
            for number, at in enumerate(self.starts[first:], 1):
                assert number <= burst + rate_per_s * (at - began) + 1e-3

    async def everyone_is_served_again(self) -> None:
        """Nothing is wedged: once the breaks are over, each member lets calls through again."""
        await asyncio.sleep(1_000)
        for _ in range(self.breaker.config.success_threshold):
            await self.breaker.call(asyncio.sleep, 0)
        assert self.breaker.state is CircuitBreakerState.CLOSED
        await self.bulkhead.execute(lambda: asyncio.sleep(0))
        await self.limiter.execute(lambda: asyncio.sleep(0))


@pytest.mark.parametrize("block", range(10))
def test_in_any_nest_each_member_keeps_its_promises_and_nothing_is_left_behind(block: int) -> None:
    for seed in range(block * 40, block * 40 + 40):
        storm = Storm(seed)
        run_virtual(storm.run(), clock=storm.clock)
        storm.check()
        run_virtual(storm.everyone_is_served_again(), clock=storm.clock)


class Rush:
    """Twelve callers at once through retry, hedge, breaker (half-open) and bulkhead, nested in one order."""

    ATTEMPTS, HEDGES, PERMITS, PROBES = 3, 1, 2, 2

    def __init__(self, order: tuple[str, ...]) -> None:
        self.clock = VirtualClock()
        self.admission = Admission()
        self.passed: Counter[str] = Counter()
        self.calls = self.running = self.running_max = 0
        self.bulkhead = Bulkhead("b", BulkheadConfig(self.PERMITS))
        rules = CircuitBreakerConfig(1, 2.0, half_open_max_calls=self.PROBES, success_threshold=1_000)
        self.breaker = CircuitBreaker("c", rules, clock=self.clock)
        retry = RetryPolicy(RetryConfig(self.ATTEMPTS, base_delay=1.0, jitter="none"), clock=self.clock)
        places: dict[str, list[Policy]] = {
            "retry": [retry],
            "hedge": [Hedge(0.5, hedges_max=self.HEDGES)],
            "breaker": [self.breaker, self.admission.inside_breaker(self.breaker), self.counting("breaker")],
            "bulkhead": [self.bulkhead, self.admission.inside_bulkhead(self.bulkhead), self.counting("bulkhead")],
        }
        self.order = order
        self.nest = Pipeline.in_order(*(policy for place in order for policy in places[place]))

    def counting(self, place: str) -> Watch:
        def enter() -> None:
            self.passed[place] += 1

        return Watch(enter)

    def fan_out(self, place: str, *, at_once: bool) -> int:
        """How many calls of the operation one admission at `place` may lead to."""
        inside = self.order[self.order.index(place) :]
        hedged = 1 + self.HEDGES if "hedge" in inside else 1
        return hedged if at_once or "retry" not in inside else hedged * self.ATTEMPTS

    async def operation(self) -> None:
        self.calls += 1
        fails = self.calls % 3 == 0
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        try:
            await asyncio.sleep(1)
            if fails:
                raise ConnectionError
        finally:
            self.running -= 1

    async def run(self) -> None:
        with pytest.raises(ZeroDivisionError):
            self.breaker.call_sync(divmod, 1, 0)
        await asyncio.sleep(2)
        await asyncio.gather(*(self.nest.execute(self.operation) for _ in range(12)), return_exceptions=True)
        assert asyncio.all_tasks() == {asyncio.current_task()}


ORDERS = list(permutations(["retry", "hedge", "breaker", "bulkhead"]))


@pytest.mark.parametrize("order", ORDERS, ids=">".join)
def test_in_no_order_do_retries_or_hedges_get_round_an_admission(order: tuple[str, ...]) -> None:
    rush = Rush(order)
    run_virtual(rush.run(), clock=rush.clock)
    assert rush.admission.broken == []
    assert rush.admission.all_are_out()
    assert rush.bulkhead.get_stats().active_calls == rush.breaker.snapshot().active_probes == 0
    for place in ("breaker", "bulkhead"):
        assert 1 <= rush.calls <= rush.passed[place] * rush.fan_out(place, at_once=False)
    assert rush.running_max <= rush.PERMITS * rush.fan_out("bulkhead", at_once=True)
    # Else the rush would prove nothing.
    assert rush.admission.most["bulkhead"] == rush.PERMITS
    assert max(most for place, most in rush.admission.most.items() if place != "bulkhead") == rush.PROBES
