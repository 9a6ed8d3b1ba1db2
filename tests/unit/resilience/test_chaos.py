"""What chaos promises: nothing unless enabled, and then the same every time."""

from __future__ import annotations

from typing import Any

import pytest

from polaris.exceptions import InvalidValueError
from polaris.resilience import Chaos, ChaosConfig, ChaosInjected, Signal
from polaris.testing import VirtualClock

from .doubles import Script, succeed


async def fates(chaos: Chaos, clock: VirtualClock, calls: int = 200) -> list[tuple[str, float]]:
    seen = []
    for _ in range(calls):
        before = clock.monotonic()
        try:
            outcome = await chaos.execute(succeed)
        except (ConnectionError, TimeoutError) as error:
            outcome = type(error).__name__
        seen.append((outcome, round(clock.monotonic() - before, 9)))
    return seen


async def test_it_is_off_unless_enabled(clock: VirtualClock, signals: list[Signal]) -> None:
    chaos = Chaos(ChaosConfig(fault_rate=1.0, latency_rate=1.0), listeners=[signals.append])
    assert set(await fates(chaos, clock)) == {("ok", 0.0)}
    assert set(await fates(Chaos(), clock)) == {("ok", 0.0)}
    assert signals == []


async def test_the_same_seed_gives_the_same_faults_and_delays(clock: VirtualClock) -> None:
    rules: dict[str, Any] = {
        "enabled": True,
        "fault_rate": 0.3,
        "faults": (ConnectionError, TimeoutError),
        "latency_rate": 0.5,
        "latency_max": 2.0,
    }
    runs = [await fates(Chaos(ChaosConfig(seed=7, **rules)), clock) for _ in range(2)]
    assert runs[0] == runs[1]
    assert await fates(Chaos(ChaosConfig(seed=8, **rules)), clock) != runs[0]
    outcomes = [outcome for outcome, _ in runs[0]]
    assert 30 <= outcomes.count("ConnectionError") + outcomes.count("TimeoutError") <= 90
    assert {"ConnectionError", "TimeoutError"} <= set(outcomes)
    delays = [delay for _, delay in runs[0] if delay]
    assert 70 <= len(delays) <= 130
    assert 1.5 < max(delays) <= 2


async def test_a_fault_replaces_the_call_and_is_signalled(signals: list[Signal]) -> None:
    script = Script(["ok"])
    chaos = Chaos(ChaosConfig(enabled=True, fault_rate=1.0), listeners=[signals.append])
    with pytest.raises(ConnectionError) as caught:
        await chaos.execute(script, "load")
    assert script.calls == 0
    assert signals == [ChaosInjected("load", 0.0, caught.value)]


async def test_it_can_be_switched_off_again(clock: VirtualClock) -> None:
    chaos = Chaos(ChaosConfig(enabled=True, fault_rate=1.0))
    chaos.enabled = False
    assert await chaos.execute(succeed) == "ok"


@pytest.mark.parametrize("rules", [{"fault_rate": 1.1}, {"latency_rate": -0.1}, {"faults": ()}, {"latency_max": 0}])
def test_rules_that_make_no_sense_are_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        ChaosConfig(**rules)
