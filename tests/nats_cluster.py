"""Three nats-servers on loopback that form a cluster, to be killed, frozen, cut off and restarted one by one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, cast

import nats
import nats.errors
from nats.aio.client import Client
from tests import frozen

from polaris.messaging import NATSConfig
from polaris.messaging.brokers._embedded_config import find_binary
from polaris.messaging.brokers._embedded_process import ServerProcess

NAMES = ("a", "b", "c")
PATIENCE_S = 30.0
ASK_S = 1.5
ASK_AT_ONCE = 64
TEMPORARILY_UNAVAILABLE = 10008
RELAY_TASK = "nats-cluster-relay"
LAME_DUCK_GRACE_S = 1.0
HANGS_UP = "Closing existing clients"
STARTS = "Starting nats-server"
"""What servers write to their logs."""
_HOST = "127.0.0.1"
_NOWHERE = f"{_HOST}:1"
"""Where nobody listens: what servers tell each other of a third one must not lead past the relays."""
# Below the range from which systems pick the ports of outgoing connections: a port stays free while its server is away.
_PORTS = range(20_000, 32_000)


class Relay:
    """Carries TCP connections from a port of its own to that of a server, both ways, unless it is cut."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.cut = False
        self.attempts_s: list[float] = []
        """When somebody connected, by the clock of the loop, in vain or not."""
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._ends: set[_End] = set()
        self._joining: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen. Until `close`."""
        self._server = await asyncio.get_running_loop().create_server(lambda: _End(self._ends, self._join), _HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def sever(self) -> None:
        """Break all connections and take no new ones until `heal`."""
        self.cut = True
        for end in list(self._ends):
            end.abort()

    def heal(self) -> None:
        """Carry new connections again."""
        self.cut = False

    def close(self) -> None:
        """Break everything and stop listening."""
        self.sever()
        if self._server is not None:
            self._server.close()

    def _join(self, near: _End) -> None:
        self.attempts_s.append(asyncio.get_running_loop().time())
        if self.cut:
            near.abort()
            return
        task = asyncio.get_running_loop().create_task(self._reach(near), name=RELAY_TASK)
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    async def _reach(self, near: _End) -> None:
        near.pause()
        try:
            far = _End(self._ends, lambda _: None)
            await asyncio.get_running_loop().create_connection(lambda: far, _HOST, self._target_port)
        except OSError:
            near.abort()
            return
        near.other, far.other = far, near
        if self.cut or near.gone:
            near.abort()
            far.abort()
            return
        near.resume()


class _End(asyncio.Protocol):
    """One end of a relayed connection: hands what it receives to the other one, no faster than that can send it."""

    def __init__(self, ends: set[_End], made: Callable[[_End], None]) -> None:
        self.other: _End | None = None
        self.gone = False
        self._ends = ends
        self._made = made
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ends.add(self)
        self._made(self)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other._transport is not None:
            self.other._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._ends.discard(self)
        if self.other is not None and not self.other.gone:
            self.other.abort()

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.pause()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.resume()

    def pause(self) -> None:
        if self._transport is not None and not self.gone:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self.gone:
            self._transport.resume_reading()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _Node:
    """One server: where it listens, where it keeps its store, and its process while it has one."""

    def __init__(self, name: str, folder: Path, port: int, route_port: int) -> None:
        self.name = name
        self.folder = folder
        self.port = port
        self.route_port = route_port
        self.process: ServerProcess | None = None
        self.frozen = False

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.exit_code is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        assert self.process.server_pid is not None
        return self.process.server_pid

    def signal(self, number: signal.Signals) -> None:
        assert self.running, f"{self.name} does not run"
        os.kill(self.pid, number)


class NATSCluster:
    """Servers "a", "b" and "c" with JetStream, every route through a `Relay`. Made by `nats_cluster`.

    Nothing that it starts outlives it, or the process that it belongs to.
    """

    def __init__(self, folder: Path) -> None:
        ports = free_ports(2 * len(NAMES))
        self._nodes = {name: _Node(name, folder / name, ports.pop(), ports.pop()) for name in NAMES}
        self._relays = {
            (one, other): Relay(self._nodes[other].route_port) for one in NAMES for other in NAMES if one != other
        }

    @property
    def urls(self) -> tuple[str, ...]:
        """Where clients connect to, of all three."""
        return tuple(self.url(name) for name in NAMES)

    def url(self, name: str) -> str:
        """Where clients connect to."""
        return f"nats://{_HOST}:{self._nodes[name].port}"

    def name_of(self, port: int) -> str:
        """Whose port that is."""
        return next(node.name for node in self._nodes.values() if node.port == port)

    def client_config(self, name: str = "cluster-test", **settings: Any) -> NATSConfig:
        """The settings of a client that knows all three servers."""
        defaults = {"reconnect_time_wait": 0.02, "reconnect_time_wait_max_s": 0.5}
        return NATSConfig(**{"servers": self.urls, "name": name, **defaults, **settings})

    async def open(self) -> None:
        """Start all servers, and wait until the cluster can make streams."""
        for relay in self._relays.values():
            await relay.open()
        await asyncio.gather(*(self.start(name) for name in NAMES))
        await self._until(self._answers, "the cluster has a leader")

    async def close(self) -> None:
        """End all servers."""
        await asyncio.gather(*(self.stop(name) for name in NAMES))
        for relay in self._relays.values():
            relay.close()

    # One server.

    async def start(self, name: str) -> None:
        """Start it on the ports and the store it had, and wait until it accepts clients."""
        node = self._nodes[name]
        assert not node.running, f"{name} runs already"
        node.process = await start_server(node.folder, self._settings(node))

    async def stop(self, name: str) -> None:
        """Ask it to stop, and wait for that. Idempotent."""
        node = self._nodes[name]
        if node.process is not None:
            self.thaw(name)
            await node.process.stop(10.0)

    async def kill(self, name: str) -> None:
        """kill -9 it, and see it end."""
        node = self._nodes[name]
        node.signal(signal.SIGKILL)
        assert node.process is not None
        assert await node.process.wait() == 128 + signal.SIGKILL

    def freeze(self, name: str) -> None:
        """SIGSTOP it, and wait until its last thread stands."""
        node = self._nodes[name]
        node.frozen = True
        frozen.freeze(node.pid)

    def thaw(self, name: str) -> None:
        """SIGCONT it, if it was frozen."""
        node = self._nodes[name]
        if node.frozen:
            node.frozen = False
            node.signal(signal.SIGCONT)

    def enter_lame_duck_mode(self, name: str) -> None:
        """SIGUSR2 it: it tells its clients to go within a second or so, hangs up on them after another, and ends."""
        self._nodes[name].signal(signal.SIGUSR2)

    def hangs_up(self, name: str) -> bool:
        """Whether its present run, in lame duck mode, has begun to close what clients it has left."""
        return HANGS_UP in (self._nodes[name].folder / "server.log").read_text().rpartition(STARTS)[2]

    async def ended(self, name: str) -> int:
        """Wait until it has ended by itself; the code it ended with."""
        process = self._nodes[name].process
        assert process is not None
        return await asyncio.wait_for(process.wait(), PATIENCE_S)

    def cut_off(self, name: str) -> None:
        """Break its routes to the others, both ways; its clients keep it."""
        for pair, relay in self._relays.items():
            if name in pair:
                relay.sever()

    def heal(self, name: str) -> None:
        """Let its routes be made again."""
        for pair, relay in self._relays.items():
            if name in pair:
                relay.heal()

    # What the servers say.

    async def ask(self, subject: str, question: object = None, *, via: str | None = None) -> dict[str, Any] | None:
        """The answer to a question of JetStream's API, asked of `via` or any server that runs; None without one."""
        names = [name for name, node in self._nodes.items() if node.running and not node.frozen]
        body = b"" if question is None else json.dumps(question).encode()
        try:
            async with asyncio.timeout(ASK_S), plain_client(self.url(via or random.choice(names))) as client:
                return cast(dict[str, Any], json.loads((await client.request(subject, body, timeout=ASK_S)).data))
        except (OSError, nats.errors.Error, TimeoutError):
            return None

    async def lead(self, stream: str, name: str) -> None:
        """Make it the stream's leader."""

        async def leads() -> bool:
            if await self.leader(stream) == name:
                return True
            await self.ask(f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}", {"placement": {"preferred": name}})
            return False

        await self._until(leads, f"{name} leads {stream}")

    async def stored_ids(self, stream: str) -> list[str]:
        """The message ids in the stream, in order, read without anything of POLARIS once it is whole.

        Before that, one who was leader may take himself for it still.
        """
        await self.whole(stream)
        running = next(name for name, node in self._nodes.items() if node.running and not node.frozen)
        async with asyncio.timeout(PATIENCE_S), plain_client(self.url(running)) as client:

            async def answer(endpoint: str, question: object = None) -> dict[str, Any]:
                body = b"" if question is None else json.dumps(question).encode()
                while True:
                    message = await client.request(f"$JS.API.STREAM.{endpoint}.{stream}", body, timeout=PATIENCE_S)
                    answered = cast(dict[str, Any], json.loads(message.data))
                    if answered.get("error", {}).get("err_code") != TEMPORARILY_UNAVAILABLE:
                        assert "error" not in answered, answered
                        return answered
                    await asyncio.sleep(0.1)

            async def message_id(sequence: int) -> str:
                found = (await answer("MSG.GET", {"seq": sequence}))["message"]
                headers = base64.b64decode(found["hdrs"]).decode().splitlines()
                return next(line.partition(": ")[2] for line in headers if line.startswith("Nats-Msg-Id: "))

            state = (await answer("INFO"))["state"]
            assert state["messages"] == state["last_seq"], "a gap in the stream"
            ids: list[str] = []
            for first in range(1, state["last_seq"] + 1, ASK_AT_ONCE):
                last = min(state["last_seq"], first + ASK_AT_ONCE - 1)
                ids += await asyncio.gather(*map(message_id, range(first, last + 1)))
        return ids

    async def leader(self, stream: str, *, other_than: str | None = None, via: str | None = None) -> str:
        """Who leads the stream, as soon as somebody does who is not `other_than`."""
        found: list[str] = []

        async def leads() -> bool:
            answer = await self.ask(f"$JS.API.STREAM.INFO.{stream}", via=via)
            name = (answer or {}).get("cluster", {}).get("leader")
            if name and name != other_than:
                found.append(name)
            return bool(found)

        await self._until(leads, f"{stream} has a leader other than {other_than}")
        return found[-1]

    async def whole(self, stream: str) -> None:
        """Wait until the stream has a leader and all its replicas are up to date."""

        async def is_whole() -> bool:
            answer = await self.ask(f"$JS.API.STREAM.INFO.{stream}")
            cluster = (answer or {}).get("cluster", {})
            replicas = cluster.get("replicas", [])
            up = [replica for replica in replicas if replica.get("current") and not replica.get("offline")]
            return bool(cluster.get("leader")) and len(up) == len(NAMES) - 1

        await self._until(is_whole, f"{stream} is whole")

    async def _answers(self) -> bool:
        answer = await self.ask("$JS.API.STREAM.NAMES")
        return answer is not None and "error" not in answer

    async def _until(self, holds: Callable[[], Any], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await holds():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not within {PATIENCE_S:g} s: {what}") from None

    def _settings(self, node: _Node) -> dict[str, Any]:
        routes = [f"nats://{_HOST}:{relay.port}" for (one, _), relay in self._relays.items() if one == node.name]
        return {
            "server_name": node.name,
            "host": _HOST,
            "port": node.port,
            "jetstream": {"store_dir": str(node.folder / "store"), "max_file_store": 8 << 30, "max_memory_store": 0},
            "cluster": {
                "name": "polaris-test",
                "host": _HOST,
                "port": node.route_port,
                "advertise": _NOWHERE,
                "routes": routes,
                "pool_size": -1,
            },
            "lame_duck_grace_period": f"{LAME_DUCK_GRACE_S:g}s",
            "lame_duck_duration": "30s",
        }


async def start_server(folder: Path, settings: Mapping[str, Any]) -> ServerProcess:
    """Start one server with these settings, and wait until it accepts clients. It ends with this process at the latest.

    A file "*.ports" in the folder says where it listens.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.ports"):
        old.unlink()
    config, log = folder / "server.conf", folder / "server.log"
    config.write_text(json.dumps({**settings, "ports_file_dir": str(folder), "log_file": str(log)}), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        command = [str(find_binary()), "-c", str(config)]
        process = ServerProcess.spawn(command, lock=nothing, errors=folder / "server.err", grace_s=2.0)
    finally:
        os.close(nothing)
    async with asyncio.timeout(PATIENCE_S):
        while process.server_pid is None:
            assert process.exit_code is None, (folder / "server.err").read_text() + log.read_text()[-2000:]
            for file in folder.glob("*.ports"):
                if file.read_text(encoding="utf-8").endswith("}"):
                    process.server_pid = int(file.stem.rpartition("_")[2])
            await asyncio.sleep(0.005)
    return process


@contextlib.asynccontextmanager
async def nats_cluster(folder: Path) -> AsyncIterator[NATSCluster]:
    """A cluster of three in `folder`, from when it can be used to the end of the block."""
    cluster = NATSCluster(folder)
    try:
        await cluster.open()
        yield cluster
    finally:
        await cluster.close()


@contextlib.asynccontextmanager
async def plain_client(url: str) -> AsyncIterator[Client]:
    """A client of nats-py as it is, for one question."""
    client = await nats.connect([url], allow_reconnect=False, connect_timeout=1, error_cb=_ignore)
    try:
        yield client
    finally:
        await client.close()


async def _ignore(_: Exception) -> None:
    """Who asks hears of it by the missing answer."""


def free_ports(count: int) -> list[int]:
    """Ports of loopback on which nobody listens, and that no outgoing connection takes."""
    found: list[int] = []
    for port in random.sample(_PORTS, 64):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((_HOST, port))
                found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports on loopback")
