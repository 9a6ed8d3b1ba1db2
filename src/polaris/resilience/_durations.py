"""Durations as the API takes them (seconds or timedelta), checked once, as floats in seconds."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TypeAlias

from polaris.exceptions import InvalidValueError

Duration: TypeAlias = float | timedelta
"""Seconds, or a timedelta."""


def duration_s(field: str, value: Duration, *, zero: bool = False) -> float:
    """The duration in seconds; InvalidValueError unless finite and positive (`zero=True` allows 0)."""
    expected = f"seconds or a timedelta {'>=' if zero else '>'} 0"
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise InvalidValueError(field, expected, value)
    if not math.isfinite(seconds) or seconds < 0 or (seconds == 0 and not zero):
        raise InvalidValueError(field, f"{expected}, finite", value)
    return seconds


def count_of(field: str, value: int, *, least: int = 1) -> int:
    """The count itself; InvalidValueError unless it is an integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidValueError(field, f"an integer >= {least}", value)
    return value


def ratio_of(field: str, value: float) -> float:
    """The ratio itself; InvalidValueError unless 0 < value <= 1."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= 1:
        raise InvalidValueError(field, "a number in (0, 1]", value)
    return float(value)
