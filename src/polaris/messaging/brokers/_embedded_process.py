"""A server process that cannot outlive its owner, and whose end frees its folder."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import threading
from pathlib import Path

from polaris.exceptions import BusConnectionError, StoreLockedError

# The wrapper's standard input is a pipe that only the owner holds open: when the owner ends, however it ends, the
# guard's `read` returns, and it stops the process group. The group, not a pid: the guard is there before the server and
# can neither miss it nor hit another process. The wrapper's standard output is the folder's lock file: the server alone
# keeps that open, so the lock falls exactly when the server is gone. Signals of the terminal do not come here: the
# group has a session of its own.
_WRAPPER = """
grace=$1; shift
exec 3<&0 </dev/null
trap : TERM
{
    trap : TERM
    read -r _ <&3
    while [ $grace -gt 0 ]; do
        kill -TERM 0
        sleep 0.2
        grace=$((grace - 1))
    done
    kill -KILL 0
} >/dev/null 2>&1 &
guard=$!
"$@" 3<&- &
server=$!
exec >/dev/null 3<&-
while :; do
    wait $server
    code=$?
    kill -0 $server 2>/dev/null || break
done
kill -KILL $guard
exit $code
"""
_POLLS_PER_S = 5
_LOCK_POLL_S = 0.01


class FolderLock:
    """Two locks on a data folder: the owner's, and the server's, which its process holds as long as it lives.

    The first tells a second owner apart from a server that is still stopping after its owner was killed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owner_fd: int | None = None

    def acquire(self) -> None:
        """Own the folder. Raises `StoreLockedError` when another process, or another object of this one, does."""
        if self._owner_fd is None:
            handle = self._open("owner.lock")
            if not _lock(handle):
                os.close(handle)
                raise StoreLockedError(
                    f"the bus folder {self._folder} is in use by another running node", {"folder": str(self._folder)}
                )
            self._owner_fd = handle

    def release(self) -> None:
        """Give the folder up. Idempotent."""
        if self._owner_fd is not None:
            os.close(self._owner_fd)
            self._owner_fd = None

    async def server_gone(self, timeout_s: float) -> int:
        """Wait for the end of a former server; the handle of the server's lock, to be handed to the next one.

        Raises `StoreLockedError` when it does not end in time.
        """
        handle = self._open("server.lock")
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        try:
            while not _lock(handle):
                if asyncio.get_running_loop().time() >= deadline_s:
                    raise StoreLockedError(
                        f"a former server still holds {self._folder} after {timeout_s:g} s",
                        {"folder": str(self._folder)},
                    )
                await asyncio.sleep(_LOCK_POLL_S)
        except BaseException:  # boundary: undone, then raised again
            os.close(handle)
            raise
        return handle

    def _open(self, name: str) -> int:
        return os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


class ServerProcess:
    """One run of the server. Made by `spawn`; over when `wait` returns.

    Not of `asyncio.subprocess`: cancelled while it starts a process, that waits for ever (CPython 3.11).
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.server_pid: int | None = None
        """Known once the server has said where it listens."""
        self._process = process
        self._ended = asyncio.Event()
        # A thread, because that is portable and needs nothing of the loop; it ends with the process.
        threading.Thread(
            target=self._await_end, args=(asyncio.get_running_loop(),), name="nats-server-end", daemon=True
        ).start()

    @classmethod
    def spawn(cls, command: list[str], *, lock: int, errors: Path, grace_s: float) -> ServerProcess:
        """Start `command` under the wrapper; what it prints on standard error goes to the file `errors`."""
        polls = max(1, round(grace_s * _POLLS_PER_S))
        handle = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _WRAPPER, "polaris-nats", str(polls), *command],
                stdin=subprocess.PIPE,
                stdout=lock,
                stderr=handle,
                start_new_session=True,
                # Nothing of the owner's environment is the server's business.
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            )
        finally:
            os.close(handle)
        return cls(process)

    @property
    def exit_code(self) -> int | None:
        """As of a shell: 128 + n for signal n; None while it runs."""
        code = self._process.returncode
        return 128 - code if code is not None and code < 0 else code

    async def wait(self) -> int:
        """Wait for the end. Cancelling it changes nothing."""
        await self._ended.wait()
        self._close_pipe()
        return self.exit_code or 0

    async def stop(self, grace_s: float) -> None:
        """Ask the server to stop, kill it after `grace_s`, and wait for its end. Idempotent.

        Cancelled, it kills the server at once and does not wait.
        """
        self._signal(signal.SIGTERM)
        self._close_pipe()
        try:
            async with asyncio.timeout(grace_s):
                await self._ended.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            try:
                async with asyncio.timeout(grace_s + 2.0):
                    await self._ended.wait()
            except TimeoutError as error:
                raise BusConnectionError("the embedded NATS server cannot be stopped") from error
        except asyncio.CancelledError:
            # Whoever has no time to wait does not get to leave the server behind.
            self._signal(signal.SIGKILL)
            raise

    def _signal(self, number: signal.Signals) -> None:
        # While the wrapper runs, the server's pid is its own or not yet reaped.
        if self.server_pid is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.server_pid, number)

    def _close_pipe(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _await_end(self, loop: asyncio.AbstractEventLoop) -> None:
        self._process.wait()
        # A loop that was closed meanwhile has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._ended.set)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True
