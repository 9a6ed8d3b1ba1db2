"""A time limit for the calls of one task, one after the other, at a tenth of the cost of `asyncio.timeout` for each."""

from __future__ import annotations

import asyncio
import time


class CallDeadline:
    """Cancels its task when a call takes longer than `timeout_s`.

    One timer serves many calls: it is set when none is, and when it rings looks whether the call of that moment is
    overdue. So a call costs two assignments instead of a timer of its own.

    A call that has ended without being `overdue` may be noted by setting `due_s` to None, as `end` does.
    """

    __slots__ = ("_loop", "_now_s", "_task", "_timer", "due_s", "overdue", "timeout_s")

    def __init__(self, task: asyncio.Task[object], timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.due_s: float | None = None
        """When the call of the moment will have taken too long, by the clock of the loop; None between calls."""
        self.overdue = False
        """The task has been cancelled for a call that took too long."""
        self._task = task
        self._loop = asyncio.get_running_loop()
        # The clock of nearly every loop is this one behind a call of its own.
        usual = getattr(self._loop.time, "__func__", None) is asyncio.BaseEventLoop.time
        self._now_s = time.monotonic if usual else self._loop.time
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """A call begins."""
        due_s = self.due_s = self._now_s() + self.timeout_s
        if self._timer is None:
            self._timer = self._loop.call_at(due_s, self._ring)

    def end(self) -> bool:
        """The call has ended; whether it was cancelled for being overdue, and by nobody else besides."""
        self.due_s = None
        if not self.overdue:
            return False
        self.overdue = False
        return self._task.uncancel() == 0

    def close(self) -> None:
        """No further call begins."""
        self.due_s = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        if self.due_s is None:
            return
        if self._now_s() < self.due_s:
            self._timer = self._loop.call_at(self.due_s, self._ring)
            return
        self.overdue = True
        self._task.cancel()
