"""The reading of frames: whatever the network cuts them into, whatever they hold, they come out whole and in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError

from polaris.exceptions import InvalidValueError
from polaris.messaging.brokers._nats_protocol import FrameParser, decode_headers, encode_headers

Seen = tuple[int, bytes, bytes, bytes, bytes | None] | tuple[str, Any]

TOKENS = st.binary(min_size=1, max_size=12).map(lambda raw: bytes(b for b in raw if b not in b" \t\r\n") or b"x")


class Recorder:
    """Stands where the client does, and writes down what the parser hands over."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def dispatch(self, sid: int, subject: bytes, reply: bytes, payload: bytes, headers: bytes | None) -> None:
        self.seen.append((sid, subject, reply, payload, headers))

    async def _process_ping(self) -> None:
        self.seen.append(("ping", None))

    async def _process_pong(self) -> None:
        self.seen.append(("pong", None))

    async def _process_err(self, message: str) -> None:
        self.seen.append(("err", message))

    async def _process_info(self, info: Any) -> None:
        self.seen.append(("info", info))


@st.composite
def frames(draw: st.DrawFn) -> tuple[bytes, Seen | None]:
    kind = draw(st.sampled_from(["MSG", "MSG", "HMSG", "PING", "PONG", "+OK", "-ERR", "INFO"]))
    if kind == "PING":
        return b"PING\r\n", ("ping", None)
    if kind == "PONG":
        return b"PONG\r\n", ("pong", None)
    if kind == "+OK":
        return b"+OK\r\n", None
    if kind == "-ERR":
        return b"-ERR 'Permissions Violation'\r\n", ("err", "'permissions violation'")
    if kind == "INFO":
        return b'INFO {"a": [1, "x"]}\r\n', ("info", {"a": [1, "x"]})
    sid, subject = draw(st.integers(0, 10**9)), draw(TOKENS)
    reply = draw(st.one_of(st.just(b""), TOKENS))
    payload = draw(st.binary(max_size=200))
    fields = [kind.encode(), subject, str(sid).encode(), *([reply] if reply else [])]
    if kind == "MSG":
        head = b" ".join([*fields, str(len(payload)).encode()])
        return head + b"\r\n" + payload + b"\r\n", (sid, subject, reply, payload, None)
    headers = draw(st.binary(max_size=60))
    head = b" ".join([*fields, str(len(headers)).encode(), str(len(headers) + len(payload)).encode()])
    return head + b"\r\n" + headers + payload + b"\r\n", (sid, subject, reply, payload, headers)


def read(chunks: list[bytes]) -> list[Seen]:
    recorder = Recorder()
    parser = FrameParser(recorder)

    async def feed() -> None:
        for chunk in chunks:
            await parser.parse(chunk)

    asyncio.run(feed())
    assert not parser.buf
    return recorder.seen


@given(st.lists(frames(), max_size=12), st.data())
def test_frames_come_out_whole_and_in_order_however_they_are_cut(
    written: list[tuple[bytes, Seen | None]], data: st.DataObject
) -> None:
    stream = b"".join(frame for frame, _ in written)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(chunks) == [seen for _, seen in written if seen is not None]


@given(st.binary(max_size=300))
def test_bytes_of_no_server_are_a_protocol_error_or_wait_for_more(junk: bytes) -> None:
    parser = FrameParser(Recorder())
    try:
        asyncio.run(parser.parse(junk))
    except ProtocolError:
        return
    assert len(parser.buf) <= len(junk)


@pytest.mark.parametrize(
    "line",
    [b"HELLO", b"MSG a", b"MSG a b 1", b"MSG a 1 -100", b"HMSG a 1 x 5", b"HMSG a 1 9 5", b"HMSG a 5", b"INFO {"],
)
def test_a_line_that_is_no_operation_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        read([b"PING\r\n", line + b"\r\n", b"12345\r\n"])


def test_a_control_line_without_an_end_is_bounded() -> None:
    with pytest.raises(ProtocolError):
        read([b"MSG " + b"x" * 20_000] * 4)


@given(st.dictionaries(st.from_regex(r"[A-Za-z0-9_\-]{1,20}", fullmatch=True), st.text(max_size=40), max_size=6))
def test_headers_arrive_unchanged_or_are_refused(headers: dict[str, str]) -> None:
    try:
        block = encode_headers(headers)
    except InvalidValueError:
        assert any(
            value != value.strip() or not value.isprintable() or not value.isascii() for value in headers.values()
        )
        return
    assert decode_headers(block) == headers


@given(st.binary(max_size=400))
def test_a_header_block_of_any_bytes_is_read_without_an_error(block: bytes) -> None:
    for name, value in decode_headers(block).items():
        (name + value).encode()
