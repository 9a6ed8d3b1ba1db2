"""Copies of a store that is in use, and putting one back."""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TypeVar

import apsw
import msgspec

from polaris.exceptions import (
    InvalidValueError,
    MigrationError,
    PolarisException,
    StoreCorruptError,
    StoreLockedError,
)
from polaris.storage._threads import in_thread
from polaris.storage._whole_file import WholeFile, as_store_error, sync_folder
from polaris.storage.backends.sqlite._connection import BUSY_TIMEOUT_MS, open_reader
from polaris.storage.backends.sqlite._errors import FOREIGN, translated
from polaris.storage.backends.sqlite._lock import WriterLock
from polaris.storage.backends.sqlite._migrate import check_schema, known_migrations
from polaris.storage.backends.sqlite._verify import OnCheck, findings

SLICE_PAGES = 1_024
"""4 MiB: after each slice the progress is told, and a cancelled copy ends."""
STEPS = 10_000
"""Of SQLite's machine, between two looks at whether a check shall end."""
COPY_CACHE_KIB = 4_096
LOG_ENDS = ("-wal", "-shm", "-journal")
_SHARED_BYTES = (0x40000000 + 2, 510)
"""Where in a file SQLite's readers hold their locks (SQLite's file format, "The lock-byte page")."""


T = TypeVar("T")


class CopyProgress(msgspec.Struct, frozen=True):
    """How far a backup or a restoration is. `doing` is "copying" or "checking"."""

    doing: str
    pages: int
    pages_total: int


class StoreCopy(msgspec.Struct, frozen=True):
    """A finished copy; it was checked as `verify` does before it got its name."""

    path: Path
    bytes: int
    schema_version: int


OnProgress = Callable[[CopyProgress], None]


class Stopped(Exception):  # no error: somebody asked for it
    """The copy was asked to end and left nothing behind."""


class Copier:
    """One copy. `stop` may be called from any thread and ends it at the next slice, or in the middle of a check."""

    def __init__(self, on_progress: OnProgress | None = None) -> None:
        self._on_progress = on_progress
        self._stopped = False

    def stop(self) -> None:
        """End the copy with `Stopped`."""
        self._stopped = True

    def is_stopped(self) -> bool:
        return self._stopped

    def back_up(self, source: Path, destination: Path, *, force: bool) -> StoreCopy:
        """Copy the store as it is now, whoever writes it meanwhile.

        The copy is one snapshot. Writers go on; what they write stays in the log until the copy has ended.
        """
        if source.resolve() == destination.resolve():
            raise InvalidValueError("destination", "another file than the store itself", str(destination))
        with WholeFile(destination, force=force, beside=LOG_ENDS) as whole:
            version = self._copy(source, whole.partial)
            return StoreCopy(destination, whole.finish(mode=_mode_of(source)), version)

    def restore(self, source: Path, target: Path, *, force: bool) -> StoreCopy:
        """Make `target` the store that `source` holds. Nobody may have the target open meanwhile."""
        if source.resolve() == target.resolve():
            raise InvalidValueError("target", "another file than the backup itself", str(target))
        lock = WriterLock(target)
        lock.acquire()
        try:
            # Links stay links: it is the file they lead to that is replaced.
            with WholeFile(target.resolve(), force=force, field="target", beside=LOG_ENDS) as whole:
                version = self._copy(source, whole.partial)
                mode = _mode_of(target if target.exists() else source)
                with _closed_to_all(target.resolve()):
                    size = whole.finish(mode=mode)
                return StoreCopy(target, size, version)
        finally:
            lock.release()

    def _copy(self, source: Path, partial: Path) -> int:
        reader = open_reader(source)
        try:
            reader.execute("BEGIN")
            version = check_schema(reader, known_migrations())
            if version == 0:
                raise MigrationError(f"{source} holds no store", {"path": str(source)})
            writer = apsw.Connection(str(partial))
            try:
                self._copy_pages(reader, writer)
                self._check(writer)
            finally:
                writer.close()
        finally:
            reader.close()
        return version

    def _copy_pages(self, reader: apsw.Connection, writer: apsw.Connection) -> None:
        # Nothing of the partial file matters before its one sync at the end.
        writer.pragma("locking_mode", "exclusive")
        writer.pragma("journal_mode", "off")
        writer.pragma("synchronous", "off")
        writer.pragma("cache_size", -COPY_CACHE_KIB)
        with writer.backup("main", reader, "main") as backup:
            while not backup.done:
                self._go_on()
                backup.step(SLICE_PAGES)
                self._tell("copying", backup.page_count - backup.remaining, backup.page_count)
        # By itself, without a log: it can be read from a folder that cannot be written.
        writer.pragma("journal_mode", "delete")

    def _check(self, writer: apsw.Connection) -> None:
        pages = int(writer.pragma("page_count"))
        self._tell("checking", 0, pages)
        writer.set_progress_handler(self.is_stopped, STEPS)
        try:
            found = findings(writer)
        except apsw.InterruptError as error:
            raise Stopped from error
        finally:
            writer.set_progress_handler(None)
        if found:
            raise StoreCorruptError(f"the store is damaged: {found[0]}", {"findings": found})
        self._tell("checking", pages, pages)

    def _go_on(self) -> None:
        if self._stopped:
            raise Stopped

    def _tell(self, doing: str, pages: int, pages_total: int) -> None:
        if self._on_progress is not None:
            self._on_progress(CopyProgress(doing, pages, pages_total))


