"""The bytes of a NATS client: read as they arrive, written once a turn of the event loop, on its own socket.

nats-py makes the connection on asyncio's streams and says hello on them. Then `Wire` takes the socket over
(`transport.set_protocol`): what arrives is parsed where it arrives, without a task that reads, and what is sent in one
turn of the event loop goes out in one write, without a task that flushes. The streams stay behind it for what nats-py
still asks them: to wait for room, and for the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from nats.aio.transport import TcpTransport
from nats.errors import Error, UnexpectedEOF

_log = logging.getLogger(__name__)

_CRLF = b"\r\n"
_LENGTHS = tuple(b"%d\r\n" % size for size in range(2_048))
"""How the line before a payload of usual size ends: writing a number costs more than looking it up."""

Parse = Callable[[bytes], Coroutine[Any, Any, None]]
"""Handles what has arrived, without ever waiting. What it raises ends the connection."""


class Transport(TcpTransport):
    """A TCP transport whose socket can be taken over, and given up without waiting for a peer that does not read."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __bool__(self) -> bool:
        # nats-py makes a transport of its own in place of one that is not connected yet.
        return True

    def at_eof(self) -> bool:
        return self._io_reader is None or bool(self._io_reader.at_eof())

    @property
    def encrypted(self) -> bool:
        return self._io_writer is not None and self._io_writer.get_extra_info("ssl_object") is not None

    def abort(self) -> None:
        for writer in (self._io_writer, self._bare_io_writer):
            if writer is not None:
                writer.transport.abort()

    def streams(self) -> tuple[asyncio.StreamReader, asyncio.Transport]:
        """The present connection, for the one who takes it over. Raises `UnexpectedEOF` when there is none any more."""
        if self._io_reader is None or self._io_writer is None or self._io_writer.is_closing():
            raise UnexpectedEOF
        transport: Any = self._io_writer.transport
        return self._io_reader, transport


class Wire:
    """What a client sends and receives, over one connection after the other. Use from one event loop.

    `parse` gets the bytes of the present connection as they arrive, in order. `on_end(error)` is awaited once for each
    connection that was taken over and then ended by itself, in the task `ending`: never for one that was let go.
    """

    def __init__(self, parse: Parse, *, on_end: Callable[[Exception], Awaitable[None]]) -> None:
        self.parse = parse
        self.ending: asyncio.Task[None] | None = None
        self._on_end = on_end
        self._line: _Line | None = None
        self._frames: list[bytes] = []
        self._frames_bytes = 0
        self._due = False

    @property
    def waiting_bytes(self) -> int:
        """What was sent and is not in the hands of the operating system, as far as that is not about to be tried."""
        line = self._line
        if line is None or not line.paused or line.over:
            return self._frames_bytes
        return self._frames_bytes + line.transport.get_write_buffer_size()

    def write(self, frame: bytes) -> None:
        """Send behind everything that was sent before, within one turn of the event loop while the socket has room.

        Without a connection it waits for one to be taken over, unless `let_go` comes first.
        """
        self._frames.append(frame)
        self._frames_bytes += len(frame)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self.write_out)

    def offer(self, head: bytes, payload: bytes, bytes_max: int) -> bool:
        """`write` the frame of a payload, unless more than `bytes_max` bytes wait: that is what it says.

        `head` is the line before the payload up to its length.
        """
        if self._frames_bytes > bytes_max or (
            self._line is not None and self._line.paused and self.waiting_bytes > bytes_max
        ):
            return False
        # Put together with all others of the turn, once.
        size = len(payload)
        length = _LENGTHS[size] if size < len(_LENGTHS) else b"%d\r\n" % size
        self._frames += (head, length, payload, _CRLF)
        self._frames_bytes += len(head) + len(length) + size + 2
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self.write_out)
        return True

    def kick(self) -> None:
        """See to it that what waits is written within one turn of the event loop, whoever sent it and when."""
        if self._frames and not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self.write_out)

    async def room(self) -> None:
        """Write what waits, and wait until a full socket has taken what it was given. A lost connection ends the wait.

        Gives others a turn even if there is nothing to wait for.
        """
        self.write_out()
        line = self._line
        if line is None or not line.paused:
            await asyncio.sleep(0)
        else:
            await line.resumed()

    def take_over(self, transport: Transport) -> None:
        """Read and write the connection of `transport` from now on; what it has read already is handled at once.

        Raises `UnexpectedEOF` when it is closed.
        """
        reader, socket = transport.streams()
        self.let_go(keep=True)
        line = self._line = _Line(self, socket)
        line.begin(reader)

    def let_go(self, *, keep: bool = False) -> None:
        """Have no connection: what still happens on the present one is ignored. `keep` what was not written yet."""
        line, self._line = self._line, None
        if line is not None:
            line.over = True
            line.wake()
        if not keep:
            self._frames = []
            self._frames_bytes = 0

    def ended(self, line: _Line, error: Exception) -> None:
        """The connection of `line` ended by itself. Until it is let go nothing is written any more."""
        if line is self._line:
            self.ending = asyncio.get_running_loop().create_task(self._tell(error), name="nats-wire-ending")

    async def _tell(self, error: Exception) -> None:
        try:
            await self._on_end(error)
        except Exception:  # boundary: nobody waits for this task
            _log.exception("the loss of the connection to NATS could not be handled")

    def write_out(self) -> None:
        """Hand all that waits to the socket, unless it is full: then it stays, and counts, here."""
        self._due = False
        line = self._line
        if line is None or line.paused or line.over or not self._frames:
            return
        frames, self._frames, self._frames_bytes = self._frames, [], 0
        try:
            line.transport.write(b"".join(frames))
        except Exception as error:  # boundary: called by the event loop, which would only log it
            line.end(error)


