"""Sums of doubles to the last digit, in SQL: each is taken apart so that the sums of the parts are not rounded.

Adding what is as large as all of them together, and taking it away again, leaves of a number what lies on a grid on
which sums of all of them lie, too (Dekker 1971; Ogita, Rump and Oishi 2005). Their shortest texts, added as `numeric`,
would not do: `1e15 + 0.25` reads 1000000000000000.2.
"""

from __future__ import annotations

import math

_EXPONENT_MAX = 1_008


def exact_parts(value: str, size: float, count: int) -> tuple[str, str, str]:
    """Three sums that together are the sum of a column, which are at most `count` numbers.

    `size`: what they add up to without their signs, or more. The third is rounded, far behind the digits of a double.
    """
    first = _above(size)
    second = _above(first * 2.0**-52 * count)
    high = f"({value} + {first!r}::float8 - {first!r}::float8)"
    middle = f"({value} - {high} + {second!r}::float8 - {second!r}::float8)"
    return f"sum({high})", f"sum({middle})", f"sum({value} - {high} - {middle})"


def exact_sum(value: str, size: float, count: int) -> str:
    """The same as one double."""
    return f"({' + '.join(exact_parts(value, size, count))})"


def _above(size: float) -> float:
    """One and a half of a power of two beyond the size; of few powers, as each is a statement of its own."""
    exponent = math.frexp(size)[1] + 1
    return math.ldexp(1.5, min(exponent + -exponent % 16, _EXPONENT_MAX))
