"""What a retry policy promises."""

from __future__ import annotations

import asyncio
import gc
import traceback
import tracemalloc
import weakref
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from polaris.exceptions import (
    CircuitBreakerOpenException,
    ConflictError,
    ConnectorError,
    DeadlineExceededError,
    InvalidValueError,
    PublishError,
    RetryExhaustedError,
)
from polaris.resilience import (
    RetryBudget,
    RetryConfig,
    RetryGaveUp,
    RetryPolicy,
    RetryRecovered,
    RetryScheduled,
    Signal,
    deadline_scope,
    monotonic_s,
)
from polaris.testing import VirtualClock

from .doubles import BoomError, Script, fail, hang, settle, succeed, taking


def policy_of(*, budget: RetryBudget | None = None, signals: list[Signal] | None = None, **rules: Any) -> RetryPolicy:
    rules.setdefault("jitter", "none")
    listeners = [] if signals is None else [signals.append]
    return RetryPolicy(RetryConfig(**rules), budget=budget, random=Random(7), listeners=listeners)


async def test_a_success_at_the_first_attempt_is_one_call(clock: VirtualClock) -> None:
    script = Script(["ok"])
    before = clock.monotonic()
    assert await policy_of().execute(script, "op") == "ok"
    assert (script.calls, clock.monotonic()) == (1, before)


async def test_it_repeats_until_success_with_growing_waits(clock: VirtualClock, signals: list[Signal]) -> None:
    boom = BoomError()
    script = Script([boom, boom, boom, "ok"])
    before = clock.monotonic()
    policy = policy_of(max_attempts=5, base_delay=0.1, multiplier=2, signals=signals)
    assert await policy.execute(script, "load") == "ok"
    assert clock.monotonic() - before == pytest.approx(0.1 + 0.2 + 0.4)
    assert signals == [
        RetryScheduled("load", 1, 0.1, boom),
        RetryScheduled("load", 2, 0.2, boom),
        RetryScheduled("load", 3, 0.4, boom),
        RetryRecovered("load", 4),
    ]


async def test_when_all_attempts_fail_the_last_error_surfaces_with_its_traceback(signals: list[Signal]) -> None:
    errors = [BoomError("first"), BoomError("second"), BoomError("third")]
    with pytest.raises(RetryExhaustedError) as caught:
        await policy_of(signals=signals).execute(Script(errors), "load")
    error = caught.value
    assert (error.attempts, error.reason, error.operation) == (3, "attempts", "load")
    assert error.__cause__ is errors[-1]
    assert "__call__" in [frame.name for frame in traceback.extract_tb(errors[-1].__traceback__)]
    assert "third" in str(error)
    assert signals[-1] == RetryGaveUp("load", 3, "attempts", errors[-1])


async def test_there_is_no_wait_after_the_last_attempt(clock: VirtualClock) -> None:
    before = clock.monotonic()
    with pytest.raises(RetryExhaustedError):
        await policy_of(max_attempts=2, base_delay=1).execute(fail)
    assert clock.monotonic() - before == pytest.approx(1)


async def test_the_errors_of_the_attempts_do_not_chain_to_each_other() -> None:
    errors = [BoomError("first"), BoomError("second")]
    with pytest.raises(RetryExhaustedError):
        await policy_of(max_attempts=2).execute(Script(errors))
    assert errors[1].__context__ is None


@pytest.mark.parametrize("moment_s", [0.5, 1.5], ids=["attempt", "wait"])
async def test_cancellation_is_never_retried(clock: VirtualClock, moment_s: float) -> None:
    calls = 0

    async def operation() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(1)
        raise BoomError

    task = asyncio.create_task(policy_of(base_delay=10, retryable=lambda _: True).execute(operation))
    await asyncio.sleep(moment_s)
    task.cancel()
    cancelled_at = clock.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (calls, clock.monotonic()) == (1, cancelled_at)


@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt, SystemExit])
def test_exit_is_never_retried(error: type[BaseException]) -> None:
    calls = 0

    def operation() -> None:
        nonlocal calls
        calls += 1
        raise error

    with pytest.raises(error):
        policy_of(retryable=lambda _: True).execute_sync(operation, sleep=lambda _: None)
    assert calls == 1


