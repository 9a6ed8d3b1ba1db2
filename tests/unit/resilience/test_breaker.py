"""What a circuit breaker promises."""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from polaris.exceptions import (
    BulkheadRejectedException,
    CircuitBreakerOpenException,
    InvalidValueError,
    RateLimitExceededError,
    RetryExhaustedError,
    StoreConnectionError,
)
from polaris.resilience import (
    BreakerRejected,
    BreakerStateChanged,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerState,
    ProbeLeaseExpired,
    Signal,
)
from polaris.testing import VirtualClock

from .doubles import BoomError, fail, hang, settle, succeed, taking

CLOSED, OPEN = CircuitBreakerState.CLOSED, CircuitBreakerState.OPEN
HALF_OPEN, ISOLATED = CircuitBreakerState.HALF_OPEN, CircuitBreakerState.ISOLATED


def breaker_of(clock: VirtualClock, *signals: list[Signal], **rules: object) -> CircuitBreaker:
    listeners = [heard.append for heard in signals]
    return CircuitBreaker("db", CircuitBreakerConfig(**rules), clock=clock, listeners=listeners)  # type: ignore[arg-type]


async def trip(breaker: CircuitBreaker) -> None:
    """Fail until the breaker opens."""
    for _ in range(breaker.config.failure_threshold):
        with pytest.raises(BoomError):
            await breaker.call(fail)
    assert breaker.state is OPEN


async def half_opened(clock: VirtualClock, **rules: object) -> CircuitBreaker:
    breaker = breaker_of(clock, failure_threshold=1, **rules)
    await trip(breaker)
    clock.advance(30)
    return breaker


async def test_arguments_and_result_pass_through(clock: VirtualClock) -> None:
    async def add(left: int, *, right: int) -> int:
        return left + right

    breaker = breaker_of(clock)
    assert await breaker.call(add, 1, right=2) == 3
    assert breaker.call_sync(divmod, 7, 3) == (2, 1)
    assert await breaker.execute(succeed, "named") == "ok"


async def test_consecutive_failures_open_it_and_the_error_passes_unchanged(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, failure_threshold=3)
    boom = BoomError()
    for _ in range(2):
        with pytest.raises(BoomError):
            await breaker.call(taking(0, boom))
    assert breaker.state is CLOSED
    with pytest.raises(BoomError) as caught:
        await breaker.call(taking(0, boom))
    assert caught.value is boom
    assert breaker.state is OPEN


async def test_a_success_forgets_the_failures_before_it(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, failure_threshold=2)
    for _ in range(5):
        with pytest.raises(BoomError):
            await breaker.call(fail)
        await breaker.call(succeed)
    assert breaker.state is CLOSED


async def test_an_open_breaker_rejects_without_calling_and_says_when_to_come_back(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, failure_threshold=1, timeout=timedelta(seconds=30))
    await trip(breaker)
    clock.advance(10)
    called = False

    async def operation() -> None:
        nonlocal called
        called = True

    with pytest.raises(CircuitBreakerOpenException) as caught:
        await breaker.call(operation)
    assert not called
    assert caught.value.retry_after == pytest.approx(20)
    assert caught.value.name == "db"
    with pytest.raises(CircuitBreakerOpenException):
        breaker.call_sync(lambda: None)


async def test_after_the_break_one_successful_probe_closes_it(clock: VirtualClock) -> None:
    breaker = await half_opened(clock)
    assert breaker.state is HALF_OPEN
    assert await breaker.call(succeed) == "ok"
    assert breaker.state is CLOSED


async def test_the_break_is_not_over_a_moment_too_soon(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, failure_threshold=1)
    await trip(breaker)
    clock.advance(29.999)
    with pytest.raises(CircuitBreakerOpenException):
        await breaker.call(succeed)


async def test_a_failed_probe_opens_it_for_another_break(clock: VirtualClock) -> None:
    breaker = await half_opened(clock)
    with pytest.raises(BoomError):
        await breaker.call(fail)
    assert breaker.state is OPEN
    assert breaker.snapshot().retry_after == pytest.approx(30)


@pytest.mark.parametrize("permits", [1, 3])
async def test_of_fifty_concurrent_callers_only_the_permitted_probes_pass(clock: VirtualClock, permits: int) -> None:
    breaker = await half_opened(clock, half_open_max_calls=permits, success_threshold=permits)
    running = most = 0

    async def probe() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1

    outcomes = await asyncio.gather(*(breaker.call(probe) for _ in range(50)), return_exceptions=True)
    rejected = [outcome for outcome in outcomes if isinstance(outcome, CircuitBreakerOpenException)]
    assert (most, len(rejected)) == (permits, 50 - permits)
    assert all(error.retry_after is None and error.state == "half_open" for error in rejected)
    assert breaker.state is CLOSED


