"""Filling gaps of aggregates keeps what is known of their exactness."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from polaris.storage._aggregation import AggregatedRow, Fill
from polaris.storage._buckets import FixedBuckets
from polaris.storage._gaps import filled
from polaris.storage._ranges import to_micros

T0 = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def row(hour: int, value: float | None, *, approximate: bool = False) -> AggregatedRow:
    return AggregatedRow(T0 + hour * HOUR, "v", {"avg": value}, 3, {}, approximate)


def approximate(rows: list[AggregatedRow], fill: Fill) -> list[bool]:
    micros = to_micros(T0), to_micros(T0 + 6 * HOUR)
    return [one.approximate for one in asyncio.run(filled(rows, FixedBuckets(3_600_000_000), micros, fill))]


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        ("null", [False, True, False, False, False, False]),
        ("previous", [False, True, True, False, False, False]),
        ("linear", [False, True, True, False, False, False]),
    ],
)
def test_what_is_filled_from_an_approximate_row_is_approximate(fill: Fill, expected: list[bool]) -> None:
    assert approximate([row(1, 1.0, approximate=True), row(3, 2.0), row(5, 3.0)], fill) == expected


def test_a_line_to_an_approximate_row_is_approximate() -> None:
    rows = [row(0, 1.0), row(2, 2.0, approximate=True)]
    assert approximate(rows, "linear")[:3] == [False, True, True]
    assert approximate(rows, "previous") == [False, False, True, True, True, True]


def test_an_approximate_row_without_a_value_stays_approximate_when_it_is_filled() -> None:
    rows = [row(0, 1.0), row(2, None, approximate=True), row(4, 2.0)]
    assert approximate(rows, "linear")[:5] == [False, False, True, False, False]
