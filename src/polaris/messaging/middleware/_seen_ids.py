"""What remembers handled events for longer than a process lives."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol


class SeenIds(Protocol):
    """Ids of events that were handled, kept apart for each receiver: a position in a stream, by its name.

    Both methods may be called at the same time for different ids, and again for the same ones. What they raise makes
    the message come again.
    """

    async def seen(self, receiver: str, event_ids: Sequence[str]) -> Collection[str]:
        """Those of the ids that are remembered."""
        ...

    async def remember(self, receiver: str, event_ids: Sequence[str]) -> None:
        """Keep the ids; when it returns they outlive the process."""
        ...
