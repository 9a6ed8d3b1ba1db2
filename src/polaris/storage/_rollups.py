"""How long a collection keeps its points, and what it keeps of them afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
from msgspec.structs import force_setattr

from polaris.exceptions import InvalidValueError, QueryError
from polaris.storage._ranges import span_micros

ROLLUPS_MAX = 4
"""Rollups of one policy."""
WIDTH_MIN = timedelta(seconds=1)
WIDTH_MAX = timedelta(days=366)
KEPT_MAX = timedelta(days=365_000)
ALL_TIME = (-(2**62), 2**62)
"""A range in microseconds that holds every window."""


class RollupPolicy(msgspec.Struct, frozen=True):
    """Of each series and field one summary for each window of `width`, kept for `kept`; None is for ever.

    Windows are aligned to 1970-01-01T00:00Z. `width`: whole seconds, from one to 366 days. Each costs about 110 bytes
    a field, so a window should hold at least a dozen points, and at most some thousand of a series.
    """

    width: timedelta
    kept: timedelta | None = None

    def __post_init__(self) -> None:
        width_us = span_micros("rollups.width", self.width)
        if not WIDTH_MIN <= self.width <= WIDTH_MAX or width_us % 1_000_000:
            raise InvalidValueError("rollups.width", "whole seconds, from 1 s to 366 days", self.width)
        _check_kept("rollups.kept", self.kept)

    @property
    def width_us(self) -> int:
        return span_micros("rollups.width", self.width)

    @property
    def kept_us(self) -> int | None:
        return None if self.kept is None else span_micros("rollups.kept", self.kept)


class RetentionPolicy(msgspec.Struct, frozen=True):
    """Points are kept for `raw_kept`, then their first rollup for its `kept`, then the next one, and so on.

    None is for ever. At most 4 rollups, each a multiple of the one before in width and kept longer; `raw_kept` is at
    least the width of the first. The newest point of each series is never taken away, nor the points that share its
    window. Without rollups, old points go and nothing is left of them. A single rollup that is kept as long as the
    points goes with them: then there are only the summaries beside points, which make long ranges quick to read.

    Raises `InvalidValueError` naming the field.
    """

    raw_kept: timedelta | None = None
    rollups: Sequence[RollupPolicy] = ()

    def __post_init__(self) -> None:
        _check_kept("raw_kept", self.raw_kept)
        rollups: Any = self.rollups
        if isinstance(rollups, (str, bytes)) or not isinstance(rollups, (list, tuple)):
            raise InvalidValueError("rollups", "a list of RollupPolicy objects", rollups)
        if len(rollups) > ROLLUPS_MAX:
            raise InvalidValueError("rollups", f"at most {ROLLUPS_MAX} (found {len(rollups)})", rollups)
        for rollup in rollups:
            if not isinstance(rollup, RollupPolicy):
                raise InvalidValueError("rollups", "RollupPolicy objects", rollup)
        force_setattr(self, "rollups", tuple(rollups))
        kept = self.raw_kept
        if rollups and kept is not None and kept < rollups[0].width:
            raise InvalidValueError("raw_kept", "at least the width of the first rollup", kept)
        for place, rollup in enumerate(rollups):
            before = rollups[place - 1].width if place else None
            if before is not None and (rollup.width <= before or rollup.width % before):
                raise InvalidValueError("rollups.width", "a multiple of the width of the rollup before", rollup.width)
            if kept is None and (place or self.raw_kept is not None):
                raise InvalidValueError("rollups", "none behind one that is kept for ever", rollup.width)
            goes_along = len(rollups) == 1 and rollup.kept == kept
            if kept is not None and rollup.kept is not None and rollup.kept <= kept and not goes_along:
                raise InvalidValueError("rollups.kept", "longer than what is kept before it", rollup.kept)
            kept = rollup.kept

    @property
    def raw_kept_us(self) -> int | None:
        return None if self.raw_kept is None else span_micros("raw_kept", self.raw_kept)

    @property
    def window_us(self) -> int | None:
        """The width of the first rollup, None without one."""
        return self.rollups[0].width_us if self.rollups else None

    @property
    def goes_along(self) -> bool:
        """Whether the only rollup is kept as long as the points, and no longer: of points that are too old none is."""
        return len(self.rollups) == 1 and self.raw_kept is not None and self.rollups[0].kept == self.raw_kept


def _check_kept(field: str, kept: object) -> None:
    if kept is None:
        return
    span_micros(field, kept)
    if isinstance(kept, timedelta) and kept > KEPT_MAX:
        raise InvalidValueError(field, f"at most {KEPT_MAX.days} days, or None", kept)


def encode_policy(policy: RetentionPolicy) -> str:
    """The policy as text that a store keeps."""
    rollups = [[rollup.width_us, rollup.kept_us] for rollup in policy.rollups]
    return msgspec.json.encode([policy.raw_kept_us, rollups]).decode()


def decode_policy(text: str) -> RetentionPolicy:
    """The inverse of `encode_policy`."""
    raw_kept_us, rollups = msgspec.json.decode(text, type=tuple[int | None, list[tuple[int, int | None]]])
    return RetentionPolicy(_span(raw_kept_us), [RollupPolicy(_width(width), _span(kept)) for width, kept in rollups])


def _width(micros: int) -> timedelta:
    return timedelta(microseconds=micros)


def _span(micros: int | None) -> timedelta | None:
    return None if micros is None else timedelta(microseconds=micros)


def floor(micros: int, width_us: int) -> int:
    """The start of the window of an instant, aligned to 1970, also before it."""
    return micros - micros % width_us


def ceiling(micros: int, width_us: int) -> int:
    """The end of the window that ends at or after an instant."""
    return -floor(-micros, width_us)


def cut_window(width_us: int) -> QueryError:
    """The error for deletions that would have to take a rollup apart."""
    seconds = width_us // 1_000_000
    return QueryError(
        f"time_range: it cuts a window of {seconds} s of which only a rollup is left; delete whole windows"
    )
