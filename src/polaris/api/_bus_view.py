"""The bus as the API shows it: what becomes of what is published and received, and what the broker holds."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]


class PublishedView(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the events of a kind that the node published: `published == confirmed + waiting + dropped`."""

    kind: str
    """`telemetry` or `control`."""
    published: int
    confirmed: int
    waiting: int
    dropped: dict[str, int] = {}
    """By reason; each was an error to whoever published it, and may have been published again."""


class SubscriptionView(msgspec.Struct, frozen=True, kw_only=True):
    """One of the node's subscriptions, with its counts since it began."""

    name: str
    pattern: str
    delivery: str
    paused: bool
    in_flight: int
    """Messages taken from the broker and not settled yet."""
    counts: dict[str, int]
    """By name, such as received, handled, failed, dead_lettered, missed and lost."""


class BusView(msgspec.Struct, frozen=True, kw_only=True):
    """The bus as the node uses it."""

    state: str
    """Of the connection: connected, reconnecting, ..."""
    published: tuple[PublishedView, ...] = ()
    subscriptions: tuple[SubscriptionView, ...] = ()


class ConsumerView(msgspec.Struct, frozen=True, kw_only=True):
    """A position in a stream, of this node or of anybody."""

    name: str
    patterns: tuple[str, ...]
    """What it takes of the stream; empty for everything."""
    ack: str
    """What a settlement covers: `each`, `all` or `none`."""
    durable: bool
    pending: int
    """Stored and not yet delivered: the lag."""
    unacknowledged: int
    """Delivered and not yet settled."""
    redelivered: int
    in_flight_max: int | None = None
    """How many may be unacknowledged; None sets no limit."""
    paused: bool = False
    """Whether the broker delivers nothing for now because somebody asked it to."""
    last_active_at: Timestamp | None = None
    """When something was delivered last; None when it never was, or the broker cannot tell."""


class StreamView(msgspec.Struct, frozen=True, kw_only=True):
    """A stream of the broker."""

    name: str
    subjects: tuple[str, ...]
    messages: int
    bytes: int
    bytes_max: int | None = None
    messages_max: int | None = None
    age_max_s: float | None = None
    first_sequence: int
    last_sequence: int
    first_at: Timestamp | None = None
    """When the oldest message was stored; None for an empty stream."""
    last_at: Timestamp | None = None
    replicas: int
    consumers: tuple[ConsumerView, ...] = ()
    consumers_total: int = 0
    """More than are listed, where there are very many."""


class StreamsView(msgspec.Struct, frozen=True, kw_only=True):
    """What the broker holds, as it said at `asked_at`."""

    asked_at: Timestamp
    streams: tuple[StreamView, ...]
    streams_total: int
    """More than are listed, where there are very many."""