class _Line(asyncio.Protocol):
    """One connection, in place of asyncio's streams, which hear of everything but the bytes."""

    def __init__(self, wire: Wire, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.paused = False
        self.over = False
        """Nothing that arrives is handled any more, and nothing is written."""
        self._wire = wire
        self._streams: Any = transport.get_protocol()
        self._waiters: list[asyncio.Future[None]] = []

    def begin(self, reader: asyncio.StreamReader) -> None:
        self.transport.set_protocol(self)
        streams: Any = reader
        early = bytes(streams._buffer)  # noqa: SLF001
        streams._buffer.clear()  # noqa: SLF001
        self.paused = self._streams._paused  # noqa: SLF001
        if early:
            self.data_received(early)
        if reader.at_eof():
            self.end(UnexpectedEOF())
        else:
            # The reader pauses a transport that is ahead of it.
            self.transport.resume_reading()

    def end(self, error: Exception) -> None:
        """Say once that the connection has ended."""
        if not self.over:
            self.over = True
            self.wake()
            self._wire.ended(self, error)

    def wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def resumed(self) -> None:
        """Wait until the socket has room, or the connection has ended."""
        if self.over:
            await asyncio.sleep(0)
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)

    # What asyncio calls

    def data_received(self, data: bytes) -> None:
        if self.over:
            return
        try:
            _at_once(self._wire.parse(data))
        except (Error, OSError) as error:
            self.end(error)
        except Exception as error:  # boundary: asyncio would close the socket without a word to the client
            _log.exception("a frame of the NATS server could not be handled: the connection is given up")
            self.end(error)

    def pause_writing(self) -> None:
        self.paused = True
        self._streams.pause_writing()

    def resume_writing(self) -> None:
        self.paused = False
        self._streams.resume_writing()
        if not self.over:
            self._wire.write_out()
        self.wake()

    def eof_received(self) -> bool | None:
        self.end(UnexpectedEOF())
        keep: bool | None = self._streams.eof_received()
        return keep

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(exc or UnexpectedEOF())
        self._streams.connection_lost(exc)


def _at_once(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that does not wait: nats-py's handlers of frames are coroutines, but nothing here awaits them."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("the handling of a frame waited")
