"""What a broker says of all its streams and consumers: for people who look, not for the way of messages."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol, runtime_checkable

import msgspec


class ConsumerSurvey(msgspec.Struct, frozen=True, kw_only=True):
    """A position in a stream, of whomever."""

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
    """Of those, or of all that were given up, what was delivered more than once."""
    in_flight_max: int | None
    """How many may be unacknowledged; None sets no limit."""
    paused: bool = False
    """Whether the broker delivers nothing for now because somebody asked it to."""
    last_active_at: datetime | None = None
    """When something was delivered last; None when it never was, or the broker cannot tell."""


class StreamSurvey(msgspec.Struct, frozen=True, kw_only=True):
    """A stream, of whomever."""

    name: str
    subjects: tuple[str, ...]
    messages: int
    bytes: int
    bytes_max: int | None
    messages_max: int | None
    age_max_s: float | None
    first_sequence: int
    last_sequence: int
    first_at: datetime | None
    """When the oldest message was stored; None for an empty stream."""
    last_at: datetime | None
    replicas: int
    consumers: tuple[ConsumerSurvey, ...] = ()
    consumers_total: int = 0
    """More than are listed, where there are very many."""


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What there was at one moment, or nearly: the streams are asked one after the other."""

    streams: tuple[StreamSurvey, ...]
    streams_total: int
    """More than are listed, where there are very many."""


@runtime_checkable
class SurveyedBroker(Protocol):
    """A broker that can be surveyed. Nothing is changed by it, and no position moved."""

    async def survey(self, *, streams_max: int, consumers_max: int) -> Survey:
        """At most so many streams, those of POLARIS first, with at most so many consumers each, by name.

        Raises `BusConnectionError` without an answer, `MessageBusError` when the broker refuses.
        """
        ...

    async def count_stored(self, stream: str, subject: str | None = None) -> int:
        """How many messages the stream holds, of one subject if given. Raises as `survey`, and for unknown streams."""
        ...


def ours_first(name: str) -> tuple[bool, str]:
    """The key that sorts the names of streams."""
    return not name.startswith("POLARIS_"), name