class TemporaryValueError(ValueError):
    pass


class StubbornError(ConnectorError):
    retryable = True


@pytest.mark.parametrize(
    ("error", "rules", "retried"),
    [
        (BoomError(), {}, True),
        (ValueError(), {}, False),
        (KeyError(), {}, False),
        (OSError(), {}, True),
        (ConnectorError(), {}, True),
        (ConnectorError(), {"non_retryable": (ConnectorError,)}, False),
        (ConnectorError(), {"retryable": (OSError,)}, False),
        (ConflictError(), {}, False),
        (ConflictError(), {"retryable": (ConflictError,)}, False),
        (ConflictError(), {"retryable": lambda _: True}, False),
        (PublishError(), {"retryable": (OSError,)}, True),
        (StubbornError(), {"non_retryable": (StubbornError,)}, True),
        (OSError(), {"retryable": (OSError,)}, True),
        (BoomError(), {"retryable": (OSError,)}, False),
        (TemporaryValueError(), {"retryable": (TemporaryValueError,)}, True),
        (ValueError(), {"retryable": (TemporaryValueError,)}, False),
        (TemporaryValueError(), {"retryable": (Exception,)}, False),
        (ValueError(), {"retryable": (ValueError,)}, True),
        (BoomError(), {"retryable": lambda error: isinstance(error, OSError)}, False),
        (ExceptionGroup("g", [BoomError(), OSError()]), {}, True),
        (ExceptionGroup("g", [BoomError(), ExceptionGroup("h", [ConflictError()])]), {}, False),
    ],
)
async def test_the_error_itself_then_the_most_specific_type_decides(
    error: Exception, rules: dict[str, Any], retried: bool
) -> None:
    script = Script([error, "ok"])
    execution = policy_of(max_attempts=2, **rules).execute(script)
    if retried:
        assert await execution == "ok"
    else:
        with pytest.raises(type(error)) as caught:
            await execution
        assert caught.value is error
        assert script.calls == 1


async def test_the_total_timeout_interrupts_an_attempt_that_hangs(clock: VirtualClock) -> None:
    before = clock.monotonic()
    with pytest.raises(DeadlineExceededError) as caught:
        await policy_of(total_timeout=5).execute(hang, "load")
    assert clock.monotonic() - before == pytest.approx(5)
    assert (caught.value.operation, caught.value.timeout_s) == ("load", 5)


async def test_the_total_timeout_interrupts_an_attempt_that_would_end_much_later(clock: VirtualClock) -> None:
    before = clock.monotonic()
    with pytest.raises(DeadlineExceededError):
        await policy_of(total_timeout=5).execute(taking(10_000))
    assert clock.monotonic() - before == pytest.approx(5)


async def test_an_expired_deadline_names_the_last_failure_as_its_cause() -> None:
    boom = BoomError()
    failing = Script([boom, "then hangs"])

    async def operation() -> None:
        await failing()
        await hang()

    with pytest.raises(DeadlineExceededError) as caught:
        await policy_of(total_timeout=5).execute(operation, "load")
    assert caught.value.__cause__ is boom


async def test_a_wait_that_would_end_after_the_deadline_is_not_begun(clock: VirtualClock) -> None:
    before = clock.monotonic()
    with pytest.raises(RetryExhaustedError) as caught:
        await policy_of(base_delay=3, total_timeout=2).execute(fail)
    assert (caught.value.reason, caught.value.attempts) == ("deadline", 1)
    assert isinstance(caught.value.__cause__, BoomError)
    assert clock.monotonic() == before


@pytest.mark.parametrize("form", ["absolute", "timedelta", "scope"])
async def test_every_form_of_deadline_bounds_the_whole(clock: VirtualClock, form: str) -> None:
    policy = policy_of(max_attempts=100, base_delay=1, multiplier=1, total_timeout=1_000)
    before = clock.monotonic()

    async def run() -> str:
        if form == "absolute":
            return await policy.execute(taking(1, BoomError()), deadline=monotonic_s() + 4.5)
        if form == "timedelta":
            return await policy.execute(taking(1, BoomError()), deadline=timedelta(seconds=4.5))
        with deadline_scope(4.5):
            return await policy.execute(taking(1, BoomError()))

    with pytest.raises((RetryExhaustedError, DeadlineExceededError)):
        await run()
    assert 4 <= clock.monotonic() - before <= 4.5


