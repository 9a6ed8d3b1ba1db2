"""Where published events are: every one of them confirmed, waiting, or dropped for a reason its publisher was told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import msgspec

from polaris.domain import EventKind
from polaris.exceptions import BusConnectionError, PayloadTooLargeError, PublishError, UnconfirmedPublishError

if TYPE_CHECKING:
    from polaris.observability import MetricsCollector

REASONS = (
    "unconfirmed",
    "buffer_full",
    "expired",
    "ended",
    "away",
    "too_large",
    "refused",
    "rejected",
    "cancelled",
    "not_sent",
)


class PublishAccount(msgspec.Struct, frozen=True, kw_only=True):
    """The events of one kind that were given to the bus to publish: `published == confirmed + waiting + dropped`.

    An event that is published again counts again; requests and replies are not counted. Confirmed is what got the
    guarantee of its delivery class. The reasons of `dropped`, which the publisher got as an error each time:

    - unconfirmed: no answer in time; it may be stored, and publishing it again is safe
    - buffer_full, expired, away: the broker was away or took nothing, see `OutageBuffer`
    - ended: the bus ended before it was sent
    - too_large: over the broker's limit; refused: by the broker; rejected: by a middleware, or impossible to encode
    - cancelled: the publisher gave up; it may be stored
    - not_sent: `publish_many` did not come to it: an earlier message of its topic failed, or the publisher gave up
    """

    published: int
    confirmed: int
    waiting: int
    dropped: Mapping[str, int]


class PublishBook:
    """Keeps the account of one kind; of one bus, in its event loop."""

    __slots__ = ("confirmed", "dropped", "published")

    def __init__(self) -> None:
        self.published = 0
        self.confirmed = 0
        self.dropped: dict[str, int] = {}

    @property
    def waiting(self) -> int:
        """Events whose publishing has neither succeeded nor failed."""
        return self.published - self.confirmed - sum(self.dropped.values())

    def enter(self, events: int = 1) -> None:
        """Events were given to the bus."""
        self.published += events

    def confirm(self, events: int = 1) -> None:
        """Events got the guarantee that was asked for."""
        self.confirmed += events

    def drop(self, reason: str, events: int = 1) -> None:
        """Events will not be sent any more by this call."""
        self.dropped[reason] = self.dropped.get(reason, 0) + events

    def account(self) -> PublishAccount:
        """How it stands now."""
        return PublishAccount(
            published=self.published, confirmed=self.confirmed, waiting=self.waiting, dropped=dict(self.dropped)
        )


def new_books(collector: MetricsCollector | None) -> Mapping[EventKind, PublishBook]:
    """A book for each kind, to be read by the collector too, as one with those of its other buses."""
    books = {kind: PublishBook() for kind in EventKind}
    if collector is not None:
        shared = _SHARED.get(collector)
        if shared is None:
            shared = _SHARED[collector] = {kind: [] for kind in EventKind}
            for kind in EventKind:
                _show(collector, kind, shared[kind])
        for kind, book in books.items():
            shared[kind].append(book)
    return books


def reason_of(error: BaseException) -> str:
    """Under which reason an event counts whose publishing ended with `error`."""
    if isinstance(error, UnconfirmedPublishError):
        return "unconfirmed"
    if isinstance(error, PayloadTooLargeError):
        return "too_large"
    if isinstance(error, BusConnectionError):
        reason = error.context.get("reason")
        return reason if reason in ("buffer_full", "expired", "ended") else "away"
    if isinstance(error, PublishError):
        return "refused"
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "rejected"


_SHARED: WeakKeyDictionary[MetricsCollector, dict[EventKind, list[PublishBook]]] = WeakKeyDictionary()


def _show(collector: MetricsCollector, kind: EventKind, books: list[PublishBook]) -> None:
    instruments = collector.instruments
    instruments.events_published(kind).set_function(lambda: sum(book.published for book in books))
    instruments.events_confirmed(kind).set_function(lambda: sum(book.confirmed for book in books))
    instruments.events_waiting(kind).set_function(lambda: sum(book.waiting for book in books))
    for reason in REASONS:
        instruments.events_dropped(kind, reason).set_function(partial(_dropped, books, reason))


def _dropped(books: list[PublishBook], reason: str) -> int:
    return sum(book.dropped.get(reason, 0) for book in books)
