"""Supervision: tasks come back more and more slowly, and end together."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from polaris.domain import HealthStatus
from polaris.observability import StructuredLogger
from polaris.runtime._health import HealthBoard
from polaris.runtime._supervision import Supervisor
from polaris.testing import run_virtual, running_clock


def test_a_task_that_fails_comes_back_ever_more_slowly_and_shows_it() -> None:
    async def scenario() -> None:
        clock = running_clock()
        board = HealthBoard(clock=clock)
        supervisor = Supervisor(board, StructuredLogger("test"), clock=clock)
        begun: list[float] = []

        async def fail() -> None:
            begun.append(clock.monotonic())
            raise ValueError("no")

        supervisor.run("worker", fail)
        await clock.sleep(200)
        waits = [later - earlier for earlier, later in pairwise(begun)]
        assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
        assert max(waits) == 30.0
        view = board.get("worker")
        assert view is not None
        assert view.status is HealthStatus.UNHEALTHY
        assert "ValueError: no" in view.message
        await supervisor.stop()
        assert supervisor.restarts_total == len(begun)

    run_virtual(scenario())


def test_stop_cancels_everything_and_leaves_nothing() -> None:
    async def scenario() -> None:
        supervisor = Supervisor(HealthBoard(clock=running_clock()), StructuredLogger("test"), clock=running_clock())
        ended: list[str] = []

        async def wait_for_ever() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("x")

        for number in range(3):
            supervisor.run(str(number), wait_for_ever)
        await asyncio.sleep(0)
        await supervisor.stop()
        await supervisor.stop()
        assert len(ended) == 3
        assert len(asyncio.all_tasks()) == 1

    run_virtual(scenario())


def test_a_task_that_runs_once_is_repeated_only_while_it_fails() -> None:
    async def scenario() -> None:
        supervisor = Supervisor(HealthBoard(clock=running_clock()), StructuredLogger("test"), clock=running_clock())
        tries = 0

        async def third_time_lucky() -> None:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise ValueError("no")

        supervisor.run_once("once", third_time_lucky, kind="once")
        await running_clock().sleep(100)
        assert tries == 3

    run_virtual(scenario())


def test_a_task_that_fails_while_it_is_cancelled_does_not_come_back() -> None:
    async def scenario() -> None:
        clock = running_clock()
        supervisor = Supervisor(HealthBoard(clock=clock), StructuredLogger("test"), clock=clock)
        begun = 0

        async def fail_to_end() -> None:
            nonlocal begun
            begun += 1
            try:
                await asyncio.Event().wait()
            finally:
                raise OSError("cannot let go")

        supervisor.run("worker", fail_to_end)
        await clock.sleep(1)
        async with asyncio.timeout(10):
            await supervisor.stop()
        assert begun == 1
        assert len(asyncio.all_tasks()) == 1

    run_virtual(scenario())


def test_a_task_that_has_run_again_for_a_minute_is_shown_as_well() -> None:
    async def scenario() -> None:
        clock = running_clock()
        board = HealthBoard(clock=clock)
        supervisor = Supervisor(board, StructuredLogger("test"), clock=clock)
        failures = 1

        async def fail_once() -> None:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise ValueError("once")
            await asyncio.Event().wait()

        supervisor.run("worker", fail_once)
        seen = []
        for _ in range(2):
            await clock.sleep(50)
            view = board.get("worker")
            assert view is not None
            seen.append(view.status)
        await supervisor.stop()
        assert seen == [HealthStatus.WARNING, HealthStatus.HEALTHY]

    run_virtual(scenario())


def test_restarts_are_counted_by_name_and_whoever_asks_late_hears_of_all() -> None:
    async def scenario() -> None:
        board = HealthBoard(clock=running_clock())
        supervisor = Supervisor(board, StructuredLogger("test"), clock=running_clock())

        async def fail() -> None:
            raise ValueError("no")

        async def wait_for_ever() -> None:
            await asyncio.Event().wait()

        supervisor.run("steady", wait_for_ever)
        supervisor.run("worker", fail)
        for number in range(3):
            supervisor.run_once(f"action {number}", fail, kind="action")
        await asyncio.sleep(0.1)
        told: dict[str, int] = {}

        def note(name: str, times: int) -> None:
            told[name] = told.get(name, 0) + times

        board.on_restart(note)
        assert told == {"steady": 0, "worker": 1, "action": 3}
        await asyncio.sleep(1.0)
        assert told == {"steady": 0, "worker": 2, "action": 6} == board.restarts
        await supervisor.stop()

    run_virtual(scenario())
