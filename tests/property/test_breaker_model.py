"""The circuit breaker against a small model, over any interleaving of calls, outcomes and time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from polaris.exceptions import CircuitBreakerOpenException
from polaris.resilience import CircuitBreaker, CircuitBreakerConfig, CircuitBreakerState
from polaris.testing import VirtualClock


class BoomError(Exception):
    pass


class Model:
    """The consecutive-failure breaker, written for plainness; every admitted call holds the epoch of its ticket."""

    def __init__(self, config: CircuitBreakerConfig, break_s: float, lease_s: float) -> None:
        self.config, self.break_s, self.lease_s = config, break_s, lease_s
        self.now, self.epoch, self.state = 0.0, 0, "closed"
        self.failures = self.successes = 0
        self.open_until = 0.0
        self.probes: dict[int, float] = {}

    def enter(self, state: str) -> None:
        self.state, self.epoch = state, self.epoch + 1
        self.failures = self.successes = 0
        self.probes = {}
        if state == "open":
            self.open_until = self.now + self.break_s

    def admit(self, call: int) -> int | None:
        """The epoch of the call's ticket, or None if it is rejected."""
        if self.state == "open" and self.now >= self.open_until:
            self.enter("half_open")
        if self.state == "half_open":
            self.probes = {probe: until for probe, until in self.probes.items() if until > self.now}
            if len(self.probes) >= self.config.half_open_max_calls:
                return None
            self.probes[call] = self.now + self.lease_s
        return self.epoch if self.state in {"closed", "half_open"} else None

    def finish(self, call: int, epoch: int, outcome: str) -> None:
        if epoch != self.epoch:
            return
        self.probes.pop(call, None)
        if outcome == "failure":
            self.failures += 1
            if self.state == "half_open" or self.failures >= self.config.failure_threshold:
                self.enter("open")
        elif outcome == "success":
            self.failures = 0
            self.successes += 1
            if self.state == "half_open" and self.successes >= self.config.success_threshold:
                self.enter("closed")

    @property
    def visible_state(self) -> str:
        return "half_open" if self.state == "open" and self.now >= self.open_until else self.state


class Call:
    """A call in flight, driven by hand so that every interleaving can be had without an event loop."""

    def __init__(self, breaker: CircuitBreaker, number: int) -> None:
        self.number = number
        self.epoch = 0
        self._coroutine: Coroutine[Any, Any, None] = breaker.call(self._operation)

    async def _operation(self) -> None:
        await _Pause()

    def start(self) -> bool:
        try:
            self._coroutine.send(None)
        except CircuitBreakerOpenException:
            return False
        return True

    def finish(self, outcome: str) -> None:
        if outcome == "success":
            with pytest.raises(StopIteration):
                self._coroutine.send(None)
        elif outcome == "failure":
            with pytest.raises(BoomError):
                self._coroutine.throw(BoomError())
        elif outcome == "cancelled":
            with pytest.raises(asyncio.CancelledError):
                self._coroutine.throw(asyncio.CancelledError())
        else:
            self._coroutine.close()


class _Pause:
    def __await__(self):
        yield


class BreakerMachine(RuleBasedStateMachine):
    calls = Bundle("calls")

    @initialize(
        threshold=st.integers(1, 3),
        permits=st.integers(1, 3),
        successes=st.integers(1, 3),
        break_s=st.sampled_from([5.0, 10.0]),
        lease_s=st.sampled_from([3.0, 20.0]),
    )
    def make(self, threshold: int, permits: int, successes: int, break_s: float, lease_s: float) -> None:
        config = CircuitBreakerConfig(
            threshold, break_s, half_open_max_calls=permits, success_threshold=successes, probe_lease=lease_s
        )
        self.clock = VirtualClock(start_s=0)
        self.breaker = CircuitBreaker("b", config, clock=self.clock)
        self.model = Model(config, break_s, lease_s)
        self.number = 0
        self.in_flight: list[Call] = []

    @rule(target=calls)
    def start(self) -> Call | None:
        self.number += 1
        call = Call(self.breaker, self.number)
        epoch = self.model.admit(self.number)
        assert call.start() == (epoch is not None)
        if epoch is None:
            return None
        call.epoch = epoch
        self.in_flight.append(call)
        return call

    @rule(call=consumes(calls), outcome=st.sampled_from(["success", "failure", "failure", "cancelled", "closed"]))
    def finish(self, call: Call | None, outcome: str) -> None:
        if call is not None:
            self.in_flight.remove(call)
            call.finish(outcome)
            self.model.finish(call.number, call.epoch, outcome)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 5.0, 12.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.model.now += seconds

    @precondition(lambda self: self.number % 7 == 3)
    @rule()
    def isolate(self) -> None:
        self.breaker.isolate()
        self.model.enter("isolated")

    @precondition(lambda self: self.model.state == "isolated")
    @rule()
    def close(self) -> None:
        self.breaker.close()
        self.model.enter("closed")

    @invariant()
    def both_agree(self) -> None:
        if not hasattr(self, "model"):
            return
        snapshot = self.breaker.snapshot()
        assert self.breaker.state.value == self.model.visible_state
        assert snapshot.active_probes == len(self.model.probes)
        if self.model.state == "closed":
            assert snapshot.consecutive_failures == self.model.failures
        if self.breaker.state is CircuitBreakerState.HALF_OPEN:
            assert snapshot.active_probes <= self.breaker.config.half_open_max_calls

    def teardown(self) -> None:
        for call in getattr(self, "in_flight", []):
            call.finish("closed")


BreakerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestBreaker = BreakerMachine.TestCase
