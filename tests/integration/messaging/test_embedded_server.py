"""The embedded server: starts fast, keeps its secrets, says what is wrong, and is never left behind."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest
from tests.awake import PATIENCE_S, within
from tests.conftest import ConnectNATS, MakeNATSServer

from polaris.exceptions import BusConnectionError, ConfigurationError, MessageBusError, StoreLockedError
from polaris.messaging._broker import ConnectionState, DeliveryClass, OutgoingMessage, StreamSpec
from polaris.messaging.brokers._embedded import EmbeddedNATSServer, ServerExit
from polaris.messaging.brokers._embedded_config import BINARY_VARIABLE, EmbeddedNATSConfig, find_binary
from polaris.messaging.brokers._nats import NATSMessageBroker
from polaris.messaging.brokers._nats_config import NATSConfig

STORED = DeliveryClass.AT_LEAST_ONCE
STREAM = StreamSpec(name="KEPT", subjects=("kept.>",))

OWNER = """
import asyncio, os, sys
from pathlib import Path
from polaris.messaging._broker import DeliveryClass, OutgoingMessage, StreamSpec
from polaris.messaging.brokers._embedded import EmbeddedNATSServer
from polaris.messaging.brokers._embedded_config import EmbeddedNATSConfig
from polaris.messaging.brokers._nats import NATSMessageBroker

