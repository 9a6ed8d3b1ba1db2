"""What passes beside rollups one by one: the same sums and bins as of everything at once, and nothing is kept."""

from __future__ import annotations

import math
import random
import tracemalloc
from datetime import timedelta

import pytest
from tests.sqlite_sessions import compact, new_session

from polaris.storage import _rollup_summaries
from polaris.storage._points import TimeSeriesPoint
from polaris.storage._ranges import from_micros
from polaris.storage._rollup_sketches import _mapping, bins_of
from polaris.storage._rollup_summaries import ExactSum, summarise
from polaris.storage._rollups import RetentionPolicy, RollupPolicy
from polaris.storage._timeseries_requests import AggregateRequest

SECOND = 1_000_000
POINTS = 30_000


@pytest.mark.parametrize("parts_max", [2, 5, 1_000])
def test_a_sum_that_keeps_few_parts_is_rounded_like_that_of_all(
    parts_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_rollup_summaries, "PARTS_MAX", parts_max)
    source = random.Random(7)
    for _ in range(50):
        numbers = [source.uniform(-1, 1) * 10.0 ** source.randint(-200, 200) for _ in range(300)]
        numbers += [-one for one in numbers[::2]]
        found = ExactSum()
        for one in numbers:
            found.add(one)
        assert found.total == math.fsum(numbers)
        assert len(found._parts) < max(parts_max, 60)


def test_a_sum_beyond_a_float_is_infinite() -> None:
    found = ExactSum()
    for _ in range(10_000):
        found.add(1.7e308)
    assert found.total == math.inf


def test_bins_are_those_of_the_library() -> None:
    source = random.Random(3)
    numbers = [source.choice((1, -1)) * 10.0 ** source.uniform(-320, 308) for _ in range(20_000)] + [0, 5, -7, 2**62]
    positive: dict[int, int] = {}
    negative: dict[int, int] = {}
    mapping = _mapping()
    for one in map(float, numbers):
        if abs(one) > mapping.min_possible:
            side = positive if one > 0 else negative
            key = mapping.key(abs(one))
            side[key] = side.get(key, 0) + 1
    found = bins_of(numbers)
    assert (found.positive, found.negative) == (positive, negative)
    assert found.zeros == len(numbers) - sum(positive.values()) - sum(negative.values())


@pytest.mark.parametrize(
    ("values", "rise"),
    [
        ([5, 3, 4], 4.0),
        ([1e9, 1e9 + 3, 5], 8.0),
        ([0.1, 0.2, 0.2, 7.0], 6.9),
        ([2**62, 2**62 + 1, 0, 2**53 + 1], float(2**53 + 2)),
        ([4], 0.0),
    ],
)
def test_a_summary_knows_the_rise_of_a_counter_and_of_one_that_restarts(values: list[float], rise: float) -> None:
    found = summarise(list(enumerate(values)), sketched=False)
    assert found.rise == pytest.approx(rise, rel=1e-12)


def test_the_spread_of_small_deviations_of_large_numbers_keeps_its_digits() -> None:
    found = summarise([(n, 1e9 + n % 2 * 0.25) for n in range(1_000)], sketched=False)
    assert found.spread == pytest.approx(1_000 * 0.125**2, rel=1e-9)


@pytest.mark.parametrize("name", ["rate", "increase"])
def test_the_numbers_beside_rollups_are_not_kept(name: str) -> None:
    session = new_session()
    series = session.time_series
    series.set_policy("m", RetentionPolicy(timedelta(seconds=10), [RollupPolicy(timedelta(seconds=10))]))
    for first in range(0, POINTS, 10_000):
        series.store_many(
            "m", [TimeSeriesPoint(from_micros(n * SECOND), {}, {"v": n}) for n in range(first, first + 10_000)]
        )
    compact(session, POINTS - 1)
    assert series.retain("m", 1_000 * SECOND, POINTS) == 1_000
    request = AggregateRequest((0, POINTS * SECOND), (name,))
    series.aggregate("m", request)  # what is imported and prepared once does not count
    tracemalloc.start()
    try:
        (row,) = series.aggregate("m", request)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert row.count == POINTS
    assert row.values[name] == pytest.approx(POINTS - 1 if name == "increase" else 1.0)
    assert peak_bytes < 2 << 20  # all of them would be 9 MB
