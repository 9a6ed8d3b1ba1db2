"""A time limit for the calls of one task, one after the other, at a tenth of the cost of `asyncio.timeout` for each."""

from __future__ import annotations

import asyncio


class CallDeadline:
    """Cancels its task when a call takes longer than `timeout_s`.

    One timer serves many calls: it is set when none is, and when it rings looks whether the call of that moment is
    overdue. So a call costs two assignments instead of a timer of its own.
    """

    __slots__ = ("_due_s", "_loop", "_now_s", "_overdue", "_task", "_timeout_s", "_timer")

    def __init__(self, task: asyncio.Task[object], timeout_s: float) -> None:
        self._task = task
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._now_s = self._loop.time
        self._due_s: float | None = None
        self._overdue = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """A call begins."""
        due_s = self._due_s = self._now_s() + self._timeout_s
        if self._timer is None:
            self._timer = self._loop.call_at(due_s, self._ring)

    def end(self) -> bool:
        """The call has ended; whether it was cancelled for being overdue, and by nobody else besides."""
        self._due_s = None
        if not self._overdue:
            return False
        self._overdue = False
        return self._task.uncancel() == 0

    def close(self) -> None:
        """No further call begins."""
        self._due_s = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        if self._due_s is None:
            return
        if self._loop.time() < self._due_s:
            self._timer = self._loop.call_at(self._due_s, self._ring)
            return
        self._overdue = True
        self._task.cancel()
