"""Real nodes for tests: `python -m polaris run` as a child process, on free ports, in a folder of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
from tests.gunicorns import end, runs

from polaris.exceptions import BusConnectionError, PublishError, UnconfirmedPublishError
from polaris.messaging import NATSConfig, NATSMessageBroker, PolarisMessageBus, Receipt
from polaris.runtime import DataFolder, NodeFile
from polaris.storage import PolarisDataStore

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 30.0
GONE_S_MAX = 15.0
"""A killed node's bus server notices that by its pipe, and stops within its own grace period."""

# What a node must never say, however it ends.
UNTIDY = (
    "Task was destroyed",
    "never retrieved",
    "was never awaited",
    "ResourceWarning",
    "Traceback",
    "Exception ignored",
    "Unclosed",
)


class NodeUnderTest:
    """One data folder and the processes that own it, one after the other.

    `close` ends what still runs, by pid, and fails when a process that a node had started outlived it.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.data = DataFolder(folder / "data")
        self.config = folder / "polaris.toml"
        self.starts = 0
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._file: NodeFile | None = None
        self._family: set[psutil.Process] = set()
        self.configure(settings)

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Write the configuration of the next start; `settings` goes over the defaults of a node in a test."""
        tree: dict[str, Any] = {
            "node": {"name": "under-test", "data_dir": str(self.data.path), "shutdown_grace_s": 5.0},
            "http": {"port": 0},
            "logging": {"format": "json"},
            "systems": {},
        }
        for section, values in settings.items():
            tree[section] = {**tree.get(section, {}), **values}
        self.config.write_text(toml_of(tree), encoding="utf-8")

    # One process.

    def launch(self) -> None:
        """Begin to start a node; `running` waits until it answers."""
        assert self._process is None or self._process.poll() is not None, "a node runs already"
        self.starts += 1
        self._file = None
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("POLARIS_")}
        with self._log("stdout").open("wb") as stdout, self._log("stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "polaris", "run", "--config", str(self.config)],
                cwd=self.folder,
                env={
                    **inherited,
                    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
                    "PYTHONWARNINGS": "default",
                    **self._environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    async def running(self) -> NodeFile:
        """Wait until the node says where it is; fails with its last words when it ends instead."""

        def answers() -> bool:
            assert self.process.poll() is None, f"the node ended with {self.process.returncode}:\n{self.stderr()}"
            found = self.data.running_node()
            if found is not None and found.pid == self.process.pid:
                self._file = found
            return self._file is not None

        await eventually(answers, "the node is running")
        self.look_at_family()
        assert self._file is not None
        return self._file

    async def start(self) -> NodeFile:
        self.launch()
        return await self.running()

    async def restart_after_kill(self) -> NodeFile:
        """kill -9, and a new node on the same folder at once."""
        self.kill()
        return await self.start()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "no node was launched"
        return self._process

    @property
    def file(self) -> NodeFile:
        assert self._file is not None, "the node is not running"
        return self._file

    def send(self, number: signal.Signals) -> None:
        self.look_at_family()
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, the node alone: what it started has to notice by itself."""
        self.send(signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    async def ended(self, timeout_s: float = PATIENCE_S) -> int:
        """The exit code, when it has ended."""
        await eventually(lambda: self.process.poll() is not None, "the node ends", timeout_s=timeout_s)
        return int(self.process.returncode)

    async def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.send(number)
        return await self.ended()

    # What it started.

    def look_at_family(self) -> None:
        """Remember what the node has started so far."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._family.update(psutil.Process(self.process.pid).children(recursive=True))

    @property
    def nats_server(self) -> psutil.Process:
        """The process of the embedded bus server that runs now."""
        self.look_at_family()
        (server,) = [one for one in self._family if runs(one) and "nats-server" in one.name()]
        return server

    def left_behind(self) -> list[str]:
        """What a node started and still runs."""
        left: list[str] = []
        for one in self._family:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ends, or is a zombie, between the two looks
                if runs(one):
                    left.append(" ".join(one.cmdline()[:2]))
        return left

    async def gone(self) -> None:
        """Wait until nothing that a node started runs any more."""
        await eventually(lambda: not self.left_behind(), "nothing is left behind", timeout_s=GONE_S_MAX)

    async def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        try:
            await self.gone()
        finally:
            end([one for one in self._family if runs(one)])

    # What it says.

    def _log(self, stream: str) -> Path:
        return self.folder / f"{stream}-{self.starts}.log"

    def stderr(self) -> str:
        """What the present or last process said on standard error."""
        return self._log("stderr").read_text(encoding="utf-8", errors="replace")

    def stdout(self) -> str:
        return self._log("stdout").read_text(encoding="utf-8", errors="replace")

    def log_lines(self) -> list[dict[str, Any]]:
        """The structured lines of the present or last process."""
        return [json.loads(line) for line in self.stderr().splitlines() if line.startswith("{")]

    def untidy_lines(self) -> list[str]:
        """What was said of leaks and unhandled errors."""
        said = self.stderr()
        # A signal in the midst of an import leaves the interpreter's own file behind, which is none of ours.
        said = re.sub(r"(?m)^<frozen importlib\..*\n(?:ResourceWarning: Enable tracemalloc.*\n)?", "", said)
        return [line for line in said.splitlines() if any(mark in line for mark in UNTIDY)]

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of the page's address; status 0 when nobody answers."""
        assert self.file.http_url is not None
        return await asyncio.to_thread(_get, self.file.http_url + path)

    async def is_ready(self) -> bool:
        return (await self.get("readyz"))[0] == 200

    async def memory_bytes(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    # Its bus and store, from outside.

    def broker(self) -> NATSMessageBroker:
        """A broker for the node's bus; it finds the bus again after a restart, which keeps port and token."""
        assert self.file.bus_url is not None
        return NATSMessageBroker(
            NATSConfig(
                servers=(self.file.bus_url,),
                token=self.file.bus_token,
                name="test",
                reconnect_time_wait=0.02,
                reconnect_time_wait_max_s=0.2,
            )
        )

    @contextlib.asynccontextmanager
    async def bus(self) -> AsyncIterator[PolarisMessageBus]:
        """A bus of the test's own, connected to the node's."""
        bus = PolarisMessageBus(self.broker(), grace_s=2.0)
        await bus.start()
        try:
            yield bus
        finally:
            await bus.stop()

    @contextlib.asynccontextmanager
    async def store(self) -> AsyncIterator[PolarisDataStore]:
        """The node's store, read from outside, whether it runs or not."""
        async with PolarisDataStore.sqlite(self.data.path / "polaris.db", read_only=True) as store:
            yield store


@contextlib.asynccontextmanager
async def a_node(
    folder: Path, settings: Mapping[str, Any] | None = None, *, environment: Mapping[str, str] | None = None
) -> AsyncIterator[NodeUnderTest]:
    """A node that runs; whatever becomes of it, nothing of it is left afterwards."""
    node = NodeUnderTest(folder, settings or {}, environment)
    try:
        await node.start()
        yield node
    finally:
        await node.close()


async def confirmed(publish: Callable[[], Awaitable[Receipt]]) -> Receipt:
    """Publish, again and again with the same id, until there is a receipt."""
    while True:
        try:
            return await publish()
        except (BusConnectionError, UnconfirmedPublishError, PublishError):
            await asyncio.sleep(0.02)


async def eventually(holds: Callable[[], bool], what: str, *, timeout_s: float = PATIENCE_S) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, f"waited in vain: {what}"
        await asyncio.sleep(0.01)


async def reached(count: Callable[[], int], target: int, what: str) -> None:
    await eventually(lambda: count() >= target, f"{what}: {target}")


async def eventually_true(holds: Callable[[], Awaitable[bool]], what: str, *, timeout_s: float = PATIENCE_S) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not await holds():
        assert time.monotonic() < deadline_s, f"waited in vain: {what}"
        await asyncio.sleep(0.05)


def toml_of(tree: Mapping[str, Any], path: str = "") -> str:
    """A tree of tables and plain values as TOML; JSON's strings, numbers, booleans and lists are TOML's too."""
    plain = [f"{_key(key)} = {json.dumps(value)}" for key, value in tree.items() if not isinstance(value, Mapping)]
    text = "\n".join([f"[{path}]" if path else "", *plain, ""])
    for key, value in tree.items():
        if isinstance(value, Mapping):
            text += toml_of(value, f"{path}.{_key(key)}" if path else _key(key))
    return text


def _key(key: str) -> str:
    return json.dumps(key, ensure_ascii=False)


def _get(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=5.0) as answer:
            status, body = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            status, body = error.code, error.read()
    except OSError:
        return 0, None
    try:
        return status, json.loads(body)
    except ValueError:
        return status, body.decode(errors="replace")
