"""A server says that it will end (lame duck mode): what the client says, waits for and leaves behind, byte by byte."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.awake import within

from polaris.exceptions import UnconfirmedPublishError
from polaris.messaging._broker import ConnectionState, Delivery, DeliveryClass, OutgoingMessage
from polaris.messaging.brokers._nats import NATSMessageBroker
from polaris.messaging.brokers._nats_config import NATSConfig, TLSConfig
from polaris.messaging.brokers._nats_delivery import StoredDelivery

STORED = DeliveryClass.AT_LEAST_ONCE
QUIET_S = 0.3
CERTIFICATES = Path(__file__).parent / "certificates"


class Peer:
    """Speaks as much of the protocol as a server must, and remembers what it was told."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.clients = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def open(self, port: int = 0) -> Peer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def forget(self) -> None:
        self.clients = 0
        self.heard.clear()

    def stop_listening(self) -> None:
        assert self._server is not None
        self._server.close()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def close(self) -> None:
        self.stop_listening()
        self.hang_up()

    def tell(self, **info: Any) -> None:
        """Send all clients an INFO."""
        line = b"INFO %s\r\n" % json.dumps({"max_payload": 1 << 20, "headers": True, **info}).encode()
        for writer in self._writers:
            writer.write(line)

    def deliver(self, subject: str, sid: str, payload: bytes) -> None:
        (writer,) = self._writers
        writer.write(f"MSG {subject} {sid} {len(payload)}\r\n".encode() + payload + b"\r\n")

    async def hears(self, *beginnings: str) -> str:
        """Wait until it has heard lines that begin so, in this order; the last of them."""
        async with within(5.0):
            while True:
                lines = iter(self.heard)
                found = [next((line for line in lines if line.startswith(begin)), None) for begin in beginnings]
                if found[-1] is not None:
                    return found[-1]
                await asyncio.sleep(0.002)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"max_payload": 1048576, "headers": true}\r\n')
        while line := await reader.readline():
            words = line.decode().split()
            if words[0] == "CONNECT":
                self.clients += 1
                self._writers.append(writer)
            self.heard.append(" ".join(words))
            if words[0] in ("PUB", "HPUB"):
                await reader.readexactly(int(words[-1]) + 2)
            elif words[0] == "PING":
                writer.write(b"PONG\r\n")
        if writer in self._writers:
            self._writers.remove(writer)
        writer.close()


@pytest.fixture
async def peers() -> AsyncIterator[list[Peer]]:
    peers = [await Peer().open(), await Peer().open()]
    yield peers
    for peer in peers:
        peer.close()
    await asyncio.sleep(0.01)