async def test_a_deadline_in_the_past_starts_nothing() -> None:
    script = Script(["ok"])
    with pytest.raises(DeadlineExceededError):
        await policy_of().execute(script, deadline=monotonic_s() - 1)
    assert script.calls == 0


async def test_a_deadline_that_is_no_time_is_refused() -> None:
    with pytest.raises(InvalidValueError):
        await policy_of().execute(succeed, deadline=float("nan"))


async def test_each_attempt_has_its_own_timeout(clock: VirtualClock) -> None:
    before = clock.monotonic()
    with pytest.raises(RetryExhaustedError) as caught:
        await policy_of(attempt_timeout=2, base_delay=0).execute(hang, "load")
    assert clock.monotonic() - before == pytest.approx(6)
    assert isinstance(caught.value.__cause__, DeadlineExceededError)


async def test_an_error_that_asks_for_time_gets_it(clock: VirtualClock) -> None:
    before = clock.monotonic()
    script = Script([CircuitBreakerOpenException("db", retry_after=4), "ok"])
    assert await policy_of(base_delay=0.1).execute(script) == "ok"
    assert clock.monotonic() - before == pytest.approx(4)


async def test_those_who_were_turned_away_together_do_not_come_back_together(clock: VirtualClock) -> None:
    policy = policy_of(base_delay=0.1, jitter="full")
    delays = set()
    for _ in range(20):
        before = clock.monotonic()
        await policy.execute(Script([CircuitBreakerOpenException("db", retry_after=4), "ok"]))
        delays.add(round(clock.monotonic() - before, 9))
    assert len(delays) > 15
    assert min(delays) >= 4 - 1e-9
    assert max(delays) <= 4.1 + 1e-9


async def test_an_error_that_asks_for_too_much_time_ends_the_retries(clock: VirtualClock) -> None:
    before = clock.monotonic()
    with pytest.raises(RetryExhaustedError) as caught:
        await policy_of(max_delay=10).execute(Script([CircuitBreakerOpenException("db", retry_after=30)]))
    assert (caught.value.reason, clock.monotonic()) == ("retry_after", before)
    script = Script([CircuitBreakerOpenException("db", retry_after=30), "ok"])
    assert await policy_of(max_delay=10, retry_after_max=60).execute(script) == "ok"


@pytest.mark.parametrize("asked", [None, "soon", float("nan"), float("inf"), -1, True])
async def test_a_senseless_retry_after_is_not_heeded(clock: VirtualClock, asked: object) -> None:
    boom = BoomError()
    boom.retry_after = asked  # type: ignore[attr-defined]
    before = clock.monotonic()
    await policy_of(base_delay=0.1).execute(Script([boom, "ok"]))
    assert clock.monotonic() - before == pytest.approx(0.1)


async def test_under_total_failure_retries_stay_within_the_budget(clock: VirtualClock) -> None:
    budget = RetryBudget(0.1, retries_per_s_min=2, clock=clock)
    calls = 0

    async def operation() -> None:
        nonlocal calls
        calls += 1
        raise BoomError

    policy = policy_of(max_attempts=10, base_delay=0, budget=budget)
    before = clock.monotonic()
    reasons = set()
    for _ in range(1_000):
        with pytest.raises(RetryExhaustedError) as caught:
            await policy.execute(operation)
        reasons.add(caught.value.reason)
        clock.advance(0.01)
    elapsed_s = clock.monotonic() - before
    retries = calls - 1_000
    assert 100 <= retries <= 0.1 * 1_000 + 2 * (elapsed_s + 1) + 1e-6
    assert "budget" in reasons


def test_a_budget_saves_up_no_more_than_its_maximum() -> None:
    clock = VirtualClock()
    budget = RetryBudget(1.0, retries_per_s_min=0, retries_saved_max=5, clock=clock)
    assert not budget.try_spend()
    for _ in range(100):
        budget.record_call()
    assert budget.available == 5
    assert [budget.try_spend() for _ in range(6)] == [True] * 5 + [False]


