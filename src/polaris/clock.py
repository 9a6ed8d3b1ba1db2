"""Time as a parameter: the clock that everything which waits, measures or stamps asks."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable


@runtime_checkable
class Clock(Protocol):
    """Wall time for stamps, monotonic time for durations, and sleep.

    Durations, deadlines and timeouts use `monotonic` only, so a jump of the wall clock changes nothing.
    """

    def now(self) -> datetime:
        """The wall clock as timezone-aware UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary point; never goes back."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Suspend the calling task for `delay_s` seconds; a delay of zero or less still yields once."""
        ...


class SystemClock:
    """The clock of this machine. Stateless; `SYSTEM_CLOCK` is the shared instance."""

    __slots__ = ()

    def now(self) -> datetime:
        return datetime.now(UTC)

    # The function itself: policies ask it at every call.
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(max(0.0, delay_s))


SYSTEM_CLOCK = SystemClock()


def utc_now() -> datetime:
    """The current time as timezone-aware UTC."""
    return datetime.now(UTC)
