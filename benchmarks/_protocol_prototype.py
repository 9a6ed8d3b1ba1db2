"""Prototypes of a data path of our own on `asyncio.Protocol`, to measure what nats-py's takes of an event.

Two of them. `PrototypeConnection` is the least there can be: it connects to one server and never again, reads in
`data_received`, dispatches at once, and writes in one call what gathered in one turn of the event loop;
`PrototypeBroker` puts it under the bus, for core messages only. `LeanClient` is the client of `NATSMessageBroker` as
it is, with nothing replaced but how bytes are read from the socket and written to it: everything about connecting,
authentication, reconnecting and resubscribing stays with nats-py. Neither is fit for use.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NoReturn
from urllib.parse import urlsplit

from nats.errors import AuthorizationError, Error, ProtocolError, UnexpectedEOF
from nats.protocol.parser import AUTHORIZATION_VIOLATION

from polaris.exceptions import MessageBusError
from polaris.messaging import (
    Capabilities,
    ConnectionState,
    DeliveryClass,
    NATSConfig,
    NATSMessageBroker,
    OutgoingMessage,
    Receipt,
)
from polaris.messaging._broker import (
    ConsumerSpec,
    Delivery,
    OnDelivery,
    PullConsumer,
    StateListener,
    StoredMessage,
    StreamSpec,
)
from polaris.messaging.brokers import _nats_connection
from polaris.messaging.brokers._nats_client import HardenedClient
from polaris.messaging.brokers._nats_delivery import CoreDelivery

Callback = Callable[[bytes, bytes, bytes], None]
"""Takes subject, reply subject and payload."""

_log = logging.getLogger(__name__)
_CRLF = b"\r\n"
YIELD_EVERY = 64
BUFFER_HIGH_BYTES = 2 << 20
_AT_MOST_ONCE = DeliveryClass.AT_MOST_ONCE


class PrototypeConnection(asyncio.Protocol):
    """One connection, from `open` to `close`."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._callbacks: dict[int, Callback] = {}
        self._pongs: deque[asyncio.Future[None]] = deque()
        self._outgoing: list[bytes] = []
        self._room = asyncio.Event()
        self._room.set()
        self._loop = asyncio.get_running_loop()
        self.payload_bytes_max = 1 << 20

    @classmethod
    async def open(cls, url: str) -> PrototypeConnection:
        address = urlsplit(url)
        assert address.hostname is not None
        assert address.port is not None
        loop = asyncio.get_running_loop()
        transport, connection = await loop.create_connection(cls, address.hostname, address.port)
        transport.set_write_buffer_limits(BUFFER_HIGH_BYTES)
        connection.write(b'CONNECT {"verbose":false,"pedantic":false,"lang":"python","version":"0","headers":true}\r\n')
        await connection.flush()
        return connection

    async def close(self) -> None:
        await self.flush()
        if self._transport is not None:
            self._transport.close()

    # Sending

    async def publish(self, subject: str, payload: bytes) -> None:
        self.send(subject, payload)
        if not self._room.is_set():
            await self._room.wait()

    def send(self, subject: str, payload: bytes) -> None:
        self.write(b"".join((f"PUB {subject} {len(payload)}\r\n".encode(), payload, _CRLF)))

    def write(self, frame: bytes) -> None:
        outgoing = self._outgoing
        if not outgoing:
            self._loop.call_soon(self._write_out)
        outgoing.append(frame)

    def _write_out(self) -> None:
        outgoing = self._outgoing
        if outgoing and self._transport is not None:
            self._transport.write(b"".join(outgoing))
            outgoing.clear()

    async def flush(self) -> None:
        """Wait until the server has handled all that was sent."""
        pong: asyncio.Future[None] = self._loop.create_future()
        self._pongs.append(pong)
        self.write(b"PING\r\n")
        await pong

    def subscribe(self, subject: str, callback: Callback, *, group: str = "") -> int:
        number = len(self._callbacks) + 1
        self._callbacks[number] = callback
        self.write(f"SUB {subject} {group} {number}\r\n".encode())
        return number

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        find, callbacks = data.find, self._callbacks
        while at < size:
            end = find(_CRLF, at)
            if end < 0:
                break
            if data[at] != 77:  # M
                self._control(data[at:end])
                at = end + 2
                continue
            fields = data[at:end].split(b" ")
            body = end + 2
            after = body + int(fields[-1])
            if after + 2 > size:
                break
            callback = callbacks.get(int(fields[2]))
            if callback is not None:
                callback(fields[1], fields[3] if len(fields) == 5 else b"", data[body:after])
            at = after + 2
        self._rest = data[at:] if at < size else b""

    def _control(self, line: bytes) -> None:
        if line == b"PING":
            self.write(b"PONG\r\n")
        elif line == b"PONG":
            if self._pongs:
                self._pongs.popleft().set_result(None)
        elif line.startswith(b"-ERR"):
            _log.error("the server says %s", line.decode())


