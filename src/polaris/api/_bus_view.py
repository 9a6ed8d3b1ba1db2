"""The bus as the API shows it: what becomes of what is published and received."""

from __future__ import annotations

import msgspec


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
