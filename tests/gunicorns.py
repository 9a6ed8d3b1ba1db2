"""Real gunicorn services for tests: on a free port, in a folder of their own, ended by pid."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

APPLICATION = """
import time

def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(float(environ["QUERY_STRING"]))
    status = "500 Oops" if environ["PATH_INFO"] == "/fail" else "200 OK"
    start_response(status, [("Content-Length", "2")])
    return [b"ok"]
"""


@dataclass
class Gunicorn:
    """A running service."""

    pidfile: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    def worker_pids(self) -> set[int]:
        return {child.pid for child in psutil.Process(self.pid).children() if child.status() != psutil.STATUS_ZOMBIE}

    def get(self, path: str = "/", *, timeout_s: float = 10.0) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts)

    def kill(self) -> None:
        """End arbiter and workers without a chance to clean up, and wait until none of them runs."""
        if self.process.poll() is None:
            family = psutil.Process(self.pid).children(recursive=True)
            self.process.kill()
            self.process.wait(10)
            end(family)


def end(processes: list[psutil.Process]) -> None:
    """Kill the processes and wait until none of them runs; a dead one may wait for init to take note of it."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    deadline_s = time.monotonic() + 10.0
    while any(runs(process) for process in processes):
        assert time.monotonic() < deadline_s, "a killed process goes on"
        time.sleep(0.01)


def runs(process: psutil.Process) -> bool:
    """Whether it is more than a zombie."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running_gunicorn(
    folder: Path,
    *,
    workers: int = 1,
    statsd_port: int | None = None,
    options: tuple[str, ...] = (),
    bind: str | None = None,
) -> Iterator[Gunicorn]:
    """Start gunicorn and wait until it answers; end it and its workers afterwards.

    With a `bind` of the test's own its port is not known, and it is not asked whether it answers.
    """
    (folder / "tiny_application.py").write_text(APPLICATION)
    pidfile = folder / "gunicorn.pid"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "--bind",
            bind or f"fd://{listener.fileno()}",
            "--pid",
            str(pidfile),
        ]
        command += ["--workers", str(workers), "--graceful-timeout", "5", "--log-level", "error", "--no-control-socket"]
        command += [] if statsd_port is None else ["--statsd-host", f"127.0.0.1:{statsd_port}"]
        process = subprocess.Popen(
            [*command, *options, "tiny_application:application"],
            cwd=folder,
            pass_fds=[listener.fileno()],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
    service = Gunicorn(pidfile, port, process)
    try:
        deadline_s = time.monotonic() + 20.0
        while not (pidfile.exists() and len(service.worker_pids()) >= workers):
            assert process.poll() is None, "gunicorn ended while it started"
            assert time.monotonic() < deadline_s, "gunicorn did not start in time"
            time.sleep(0.02)
        assert bind is not None or b"200 OK" in service.get()
        yield service
    finally:
        service.kill()
