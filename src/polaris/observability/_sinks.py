"""Where log lines end up: the console of the process and rotating files. A sink that fails never fails its caller."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path

from polaris.exceptions import ConfigurationError

_dropped = 0
_dropped_lock = threading.Lock()


def log_lines_dropped() -> int:
    """How many log lines of this process could not be written: a full disk, a closed console."""
    return _dropped


def count_dropped_line() -> None:
    global _dropped  # noqa: PLW0603 - one count for the process
    with _dropped_lock:
        _dropped += 1


class ConsoleSink:
    """Standard error as it is at the moment of writing. Lines of several threads do not mix."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def write(self, line: str) -> None:
        """Write one line; a line that cannot be written is counted and forgotten."""
        stream = sys.stderr
        if stream is None:
            count_dropped_line()
            return
        with self._lock:
            try:
                try:
                    stream.write(line + "\n")
                except UnicodeEncodeError:
                    stream.write(line.encode("ascii", "backslashreplace").decode() + "\n")
                stream.flush()
            except (OSError, ValueError):
                # A broken pipe, a full non-blocking pipe, a closed stream.
                count_dropped_line()

    def renew_lock(self) -> None:
        """For a forked child, where the thread that held the lock does not exist."""
        self._lock = threading.RLock()


CONSOLE = ConsoleSink()
"""The console of the process."""


class RotatingFile:
    """A file that only grows, one line at a time, and makes room for itself before it would exceed its size.

    When `write` returns the operating system has the line, so nothing is lost when the process dies.
    Safe from any thread. If a rotation fails, the old file goes on being used and the next attempt comes `bytes_max`
    later; if a write fails, the line is counted. Either is told once on standard error until it works again.
    """

    def __init__(self, path: Path, *, bytes_max: int, backup_count: int) -> None:
        self.path = path
        self.bytes_max = bytes_max
        self.backup_count = backup_count
        self._lock = threading.RLock()
        self._complained = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._torn = _ends_torn(path)
            self._descriptor = self._open()
        except OSError as error:
            raise ConfigurationError(
                f"log file {str(path)!r} cannot be opened: {error.strerror}", {"file_path": str(path)}, cause=error
            ) from error
        self._size = os.fstat(self._descriptor).st_size
        self._size_limit = bytes_max
        self._closer = weakref.finalize(self, _close_quietly, [self._descriptor])
        _files.add(self)

    def write(self, line: bytes) -> None:
        """Append one line and its end."""
        data = line + b"\n"
        written = 0
        with self._lock:
            if self._torn:
                data = b"\n" + data
            if self._size and self._size + len(data) > self._size_limit:
                self._rotate()
            try:
                while written < len(data):
                    written += os.write(self._descriptor, data[written:])
            except OSError as error:
                count_dropped_line()
                self._mend(written)
                self._complain(f"cannot be written: {error.strerror}")
                return
            self._size += len(data)
            self._torn = self._complained = False

    def _mend(self, written: int) -> None:
        """Take back a line that was cut off; if somebody else wrote meanwhile, let the next line begin on a new one."""
        if not written:
            return
        self._torn = True
        with suppress(OSError):
            if os.fstat(self._descriptor).st_size == self._size + written:
                os.ftruncate(self._descriptor, self._size)
                self._torn = False

    def renew_lock(self) -> None:
        """For a forked child, where the thread that held the lock does not exist."""
        self._lock = threading.RLock()

    def resize(self, bytes_max: int, backup_count: int) -> None:
        """Take other limits from the next line on."""
        with self._lock:
            self.bytes_max = self._size_limit = bytes_max
            self.backup_count = backup_count

    def _rotate(self) -> None:
        try:
            if self.backup_count == 0:
                os.ftruncate(self._descriptor, 0)
            else:
                for number in range(self.backup_count - 1, 0, -1):
                    with suppress(FileNotFoundError):
                        self._numbered(number).replace(self._numbered(number + 1))
                with suppress(FileNotFoundError):
                    self.path.replace(self._numbered(1))
                self._replace_descriptor(self._open())
        except OSError as error:
            self._size_limit = self._size + self.bytes_max
            self._complain(f"cannot be rotated: {error.strerror}")
            return
        self._size = os.fstat(self._descriptor).st_size
        self._size_limit = self.bytes_max

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _replace_descriptor(self, descriptor: int) -> None:
        self._closer.detach()
        _close_quietly([self._descriptor])
        self._descriptor = descriptor
        self._closer = weakref.finalize(self, _close_quietly, [descriptor])

    def _complain(self, problem: str) -> None:
        if not self._complained and sys.stderr is not None:
            self._complained = True
            with suppress(OSError, ValueError):
                print(f"polaris: log file {self.path} {problem}", file=sys.stderr)  # noqa: T201 - the log itself is down


def _ends_torn(path: Path) -> bool:
    """Whether the file ends in the middle of a line: the machine went down while it was written."""
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _close_quietly(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)


_files: weakref.WeakSet[RotatingFile] = weakref.WeakSet()
_by_path: weakref.WeakValueDictionary[Path, RotatingFile] = weakref.WeakValueDictionary()
_by_path_lock = threading.Lock()


def open_rotating_file(
    path: Path, *, bytes_max: int, backup_count: int, held: RotatingFile | None = None
) -> RotatingFile:
    """The one sink of this process for this path, opened if nobody has it open; closed when nobody refers to it.

    Who holds it already (`held`) may change its limits, for all who share it. For anybody else, a file in use with
    other limits is a ConfigurationError, as is one that cannot be opened.
    """
    path = path.expanduser().absolute()
    with _by_path_lock:
        file = _by_path.get(path)
        if file is None:
            file = _by_path[path] = RotatingFile(path, bytes_max=bytes_max, backup_count=backup_count)
        elif file is held:
            file.resize(bytes_max, backup_count)
        elif (file.bytes_max, file.backup_count) != (bytes_max, backup_count):
            raise ConfigurationError(
                f"log file {str(path)!r} is in use with max_file_size={file.bytes_max} and "
                f"backup_count={file.backup_count}; it cannot have other limits at the same time",
                {"file_path": str(path), "max_file_size": bytes_max, "backup_count": backup_count},
            )
        return file


def _renew_locks_after_fork() -> None:
    global _dropped_lock, _by_path_lock  # noqa: PLW0603
    _dropped_lock = threading.Lock()
    _by_path_lock = threading.Lock()
    CONSOLE.renew_lock()
    for file in list(_files):
        file.renew_lock()


os.register_at_fork(after_in_child=_renew_locks_after_fork)
