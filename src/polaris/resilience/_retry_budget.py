"""A limit on retries as a share of the calls, so that retries cannot multiply an outage."""

from __future__ import annotations

import threading

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.exceptions import InvalidValueError
from polaris.resilience._durations import ratio_of

RETRIES_SAVED_MAX = 100.0


class RetryBudget:
    """Permits retries up to a share of the calls made, plus a minimum rate for quiet times.

    Every call deposits `ratio` of a retry and every second `retries_per_s_min`; a retry takes one. At most
    `retries_saved_max` are saved up, and the budget starts with one second's minimum. Hence over any time the retries
    are at most `ratio * calls + retries_per_s_min * (seconds + 1)`, whatever fails. Share one budget among all
    policies that call the same dependency. Thread-safe. The shape is that of Finagle's RetryBudget.
    """

    def __init__(
        self,
        ratio: float = 0.2,
        *,
        retries_per_s_min: float = 1.0,
        retries_saved_max: float = RETRIES_SAVED_MAX,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.ratio = ratio_of("ratio", ratio)
        for field, value in (("retries_per_s_min", retries_per_s_min), ("retries_saved_max", retries_saved_max)):
            if not 0 <= value < float("inf"):
                raise InvalidValueError(field, "a finite number >= 0", value)
        self.retries_per_s_min = retries_per_s_min
        self.retries_saved_max = max(1.0, retries_saved_max)
        self._now = clock.monotonic
        self._lock = threading.Lock()
        self._saved = min(retries_per_s_min, self.retries_saved_max)
        self._filled_s = self._now()

    @property
    def available(self) -> float:
        """The retries that could be made now."""
        with self._lock:
            self._fill()
            return self._saved

    def record_call(self) -> None:
        """Deposit for one call (not for its retries)."""
        with self._lock:
            self._saved = min(self.retries_saved_max, self._saved + self.ratio)

    def try_spend(self) -> bool:
        """Take one retry from the budget; False, and nothing taken, if there is none."""
        with self._lock:
            self._fill()
            # A tenth deposited ten times is a little less than one.
            if self._saved < 1.0 - 1e-9:
                return False
            self._saved -= 1.0
            return True

    def _fill(self) -> None:
        now_s = self._now()
        self._saved = min(self.retries_saved_max, self._saved + (now_s - self._filled_s) * self.retries_per_s_min)
        self._filled_s = now_s
