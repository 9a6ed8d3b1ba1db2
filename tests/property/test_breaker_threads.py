"""The circuit breaker under many threads: permits, epochs and counts stay right whatever the scheduler does."""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random

import pytest

from polaris.exceptions import CircuitBreakerOpenException
from polaris.resilience import (
    BreakerRejected,
    BreakerStateChanged,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerState,
    Signal,
)
from polaris.testing import VirtualClock

THREADS = 8
LEGAL_MOVES = {("closed", "open"), ("open", "half_open"), ("half_open", "open"), ("half_open", "closed")}


@pytest.fixture(autouse=True)
def quick_switches() -> Iterator[None]:
    """Let threads take turns as often as the interpreter can."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual_s)


class RestlessClock(VirtualClock):
    """Gives way to the other threads whenever it is asked, so that they meet inside what the breaker guards."""

    def monotonic(self) -> float:
        time.sleep(0)
        return super().monotonic()


class WatchedBreaker(CircuitBreaker):
    """Tells the operation whether it runs as a probe, and of which epoch."""

    ticket = threading.local()

    def _admit(self) -> tuple[int, int]:
        epoch, probe = super()._admit()
        self.ticket.epoch = epoch if probe else None
        return epoch, probe


class Crowd:
    """Threads that call one breaker at once, and what they saw."""

    def __init__(self, breaker: WatchedBreaker) -> None:
        self.breaker = breaker
        self.guard = threading.Lock()
        self.outcomes: Counter[str] = Counter()
        self.probing: Counter[int] = Counter()
        self.probing_max = 0
        self.errors: list[BaseException] = []

    def operation(self, random: Random, failing: float) -> None:
        epoch = vars(self.breaker.ticket).pop("epoch", None)
        if epoch is not None:
            with self.guard:
                self.probing[epoch] += 1
                self.probing_max = max(self.probing_max, self.probing[epoch])
        try:
            for _ in range(random.randint(0, 3)):
                time.sleep(0)
            if random.random() < failing:
                raise ConnectionError
        finally:
            if epoch is not None:
                with self.guard:
                    self.probing[epoch] -= 1

    def call(self, random: Random, failing: float) -> None:
        try:
            self.breaker.call_sync(self.operation, random, failing)
        except ConnectionError:
            outcome = "failed"
        except CircuitBreakerOpenException:
            outcome = "rejected"
        else:
            outcome = "succeeded"
        with self.guard:
            self.outcomes[outcome] += 1

    def call_often(self, times: int, failing: float, random: Random) -> None:
        for _ in range(times):
            self.call(random, failing)

    def run(self, body: Callable[[Random], object], seed: int) -> None:
        start = threading.Barrier(THREADS)

        def guarded(number: int) -> None:
            try:
                start.wait()
                body(Random(seed * 1_000 + number))
            except BaseException as error:
                self.errors.append(error)

        threads = [threading.Thread(target=guarded, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert self.errors == []


@pytest.mark.parametrize("permits", [1, 2, 3])
def test_threads_that_come_when_the_break_is_over_share_the_permits_of_one_half_open(permits: int) -> None:
    clock = RestlessClock()
    config = CircuitBreakerConfig(1, 30, half_open_max_calls=permits, success_threshold=10**6, probe_lease=10**6)
    for seed in range(20):
        breaker = WatchedBreaker("c", config, clock=clock)
        with pytest.raises(ZeroDivisionError):
            breaker.call_sync(divmod, 1, 0)
        clock.advance(30)
        crowd = Crowd(breaker)
        crowd.run(functools.partial(crowd.call_often, 10, 0.0), seed)
        snapshot = breaker.snapshot()
        assert 1 <= crowd.probing_max <= permits
        assert (snapshot.epoch, snapshot.active_probes) == (3, 0)
        assert snapshot.probe_successes == crowd.outcomes["succeeded"]
        assert snapshot.rejected_total == crowd.outcomes["rejected"]
        assert crowd.outcomes.total() == THREADS * 10


@pytest.mark.parametrize("seed", range(8))
def test_through_many_breaks_the_counts_agree_with_what_the_callers_saw(seed: int) -> None:
    clock = RestlessClock()
    signals: list[Signal] = []
    breaker = WatchedBreaker(
        "c",
        CircuitBreakerConfig(2, 1.0, half_open_max_calls=2, success_threshold=2, probe_lease=10**6),
        clock=clock,
        listeners=[signals.append],
    )
    crowd = Crowd(breaker)

    def body(random: Random) -> None:
        for _ in range(60):
            crowd.call(random, 0.4)
            if random.random() < 0.2:
                with crowd.guard:
                    clock.advance(0.5)

    crowd.run(body, seed)
    snapshot = breaker.snapshot()
    moves = [signal for signal in signals if isinstance(signal, BreakerStateChanged)]
    assert crowd.probing_max <= 2
    assert snapshot.active_probes == 0
    assert crowd.outcomes.total() == THREADS * 60
    assert snapshot.rejected_total == crowd.outcomes["rejected"]
    assert snapshot.rejected_total == sum(isinstance(signal, BreakerRejected) for signal in signals)
    assert {(move.former.value, move.state.value) for move in moves} <= LEGAL_MOVES
    # One signal and one epoch for each change of state, whoever caused it.
    assert snapshot.epoch == 1 + len(moves)
    assert snapshot.opened_total == sum(move.state is CircuitBreakerState.OPEN for move in moves) >= 2


def test_a_window_shared_by_threads_loses_no_outcome() -> None:
    config = CircuitBreakerConfig(failure_rate_threshold=1.0, window_calls=10_000, minimum_calls=10_000)
    breaker = WatchedBreaker("c", config)
    crowd = Crowd(breaker)
    crowd.run(functools.partial(crowd.call_often, 200, 0.5), 1)
    snapshot = breaker.snapshot()
    assert snapshot.window_calls == crowd.outcomes.total() == THREADS * 200
    assert snapshot.failed_calls == crowd.outcomes["failed"]


def test_loops_in_several_threads_share_the_permits_too() -> None:
    clock = RestlessClock()
    config = CircuitBreakerConfig(1, 30, half_open_max_calls=2, success_threshold=10**6, probe_lease=10**6)
    breaker = WatchedBreaker("c", config, clock=clock)
    with pytest.raises(ZeroDivisionError):
        breaker.call_sync(divmod, 1, 0)
    clock.advance(30)
    crowd = Crowd(breaker)
    running = running_max = 0

    async def probe() -> None:
        nonlocal running, running_max
        with crowd.guard:
            running += 1
            running_max = max(running_max, running)
        await asyncio.sleep(0)
        with crowd.guard:
            running -= 1

    async def calls() -> None:
        outcomes = await asyncio.gather(*(breaker.call(probe) for _ in range(50)), return_exceptions=True)
        with crowd.guard:
            crowd.outcomes.update("succeeded" if outcome is None else type(outcome).__name__ for outcome in outcomes)

    crowd.run(lambda _: asyncio.run(calls()), 1)
    snapshot = breaker.snapshot()
    assert set(crowd.outcomes) <= {"succeeded", "CircuitBreakerOpenException"}
    assert 1 <= running_max <= 2
    assert snapshot.active_probes == 0
    assert snapshot.probe_successes == crowd.outcomes["succeeded"]
