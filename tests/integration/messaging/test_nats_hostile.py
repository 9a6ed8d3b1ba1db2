"""Frames that no decent client sends: none of them ends the connection, and what can be delivered is delivered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from tests.awake import within
from tests.conftest import ConnectNATS

from polaris.exceptions import InvalidTopicError, InvalidValueError, PayloadTooLargeError
from polaris.ids import new_id
from polaris.messaging._broker import ConsumerSpec, Delivery, DeliveryClass, OutgoingMessage, StreamSpec
from polaris.messaging.brokers._embedded import EmbeddedNATSServer

STORED = DeliveryClass.AT_LEAST_ONCE

HOSTILE = {
    "a vertical tab in the subject": b"PUB {p}.a\x0bb 1\r\nx\r\n",
    "a form feed in the subject": b"PUB {p}.a\x0cb 1\r\nx\r\n",
    "a NUL in the subject": b"PUB {p}.a\x00b 1\r\nx\r\n",
    "a subject that is not UTF-8": b"PUB {p}.\xff\xfe 1\r\nx\r\n",
    "a line separator in the subject": "PUB {p}.a\u2028b 1\r\nx\r\n".encode(),
    "headers that are none": b"HPUB {p}.h 3 4\r\nabcx\r\n",
    "headers without an end": b"HPUB {p}.h 8 9\r\nNATS/1.0x\r\n",
    "empty headers": b"HPUB {p}.h 0 1\r\nx\r\n",
    "a status that is not a number": b"HPUB {p}.h 16 17\r\nNATS/1.0 \xff\xff\xff\r\n\r\nx\r\n",
    "a status like the server's own": b"HPUB {p}.h 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
    "a heartbeat like the server's own": b"HPUB {p}.h 31 31\r\nNATS/1.0 100 Idle Heartbeat\r\n\r\n\r\n",
    "header bytes that are not UTF-8": b"HPUB {p}.h 20 21\r\nNATS/1.0\r\n\xff\xfe: \xff\x00\r\n\r\nx\r\n",
    "a reply subject that is not UTF-8": b"PUB {p}.r \xff\xfe 1\r\nx\r\n",
    "a payload full of frames": b"PUB {p}.f 29\r\nMSG a 1 1\r\nx\r\n-ERR 'x'\r\nPING\r\r\n",
}


class RawClient:
    """Writes bytes to the server as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, server: EmbeddedNATSServer) -> RawClient:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        client = cls(reader, writer)
        hello = {"verbose": False, "headers": True, "no_responders": True, "auth_token": server.token}
        await client.send(b"CONNECT " + json.dumps(hello).encode() + b"\r\n")
        return client

    async def send(self, frame: bytes) -> list[bytes]:
        """Send, and return what the server has to say before it answers a ping."""
        self._writer.write(frame + b"PING\r\n")
        said = []
        async with within(5.0):
            while (line := await self._reader.readline()) != b"PONG\r\n":
                assert line, "the server hung up"
                said.append(line)
        return said

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


@pytest.fixture
async def raw(nats_server: EmbeddedNATSServer) -> AsyncIterator[RawClient]:
    client = await RawClient.connect(nats_server)
    yield client
    await client.close()


async def test_hostile_frames_reach_core_subscribers_and_hurt_nothing(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS, raw: RawClient
) -> None:
    broker = await connect_nats(nats_server)
    prefix = f"hostile{new_id()}"
    received: list[Delivery] = []

    async def on_delivery(delivery: Delivery) -> None:
        assert isinstance(delivery.headers, dict)
        delivery.subject.encode()
        received.append(delivery)

    await broker.subscribe(f"{prefix}.>", on_delivery)
    for name, frame in HOSTILE.items():
        said = await raw.send(frame.replace(b"{p}", prefix.encode()))
        assert said == [], name
    await broker.publish(OutgoingMessage(f"{prefix}.good", b"good"))
    async with within(5.0):
        while not received or received[-1].payload != b"good":
            await asyncio.sleep(0.005)
    assert len(received) == len(HOSTILE) + 1
    assert broker.reconnects == 0
    assert received[3].subject == f"{prefix}.\\xff\\xfe"


async def test_hostile_frames_that_were_stored_are_delivered_and_settled_like_any_other(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS, raw: RawClient
) -> None:
    broker = await connect_nats(nats_server)
    prefix = f"hostile{new_id()}"
    name = prefix.upper()
    await broker.ensure_stream(StreamSpec(name=name, subjects=(f"{prefix}.>",)))
    consumer = await broker.consumer(ConsumerSpec(stream=name, durable="reader", pattern=f"{prefix}.>"))
    for frame in HOSTILE.values():
        await raw.send(frame.replace(b"{p}", prefix.encode()))
    await broker.publish(OutgoingMessage(f"{prefix}.good", b"good", "id-1"), delivery=STORED)
    received: list[Delivery] = []
    while not received or received[-1].payload != b"good":
        found = await consumer.fetch(4, wait_s=5.0)
        assert found
        for delivery in found:
            await delivery.ack(confirm=True)
        received += found
    info = await consumer.info()
    assert (info.pending, info.ack_pending, info.redelivered) == (0, 0, 0)
    assert len(received) == len(await broker.read_stored(name)) >= len(HOSTILE)
    assert broker.reconnects == 0


