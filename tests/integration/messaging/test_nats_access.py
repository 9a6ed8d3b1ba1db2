"""Who may come in, and what they may do there: TLS, users, permissions, on servers configured for it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.awake import PATIENCE_S, within

from polaris.exceptions import (
    BusConnectionError,
    ConfigurationError,
    MessageBusError,
    PublishError,
    SubscriptionError,
)
from polaris.messaging._broker import ConnectionState, DeliveryClass, OutgoingMessage, StreamSpec
from polaris.messaging.brokers._embedded_config import find_binary
from polaris.messaging.brokers._nats import NATSMessageBroker
from polaris.messaging.brokers._nats_config import NATSConfig, TLSConfig
from polaris.runtime import load_settings
from polaris.runtime._brokers import broker as broker_of

CERTIFICATES = Path(__file__).parent / "certificates"
CA = str(CERTIFICATES / "ca.pem")
STORED = DeliveryClass.AT_LEAST_ONCE

RunNATS = Callable[..., Awaitable[str]]


@pytest.fixture
async def run_nats(tmp_path: Path) -> AsyncIterator[RunNATS]:
    """Runs servers with settings of the test's own; returns host and port."""
    processes: list[subprocess.Popen[bytes]] = []

    async def run(**settings: Any) -> str:
        folder = tmp_path / f"server-{len(processes)}"
        folder.mkdir()
        config = {"host": "127.0.0.1", "port": -1, "ports_file_dir": str(folder), **settings}
        (folder / "server.conf").write_text(json.dumps(config))
        process = subprocess.Popen([find_binary(), "-c", folder / "server.conf"], stderr=subprocess.DEVNULL)
        processes.append(process)
        async with within(10.0):
            while True:
                assert process.poll() is None
                for file in folder.glob("*.ports"):
                    if file.read_text().endswith("}"):
                        return str(json.loads(file.read_text())["nats"][0]).partition("://")[2]
                await asyncio.sleep(0.005)

    yield run
    for process in processes:
        process.kill()
        process.wait()


def server_tls(**more: Any) -> dict[str, Any]:
    names = {"cert_file": "server.pem", "key_file": "server.key", "ca_file": "ca.pem"}
    return {**{field: str(CERTIFICATES / name) for field, name in names.items()}, **more}


async def round_trip(config: NATSConfig) -> None:
    broker = NATSMessageBroker(config)
    await broker.connect()
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def on_delivery(delivery: Any) -> None:
        received.put_nowait(delivery.payload)

    await broker.subscribe("a.b", on_delivery)
    await broker.publish(OutgoingMessage("a.b", b"x"))
    assert await asyncio.wait_for(received.get(), PATIENCE_S) == b"x"
    await broker.disconnect()


@pytest.mark.parametrize("first", [False, True], ids=["after the greeting", "before it"])
async def test_a_connection_is_encrypted_and_the_server_verified(run_nats: RunNATS, first: bool) -> None:
    address = await run_nats(tls=server_tls(handshake_first=first))
    trusted = TLSConfig(ca_file=CA, handshake_first=first)
    await round_trip(NATSConfig(servers=(f"tls://{address}",), tls=trusted))
    for tls in (TLSConfig(handshake_first=first), TLSConfig(ca_file=CA, hostname="elsewhere", handshake_first=first)):
        broker = NATSMessageBroker(NATSConfig(servers=(f"tls://{address}",), tls=tls, connect_timeout_s=30.0))
        async with within(5.0):
            with pytest.raises(BusConnectionError, match="certificate verify failed"):
                await broker.connect()


async def test_a_server_that_asks_for_certificates_gets_the_clients_own(run_nats: RunNATS) -> None:
    address = await run_nats(tls=server_tls(verify=True))
    own = TLSConfig(ca_file=CA, cert_file=str(CERTIFICATES / "client.pem"), key_file=str(CERTIFICATES / "client.key"))
    await round_trip(NATSConfig(servers=(f"tls://{address}",), tls=own))
    broker = NATSMessageBroker(
        NATSConfig(servers=(f"tls://{address}",), tls=TLSConfig(ca_file=CA), connect_timeout_s=1.0)
    )
    with pytest.raises(BusConnectionError):
        await broker.connect()


async def test_a_node_with_certificates_in_its_settings_is_let_in(run_nats: RunNATS, tmp_path: Path) -> None:
    address = await run_nats(tls=server_tls(verify=True))
    text = f"""
        [nats]
        servers = ["nats://{address}"]
        [nats.tls]
        ca_file = "{CA}"
        cert_file = "{CERTIFICATES / "client.pem"}"
        key_file = "{CERTIFICATES / "client.key"}"
        """
    (tmp_path / "polaris.toml").write_text(text)
    broker = broker_of(load_settings(tmp_path / "polaris.toml"))
    await broker.connect()
    assert broker.state is ConnectionState.CONNECTED
    await broker.disconnect()


