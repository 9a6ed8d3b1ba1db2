"""Aggregates of both engines equal those that numpy and pandas compute from the plain points."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sqlite_sessions import compact, new_session, scratch

from polaris.storage._operation import AggregateRequest, TimeSeriesSession
from polaris.storage._ranges import from_micros, to_micros
from polaris.storage._timeseries import AggregationType, FieldValue, TimeSeriesPoint
from polaris.storage.backends.memory._journal import Journal
from polaris.storage.backends.memory._timeseries import MemoryTimeSeries

SESSION = new_session()
HOSTS = ["a", "b", "c"]
VALUES = st.one_of(
    st.floats(-1e6, 1e6), st.integers(-1000, 1000), st.sampled_from([None, True, "text", 1e9, 1e9 + 0.25, 0])
)
# Host "c" keeps the field in another column, behind a dozen of others.
ROWS = st.lists(st.tuples(st.integers(-3_000, 3_000), st.sampled_from(HOSTS), VALUES), max_size=60)

Cell = tuple[int, str]


def oracle(rows: list[tuple[int, str, Any]], bucket: int | None, start: int, *, grouped: bool) -> dict[Cell, Any]:
    """The numbers of each bucket and group, by time and host, the last of equal ones only."""
    cells: dict[Cell, list[tuple[int, str, float]]] = {}
    for (time, host), value in sorted({(time, host): value for time, host, value in rows}.items()):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            place = start if bucket is None else math.floor(time / bucket) * bucket
            cells.setdefault((place, host if grouped else ""), []).append((time, host, value))
    return cells


def expected(aggregation: AggregationType, cell: list[tuple[int, str, float]]) -> float | None:
    values = pd.Series([float(value) for _, _, value in cell])
    simple: dict[AggregationType, Callable[[], Any]] = {
        AggregationType.AVG: values.mean,
        AggregationType.SUM: values.sum,
        AggregationType.MIN: values.min,
        AggregationType.MAX: values.max,
        AggregationType.COUNT: values.count,
        AggregationType.STDDEV: values.std,
        AggregationType.MEDIAN: values.median,
        AggregationType.FIRST: lambda: cell[0][2],
        AggregationType.LAST: lambda: cell[-1][2],
    }
    if aggregation in simple:
        result = float(simple[aggregation]())
        return None if math.isnan(result) else result
    if aggregation is AggregationType.RATE:
        rates = []
        for host in HOSTS:
            own = [(time, value) for time, name, value in cell if name == host]
            if len(own) > 1:
                steps = np.diff([value for _, value in own])
                rises = np.where(steps < 0, [value for _, value in own[1:]], steps)
                rates.append(rises.sum() / ((own[-1][0] - own[0][0]) / 1e6))
        return float(sum(rates)) if rates else None
    return float(np.percentile(values.to_numpy(), {"p90": 90, "p95": 95, "p99": 99}[aggregation.value]))


def filled(engine: TimeSeriesSession, rows: list[tuple[int, str, Any]]) -> None:
    points = []
    for time, host, value in rows:
        fields: dict[str, FieldValue] = {"v": value}
        if host == "c":
            fields |= {f"a{n:02}": 1 for n in range(14)}
        points.append(TimeSeriesPoint(from_micros(time), {"host": host}, fields))
    engine.store_many("m", points)


@pytest.mark.parametrize("aggregation", list(AggregationType))
@settings(max_examples=40, deadline=None)
@given(
    rows=ROWS,
    bucket=st.sampled_from([None, 1, 7, 1000, 10_000]),
    span=st.tuples(st.integers(-3_500, 3_500), st.integers(-3_500, 3_500)).map(sorted),
    grouped=st.booleans(),
    slices=st.lists(st.integers(1, 30), max_size=2),
)
def test_both_engines_equal_the_oracle(
    aggregation: AggregationType,
    rows: list[tuple[int, str, Any]],
    bucket: int | None,
    span: list[int],
    grouped: bool,
    slices: list[int],
) -> None:
    start, end = span
    inside = [row for row in rows if start <= row[0] < end]
    cells = oracle(inside, bucket, start, grouped=grouped)
    wanted = {cell: (expected(aggregation, numbers), len(numbers)) for cell, numbers in cells.items()}
    wanted = {cell: (value, count) for cell, (value, count) in wanted.items() if value is not None}
    scale = max([abs(float(value)) for *_, value in inside if isinstance(value, (int, float))], default=1.0)
    request = AggregateRequest((start, end), aggregation, ("host",) if grouped else (), bucket, {}, ("v",))
    with scratch(SESSION) as session:
        memory = MemoryTimeSeries(Journal())
        filled(memory, rows)
        filled(session.time_series, rows)
        for size in slices:
            compact(session, size)
        for engine in (memory, session.time_series):
            found = engine.aggregate("m", request)
            told = {(to_micros(one.timestamp), one.tags.get("host", "")): one for one in found}
            assert [*told] == sorted(wanted)
            for cell, (value, count) in wanted.items():
                assert told[cell].count == count
                tolerance = 1e-9 * max(1.0, scale) * (1e6 if aggregation is AggregationType.RATE else 1)
                assert told[cell].value == pytest.approx(value, rel=1e-9, abs=tolerance)
