"""The connections that read, each used by one thread at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from polaris.exceptions import PolarisException, StoreCorruptError
from polaris.storage.backends.sqlite._connection import open_reader
from polaris.storage.backends.sqlite._errors import FOREIGN, let_go, translated
from polaris.storage.backends.sqlite._reader_threads import Read, ReaderThreads
from polaris.storage.backends.sqlite._session import SqliteSession

T = TypeVar("T")


class ReaderPool:
    """At most `readers` reads at a time, the others wait; each sees one snapshot of the store from begin to end."""

    def __init__(self, path: Path, readers: int) -> None:
        self._path = path
        self._free: list[SqliteSession] = []
        self._threads = ReaderThreads(readers, self._perform)
        self.reads = 0
        self.damage: str | None = None
        """What was found damaged last."""

    async def run(self, work: Callable[[SqliteSession], T]) -> T:
        """Run the work on a free connection. Cancelled, the statement is interrupted and its end awaited."""
        read = self._threads.submit(work)
        try:
            return cast(T, await read.future)
        except asyncio.CancelledError:
            if not read.future.cancelled():
                read.future.exception()  # it was done, and its owner cancelled, at once: nobody retrieves the error
            await read.cancel()
            raise

    def _perform(self, read: Read) -> Any:
        session = self._free.pop() if self._free else None
        try:
            if session is None:
                session = SqliteSession(open_reader(self._path))
            if not read.begin(session.connection):
                return None  # nobody waits for it any more
            self.reads += 1
            return self._in_snapshot(session, read.work)
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

    def _in_snapshot(self, session: SqliteSession, work: Callable[[SqliteSession], Any]) -> Any:
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
        """Do the reads that were accepted and close the connections."""
        await self._threads.close()
        while self._free:
            self._free.pop().connection.close()
