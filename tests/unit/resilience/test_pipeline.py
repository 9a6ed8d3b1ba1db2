"""What a pipeline promises: each member keeps its own promises, in the documented order."""

from __future__ import annotations

import asyncio

import pytest

from polaris.exceptions import BulkheadRejectedException, DeadlineExceededError, RetryExhaustedError
from polaris.resilience import (
    Bulkhead,
    BulkheadConfig,
    Chaos,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerState,
    Fallback,
    Hedge,
    Pipeline,
    RateLimiter,
    RetryConfig,
    RetryPolicy,
    Signal,
    Timeout,
    deadline_scope,
)
from polaris.resilience._step import PolicyStep, Step
from polaris.testing import VirtualClock

from .doubles import BoomError, Script, fail, hang, settle, succeed, taking


def retry(attempts: int = 3, delay_s: float = 0.0) -> RetryPolicy:
    return RetryPolicy(RetryConfig(attempts, base_delay=delay_s, jitter="none"))


async def test_an_empty_pipeline_just_calls() -> None:
    pipeline = Pipeline()
    assert await pipeline.execute(succeed) == "ok"
    task = asyncio.create_task(pipeline.execute(succeed))
    assert await task == "ok"


async def test_the_default_order_is_the_documented_one() -> None:
    bulkhead, breaker, policy = Bulkhead("b"), CircuitBreaker("c"), retry()
    pipeline = Pipeline(attempt_timeout=1, bulkhead=bulkhead, breaker=breaker, retry=policy, deadline=5)
    deadline, *between, attempt = pipeline.policies
    assert between == [policy, breaker, bulkhead]
    assert isinstance(deadline, Timeout)
    assert isinstance(attempt, Timeout)
    assert (deadline.timeout_s, attempt.timeout_s) == (5, 1)


async def test_every_policy_has_its_documented_place(clock: VirtualClock) -> None:
    policies = {
        "fallback": Fallback.value("instead", handles=(BoomError,)),
        "deadline": Timeout(5),
        "retry": retry(),
        "hedge": Hedge(1),
        "breaker": CircuitBreaker("c", clock=clock),
        "rate_limiter": RateLimiter("r"),
        "bulkhead": Bulkhead("b"),
        "attempt_timeout": Timeout(1),
        "chaos": Chaos(),
    }
    assert Pipeline(**dict(reversed(policies.items()))).policies == tuple(policies.values())  # type: ignore[arg-type]


async def test_it_is_composed_once_and_not_for_every_call() -> None:
    class Counting(Timeout):
        def bind(self, inner: Step, /) -> PolicyStep:
            bound.append(self)
            return super().bind(inner)

    bound: list[Timeout] = []
    policy = Counting(5)
    bound.clear()
    pipeline = Pipeline.in_order(policy, retry())
    for _ in range(10):
        await pipeline.execute(succeed)
    assert bound == [policy]


async def test_running_calls_of_a_pipeline_share_one_timer() -> None:
    pipeline = Pipeline(deadline=100, retry=retry(), bulkhead=Bulkhead("b", BulkheadConfig(500)), attempt_timeout=200)
    calls = [asyncio.create_task(pipeline.execute(hang)) for _ in range(500)]
    await settle()
    loop = asyncio.get_running_loop()
    assert len(loop._scheduled) == 1  # type: ignore[attr-defined] # of asyncio.BaseEventLoop
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, DeadlineExceededError) for outcome in outcomes)


async def test_another_order_is_kept_as_given() -> None:
    bulkhead, policy = Bulkhead("b"), retry()
    assert Pipeline.in_order(bulkhead, policy).policies == (bulkhead, policy)


async def test_the_operation_and_its_name_reach_the_innermost_policy(signals: list[Signal]) -> None:
    pipeline = Pipeline(name="db", retry=retry(1), attempt_timeout=Timeout(1))
    with pytest.raises(RetryExhaustedError) as caught:
        await pipeline.execute(hang, "load")
    assert caught.value.operation == "load"
    assert isinstance(caught.value.__cause__, DeadlineExceededError)
    assert caught.value.__cause__.operation == "load"
    with pytest.raises(RetryExhaustedError) as caught:
        await pipeline.execute(fail)
    assert caught.value.operation == "db"


