"""The connections that read, each used by one thread at a time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import apsw

from polaris.exceptions import PolarisException, StoreCorruptError
from polaris.storage.backends.sqlite._connection import open_reader
from polaris.storage.backends.sqlite._errors import FOREIGN, let_go, translated
from polaris.storage.backends.sqlite._reader_threads import ReaderThreads
from polaris.storage.backends.sqlite._session import SqliteSession

T = TypeVar("T")


class _Read:
    """A read under way, which may be interrupted from outside."""

    def __init__(self) -> None:
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
        with self._lock:
            self._connection = None
            self._is_over = True
            waiting = self._waiting
        if waiting is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                waiting.get_loop().call_soon_threadsafe(waiting.set_result, None)

    async def cancel(self) -> None:
        """Stop the statement that runs now, if any, never one of another read on the same connection; await its end.

        Cancelled again, the end is not awaited any more.
        """
        over = asyncio.get_running_loop().create_future()
        with self._lock:
            self._cancelled = True
            if self._is_over:
                return
            self._waiting = over
            if self._connection is not None:
                self._connection.interrupt()
        await asyncio.wait([over])


class ReaderPool:
    """At most `readers` reads at a time, the others wait; each sees one snapshot of the store from begin to end."""

    def __init__(self, path: Path, readers: int) -> None:
        self._path = path
        self._free: list[SqliteSession] = []
        self._permits = asyncio.Semaphore(readers)
        self._threads = ReaderThreads(readers)
        self.reads = 0
        self.damage: str | None = None
        """What was found damaged last."""

    async def run(self, work: Callable[[SqliteSession], T]) -> T:
        """Run the work on a free connection. Cancelled, the statement is interrupted and its end awaited."""
        async with self._permits:
            read = _Read()
            future = self._threads.submit(lambda: self._read(work, read))
            try:
                return cast(T, await future)
            except asyncio.CancelledError:
                if not future.cancelled():
                    future.exception()  # it was done, and its owner cancelled, at once: nobody retrieves the error
                await read.cancel()
                raise

    def _read(self, work: Callable[[SqliteSession], T], read: _Read) -> T | None:
        session = self._free.pop() if self._free else None
        try:
            if session is None:
                session = SqliteSession(open_reader(self._path))
            if not read.begin(session.connection):
                return None  # nobody waits for it any more
            self.reads += 1
            return self._in_snapshot(session, work)
        except StoreCorruptError as error:
            self.damage = error.message
            raise
        except PolarisException:
            raise
        except FOREIGN as error:
            failure = translated(error)
            if isinstance(failure, StoreCorruptError):
                self.damage = failure.message
            raise failure from error
        finally:
            read.end()
            if session is not None:
                self._free.append(session)

    def _in_snapshot(self, session: SqliteSession, work: Callable[[SqliteSession], T]) -> T:
        session.connection.execute("BEGIN")
        try:
            return work(session)
        except BaseException as error:  # boundary: made harmless, then raised again
            let_go(error)
            raise
        finally:
            if session.connection.in_transaction:
                session.connection.execute("ROLLBACK")
            session.memory.committed()  # a reader remembers only what never changes

    async def close(self) -> None:
        """Wait for the reads under way and close the connections."""
        await asyncio.get_running_loop().run_in_executor(None, self._close)

    def _close(self) -> None:
        self._threads.close()
        while self._free:
            self._free.pop().connection.close()
