"""A clock that moves only when told, and stands in for the real one wherever a `Clock` is a parameter."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from itertools import count

from polaris.exceptions import InvalidValueError

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


class VirtualClock:
    """A `polaris.clock.Clock` in virtual time.

    Three ways to move it: `advance(seconds)` by hand; as the clock of a `VirtualTimeLoop`, which jumps to the next
    timer whenever nothing else can run; or `auto_advance=True`, where every `sleep` jumps at once. (On an ordinary loop
    with real deadlines `InstantClock` is the better choice: it moves the time of the loop, too.)

    Sleepers wake in order of their time, ties in order of arrival; a cancelled sleeper leaves nothing behind. The wall
    clock may be moved alone with `jump_wall`, as an operator or NTP does; monotonic time never goes back. Not
    thread-safe: one thread moves it.
    """

    def __init__(self, *, start_s: float = 1_000.0, wall: datetime = EPOCH, auto_advance: bool = False) -> None:
        if wall.tzinfo is None:
            raise InvalidValueError("wall", "a timezone-aware datetime", wall)
        self._monotonic = float(start_s)
        self._wall_offset = wall - timedelta(seconds=start_s)
        self._auto_advance = auto_advance
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._arrivals = count()

    def now(self) -> datetime:
        """The virtual wall clock, timezone-aware UTC."""
        return self._wall_offset + timedelta(seconds=self._monotonic)

    def monotonic(self) -> float:
        """Virtual seconds since an arbitrary point; never goes back."""
        return self._monotonic

    async def sleep(self, delay_s: float) -> None:
        """Suspend the caller until virtual time has moved by `delay_s`; zero or less still yields once."""
        loop = asyncio.get_running_loop()
        if delay_s <= 0 or self._auto_advance or getattr(loop, "clock", None) is self:
            if self._auto_advance:
                self.advance(max(0.0, delay_s))
                delay_s = 0.0
            await asyncio.sleep(max(0.0, delay_s))
            return
        woken: asyncio.Future[None] = loop.create_future()
        entry = (self._monotonic + delay_s, next(self._arrivals), woken)
        heapq.heappush(self._sleepers, entry)
        try:
            await woken
        except asyncio.CancelledError:
            if entry in self._sleepers:
                self._sleepers.remove(entry)
                heapq.heapify(self._sleepers)
            raise

    def advance(self, seconds: float) -> None:
        """Move monotonic and wall time forward and wake the sleepers whose time has come."""
        if not seconds >= 0:
            raise InvalidValueError("seconds", "a number of seconds >= 0", seconds)
        self.advance_to(self._monotonic + seconds)

    def advance_to(self, monotonic_s: float) -> None:
        """Move forward to an absolute monotonic time; a time in the past changes nothing."""
        self._monotonic = max(self._monotonic, monotonic_s)
        while self._sleepers and self._sleepers[0][0] <= self._monotonic:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)

    def jump_wall(self, delta: timedelta) -> None:
        """Move the wall clock alone, forwards or backwards; durations and deadlines must not notice."""
        self._wall_offset += delta

    @property
    def sleeping(self) -> int:
        """How many callers are suspended in `sleep` waiting for `advance`."""
        return len(self._sleepers)
