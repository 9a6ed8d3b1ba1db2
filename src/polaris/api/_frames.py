"""Live updates in the form of server-sent events (WHATWG HTML, section 9.2), framed once for all who want the same."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from polaris.api._live import LiveFeed, LiveSubscription

FRAMES_KEPT = 8
"""Clients that keep up want the same frame, and the few that do not want few others."""
BYTES_KEPT_MAX = 2 * 1024 * 1024

HEARTBEAT = b"event: heartbeat\ndata: {}\n\n"
"""An event and not a comment: scripts see no comments, and this is how they notice a dead connection."""


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """The first event on every stream."""

    boot_id: str
    """Changes when the node's process is another one."""
    resumed: bool
    """Whether the stream goes on right after the client's last event; if not, read the whole state again."""


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    """Tells a client that was too slow how many updates it missed."""

    count: int


class Frames:
    """The bytes that the clients of one feed are sent. The last few are kept, for clients that want the same."""

    def __init__(self, feed: LiveFeed) -> None:
        self._feed = feed
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._kept_bytes = 0
        self.made_total = 0
        """Frames that were put together, not taken from those kept."""

    def hello(self, subscription: LiveSubscription) -> bytes:
        """What a client gets first."""
        hello = Hello(boot_id=self._feed.boot_id, resumed=subscription.resumed)
        event_id = self._feed.event_id(subscription.position).encode()
        return b"retry: 1000\nid: %b\nevent: hello\ndata: %b\n\n" % (event_id, msgspec.json.encode(hello))

    def next(self, subscription: LiveSubscription) -> bytes:
        """What is new for a client, a heartbeat when nothing is."""
        dropped, start, end = subscription.take()
        if start == end:
            return HEARTBEAT
        frame = self._frame(start, end)
        if dropped:
            frame = b"event: dropped\ndata: %b\n\n%b" % (msgspec.json.encode(Dropped(count=dropped)), frame)
        return frame

    def _frame(self, start: int, end: int) -> bytes:
        frame = self._kept.get((start, end))
        if frame is None:
            boot_id = self._feed.boot_id.encode()
            frame = b"".join(
                b"id: %b-%d\nevent: %b\ndata: %b\n\n" % (boot_id, number, kind.encode(), payload)
                for number, kind, payload in self._feed.events(start, end)
            )
            self.made_total += 1
            self._kept[start, end] = frame
            self._kept_bytes += len(frame)
            while len(self._kept) > FRAMES_KEPT or (self._kept_bytes > BYTES_KEPT_MAX and len(self._kept) > 1):
                self._kept_bytes -= len(self._kept.popitem(last=False)[1])
        return frame
