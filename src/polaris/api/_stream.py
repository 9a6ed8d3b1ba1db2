"""Live updates as server-sent events: all open streams of a node, on one beat and bounded in number."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator

from starlette.responses import Response, StreamingResponse

from polaris.api._frames import Frames
from polaris.api._live import BATCH_EVENTS_MAX, LiveFeed, LiveSubscription
from polaris.api._pulse import Pulse
from polaris.exceptions import BulkheadRejectedException

STREAMS_MAX = 256
HEARTBEAT_S = 5.0
PAUSE_S = 0.1
"""At most ten writes a second to a client that keeps up, however fast updates come."""
WRITES_PER_S_MAX = 500
"""To all clients together, when these keep up: what costs is the writing. More than fifty clients get fewer each."""

EVENT_STREAM_TYPE = "text/event-stream"


class Streams:
    """All open event streams of one app: bounded in number, and ended together when the server stops.

    The clients are written to at the same moments, at most ten times a second (less often when they are more than
    fifty), so that those who keep up get the same bytes. One that does not read costs a position in the feed and what
    its connection buffers, no more.
    """

    def __init__(self, feed: LiveFeed, *, streams_max: int = STREAMS_MAX) -> None:
        self._feed = feed
        self._frames = Frames(feed)
        self._pulse = Pulse(PAUSE_S)
        self._streams_max = streams_max
        self._open: set[LiveSubscription] = set()
        self._unhear: Callable[[], None] | None = None
        self._endings: set[Callable[[], None]] = set()
        self._closed = False
        self.tap_dropped_total = 0
        """Messages that taps missed, since the start; noted by whoever answers them."""

    @property
    def taps(self) -> int:
        """How many endless answers of another kind are open."""
        return len(self._endings)

    @property
    def count(self) -> int:
        """How many streams are open."""
        return len(self._open)

    @property
    def dropped_total(self) -> int:
        """Updates that slow clients missed, since the start."""
        return self._feed.dropped_total

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
        return StreamingResponse(self._sent(last_event_id), media_type=EVENT_STREAM_TYPE, headers=headers)

    def open(self) -> None:
        """Accept streams (again)."""
        self._closed = False

    def close(self) -> None:
        """End every stream at once, complete to the last event sent, and accept no more."""
        self._closed = True
        for subscription in tuple(self._open):
            subscription.close()
        for end in tuple(self._endings):
            end()
        if self._open:
            self._pulse.beat()

    @contextlib.contextmanager
    def ending(self, end: Callable[[], None]) -> Iterator[None]:
        """Call `end` when the streams are closed during the block: for an endless answer of another kind."""
        self._endings.add(end)
        try:
            if self._closed:
                end()
            yield
        finally:
            self._endings.discard(end)

    async def _sent(self, last_event_id: str | None) -> AsyncGenerator[bytes, None]:
        with self._feed.subscribe(last_event_id) as subscription:
            self._enter(subscription)
            try:
                yield self._frames.hello(subscription)
                while (frame := await self._next(subscription)) is not None:
                    yield frame
            finally:
                self._leave(subscription)

    async def _next(self, subscription: LiveSubscription) -> bytes | None:
        """The next bytes for a client, None at the end."""
        # With a full frame waiting only the connection sets the pace.
        while subscription.missing < BATCH_EVENTS_MAX and not subscription.closed:
            asked = await self._pulse.wait(HEARTBEAT_S, soon=subscription.missing > 0)
            if subscription.missing or not asked:
                break
        return None if subscription.closed else self._frames.next(subscription)

    def _enter(self, subscription: LiveSubscription) -> None:
        self._open.add(subscription)
        self._set_pace()
        if self._unhear is None:
            self._unhear = self._feed.on_news(self._pulse.ask)

    def _leave(self, subscription: LiveSubscription) -> None:
        self._open.discard(subscription)
        self._set_pace()
        if not self._open and self._unhear is not None:
            self._unhear()
            self._unhear = None

    def _set_pace(self) -> None:
        self._pulse.pause_s = max(PAUSE_S, len(self._open) / WRITES_PER_S_MAX)
