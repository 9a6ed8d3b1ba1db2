"""The arbiter of a running gunicorn and its workers, as the process table shows them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NamedTuple

import psutil

from polaris.connectors.gunicorn._options import GunicornOptions
from polaris.exceptions import ConnectorError

PIDFILE_BYTES_MAX = 64


class Usage(NamedTuple):
    """What the arbiter and its workers use together; None where the system does not tell for one of them."""

    cpu_s: float | None
    memory_bytes: int | None


class Arbiter:
    """One particular arbiter process: never another one that got its pid later.

    On Linux a pidfd is held, so a signal cannot reach a stranger however the pids turn; elsewhere the process's start
    time is compared right before a signal. `close` gives the descriptor back.
    """

    def __init__(self, process: psutil.Process, pidfd: int | None) -> None:
        self._process = process
        self._pidfd = pidfd

    @classmethod
    def attach(cls, pid: int, command_contains: str) -> Arbiter:
        """The arbiter that runs under `pid` now. Raises `ConnectorError` that says why it is not there. Quick."""
        pidfd: int | None = None
        try:
            if hasattr(os, "pidfd_open"):
                pidfd = os.pidfd_open(pid)
            process = psutil.Process(pid)
            command = process.cmdline()
            # The pidfd was opened first: a process that runs now under this pid is the one it stands for.
            running = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, ProcessLookupError) as error:
            _close(pidfd)
            raise ConnectorError(f"no process {pid}: the gunicorn arbiter is gone", {"pid": pid}) from error
        except (psutil.Error, OSError) as error:
            _close(pidfd)
            raise ConnectorError(f"process {pid} cannot be looked at: {error}", {"pid": pid}) from error
        arbiter = cls(process, pidfd)
        if not running:
            arbiter.close()
            raise ConnectorError(f"process {pid} has ended: the gunicorn arbiter is gone", {"pid": pid})
        if command_contains not in " ".join(command):
            arbiter.close()
            message = f"process {pid} is not the gunicorn arbiter: its command does not hold {command_contains!r}"
            raise ConnectorError(message, {"pid": pid})
        return arbiter

    @property
    def pid(self) -> int:
        pid: int = self._process.pid
        return pid

    def close(self) -> None:
        """Give the descriptor back; the process goes on. Closing twice does nothing."""
        pidfd, self._pidfd = self._pidfd, None
        _close(pidfd)

    def is_running(self) -> bool:
        """Whether this very process still runs (a zombie does not). Quick."""
        try:
            return bool(self._process.is_running()) and self._process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        except psutil.Error:
            return True

    def started_at_s(self) -> float:
        """When the arbiter started, Unix time."""
        started: float = self._process.create_time()
        return started

    def workers(self) -> list[psutil.Process]:
        """Its workers, oldest first. Raises `ConnectorError` when the arbiter is gone. Blocking: scans all processes.

        Workers are forks: children with the arbiter's own command line, or with the title `gunicorn: worker` where
        gunicorn sets titles. A new arbiter in mid-upgrade (SIGUSR2) is a child too; gunicorn gives it the variable
        GUNICORN_PID. gunicorn's "dirty" arbiter is told apart by its title only.
        """
        try:
            command = self._process.cmdline()
            children = self._process.children()
        except psutil.NoSuchProcess as error:
            raise ConnectorError(f"the gunicorn arbiter {self.pid} is gone", {"pid": self.pid}) from error
        except psutil.Error as error:
            raise ConnectorError(f"the workers of {self.pid} cannot be read: {error}", {"pid": self.pid}) from error
        if not self.is_running():
            raise ConnectorError(f"the gunicorn arbiter {self.pid} is gone", {"pid": self.pid})
        found = [child for child in children if self._is_worker(child, command)]
        return sorted(found, key=lambda worker: (worker.create_time(), worker.pid))

    def _is_worker(self, child: psutil.Process, command: list[str]) -> bool:
        try:
            if child.status() == psutil.STATUS_ZOMBIE:
                return False
            title = child.cmdline()
            if title and title[0].startswith("gunicorn: "):
                return bool(title[0].startswith("gunicorn: worker"))
            return bool(title == command and not self._is_upgrade(child))
        except psutil.Error:
            return False

    def _is_upgrade(self, child: psutil.Process) -> bool:
        try:
            return bool(child.environ().get("GUNICORN_PID") == str(self.pid))
        except psutil.AccessDenied:
            return False

    def usage(self, workers: list[psutil.Process]) -> Usage:
        """Processor time and resident memory of the arbiter and `workers`. Blocking."""
        cpu_s, memory_bytes = 0.0, 0
        try:
            for process in (self._process, *workers):
                with process.oneshot():
                    times = process.cpu_times()
                    cpu_s += times.user + times.system
                    memory_bytes += process.memory_info().rss
        except psutil.Error:
            return Usage(None, None)
        return Usage(cpu_s, memory_bytes)

    def send(self, number: signal.Signals) -> None:
        """Signal the arbiter. Raises `ConnectorError` when it is gone or forbids it; nothing was done then."""
        try:
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                self._process.send_signal(number)
        except (ProcessLookupError, psutil.NoSuchProcess) as error:
            raise ConnectorError(f"the gunicorn arbiter {self.pid} is gone", {"pid": self.pid}) from error
        except (PermissionError, psutil.AccessDenied) as error:
            raise ConnectorError(f"signalling the gunicorn arbiter {self.pid} is forbidden") from error


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def configured_pid(options: GunicornOptions) -> int:
    """The arbiter's pid, read from the pidfile when there is one. Raises `ConnectorError` saying why there is none."""
    if options.pid is not None:
        return options.pid
    pidfile = Path(options.pidfile or "")
    try:
        with pidfile.open("rb") as file:
            pid = int(file.read(PIDFILE_BYTES_MAX))
    except FileNotFoundError as error:
        raise ConnectorError(
            f"pidfile {pidfile} does not exist: gunicorn does not run", {"pidfile": pidfile}
        ) from error
    except OSError as error:
        raise ConnectorError(f"pidfile {pidfile} cannot be read: {error.strerror}", {"pidfile": pidfile}) from error
    except ValueError as error:
        raise ConnectorError(f"pidfile {pidfile} does not hold a pid", {"pidfile": pidfile}) from error
    if not 2 <= pid < 2**31:
        raise ConnectorError(f"pidfile {pidfile} holds {pid}, which cannot be an arbiter", {"pidfile": pidfile})
    return pid
