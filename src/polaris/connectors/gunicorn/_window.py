"""What happened in the last seconds: counts per second and latencies, in bounded memory."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

BUCKETS = 20
DURATIONS_MAX = 10_000


class CountWindow:
    """Counts events of named kinds over a sliding window, in twenty slices of it.

    At any time the window covers the last 95 to 100 % of `window_s`; rates are exact for the time covered.
    """

    def __init__(self, window_s: float, *, opened_at_s: float) -> None:
        self._slice_s = window_s / BUCKETS
        self._opened_at_s = opened_at_s
        self._slices: deque[tuple[int, dict[str, float]]] = deque(maxlen=BUCKETS)

    def add(self, now_s: float, kind: str, count: float) -> None:
        """Count `count` events now; times must not go back."""
        number = int(now_s // self._slice_s)
        if not self._slices or self._slices[-1][0] < number:
            self._slices.append((number, {}))
        counts = self._slices[-1][1]
        counts[kind] = counts.get(kind, 0.0) + count

    def rates(self, now_s: float) -> dict[str, float]:
        """Events per second by kind; empty while the window covers less than one slice."""
        oldest = int(now_s // self._slice_s) - BUCKETS + 1
        covered_s = now_s - max(self._opened_at_s, oldest * self._slice_s)
        if covered_s < self._slice_s:
            return {}
        totals: dict[str, float] = {}
        for number, counts in self._slices:
            if number >= oldest:
                for kind, count in counts.items():
                    totals[kind] = totals.get(kind, 0.0) + count
        return {kind: total / covered_s for kind, total in totals.items()}

    def covers(self, now_s: float) -> bool:
        """Whether the window has been open long enough for a rate, so that a kind not counted has the rate 0."""
        return now_s - self._opened_at_s >= self._slice_s


class DurationWindow:
    """The durations seen within a sliding window, at most the newest `durations_max` of them.

    `overflowed` counts those that the bound pushed out before their time; quantiles are then over the newest ones.
    """

    def __init__(self, window_s: float, *, durations_max: int = DURATIONS_MAX) -> None:
        self._window_s = window_s
        self._durations: deque[tuple[float, float]] = deque(maxlen=durations_max)
        self.overflowed = 0

    def add(self, now_s: float, duration_s: float) -> None:
        """Remember a duration seen now; times must not go back."""
        self._forget(now_s)
        if len(self._durations) == self._durations.maxlen:
            self.overflowed += 1
        self._durations.append((now_s, duration_s))

    def sorted(self, now_s: float) -> list[float]:
        """The durations of the window, ascending; empty when there were none."""
        self._forget(now_s)
        return sorted(duration for _, duration in self._durations)

    def _forget(self, now_s: float) -> None:
        oldest_s = now_s - self._window_s
        while self._durations and self._durations[0][0] <= oldest_s:
            self._durations.popleft()


def quantile(ascending: Sequence[float], q: float) -> float | None:
    """The smallest value that at least the share `q` of the values does not exceed (nearest rank); None of nothing."""
    if not ascending:
        return None
    return ascending[max(0, math.ceil(q * len(ascending)) - 1)]
