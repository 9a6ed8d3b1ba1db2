"""What numbers tell one after the other, in SQL: how much a counter gained, and how far they are from their mean."""

# ruff: noqa: S608 - statements are made of constants, names of own tables and marks of parameters

from __future__ import annotations

BOUND = "1e145"
"""Beyond it squares and sums may be more than a float holds: such numbers are left to who reads them one by one."""

# After a fall a counter began again from zero. Integers are compared and taken from each other exactly, whatever their
# size; where none is negative, that takes no more digits than they have.
_OF_INTEGERS = (
    "WHEN {ni} IS NOT NULL AND {iv} IS NOT NULL THEN CASE WHEN {ni} < {iv} THEN {ni}::float8"
    " WHEN {iv} >= 0 THEN ({ni} - {iv})::float8 ELSE ({ni}::numeric - {iv})::float8 END"
)
STEP_OF_FLOATS = "CASE WHEN {nv} < {v} THEN {nv} ELSE {nv} - {v} END"
"""From a number to the next, of floats `v` and `nv`."""
STEP = f"CASE {_OF_INTEGERS} WHEN {{nv}} < {{v}} THEN {{nv}} ELSE {{nv}} - {{v}} END"
"""The same of any numbers: `v` and `nv` are both as floats, `iv` and `ni` as integers where they are."""
BOUNDED_STEP = (
    f"CASE {_OF_INTEGERS} WHEN abs({{v}}) > {BOUND} OR abs({{nv}}) > {BOUND} THEN 'Infinity'"
    " WHEN {nv} < {v} THEN {nv} ELSE {nv} - {v} END"
)
"""The same; infinite where numbers are beyond the bound, which otherwise may be an error."""

# Of a row `u`: numbers in the order of their times, each among `floats` or `integers` with NULL in the other, and their
# `mean`. Without one they are too large, and nothing is known.
RISES = (
    "CASE WHEN u.mean IS NULL THEN 'Infinity' ELSE coalesce(sum(step), 0) END AS rise,"
    " nullif(sum(abs(step)), sum(step)) AS climb"
)
"""The sum of the rises, and that of the rises without their signs where it is another."""


def quotient(dividend: str, divisor: str) -> str:
    """The one divided by the other, which is above 1e-6; a result that is too small for a float would be an error."""
    return f"CASE WHEN abs({dividend}) < 1e-290 THEN 0 ELSE {dividend} / {divisor} END"


def spread(own: str) -> str:
    """The sum of the squares of the differences to the mean.

    The mean is rounded, and so are the differences from it: what these add up to is taken out again.
    """
    return f"coalesce(var_pop({own} - u.mean) * u.count, 'Infinity') AS spread"


def walk(*columns: str) -> str:
    """A reduction of the numbers, told as `fv` or `iv`, and of the steps between them."""
    step = STEP.format(v="coalesce(fv, iv::float8)", nv="coalesce(nf, ni::float8)", iv="iv", ni="ni")
    return (
        f"SELECT {', '.join(columns)} FROM (SELECT fv, iv, {step} AS step"
        " FROM unnest(u.floats, u.integers, u.floats[2:], u.integers[2:]) AS n (fv, iv, nf, ni)"
        " WHERE u.mean IS NOT NULL OFFSET 0) AS steps"
    )
