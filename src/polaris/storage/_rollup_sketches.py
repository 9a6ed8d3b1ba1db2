"""Sketches of distributions, for percentiles of numbers that are gone: DDSketch (Masson, Rim, Lee 2019) as bytes.

A sketch counts numbers by bins whose edges grow by 2 %, so a percentile read from it is within 1 % of a number that was
there, and sketches of parts add up to exactly that of the whole.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

import msgspec

from polaris.exceptions import StoreCorruptError

if TYPE_CHECKING:
    from ddsketch.ddsketch import BaseDDSketch
    from ddsketch.mapping import LogarithmicMapping

RELATIVE_ACCURACY = 0.01
_FORMAT = 1


class Bins(msgspec.Struct):
    """How many numbers fell into which bin: of the positive ones, of the negative ones by their size, and of zeros."""

    positive: dict[int, int]
    negative: dict[int, int]
    zeros: int = 0

    def add(self, other: Bins) -> None:
        """Take in another sketch."""
        for mine, theirs in ((self.positive, other.positive), (self.negative, other.negative)):
            for key, count in theirs.items():
                mine[key] = mine.get(key, 0) + count
        self.zeros += other.zeros


@cache
def _mapping() -> LogarithmicMapping:
    # Imported when first needed: most processes never read or write a sketch.
    from ddsketch.mapping import LogarithmicMapping

    return LogarithmicMapping(RELATIVE_ACCURACY)


@cache
def _key_of() -> Callable[[float], int]:
    """What gives the bin of a positive number: the key of the mapping, without its layers."""
    mapping = _mapping()
    multiplier = math.log(2) * (1 / math.log1p(2 * RELATIVE_ACCURACY / (1 - RELATIVE_ACCURACY)))
    probes = (mapping.min_possible * 2, 0.1, 1.0, 1.02, 3.0, 1e9, 1e300)
    ceil, log = math.ceil, math.log

    def key_of(value: float) -> int:
        return ceil(log(value, 2) * multiplier)

    # A release of the library that counts otherwise is followed, at its own speed.
    return key_of if all(key_of(one) == mapping.key(one) for one in probes) else mapping.key


def bins_of(values: Iterable[int | float]) -> Bins:
    """The bins of numbers."""
    numbers, least, key_of = list(map(float, values)), _mapping().min_possible, _key_of()
    positive = [value for value in numbers if value > least]
    negative = [-value for value in numbers if value < -least] if len(positive) < len(numbers) else []
    zeros = len(numbers) - len(positive) - len(negative)
    return Bins(dict(Counter(map(key_of, positive))), dict(Counter(map(key_of, negative))), zeros)


def encode_bins(bins: Bins) -> bytes:
    """One byte for the format, then the zeros, then of both signs: how many bins, and each as a step and a count.

    Numbers are of variable length, seven bits a byte (LEB128); keys are stored as the steps between them, the first of
    which may be negative (zigzag).
    """
    out = bytearray([_FORMAT])
    _put(out, bins.zeros)
    for side in (bins.positive, bins.negative):
        _put(out, len(side))
        former = 0
        for key, count in sorted(side.items()):
            step = key - former
            _put(out, step * 2 if step >= 0 else -step * 2 - 1)
            _put(out, count)
            former = key
    return bytes(out)


def decode_bins(data: bytes) -> Bins:
    """The inverse of `encode_bins`. Raises `StoreCorruptError` for what is no sketch."""
    if not data or data[0] != _FORMAT:
        raise StoreCorruptError("a sketch in the store has an unknown format")
    numbers = _numbers(data[1:])
    try:
        zeros = next(numbers)
        sides: list[dict[int, int]] = []
        for _ in range(2):
            side: dict[int, int] = {}
            key = 0
            for _ in range(next(numbers)):
                step = next(numbers)
                key += step // 2 if step % 2 == 0 else -(step + 1) // 2
                side[key] = next(numbers)
            sides.append(side)
    except StopIteration as error:
        raise StoreCorruptError("a sketch in the store is cut off") from error
    return Bins(sides[0], sides[1], zeros)


def _put(out: bytearray, number: int) -> None:
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _numbers(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0


def percentile(bins: Bins, percent: float, low: float, high: float) -> float:
    """The percentile of the numbers counted, within 1 %, and never beyond the least and the greatest of them."""
    found = _sketch(bins).get_quantile_value(percent / 100.0)
    if found is None or math.isnan(found):
        return float(low)
    return float(min(max(found, low), high))


def _sketch(bins: Bins) -> BaseDDSketch:
    from ddsketch.ddsketch import BaseDDSketch
    from ddsketch.store import DenseStore

    def store(side: Mapping[int, int]) -> DenseStore:
        made = DenseStore()
        for key, count in side.items():
            made.add(key, count)
        return made

    return BaseDDSketch(_mapping(), store(bins.positive), store(bins.negative), bins.zeros)
