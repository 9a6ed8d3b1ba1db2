"""The wire of a NATS client against a peer that does what the test says: cut, in floods, not reading, gone."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from nats.errors import ProtocolError, UnexpectedEOF

from polaris.messaging.brokers._nats_protocol import FrameParser
from polaris.messaging.brokers._nats_socket import Transport, Wire

MIB = 1 << 20
CERTIFICATES = Path(__file__).parents[2] / "integration" / "messaging" / "certificates"


class Peer:
    """The other end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hear(self, count: int) -> bytes:
        async with asyncio.timeout(5.0):
            return await self.reader.readexactly(count)


class End:
    """A wire as the client uses it, and what came over it."""

    def __init__(self) -> None:
        self.received: list[tuple[bytes, bytes]] = []
        self.handled: list[str] = []
        self.errors: list[Exception] = []
        self.ended = asyncio.Event()
        self.parser = FrameParser(self)
        self.wire = Wire(self.parser.parse, on_end=self._end)
        self.transport = Transport()
        self.on_message: Callable[[bytes], None] = lambda _: None

    def dispatch(self, sid: int, subject: bytes, reply: bytes, payload: bytes, headers: bytes | None) -> None:
        self.received.append((subject, payload))
        self.on_message(payload)

    async def _process_ping(self) -> None:
        self.handled.append("PING")
        self.wire.write(b"PONG\r\n")

    async def _process_pong(self) -> None:
        self.handled.append("PONG")

    async def _process_err(self, message: str) -> None:
        self.handled.append(message)

    async def _process_info(self, info: dict[str, Any]) -> None:
        await asyncio.sleep(0)

    async def _end(self, error: Exception) -> None:
        self.errors.append(error)
        self.ended.set()

    async def has(self, count: int) -> None:
        async with asyncio.timeout(5.0):
            while len(self.received) < count:
                await asyncio.sleep(0.001)

    async def over(self) -> Exception:
        async with asyncio.timeout(5.0):
            await self.ended.wait()
        (error,) = self.errors
        return error


async def closed(end: End) -> None:
    waiting = end.transport.wait_closed()  # type: ignore[no-untyped-call]
    async with asyncio.timeout(5.0):
        await asyncio.gather(waiting, return_exceptions=True)


Meet = Callable[..., Awaitable[Peer]]


