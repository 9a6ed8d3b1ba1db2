"""The lock by which one runtime owns a store's file as its writer."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import weakref
from pathlib import Path

from polaris.exceptions import StoreConnectionError, StoreLockedError

_held: weakref.WeakSet[WriterLock] = weakref.WeakSet()


class WriterLock:
    """An advisory lock on `<file>.lock`; the kernel gives it back when the process ends, however it ends.

    Every name of a file leads to the same lock: paths are resolved, and a file with several names (hard links) is
    refused, because SQLite would keep a log for each of them. On Linux the file itself is claimed as well, by a socket
    name that the kernel frees with the process: removing the lock file does not let a second owner in. A child made by
    `fork` holds nothing, and cannot give back what its parent holds.
    """

    def __init__(self, path: Path) -> None:
        self._file = path
        self._path = lock_path(path)
        self._descriptor: int | None = None
        self._claim: socket.socket | None = None

    def acquire(self) -> None:
        """Take it without waiting. Raises `StoreLockedError` naming the owner's process id when it is taken."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreConnectionError(f"the lock file {self._path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise self._taken(owner) from error
        self._descriptor = descriptor
        _held.add(self)
        try:
            self.claim_file()
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            self.release()
            raise StoreConnectionError(f"the lock file {self._path} cannot be written: {error.strerror}") from error
        except BaseException:  # boundary: undone, then raised again
            self.release()
            raise

    def claim_file(self) -> None:
        """Claim the file itself, as soon as there is one. Idempotent. Raises as `acquire`; the lock stays held."""
        found = check_single_name(self._file)
        if found is None or self._claim is not None or not sys.platform.startswith("linux"):
            return
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            claim.bind(f"\0polaris-store-{found.st_dev:x}-{found.st_ino:x}")
        except OSError as error:
            claim.close()
            raise self._taken("unknown") from error
        self._claim = claim

    def _taken(self, owner: str) -> StoreLockedError:
        return StoreLockedError(
            f"the store is owned by another runtime (process {owner}); open it read-only or stop that one",
            {"path": str(self._path), "process_id": owner},
        )

    def release(self) -> None:
        """Give it back. Idempotent. The file stays: removing it would race with the next owner."""
        _held.discard(self)
        if self._claim is not None:
            self._claim.close()
            self._claim = None
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def lock_path(path: Path) -> Path:
    """Where the lock of a store is: beside the file itself, whatever links lead to it."""
    resolved = path.resolve()
    return resolved.with_name(resolved.name + ".lock")


def check_single_name(path: Path) -> os.stat_result | None:
    """What the file is, None when there is none. Raises `StoreConnectionError` when it has more than one name."""
    try:
        found = path.stat()
    except OSError:
        return None
    if found.st_nlink > 1:
        raise StoreConnectionError(
            f"the store's file {path} has {found.st_nlink} names (hard links), and its log would belong to one of them:"
            " keep a copy instead of a link (polaris store backup), or remove the other name",
            {"path": str(path), "names": found.st_nlink},
        )
    return found


def _forget_in_child() -> None:
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_forget_in_child)