async def test_it_takes_as_many_successful_probes_as_configured(clock: VirtualClock) -> None:
    breaker = await half_opened(clock, success_threshold=3)
    for _ in range(2):
        await breaker.call(succeed)
        assert breaker.state is HALF_OPEN
    await breaker.call(succeed)
    assert breaker.state is CLOSED


async def test_a_stale_success_does_not_close_it(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, failure_threshold=1)
    slow = asyncio.create_task(breaker.call(taking(100)))
    await settle()
    await trip(breaker)
    clock.advance(35)
    probe = asyncio.create_task(breaker.call(taking(80)))
    assert await slow == "ok"
    assert breaker.state is HALF_OPEN
    assert await probe == "ok"
    assert breaker.state is CLOSED


async def test_a_stale_failure_does_not_open_it_again(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, failure_threshold=1)
    slow = asyncio.create_task(breaker.call(taking(100, BoomError())))
    await settle()
    await trip(breaker)
    clock.advance(30)
    await breaker.call(succeed)
    with pytest.raises(BoomError):
        await slow
    assert breaker.state is CLOSED


async def test_a_call_that_comes_while_the_state_changes_counts_in_neither_epoch() -> None:
    arrivals: list[Coroutine[Any, Any, str]] = []

    class MeddlingClock(VirtualClock):
        def monotonic(self) -> float:
            # The breaker asks while it opens, to know until when: that is when another thread's call would come.
            while arrivals:
                arrivals.pop().send(None)
            return super().monotonic()

    clock = MeddlingClock()
    breaker = breaker_of(clock, failure_threshold=1)
    late = breaker.call(hang)
    arrivals.append(late)
    await trip(breaker)
    assert arrivals == []
    clock.advance(10)
    with pytest.raises(BoomError):
        late.throw(BoomError())
    snapshot = breaker.snapshot()
    assert (snapshot.state, snapshot.opened_total, snapshot.retry_after) == (OPEN, 1, 20)


async def test_a_stale_probe_neither_counts_nor_gives_back_a_permit_of_the_next_half_open(clock: VirtualClock) -> None:
    breaker = await half_opened(clock, half_open_max_calls=2, probe_lease=1_000)
    stale = asyncio.create_task(breaker.call(taking(100)))
    await settle()
    with pytest.raises(BoomError):
        await breaker.call(fail)
    clock.advance(30)
    current = [asyncio.create_task(breaker.call(hang)) for _ in range(2)]
    await stale
    assert breaker.state is HALF_OPEN
    assert breaker.snapshot().active_probes == 2
    await cancel(*current)