class PrototypeSubscription:
    """As `NATSSubscription`: a queue and the task that hands its messages on."""

    def __init__(self, on_delivery: OnDelivery) -> None:
        self._on_delivery = on_delivery
        self._pending: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def offer(self, subject: bytes, reply: bytes, payload: bytes) -> None:
        if not self._pending:
            self._arrived.set()
        self._pending.append(CoreDelivery(subject.decode(), payload, None, reply.decode() or None))

    async def _run(self) -> None:
        pending, on_delivery = self._pending, self._on_delivery
        count = 0
        while True:
            while pending:
                await on_delivery(pending.popleft())
                count += 1
                if count % 128 == 0:
                    await asyncio.sleep(0)
            self._arrived.clear()
            await self._arrived.wait()

    async def drain(self) -> None:
        await self.unsubscribe()

    async def unsubscribe(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


class PrototypeBroker:
    """A `MessageBroker` for core messages and nothing else."""

    capabilities = Capabilities(
        durable=False, redelivers=False, ordered=True, deduplicates=False, payload_bytes_max=1 << 20
    )

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: PrototypeConnection | None = None
        self._published = 0

    @property
    def state(self) -> ConnectionState:
        return ConnectionState.DISCONNECTED if self._connection is None else ConnectionState.CONNECTED

    def on_state(self, listener: StateListener) -> Callable[[], None]:
        return lambda: None

    async def connect(self) -> None:
        if self._connection is None:
            self._connection = await PrototypeConnection.open(self._url)

    async def disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def drain(self) -> None:
        await self.disconnect()

    async def publish(
        self, message: OutgoingMessage, *, delivery: DeliveryClass = _AT_MOST_ONCE, timeout_s: float = 5.0
    ) -> Receipt:
        connection = self._require()
        connection.send(message.subject, message.payload)
        self._published += 1
        if self._published % YIELD_EVERY == 0:
            await asyncio.sleep(0)
        return Receipt(delivery=_AT_MOST_ONCE, message_id=message.message_id)

    async def subscribe(
        self, pattern: str, on_delivery: OnDelivery, *, group: str | None = None
    ) -> PrototypeSubscription:
        connection = self._require()
        subscription = PrototypeSubscription(on_delivery)
        connection.subscribe(pattern, subscription.offer, group=group or "")
        await connection.flush()
        return subscription

    def _require(self) -> PrototypeConnection:
        if self._connection is None:
            raise MessageBusError("not connected")
        return self._connection

    async def consumer(self, spec: ConsumerSpec) -> PullConsumer:
        self._refuse()

    async def ensure_stream(self, spec: StreamSpec) -> None:
        self._refuse()

    async def read_stored(
        self, stream: str, *, from_sequence: int = 1, count_max: int = 100
    ) -> Sequence[StoredMessage]:
        self._refuse()

    async def erase_stored(self, stream: str, sequence: int) -> bool:
        self._refuse()

    async def request(self, message: OutgoingMessage, *, timeout_s: float) -> Delivery:
        self._refuse()

    @staticmethod
    def _refuse() -> NoReturn:
        raise MessageBusError("the prototype knows core messages only")


class _Wire(asyncio.Protocol):
    """In place of asyncio's streams once the handshake is done; tells the streams of everything but the bytes."""

    def __init__(self, client: LeanClient, streams: asyncio.Protocol) -> None:
        self._client = client
        self._streams = streams
        self._rest = b""
        self.paused = False
        self.ended: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    def pause_writing(self) -> None:
        self.paused = True
        self._streams.pause_writing()

    def resume_writing(self) -> None:
        self.paused = False
        self._client.write_out()
        self._streams.resume_writing()

    def eof_received(self) -> None:
        self._end(UnexpectedEOF())
        self._streams.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or UnexpectedEOF())
        self._streams.connection_lost(exc)

    def _end(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_result(error)

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        try:
            while at < size:
                end = data.find(_CRLF, at)
                if end < 0:
                    if size - at > 64 * 1024:
                        raise ProtocolError
                    break
                first = data[at]
                if first == 77 or first == 72:  # M, H
                    after = self._message(data, at, end, size)
                    if after < 0:
                        break
                    at = after
                else:
                    self._client.control(data[at:end])
                    at = end + 2
        except ProtocolError as error:
            self._end(error)
            return
        self._rest = data[at:] if at < size else b""

    def _message(self, data: bytes, at: int, end: int, size: int) -> int:
        fields = data[at:end].replace(b"\t", b" ").split(b" ")
        try:
            length = int(fields[-1])
            body = end + 2
            after = body + length
            if after + 2 > size:
                return -1
            headers: bytes | None = None
            if fields[0] == b"HMSG":
                header_length = int(fields[-2])
                if not 0 <= header_length <= length:
                    raise ProtocolError
                headers = data[body : body + header_length]
                body += header_length
                fields.pop()
            elif fields[0] != b"MSG" or length < 0:
                raise ProtocolError
            reply = fields[3] if len(fields) == 5 else b""
            subject, sid = fields[1], int(fields[2])
        except (ValueError, IndexError) as error:
            raise ProtocolError from error
        self._client.dispatch(sid, subject, reply, data[body:after], headers)
        return after + 2


class LeanClient(HardenedClient):
    """The client of `NATSMessageBroker`, reading in `data_received` and writing once a turn of the event loop."""

    def __init__(self, config: NATSConfig, **listeners: Any) -> None:
        super().__init__(config, **listeners)
        self._wire: _Wire | None = None
        self._due = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def _read_loop(self) -> None:
        """Take the socket over from asyncio's streams, and wait for its end."""
        writer, reader = self._socket._io_writer, self._socket._io_reader
        if writer is None or reader is None:
            return
        transport: Any = writer.transport
        wire = self._wire = _Wire(self, transport.get_protocol())
        transport.set_protocol(wire)
        held: Any = reader
        early = bytes(held._buffer)
        held._buffer.clear()
        transport.resume_reading()
        if early:
            wire.data_received(early)
        if reader.at_eof():
            wire.eof_received()
        error = await wire.ended
        if isinstance(error, UnexpectedEOF):
            await self._report(error)
        await self._process_op_err(error)

    def control(self, line: bytes) -> None:
        """A frame that is no message."""
        if line == b"PING":
            self._write(b"PONG\r\n")
        elif line == b"PONG":
            if self._pongs:
                pong = self._pongs.pop(0)
                if not pong.done():
                    pong.set_result(True)
                self._pongs_received += 1
                self._pings_outstanding = 0
        elif line.startswith(b"-ERR"):
            # At once: a flush that is answered behind it must find it.
            message = line[5:].decode("utf-8", "backslashreplace").lower().strip("'")
            self._err = AuthorizationError() if AUTHORIZATION_VIOLATION in message else Error(message)
            self._on_error(self._err)
        elif line != b"+OK":
            # Rare, and its handling may wait: as nats-py does it.
            task = asyncio.get_running_loop().create_task(self._ps._control(line))  # type: ignore[attr-defined]
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _write(self, frame: bytes) -> None:
        self._pending.append(frame)
        self._pending_data_size += len(frame)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self.write_out)

    def write_out(self) -> None:
        """Hand all that waits to the socket, unless it is full: then it stays, and counts, here."""
        self._due = False
        writer, wire = self._socket._io_writer, self._wire
        if not self._pending or not self.is_connected or writer is None or (wire is not None and wire.paused):
            return
        writer.write(b"".join(self._pending))
        self._pending = []
        self._pending_data_size = 0

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        self.write_out()
        if force_flush and self.is_connected:
            try:
                await self._socket.drain()  # type: ignore[no-untyped-call]
            except (OSError, Error) as error:
                await self._process_op_err(error)

    async def _flusher(self) -> None:
        """There is nothing to do for it; but without it nats-py would take the connection for dead."""
        await asyncio.get_running_loop().create_future()


class LeanNATSMessageBroker(NATSMessageBroker):
    """`NATSMessageBroker` with `LeanClient`."""

    async def connect(self) -> None:
        _nats_connection.HardenedClient = LeanClient  # type: ignore[attr-defined]
        await super().connect()
