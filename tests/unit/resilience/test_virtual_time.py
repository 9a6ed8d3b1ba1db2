"""What the virtual clock and the virtual event loop promise."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from polaris.clock import Clock
from polaris.exceptions import InvalidValueError
from polaris.testing import VirtualClock, VirtualTimeDeadlock, VirtualTimeLoop, run_virtual, running_clock
from polaris.testing import _virtual_loop as virtual_loop


def test_it_is_a_clock_with_aware_utc_time() -> None:
    clock = VirtualClock(wall=datetime(2031, 5, 1, tzinfo=UTC))
    assert isinstance(clock, Clock)
    clock.advance(90)
    assert clock.now() == datetime(2031, 5, 1, 0, 1, 30, tzinfo=UTC)
    with pytest.raises(InvalidValueError):
        VirtualClock(wall=datetime(2031, 5, 1))  # noqa: DTZ001


def test_monotonic_time_never_goes_back() -> None:
    clock = VirtualClock()
    before = clock.monotonic()
    clock.jump_wall(timedelta(days=-1))
    clock.advance_to(before - 10)
    for senseless in (-1, float("nan")):
        with pytest.raises(InvalidValueError):
            clock.advance(senseless)
    assert clock.monotonic() == before


def test_hours_pass_in_no_time() -> None:
    async def main() -> float:
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(3_600 * 50)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3_600):
                await asyncio.Event().wait()
        await running_clock().sleep(3_600)
        return asyncio.get_running_loop().time() - began

    real_before = time.monotonic()
    assert run_virtual(main()) == 3_600 * 52
    assert time.monotonic() - real_before < 5


def test_timers_fire_in_order_and_exactly_on_time() -> None:
    clock = VirtualClock(start_s=0.1)
    fired: list[tuple[float, float]] = []

    async def wait(seconds: float) -> None:
        due = clock.monotonic() + seconds
        await asyncio.sleep(seconds)
        fired.append((due, clock.monotonic()))

    async def main() -> None:
        await asyncio.gather(*(wait(seconds / 7) for seconds in (9, 3, 8, 1, 5)))

    run_virtual(main(), clock=clock)
    assert fired == sorted(fired)
    assert all(due == at for due, at in fired)


def test_time_stands_still_while_a_thread_works() -> None:
    release = threading.Event()

    async def main() -> float:
        clock = running_clock()
        began = clock.monotonic()
        async with asyncio.timeout(1_000):
            work = asyncio.create_task(asyncio.to_thread(release.wait, 10))
            threading.Timer(0.05, release.set).start()
            assert await work
        return clock.monotonic() - began

    assert run_virtual(main()) == 0


def test_a_deadlock_is_an_error_and_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_loop, "STALL_S_MAX", 0.05)

    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(VirtualTimeDeadlock):
        run_virtual(main())


def test_the_running_clock_exists_only_in_virtual_time() -> None:
    async def main() -> None:
        running_clock()

    with pytest.raises(RuntimeError):
        asyncio.run(main())


def test_on_an_ordinary_loop_sleepers_wake_when_the_clock_is_advanced() -> None:
    clock = VirtualClock()
    woken: list[int] = []

    async def sleep(number: int) -> None:
        await clock.sleep(number)
        woken.append(number)

    async def main() -> None:
        tasks = [asyncio.create_task(sleep(number)) for number in (3, 1, 2, 2)]
        await asyncio.sleep(0)
        assert clock.sleeping == 4
        clock.advance(2)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert woken == [1, 2, 2]
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert clock.sleeping == 0

    asyncio.run(main())


def test_an_auto_advancing_clock_sleeps_at_once_and_still_yields() -> None:
    clock = VirtualClock(auto_advance=True)
    order: list[str] = []

    async def other() -> None:
        order.append("other")

    async def main() -> None:
        task = asyncio.create_task(other())
        await clock.sleep(50)
        order.append("slept")
        await task

    before = clock.monotonic()
    asyncio.run(main())
    assert clock.monotonic() - before == 50
    assert order == ["other", "slept"]


def test_a_loop_brings_a_clock_of_its_own() -> None:
    loop = VirtualTimeLoop()
    try:
        loop.clock.advance(5)
        assert loop.time() == loop.clock.monotonic()
    finally:
        loop.close()
