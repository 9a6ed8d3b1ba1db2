"""Changing the number of workers: one change at a time, one signal at a time, each seen to have its effect."""

from __future__ import annotations

import asyncio
import signal
from typing import NamedTuple

import msgspec
import psutil

from polaris.clock import Clock
from polaris.connectors._blocking import BlockingReads
from polaris.connectors.gunicorn._arbiter import Arbiter
from polaris.exceptions import ConnectorError

POLL_S_MIN = 0.02
POLL_S_MAX = 0.25
SETTLE_S = 0.2


class Change(msgspec.Struct, frozen=True):
    """What came of a change: the worker pids before and after, and how many signals it took."""

    target: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    signals: int
    lost: str | None = None
    """Why the arbiter could not be followed to the end, when it could not."""

    @property
    def reached(self) -> bool:
        """Whether the process table showed the target, and still did a moment later."""
        return self.lost is None and len(self.after) == self.target

    @property
    def moved(self) -> bool:
        """Whether the number of workers changed in the wanted direction at all."""
        return min(len(self.before), self.target) < len(self.after) < max(len(self.before), self.target)


class _Unsettled(NamedTuple):
    arbiter: Arbiter
    target: int
    until_s: float


class Scaling:
    """Walks the worker count of an arbiter to a target by SIGTTIN and SIGTTOU.

    Signals of one kind that arrive together are merged by the kernel, so each is sent only after the effect of the one
    before was seen in the process table. A target must be seen twice, 0.2 s apart: a worker that dies while it starts
    does not count. The caller holds `turn` for the whole of a change.

    A change that ran out of time may still come true (a removed worker finishes its request first). Until it does, or
    `unsettled_s` have passed, the next change waits for it, because until then the process table misleads.
    """

    def __init__(self, reads: BlockingReads, clock: Clock, *, unsettled_s: float = 60.0) -> None:
        self.turn = asyncio.Lock()
        self._reads = reads
        self._clock = clock
        self._unsettled_s = unsettled_s
        self._unsettled: _Unsettled | None = None

    async def pids(self, arbiter: Arbiter) -> tuple[int, ...]:
        """The worker pids now, oldest first. Raises `ConnectorError` when the arbiter is gone."""
        workers: list[psutil.Process] = await self._reads.run(arbiter.workers)
        return tuple(worker.pid for worker in workers)

    async def settle(self, arbiter: Arbiter, deadline_s: float) -> bool:
        """Wait until the effect of an earlier change is seen; False when the deadline came first."""
        unsettled = self._unsettled
        if unsettled is None:
            return True
        until_s = min(deadline_s, unsettled.until_s)
        if unsettled.arbiter is arbiter and self._clock.monotonic() < unsettled.until_s:
            after = await self._await_count(arbiter, unsettled.target, until_s)
            if len(after) != unsettled.target and self._clock.monotonic() < unsettled.until_s:
                return False
        self._unsettled = None
        return True

    async def change(self, arbiter: Arbiter, before: tuple[int, ...], target: int, deadline_s: float) -> Change:
        """Walk from `before` to `target` workers until `deadline_s` of monotonic time.

        Raises `ConnectorError` when the first signal could not be sent: nothing was done. What comes later is a result.
        """
        signals, after = 0, before
        # Set first, so that a cancelled change is waited for as well.
        self._unsettled = _Unsettled(arbiter, target, deadline_s + self._unsettled_s)
        try:
            while len(after) != target and self._clock.monotonic() < deadline_s:
                grow = len(after) < target
                arbiter.send(signal.SIGTTIN if grow else signal.SIGTTOU)
                signals += 1
                step = len(after) + (1 if grow else -1)
                after = await self._await_count(arbiter, step, deadline_s)
                if len(after) != step:
                    break
                if step == target:
                    await self._clock.sleep(SETTLE_S)
                    after = await self._await_count(arbiter, target, deadline_s)
                    break
        except ConnectorError as error:
            if not signals:
                self._unsettled = None
                raise
            return Change(target, before, after, signals, lost=error.message)
        change = Change(target, before, after, signals)
        if change.reached:
            self._unsettled = None
        return change

    async def _await_count(self, arbiter: Arbiter, count: int, deadline_s: float) -> tuple[int, ...]:
        poll_s = POLL_S_MIN
        while True:
            pids = await self.pids(arbiter)
            left_s = deadline_s - self._clock.monotonic()
            if len(pids) == count or left_s <= 0:
                return pids
            await self._clock.sleep(min(poll_s, left_s))
            poll_s = min(POLL_S_MAX, poll_s * 1.5)