async def test_every_attempt_asks_the_breaker_and_an_open_breaker_ends_the_attempts(clock: VirtualClock) -> None:
    breaker = CircuitBreaker("db", CircuitBreakerConfig(failure_threshold=2), clock=clock)
    script = Script([BoomError()] * 5)
    before = clock.monotonic()
    with pytest.raises(RetryExhaustedError) as caught:
        await Pipeline(retry=retry(5), breaker=breaker).execute(script)
    assert script.calls == 2
    assert breaker.state is CircuitBreakerState.OPEN
    # The breaker asks for 30 s, more than the retry's longest delay: waiting for it is left to the caller.
    assert (caught.value.reason, caught.value.attempts, clock.monotonic()) == ("retry_after", 3, before)


async def test_rejections_by_the_bulkhead_do_not_trip_the_breaker(clock: VirtualClock) -> None:
    breaker = CircuitBreaker("db", CircuitBreakerConfig(failure_threshold=1), clock=clock)
    bulkhead = Bulkhead("db", BulkheadConfig(1))
    pipeline = Pipeline(breaker=breaker, bulkhead=bulkhead)
    running = asyncio.create_task(pipeline.execute(taking(10)))
    await settle()
    for _ in range(10):
        with pytest.raises(BulkheadRejectedException):
            await pipeline.execute(succeed)
    assert breaker.state is CircuitBreakerState.CLOSED
    assert await running == "ok"


async def test_the_permit_is_free_while_the_retry_waits() -> None:
    bulkhead = Bulkhead("db", BulkheadConfig(1))
    pipeline = Pipeline(retry=retry(2, delay_s=5), bulkhead=bulkhead)
    retrying = asyncio.create_task(pipeline.execute(Script([BoomError(), "ok"])))
    await asyncio.sleep(1)
    assert bulkhead.get_stats().active_calls == 0
    assert await retrying == "ok"


async def test_waiting_for_a_permit_does_not_count_against_the_attempt() -> None:
    pipeline = Pipeline(bulkhead=Bulkhead("db", BulkheadConfig(1, 5)), attempt_timeout=2)
    assert await asyncio.gather(*(pipeline.execute(taking(1.5)) for _ in range(4))) == ["ok"] * 4


async def test_the_deadline_bounds_attempts_and_waits_together(clock: VirtualClock) -> None:
    pipeline = Pipeline(deadline=5, retry=retry(100, delay_s=0.5), attempt_timeout=1)
    before = clock.monotonic()
    with pytest.raises((RetryExhaustedError, DeadlineExceededError)):
        await pipeline.execute(hang)
    assert 4 <= clock.monotonic() - before <= 5


async def test_pipelines_nest_and_share_the_state_of_their_policies(clock: VirtualClock) -> None:
    breaker = CircuitBreaker("db", CircuitBreakerConfig(failure_threshold=2), clock=clock)
    inner = Pipeline(breaker=breaker)
    outer = Pipeline.in_order(Timeout(5), inner)
    for pipeline in (inner, outer):
        with pytest.raises(BoomError):
            await pipeline.execute(fail)
    assert breaker.state is CircuitBreakerState.OPEN


async def test_a_deadline_around_a_pipeline_leaves_nothing_behind(clock: VirtualClock) -> None:
    breaker = CircuitBreaker("db", clock=clock)
    bulkhead = Bulkhead("db", BulkheadConfig(1, 5))
    pipeline = Pipeline(retry=retry(), breaker=breaker, bulkhead=bulkhead)

    async def call() -> None:
        with pytest.raises(DeadlineExceededError), deadline_scope(3):
            await pipeline.execute(hang)

    await asyncio.gather(*(call() for _ in range(5)))
    stats = bulkhead.get_stats()
    assert (stats.active_calls, stats.queued_calls) == (0, 0)
    assert breaker.snapshot().consecutive_failures == 0
