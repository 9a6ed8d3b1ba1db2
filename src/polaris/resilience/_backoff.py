"""How long to wait before the next attempt."""

from __future__ import annotations

import math
from random import Random
from typing import Literal, TypeAlias

Jitter: TypeAlias = Literal["full", "equal", "decorrelated", "none"]
JITTERS: tuple[Jitter, ...] = ("full", "equal", "decorrelated", "none")


def exponential_s(first_s: float, multiplier: float, steps: int, longest_s: float) -> float:
    """`first_s * multiplier ** steps`, at most `longest_s`.

    The exponent is clamped before the power is taken, so no number of steps overflows.
    """
    if first_s <= 0 or multiplier == 1:
        return min(first_s, longest_s)
    if first_s >= longest_s or steps >= (math.log(longest_s) - math.log(first_s)) / math.log(multiplier):
        return longest_s
    try:
        return min(longest_s, first_s * float(multiplier) ** steps)
    except OverflowError:
        # From the smallest of floats the power itself may be out of range, though the product is not.
        return min(longest_s, math.exp(math.log(first_s) + steps * math.log(multiplier)))


def next_delay_s(
    attempt: int, former_s: float, *, base_s: float, max_s: float, multiplier: float, jitter: Jitter, random: Random
) -> float:
    """The delay after attempt number `attempt` (from 1) failed; `former_s` is the delay before it, 0 for none.

    With `cap = min(max, base * multiplier ** (attempt - 1))`: "full" is uniform in [0, cap]; "equal" uniform in [cap /
    2, cap]; "none" the cap itself; "decorrelated" uniform in [base, min(max, 3 * former)]. Jitter comes after the
    clamp, so its spread is still there when the cap is reached (Brooker, "Exponential Backoff and Jitter", 2015,
    clamps the decorrelated form afterwards and loses it).
    """
    if jitter == "decorrelated":
        low_s = min(base_s, max_s)
        return random.uniform(low_s, max(low_s, min(max_s, 3 * max(former_s, low_s))))
    cap_s = exponential_s(base_s, multiplier, attempt - 1, max_s)
    if jitter == "full":
        return random.uniform(0.0, cap_s)
    if jitter == "equal":
        return random.uniform(cap_s / 2, cap_s)
    return cap_s
