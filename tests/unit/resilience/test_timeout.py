"""What timeouts and deadlines promise."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import timedelta

import pytest

from polaris.exceptions import DeadlineExceededError, InvalidValueError
from polaris.resilience import (
    DeadlineExpired,
    Pipeline,
    Signal,
    Timeout,
    current_deadline,
    deadline_scope,
    monotonic_s,
    remaining_s,
)
from polaris.testing import VirtualClock, VirtualTimeLoop

from .doubles import BoomError, hang, settle, succeed, taking


async def test_a_call_in_time_returns_its_result() -> None:
    assert await Timeout(2).execute(taking(1.9)) == "ok"


async def test_a_call_that_takes_too_long_is_cancelled(clock: VirtualClock, signals: list[Signal]) -> None:
    cancelled = False

    async def operation() -> None:
        nonlocal cancelled
        try:
            await hang()
        except asyncio.CancelledError:
            cancelled = True
            raise

    before = clock.monotonic()
    with pytest.raises(DeadlineExceededError) as caught:
        await Timeout(timedelta(seconds=2), listeners=[signals.append]).execute(operation, "load")
    assert cancelled
    assert clock.monotonic() - before == pytest.approx(2)
    assert (caught.value.operation, caught.value.timeout_s) == ("load", 2)
    assert signals == [DeadlineExpired("load", 2)]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_calls_of_one_policy_expire_each_in_its_own_time(clock: VirtualClock) -> None:
    timeout = Timeout(3)
    ends: dict[int, float] = {}

    async def call(number: int) -> None:
        await asyncio.sleep(number)
        began = clock.monotonic()
        try:
            await timeout.execute(taking(1 if number % 2 else 10))
        except DeadlineExceededError:
            ends[number] = clock.monotonic() - began

    await asyncio.gather(*(call(number) for number in range(10)))
    assert ends == pytest.approx(dict.fromkeys(range(0, 10, 2), 3.0))


async def test_a_cancellation_from_elsewhere_stays_a_cancellation() -> None:
    call = asyncio.create_task(Timeout(10).execute(hang))
    await asyncio.sleep(5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_cancellation_that_meets_the_expiry_stays_a_cancellation() -> None:
    call = asyncio.create_task(Timeout(5).execute(hang))
    await settle()
    asyncio.get_running_loop().call_later(5, call.cancel)
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_an_error_of_the_call_passes_unchanged_even_a_timeout_of_its_own() -> None:
    own = TimeoutError("mine")
    with pytest.raises(TimeoutError) as caught:
        await Timeout(5).execute(taking(1, own))
    assert caught.value is own


async def test_the_earlier_of_nested_deadlines_holds_whichever_is_outside(clock: VirtualClock) -> None:
    for outer_s, inner_s in ((2, 5), (5, 2)):
        before = clock.monotonic()
        with pytest.raises(DeadlineExceededError) as caught:
            await Pipeline.in_order(Timeout(outer_s, name="outer"), Timeout(inner_s, name="inner")).execute(hang)
        assert clock.monotonic() - before == pytest.approx(2)
        assert caught.value.operation == ("outer" if outer_s == 2 else "inner")


async def test_the_deadline_is_visible_inside_and_gone_outside() -> None:
    assert current_deadline() is None
    assert remaining_s() is None
    with deadline_scope(5) as scope:
        assert current_deadline() == scope.when == pytest.approx(monotonic_s() + 5)
        await asyncio.sleep(2)
        assert remaining_s() == pytest.approx(3)
        with deadline_scope(100):
            assert remaining_s() == pytest.approx(3)
        with deadline_scope(1):
            assert remaining_s() == pytest.approx(1)
        with deadline_scope(None):
            assert remaining_s() is None
    assert current_deadline() is None


async def test_tasks_started_inside_inherit_the_deadline_and_are_held_to_it(clock: VirtualClock) -> None:
    async def child() -> float:
        before = clock.monotonic()
        with pytest.raises(DeadlineExceededError), deadline_scope(100):
            await hang()
        return clock.monotonic() - before

    with deadline_scope(5):
        task = asyncio.create_task(child())
        await asyncio.sleep(0)
    assert await task == pytest.approx(5)


async def test_background_work_can_leave_the_deadline_behind() -> None:
    async def background() -> str:
        with deadline_scope(None):
            return await Timeout(50).execute(taking(20))

    with deadline_scope(5):
        task = asyncio.create_task(background())
        await asyncio.sleep(0)
    assert await task == "ok"


async def test_nothing_is_started_after_the_deadline() -> None:
    started = False

    async def operation() -> None:
        nonlocal started
        started = True

    async def late() -> None:
        await asyncio.sleep(10)
        await Timeout(100).execute(operation)

    with deadline_scope(5):
        task = asyncio.create_task(late())
        await asyncio.sleep(0)
    with pytest.raises(DeadlineExceededError):
        await task
    assert not started


async def test_a_body_that_ends_in_spite_of_its_expiry_keeps_its_result() -> None:
    async def stubborn() -> str:
        try:
            await hang()
        except asyncio.CancelledError:
            return "saved"
        return "never"

    assert await Timeout(1).execute(stubborn) == "saved"
    assert await Timeout(1).execute(succeed) == "ok"


async def test_finished_calls_leave_no_timers_behind() -> None:
    timeout = Timeout(1_000)
    for _ in range(1_000):
        await timeout.execute(succeed)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    assert len(loop._scheduled) <= 1  # type: ignore[attr-defined] # of asyncio.BaseEventLoop


def test_one_policy_serves_several_loops() -> None:
    timeout = Timeout(0.01)
    for _ in range(2):
        with pytest.raises(DeadlineExceededError):
            asyncio.run(timeout.execute(hang))
        assert asyncio.run(timeout.execute(succeed)) == "ok"


def test_without_a_loop_the_deadline_is_visible_only() -> None:
    with deadline_scope(100):
        left_s = remaining_s()
        assert left_s is not None
        assert 99 < left_s <= 100
    assert remaining_s() is None


async def test_a_generator_finished_in_another_context_does_no_harm() -> None:
    async def stream() -> AsyncGenerator[int, None]:
        with deadline_scope(50):
            yield 1

    generator = stream()
    await asyncio.create_task(anext(generator))
    await generator.aclose()


async def test_an_expired_call_dies_without_the_collector() -> None:
    timeout = Timeout(1)
    deaths: list[None] = []

    class Witness:
        pass

    async def operation() -> None:
        witness = Witness()
        weakref.finalize(witness, deaths.append, None)
        await hang()

    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with suppress(DeadlineExceededError):
                await timeout.execute(operation)
        # The loop itself holds the error until the step in which it was thrown is over.
        await asyncio.sleep(0)
        assert len(deaths) == 3
    finally:
        gc.enable()


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf"), "1", None, True])
def test_limits_that_make_no_sense_are_refused(limit: object) -> None:
    with pytest.raises(InvalidValueError):
        Timeout(limit)  # type: ignore[arg-type]


async def test_errors_inside_a_scope_pass_through() -> None:
    with pytest.raises(BoomError), deadline_scope(5):
        raise BoomError
