"""A clock for ordinary event loops that skips what it should wait for: the retries of code under test are instant."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class InstantClock:
    """A `polaris.clock.Clock` whose sleeps end at once and are written down in `waits`.

        clock = InstantClock()
        client = Client(retry=RetryPolicy(RetryConfig(jitter="none"), clock=clock))
        await client.load()
        assert clock.waits == [0.1, 0.2]

    For tests that need an ordinary event loop because real sockets or threads take part. Where none do, virtual time is
    the better choice (`run_virtual`): there every wait is instant, without a clock being handed in.

    Time does not stand still: a sleep moves this clock, and the time of the running loop with it, on by what was slept
    through. So deadlines, timeouts, breaks and rates see the wait as if it had been, and end or begin what they would.
    Timers that fall due meanwhile fire first, in order. Sleeps that begin in the same turn of the loop overlap, others
    follow one another; a cancelled sleep skips nothing. Everything on the loop sees its time jump, also a timer that
    guards a real peer, which had no real time to answer.

    The loop must be one of asyncio's own, which ask `time()` for everything: RuntimeError on others, such as uvloop's
    or a `VirtualTimeLoop`. It stays ahead for the rest of its life. Not moved is the deadline of `execute_sync`, which
    is measured on the machine's clock. Not thread-safe.
    """

    def __init__(self) -> None:
        self.waits: list[float] = []
        """The seconds of every sleep that was asked for, oldest first."""
        self._ahead_s = 0.0

    def now(self) -> datetime:
        """The wall clock as timezone-aware UTC, with all that was skipped."""
        return datetime.now(UTC) + timedelta(seconds=self._ahead_s)

    def monotonic(self) -> float:
        """The time of the running loop, else that of the machine with all that was skipped; never goes back."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return time.monotonic() + self._ahead_s
        return self._skipping(loop).time()

    async def sleep(self, delay_s: float) -> None:
        """Skip `delay_s` seconds in the next turn of the loop; a delay of zero or less still yields once."""
        self.waits.append(delay_s)
        loop = asyncio.get_running_loop()
        skipping = self._skipping(loop)
        due_s = loop.time() + delay_s
        woken: asyncio.Future[None] = loop.create_future()
        timer = loop.call_at(due_s, _wake, woken)
        loop.call_soon(self._skip_to, due_s, skipping, woken)
        try:
            await woken
        finally:
            timer.cancel()

    def _skip_to(self, due_s: float, skipping: _SkippingTime, woken: asyncio.Future[None]) -> None:
        if not woken.done():
            skipping.ahead_s += max(0.0, due_s - skipping.time())
            self._ahead_s = skipping.ahead_s

    def _skipping(self, loop: asyncio.AbstractEventLoop) -> _SkippingTime:
        """The time of `loop`, taken over if it was not yet, and brought to where this clock already is."""
        skipping = getattr(loop.time, "__self__", None)
        if not isinstance(skipping, _SkippingTime):
            if type(loop).time is not asyncio.BaseEventLoop.time:
                raise RuntimeError("an InstantClock needs a loop of asyncio in real time")
            skipping = _SkippingTime(loop.time)
            loop.time = skipping.time  # type: ignore[method-assign] # the one place where asyncio asks for the time
        skipping.ahead_s = self._ahead_s = max(skipping.ahead_s, self._ahead_s)
        return skipping


class _SkippingTime:
    """The time of one loop: the machine's, and what clocks have skipped on it."""

    def __init__(self, real: Callable[[], float]) -> None:
        self._real = real
        self.ahead_s = 0.0

    def time(self) -> float:
        return self._real() + self.ahead_s


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
