"""Threads that work for an event loop and answer it directly: half of what a hop through an executor costs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

_Task = tuple[Callable[[], Any], "asyncio.Future[Any]", asyncio.AbstractEventLoop]


class ReaderThreads:
    """At most `count` threads, made when they are first needed. `close` waits for what was begun or waits its turn."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._under_way = 0

    def submit(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """What the work will give, or its error. Called in the event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._under_way += 1
        if self._under_way > len(self._threads) and len(self._threads) < self._count:
            name = f"polaris-store-reader-{len(self._threads)}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._tasks.put((work, future, loop))
        return future

    def close(self) -> None:
        """End the threads when the work is done. Blocks; not in the event loop."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            work, future, loop = task
            result: Any = None
            failure: BaseException | None = None
            try:
                result = work()
            except BaseException as error:  # boundary: whatever it is belongs to who waits for the work
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(self._settle, future, result, failure)
            del task, work, future, result, failure

    def _settle(self, future: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
        self._under_way -= 1
        if future.done():
            return
        if failure is None:
            future.set_result(result)
        else:
            future.set_exception(failure)
