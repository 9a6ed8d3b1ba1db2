"""Live updates for any number of clients out of one bounded ring: a slow client loses updates and holds up nobody."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Self
from uuid import uuid4

import msgspec

from polaris.api._history_view import HealthPeriod
from polaris.api._view import (
    ActionRecord,
    ComponentView,
    LiveUpdate,
    NodeFacts,
    SampleUpdate,
    SystemView,
)
from polaris.exceptions import InvalidValueError

EVENTS_MAX = 2_048
BYTES_MAX = 8 * 1024 * 1024
BATCH_EVENTS_MAX = 256

KINDS: dict[type[LiveUpdate], str] = {
    SampleUpdate: "sample",
    ActionRecord: "action",
    ComponentView: "component",
    SystemView: "system",
    NodeFacts: "node",
    HealthPeriod: "health",
}
"""The name of the server-sent event that carries each update."""

_encode = msgspec.json.Encoder().encode
_EVENT_ID = re.compile(r"([0-9a-f]{12})-([0-9]{1,15})", re.ASCII)


class LiveEvent(NamedTuple):
    """One update in the ring: its number, the server-sent event's name, and the JSON it carries."""

    number: int
    kind: str
    payload: bytes


class Span(NamedTuple):
    """What a client takes at once: how many updates it missed, then those after number `start`, up to `end`."""

    dropped: int
    start: int
    end: int


class Batch(NamedTuple):
    """What a client gets at once: how many updates it missed before, then the updates in order."""

    dropped: int
    events: tuple[LiveEvent, ...]


class LiveFeed:
    """Takes the node's updates and hands them to every subscriber, in order.

    The last `events_max` updates (and at most `bytes_max` bytes of them) are kept. A subscriber is only a position in
    that ring: one that falls behind loses the oldest updates, is told how many, and holds up nobody. Nothing is kept
    per client. All methods belong to the event loop's thread; `publish` never waits.
    """

    def __init__(self, *, events_max: int = EVENTS_MAX, bytes_max: int = BYTES_MAX) -> None:
        if events_max < 1:
            raise InvalidValueError("events_max", "an integer of at least 1", events_max)
        if bytes_max < 1:
            raise InvalidValueError("bytes_max", "an integer of at least 1", bytes_max)
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._ring: deque[LiveEvent] = deque()
        self._ring_bytes = 0
        self._last = 0
        self._subscriptions: set[LiveSubscription] = set()
        self._listeners: list[Callable[[], None]] = []
        self.boot_id: str = uuid4().hex[:12]
        """Sets the event ids of this feed apart from those of a former process."""
        self.dropped_total = 0
        """Updates that slow clients missed, since the start."""

    @property
    def last_number(self) -> int:
        """The number of the newest update, 0 before the first."""
        return self._last

    @property
    def subscribers(self) -> int:
        """How many subscriptions are open."""
        return len(self._subscriptions)

    def publish(self, update: LiveUpdate) -> None:
        """Give `update` to every subscriber. Costs one encoding, however many there are."""
        kind = KINDS.get(type(update))
        if kind is None:
            raise InvalidValueError("update", " or ".join(known.__name__ for known in KINDS), update)
        self._last += 1
        payload = _encode(update)
        self._ring.append(LiveEvent(self._last, kind, payload))
        self._ring_bytes += len(payload)
        while len(self._ring) > self._events_max or (self._ring_bytes > self._bytes_max and len(self._ring) > 1):
            self._ring_bytes -= len(self._ring.popleft().payload)
        for subscription in self._subscriptions:
            subscription.wake()
        for listener in self._listeners:
            listener()

    def on_news(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after every update, until the returned function is called. It must be quick."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def subscribe(self, last_event_id: str | None = None) -> LiveSubscription:
        """Follow the feed from now on, or from after `last_event_id` when the ring still knows what came next.

        `resumed` of the subscription says whether it begins right after that id; if not, the client must read the whole
        state again. The caller closes it: `with feed.subscribe() as subscription`.
        """
        position = self._position(last_event_id)
        resumed = position is not None
        subscription = LiveSubscription(self, self._last if position is None else position, resumed=resumed)
        self._subscriptions.add(subscription)
        return subscription

    def event_id(self, number: int) -> str:
        """The id under which a client may come back after update `number`."""
        return f"{self.boot_id}-{number}"

    def _position(self, last_event_id: str | None) -> int | None:
        match = _EVENT_ID.fullmatch(last_event_id) if last_event_id else None
        if match is None or match[1] != self.boot_id:
            return None
        number = int(match[2])
        oldest = self._last - len(self._ring)
        return number if oldest <= number <= self._last else None

    def span_after(self, position: int) -> Span:
        """What came after `position`, as far as the ring still holds it, at most 256 updates; counts what it missed."""
        oldest = self._last - len(self._ring)
        dropped = max(0, oldest - position)
        self.dropped_total += dropped
        start = max(position, oldest)
        return Span(dropped, start, min(self._last, start + BATCH_EVENTS_MAX))

    def events(self, start: int, end: int) -> tuple[LiveEvent, ...]:
        """The updates after number `start`, up to `end`; the ring must still hold them."""
        # A client that keeps up wants the last few of thousands: count from the near end.
        return tuple(self._ring[number - self._last - 1] for number in range(start + 1, end + 1))

    def forget(self, subscription: LiveSubscription) -> None:
        """End a subscription; once more changes nothing."""
        self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End every subscription at once. The feed can go on and be subscribed to again."""
        for subscription in tuple(self._subscriptions):
            subscription.close()


class LiveSubscription:
    """One client's position in a `LiveFeed`."""

    def __init__(self, feed: LiveFeed, position: int, *, resumed: bool) -> None:
        self._feed = feed
        self._position = position
        self._news = asyncio.Event()
        self._closed = False
        self.resumed = resumed
        if position != feed.last_number:
            self._news.set()

    @property
    def position(self) -> int:
        """The number of the last update seen."""
        return self._position

    @property
    def closed(self) -> bool:
        """Whether nothing more will come."""
        return self._closed

    def wake(self) -> None:
        """Told by the feed that there is news."""
        self._news.set()

    @property
    def missing(self) -> int:
        """How many updates it has not seen."""
        return self._feed.last_number - self._position

    def take(self) -> Span:
        """Move on over what is new, at most 256 updates, without waiting. `LiveFeed.events` gives them."""
        span = self._feed.span_after(self._position)
        self._position = span.end
        if not self.missing:
            self._news.clear()
        return span

    async def next_batch(self) -> Batch | None:
        """What is new since the last call (at most 256 updates), waiting for something; None once closed.

        Cancelling the wait loses nothing: the next call returns it.
        """
        await self._news.wait()
        if self._closed:
            return None
        span = self.take()
        return Batch(span.dropped, self._feed.events(span.start, span.end))

    def close(self) -> None:
        """End it; a waiting `next_batch` returns None at once. Once more changes nothing."""
        self._closed = True
        self._news.set()
        self._feed.forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