Connect = Callable[..., Awaitable[NATSMessageBroker]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Connects to the first peer; the others have not heard of it afterwards."""
    brokers: list[NATSMessageBroker] = []

    async def connect(first: Peer, *others: Peer, **settings: Any) -> NATSMessageBroker:
        defaults = {"lame_duck_leave_within_s": 0.0, "attempt_timeout_s": 1.0, "reconnect_time_wait_max_s": 0.1}
        servers = tuple(f"nats://{peer.address}" for peer in (first, *others))
        broker = NATSMessageBroker(NATSConfig(servers=servers, **{**defaults, **settings}))
        brokers.append(broker)
        first.forget()
        while not first.clients:
            await broker.disconnect()
            await broker.connect()
        for other in others:
            other.forget()
        return broker

    yield connect
    for broker in brokers:
        await broker.disconnect()


async def nothing(_: Delivery) -> None:
    """A subscriber without interest."""


async def until(holds: Callable[[], bool]) -> None:
    async with within(5.0):
        while not holds():
            await asyncio.sleep(0.002)


async def test_a_server_that_will_end_is_left_for_one_that_it_announces(
    peers: list[Peer], connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    leaving, other = peers
    caplog.set_level(logging.INFO)
    broker = await connect(leaving)
    states: list[ConnectionState] = []
    broker.on_state(states.append)
    await broker.subscribe("a.b", nothing)
    leaving.tell(connect_urls=[leaving.address, other.address])
    leaving.tell(ldm=True, connect_urls=[other.address])
    await other.hears("CONNECT", "SUB a.b", "PING")
    await until(lambda: broker.state is ConnectionState.CONNECTED)
    assert states == [ConnectionState.RECONNECTING, ConnectionState.CONNECTED]
    assert (leaving.clients, broker.reconnects) == (1, 1)
    # Nothing is asked for any more before the last answer is waited for.
    subscriptions = sum(line.startswith("SUB") for line in leaving.heard)
    ending = leaving.heard[-subscriptions - 1 :]
    assert [line.split()[0] for line in ending] == ["UNSUB"] * subscriptions + ["PING"]
    said = [record.getMessage() for record in caplog.records if "will end" in record.getMessage()]
    assert said == [f"the NATS server {leaving.address} will end: this client moves to {other.address}"]


async def test_its_clients_do_not_leave_in_one_moment(peers: list[Peer], connect: Connect) -> None:
    leaving, other = peers
    loop = asyncio.get_running_loop()
    moments: list[float] = []
    for _ in range(12):
        broker = await connect(leaving, lame_duck_leave_within_s=0.5)
        broker.on_state(lambda state: moments.append(loop.time()) if state is ConnectionState.CONNECTED else None)
    leaving.tell(ldm=True, connect_urls=[other.address])
    await until(lambda: len(moments) == 12)
    assert max(moments) - min(moments) > 0.1


async def test_with_no_other_server_it_is_kept_until_it_hangs_up(
    peers: list[Peer], connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    leaving = peers[0]
    broker = await connect(leaving)
    # It has announced itself under a second name, which is not another server.
    leaving.tell(connect_urls=[leaving.address.replace("127.0.0.1", "localhost")])
    leaving.tell(ldm=True)
    await asyncio.sleep(QUIET_S)
    assert broker.state is ConnectionState.CONNECTED
    assert [record.getMessage() for record in caplog.records] == [
        f"the NATS server {leaving.address} will end, and no other is known: this client stays until it hangs up"
    ]
    leaving.hang_up()
    await until(lambda: leaving.clients == 2 and broker.state is ConnectionState.CONNECTED)


async def test_it_is_not_left_for_one_that_is_away_and_left_when_that_comes_up(
    peers: list[Peer], connect: Connect
) -> None:
    leaving, other = peers
    other.stop_listening()
    broker = await connect(leaving, other)
    leaving.tell(ldm=True)
    leaving.tell(ldm=True, connect_urls=[])
    await asyncio.sleep(QUIET_S)
    assert broker.state is ConnectionState.CONNECTED
    await other.open(other.port)
    await until(lambda: other.clients == 1 and broker.state is ConnectionState.CONNECTED)
    assert leaving.clients == 1
    # Back from its restart, it is one like any other.
    other.stop_listening()
    other.hang_up()
    await until(lambda: leaving.clients == 2 and broker.state is ConnectionState.CONNECTED)


class Odd(Peer):
    """Takes connections and greets as it was told to."""

    def __init__(self, greeting: bytes) -> None:
        super().__init__()
        self.greeting = greeting
        self.callers = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.callers += 1
        self._writers.append(writer)
        try:
            writer.write(self.greeting)
            await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"INFO nothing\r\n",
        b'INFO {"ldm": true}\r\n',
        b"INFO " + b" " * 1_000_000 + b"{}\r\n",
        b"INFO " + b"[" * 60_000 + b"\r\n",
    ],
    ids=["silent", "http", "unreadable", "leaving too", "endless", "deep"],
)
async def test_it_is_not_left_for_one_that_is_no_server_or_ends_too(
    peers: list[Peer], connect: Connect, greeting: bytes
) -> None:
    leaving, other = peers
    odd = Odd(greeting)
    await odd.open()
    try:
        other.stop_listening()
        broker = await connect(leaving, odd, other, attempt_timeout_s=0.2)
        odd.callers = 0
        states: list[ConnectionState] = []
        broker.on_state(states.append)
        leaving.tell(ldm=True)
        await until(lambda: odd.callers >= 2)
        assert states == []
        await other.open(other.port)
        await until(lambda: other.clients == 1 and broker.state is ConnectionState.CONNECTED)
    finally:
        odd.close()


class Encrypted(Peer):
    """Expects TLS before its greeting."""

    async def open(self, port: int = 0) -> Peer:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self


async def test_where_encryption_comes_before_the_greeting_the_other_is_asked_so_too(connect: Connect) -> None:
    leaving, plain, other = await Encrypted().open(), Odd(b"INFO {}\r\n"), await Encrypted().open()
    await plain.open()
    try:
        plain.stop_listening()
        other.stop_listening()
        tls = TLSConfig(ca_file=str(CERTIFICATES / "ca.pem"), handshake_first=True)
        broker = await connect(leaving, plain, other, attempt_timeout_s=0.5, tls=tls)
        states: list[ConnectionState] = []
        broker.on_state(states.append)
        await plain.open(plain.port)
        leaving.tell(ldm=True)
        await until(lambda: plain.callers >= 2)
        assert states == []
        await other.open(other.port)
        await until(lambda: other.clients == 1 and broker.state is ConnectionState.CONNECTED)
    finally:
        for peer in (leaving, plain, other):
            peer.close()
        await asyncio.sleep(0.01)


async def test_answers_on_their_way_come_through_and_handled_messages_are_settled(
    peers: list[Peer], connect: Connect
) -> None:
    leaving, other = peers
    broker = await connect(leaving, other)
    publishing = asyncio.create_task(
        broker.publish(OutgoingMessage("a.b", b"x", "id-1"), delivery=STORED, timeout_s=5.0)
    )
    asked = (await leaving.hears("HPUB a.b")).split()
    leaving.tell(ldm=True)
    await until(lambda: broker.state is ConnectionState.RECONNECTING)
    await StoredDelivery(broker, "a.b", "$JS.ACK.S.C.1.1.1.1.0", b"x", None).ack()
    leaving.deliver(asked[2], "1", b'{"stream": "S", "seq": 7}')
    assert (await publishing).sequence == 7
    await leaving.hears("PUB $JS.ACK.S.C.1.1.1.1.0", "UNSUB", "PING")
    await until(lambda: other.clients == 1)


async def test_an_answer_that_does_not_come_holds_nothing_up(peers: list[Peer], connect: Connect) -> None:
    leaving, other = peers
    broker = await connect(leaving, other)
    loop, sent = asyncio.get_running_loop(), OutgoingMessage("a.b", b"x", "id-1")
    publishing = asyncio.create_task(broker.publish(sent, delivery=STORED, timeout_s=60.0))
    await leaving.hears("HPUB a.b")
    began_s = loop.time()
    leaving.tell(ldm=True)
    await until(lambda: other.clients == 1 and broker.state is ConnectionState.CONNECTED)
    assert loop.time() - began_s < 2.0
    with pytest.raises(UnconfirmedPublishError, match="lost"):
        await publishing


async def test_a_client_that_ends_is_not_moved(peers: list[Peer], connect: Connect) -> None:
    leaving, other = peers
    before = asyncio.all_tasks()
    broker = await connect(leaving, other, drain_timeout_s=QUIET_S)

    async def slow(_: Delivery) -> None:
        await asyncio.sleep(60.0)

    await broker.subscribe("a.b", slow)
    leaving.deliver("a.b", (await leaving.hears("SUB a.b")).split()[-1], b"x")
    await asyncio.sleep(0.05)
    draining = asyncio.create_task(broker.drain())
    await until(lambda: broker.state is ConnectionState.DRAINING)
    leaving.tell(ldm=True)
    await draining
    assert broker.state is ConnectionState.CLOSED
    assert other.clients == 0
    # Nor one that waits for its moment to leave.
    broker = await connect(leaving, other, lame_duck_leave_within_s=600.0)
    leaving.tell(ldm=True)
    await until(lambda: any(task.get_name() == "nats-lame-duck" for task in asyncio.all_tasks()))
    await broker.disconnect()
    left = {task.get_name() for task in asyncio.all_tasks() - before}
    assert not {name for name in left if name.startswith("nats")}


async def test_a_client_that_must_not_reconnect_stays(peers: list[Peer], connect: Connect) -> None:
    leaving, other = peers
    broker = await connect(leaving, other, max_reconnect_attempts=0)
    leaving.tell(ldm=True)
    await asyncio.sleep(QUIET_S)
    assert (broker.state, other.clients) == (ConnectionState.CONNECTED, 0)
