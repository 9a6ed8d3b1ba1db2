"""Files that come into being whole: written under another name, synced, then renamed."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from polaris.exceptions import DataStoreError, InvalidValueError, StoreConnectionError, StoreFullError, StoreLockedError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class WholeFile:
    """A file that is at `path` in full, or not at all, whatever happens meanwhile.

    As a context manager: write to `partial`, then call `finish`; leaving without it removes what was written. A partial
    file that a killed process left is overwritten by the next attempt. Two that write the same file at once are kept
    apart by a lock on the partial one: the second gets `StoreLockedError`. Unless `force`, an existing file is
    refused (`InvalidValueError` naming `field`), at the start and again at the end.
    """

    def __init__(self, path: Path, *, force: bool, field: str = "destination", beside: Sequence[str] = ()) -> None:
        """`beside`: endings of further files that a writer may leave beside the partial one."""
        self.path = path
        self._beside = tuple(beside)
        self.partial = path.with_name(path.name + ".partial")
        self._force = force
        self._field = field
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        if self.path.is_dir() or not self.path.name:
            raise InvalidValueError(self._field, "a file, not a folder", str(self.path))
        self._refuse_existing()
        try:
            descriptor = os.open(self.partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise as_store_error(error, self.partial) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It may have got its name, or have been removed, between the opening and the locking.
            if not os.path.samestat(os.fstat(descriptor), self.partial.stat()):
                raise FileNotFoundError  # as if it had been gone before
        except OSError as error:
            os.close(descriptor)
            raise StoreLockedError(f"{self.path} is being written already", {"path": str(self.path)}) from error
        self._descriptor = descriptor
        os.ftruncate(descriptor, 0)
        return self

    def finish(self, *, mode: int = 0o600) -> int:
        """Make it durable and give it its name; the number of its bytes. Its permissions become `mode`."""
        descriptor = self._descriptor
        assert descriptor is not None  # noqa: S101 # by the order of the calls
        try:
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
            size = os.fstat(descriptor).st_size
            self._refuse_existing()
            self.partial.replace(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise as_store_error(error, self.path) from error
        os.close(descriptor)
        self._descriptor = None
        return size

    def _refuse_existing(self) -> None:
        if not self._force and os.path.lexists(self.path):
            raise InvalidValueError(self._field, "a file that does not exist yet, or force", str(self.path))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is None:
            return
        # First the name, then the lock: nobody else can have begun to write it.
        for end in ("", *self._beside):
            self.partial.with_name(self.partial.name + end).unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None


def sync_folder(folder: Path) -> None:
    """Make the names in the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def as_store_error(error: OSError, path: Path) -> DataStoreError:
    """The store's error for one of the operating system."""
    if error.errno in _FULL:
        return StoreFullError(f"there is no room for {path} ({error.strerror})", {"path": str(path)}, cause=error)
    return StoreConnectionError(f"{path} cannot be written: {error.strerror}", {"path": str(path)}, cause=error)
