"""Work on its way to the writer: queued, taken, settled."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from polaris.storage.backends.sqlite._session import SqliteSession

Work = Callable[[SqliteSession], Any]


class Job:
    """One transaction that somebody awaits. `keep` is False for a rehearsal, which is always rolled back."""

    __slots__ = ("error", "future", "keep", "loop", "on_commit", "result", "work")

    def __init__(self, work: Work, *, keep: bool, on_commit: Callable[[], None] | None = None) -> None:
        self.work = work
        self.keep = keep
        self.on_commit = on_commit
        self.result: Any = None
        self.error: Exception | None = None
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        # A writer that was cancelled twice does not ask any more; its error is not "never retrieved" for that.
        self.future.add_done_callback(_retrieve)

    def settle(self) -> None:
        """Tell who awaits it; runs in the event loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
            return
        if self.on_commit is not None:
            self.on_commit()
        self.future.set_result(self.result)


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


class JobQueue:
    """What is between the event loop and the writer's thread. Its length is bounded by whoever puts in."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._chores: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, job: Job) -> bool:
        """Queue the job; False when the queue is closed."""
        with self._changed:
            if self._closed:
                return False
            self._jobs.append(job)
            self._changed.notify()
            return True

    def put_chore(self, chore: Job) -> bool:
        """Queue work that is done by itself, outside of a transaction, between two groups; False when closed."""
        with self._changed:
            if self._closed:
                return False
            self._chores.append(chore)
            self._changed.notify()
            return True

    def withdraw(self, job: Job) -> bool:
        """Take the job back, unless the writer has it already."""
        with self._changed:
            for queue in (self._jobs, self._chores):
                if job in queue:
                    queue.remove(job)
                    return True
            return False

    def wait(self, timeout_s: float) -> bool:
        """Wait until there is work or the queue is closed; False when it is closed and empty."""
        with self._changed:
            if not self._jobs and not self._chores and not self._closed:
                self._changed.wait(timeout_s)
            return bool(self._jobs or self._chores) or not self._closed

    def take(self) -> Job | None:
        """The oldest job, or None."""
        with self._changed:
            return self._jobs.popleft() if self._jobs else None

    def take_chore(self) -> Job | None:
        """The oldest chore, or None."""
        with self._changed:
            return self._chores.popleft() if self._chores else None

    def close(self) -> None:
        """Accept no more; what is in stays and is worked off."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._jobs)
