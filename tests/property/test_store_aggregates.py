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
from tests.faults.sizes import size
from tests.sqlite_sessions import compact, new_session, scratch

from polaris.storage._aggregation import AggregationType
from polaris.storage._buckets import FixedBuckets
from polaris.storage._operation import TimeSeriesSession
from polaris.storage._points import FieldValue, TimeSeriesPoint
from polaris.storage._ranges import from_micros, to_micros
from polaris.storage._timeseries_requests import AggregateRequest
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


def oracle(
    rows: list[tuple[int, str, Any]], bucket: int | None, origin: int, start: int, *, grouped: bool
) -> dict[Cell, Any]:
    """The numbers of each bucket and group, by time and host, the last of equal ones only."""
    cells: dict[Cell, list[tuple[int, str, float]]] = {}
    for (time, host), value in sorted({(time, host): value for time, host, value in rows}.items()):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            place = start if bucket is None else math.floor((time - origin) / bucket) * bucket + origin
            cells.setdefault((place, host if grouped else ""), []).append((time, host, value))
    return cells


def steps(rows: list[tuple[int, str, float]]) -> dict[tuple[int, str], float]:
    """The rise of each host that ends at a time; where there is none before it, there is no rise."""
    frame = pd.DataFrame(rows, columns=["time", "host", "value"]).sort_values(["host", "time"])
    frame["rise"] = frame.groupby("host")["value"].diff()
    falls = frame["rise"] < 0
    frame.loc[falls, "rise"] = frame["value"].astype(float)[falls]
    frame = frame.dropna(subset=["rise"])
    columns = zip(frame["time"], frame["host"], frame["rise"], strict=True)
    return {(int(time), str(host)): float(rise) for time, host, rise in columns}


def expected(aggregation: str, cell: list[tuple[int, str, float]], rises: dict[tuple[int, str], float]) -> float | None:
    values = pd.Series([float(value) for _, _, value in cell])
    simple: dict[str, Callable[[], Any]] = {
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
    if aggregation == AggregationType.INCREASE:
        risen = [rises[time, host] for time, host, _ in cell if (time, host) in rises]
        return float(sum(risen)) if risen else None
    if aggregation == AggregationType.RATE:
        rates = []
        for host in HOSTS:
            own = [(time, value) for time, name, value in cell if name == host]
            if len(own) > 1:
                changes = np.diff([value for _, value in own])
                gained = np.where(changes < 0, [value for _, value in own[1:]], changes)
                rates.append(gained.sum() / ((own[-1][0] - own[0][0]) / 1e6))
        return float(sum(rates)) if rates else None
    return float(np.percentile(values.to_numpy(), float(aggregation[1:])))


def filled(engine: TimeSeriesSession, rows: list[tuple[int, str, Any]]) -> None:
    points = []
    for time, host, value in rows:
        fields: dict[str, FieldValue] = {"v": value}
        if host == "c":
            fields |= {f"a{n:02}": 1 for n in range(14)}
        points.append(TimeSeriesPoint(from_micros(time), {"host": host}, fields))
    engine.store_many("m", points)


def tolerance(aggregation: str, inside: list[tuple[int, str, Any]]) -> float:
    scale = max([abs(float(value)) for *_, value in inside if isinstance(value, (int, float))], default=1.0)
    return 1e-9 * max(1.0, scale) * (1e6 if aggregation == AggregationType.RATE else 1)


SPANS = st.tuples(st.integers(-3_500, 3_500), st.integers(-3_500, 3_500)).map(sorted)


@pytest.mark.parametrize("aggregation", [*AggregationType, "p0", "p12.5", "p99.9", "p100"])
@settings(max_examples=size(20, 160), deadline=None)
@given(
    rows=ROWS,
    bucket=st.sampled_from([None, 1, 7, 1000, 10_000]),
    origin=st.sampled_from([0, 3, 999]),
    span=SPANS,
    grouped=st.booleans(),
    slices=st.lists(st.integers(1, 30), max_size=2),
)
def test_both_engines_equal_the_oracle(
    aggregation: str,
    rows: list[tuple[int, str, Any]],
    bucket: int | None,
    origin: int,
    span: list[int],
    grouped: bool,
    slices: list[int],
) -> None:
    start, end = span
    inside = [row for row in rows if start <= row[0] < end]
    cells = oracle(inside, bucket, origin, start, grouped=grouped)
    rises = steps([sample for cell in cells.values() for sample in cell])
    wanted = {cell: (expected(aggregation, numbers, rises), len(numbers)) for cell, numbers in cells.items()}
    request = AggregateRequest(
        (start, end),
        (aggregation,),
        ("host",) if grouped else (),
        None if bucket is None else FixedBuckets(bucket, origin),
        fields=("v",),
    )
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
                allowed = tolerance(aggregation, inside)
                assert told[cell].values == {
                    aggregation: None if value is None else pytest.approx(value, rel=1e-9, abs=allowed)
                }


NAMES = [*AggregationType, "p37.5"]
SOME_NAMES = st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True).map(tuple)
MANY = st.lists(
    st.tuples(
        st.integers(-50, 50),
        st.sampled_from(HOSTS),
        st.dictionaries(st.sampled_from(["u", "v", "w", *(f"a{n:02}" for n in range(26))]), VALUES, min_size=1),
    ),
    max_size=25,
)


@settings(max_examples=size(70, 600), deadline=None)
@given(
    rows=MANY,
    names=SOME_NAMES,
    by_field=st.dictionaries(st.sampled_from(["u", "v", "a25"]), SOME_NAMES),
    fields=st.one_of(st.none(), st.just(("v", "a13", "unknown"))),
    bucket=st.sampled_from([None, 7, 20]),
    slices=st.lists(st.integers(1, 30), max_size=2),
)
def test_many_at_once_are_what_each_is_alone_on_both_engines(
    rows: list[tuple[int, str, dict[str, FieldValue]]],
    names: tuple[str, ...],
    by_field: dict[str, tuple[str, ...]],
    fields: tuple[str, ...] | None,
    bucket: int | None,
    slices: list[int],
) -> None:
    buckets = None if bucket is None else FixedBuckets(bucket)
    points = [TimeSeriesPoint(from_micros(time), {"host": host}, values) for time, host, values in rows]
    request = AggregateRequest((-40, 45), names, ("host",), buckets, fields=fields, by_field=by_field)
    alone = {name: AggregateRequest((-40, 45), (name,), ("host",), buckets, fields=fields) for name in NAMES}
    with scratch(SESSION) as session:
        memory = MemoryTimeSeries(Journal())
        memory.store_many("m", points)
        session.time_series.store_many("m", points)
        for size in slices:
            compact(session, size)
        separate = {
            (name, row.timestamp, row.field, row.tags["host"]): (row.values[name], row.count)
            for name, single in alone.items()
            for row in memory.aggregate("m", single)
        }
        of_memory, of_sqlite = memory.aggregate("m", request), session.time_series.aggregate("m", request)
    place = [(row.timestamp, row.tags["host"], row.field) for row in of_memory]
    assert place == sorted(place)
    assert [(row.timestamp, row.tags["host"], row.field) for row in of_sqlite] == place
    for rows_found in (of_memory, of_sqlite):
        for row in rows_found:
            assert [*row.values] == [*by_field.get(row.field, names)]
            for name, value in row.values.items():
                wanted, count = separate[name, row.timestamp, row.field, row.tags["host"]]
                assert row.count == count
                assert value == (None if wanted is None else pytest.approx(wanted, rel=1e-9, abs=1e-3))
