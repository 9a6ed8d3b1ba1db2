"""Threads that read for an event loop and answer it directly: half of what a hop through an executor costs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import apsw

from polaris.exceptions import StoreConnectionError
from polaris.storage.backends.sqlite._session import SqliteSession


class Read:
    """A read on its way to a thread, under way, or over; it may be interrupted from outside."""

    __slots__ = ("_cancelled", "_connection", "_is_over", "_lock", "_waiting", "failure", "future", "result", "work")

    def __init__(self, work: Callable[[SqliteSession], Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.failure: BaseException | None = None
        self._lock = threading.Lock()
        self._connection: apsw.Connection | None = None
        self._cancelled = False
        self._is_over = False
        self._waiting: asyncio.Future[None] | None = None

    def begin(self, connection: apsw.Connection) -> bool:
        """Whether the read should still be done."""
        with self._lock:
            self._connection = connection
            return not self._cancelled

    def end(self) -> None:
        """Nothing of the read runs any more."""
        with self._lock:
            self._connection = None
            self._is_over = True
            waiting = self._waiting
        if waiting is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                waiting.get_loop().call_soon_threadsafe(_wake, waiting)

    async def cancel(self) -> None:
        """Stop the statement that runs now, if any, never one of another read on the same connection; await its end.

        One that was not begun is not begun any more. Cancelled again, the end is not awaited any more.
        """
        with self._lock:
            self._cancelled = True
            if self._is_over or self._connection is None:
                return
            self._connection.interrupt()
            self._waiting = self.future.get_loop().create_future()
        await asyncio.wait([self._waiting])

    def settle(self) -> None:
        """Tell who awaits it; runs in the event loop."""
        if self.future.done():
            return  # who awaited it was cancelled
        if self.failure is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.failure)


class ReaderThreads:
    """At most `count` threads, made when they are first needed, that take reads in the order they came.

    `perform` does a read, in a thread, and gives its result. Answers that are ready at the same time wake the event
    loop once. The hop is most of what a small read costs; it is made all the same, because no look-up is sure to find
    its pages in memory, and the event loop waits for no disk.
    """

    def __init__(self, count: int, perform: Callable[[Read], Any]) -> None:
        self._count = count
        self._perform = perform
        self._loop = asyncio.get_running_loop()
        self._reads: SimpleQueue[Read | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._under_way = 0
        self._closed = False
        self._answered: deque[Read] = deque()
        self._is_waking = False

    def submit(self, work: Callable[[SqliteSession], Any]) -> Read:
        """Have the work done; the read's future will give its result or its error. Called in the event loop."""
        if self._closed:
            raise StoreConnectionError("the store is being closed")
        read = Read(work, self._loop.create_future())
        self._under_way += 1
        if self._under_way > len(self._threads) and len(self._threads) < self._count:
            name = f"polaris-store-reader-{len(self._threads)}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._reads.put(read)
        return read

    async def close(self) -> None:
        """Do what was submitted, refuse the rest, and end the threads."""
        self._closed = True
        await self._loop.run_in_executor(None, self._end)

    def _end(self) -> None:
        for _ in self._threads:
            self._reads.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (read := self._reads.get()) is not None:
            try:
                read.result = self._perform(read)
            except BaseException as error:  # boundary: whatever it is belongs to who waits for the read
                read.failure = error
            self._answered.append(read)
            del read
            if not self._is_waking:
                self._is_waking = True
                with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                    self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._is_waking = False  # first: what is answered from now on wakes the loop again
        while self._answered:
            self._under_way -= 1
            self._answered.popleft().settle()


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
