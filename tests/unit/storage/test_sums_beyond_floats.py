"""Numbers near the end of what a float holds: sums of them are infinite on both engines, and nothing fails."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from tests.sqlite_sessions import compact, new_session, roll_up

from polaris.storage import AggregationType, RetentionPolicy, RollupPolicy, TimeSeriesPoint
from polaris.storage._aggregates import Number, aggregate, total_of
from polaris.storage._buckets import FixedBuckets
from polaris.storage._ranges import from_micros
from polaris.storage._rollup_summaries import PARTS_MAX, ExactSum
from polaris.storage._timeseries_requests import AggregateRequest
from polaris.storage.backends.memory._journal import Journal
from polaris.storage.backends.memory._timeseries import MemoryTimeSeries

MOST = 1.7e308
SECOND = 1_000_000
POLICY = RetentionPolicy(None, [RollupPolicy(timedelta(seconds=4))])
SAME = ("count", "min", "max", "first", "last", "sum", "avg")
"""In the others an order of adding up may make the difference, where numbers of this size take each other away."""
NAMES = tuple(str(name) for name in AggregationType)
ROWS: dict[str, list[Number]] = {
    "up": [MOST] * 12,
    "down": [-MOST] * 12,
    "up and then down": [MOST] * 6 + [-MOST] * 6,
    "window by window": [MOST, MOST, MOST, MOST, -MOST, -MOST, -MOST, -MOST, 1, 2, 3, 4],
    "in turns": [MOST, -MOST] * 6,
    "squares only": [1e200, -1e200, 1, 2] * 3,
    "integers": [2**63 - 1, -(2**63), 2**63 - 1] * 4,
}


@pytest.mark.parametrize("state", ["points", "summaries", "rollups", "some of each"])
@pytest.mark.parametrize("values", ROWS.values(), ids=ROWS)
def test_both_engines_tell_the_same_sums_and_never_nan(values: list[Number], state: str) -> None:
    session, memory = new_session(), MemoryTimeSeries(Journal())
    tolerance = 1e-9 * max(map(abs, values))
    points = [TimeSeriesPoint(from_micros(n * SECOND), {}, {"v": value}) for n, value in enumerate([*values, 0, 0])]
    for engine in (session.time_series, memory):
        engine.set_policy("m", POLICY)
        engine.store_many("m", points)
    if state in ("summaries", "some of each"):
        compact(session, len(points) - 1)
        roll_up(session, 1_000)
    if state in ("rollups", "some of each"):
        until_us = (12 if state == "rollups" else 5) * SECOND
        assert session.time_series.retain("m", until_us, 100) == memory.retain("m", until_us, 100) > 0
    for buckets in (None, FixedBuckets(4 * SECOND, 0), FixedBuckets(8 * SECOND, 0)):
        request = AggregateRequest((0, 60 * SECOND), NAMES, buckets=buckets)
        found, wanted = session.time_series.aggregate("m", request), memory.aggregate("m", request)
        assert [row.count for row in found] == [row.count for row in wanted]
        for row, other in zip(found, wanted, strict=True):
            for name, value in row.values.items():
                assert value is None or not math.isnan(value), (name, row)
                if name in SAME:
                    assert value == pytest.approx(other.values[name], rel=1e-9, abs=tolerance), (name, row, other)
    session.connection.close()


def test_a_sum_of_infinite_rises_can_be_condensed() -> None:
    found = ExactSum()
    found.add(math.inf)
    for _ in range(2 * PARTS_MAX):
        found.add(1.0)
    assert found.total == math.inf


def test_infinite_sums_of_both_signs_are_infinite() -> None:
    assert total_of([math.inf, -math.inf, 1.0]) == math.inf
    assert total_of([-MOST, -MOST]) == -math.inf
    assert total_of(iter([0.1] * 10)) == 1.0


@pytest.mark.parametrize("name", ["sum", "avg", "stddev", "rate"])
def test_the_definition_does_not_overflow(name: str) -> None:
    samples = [(n * SECOND, 0, value) for n, value in enumerate([-MOST, MOST, -MOST, MOST, MOST, MOST])]
    assert aggregate(name, samples) == math.inf
