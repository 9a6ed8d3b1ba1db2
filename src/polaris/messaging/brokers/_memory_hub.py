"""What a server would hold, in this process: streams, interest and inboxes."""

from __future__ import annotations

import asyncio

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.exceptions import MessageBusError
from polaris.messaging._broker import Delivery, OutgoingMessage, StreamSpec
from polaris.messaging._patterns import matches, overlap
from polaris.messaging.brokers._memory_core import MemorySubscription
from polaris.messaging.brokers._memory_deliveries import CoreDelivery
from polaris.messaging.brokers._memory_streams import NO_HEADERS, MemoryStream

ROUTES_MAX = 16_384


class InMemoryHub:
    """What a server would hold: streams and interest. Brokers that share a hub talk to each other."""

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self.streams: dict[str, MemoryStream] = {}
        self.inboxes: dict[str, asyncio.Future[Delivery]] = {}
        self._subscriptions: list[MemorySubscription] = []
        self._routes: dict[
            str, tuple[MemoryStream | None, list[MemorySubscription], list[list[MemorySubscription]]]
        ] = {}
        self._turn = 0

    @property
    def idle(self) -> bool:
        """Whether no core subscription has anything to hand over; consumers tell for themselves."""
        return all(subscription.idle for subscription in self._subscriptions)

    def add(self, subscription: MemorySubscription) -> None:
        self._subscriptions.append(subscription)
        self._routes.clear()

    def remove(self, subscription: MemorySubscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            self._routes.clear()

    def stream_of(self, subject: str) -> MemoryStream | None:
        """The stream that stores the subject, or None."""
        return (self._routes.get(subject) or self._route(subject))[0]

    def ensure_stream(self, spec: StreamSpec) -> None:
        """Create or update the stream; subjects belong to one stream only."""
        for other in self.streams.values():
            if other.spec.name != spec.name and any(overlap(a, b) for a in other.spec.subjects for b in spec.subjects):
                raise MessageBusError(
                    f"stream {spec.name!r} would store subjects of stream {other.spec.name!r}",
                    {"stream": spec.name, "other": other.spec.name},
                )
        stream = self.streams.get(spec.name)
        if stream is None:
            self.streams[spec.name] = MemoryStream(spec, self.clock, self.announce)
        else:
            stream.spec = spec
            stream.enforce_bounds()
        self._routes.clear()

    def fan_out(self, subject: str, delivery: Delivery) -> int:
        """Hand a message to every core subscription and to one member of every group; returns how many got it."""
        if self.inboxes and (inbox := self.inboxes.get(subject)) is not None:
            if not inbox.done():
                inbox.set_result(delivery)
            return 1
        _, alone, groups = self._routes.get(subject) or self._route(subject)
        for subscription in alone:
            subscription.offer(delivery)
        for members in groups:
            self._turn += 1
            members[self._turn % len(members)].offer(delivery)
        return len(alone) + len(groups)

    def announce(self, subject: str, payload: bytes) -> None:
        """Publish what a server has to say by itself: at most once, unless a stream stores the subject."""
        stream = self.stream_of(subject)
        if stream is not None:
            stream.store(OutgoingMessage(subject, payload), NO_HEADERS, len(payload))
        self.fan_out(subject, CoreDelivery(subject, payload, NO_HEADERS, None))

    def _route(
        self, subject: str
    ) -> tuple[MemoryStream | None, list[MemorySubscription], list[list[MemorySubscription]]]:
        """Find out where messages on the subject go, and remember it."""
        stream = next((found for found in self.streams.values() if found.captures(subject)), None)
        alone: list[MemorySubscription] = []
        groups: dict[str, list[MemorySubscription]] = {}
        for subscription in self._subscriptions:
            if matches(subscription.pattern, subject):
                members = alone if subscription.group is None else groups.setdefault(subscription.group, [])
                members.append(subscription)
        if len(self._routes) >= ROUTES_MAX:
            self._routes.clear()
        route = self._routes[subject] = (stream, alone, list(groups.values()))
        return route
