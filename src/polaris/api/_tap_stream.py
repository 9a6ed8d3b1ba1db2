"""A live tap as server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

import msgspec
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from polaris.api._stream import EVENT_STREAM_TYPE, HEARTBEAT_S, PAUSE_S, Streams
from polaris.api._tap_view import Tap, TappedEvent


class TapHello(msgspec.Struct, frozen=True, kw_only=True):
    """The first event of a tap: from now on what passes is seen."""

    pattern: str


class TapDropped(msgspec.Struct, frozen=True, kw_only=True):
    """Tells of messages that passed while the client, or the node for it, was too slow."""

    count: int


class TapResponse(StreamingResponse):
    """Shows what passes until the client goes or the server stops; the tap is closed then, whatever happened.

    Written at most ten times a second; a heartbeat shows that the connection lives while nothing passes.
    """

    def __init__(self, tap: Tap, pattern: str, streams: Streams) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(self._frames(tap, pattern), media_type=EVENT_STREAM_TYPE, headers=headers)
        self._tap = tap
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._streams.ending(self._tap.end):
                await super().__call__(scope, receive, send)
        finally:
            await self._tap.close()

    async def _frames(self, tap: Tap, pattern: str) -> AsyncGenerator[bytes, None]:
        yield b"event: hello\ndata: %b\n\n" % msgspec.json.encode(TapHello(pattern=pattern))
        while (events := await _next(tap)) != []:
            if events is None:
                yield b"event: heartbeat\ndata: {}\n\n"
            else:
                dropped = tap.dropped
                self._streams.tap_dropped_total += dropped
                yield _frame(events, dropped)
                await asyncio.sleep(PAUSE_S)


async def _next(tap: Tap) -> list[TappedEvent] | None:
    """What passed, empty at the end; None when nothing did for a while."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(HEARTBEAT_S):
            return list(await tap.next_events())
    return None


def _frame(events: Sequence[TappedEvent], dropped: int) -> bytes:
    frames = [b"event: event\ndata: %b\n\n" % msgspec.json.encode(event) for event in events]
    if dropped:
        frames.insert(0, b"event: dropped\ndata: %b\n\n" % msgspec.json.encode(TapDropped(count=dropped)))
    return b"".join(frames)
