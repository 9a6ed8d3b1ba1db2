"""The embedded engine: what connects its writer, its readers and its callers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import HealthStatus
from polaris.exceptions import DataStoreError, MigrationError, StoreConnectionError
from polaris.storage._backend import StoreHealth
from polaris.storage._operation import Operation
from polaris.storage.backends.shared import RecordingEngine, Step, replay
from polaris.storage.backends.sqlite._jobs import Job
from polaris.storage.backends.sqlite._migrate import check_schema, known_migrations
from polaris.storage.backends.sqlite._options import SqliteOptions
from polaris.storage.backends.sqlite._readers import ReaderPool
from polaris.storage.backends.sqlite._session import SqliteSession
from polaris.storage.backends.sqlite._writer import GroupWriter

T = TypeVar("T")


class SqliteEngine(RecordingEngine):
    """All three models in one SQLite file (WAL, synced at every commit).

    One process owns the file as its writer, guarded by a lock that ends with the process; any number of others may open
    it with `read_only=True` meanwhile. Writes of many tasks share commits; a write that is awaited to its end is
    durable, also over a loss of power. Reads run on connections of their own, each on one snapshot, and see every
    write that was awaited before them. All work is done in threads; the event loop never waits for the disk.

    Cancelling a write before the writer took it withdraws it; later, the await ends when the write has, which takes
    milliseconds, and the write is done. Cancelling a read interrupts its statement. `options`: see `SqliteOptions`.
    Bound to the event loop that connected it; not to be used over a fork.
    """

    name = "sqlite"

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        read_only: bool = False,
        clock: Clock = SYSTEM_CLOCK,
        **options: Any,
    ) -> None:
        super().__init__(clock=clock)
        self.path = Path(path)
        self.read_only = read_only
        self.options = SqliteOptions(**options)
        self._writer: GroupWriter | None = None
        self._readers: ReaderPool | None = None
        self._places: asyncio.Semaphore | None = None
        self._changing = asyncio.Lock()

    @property
    def is_connected(self) -> bool:
        return self._readers is not None

    async def connect(self) -> None:
        """Open the file, made if need be unless `read_only`, and bring its schema up to date. Idempotent.

        Raises `StoreLockedError` when another runtime owns it, `StoreCorruptError` when it is no store or damaged,
        `MigrationError` when its schema is foreign or newer, `StoreConnectionError` otherwise; nothing is left open.
        """
        async with self._changing:
            if self.is_connected:
                return
            writer = None
            if not self.read_only:
                writer = GroupWriter(self.path, self.options, self._settled)
                await writer.start()
            readers = ReaderPool(self.path, self.options.readers)
            try:
                await readers.run(_check_readable)
            except BaseException:  # boundary: undone, then raised again
                await readers.close()
                if writer is not None:
                    await writer.stop()
                raise
            self._places = asyncio.Semaphore(self.options.writes_queued_max)
            self._writer, self._readers = writer, readers

    async def disconnect(self) -> None:
        """Finish the writes that were accepted and the reads under way, then close. Idempotent."""
        async with self._changing:
            writer, readers = self._writer, self._readers
            self._writer = self._readers = None
            try:
                if readers is not None:
                    await readers.close()
            finally:
                if writer is not None:
                    await writer.stop()

    async def execute(self, operation: Operation[T]) -> T:
        if operation.mutates:
            result: T = await self._write(operation.run, keep=True)
            return result
        return await self._require_readers().run(operation.run)

    async def rehearse(self, steps: Sequence[Step]) -> Any:
        if not any(step.operation.mutates for step in steps):
            # Nothing was written yet: a reader's snapshot says the same as the writer would.
            return await self._require_readers().run(lambda session: replay(session, steps))
        return await self._write(lambda session: replay(session, steps), keep=False)

    async def apply(self, steps: Sequence[Step], on_commit: Callable[[], None]) -> None:
        await self._write(lambda session: replay(session, steps), keep=True, on_commit=on_commit)

    def _require_readers(self) -> ReaderPool:
        if self._readers is None:
            raise StoreConnectionError("the store is not connected")
        return self._readers

    async def _write(
        self, work: Callable[[SqliteSession], Any], *, keep: bool, on_commit: Callable[[], None] | None = None
    ) -> Any:
        self._require_readers()
        if self._writer is None or self._places is None:
            raise StoreConnectionError("the store is open for reading only")
        writer, places = self._writer, self._places
        await places.acquire()  # given back when the job is settled or withdrawn
        job = Job(work, keep=keep, on_commit=on_commit)
        if not writer.queue.put(job):
            places.release()
            raise StoreConnectionError("the store is being closed")
        try:
            return await asyncio.shield(job.future)
        except asyncio.CancelledError:
            if writer.queue.withdraw(job):
                places.release()
            else:
                await asyncio.wait([job.future])
            raise

    def _settled(self, jobs: list[Job], outbox_added: bool) -> None:
        """Called in the writer's thread: wake those who wait, each event loop once."""
        loop = jobs[0].loop
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._wake, jobs, outbox_added)

    def _wake(self, jobs: list[Job], outbox_added: bool) -> None:
        for job in jobs:
            if self._places is not None:
                self._places.release()
            job.settle()
        if outbox_added:
            self.outbox_changed.set()

    async def health(self) -> StoreHealth:
        if self._readers is None:
            return StoreHealth(HealthStatus.UNKNOWN, self.name, "not connected")
        try:
            await self._readers.run(_ping)
            details: dict[str, Any] = dict(await self.stats())
        except DataStoreError as error:
            return StoreHealth(HealthStatus.UNHEALTHY, self.name, error.message)
        if self._writer is None:
            return StoreHealth(HealthStatus.HEALTHY, self.name, "read-only", details)
        if not self._writer.is_running:
            return StoreHealth(HealthStatus.UNHEALTHY, self.name, "the writer has ended", details)
        failure = self._writer.last_error
        status = HealthStatus.HEALTHY if failure is None else HealthStatus.UNHEALTHY
        return StoreHealth(status, self.name, "" if failure is None else str(failure), details)

    async def stats(self) -> dict[str, int | float]:
        counts: dict[str, int | float] = {} if self._writer is None else dict(self._writer.stats)
        counts["writes_queued"] = 0 if self._writer is None else len(self._writer.queue)
        counts["reads"] = 0 if self._readers is None else self._readers.reads
        for name, path in (("file_bytes", self.path), ("wal_bytes", Path(f"{self.path}-wal"))):
            counts[name] = path.stat().st_size if path.exists() else 0
        return counts

    async def verify(self) -> list[str]:
        """Check the whole file; gives what is wrong with it, an empty list when nothing is. Reads every page."""
        return await self._require_readers().run(_verify)


def _check_readable(session: SqliteSession) -> None:
    migrations = known_migrations()
    version = check_schema(session.connection, migrations)
    if version < len(migrations):
        raise MigrationError(
            f"the store's schema has version {version}, this release needs {len(migrations)}: open it for writing once",
            {"version": version, "known": len(migrations)},
        )


def _ping(session: SqliteSession) -> None:
    session.connection.execute("SELECT count(*) FROM ts_compaction").fetchone()


def _verify(session: SqliteSession) -> list[str]:
    rows = session.connection.execute("PRAGMA integrity_check").fetchall()
    return [str(row[0]) for row in rows if row[0] != "ok"]
