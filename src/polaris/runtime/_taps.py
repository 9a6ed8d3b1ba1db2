"""Looking on at what passes on the bus: ephemeral, bounded, and of no effect on anybody."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from polaris.api._tap_view import TappedEvent
from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.exceptions import BulkheadRejectedException
from polaris.runtime._tap_line import TapLine
from polaris.runtime._tapped import Tapped

if TYPE_CHECKING:
    from polaris.messaging import Delivery, MessageBroker

TAPS_MAX = 8
MESSAGES_MAX = 1_000
"""Of one tap: messages that wait to be shown."""
BYTES_MAX = 8 << 20
"""Of one tap: their bytes."""
EVENTS_AT_ONCE = 30
"""With ten frames a second, at most three hundred events a second and tap: more than anybody reads."""
READ_BYTES_AT_ONCE = 128 << 10
"""Of one tap: nothing more is read for a frame once its events were that long."""


class _Message(NamedTuple):
    topic: str
    payload: bytes
    headers: Mapping[str, str]
    received_at: datetime


class Taps:
    """All taps of a node: at most `taps_max` at once.

    They ask the broker and not the bus, as `polaris tail` does: no position is made or moved, no middleware runs, and
    what cannot be read is put aside by nobody. `own_broker`: it is for the taps alone, and connected while there are
    any.
    """

    def __init__(
        self,
        broker: MessageBroker,
        *,
        own_broker: bool = False,
        taps_max: int = TAPS_MAX,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._line = TapLine(broker, own=own_broker)
        self._taps_max = taps_max
        self._clock = clock
        self._tapped = Tapped()
        self._open: set[BusTap] = set()

    @property
    def count(self) -> int:
        """How many look on."""
        return len(self._open)

    async def open(self, pattern: str) -> BusTap:
        """Begin to look on. Raises `BulkheadRejectedException` when all taps are taken, else what the broker raises."""
        if len(self._open) >= self._taps_max:
            raise BulkheadRejectedException("taps", active=len(self._open), queued=0, reason="full")
        tap = BusTap(self._line, pattern, self._tapped, self._clock, on_close=self._open.discard)
        self._open.add(tap)
        try:
            await tap.begin()
        except BaseException:  # boundary: undone, then raised again
            await tap.close()
            raise
        return tap

    async def start(self) -> None:
        """Nothing: the first tap begins when it is asked for."""

    async def stop(self) -> None:
        """Close all that are left."""
        for tap in tuple(self._open):
            await tap.close()


class BusTap:
    """One tap; see `Tap` of the API. Messages are kept as they come, and read only when somebody is to see them."""

    def __init__(
        self, line: TapLine, pattern: str, tapped: Tapped, clock: Clock, *, on_close: Callable[[BusTap], object]
    ) -> None:
        self._line = line
        self._pattern = pattern
        self._tapped = tapped
        self._clock = clock
        self._on_close = on_close
        self._waiting: deque[_Message] = deque()
        self._waiting_bytes = 0
        self._reading: Iterator[TappedEvent] = iter(())
        """What is left of the message that is being read: a batch may be too long to be shown at once."""
        self._dropped = 0
        self._arrived = asyncio.Event()
        self._ended = False

    async def begin(self) -> None:
        """Listen to the subjects of its pattern."""
        await self._line.listen(self._pattern, self._take)

    @property
    def dropped(self) -> int:
        count, self._dropped = self._dropped, 0
        return count

    def _take(self, delivery: Delivery) -> None:
        if self._ended:
            return
        message = _Message(delivery.subject, delivery.payload, delivery.headers, self._clock.now())
        self._waiting.append(message)
        self._waiting_bytes += len(message.payload)
        # The newest stay, whatever their size.
        while len(self._waiting) > MESSAGES_MAX or (self._waiting_bytes > BYTES_MAX and len(self._waiting) > 1):
            self._waiting_bytes -= len(self._waiting.popleft().payload)
            self._dropped += 1
        self._arrived.set()

    async def next_events(self) -> Sequence[TappedEvent]:
        while not self._ended:
            events = self._read()
            if events:
                return events
            self._arrived.clear()
            await self._arrived.wait()
        return ()

    def _read(self) -> list[TappedEvent]:
        events: list[TappedEvent] = []
        read_bytes = 0
        while len(events) < EVENTS_AT_ONCE and read_bytes < READ_BYTES_AT_ONCE:
            event = next(self._reading, None)
            if event is not None:
                events.append(event)
                read_bytes += event.bytes
            elif self._waiting:
                message = self._waiting.popleft()
                self._waiting_bytes -= len(message.payload)
                self._reading = self._tapped.events(*message)
            else:
                break
        return events

    def end(self) -> None:
        self._ended = True
        self._arrived.set()

    async def close(self) -> None:
        self.end()
        self._waiting.clear()
        self._reading = iter(())
        self._on_close(self)
        await self._line.leave(self._pattern, self._take)
