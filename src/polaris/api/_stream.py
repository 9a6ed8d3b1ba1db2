"""Live updates as server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import msgspec
from starlette.responses import Response, StreamingResponse

from polaris.api._live import BATCH_EVENTS_MAX, Batch, LiveFeed, LiveSubscription
from polaris.exceptions import BulkheadRejectedException

STREAMS_MAX = 256
HEARTBEAT_S = 5.0
PAUSE_S = 0.1
"""At most ten writes a second to a client that keeps up, however fast updates come."""

EVENT_STREAM_TYPE = "text/event-stream"


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """The first event on every stream."""

    boot_id: str
    """Changes when the node's process is another one."""
    resumed: bool
    """Whether the stream goes on right after the client's last event; if not, read the whole state again."""


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    """Tells a client that was too slow how many updates it missed."""

    count: int


class Streams:
    """All open event streams of one app: bounded in number, and ended together when the server stops."""

    def __init__(self, feed: LiveFeed, *, streams_max: int = STREAMS_MAX) -> None:
        self._feed = feed
        self._streams_max = streams_max
        self._open: set[LiveSubscription] = set()
        self._closed = False

    def response(self, last_event_id: str | None, *, head: bool) -> Response:
        """The answer to one client; its stream ends when the client goes, or with `close`.

        Raises `BulkheadRejectedException` when all streams are taken or the server is stopping.
        """
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        if head:
            return Response(media_type=EVENT_STREAM_TYPE, headers=headers)
        if self._closed or len(self._open) >= self._streams_max:
            reason = "stopping" if self._closed else "full"
            raise BulkheadRejectedException("live streams", active=len(self._open), queued=0, reason=reason)
        return StreamingResponse(self._frames(last_event_id), media_type=EVENT_STREAM_TYPE, headers=headers)

    def open(self) -> None:
        """Accept streams (again)."""
        self._closed = False

    def close(self) -> None:
        """End every stream at once, complete to the last event sent, and accept no more."""
        self._closed = True
        for subscription in tuple(self._open):
            subscription.close()

    async def _frames(self, last_event_id: str | None) -> AsyncGenerator[bytes, None]:
        with self._feed.subscribe(last_event_id) as subscription:
            self._open.add(subscription)
            try:
                yield self._hello(subscription)
                while (batch := await _next(subscription)) is not None:
                    yield self._frame(batch)
                    # A full batch means that more is waiting: then only the connection sets the pace.
                    if 0 < len(batch.events) < BATCH_EVENTS_MAX:
                        await asyncio.sleep(PAUSE_S)
            finally:
                self._open.discard(subscription)

    def _hello(self, subscription: LiveSubscription) -> bytes:
        hello = Hello(boot_id=self._feed.boot_id, resumed=subscription.resumed)
        event_id = self._feed.event_id(subscription.position).encode()
        return b"retry: 1000\nid: %b\nevent: hello\ndata: %b\n\n" % (event_id, msgspec.json.encode(hello))

    def _frame(self, batch: Batch) -> bytes:
        if not batch.events and not batch.dropped:
            # An event and not a comment: scripts see no comments, and this is how they notice a dead connection.
            return b"event: heartbeat\ndata: {}\n\n"
        frames = []
        if batch.dropped:
            frames.append(b"event: dropped\ndata: %b\n\n" % msgspec.json.encode(Dropped(count=batch.dropped)))
        boot_id = self._feed.boot_id.encode()
        for number, kind, payload in batch.events:
            frames.append(b"id: %b-%d\nevent: %b\ndata: %b\n\n" % (boot_id, number, kind.encode(), payload))
        return b"".join(frames)


async def _next(subscription: LiveSubscription) -> Batch | None:
    """The next updates, or an empty batch as a heartbeat when none came for a while; None at the end."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(HEARTBEAT_S):
            return await subscription.next_batch()
    return Batch(0, ())