class _closed_to_all:  # noqa: N801 # used as a word
    """While inside, no process has the file open, and no log of it is left that could be taken for the next one's.

    A connection that outlived its file would remove the log of the one that took its name. Raises `StoreLockedError`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def __enter__(self) -> None:
        if not self._path.exists():
            self._remove_logs()
            return
        self._end_log()
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            start, count = _SHARED_BYTES
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, count, start)
        except OSError as error:
            self.__exit__()
            if isinstance(error, BlockingIOError):
                raise self._in_use() from error
            raise as_store_error(error, self._path) from error
        self._remove_logs()

    def _end_log(self) -> None:
        """Have SQLite move what is in the log to the file; that takes the file for itself. Damaged ones are left."""
        try:
            connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE)
        except apsw.Error:
            return
        try:
            connection.set_busy_timeout(BUSY_TIMEOUT_MS // 10)
            connection.pragma("journal_mode", "delete")
        except apsw.BusyError as error:
            raise self._in_use() from error
        except apsw.Error:
            return
        finally:
            connection.close()

    def _remove_logs(self) -> None:
        for end in LOG_ENDS:
            self._path.with_name(self._path.name + end).unlink(missing_ok=True)
        sync_folder(self._path.parent)

    def _in_use(self) -> StoreLockedError:
        return StoreLockedError(
            f"another program has the store {self._path} open; stop it and try again", {"path": str(self._path)}
        )

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def back_up(
    source: Path, destination: Path, *, force: bool = False, on_progress: OnProgress | None = None
) -> StoreCopy:
    """See `SqliteEngine.backup`."""
    return await _copied(lambda copier: copier.back_up(source, destination, force=force), on_progress)


async def restore_store(
    source: str | PathLike[str],
    target: str | PathLike[str],
    *,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> StoreCopy:
    """Make `target` the store that the backup `source` holds.

    The backup is copied beside the target, checked as `verify` does, synced and renamed: at any moment, also after a
    loss of power, the target is what it was or what it shall be. A backup of an earlier release is brought up to date
    by the first runtime that opens it.

    An existing target is refused with `InvalidValueError` unless `force`: then it is gone. `StoreLockedError`: a
    runtime owns the target, or any program has it open. `StoreCorruptError`: the backup is damaged. `MigrationError`:
    it is no store, or of a newer release. `StoreFullError`: there is no room. The target is as before then, as after a
    cancellation. `on_progress` is called in the event loop.
    """
    return await _copied(lambda copier: copier.restore(Path(source), Path(target), force=force), on_progress)


async def verify_store(path: str | PathLike[str], *, on_check: OnCheck | None = None) -> list[str]:
    """What is wrong with a store's file or a backup, an empty list when nothing is; see `SqliteEngine.verify`.

    Reads beside whoever owns it, changes nothing, and knows the schemas of earlier releases. Raises
    `StoreConnectionError` when the file cannot be opened.
    """
    loop = asyncio.get_running_loop()

    def tell(check: str) -> None:
        if on_check is not None and not loop.is_closed():
            loop.call_soon_threadsafe(on_check, check)

    def check(copier: Copier) -> list[str]:
        reader = open_reader(Path(path))
        try:
            reader.set_progress_handler(copier.is_stopped, STEPS)
            reader.execute("BEGIN")
            return findings(reader, tell)
        finally:
            reader.close()

    try:
        return await _in_thread(check, Copier())
    except (StoreCorruptError, MigrationError) as error:
        return [error.message]


async def _copied(work: Callable[[Copier], StoreCopy], on_progress: OnProgress | None) -> StoreCopy:
    loop = asyncio.get_running_loop()

    def tell(progress: CopyProgress) -> None:
        if on_progress is not None and not loop.is_closed():
            loop.call_soon_threadsafe(on_progress, progress)

    return await _in_thread(work, Copier(tell))


async def _in_thread(work: Callable[[Copier], T], copier: Copier) -> T:
    """Work in a thread. Cancelled, the work is stopped and its end awaited, so that nothing is left behind."""

    def run() -> T:
        try:
            return work(copier)
        except OSError as error:
            raise as_store_error(error, Path(error.filename or "the file")) from error
        except PolarisException:
            raise
        except FOREIGN as error:
            raise translated(error) from error

    return await in_thread(run, stop=copier.stop)