async def main():
    server = EmbeddedNATSServer(EmbeddedNATSConfig(data_dir=Path(sys.argv[1])))
    await server.start()
    broker = NATSMessageBroker(server.client_config())
    await broker.connect()
    await broker.ensure_stream(StreamSpec(name="KEPT", subjects=("kept.>",)))
    await broker.publish(OutgoingMessage("kept.a", b"x", "id-1"), delivery=DeliveryClass.AT_LEAST_ONCE)
    print(server.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


class Owner:
    """Another process that runs a server on `folder`."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._process.stdout is not None
        self.server = psutil.Process(int(self._process.stdout.readline()))
        self.wrapper = self.server.parent()
        assert self.wrapper is not None
        self.family = [self.server, self.wrapper, *self.wrapper.children(recursive=True)]

    def end(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE_S)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_behind_when_the_owner_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    owner = Owner(tmp_path / "nats")
    assert len(owner.family) >= 3
    owner.end(number)
    assert gone(owner.family)


async def test_the_next_start_at_once_waits_for_the_former_server_and_finds_its_store(
    tmp_path: Path, make_nats_server: MakeNATSServer, connect_nats: ConnectNATS
) -> None:
    folder = tmp_path / "nats"
    for _ in range(3):
        owner = await asyncio.to_thread(Owner, folder)
        await asyncio.to_thread(owner.end, signal.SIGKILL)
        server = await make_nats_server(data_dir=folder)
        assert not owner.server.is_running()
        broker = await connect_nats(server)
        (stored,) = await broker.read_stored("KEPT")
        assert stored.payload == b"x"
        await broker.disconnect()
        await server.stop()


async def test_a_killed_wrapper_takes_its_server_along(make_nats_server: MakeNATSServer) -> None:
    server = await make_nats_server()
    process = psutil.Process(server.pid)
    wrapper = process.parent()
    assert wrapper is not None
    wrapper.kill()
    end = await asyncio.wait_for(server.wait(), PATIENCE_S)
    assert not end.expected
    assert await asyncio.to_thread(gone, [process])
    await server.start()
    assert server.pid != process.pid


async def test_a_server_whose_guard_was_killed_is_still_stopped(make_nats_server: MakeNATSServer) -> None:
    server = await make_nats_server()
    process = psutil.Process(server.pid)
    wrapper = process.parent()
    assert wrapper is not None
    for guard in wrapper.children():
        if guard != process:
            guard.kill()
    async with within(5.0):
        await server.stop()
    assert await asyncio.to_thread(gone, [process, wrapper])


async def test_a_server_runs_in_a_session_of_its_own(make_nats_server: MakeNATSServer) -> None:
    server = await make_nats_server()
    assert server.pid is not None
    assert os.getsid(server.pid) != os.getsid(0)


async def test_an_unexpected_end_is_told_and_a_restart_keeps_port_and_store(
    make_nats_server: MakeNATSServer, connect_nats: ConnectNATS
) -> None:
    server = await make_nats_server()
    ends: list[ServerExit] = []

    def failing(end: ServerExit) -> None:
        raise RuntimeError(end.code)

    server.on_exit(failing)
    server.on_exit(ends.append)
    broker = await connect_nats(server)
    await broker.ensure_stream(STREAM)
    await broker.publish(OutgoingMessage("kept.a", b"x", "id-1"), delivery=STORED)
    port, pid = server.port, server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await asyncio.wait_for(server.wait(), PATIENCE_S)
    assert [(end.code, end.expected) for end in ends] == [(137, False)]
    assert "Server is ready" in ends[0].log_tail
    assert server.running is False
    assert server.pid is None
    await server.restart()
    assert (server.port, server.running) == (port, True)
    async with within(5.0):
        while broker.state is not ConnectionState.CONNECTED:
            await asyncio.sleep(0.005)
    assert len(await broker.read_stored("KEPT")) == 1
    await server.stop()
    assert ends[-1].expected is True
    await server.start()
    assert server.port == port


async def test_a_new_server_object_prefers_the_port_of_the_last_run(
    tmp_path: Path, make_nats_server: MakeNATSServer
) -> None:
    first = await make_nats_server(data_dir=tmp_path / "nats")
    port, token = first.port, first.token
    await first.stop()
    again = await make_nats_server(data_dir=tmp_path / "nats")
    assert (again.port, again.token) == (port, token)
    await again.stop()
    with socket.create_server(("127.0.0.1", port)):
        moved = await make_nats_server(data_dir=tmp_path / "nats")
        assert moved.port != port


async def test_starting_and_stopping_twice_is_harmless(make_nats_server: MakeNATSServer) -> None:
    server = await make_nats_server()
    pid = server.pid
    await server.start()
    assert server.pid == pid
    await server.stop()
    await server.stop()


async def test_the_token_is_private_and_needed(make_nats_server: MakeNATSServer) -> None:
    server = await make_nats_server()
    token, folder = server.token, server.config.data_dir
    assert token is not None
    assert len(token) >= 32
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("token", "server.conf"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    process = psutil.Process(server.pid)
    wrapper = process.parent()
    assert wrapper is not None
    for shown in (process, wrapper):
        assert token not in " ".join(shown.cmdline())
        assert token not in json.dumps(shown.environ())
    assert token not in repr(server.config)
    assert token not in repr(server.client_config())
    for wrong in (None, "wrong-token"):
        broker = NATSMessageBroker(NATSConfig(servers=(server.url,), token=wrong, connect_timeout_s=30.0))
        async with within(5.0):
            with pytest.raises(BusConnectionError, match=r"(?i)authorization"):
                await broker.connect()
        assert broker.state is ConnectionState.DISCONNECTED


async def test_open_access_needs_no_token(make_nats_server: MakeNATSServer, connect_nats: ConnectNATS) -> None:
    server = await make_nats_server(open_access=True)
    assert server.token is None
    await connect_nats(server)


async def test_it_listens_on_loopback_only(make_nats_server: MakeNATSServer) -> None:
    server = await make_nats_server()
    listening = [c for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert [(c.laddr.ip, c.laddr.port) for c in listening] == [("127.0.0.1", server.port)]


async def test_a_port_in_use_is_a_configuration_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = EmbeddedNATSServer(EmbeddedNATSConfig(data_dir=tmp_path / "nats", port=port))
        with pytest.raises(ConfigurationError, match=rf"nats\.port: {port} .*address already in use"):
            await server.start()
        assert not server.running
    await server.start()
    assert server.port == port
    await server.stop()


async def test_a_store_that_cannot_be_used_is_shown_with_the_log(tmp_path: Path) -> None:
    store = tmp_path / "nats" / "store"
    store.mkdir(parents=True)
    (store / "jetstream").write_text("not a folder")
    server = EmbeddedNATSServer(EmbeddedNATSConfig(data_dir=tmp_path / "nats"))
    with pytest.raises(BusConnectionError, match=r"(?s)ended with code 1: Can't start JetStream: .*its last words:"):
        await server.start()
    (store / "jetstream").unlink()
    await server.start()
    await server.stop()


async def test_a_folder_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"nats\.data_dir: .* cannot be used"):
        await EmbeddedNATSServer(EmbeddedNATSConfig(data_dir=tmp_path / "file" / "nats")).start()


async def test_a_full_disk_is_told_at_once_and_the_server_starts_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    server = EmbeddedNATSServer(EmbeddedNATSConfig(data_dir=tmp_path / "nats"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        async with within(5.0):
            with pytest.raises(
                BusConnectionError, match=r"nats cannot be written: No space left.*; make room"
            ) as caught:
                await server.start()
    assert caught.value.retryable
    assert not server.running
    await server.start()
    await server.stop()


async def test_a_server_with_too_little_room_for_a_stream_is_told_with_a_remedy(
    make_nats_server: MakeNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(await make_nats_server(store_bytes_max=1 << 24))
    await broker.ensure_stream(msgspec.structs.replace(STREAM, max_bytes=1 << 20))
    for _ in range(2):  # neither wider nor anew
        with pytest.raises(MessageBusError, match=r"insufficient storage.*1073741824 bytes.*max_file_store") as caught:
            await broker.ensure_stream(STREAM)
        assert caught.value.context["err_code"] == 10047
        assert caught.value.context["stream_bytes_max"] == 1 << 30
        await broker.request(OutgoingMessage("$JS.API.STREAM.DELETE.KEPT", b""), timeout_s=5.0)


async def test_a_folder_in_use_is_refused_at_once(make_nats_server: MakeNATSServer) -> None:
    server = await make_nats_server()
    second = EmbeddedNATSServer(EmbeddedNATSConfig(data_dir=server.config.data_dir))
    async with within(5.0):
        with pytest.raises(StoreLockedError):
            await second.start()
    assert server.running


async def test_a_server_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "slow"
    script.write_text("#!/bin/sh\necho still thinking >&2\nsleep 600\n")
    script.chmod(0o700)
    monkeypatch.setenv(BINARY_VARIABLE, str(script))
    config = EmbeddedNATSConfig(data_dir=tmp_path / "nats", start_timeout_s=0.3, stop_grace_s=0.4)
    server = EmbeddedNATSServer(config)
    with pytest.raises(BusConnectionError, match=r"(?s)did not open its port within 0.3 s.*still thinking"):
        await server.start()


async def test_a_cancelled_start_leaves_nothing_running(tmp_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    for delay_s in (0.0, 0.002, 0.005, 0.01):
        server = EmbeddedNATSServer(EmbeddedNATSConfig(data_dir=tmp_path / f"nats-{delay_s}"))
        starting = asyncio.create_task(server.start())
        await asyncio.sleep(delay_s)
        starting.cancel()
        await asyncio.wait([starting])
        if not starting.cancelled():
            await server.stop()
        assert await asyncio.to_thread(gone, [*set(psutil.Process().children(recursive=True)) - before])
        await server.start()
        await server.stop()


def test_the_wheel_holds_the_server_and_the_variable_overrides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(BINARY_VARIABLE, raising=False)
    version = subprocess.run([find_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("nats-server: v2.")
    own = tmp_path / "own-server"
    own.write_text("#!/bin/sh\n")
    monkeypatch.setenv(BINARY_VARIABLE, str(own))
    with pytest.raises(ConfigurationError, match=BINARY_VARIABLE):
        find_binary()
    own.chmod(0o700)
    assert find_binary() == own


async def test_the_largest_payload_is_configurable(make_nats_server: MakeNATSServer, connect_nats: ConnectNATS) -> None:
    server = await make_nats_server(payload_bytes_max=8 << 20)
    broker = await connect_nats(server)
    assert broker.capabilities.payload_bytes_max == 8 << 20
    await broker.ensure_stream(STREAM)
    payload = os.urandom(6 << 20)
    await broker.publish(OutgoingMessage("kept.a", payload), delivery=STORED)
    (stored,) = await broker.read_stored("KEPT")
    assert stored.payload == payload


@pytest.mark.parametrize("sync", ["always", 0.25])
async def test_the_interval_of_syncing_reaches_the_server(
    make_nats_server: MakeNATSServer, connect_nats: ConnectNATS, sync: object
) -> None:
    server = await make_nats_server(sync_interval_s=sync)
    broker = await connect_nats(server)
    await broker.ensure_stream(STREAM)
    assert (await broker.publish(OutgoingMessage("kept.a", b"x"), delivery=STORED)).sequence == 1


async def test_a_folder_with_hostile_characters_is_quoted(
    tmp_path: Path, make_nats_server: MakeNATSServer, connect_nats: ConnectNATS
) -> None:
    folder = tmp_path / 'a "b" $HOME {c} # é; include x'
    server = await make_nats_server(data_dir=folder)
    broker = await connect_nats(server)
    await broker.ensure_stream(STREAM)
    assert (folder / "store" / "jetstream").is_dir()


async def test_a_silent_peer_on_the_port_of_a_server_is_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        broker = NATSMessageBroker(NATSConfig(servers=(f"nats://127.0.0.1:{port}",), connect_timeout_s=0.5))
        async with within(10.0):
            with pytest.raises(BusConnectionError):
                await broker.connect()
