"""The folder a node owns: its lock, its private files, and the file that tells others where the node can be reached."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import secrets
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec

from polaris.exceptions import ConfigurationError, RetryExhaustedError, StoreLockedError
from polaris.ids import new_id
from polaris.resilience import RetryConfig, RetryPolicy

NODE_FILE = "node.json"
LOCK_FILE = "node.lock"
HTTP_TOKEN_FILE = "http.token"  # noqa: S105 - a name
HTTP_TOKEN_CHARS_MIN = 16
ID_FILE = "node.id"
LOCKING = RetryConfig(
    max_attempts=6, base_delay=0.01, max_delay=0.01, multiplier=1, jitter="none", retryable=(BlockingIOError,)
)
"""Who asks `running_node` holds the lock for an instant."""


class NodeFile(msgspec.Struct, frozen=True, kw_only=True):
    """Where a running node can be reached. Readable by the node's user only: the tokens open bus and API."""

    name: str
    pid: int
    version: str
    started_at: Annotated[datetime, msgspec.Meta(tz=True)]
    http_url: str | None = None
    http_token: str | None = None
    bus_url: str | None = None
    bus_token: str | None = None
    bus_embedded: bool = True
    store_path: str | None = None

    def __repr__(self) -> str:
        return f"NodeFile(name={self.name!r}, pid={self.pid}, http_url={self.http_url!r}, bus_url={self.bus_url!r})"


class DataFolder:
    """A node's folder. `acquire` makes it (0700) and takes it for this process; the lock goes with the process.

    The lock is `flock(2)`: a node that was killed leaves no stale lock behind. Network file systems without `flock` are
    not supported.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_fd: int | None = None

    def identity(self) -> str:
        """A name for the folder on this machine, made once and kept: one process at a time owns it. `acquire` first."""
        file = self.path / ID_FILE
        try:
            known = file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            known = ""
        if not known:
            known = new_id()
            file.write_text(f"{known}\n", encoding="ascii")
        return f"{platform.node()} {known}"

    @property
    def bus_dir(self) -> Path:
        """Where the embedded bus keeps its files."""
        return self.path / "nats"

    def acquire(self) -> None:
        """Make the folder and own it. Idempotent.

        Raises `StoreLockedError` when another running node owns it, `ConfigurationError` when it cannot be made or
        written; nothing is held then.
        """
        if self._lock_fd is not None:
            return
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            message = f"node.data_dir = '{self.path}': cannot be used: {error.strerror or error}"
            raise ConfigurationError(problems=[message], cause=error) from error
        try:
            _lock_patiently(lock)
        except (RetryExhaustedError, PermissionError) as busy:
            os.close(lock)
            raise StoreLockedError(self._owned_by(), {"data_dir": str(self.path)}) from busy.__cause__
        except OSError as error:
            os.close(lock)
            message = f"node.data_dir = '{self.path}': cannot be locked: {error.strerror or error}"
            raise ConfigurationError(problems=[message], cause=error) from error
        self._lock_fd = lock

    def _owned_by(self) -> str:
        owner = self.read_node_file()
        who = "another node" if owner is None else f"the node {owner.name!r} (pid {owner.pid})"
        return (
            f"the data folder {self.path} belongs to {who}, which is running; stop it or choose another node.data_dir"
        )

    def release(self) -> None:
        """Give the folder up and remove the node file. Idempotent."""
        if self._lock_fd is None:
            return
        with contextlib.suppress(OSError):
            (self.path / NODE_FILE).unlink()
        os.close(self._lock_fd)
        self._lock_fd = None

    def write_node_file(self, facts: NodeFile) -> None:
        """Publish where the node is, atomically and readable by its user only."""
        self._write_private(self.path / NODE_FILE, msgspec.json.format(msgspec.json.encode(facts), indent=2))

    def _write_private(self, target: Path, content: bytes) -> None:
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, content)
        finally:
            os.close(fd)
        temporary.replace(target)

    @property
    def http_token_file(self) -> Path:
        """Where the token of the node's API is kept, unless one is configured."""
        return self.path / HTTP_TOKEN_FILE

    def http_token(self, configured: str | None) -> str:
        """The token of the node's API: the configured one, else the one that is kept here, made when there is none.

        One that is made has 256 bits and is safe in a URL.
        """
        if configured is not None:
            return configured
        path = self.http_token_file
        with contextlib.suppress(OSError, UnicodeDecodeError):
            kept = path.read_text(encoding="ascii").strip()
            if len(kept) >= HTTP_TOKEN_CHARS_MIN:
                return kept
        token = secrets.token_urlsafe(32)
        self._write_private(path, token.encode())
        return token

    def read_node_file(self) -> NodeFile | None:
        """What the last or running node wrote, None when there is nothing readable."""
        try:
            return msgspec.json.decode((self.path / NODE_FILE).read_bytes(), type=NodeFile)
        except (OSError, msgspec.DecodeError):
            return None

    def running_node(self) -> NodeFile | None:
        """The node that owns the folder now; None when nobody does, whatever an old file says."""
        try:
            lock = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            # A shared lock is refused exactly while a node holds the exclusive one.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return self.read_node_file()
        finally:
            os.close(lock)
        return None


def _lock_patiently(lock: int) -> None:
    RetryPolicy(LOCKING).execute_sync(lambda: fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB), "lock the data folder")
