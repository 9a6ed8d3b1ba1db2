"""What a middleware sees of a message on its way out or in."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any, Protocol

import msgspec

from polaris.domain import PolarisEvent
from polaris.messaging._broker import DeliveryClass
from polaris.observability import TraceContext


class MessageDirection(enum.StrEnum):
    """Which way a message goes."""

    PUBLISH = "publish"
    DELIVER = "deliver"


class PayloadEncoding(Protocol):
    """What a middleware may have done to the bytes of a message once they are made."""

    @property
    def name(self) -> str:
        """What the header `content-encoding` says of the result."""
        ...

    def encode(self, payload: bytes) -> bytes | None:
        """The bytes to send instead, or None to send these as they are."""
        ...


class MessageContext(msgspec.Struct):
    """One message, or one batch of them, on its way through the chain.

    Middlewares may read everything and change `correlation_id` and `attributes`, which is theirs to pass notes in, and
    on publish `headers`, `trace` and `encoding`. `correlation_id` is never None once the bus has made the context.
    """

    topic: str
    """The concrete topic, never a pattern."""
    event: PolarisEvent
    """The event; of a batch the first one."""
    direction: MessageDirection = MessageDirection.PUBLISH
    headers: dict[str, str] = {}
    correlation_id: str | None = None
    event_type: str = ""
    """The registered name of the event's type."""
    batch: tuple[PolarisEvent, ...] | None = None
    """All events of a batch; None for a single event."""
    subscription: str | None = None
    """Who receives, by the name of its position; None on publish."""
    attempt: int = 1
    stored_at: datetime | None = None
    delivery: DeliveryClass | None = None
    """The guarantee asked for or given."""
    trace: TraceContext | None = None
    """The position that travels with the message; on publish the publisher's, unless a middleware sets another."""
    timeout_s: float = 5.0
    """How long a publish may take."""
    attributes: dict[str, Any] = {}
    result: Any = None
    """What came of it: a `Receipt` on publish, what the handler returned on delivery."""
    links: tuple[TraceContext, ...] = ()
    """Of a batch: the recorded traces that its events belong to, each once, in their order."""
    receiver: str | None = None
    """On delivery, who handles what: the same for all who share a position in a stream, else of one subscription."""
    awaits_reply: bool = False
    """On publish: it is a request."""
    encoding: PayloadEncoding | None = None
    """On publish: applied to the payload before it is sent."""
    sequence: str | None = None
    """On publish of a telemetry event: its number among those of its topic."""

    @property
    def events(self) -> tuple[PolarisEvent, ...]:
        """The event or all events of the batch."""
        return (self.event,) if self.batch is None else self.batch
