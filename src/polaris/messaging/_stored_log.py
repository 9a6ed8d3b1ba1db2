"""A stream read in both directions and from a time on, over a port that reads forwards only."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from datetime import datetime

from polaris.messaging._broker import MessageBroker, StoredMessage

PAGE_MESSAGES = 100


class StoredLog:
    """What a stream holds, page by page; no position is moved.

    Whoever stops before the end of `forwards` or `backwards` closes it (`contextlib.aclosing`).
    """

    def __init__(self, broker: MessageBroker, stream: str) -> None:
        self._broker = broker
        self._stream = stream

    async def forwards(self, from_sequence: int = 1) -> AsyncGenerator[StoredMessage, None]:
        """Everything from a sequence on, oldest first, also what is stored meanwhile."""
        while True:
            page = await self._broker.read_stored(self._stream, from_sequence=from_sequence, count_max=PAGE_MESSAGES)
            for stored in page:
                yield stored
            if not page:
                return
            from_sequence = page[-1].sequence + 1

    async def backwards(self, before: int | None = None) -> AsyncGenerator[StoredMessage, None]:
        """Everything before a sequence (None: all that is there now), newest first."""
        if before is None:
            before = await self.end()
        while before > 1:
            start = max(1, before - PAGE_MESSAGES)
            page = await self._broker.read_stored(self._stream, from_sequence=start, count_max=before - start)
            inside = [stored for stored in page if stored.sequence < before]
            for stored in reversed(inside):
                yield stored
            # Past a window in which everything was erased, by halving.
            before = start if inside else 1 + await self._last(_before(start), start)

    async def read(self, sequence: int) -> StoredMessage | None:
        """The message at a sequence; None when there is none (any more)."""
        stored = await self._next(sequence)
        return stored if stored is not None and stored.sequence == sequence else None

    async def end(self) -> int:
        """The first sequence behind everything that is there."""
        high = 1
        while (stored := await self._next(high)) is not None:
            high = 2 * stored.sequence
        return 1 + await self._last(lambda _: True, high)

    async def begin(self, since: datetime) -> int:
        """Behind everything that was stored before `since`; time rises with the sequence."""
        return 1 + await self._last(lambda stored: stored.stored_at < since, await self.end())

    async def _last(self, early: Callable[[StoredMessage], bool], high: int) -> int:
        """The sequence of the last message before `high` that is `early`, as all before it are; 0 when none is."""
        low = 0
        while high - low > 1:
            middle = (low + high) // 2
            stored = await self._next(middle)
            if stored is not None and early(stored):
                low = stored.sequence
            else:
                high = middle
        return low

    async def _next(self, from_sequence: int) -> StoredMessage | None:
        page = await self._broker.read_stored(self._stream, from_sequence=from_sequence, count_max=1)
        return page[0] if page else None


def _before(sequence: int) -> Callable[[StoredMessage], bool]:
    return lambda stored: stored.sequence < sequence
