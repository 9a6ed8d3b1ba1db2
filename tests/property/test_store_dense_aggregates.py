"""Aggregates of one series that are read bucket by bucket equal those of the engine in memory."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sqlite_sessions import compact, new_session, scratch

from polaris.storage._aggregation import AggregationType
from polaris.storage._buckets import Buckets, CalendarBuckets, FixedBuckets
from polaris.storage._points import FieldValue, TimeSeriesPoint
from polaris.storage._ranges import from_micros
from polaris.storage._tag_filter import parse_tags
from polaris.storage._timeseries_requests import AggregateRequest
from polaris.storage.backends.memory._journal import Journal
from polaris.storage.backends.memory._timeseries import MemoryTimeSeries
from polaris.storage.backends.sqlite import _aggregate_cells

SESSION = new_session()
HOUR_US = 3_600_000_000
NAMES = [*AggregationType, "p37.5"]
VALUES = st.one_of(
    st.floats(-1e6, 1e6), st.integers(-1000, 1000), st.sampled_from([None, True, "text", 1e9, 1e9 + 0.25, 0])
)
# With 26 fields more than the usual ones, a point has three parts.
FIELDS = ["u", "v", "w", *(f"a{n:02}" for n in range(26))]
ROWS = st.lists(
    st.tuples(
        st.integers(-300, 300),
        st.sampled_from(["one", "other"]),
        st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1),
    ),
    min_size=1,
    max_size=40,
)
BUCKETS = st.sampled_from(
    [
        None,
        FixedBuckets(HOUR_US),
        FixedBuckets(7 * HOUR_US, 3 * HOUR_US),
        FixedBuckets(10_000 * HOUR_US),
        CalendarBuckets("day", "Europe/Berlin"),
        CalendarBuckets("week", "UTC"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    rows=ROWS,
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True).map(tuple),
    fields=st.sampled_from([None, ("v",), ("v", "a13", "unknown")]),
    buckets=BUCKETS,
    span=st.tuples(st.integers(-310, 310), st.integers(-310, 310)).map(sorted),
    slices=st.lists(st.integers(1, 30), min_size=1, max_size=2),
)
def test_reading_bucket_by_bucket_changes_no_answer(
    rows: list[tuple[int, str, dict[str, FieldValue]]],
    names: tuple[str, ...],
    fields: tuple[str, ...] | None,
    buckets: Buckets | None,
    span: list[int],
    slices: list[int],
) -> None:
    points = [TimeSeriesPoint(from_micros(at * HOUR_US), {"host": host}, values) for at, host, values in rows]
    start, end = (at * HOUR_US for at in span)
    request = AggregateRequest((start, end), names, ("host",), buckets, parse_tags({"host": "one"}), fields)
    memory = MemoryTimeSeries(Journal())
    memory.store_many("m", points)
    with scratch(SESSION) as session, pytest.MonkeyPatch.context() as patch:
        patch.setattr(_aggregate_cells, "ROWS_A_BUCKET_MIN", 0)
        session.time_series.store_many("m", points)
        for size in slices:
            compact(session, size)
        found = session.time_series.aggregate("m", request)
    wanted = memory.aggregate("m", request)
    assert [(row.timestamp, row.field, row.tags, row.count) for row in found] == [
        (row.timestamp, row.field, row.tags, row.count) for row in wanted
    ]
    for told, known in zip(found, wanted, strict=True):
        assert told.values == {
            name: None if value is None else pytest.approx(value, rel=1e-9, abs=1e-3)
            for name, value in known.values.items()
        }