@pytest.mark.parametrize(
    "subject", ["", "a b", "a\r\nPUB x 1", "a..b", ".a", "a.", "a.*", "a.>", "a\tb", "a\x0bb", "\ud800", 7, None]
)
async def test_a_subject_that_is_none_is_refused_before_sending(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS, subject: str
) -> None:
    broker = await connect_nats(nats_server)
    for delivery in DeliveryClass:
        with pytest.raises(InvalidTopicError):
            await broker.publish(OutgoingMessage(subject, b"x"), delivery=delivery)
    with pytest.raises(InvalidTopicError):
        await broker.request(OutgoingMessage(subject, b"x"), timeout_s=1.0)


@pytest.mark.parametrize("pattern", ["", "a b", "a..b", "a.>.b", "a*", "a.b*.c", "*>", "a\r\n", ">>"])
async def test_a_pattern_that_is_none_is_refused(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS, pattern: str
) -> None:
    broker = await connect_nats(nats_server)
    with pytest.raises(InvalidTopicError):
        await broker.subscribe(pattern, lambda _: asyncio.sleep(0))


@pytest.mark.parametrize("name", ["", "a.b", "a b", "*", "a>b", "a/b", "a\r\nPUB x 1", "x" * 256, "ä"])
async def test_a_name_that_would_change_the_question_is_refused(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS, name: str
) -> None:
    broker = await connect_nats(nats_server)
    with pytest.raises(InvalidValueError):
        await broker.ensure_stream(StreamSpec(name=name, subjects=("named.>",)))
    with pytest.raises(InvalidValueError):
        await broker.consumer(ConsumerSpec(stream="S", durable=name, pattern="named.>"))
    with pytest.raises(InvalidValueError):
        await broker.read_stored(name)
    with pytest.raises(InvalidValueError):
        await broker.erase_stored(name, 1)
    with pytest.raises(InvalidValueError):
        await broker.subscribe("named.a", lambda _: asyncio.sleep(0), group=name)


async def test_header_values_beyond_ascii_arrive_as_they_are(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(nats_server)
    prefix = f"headers{new_id()}"
    await broker.ensure_stream(StreamSpec(name=prefix, subjects=(f"{prefix}.>",)))
    headers = {"Umlaut": "Zürich ☃ 日本", "Inner": "a: b;  c", "Empty": ""}
    await broker.publish(OutgoingMessage(f"{prefix}.a", b"x", "id-ü", headers=headers), delivery=STORED)
    wanted = {**headers, "Nats-Msg-Id": "id-ü"}
    (stored,) = await broker.read_stored(prefix)
    assert stored.headers == wanted
    consumer = await broker.consumer(ConsumerSpec(stream=prefix, durable="d", pattern=f"{prefix}.>"))
    (delivery,) = await consumer.fetch(1, wait_s=5.0)
    assert delivery.headers == wanted


@pytest.mark.parametrize(
    "headers",
    [
        *({"a": value} for value in ("x\r\ny: z", "x\n", " x", "x\t", "\ud800", "\x00", 7, None)),
        *({name: "x"} for name in ("", "a b", "a:", "ä", "a\r\n", 7)),
    ],
)
async def test_headers_that_would_not_arrive_unchanged_are_refused(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS, headers: dict[str, str]
) -> None:
    broker = await connect_nats(nats_server)
    for delivery in DeliveryClass:
        with pytest.raises(InvalidValueError, match="headers"):
            await broker.publish(OutgoingMessage("headers.a", b"x", headers=headers), delivery=delivery)


async def test_headers_count_towards_the_limit_of_the_payload(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(nats_server)
    prefix = f"limit{new_id()}"
    await broker.ensure_stream(StreamSpec(name=prefix, subjects=(f"{prefix}.>",)))
    limit = broker.capabilities.payload_bytes_max
    headers = {"H": "v" * 1000}
    block = len(b"NATS/1.0\r\n") + len(b"H: \r\n") + 1000 + len(b"\r\n")
    with pytest.raises(PayloadTooLargeError) as caught:
        await broker.publish(OutgoingMessage(f"{prefix}.a", b"x" * (limit - block + 1), headers=headers))
    assert caught.value.payload_bytes == limit + 1
    message = OutgoingMessage(f"{prefix}.a", b"x" * (limit - block), headers=headers)
    assert (await broker.publish(message, delivery=STORED)).sequence == 1
    assert broker.reconnects == 0
