"""The recent outcomes that a breaker in rate mode judges by: the last n calls, or the last n seconds."""

from __future__ import annotations

from collections import deque
from typing import Protocol

SLICES = 10


class OutcomeWindow(Protocol):
    """Counts of recent calls. `calls`, `failed` and `slow` are as of the last `record` or `expire`."""

    failed: int
    slow: int

    @property
    def calls(self) -> int:
        """How many calls the window holds."""
        ...

    def record(self, failed: bool, slow: bool, now_s: float) -> None:
        """Add the outcome of a call that ended at `now_s`."""
        ...

    def expire(self, now_s: float) -> None:
        """Forget what is too old at `now_s`."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...


class CountWindow:
    """The last `size` calls. Only those that failed or were slow are kept, by number: a good call is an addition."""

    __slots__ = ("_size", "blemishes", "ended", "failed", "slow")

    def __init__(self, size: int) -> None:
        self._size = size
        self.blemishes: deque[tuple[int, bool, bool]] = deque()
        """Number, failed, slow: of each such call in the window. Without any, a good call need only be counted."""
        self.ended = self.failed = self.slow = 0

    @property
    def calls(self) -> int:
        """How many calls the window holds."""
        return min(self.ended, self._size)

    def record(self, failed: bool, slow: bool, now_s: float) -> None:
        self.ended = number = self.ended + 1
        blemishes = self.blemishes
        if failed or slow:
            blemishes.append((number, failed, slow))
            self.failed += failed
            self.slow += slow
        # Each call pushes one other out of the window at most.
        if blemishes and blemishes[0][0] <= number - self._size:
            _, was_failed, was_slow = blemishes.popleft()
            self.failed -= was_failed
            self.slow -= was_slow

    def expire(self, now_s: float) -> None:
        """Calls do not age here."""

    def clear(self) -> None:
        self.blemishes.clear()
        self.ended = self.failed = self.slow = 0


class TimeWindow:
    """The calls of the last `length_s` seconds in ten slices: what is older than nine tenths of it may be forgotten."""

    __slots__ = ("_slice_s", "_slices", "calls", "failed", "slow")

    def __init__(self, length_s: float) -> None:
        self._slice_s = length_s / SLICES
        # [number of the slice, calls, failed, slow], oldest first; at most SLICES of them.
        self._slices: deque[list[int]] = deque()
        self.calls = self.failed = self.slow = 0

    def record(self, failed: bool, slow: bool, now_s: float) -> None:
        self.expire(now_s)
        number = int(now_s / self._slice_s)
        # Threads may arrive out of order by a moment; such an outcome joins the newest slice.
        if not self._slices or self._slices[-1][0] < number:
            self._slices.append([number, 0, 0, 0])
        newest = self._slices[-1]
        newest[1] += 1
        newest[2] += failed
        newest[3] += slow
        self.calls += 1
        self.failed += failed
        self.slow += slow

    def expire(self, now_s: float) -> None:
        oldest_kept = int(now_s / self._slice_s) - SLICES + 1
        while self._slices and self._slices[0][0] < oldest_kept:
            _, calls, failed, slow = self._slices.popleft()
            self.calls -= calls
            self.failed -= failed
            self.slow -= slow

    def clear(self) -> None:
        self._slices.clear()
        self.calls = self.failed = self.slow = 0
