"""What a hedge promises."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from polaris.resilience import (
    Bulkhead,
    BulkheadConfig,
    CircuitBreaker,
    Hedge,
    HedgeStarted,
    Pipeline,
    RetryBudget,
    Signal,
)
from polaris.testing import VirtualClock

from .doubles import BoomError, fail, hang, settle, succeed, taking


class Replicas:
    """Call after call goes to the next replica; remembers how each one ended."""

    def __init__(self, *replicas: Callable[[], Awaitable[str]]) -> None:
        self._replicas = iter(replicas)
        self.ends: list[str] = []
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        number = self.calls
        try:
            return f"{number} {await next(self._replicas)()}"
        except BaseException as error:
            self.ends.append(f"{number} {type(error).__name__}")
            raise


def others() -> set[asyncio.Task[object]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


async def test_a_quick_call_is_made_once() -> None:
    replicas = Replicas(taking(0.9))
    assert await Hedge(1).execute(replicas) == "1 ok"
    assert replicas.calls == 1


async def test_the_first_success_wins_and_the_loser_is_cancelled_before_the_result_is_returned(
    clock: VirtualClock, signals: list[Signal]
) -> None:
    replicas = Replicas(hang, taking(1))
    before = clock.monotonic()
    assert await Hedge(1, listeners=[signals.append]).execute(replicas, "load") == "2 ok"
    assert clock.monotonic() - before == pytest.approx(2)
    assert replicas.ends == ["1 CancelledError"]
    assert signals == [HedgeStarted("load", 2)]
    assert others() == set()


async def test_no_more_hedges_are_started_than_permitted() -> None:
    replicas = Replicas(taking(100), hang, hang, hang)
    assert await Hedge(1, hedges_max=2).execute(replicas) == "1 ok"
    assert replicas.calls == 3


async def test_a_failure_waits_for_the_call_that_still_runs() -> None:
    assert await Hedge(1).execute(Replicas(taking(2, BoomError()), taking(5))) == "2 ok"


async def test_when_all_fail_the_last_failure_is_raised_and_nothing_is_repeated() -> None:
    replicas = Replicas(taking(2, KeyError()), taking(5, BoomError()))
    with pytest.raises(BoomError):
        await Hedge(1, hedges_max=5).execute(Replicas(fail))
    with pytest.raises(BoomError):
        await Hedge(1).execute(replicas)
    assert replicas.calls == 2


@pytest.mark.parametrize("last", [taking(1), taking(1, BoomError())], ids=["success", "failure"])
async def test_calls_that_end_in_the_same_moment_are_all_looked_at(last: Callable[[], Awaitable[str]]) -> None:
    lost: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
    hedge = Hedge(1, hedges_max=2)
    for _ in range(20):
        with suppress(BoomError):
            assert await hedge.execute(Replicas(taking(3, BoomError()), taking(2, BoomError()), last)) == "3 ok"
    gc.collect()
    assert lost == []


async def test_a_cancelled_caller_leaves_no_call_behind() -> None:
    replicas = Replicas(hang, hang)
    task = asyncio.create_task(Hedge(1).execute(replicas))
    await asyncio.sleep(3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(replicas.ends) == ["1 CancelledError", "2 CancelledError"]
    assert others() == set()


async def test_a_caller_cancelled_while_the_loser_cleans_up_still_awaits_it() -> None:
    cleaned = False

    async def slow_to_leave() -> str:
        nonlocal cleaned
        try:
            return await hang()
        finally:
            await asyncio.sleep(5)
            cleaned = True

    task = asyncio.create_task(Hedge(1).execute(Replicas(slow_to_leave, succeed)))
    await asyncio.sleep(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned


async def test_a_budget_bounds_the_hedges(clock: VirtualClock) -> None:
    budget = RetryBudget(0.1, retries_per_s_min=0, clock=clock)
    hedge = Hedge(1, budget=budget)
    calls = 0

    async def operation() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(1.5)

    for _ in range(100):
        await hedge.execute(operation)
    assert 105 <= calls <= 110


async def test_hedged_calls_are_admitted_one_by_one(clock: VirtualClock) -> None:
    bulkhead = Bulkhead("b", BulkheadConfig(2))
    breaker = CircuitBreaker("c", clock=clock)
    pipeline = Pipeline(hedge=Hedge(1, hedges_max=3), breaker=breaker, bulkhead=bulkhead)
    replicas = Replicas(taking(10), hang, succeed)
    task = asyncio.create_task(pipeline.execute(replicas))
    await asyncio.sleep(5)
    await settle()
    assert bulkhead.get_stats().active_calls == 2
    assert bulkhead.get_stats().rejected_calls == 2
    assert await task == "1 ok"
    assert bulkhead.get_stats().active_calls == 0
