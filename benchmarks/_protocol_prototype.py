"""A prototype of a client of our own on `asyncio.Protocol`: the measure of what nats-py still takes of an event.

`PrototypeConnection` is the least there can be: it connects to one server and never again, reads in `data_received`,
dispatches at once, and writes in one call what gathered in one turn of the event loop. `PrototypeBroker` puts it under
the bus, for core messages only. Neither is fit for use.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import NoReturn
from urllib.parse import urlsplit

from polaris.exceptions import MessageBusError
from polaris.messaging import (
    Capabilities,
    ConnectionState,
    DeliveryClass,
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
