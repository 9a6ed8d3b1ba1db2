"""How many calls a dependency can take at once, learnt from how long they take.

The formulas are those of AIMDLimit and Gradient2Limit in Netflix' concurrency-limits (2018).
"""

from __future__ import annotations

from typing import Protocol

from polaris.exceptions import InvalidValueError
from polaris.resilience._durations import Duration, count_of, duration_s, ratio_of


class ConcurrencyLimit(Protocol):
    """A limit that follows observations. Plain arithmetic: no clock, no lock; it belongs to one bulkhead."""

    @property
    def limit(self) -> int:
        """Calls that may run at once, at least 1."""
        ...

    def observe(self, duration_s: float, in_flight: int, dropped: bool) -> None:
        """Learn from a call that ended: how long it took, how many ran when it began, whether it timed out."""
        ...


class AimdLimit:
    """Additive increase, multiplicative decrease, as TCP does it.

    A call that timed out, or took longer than `timeout`, multiplies the limit by `backoff_ratio`; any other adds one if
    at least half of the limit was in use. Robust where overload shows as timeouts.
    """

    def __init__(
        self,
        *,
        initial: int = 20,
        least: int = 1,
        most: int = 200,
        backoff_ratio: float = 0.9,
        timeout: Duration = 5.0,
    ) -> None:
        _check_range(initial, least, most)
        self._limit = initial
        self._least, self._most = least, most
        self._ratio = ratio_of("backoff_ratio", backoff_ratio)
        self._timeout_s = duration_s("timeout", timeout)

    @property
    def limit(self) -> int:
        """Calls that may run at once."""
        return self._limit

    def observe(self, duration_s: float, in_flight: int, dropped: bool) -> None:
        """Learn from a call that ended."""
        limit = self._limit
        if dropped or duration_s > self._timeout_s:
            limit = int(limit * self._ratio)
        elif in_flight * 2 >= limit:
            limit += 1
        self._limit = min(self._most, max(self._least, limit))


class GradientLimit:
    """Gradient2: compares the latest call with the exponential average of the last `long_window` calls.

        gradient = clamp(tolerance * average / latest, 0.5, 1)
        limit = (1 - smoothing) * limit + smoothing * (limit * gradient + queue)

    The limit grows by up to `smoothing * queue` a call while calls are no slower than `tolerance` times the average,
    and shrinks before timeouts occur. Nothing changes while less than half of the limit is in use. When the average is
    over twice the latest call, it is lowered by 5 %, so that it recovers quickly after a slow spell. A call that timed
    out counts with the time it took.

    Known weakness: under an overload that lasts, the average itself rises, and the limit with it. What holds then are
    `most` and the bulkhead's own bound.
    """

    def __init__(
        self,
        *,
        initial: int = 20,
        least: int = 1,
        most: int = 200,
        queue: int = 4,
        tolerance: float = 1.5,
        smoothing: float = 0.2,
        long_window: int = 600,
        warm_up: int = 10,
    ) -> None:
        _check_range(initial, least, most)
        if not 1 <= tolerance < float("inf"):
            raise InvalidValueError("tolerance", "a finite number >= 1", tolerance)
        self._estimate = float(initial)
        self._least, self._most = least, most
        self._queue = count_of("queue", queue)
        self._tolerance = tolerance
        self._smoothing = ratio_of("smoothing", smoothing)
        self._warm_up = count_of("warm_up", warm_up)
        self._factor = 2.0 / (count_of("long_window", long_window) + 1)
        self._samples = 0
        self._average_s = 0.0

    @property
    def limit(self) -> int:
        """Calls that may run at once."""
        return int(self._estimate)

    def observe(self, duration_s: float, in_flight: int, dropped: bool) -> None:  # the port has `dropped` for others
        """Learn from a call that ended."""
        # A call below the resolution of the clock would divide by nothing.
        latest_s = max(duration_s, 1e-9)
        average_s = self._averaged(latest_s)
        if average_s / latest_s > 2:
            self._average_s *= 0.95
        if in_flight < self._estimate / 2:
            return
        gradient = max(0.5, min(1.0, self._tolerance * average_s / latest_s))
        target = self._estimate * gradient + self._queue
        estimate = self._estimate * (1 - self._smoothing) + target * self._smoothing
        self._estimate = max(float(self._least), min(float(self._most), estimate))

    def _averaged(self, latest_s: float) -> float:
        """The long average with the latest call in it: an arithmetic mean while warming up, exponential afterwards."""
        self._samples += 1
        weight = 1 / self._samples if self._samples <= self._warm_up else self._factor
        self._average_s += (latest_s - self._average_s) * weight
        return self._average_s


def _check_range(initial: int, least: int, most: int) -> None:
    count_of("least", least)
    count_of("initial", initial, least=least)
    count_of("most", most, least=initial)