async def test_a_node_that_requires_encryption_refuses_a_server_without(run_nats: RunNATS, tmp_path: Path) -> None:
    address = await run_nats()
    text = f'[nats]\nservers = ["nats://{address}"]\nconnect_timeout_s = 30.0\n[nats.tls]\nrequired = '
    (tmp_path / "polaris.toml").write_text(f"{text}true\n")
    async with within(5.0):
        with pytest.raises(BusConnectionError):
            await broker_of(load_settings(tmp_path / "polaris.toml")).connect()
    (tmp_path / "polaris.toml").write_text(f"{text}false\n")
    broker = broker_of(load_settings(tmp_path / "polaris.toml"))
    await broker.connect()
    await broker.disconnect()


async def test_certificate_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for tls in (TLSConfig(ca_file=str(tmp_path / "ca.pem")), TLSConfig(ca_file=str(tmp_path / "missing"))):
        with pytest.raises(ConfigurationError, match="certificate files"):
            await NATSMessageBroker(NATSConfig(tls=tls)).connect()


async def test_users_show_their_password_or_stay_out(run_nats: RunNATS) -> None:
    address = await run_nats(authorization={"user": "me", "password": "open-sesame"})
    await round_trip(NATSConfig(servers=(address_of(address),), user="me", password="open-sesame"))
    await round_trip(NATSConfig(servers=(f"nats://me:open-sesame@{address}",)))
    wrong = NATSConfig(servers=(address_of(address),), user="me", password="wrong-word", connect_timeout_s=30.0)
    broker = NATSMessageBroker(wrong)
    async with within(10.0):
        with pytest.raises(BusConnectionError, match=r"(?i)authorization") as caught:
            await broker.connect()
    assert "wrong-word" not in str(caught.value.to_dict())


async def test_what_a_user_may_not_do_is_an_error_at_once(run_nats: RunNATS, tmp_path: Path) -> None:
    permissions = {"publish": {"deny": ["secret.>"]}, "subscribe": {"deny": ["Secret.>", "secret.>"]}}
    user = {"user": "me", "password": "open-sesame", "permissions": permissions}
    address = await run_nats(authorization={"users": [user]}, jetstream={"store_dir": str(tmp_path / "store")})
    broker = NATSMessageBroker(NATSConfig(servers=(address_of(address),), user="me", password="open-sesame"))
    await broker.connect()
    async with within(5.0):
        with pytest.raises(SubscriptionError, match="permissions violation"):
            await broker.subscribe("Secret.a", lambda _: asyncio.sleep(0))
        with pytest.raises(PublishError, match="forbids"):
            await broker.publish(OutgoingMessage("secret.a", b"x"), delivery=STORED, timeout_s=60.0)
    await broker.subscribe("open.a", lambda _: asyncio.sleep(0))
    assert broker.reconnects == 0
    await broker.disconnect()


async def test_a_server_that_refuses_one_subscription_keeps_the_others(run_nats: RunNATS) -> None:
    broker = NATSMessageBroker(NATSConfig(servers=(address_of(await run_nats(max_subscriptions=4)),)))
    await broker.connect()
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def on_delivery(delivery: Any) -> None:
        received.put_nowait(delivery.payload)

    # The inbox for replies is the first of the four.
    kept = [await broker.subscribe(f"limited.{n}", on_delivery) for n in range(3)]
    with pytest.raises(SubscriptionError, match="maximum subscriptions exceeded"):
        await broker.subscribe("limited.more", on_delivery)
    await broker.publish(OutgoingMessage("limited.0", b"x"))
    assert await asyncio.wait_for(received.get(), PATIENCE_S) == b"x"
    assert broker.reconnects == 0
    await kept[0].unsubscribe()
    await broker.subscribe("limited.again", on_delivery)
    await broker.disconnect()


@pytest.mark.parametrize(
    "greeting",
    [b"", b"INFO {}\r\n", b"INFO not json\r\n", b"INFO\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"x" * 70_000],
)
async def test_a_peer_that_is_no_server_is_none(greeting: bytes) -> None:
    talking: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talking.add(task)
        writer.write(greeting)
        await asyncio.sleep(0.02)
        writer.transport.abort()
        await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])

    peer = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = peer.sockets[0].getsockname()[1]
    broker = NATSMessageBroker(NATSConfig(servers=(f"nats://127.0.0.1:{port}",), connect_timeout_s=0.5))
    async with within(10.0):
        with pytest.raises(BusConnectionError):
            await broker.connect()
    assert broker.state is ConnectionState.DISCONNECTED
    peer.close()
    await peer.wait_closed()
    await asyncio.wait(talking)


async def test_a_server_without_jetstream_says_so(run_nats: RunNATS) -> None:
    broker = NATSMessageBroker(NATSConfig(servers=(address_of(await run_nats()),)))
    await broker.connect()
    with pytest.raises(MessageBusError, match="JetStream is not available"):
        await broker.ensure_stream(StreamSpec(name="S", subjects=("a.>",)))
    with pytest.raises(PublishError):
        await broker.publish(OutgoingMessage("a.b", b"x"), delivery=STORED)
    await broker.disconnect()


async def test_nkeys_need_their_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nkeys", None)
    (tmp_path / "user.nk").write_text("seed")
    for config in (NATSConfig(nkey=str(tmp_path / "user.nk")), NATSConfig(credentials=str(tmp_path / "user.nk"))):
        with pytest.raises(ConfigurationError, match="extra"):
            await NATSMessageBroker(config).connect()


def address_of(host_and_port: str) -> str:
    return f"nats://{host_and_port}"
