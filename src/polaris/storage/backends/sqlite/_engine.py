"""The embedded engine: what connects its writer, its readers and its callers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from msgspec import structs

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import HealthStatus
from polaris.exceptions import DataStoreError, MigrationError, StoreConnectionError, StoreCorruptError, StoreFullError
from polaris.storage._backend import StoreHealth
from polaris.storage._operation import Operation
from polaris.storage.backends.shared import RecordingEngine, Step, replay
from polaris.storage.backends.sqlite._backup import OnProgress, StoreCopy, back_up
from polaris.storage.backends.sqlite._connection import log_path
from polaris.storage.backends.sqlite._jobs import Job, Work
from polaris.storage.backends.sqlite._migrate import check_schema, known_migrations
from polaris.storage.backends.sqlite._options import SqliteOptions
from polaris.storage.backends.sqlite._places import Places
from polaris.storage.backends.sqlite._readers import ReaderPool
from polaris.storage.backends.sqlite._session import SqliteSession
from polaris.storage.backends.sqlite._upkeep import (
    CompactProgress,
    CompactReport,
    StoreFigures,
    empty_log,
    figures,
    is_loose,
    rewrite,
)
from polaris.storage.backends.sqlite._verify import OnCheck, findings
from polaris.storage.backends.sqlite._writer import GroupWriter

T = TypeVar("T")
VERIFY = "polaris store verify"
"""The command that tells what is damaged."""
LOG_BYTES_MAX = 64 << 20
"""A log that readers keep longer than this is told of, or together with the file longer than `size_bytes_max`."""
HELD_UP = "for a program keeps a read open; end that program, which fuser or lsof finds by the file"
LOG_HELD_UP = f"the log grows, {HELD_UP}"
ROOM_HELD_UP = f"the room of the log cannot be used again, {HELD_UP}"


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
        self.path = Path(path).absolute()  # connections are opened later too, wherever the process is then
        self.read_only = read_only
        self.options = SqliteOptions(**options)
        self._writer: GroupWriter | None = None
        self._readers: ReaderPool | None = None
        self._places: Places | None = None
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
                writer = GroupWriter(self.path, self.options, self._settled, clock=self.clock)
                await writer.start()
            readers = ReaderPool(self.path, self.options.readers)
            try:
                await readers.run(_check_readable)
            except BaseException:  # boundary: undone, then raised again
                await readers.close()
                if writer is not None:
                    await writer.stop()
                raise
            self._places = Places(self.options.writes_queued_max)
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
            result: T = await self._write(operation.run)
            return result
        return await self._require_readers().run(operation.run)

    async def rehearse(self, steps: Sequence[Step]) -> Any:
        if not any(step.operation.mutates for step in steps):
            # Nothing was written yet: a reader's snapshot says the same as the writer would.
            return await self._require_readers().run(lambda session: replay(session, steps))
        return await self._write(lambda session: replay(session, steps), keep=False)

    async def apply(self, steps: Sequence[Step], on_commit: Callable[[], None]) -> None:
        await self._write(lambda session: replay(session, steps), on_commit=on_commit)

    def _require_readers(self) -> ReaderPool:
        if self._readers is None:
            raise StoreConnectionError("the store is not connected")
        return self._readers

    def _require_writer(self) -> GroupWriter:
        self._require_readers()
        if self._writer is None:
            raise StoreConnectionError("the store is open for reading only")
        return self._writer

    def _write(
        self, work: Work, *, keep: bool = True, on_commit: Callable[[], None] | None = None
    ) -> Coroutine[Any, Any, Any]:
        writer = self._require_writer()
        return self._queued(writer, Job(work, keep=keep, on_commit=on_commit), writer.queue.put)

    async def _do_chore(self, work: Work, *, stop: Callable[[], None] | None = None) -> Any:
        """Have the writer do something between two groups, outside of a transaction. Cancelled, `stop` is called."""
        writer = self._require_writer()
        return await self._queued(writer, Job(work, keep=True), writer.queue.put_chore, stop)

    async def _queued(
        self,
        writer: GroupWriter,
        job: Job,
        put: Callable[[Job], bool],
        on_cancel: Callable[[], None] | None = None,
    ) -> Any:
        places = self._places
        assert places is not None  # noqa: S101 # made with the writer
        if not places.take():
            await places.wait()
        if not put(job):  # else the place is given back when the job is settled or withdrawn
            places.give_back(1)
            raise StoreConnectionError("the store is being closed")
        try:
            return await job.future
        except asyncio.CancelledError:
            if writer.queue.withdraw(job):
                places.give_back(1)
            else:
                if on_cancel is not None:
                    on_cancel()
                await job.ended()
            raise

    def _settled(self, jobs: list[Job], outbox_added: bool) -> None:
        """Called in the writer's thread: wake those who wait, each event loop once."""
        loop = jobs[0].loop
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._wake, jobs, outbox_added)

    def _wake(self, jobs: list[Job], outbox_added: bool) -> None:
        if self._places is not None:
            self._places.give_back(len(jobs))
        for job in jobs:
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
        damage = self._readers.damage or (self._writer and self._writer.damage)
        if damage:
            return StoreHealth(HealthStatus.UNHEALTHY, self.name, f"{damage}; run: {VERIFY}", details)
        if self._writer is None:
            return StoreHealth(HealthStatus.HEALTHY, self.name, "read-only", details)
        if not self._writer.is_running:
            return StoreHealth(HealthStatus.UNHEALTHY, self.name, "the writer has ended", details)
        failure = self._writer.last_error
        if failure is not None:
            message = str(failure)
            if isinstance(failure, StoreFullError) and self._writer.log_is_held_up:
                message += f"; {ROOM_HELD_UP} {self.path.name}"
            return StoreHealth(HealthStatus.UNHEALTHY, self.name, message, details)
        if await self._has_long_log(self._writer):
            return StoreHealth(HealthStatus.WARNING, self.name, f"{LOG_HELD_UP} {self.path.name}", details)
        return StoreHealth(HealthStatus.HEALTHY, self.name, "", details)

    async def _has_long_log(self, writer: GroupWriter) -> bool:
        """Whether some reader keeps the log from being emptied, now, and it takes much room."""

        def is_long() -> bool:
            size, log = _bytes_of(self.path), _bytes_of(self._log_path)
            size_max = self.options.size_bytes_max
            return writer.log_is_held_up and (
                log > LOG_BYTES_MAX or (size_max is not None and log > 0 and size + log > size_max)
            )

        if not is_long():
            return False
        try:
            await self._do_chore(writer.look_at_log_again)
        except DataStoreError:
            return True
        return is_long()

    async def stats(self) -> dict[str, int | float]:
        counts: dict[str, int | float] = {} if self._writer is None else dict(self._writer.stats)
        counts["writes_queued"] = 0 if self._writer is None else len(self._writer.queue)
        counts["reads"] = 0 if self._readers is None else self._readers.reads
        for name, path in (("file_bytes", self.path), ("wal_bytes", self._log_path)):
            counts[name] = _bytes_of(path)
        return counts

    async def verify(self, on_check: OnCheck | None = None) -> list[str]:
        """Check the whole file; gives what is wrong with it, an empty list when nothing is. Reads every page.

        SQLite's own checks come first (pages, indexes, foreign keys), then the laws of the store: a point is in one
        table, the newest point of a series is the one that is noted, edges have both ends, indexes exist, and so on.
        A flipped bit within a value is a value: only what has a form can be told from damage. `health` shows what was
        found, until a later check finds nothing. `on_check` is called in the event loop with the name of each check
        before it begins.
        """
        loop = asyncio.get_running_loop()

        def tell(check: str) -> None:
            if on_check is not None:
                loop.call_soon_threadsafe(on_check, check)

        readers = self._require_readers()
        try:
            found = await readers.run(lambda session: findings(session.connection, tell))
        except (StoreCorruptError, MigrationError) as error:
            found = [error.message]
        readers.damage = f"the store is damaged: {found[0]}" if found else None
        if not found and self._writer is not None:
            self._writer.damage = None
        return found

    async def backup(
        self, destination: str | PathLike[str], *, force: bool = False, on_progress: OnProgress | None = None
    ) -> StoreCopy:
        """Copy the store as it is now to a file of its own, while everybody goes on reading and writing.

        Works with `read_only` beside the runtime that writes. The copy is one snapshot; it is checked as `verify` does,
        synced, and only then gets its name: what has the name is a whole store. Copied in slices in a thread; until it
        has ended, what is written meanwhile stays in the log, which grows by it. Cancelled, or failing, it leaves
        nothing behind. `on_progress` is called in the event loop.

        An existing file is refused with `InvalidValueError` unless `force`. `StoreFullError`: there is no room for the
        copy. `StoreCorruptError`: the store is damaged, and a copy would be too.
        """
        self._require_readers()
        return await back_up(self.path, Path(destination), force=force, on_progress=on_progress)

    async def figures(self, *, count_points: bool = False) -> StoreFigures:
        """What is in the store, in figures. Counting the points reads all of them; everything else is quick."""
        found = await self._require_readers().run(
            lambda session: figures(session.connection, count_points=count_points)
        )
        return structs.replace(found, log_bytes=_bytes_of(self._log_path))

    async def compact(
        self, *, rewrite_file: bool | None = None, on_progress: Callable[[CompactProgress], None] | None = None
    ) -> CompactReport:
        """Bring the store into its densest form and give the room that it does not use back to the disk.

        Moves the rows of the hot table in slices, writes the file anew when a fifth of it is free (or as `rewrite_file`
        says), and empties the log as far as readers allow. Other writers get their turn between the slices; while the
        file is written anew they wait, about a second for each 100 MB, and readers go on. That needs twice the size of
        the store for a while; `StoreFullError` when there is no room, and the store is as before and goes on.
        Cancelled, it ends after the present slice, or takes back the rewriting; what is moved stays moved.
        """
        writer = self._require_writer()
        tell = on_progress or (lambda _: None)
        before = _bytes_of(self.path) + _bytes_of(self._log_path)
        moved, stopped = 0, threading.Event()
        while count := await self._do_chore(lambda _: writer.move_slice()):
            moved += count
            tell(CompactProgress("moving rows", moved))
        if rewrite_file is None:
            rewrite_file = await self._require_readers().run(lambda session: is_loose(session.connection))
        if rewrite_file:
            tell(CompactProgress("rewriting the file", moved))
            try:
                await self._do_chore(lambda session: rewrite(session.connection, stopped.is_set), stop=stopped.set)
            finally:
                stopped.set()
        tell(CompactProgress("emptying the log", moved))
        await self._do_chore(lambda session: empty_log(session.connection))
        after = _bytes_of(self.path) + _bytes_of(self._log_path)
        return CompactReport(before, after, moved, rewrite_file)

    @property
    def _log_path(self) -> Path:
        return log_path(self.path)


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


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