async def cancel(*tasks: asyncio.Task[object] | asyncio.Task[str]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_cancelled_probe_gives_its_permit_back_and_decides_nothing(clock: VirtualClock) -> None:
    breaker = await half_opened(clock)
    for _ in range(3):
        probe = asyncio.create_task(breaker.call(hang))
        await settle()
        assert breaker.snapshot().active_probes == 1
        await cancel(probe)
        assert breaker.snapshot().active_probes == 0
        assert breaker.state is HALF_OPEN
    await breaker.call(succeed)
    assert breaker.state is CLOSED


async def test_a_cancelled_call_is_neither_success_nor_failure(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, failure_threshold=2)
    with pytest.raises(BoomError):
        await breaker.call(fail)
    for _ in range(5):
        call = asyncio.create_task(breaker.call(hang))
        await settle()
        await cancel(call)
    assert breaker.snapshot().consecutive_failures == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_exit_is_neither_success_nor_failure(error: type[BaseException]) -> None:
    clock = VirtualClock()
    breaker = breaker_of(clock, failure_threshold=1)

    def interrupted() -> None:
        raise error

    with pytest.raises(error):
        breaker.call_sync(interrupted)
    assert breaker.state is CLOSED


async def test_a_probe_that_hangs_frees_its_permit_after_the_lease(clock: VirtualClock, signals: list[Signal]) -> None:
    breaker = breaker_of(clock, signals, failure_threshold=1, probe_lease=5.0)
    await trip(breaker)
    clock.advance(30)
    hanging = asyncio.create_task(breaker.call(hang))
    await settle()
    clock.advance(4.999)
    with pytest.raises(CircuitBreakerOpenException):
        await breaker.call(succeed)
    clock.advance(0.001)
    assert await breaker.call(succeed) == "ok"
    assert breaker.state is CLOSED
    assert ProbeLeaseExpired("db") in signals
    assert breaker.snapshot().expired_probes_total == 1
    await cancel(hanging)


async def test_the_permit_of_an_expired_probe_comes_back_only_once(clock: VirtualClock) -> None:
    breaker = await half_opened(clock, probe_lease=5.0)
    late = asyncio.create_task(breaker.call(hang))
    await settle()
    clock.advance(5)
    second = asyncio.create_task(breaker.call(hang))
    await settle()
    await cancel(late)
    assert breaker.snapshot().active_probes == 1
    with pytest.raises(CircuitBreakerOpenException):
        await breaker.call(succeed)
    await cancel(second)


async def test_dependencies_slower_than_the_lease_can_still_close_it(clock: VirtualClock) -> None:
    breaker = await half_opened(clock, probe_lease=1.0)
    assert await breaker.call(taking(10)) == "ok"
    assert breaker.state is CLOSED


@pytest.mark.parametrize(
    "rejection",
    [
        BulkheadRejectedException("b", active=1, queued=0),
        CircuitBreakerOpenException("inner"),
        RateLimitExceededError("r"),
        RetryExhaustedError("op", attempts=3, cause=BulkheadRejectedException("b", active=1, queued=0)),
        InvalidValueError("field", "something else", 1),
        ExceptionGroup("two", [RateLimitExceededError("r"), InvalidValueError("field", "something else", 1)]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_local_rejections_and_the_callers_own_mistakes_do_not_trip_it(
    clock: VirtualClock, rejection: Exception
) -> None:
    breaker = breaker_of(clock, failure_threshold=1)
    with pytest.raises(type(rejection)):
        await breaker.call(taking(0, rejection))
    assert breaker.state is CLOSED
    half_open = await half_opened(clock)
    with pytest.raises(type(rejection)):
        await half_open.call(taking(0, rejection))
    assert half_open.state is HALF_OPEN
    assert half_open.snapshot().active_probes == 0


@pytest.mark.parametrize(
    "error",
    [
        StoreConnectionError(),
        TimeoutError(),
        RetryExhaustedError("op", attempts=3, cause=BoomError()),
        ExceptionGroup("two", [RateLimitExceededError("r"), BoomError()]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_the_dependency_did_trips_it(clock: VirtualClock, error: Exception) -> None:
    breaker = breaker_of(clock, failure_threshold=1)
    with pytest.raises(type(error)):
        await breaker.call(taking(0, error))
    assert breaker.state is OPEN


async def test_ignored_exceptions_count_nothing(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, failure_threshold=1, ignored_exceptions=(BoomError,))
    with pytest.raises(BoomError):
        await breaker.call(fail)
    assert breaker.state is CLOSED


async def test_isolated_rejects_until_closed_and_calls_in_flight_change_nothing(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, failure_threshold=1)
    in_flight = asyncio.create_task(breaker.call(taking(10, BoomError())))
    await settle()
    breaker.isolate()
    clock.advance(1_000)
    with pytest.raises(CircuitBreakerOpenException) as caught:
        await breaker.call(succeed)
    assert (caught.value.state, caught.value.retry_after) == ("isolated", None)
    with pytest.raises(BoomError):
        await in_flight
    assert breaker.state is ISOLATED
    breaker.close()
    assert breaker.state is CLOSED
    assert await breaker.call(succeed) == "ok"


async def test_close_ends_a_break_and_forgets_failures(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, failure_threshold=2)
    await trip(breaker)
    breaker.close()
    with pytest.raises(BoomError):
        await breaker.call(fail)
    assert breaker.state is CLOSED
    breaker.close()
    with pytest.raises(BoomError):
        await breaker.call(fail)
    assert breaker.state is CLOSED


async def test_breaks_grow_while_probes_fail_up_to_the_maximum_and_start_anew_after_success(
    clock: VirtualClock,
) -> None:
    breaker = breaker_of(clock, failure_threshold=1, timeout=10, timeout_multiplier=2.0, timeout_max=60)
    await trip(breaker)
    for expected_s in (10, 20, 40, 60, 60):
        assert breaker.snapshot().retry_after == pytest.approx(expected_s)
        clock.advance(expected_s)
        with pytest.raises(BoomError):
            await breaker.call(fail)
    clock.advance(60)
    await breaker.call(succeed)
    await trip(breaker)
    assert breaker.snapshot().retry_after == pytest.approx(10)


def test_no_number_of_failed_breaks_overflows() -> None:
    for multiplier in (1.0, 1.001, 1_000):
        config = CircuitBreakerConfig(timeout_multiplier=multiplier, timeout_max=timedelta(days=1_000))
        assert 30 <= config.break_s(10**9) <= timedelta(days=1_000).total_seconds()
    assert CircuitBreakerConfig(timeout_multiplier=1.001).break_s(10**6) == 300


async def test_jumps_of_the_wall_clock_change_nothing(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, failure_threshold=1)
    await trip(breaker)
    clock.jump_wall(timedelta(days=3))
    assert breaker.state is OPEN
    clock.jump_wall(timedelta(days=-9))
    clock.advance(30)
    assert breaker.state is HALF_OPEN


async def test_reading_the_state_changes_nothing(clock: VirtualClock, signals: list[Signal]) -> None:
    breaker = breaker_of(clock, signals, failure_threshold=1)
    await trip(breaker)
    clock.advance(30)
    heard = len(signals)
    before = breaker.snapshot()
    assert breaker.state is HALF_OPEN
    assert breaker.snapshot() == before
    assert len(signals) == heard


async def test_changes_of_state_and_rejections_are_signalled(clock: VirtualClock, signals: list[Signal]) -> None:
    breaker = breaker_of(clock, signals, failure_threshold=1)
    await trip(breaker)
    with pytest.raises(CircuitBreakerOpenException):
        await breaker.call(succeed)
    clock.advance(30)
    await breaker.call(succeed)
    assert signals == [
        BreakerStateChanged("db", CLOSED, OPEN, "1 consecutive failures", 30),
        BreakerRejected("db", OPEN, 30),
        BreakerStateChanged("db", OPEN, HALF_OPEN, "break over"),
        BreakerStateChanged("db", HALF_OPEN, CLOSED, "probes succeeded"),
    ]


async def test_a_listener_that_raises_changes_nothing_and_the_others_still_hear(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Signal] = []

    def broken(signal: Signal) -> None:
        raise RuntimeError(str(signal))

    breaker = CircuitBreaker(
        "db", CircuitBreakerConfig(failure_threshold=1), clock=clock, listeners=[broken, heard.append]
    )
    await trip(breaker)
    clock.advance(30)
    assert await breaker.call(succeed) == "ok"
    assert len(heard) == 3
    assert "BreakerStateChanged" in caplog.text


async def test_a_listener_may_ask_the_breaker(clock: VirtualClock) -> None:
    states: list[CircuitBreakerState] = []
    breaker = CircuitBreaker(
        "db",
        CircuitBreakerConfig(failure_threshold=1),
        clock=clock,
        listeners=[lambda _: states.append(breaker.snapshot().state)],
    )
    await trip(breaker)
    assert states == [OPEN]


async def test_a_hundred_thousand_rejections_retain_nothing(clock: VirtualClock) -> None:
    breaker = breaker_of(clock)
    breaker.isolate()

    async def reject(count: int) -> None:
        for _ in range(count):
            try:
                await breaker.call(succeed)
            except CircuitBreakerOpenException:
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


async def test_a_coroutine_closed_in_mid_call_gives_its_probe_permit_back(clock: VirtualClock) -> None:
    breaker = await half_opened(clock)
    call = breaker.call(hang)
    call.send(None)
    assert breaker.snapshot().active_probes == 1
    call.close()
    assert breaker.snapshot().active_probes == 0


async def test_an_async_generator_abandoned_inside_a_call_counts_nothing(clock: VirtualClock) -> None:
    breaker = breaker_of(clock, failure_threshold=1)

    async def stream() -> AsyncIterator[str]:
        yield await breaker.call(succeed)

    async for item in stream():
        assert item == "ok"
        break
    assert breaker.state is CLOSED


def test_threads_and_probes_never_exceed_the_permits() -> None:
    clock = VirtualClock()
    breaker = CircuitBreaker(
        "db",
        CircuitBreakerConfig(failure_threshold=1, half_open_max_calls=2, success_threshold=10**6, probe_lease=10**6),
        clock=clock,
    )
    with pytest.raises(ZeroDivisionError):
        breaker.call_sync(divmod, 1, 0)
    clock.advance(30)
    running, most, passed = 0, 0, 0
    guard = threading.Lock()
    start = threading.Barrier(8)

    def probe() -> None:
        nonlocal running, most, passed
        with guard:
            running += 1
            most = max(most, running)
            passed += 1
        for _ in range(50):
            pass
        with guard:
            running -= 1

    def hammer() -> None:
        start.wait()
        for _ in range(500):
            try:
                breaker.call_sync(probe)
            except CircuitBreakerOpenException:
                continue

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= most <= 2
    snapshot = breaker.snapshot()
    assert (snapshot.active_probes, snapshot.probe_successes) == (0, passed)
    assert passed + snapshot.rejected_total == 8 * 500


@pytest.mark.parametrize(
    "rules",
    [
        {"failure_threshold": 0},
        {"failure_threshold": True},
        {"timeout": timedelta(0)},
        {"timeout": float("nan")},
        {"timeout": "30"},
        {"half_open_max_calls": 0},
        {"failure_rate_threshold": 1.5},
        {"failure_rate_threshold": 0.5, "minimum_calls": 101},
        {"slow_call_rate_threshold": 0.5},
        {"timeout_multiplier": 0.5},
        {"ignored_exceptions": BoomError},
    ],
)
def test_rules_that_make_no_sense_are_refused(rules: dict[str, object]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        CircuitBreakerConfig(**rules)  # type: ignore[arg-type]
    assert caught.value.field in {*rules, "slow_call_duration"}