@pytest.fixture
async def meet() -> AsyncIterator[Meet]:
    """Connect an end to a new peer that greets it with `early`, and let the wire take over."""
    opened: list[tuple[asyncio.Server, Peer, End]] = []

    async def connect(end: End, early: bytes = b"", *, tls: bool = False, take_over: bool = True) -> Peer:
        met: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
                await writer.start_tls(context)
            met.set_result(Peer(reader, writer))

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = urlparse(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await end.transport.connect(address, 1024, 5)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            await end.transport.connect_tls("localhost", context, 1024, 5)
        peer = await met
        opened.append((server, peer, end))
        if early:
            await peer.say(early)
            reader, _ = end.transport.streams()
            streams: Any = reader
            async with asyncio.timeout(5.0):
                while len(streams._buffer) < len(early):
                    await asyncio.sleep(0.001)
        end.parser.reset()
        if take_over:
            end.wire.take_over(end.transport)
        return peer

    yield connect
    for server, peer, end in opened:
        end.wire.let_go()
        end.transport.abort()
        peer.writer.transport.abort()
        server.close()
        await server.wait_closed()
        await asyncio.gather(peer.writer.wait_closed(), closed(end), return_exceptions=True)


FRAMES = b"MSG a 1 5\r\nhe\r\no\r\nPING\r\nHMSG b 2 r 12 14\r\nNATS/1.0\r\n\r\nok\r\n-ERR 'Slow'\r\nPONG\r\n"
CONTENT = [(b"a", b"he\r\no"), (b"b", b"ok")]
HANDLED = ["PING", "'slow'", "PONG"]


async def test_frames_cut_at_any_byte_come_out_whole_and_in_order(meet: Meet) -> None:
    end = End()
    await meet(end)
    line = end.wire._line
    assert line is not None
    for cut in range(1, len(FRAMES)):
        end.received.clear()
        end.handled.clear()
        line.data_received(FRAMES[:cut])
        line.data_received(FRAMES[cut:])
        assert (end.received, end.handled) == (CONTENT, HANDLED)
    assert end.errors == []


async def test_frames_that_come_byte_by_byte_or_all_at_once_come_out_alike(meet: Meet) -> None:
    end = End()
    peer = await meet(end)
    await peer.say(FRAMES * 100)
    await end.has(200)
    line = end.wire._line
    assert line is not None
    for byte in FRAMES:
        line.data_received(bytes([byte]))
    assert end.received == CONTENT * 101
    assert end.handled == HANDLED * 101


@pytest.mark.parametrize("tls", [False, True])
async def test_what_was_read_before_the_take_over_is_handled_first(meet: Meet, tls: bool) -> None:
    end = End()
    # So much that the reader has paused its transport, and cut in a frame.
    early = b"".join(b"MSG a 1 4\r\n%04d\r\n" % number for number in range(400))
    peer = await meet(end, early[:-3], tls=tls)
    assert len(end.received) == 399
    await peer.say(early[-3:] + b"MSG a 1 4\r\nlast\r\n")
    await end.has(401)
    assert [payload for _, payload in end.received] == [*(b"%04d" % number for number in range(400)), b"last"]


@pytest.mark.parametrize("tls", [False, True])
async def test_a_ping_in_a_flood_is_answered_before_the_flood_ends(meet: Meet, tls: bool) -> None:
    end = End()
    peer = await meet(end, tls=tls)
    flood = asyncio.create_task(peer.say(b"PING\r\n" + b"MSG a 1 1\r\nx\r\n" * 400_000))
    assert await peer.hear(6) == b"PONG\r\n"
    assert len(end.received) < 400_000
    await flood
    await end.has(400_000)


async def test_a_flood_leaves_turns_of_the_event_loop_to_others(meet: Meet) -> None:
    end = End()
    peer = await meet(end)
    sent = asyncio.create_task(peer.say(b"MSG a 1 1\r\nx\r\n" * 400_000))
    most, before = 0, 0
    while len(end.received) < 400_000:
        await asyncio.sleep(0)
        most, before = max(most, len(end.received) - before), len(end.received)
    await sent
    # One read of the socket, 256 KiB, and not more, in one turn.
    assert most <= (256 << 10) // 14 + 1


async def test_a_large_message_in_many_reads_is_put_together_once(monkeypatch: pytest.MonkeyPatch) -> None:
    end = End()
    looks: list[int] = []
    look = end.parser._message

    def counted(buffer: bytes, at: int, line_end: int, size: int) -> int:
        looks.append(size)
        return look(buffer, at, line_end, size)

    monkeypatch.setattr(end.parser, "_message", counted)
    payload = bytes(range(256)) * (8 * MIB // 256)
    stream = b"MSG a 1 %d\r\n%b\r\nMSG b 1 2\r\nok\r\nMSG" % (len(payload), payload)
    for at in range(0, len(stream), 4096):
        await end.parser.parse(stream[at : at + 4096])
    assert end.received == [(b"a", payload), (b"b", b"ok")]
    assert end.parser.buf == b"MSG"
    # Once at its beginning, once when it is whole: the parts between are not looked at.
    assert len(looks) == 3


@pytest.mark.parametrize("tls", [False, True])
async def test_a_message_of_8_mib_travels_both_ways(meet: Meet, tls: bool) -> None:
    end = End()
    peer = await meet(end, tls=tls)
    payload = bytes(range(256)) * (8 * MIB // 256)
    frame = b"MSG a 1 %d\r\n%b\r\n" % (len(payload), payload)
    sending = asyncio.create_task(peer.say(frame))
    end.wire.write(frame)
    assert await peer.hear(len(frame)) == frame
    await sending
    await end.has(1)
    assert end.received == [(b"a", payload)]


async def test_what_is_sent_in_one_turn_goes_out_in_one_write(meet: Meet, monkeypatch: pytest.MonkeyPatch) -> None:
    end = End()
    await meet(end)
    _, transport = end.transport.streams()
    written: list[bytes] = []
    monkeypatch.setattr(transport, "write", written.append)
    for number in range(100):
        end.wire.write(b"%d\r\n" % number)
    assert written == []
    assert end.wire.waiting_bytes == 390
    await asyncio.sleep(0)
    end.wire.write(b"next\r\n")
    await asyncio.sleep(0)
    assert written == [b"".join(b"%d\r\n" % number for number in range(100)), b"next\r\n"]
    assert end.wire.waiting_bytes == 0


async def test_what_is_offered_goes_out_between_what_is_sent_before_and_after(meet: Meet) -> None:
    end = End()
    peer = await meet(end)
    end.wire.write(b"first\r\n")
    assert end.wire.offer(b"PUB a  ", b"ok", MIB)
    assert end.wire.waiting_bytes == 21
    end.wire.write(b"last\r\n")
    expected = b"first\r\nPUB a  2\r\nok\r\nlast\r\n"
    assert await peer.hear(len(expected)) == expected
    assert end.wire.offer(b"PUB a  ", b"", MIB)
    assert await peer.hear(12) == b"PUB a  0\r\n\r\n"
    # Longer than those whose length is at hand.
    assert end.wire.offer(b"PUB a  ", b"x" * 2_048, MIB)
    assert await peer.hear(2_063) == b"PUB a  2048\r\n" + b"x" * 2_048 + b"\r\n"


async def test_nothing_is_taken_that_is_offered_behind_more_than_may_wait(meet: Meet) -> None:
    end = End()
    peer = await meet(end)
    end.wire.write(b"x" * 100)
    assert not end.wire.offer(b"PUB a  ", b"ok", 99)
    assert end.wire.offer(b"PUB a  ", b"ok", 100)
    assert await peer.hear(114) == b"x" * 100 + b"PUB a  2\r\nok\r\n"
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    sent = await fill(end)
    # All of it is in the transport's own buffer, or on its way there.
    end.wire.write_out()
    assert not end.wire.offer(b"PUB a  ", b"ok", end.wire.waiting_bytes - 1)
    peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
    assert await peer.hear(sent) == b"x" * sent


async def fill(end: End) -> int:
    """Send until the socket takes no more; how many bytes that were."""
    sent = 0
    while end.wire.waiting_bytes < MIB:
        end.wire.write(b"x" * 65_536)
        sent += 65_536
        await asyncio.sleep(0)
    return sent


@pytest.mark.parametrize("tls", [False, True])
async def test_a_peer_that_reads_slowly_makes_senders_wait_and_loses_nothing(meet: Meet, tls: bool) -> None:
    end = End()
    peer = await meet(end, tls=tls)
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    sent = await fill(end)
    waiting = asyncio.create_task(end.wire.room())
    await asyncio.sleep(0.02)
    assert not waiting.done()
    # The bytes in the transport's own buffer count as well.
    _, transport = end.transport.streams()
    assert 0 < transport.get_write_buffer_size() < end.wire.waiting_bytes
    cancelled = asyncio.create_task(end.wire.room())
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
    end.wire.write(b"last")
    assert await peer.hear(sent + 4) == b"x" * sent + b"last"
    await asyncio.wait_for(waiting, 5.0)
    while end.wire.waiting_bytes:
        await end.wire.room()
    assert end.errors == []


async def test_waiting_for_room_ends_when_the_connection_does(meet: Meet) -> None:
    for ending in ("the peer hangs up", "let go"):
        end = End()
        peer = await meet(end)
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await fill(end)
        waiting = asyncio.create_task(end.wire.room())
        await asyncio.sleep(0)
        if ending == "let go":
            end.wire.let_go()
        else:
            peer.writer.transport.abort()
        await asyncio.wait_for(waiting, 5.0)
        # Without a connection nothing is to be waited for, but others get their turn.
        async with asyncio.timeout(5.0):
            await end.wire.room()
        assert bool(end.errors) is (ending != "let go")
        end.wire.let_go()
        assert end.wire.waiting_bytes == 0


async def test_a_connection_that_is_cut_in_a_frame_ends_and_the_next_one_begins_anew(meet: Meet) -> None:
    end = End()
    peer = await meet(end)
    await peer.say(b"MSG a 1 2\r\nok\r\nMSG a 1 100\r\nhalf")
    await end.has(1)
    peer.writer.close()
    assert isinstance(await end.over(), UnexpectedEOF)
    former = end.wire._line
    assert former is not None
    end.wire.write(b"never sent")
    end.wire.let_go()
    end.transport.abort()
    end.wire.write(b"sent later")
    peer = await meet(end)
    end.wire.kick()
    assert await peer.hear(10) == b"sent later"
    former.data_received(b"MSG a 1 3\r\nold\r\n")
    await peer.say(b"MSG a 1 3\r\nnew\r\n")
    await end.has(2)
    assert end.received == [(b"a", b"ok"), (b"a", b"new")]
    former.connection_lost(None)
    await asyncio.sleep(0)
    assert len(end.errors) == 1


async def test_a_connection_that_was_let_go_is_not_heard_any_more(meet: Meet) -> None:
    end = End()
    peer = await meet(end)
    line = end.wire._line
    assert line is not None
    end.on_message = lambda payload: end.wire.let_go() if payload == b"last" else None
    await peer.say(b"MSG a 1 4\r\nlast\r\n")
    await end.has(1)
    line.data_received(b"MSG a 1 5\r\nafter\r\n")
    await peer.say(b"MSG a 1 5\r\nafter\r\n")
    peer.writer.close()
    async with asyncio.timeout(5.0):
        while not line.transport.is_closing() and not end.transport.at_eof():
            await asyncio.sleep(0.001)
    assert end.received == [(b"a", b"last")]
    assert end.errors == []


@pytest.mark.parametrize(
    ("said", "raised"),
    [
        (b"HELLO\r\n", ProtocolError),
        (b'INFO {"a": 1}\r\n', RuntimeError),
        (b"MSG a 1 3\r\nbad\r\n", IndexError),
    ],
)
async def test_what_cannot_be_handled_ends_the_connection_once_and_is_told(
    meet: Meet, caplog: pytest.LogCaptureFixture, said: bytes, raised: type[Exception]
) -> None:
    end = End()

    def on_message(payload: bytes) -> None:
        if payload == b"bad":
            raise IndexError("a defect")

    end.on_message = on_message
    peer = await meet(end)
    await peer.say(b"MSG a 1 2\r\nok\r\n" + said + b"MSG a 1 5\r\nafter\r\n")
    assert type(await end.over()) is raised
    await peer.say(b"MSG a 1 5\r\nafter\r\n")
    await asyncio.sleep(0.01)
    assert (b"a", b"after") not in end.received
    assert len(end.errors) == 1
    assert ("could not be handled" in caplog.text) is (raised is not ProtocolError)


async def test_a_failure_of_the_one_who_is_told_of_the_end_is_logged(
    meet: Meet, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: Exception) -> None:
        raise RuntimeError("a defect of the client")

    end = End()
    end.wire = Wire(end.parser.parse, on_end=fail)
    peer = await meet(end)
    with caplog.at_level(logging.ERROR):
        peer.writer.close()
        async with asyncio.timeout(5.0):
            while end.wire.ending is None or not end.wire.ending.done():
                await asyncio.sleep(0.001)
    assert "a defect of the client" in caplog.text


async def test_a_connection_that_is_gone_before_it_is_taken_over_ends_at_once(meet: Meet) -> None:
    end = End()
    with pytest.raises(UnexpectedEOF):
        end.wire.take_over(end.transport)
    peer = await meet(end, take_over=False)
    await peer.say(b"MSG a 1 2\r\nok\r\n")
    peer.writer.write_eof()
    reader, _ = end.transport.streams()
    streams: Any = reader
    async with asyncio.timeout(5.0):
        while not streams._eof:
            await asyncio.sleep(0.001)
    end.wire.take_over(end.transport)
    assert isinstance(await end.over(), UnexpectedEOF)
    assert end.received == [(b"a", b"ok")]
    end = End()
    await meet(end, take_over=False)
    end.transport.abort()
    await closed(end)
    with pytest.raises(UnexpectedEOF):
        end.wire.take_over(end.transport)


@pytest.mark.parametrize("tls", [False, True])
async def test_bytes_that_are_pending_are_written_when_closing_and_dropped_when_aborting(meet: Meet, tls: bool) -> None:
    for closing in (True, False):
        end = End()
        peer = await meet(end, tls=tls)
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        sent = await fill(end)
        room = asyncio.create_task(end.wire.room())
        await asyncio.sleep(0)
        if closing:
            peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
            heard = asyncio.create_task(peer.hear(sent))
            await room
            end.wire.let_go()
            end.transport.close()  # type: ignore[no-untyped-call]
            assert await heard == b"x" * sent
        else:
            end.wire.let_go()
            end.transport.abort()
            await asyncio.wait_for(room, 5.0)
        await closed(end)
        assert end.errors == []
        peer.writer.transport.abort()
