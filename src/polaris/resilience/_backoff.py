"""How long to wait before the next attempt."""

from __future__ import annotations

import math
from random import Random
from typing import Literal, TypeAlias

from polaris.exceptions import InvalidValueError
from polaris.resilience._durations import Duration, duration_s

Jitter: TypeAlias = Literal["full", "equal", "decorrelated", "none"]
JITTERS: tuple[Jitter, ...] = ("full", "equal", "decorrelated", "none")


class Backoff:
    """The waits between attempts: growing, bounded and spread. A retry policy waits by one; a loop of your own can too.

    base, longest, multiplier: after attempt n the wait is at most `min(longest, base * multiplier ** (n - 1))`, in
        seconds or timedelta.
    jitter: see `delay_s`.
    random: what draws; seed it for waits that can be repeated.

    Without state but for `random`; whoever waits counts the attempts.
    """

    __slots__ = ("_base_s", "_jitter", "_longest_s", "_multiplier", "_random")

    def __init__(
        self,
        base: Duration = 0.1,
        longest: Duration = 10.0,
        *,
        multiplier: float = 2.0,
        jitter: Jitter = "full",
        random: Random | None = None,
    ) -> None:
        self._base_s = duration_s("base", base, zero=True)
        self._longest_s = duration_s("longest", longest, zero=True)
        if not 1 <= multiplier < math.inf:
            raise InvalidValueError("multiplier", "a finite number >= 1", multiplier)
        if jitter not in JITTERS:
            raise InvalidValueError("jitter", f"one of {', '.join(JITTERS)}", jitter)
        self._multiplier = multiplier
        self._jitter = jitter
        self._random = random or Random()  # noqa: S311 # spreads load, guards nothing

    def ceiling_s(self, attempt: int) -> float:
        """The longest wait after attempt number `attempt` (from 1), in seconds; no number of attempts overflows."""
        return _exponential_s(self._base_s, self._multiplier, attempt - 1, self._longest_s)

    def delay_s(self, attempt: int, *, former_s: float = 0.0) -> float:
        """A wait in seconds after attempt number `attempt` (from 1); `former_s` is the wait before it, 0 for none.

        "full" jitter is uniform in [0, ceiling]; "equal" uniform in [ceiling / 2, ceiling]; "none" the ceiling itself;
        "decorrelated" uniform in [base, min(longest, 3 * former)]. Jitter comes after the clamp, so its spread is still
        there when the longest wait is reached (Brooker, "Exponential Backoff and Jitter", 2015, clamps the decorrelated
        form afterwards and loses it).
        """
        jitter, draw = self._jitter, self._random.uniform
        if jitter == "decorrelated":
            low_s = min(self._base_s, self._longest_s)
            return draw(low_s, max(low_s, min(self._longest_s, 3 * max(former_s, low_s))))
        ceiling_s = self.ceiling_s(attempt)
        if jitter == "full":
            return draw(0.0, ceiling_s)
        if jitter == "equal":
            return draw(ceiling_s / 2, ceiling_s)
        return ceiling_s

    def spread_s(self) -> float:
        """A moment up to `base`, to be added to a wait that others were told too; 0 without jitter."""
        return 0.0 if self._jitter == "none" else self._random.uniform(0.0, self._base_s)


def _exponential_s(first_s: float, multiplier: float, steps: int, longest_s: float) -> float:
    """`first_s * multiplier ** steps`, at most `longest_s`. The exponent is clamped before the power is taken."""
    if first_s <= 0 or multiplier == 1:
        return min(first_s, longest_s)
    if first_s >= longest_s or steps >= (math.log(longest_s) - math.log(first_s)) / math.log(multiplier):
        return longest_s
    try:
        return min(longest_s, first_s * float(multiplier) ** steps)
    except OverflowError:
        # From the smallest of floats the power itself may be out of range, though the product is not.
        return min(longest_s, math.exp(math.log(first_s) + steps * math.log(multiplier)))
