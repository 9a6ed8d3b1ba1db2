"""What passes on the bus, as the API shows it to whoever looks on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Protocol

import msgspec

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]


class TappedEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event that passed, redacted; or a message that is none, with the reason and the beginning of its bytes."""

    topic: str
    received_at: Timestamp
    """When the node saw it."""
    bytes: int
    """Of the event, as it stood in its message."""
    id: str | None = None
    type: str | None = None
    time: str | None = None
    """What the event itself says, of its id, type and time."""
    event: dict[str, Any] | None = None
    """The CloudEvent as JSON; without its data where that would be too large."""
    problem: str | None = None
    """Why POLARIS cannot read it."""
    hex: str | None = None
    """The beginning of what is not even JSON."""


class Tap(Protocol):
    """One who looks on. Bounded: what he is too slow for is dropped, the oldest first, and counted."""

    @property
    def dropped(self) -> int:
        """How many messages were dropped since this was read last."""
        ...

    async def next_events(self) -> Sequence[TappedEvent]:
        """What has passed since the last call, a bounded number at a time, as soon as there is something.

        Empty when it was ended.
        """
        ...

    def end(self) -> None:
        """Let whoever waits for events get none any more. Idempotent."""
        ...

    async def close(self) -> None:
        """Look on no longer. Idempotent."""
        ...
