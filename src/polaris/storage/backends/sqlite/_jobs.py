"""Work on its way to the writer: queued, taken, settled."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from polaris.storage.backends.sqlite._session import SqliteSession

Work = Callable[[SqliteSession], Any]


class Job:
    """One transaction that somebody awaits. `keep` is False for a rehearsal, which is always rolled back.

    Who awaits `future` and is cancelled cancels it too; the job is settled all the same, and `ended` says when.
    """

    __slots__ = ("_ended", "error", "future", "is_settled", "keep", "loop", "on_commit", "result", "work")

    def __init__(self, work: Work, *, keep: bool, on_commit: Callable[[], None] | None = None) -> None:
        self.work = work
        self.keep = keep
        self.on_commit = on_commit
        self.result: Any = None
        self.error: Exception | None = None
        self.is_settled = False
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self._ended: asyncio.Future[None] | None = None

    def settle(self) -> None:
        """Tell who awaits it; runs in the event loop."""
        self.is_settled = True
        if self.error is None and self.on_commit is not None:
            self.on_commit()
        if self._ended is not None:
            self._ended.set_result(None)
        if self.future.done():
            return  # who awaited it was cancelled
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)

    async def ended(self) -> None:
        """Wait until it is settled, however. Cancelled again, it is not waited for any more."""
        if self.future.done() and not self.future.cancelled():
            self.future.exception()  # it was settled and its owner cancelled at once: nobody retrieves the error
        if not self.is_settled:
            self._ended = self.loop.create_future()
            await asyncio.wait([self._ended])


class JobQueue:
    """What is between the event loop and the writer's thread. Its length is bounded by whoever puts in.

    Jobs that are put in the same turn of the event loop are handed over together at its end. A writer that began with
    the first of them would wait for the interpreter after every statement, while the loop still prepares the others,
    and commit a few where it can commit all.
    """

    def __init__(self, on_refused: Callable[[list[Job]], None]) -> None:
        self._on_refused = on_refused
        self._put: list[Job] = []
        """What was put in this turn; of the event loop alone."""
        self._jobs: deque[Job] = deque()
        self._chores: deque[Job] = deque()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._sleeps = False
        self._closed = False
        self._abandoned = False

    def put(self, job: Job) -> bool:
        """Queue the job; False when the queue is closed. Called in the event loop."""
        if self._closed:
            return False
        if not self._put:
            job.loop.call_soon(self._hand_over)
        self._put.append(job)
        return True

    def _hand_over(self) -> None:
        put, self._put = self._put, []
        with self._lock:
            if not self._abandoned:
                self._jobs.extend(put)
                if self._sleeps:
                    self._sleeps = False
                    self._changed.notify()
                return
        if put:
            self._on_refused(put)

    def put_chore(self, chore: Job) -> bool:
        """Queue work that is done by itself, outside of a transaction, between two groups; False when closed."""
        with self._changed:
            if self._closed:
                return False
            self._chores.append(chore)
            self._changed.notify()
            return True

    def withdraw(self, job: Job) -> bool:
        """Take the job back, unless the writer has it already. Called in the event loop."""
        if job in self._put:
            self._put.remove(job)
            return True
        with self._changed:
            for queue in (self._jobs, self._chores):
                with suppress(ValueError):  # the writer has it
                    queue.remove(job)
                    return True
            return False

    def wait(self, timeout_s: float) -> bool:
        """Wait until there is work or the queue is closed; False when it is closed and empty."""
        with self._changed:
            if not self._jobs and not self._chores and not self._closed:
                self._sleeps = True
                self._changed.wait(timeout_s)
                self._sleeps = False
            return bool(self._jobs or self._chores) or not self._closed

    def take(self) -> Job | None:
        """The oldest job, or None. Taking one is a single step of the queue, so it needs no lock."""
        try:
            return self._jobs.popleft()
        except IndexError:
            return None

    def take_chore(self) -> Job | None:
        """The oldest chore, or None."""
        with self._changed:
            return self._chores.popleft() if self._chores else None

    def close(self) -> None:
        """Accept no more; what is in stays and is worked off. Called in the event loop."""
        self._closed = True
        self._hand_over()
        with self._changed:
            self._changed.notify_all()

    def abandon(self) -> list[Job]:
        """Accept no more, and give what is in: nobody will work it off."""
        with self._changed:
            self._closed = self._abandoned = True
            rest = [*self._jobs, *self._chores]
            self._jobs.clear()
            self._chores.clear()
            return rest

    def __len__(self) -> int:
        return len(self._jobs) + len(self._put)


def tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None], error: Exception | None) -> None:
    """Settle the future from another thread than the loop's, unless it is settled or the loop is closed."""

    def settle() -> None:
        if not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    if not loop.is_closed():
        loop.call_soon_threadsafe(settle)
