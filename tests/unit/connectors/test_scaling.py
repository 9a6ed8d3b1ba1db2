"""Scaling in virtual time: one signal at a time, merged and lost signals noticed, late effects waited for."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from polaris.connectors import BlockingReads
from polaris.connectors.gunicorn._arbiter import Arbiter
from polaris.connectors.gunicorn._scaling import Change, Scaling
from polaris.exceptions import ConnectorError
from polaris.testing import VirtualClock, run_virtual, running_clock


class DirectReads(BlockingReads):
    """Reads that need no thread: everything happens in virtual time."""

    def __init__(self) -> None:
        super().__init__("test")

    async def run(self, call: Callable[[], Any]) -> Any:
        await asyncio.sleep(0)
        return call()


class ScriptedArbiter:
    """An arbiter that obeys after a delay, and merges signals that arrive before it has obeyed the last one."""

    def __init__(self, clock: VirtualClock, workers: int, *, delay_s: float = 0.03, obeys: int = 1_000) -> None:
        self.clock = clock
        self.pids = list(range(100, 100 + workers))
        self.delay_s = delay_s
        self.obeys = obeys
        self.due: list[tuple[float, signal.Signals]] = []
        self.sent: list[signal.Signals] = []
        self.gone = False

    def send(self, number: signal.Signals) -> None:
        if self.gone:
            raise ConnectorError("the arbiter is gone")
        self.sent.append(number)
        self._obey()
        if not self.due and len(self.sent) <= self.obeys:
            self.due.append((self.clock.monotonic() + self.delay_s, number))

    def _obey(self) -> None:
        while self.due and self.due[0][0] <= self.clock.monotonic():
            if self.due.pop(0)[1] is signal.SIGTTIN:
                self.pids.append(max(self.pids, default=99) + 1)
            else:
                self.pids.pop(0)

    def workers(self) -> list[SimpleNamespace]:
        if self.gone:
            raise ConnectorError("the arbiter is gone")
        self._obey()
        return [SimpleNamespace(pid=pid) for pid in self.pids]


def change_of(arbiter: ScriptedArbiter, scaling: Scaling, target: int, timeout_s: float = 10.0) -> Any:
    before = tuple(arbiter.pids)
    deadline_s = arbiter.clock.monotonic() + timeout_s
    return scaling.change(cast(Arbiter, arbiter), before, target, deadline_s)


def test_each_step_is_seen_before_the_next_signal_is_sent() -> None:
    async def main() -> None:
        arbiter = ScriptedArbiter(running_clock(), 1)
        change = await change_of(arbiter, Scaling(DirectReads(), running_clock()), 4)
        assert change == Change(4, (100,), (100, 101, 102, 103), 3)
        assert change.reached
        assert arbiter.sent == [signal.SIGTTIN] * 3
        change = await change_of(arbiter, Scaling(DirectReads(), running_clock()), 2)
        assert change.after == (102, 103)
        assert arbiter.sent[3:] == [signal.SIGTTOU] * 2

    run_virtual(main())


def test_a_target_that_is_there_already_takes_no_signal() -> None:
    async def main() -> None:
        arbiter = ScriptedArbiter(running_clock(), 2)
        change = await change_of(arbiter, Scaling(DirectReads(), running_clock()), 2)
        assert change.reached
        assert arbiter.sent == []

    run_virtual(main())


@pytest.mark.parametrize(("obeys", "moved"), [(0, False), (2, True)])
def test_an_arbiter_that_stops_obeying_is_given_up_at_the_deadline(obeys: int, moved: bool) -> None:
    async def main() -> None:
        clock = running_clock()
        arbiter = ScriptedArbiter(clock, 1, obeys=obeys)
        start_s = clock.monotonic()
        change = await change_of(arbiter, Scaling(DirectReads(), clock), 4, timeout_s=3.0)
        assert not change.reached
        assert change.moved is moved
        assert len(change.after) == 1 + obeys
        assert clock.monotonic() - start_s == pytest.approx(3.0, abs=0.01)

    run_virtual(main())


def test_a_worker_that_dies_while_it_starts_does_not_count() -> None:
    async def main() -> None:
        clock = running_clock()
        arbiter = ScriptedArbiter(clock, 1)

        async def die() -> None:
            await clock.sleep(0.1)
            arbiter.pids.pop()

        dying = asyncio.ensure_future(die())
        change = await change_of(arbiter, Scaling(DirectReads(), clock), 2, timeout_s=2.0)
        await dying
        assert not change.reached
        assert change.after == (100,)

    run_virtual(main())


def test_an_arbiter_that_goes_before_the_first_signal_was_not_changed() -> None:
    async def main() -> None:
        arbiter = ScriptedArbiter(running_clock(), 1)
        arbiter.gone = True
        scaling = Scaling(DirectReads(), running_clock())
        with pytest.raises(ConnectorError):
            await change_of(arbiter, scaling, 2)
        assert await scaling.settle(cast(Arbiter, arbiter), running_clock().monotonic())

    run_virtual(main())


def test_an_arbiter_that_goes_after_a_signal_leaves_a_result_that_says_so() -> None:
    async def main() -> None:
        clock = running_clock()
        arbiter = ScriptedArbiter(clock, 1, delay_s=5.0)

        async def go() -> None:
            await clock.sleep(1.0)
            arbiter.gone = True

        going = asyncio.ensure_future(go())
        change = await change_of(arbiter, Scaling(DirectReads(), clock), 2)
        await going
        assert not change.reached
        assert change.lost == "the arbiter is gone"
        assert change.signals == 1

    run_virtual(main())


def test_the_late_effect_of_an_earlier_change_is_waited_for() -> None:
    async def main() -> None:
        clock = running_clock()
        scaling = Scaling(DirectReads(), clock)
        arbiter = ScriptedArbiter(clock, 3, delay_s=5.0)
        assert not (await change_of(arbiter, scaling, 2, timeout_s=1.0)).reached
        assert not await scaling.settle(cast(Arbiter, arbiter), clock.monotonic() + 1.0)
        assert await scaling.settle(cast(Arbiter, arbiter), clock.monotonic() + 10.0)
        assert len(arbiter.pids) == 2

    run_virtual(main())


def test_an_effect_that_never_comes_is_not_waited_for_for_ever() -> None:
    async def main() -> None:
        clock = running_clock()
        scaling = Scaling(DirectReads(), clock, unsettled_s=20.0)
        arbiter = ScriptedArbiter(clock, 3, obeys=0)
        await change_of(arbiter, scaling, 2, timeout_s=1.0)
        start_s = clock.monotonic()
        assert await scaling.settle(cast(Arbiter, arbiter), clock.monotonic() + 100.0)
        assert clock.monotonic() - start_s == pytest.approx(20.0, abs=0.5)

    run_virtual(main())
