"""What `make run` starts: a web service under load is given workers by the controller, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.gunicorns import end, runs

from polaris.runtime import DataFolder, NodeFile

DEMO = Path(__file__).resolve().parents[2] / "examples" / "01_web_service" / "demo.py"
START_S_MAX = 40.0
ADAPTED_S_MAX = 75.0
GONE_S_MAX = 40.0


class Demo:
    """The example as a newcomer starts it. `family` is every process that was seen below it."""

    def __init__(self, folder: Path) -> None:
        self.data = DataFolder(folder / "data")
        self.folder = folder
        self.family: set[psutil.Process] = set()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("POLARIS_")}
        environment |= {"POLARIS_HTTP__PORT": "0", "POLARIS_NODE__DATA_DIR": str(self.data.path)}
        # So much work that one worker cannot do it, also when the machine was busy while its speed was measured.
        environment["EXAMPLE_UTILIZATION"] = "1.5"
        with (folder / "stdout.log").open("wb") as stdout, (folder / "stderr.log").open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(DEMO)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    async def running(self) -> NodeFile:
        deadline_s = time.monotonic() + START_S_MAX
        while True:
            assert self.process.poll() is None, self.said()
            found = self.data.running_node()
            if found is not None and found.http_url is not None:
                return found
            assert time.monotonic() < deadline_s, self.said()
            await asyncio.sleep(0.05)

    def look_at_family(self) -> None:
        """The node's children, and the companion, which is one of them although it lives in a session of its own."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.family.update(psutil.Process(self.process.pid).children(recursive=True))

    def names(self) -> str:
        self.look_at_family()
        return "\n".join(" ".join(one.cmdline()) for one in self.family if runs(one))

    def workers(self) -> int:
        """How many workers gunicorn really has, by the table of processes."""
        self.look_at_family()
        pidfile = self.data.path / "web.pid"
        with contextlib.suppress(psutil.NoSuchProcess, ValueError, FileNotFoundError):
            children = psutil.Process(int(pidfile.read_text())).children()
            return sum(runs(child) for child in children)
        return 0

    def said(self) -> str:
        return "\n".join(
            (self.folder / name).read_text(errors="replace")[-4000:] for name in ("stdout.log", "stderr.log")
        )

    async def all_gone(self) -> None:
        deadline_s = time.monotonic() + GONE_S_MAX
        while left := [" ".join(one.cmdline()) for one in self.family if runs(one)]:
            assert time.monotonic() < deadline_s, left
            await asyncio.sleep(0.05)

    def close(self) -> None:
        self.look_at_family()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        end([one for one in self.family if runs(one)])


@contextlib.asynccontextmanager
async def a_demo(folder: Path) -> AsyncIterator[Demo]:
    demo = Demo(folder)
    try:
        yield demo
    finally:
        demo.close()


async def get(node: NodeFile, path: str) -> Any:
    def read() -> Any:
        with urllib.request.urlopen(f"{node.http_url}{path}", timeout=10.0) as answer:
            return json.loads(answer.read())

    return await asyncio.to_thread(read)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_the_controller_adds_workers_within_a_minute_and_ctrl_c_ends_everything(tmp_path: Path) -> None:
    async with a_demo(tmp_path) as demo:
        node = await demo.running()
        deadline_s = time.monotonic() + ADAPTED_S_MAX
        done: list[Any] = []
        while not done or demo.workers() < 2:
            assert demo.process.poll() is None, demo.said()
            assert time.monotonic() < deadline_s, f"no worker was added in time: {demo.workers()} {done}\n{demo.said()}"
            actions = (await get(node, "api/v1/actions?system=web"))["actions"]
            done = [one for one in actions if one["action_type"] == "add_worker" and one["status"] == "success"]
            await asyncio.sleep(0.25)
        assert done[-1]["target_system"] == "web"
        assert done[-1]["source"] not in (None, "")
        system = await get(node, "api/v1/systems/web")
        assert system["metrics"]["service.workers"]["value"] >= 1
        assert system["metrics"]["service.request.rate"]["value"] > 0
        assert "this-machine" in {one["system_id"] for one in (await get(node, "api/v1/systems"))["systems"]}
        names = demo.names()
        for part in ("nats-server", "gunicorn", "load.py", "run.py", "controller.py"):
            assert part in names, names
        demo.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(demo.process.wait, 30.0) == 0, demo.said()
        await demo.all_gone()
        assert demo.data.running_node() is None
        assert not (demo.data.path / "web.pid").exists()
        assert "Traceback" not in demo.said()
        assert f"page     {node.http_url}" in demo.said()


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_node_that_is_killed_takes_service_load_and_bus_server_with_it(tmp_path: Path) -> None:
    async with a_demo(tmp_path) as demo:
        await demo.running()
        deadline_s = time.monotonic() + START_S_MAX
        while not all(part in demo.names() for part in ("nats-server", "gunicorn", "load.py")):
            assert time.monotonic() < deadline_s, demo.names()
            await asyncio.sleep(0.1)
        demo.look_at_family()
        demo.process.kill()
        demo.process.wait(10.0)
        await demo.all_gone()
