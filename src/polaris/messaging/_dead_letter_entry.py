"""What is kept of a message that could not be handled."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from polaris.domain import PolarisEvent, event_type
from polaris.domain._states import Timestamp
from polaris.messaging._patterns import matches


class DeadLetterReason(enum.StrEnum):
    """Why a message was put aside."""

    UNDECODABLE = "undecodable"
    """Its bytes are no valid event."""
    UNKNOWN_TYPE = "unknown_type"
    """A well-formed event of a type that nobody registered."""
    REFUSED = "refused"
    """The handler raised an error that repeating cannot help (`retryable` is False)."""
    EXHAUSTED = "exhausted"
    """The handler failed at every permitted delivery."""
    ABANDONED = "abandoned"
    """It was delivered as often as permitted and never settled: whoever took it died of it, or hung."""
    GIVEN_UP = "given_up"
    """The broker gave it up: a consumer of another client has a limit of deliveries, and did not settle it in time."""


@event_type("polaris.dead_letter")
class DeadLetter(PolarisEvent, frozen=True, omit_defaults=True):
    """A message put aside, with its original bytes.

    `payload` holds the bytes (base64 on the wire); when they would not fit into one message with the rest, it is empty
    and `payload_sequence` names the message of the dead-letter stream that holds nothing but them.
    """

    topic: str
    """Where the message was published."""
    subscription: str
    """Who could not handle it."""
    reason: DeadLetterReason
    error_code: str
    error_message: str
    attempts: int
    first_at: Timestamp
    """When it was stored, or received if it never was stored."""
    failed_at: Timestamp
    payload: bytes = b""
    payload_bytes: int = 0
    payload_sequence: int | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    stream: str | None = None
    """The stream that held the original, and its place there."""
    sequence: int | None = None


class DeadLetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries are meant: those that fit everything that is not None."""

    topic: str | None = None
    """A topic or pattern that the message was published on."""
    subscription: str | None = None
    reason: DeadLetterReason | None = None
    error_code: str | None = None
    since: Timestamp | None = None
    """Put aside at this time or later."""

    def fits(self, entry: DeadLetter) -> bool:
        """Whether the entry is among them; `since` is not looked at here, the stream's own time decides on it."""
        return (
            (self.topic is None or matches(self.topic, entry.topic))
            and self.subscription in (None, entry.subscription)
            and self.reason in (None, entry.reason)
            and self.error_code in (None, entry.error_code)
        )
