"""The bytes of the NATS protocol, case by case: what separates, what waits, what is refused before it is sent."""

from __future__ import annotations

from typing import Any

import pytest

from polaris.exceptions import InvalidValueError
from polaris.messaging.brokers._nats_config import NATSConfig
from polaris.messaging.brokers._nats_protocol import FrameParser, decode_headers, encode_headers


class Client:
    """Stands where the client does, and keeps what the parser hands over."""

    def __init__(self) -> None:
        self.received: list[tuple[int, bytes, bytes, bytes, bytes | None]] = []
        self.pings = 0

    def dispatch(self, sid: int, subject: bytes, reply: bytes, payload: bytes, headers: bytes | None) -> None:
        self.received.append((sid, subject, reply, payload, headers))

    async def _process_ping(self) -> None:
        self.pings += 1


async def read(*chunks: bytes) -> Client:
    client = Client()
    parser = FrameParser(client)
    for chunk in chunks:
        await parser.parse(chunk)
    assert not parser.buf
    return client


@pytest.mark.parametrize("inside", [b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xff"])
async def test_only_spaces_and_tabs_separate_the_fields_of_a_frame(inside: bytes) -> None:
    subject = b"a" + inside + b"b"
    client = await read(b"MSG " + subject + b"\t7 2\r\nok\r\nPING\r\n")
    assert client.received == [(7, subject, b"", b"ok", None)]
    assert client.pings == 1


FRAMES = b"MSG a 1 5\r\nhe\r\no\r\nHMSG b 2 r 12 14\r\nNATS/1.0\r\n\r\nok\r\nPING\r\n"


@pytest.mark.parametrize("cut", range(1, len(FRAMES)))
async def test_a_message_cut_anywhere_waits_for_its_rest(cut: int) -> None:
    client = await read(FRAMES[:cut], FRAMES[cut:])
    assert client.received == [(1, b"a", b"", b"he\r\no", None), (2, b"b", b"r", b"ok", b"NATS/1.0\r\n\r\n")]
    assert client.pings == 1


async def test_what_a_client_gave_up_belongs_to_its_former_connection() -> None:
    class Reconnecting(Client):
        parser: Any

        async def _process_ping(self) -> None:
            self.parser.buf = bytearray()

    client = Reconnecting()
    client.parser = parser = FrameParser(client)
    await parser.parse(b"PING\r\nMSG a 1 2\r\nok\r\n")
    assert client.received == []
    await parser.parse(b"MSG a 1 3\r\nnew\r\n")
    assert [payload for _, _, _, payload, _ in client.received] == [b"new"]


def test_of_a_damaged_header_block_what_can_be_read_is_read() -> None:
    block = b"NATS/1.0 503 \xff\r\nGood: one\r\nno colon\r\n\xfe: \xff\r\nTwice: 1\r\nTwice: 2\r\n: \r\n\r\n"
    assert decode_headers(block) == {
        "Status": "503",
        "Description": "\\xff",
        "Good": "one",
        "\\xfe": "\\xff",
        "Twice": "2",
        "": "",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a", "x\r\nevil: 1"),
        ("a", "x\ny"),
        ("a", "\x00"),
        ("a", "\x7f"),
        ("a", " x"),
        ("a", "x\u00a0"),
        ("a", "\ud800"),
        ("a", 7),
        ("", "x"),
        ("a b", "x"),
        ("a:b", "x"),
        ("a\r\nb", "x"),
        ("é", "x"),
        (7, "x"),
    ],
)
def test_a_header_that_would_not_arrive_unchanged_is_refused(name: Any, value: Any) -> None:
    with pytest.raises(InvalidValueError, match="headers"):
        encode_headers({name: value})


def test_a_value_in_any_language_arrives_unchanged() -> None:
    headers = {"a": "日本 é", "b-_.!#$%&'*+^`|~9": "", "c": "x: y"}
    assert decode_headers(encode_headers(headers)) == headers


def test_a_client_reconnects_for_ever_unless_told_otherwise() -> None:
    assert NATSConfig().max_reconnect_attempts == -1
