"""What a bulkhead promises."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from datetime import timedelta
from typing import Any

import pytest

from polaris.exceptions import BulkheadRejectedException, DeadlineExceededError, InvalidValueError
from polaris.resilience import Bulkhead, BulkheadConfig, BulkheadRejected, BulkheadStats, Signal, deadline_scope
from polaris.testing import VirtualClock

from .doubles import BoomError, fail, hang, settle, succeed, taking


def bulkhead_of(concurrent: int = 1, queued: int = 0, max_wait: float | None = None, **rest: Any) -> Bulkhead:
    return Bulkhead("db", BulkheadConfig(concurrent, queued, max_wait), **rest)


def idle(stats: BulkheadStats) -> bool:
    return (stats.active_calls, stats.queued_calls, stats.available_permits) == (0, 0, stats.max_concurrent_calls)


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_no_more_calls_run_at_once_than_permitted() -> None:
    bulkhead = bulkhead_of(3, 100)
    running = most = 0

    async def operation() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1

    await asyncio.gather(*(bulkhead.execute(operation) for _ in range(20)))
    assert most == 3
    assert idle(bulkhead.get_stats())
    assert bulkhead.get_stats().finished_calls == 20


async def test_full_means_rejected_at_once_and_not_started(clock: VirtualClock, signals: list[Signal]) -> None:
    bulkhead = bulkhead_of(2, listeners=[signals.append])
    before = clock.monotonic()
    running = [asyncio.create_task(bulkhead.execute(hang)) for _ in range(2)]
    await settle()
    started = False

    async def operation() -> None:
        nonlocal started
        started = True

    with pytest.raises(BulkheadRejectedException) as caught:
        async with asyncio.timeout(60):
            await bulkhead.execute(operation, "load")
    assert not started
    assert (caught.value.active, caught.value.queued, clock.monotonic()) == (2, 0, before)
    assert signals == [BulkheadRejected("db", "load", "full", 2, 0)]
    assert bulkhead.get_stats().rejected_calls == 1
    await cancel(*running)


async def test_the_stats_say_what_is_going_on() -> None:
    bulkhead = bulkhead_of(2, 5, 3.0)
    tasks = [asyncio.create_task(bulkhead.execute(hang)) for _ in range(4)]
    await settle()
    assert bulkhead.get_stats() == BulkheadStats(
        name="db",
        max_concurrent_calls=2,
        active_calls=2,
        available_permits=0,
        max_queued_calls=5,
        queued_calls=2,
        rejected_calls=0,
        finished_calls=0,
        max_wait=timedelta(seconds=3),
    )
    await cancel(*tasks)
    assert idle(bulkhead.get_stats())


async def test_the_queue_is_bounded() -> None:
    bulkhead = bulkhead_of(1, 2)
    tasks = [asyncio.create_task(bulkhead.execute(hang)) for _ in range(3)]
    await settle()
    with pytest.raises(BulkheadRejectedException):
        async with asyncio.timeout(60):
            await bulkhead.execute(succeed)
    await cancel(*tasks)


async def test_waiters_are_served_in_order_of_arrival_also_when_some_leave() -> None:
    bulkhead = bulkhead_of(1, 100)
    served: list[int] = []

    async def serve(number: int) -> None:
        async def operation() -> None:
            served.append(number)
            await asyncio.sleep(1)

        await bulkhead.execute(operation)

    tasks = [asyncio.create_task(serve(number)) for number in range(20)]
    await settle()
    leaving = [3, 4, 9, 17]
    await cancel(*(tasks[number] for number in leaving))
    await asyncio.gather(*tasks, return_exceptions=True)
    assert served == [number for number in range(20) if number not in leaving]


async def test_a_newcomer_does_not_overtake_a_waiter_that_was_just_granted() -> None:
    bulkhead = bulkhead_of(1, 100)
    served: list[str] = []

    async def operation(name: str) -> None:
        served.append(name)
        await asyncio.sleep(1)

    first = asyncio.create_task(bulkhead.execute(taking(1)))
    await settle()
    waiting = asyncio.create_task(bulkhead.execute(lambda: operation("waiting")))
    await settle()
    newcomer: asyncio.Task[None] | None = None

    def arrive(_: object) -> None:
        nonlocal newcomer
        newcomer = asyncio.create_task(bulkhead.execute(lambda: operation("newcomer")))

    first.add_done_callback(arrive)
    await waiting
    assert newcomer is not None
    await newcomer
    assert served == ["waiting", "newcomer"]


async def test_a_waiter_cancelled_in_the_tick_of_its_grant_loses_no_wake_up() -> None:
    bulkhead = bulkhead_of(1, 10)
    release = asyncio.Event()

    async def run_then_cancel_the_granted() -> None:
        await bulkhead.execute(release.wait)
        # The permit has just been granted to the first waiter, which has not run since.
        granted.cancel()

    first = asyncio.create_task(run_then_cancel_the_granted())
    await settle()
    granted = asyncio.create_task(bulkhead.execute(succeed))
    next_in_line = asyncio.create_task(bulkhead.execute(succeed))
    await settle()
    release.set()
    await first
    async with asyncio.timeout(60):
        assert await next_in_line == "ok"
    assert granted.cancelled()
    assert idle(bulkhead.get_stats())


async def test_waiting_ends_after_max_wait(clock: VirtualClock) -> None:
    bulkhead = bulkhead_of(1, 10, 2.0)
    running = asyncio.create_task(bulkhead.execute(hang))
    await settle()
    before = clock.monotonic()
    with pytest.raises(BulkheadRejectedException) as caught:
        await bulkhead.execute(succeed)
    assert clock.monotonic() - before == pytest.approx(2)
    assert caught.value.reason == "waited too long"
    assert bulkhead.get_stats().queued_calls == 0
    await cancel(running)


async def test_a_deadline_ends_the_wait_and_leaves_nothing() -> None:
    bulkhead = bulkhead_of(1, 10)
    running = asyncio.create_task(bulkhead.execute(hang))
    await settle()
    with pytest.raises(DeadlineExceededError), deadline_scope(1):
        await bulkhead.execute(succeed)
    assert bulkhead.get_stats().queued_calls == 0
    await cancel(running)
    assert idle(bulkhead.get_stats())


@pytest.mark.parametrize("error", [BoomError(), asyncio.CancelledError()])
async def test_whatever_a_call_raises_the_permit_comes_back(error: BaseException) -> None:
    bulkhead = bulkhead_of(1)
    with pytest.raises(type(error)):
        await bulkhead.execute(taking(1, error))
    assert idle(bulkhead.get_stats())
    assert await bulkhead.execute(succeed) == "ok"


async def test_a_coroutine_closed_while_waiting_or_running_leaves_nothing() -> None:
    bulkhead = bulkhead_of(1, 1)
    running, waiting = bulkhead.execute(hang), bulkhead.execute(hang)
    running.send(None)
    waiting.send(None)
    waiting.close()
    assert bulkhead.get_stats().queued_calls == 0
    running.close()
    assert idle(bulkhead.get_stats())


async def test_a_waiter_that_is_woken_and_fails_hands_its_permit_on() -> None:
    bulkhead = bulkhead_of(1, 10)
    tasks = [asyncio.create_task(bulkhead.execute(fail)) for _ in range(5)]
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, BoomError) for outcome in outcomes)
    assert idle(bulkhead.get_stats())


async def test_a_hundred_thousand_rejections_retain_nothing() -> None:
    bulkhead = bulkhead_of(1)
    running = asyncio.create_task(bulkhead.execute(hang))
    await settle()

    async def reject(count: int) -> None:
        for _ in range(count):
            try:
                await bulkhead.execute(succeed)
            except BulkheadRejectedException:
                continue

    await reject(1_000)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        await reject(100_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert after - before < 20_000
    await cancel(running)


@pytest.mark.parametrize("bounds", [(0, 0, None), (1, -1, None), (1, 0, -1.0), (1.5, 0, None)])
def test_bounds_that_make_no_sense_are_refused(bounds: tuple[Any, Any, Any]) -> None:
    with pytest.raises(InvalidValueError):
        BulkheadConfig(*bounds)