def test_a_budget_deposits_fractions_exactly_enough() -> None:
    budget = RetryBudget(0.1, retries_per_s_min=0, clock=VirtualClock())
    for _ in range(10):
        budget.record_call()
    assert budget.try_spend()
    assert not budget.try_spend()


def test_sync_functions_are_retried_too() -> None:
    waits: list[float] = []
    outcomes: Iterator[Exception | str] = iter([BoomError(), BoomError(), "ok"])

    def operation() -> str:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert policy_of(base_delay=0.5).execute_sync(operation, sleep=waits.append) == "ok"
    assert waits == [0.5, 1.0]


def test_a_sync_call_cannot_promise_to_interrupt_an_attempt() -> None:
    with pytest.raises(InvalidValueError):
        policy_of(attempt_timeout=1).execute_sync(lambda: None)


def test_a_sync_call_does_not_begin_a_wait_beyond_its_total_timeout() -> None:
    def operation() -> None:
        raise BoomError

    with pytest.raises(RetryExhaustedError) as caught:
        policy_of(base_delay=100, max_delay=100, total_timeout=50).execute_sync(operation, sleep=lambda _: None)
    assert caught.value.reason == "deadline"


async def test_an_injected_clock_makes_waits_instant() -> None:
    clock = VirtualClock(auto_advance=True)
    policy = RetryPolicy(RetryConfig(base_delay=1_000, max_delay=1_000, jitter="none"), clock=clock)
    before = clock.monotonic()
    real_before = asyncio.get_running_loop().time()
    with pytest.raises(RetryExhaustedError):
        await policy.execute(fail)
    assert clock.monotonic() - before == 2_000
    assert asyncio.get_running_loop().time() == real_before


async def test_a_listener_that_raises_changes_nothing() -> None:
    def broken(signal: Signal) -> None:
        raise RuntimeError(str(signal))

    policy = RetryPolicy(RetryConfig(base_delay=0), listeners=[broken])
    assert await policy.execute(Script([BoomError(), "ok"])) == "ok"


@pytest.mark.parametrize("rules", [{}, {"total_timeout": 5}, {"attempt_timeout": 5}, {"retryable": (OSError,)}])
async def test_errors_die_with_their_last_reference_without_the_collector(rules: dict[str, Any]) -> None:
    policy = policy_of(max_attempts=2, base_delay=0, **rules)
    deaths: list[object] = []

    async def operation() -> None:
        boom = BoomError()
        weakref.finalize(boom, deaths.append, None)
        try:
            raise boom
        finally:
            del boom

    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with suppress(BoomError, RetryExhaustedError):
                await policy.execute(operation)
        assert len(deaths) == (3 if rules == {"retryable": (OSError,)} else 6)
    finally:
        gc.enable()


async def test_ten_thousand_attempts_neither_overflow_nor_retain_memory() -> None:
    policy = policy_of(max_attempts=10_000, base_delay=0.1, max_delay=10, jitter="full")
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        with pytest.raises(RetryExhaustedError) as caught:
            await policy.execute(fail)
        attempts = caught.value.attempts
        del caught
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert attempts == 10_000
    assert after - before < 50_000


async def test_one_policy_serves_many_tasks_at_once(clock: VirtualClock) -> None:
    policy = policy_of(max_attempts=3, base_delay=1)
    before = clock.monotonic()
    scripts = [Script([BoomError(), BoomError(), number]) for number in range(50)]
    assert await asyncio.gather(*(policy.execute(script) for script in scripts)) == list(range(50))
    assert clock.monotonic() - before == pytest.approx(3)
    await settle()


@pytest.mark.parametrize(
    "rules",
    [
        {"max_attempts": 0},
        {"max_attempts": 2.0},
        {"base_delay": -1},
        {"max_delay": float("inf")},
        {"multiplier": 0.5},
        {"multiplier": float("nan")},
        {"jitter": "some"},
        {"retryable": (BaseException,)},
        {"retryable": 3},
        {"non_retryable": ValueError},
        {"attempt_timeout": 0},
        {"total_timeout": "1"},
    ],
)
def test_rules_that_make_no_sense_are_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        RetryConfig(**rules)
    assert caught.value.field in rules
