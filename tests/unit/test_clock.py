"""The clock of the machine."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from polaris.clock import SYSTEM_CLOCK, Clock, SystemClock, utc_now


def test_the_system_clock_is_a_clock() -> None:
    assert isinstance(SYSTEM_CLOCK, Clock)
    assert isinstance(SystemClock(), Clock)
    assert not isinstance(time, Clock)


@pytest.mark.parametrize("now", [SYSTEM_CLOCK.now, utc_now])
def test_the_wall_clock_is_aware_and_in_utc(now: object) -> None:
    moment = now()  # type: ignore[operator]
    assert moment.tzinfo is UTC
    assert abs(moment - datetime.now(UTC)) < timedelta(minutes=1)


def test_the_monotonic_clock_does_not_follow_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    before = SYSTEM_CLOCK.monotonic()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    after = SYSTEM_CLOCK.monotonic()
    assert 0.0 <= after - before < 60.0


@pytest.mark.parametrize("delay_s", [0.0, -1.0, -float("inf")])
async def test_a_sleep_of_no_time_lets_others_run_once(delay_s: float) -> None:
    ran: list[str] = []

    async def other() -> None:
        ran.append("other")

    task = asyncio.create_task(other())
    await SYSTEM_CLOCK.sleep(delay_s)
    ran.append("us")
    await task
    assert ran == ["other", "us"]


async def test_a_sleep_can_be_cancelled() -> None:
    task = asyncio.create_task(SYSTEM_CLOCK.sleep(3_600))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
