"""The web service example as a program: it serves, it reports, and it never leaves anything behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.gunicorns import end, free_udp_port, runs

from polaris.connectors.gunicorn import GunicornConnector

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "01_web_service"
PATIENCE_S = 30.0


def eventually(holds: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s, f"waited in vain: {what}"
        time.sleep(0.02)


class Example:
    """The example's runner as a child process."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.pidfile = folder / "web.pid"
        self.statsd_port = free_udp_port()
        command = [sys.executable, str(EXAMPLE / "run.py"), "--pidfile", str(self.pidfile)]
        command += ["--statsd-port", str(self.statsd_port), "--speed", "20", "--utilization", "0.2"]
        command += ["--controller", str(folder / "no-node"), *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=folder)
        assert self.process.stdout is not None
        self.greeting = self.process.stdout.readline().decode()
        eventually(lambda: len(self.family()) >= 5, "runner, arbiter, worker, load and controller")

    def family(self) -> list[psutil.Process]:
        this = psutil.Process(self.process.pid)
        return [this, *this.children(recursive=True)]

    def close(self) -> None:
        if self.process.poll() is None:
            family = self.family()
            self.process.kill()
            end(family)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Example]:
    started = Example(tmp_path)
    yield started
    started.close()


async def test_the_connector_sees_the_load_and_the_response_time_of_clients(example: Example) -> None:
    assert example.greeting.startswith("web service on http://127.0.0.1:")
    connector = GunicornConnector.from_options(
        "web", {"pidfile": str(example.pidfile), "statsd_port": example.statsd_port, "window_s": 4.0}
    )
    await connector.connect()
    async with asyncio.timeout(PATIENCE_S):
        while not (state := await connector.collect_metrics()).value("service.request.rate"):
            await asyncio.sleep(0.1)
    await connector.disconnect()
    assert state.value("service.workers") == 1
    response_s, work_s = state.value("service.response_time.p50"), state.value("service.request.duration.p50")
    assert isinstance(response_s, float)
    assert isinstance(work_s, float)
    assert response_s >= work_s > 0
    assert state.value("connector.statsd.malformed") == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_however_it_ends_nothing_is_left_behind(example: Example, number: signal.Signals) -> None:
    family = example.family()
    os.kill(example.process.pid, number)
    code = example.process.wait(PATIENCE_S)
    assert code == (-signal.SIGKILL if number is signal.SIGKILL else 0)
    eventually(lambda: not any(runs(process) for process in family), "all processes gone")
    assert not example.pidfile.exists()


def test_an_arbiter_killed_under_it_ends_the_whole(example: Example) -> None:
    family = example.family()
    os.kill(int(example.pidfile.read_text()), signal.SIGKILL)
    assert example.process.wait(PATIENCE_S) == 1
    eventually(lambda: not any(runs(process) for process in family), "all processes gone")


def test_it_ends_by_itself_after_its_duration(tmp_path: Path) -> None:
    example = Example(tmp_path, "--duration", "2")
    try:
        family = example.family()
        assert example.process.wait(PATIENCE_S) == 0
        eventually(lambda: not any(runs(process) for process in family), "all processes gone")
        # Beside a node the page tells how the load fared: nothing comes after the prompt of a terminal.
        assert example.process.stdout is not None
        assert b'"sent"' not in example.process.stdout.read()
    finally:
        example.close()
