"""Reads that unite summaries with points: many shapes, wide points, calendars, and buckets that are windows."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import Any

import msgspec
import pytest
from tests.sqlite_sessions import compact, new_session

from polaris.storage._aggregation import AggregatedPoint
from polaris.storage._buckets import Buckets, CalendarBuckets, FixedBuckets
from polaris.storage._points import TimeSeriesPoint
from polaris.storage._ranges import from_micros
from polaris.storage._rollups import RetentionPolicy, RollupPolicy
from polaris.storage._tag_filter import ALL_SERIES
from polaris.storage._timeseries_requests import AggregateRequest
from polaris.storage.backends.memory._journal import Journal
from polaris.storage.backends.memory._timeseries import MemoryTimeSeries
from polaris.storage.backends.sqlite._rollup_windows import WindowKeeper
from polaris.storage.backends.sqlite._session import SqliteSession

HOUR = 3_600_000_000
POLICY = RetentionPolicy(timedelta(days=2), [RollupPolicy(timedelta(hours=1))])
NAMES = ("avg", "min", "max", "sum", "count")


def points() -> list[TimeSeriesPoint]:
    """Eighteen series, no two of which have their fields in the same columns; each has `v`, one more than twelve."""
    return [
        TimeSeriesPoint(
            from_micros(hour * HOUR + quarter * HOUR // 4),
            {"h": f"w{n:02}", "even": str(n % 2)},
            {"v": hour * 1.25 - quarter + n, **{f"a{n:02}{place}": place for place in range(n % 15)}},
        )
        for hour in range(20)
        for quarter in range(4)
        for n in range(18)
    ]


@pytest.mark.parametrize(
    ("names", "fields"),
    [(NAMES, None), (NAMES, ("v",)), (("avg",), ("v",)), (("count",), None), (("last", "max"), ("v",))],
)
@pytest.mark.parametrize("end", [21 * HOUR, 5 * HOUR + HOUR // 2])
@pytest.mark.parametrize("group_by", [("h",), ("even",), ()])
@pytest.mark.parametrize(
    "buckets", [None, FixedBuckets(HOUR), FixedBuckets(6 * HOUR), CalendarBuckets("day", "Europe/Berlin")]
)
def test_summaries_rollups_and_points_say_what_all_the_points_say(
    names: tuple[str, ...],
    fields: tuple[str, ...] | None,
    end: int,
    group_by: tuple[str, ...],
    buckets: Buckets | None,
) -> None:
    session, memory = stored()
    request = AggregateRequest((0, end), names, group_by, buckets, fields=fields)
    found, wanted = session.time_series.aggregate("m", request), memory.aggregate("m", request)
    assert [(row.timestamp, row.field, row.tags, row.count, row.approximate) for row in found] == [
        (row.timestamp, row.field, row.tags, row.count, row.approximate) for row in wanted
    ]
    for one, other in zip(found, wanted, strict=True):
        assert one.values == pytest.approx(other.values, rel=1e-12, abs=1e-9)
    if len(names) == 1:
        # Of a single aggregation the points are made at once.
        made: list[Any] = session.time_series.aggregate("m", msgspec.structs.replace(request, as_points=True))
        assert made == [
            AggregatedPoint(row.timestamp, row.field, row.values[names[0]], row.count, row.tags, row.approximate)
            for row in found
        ]


@cache
def stored() -> tuple[SqliteSession, MemoryTimeSeries]:
    """Both engines with the same points: some gone, some summarised, some hot, some late."""
    session, memory = new_session(), MemoryTimeSeries(Journal())
    made = points()
    late = [TimeSeriesPoint(from_micros(at * HOUR + 7), {"h": "w03", "even": "1"}, {"v": 9.5}) for at in (3, 12)]
    for engine in (session.time_series, memory):
        engine.set_policy("m", POLICY)
        engine.store_many("m", made)
    compact(session, len(made) - 200)
    keeper = WindowKeeper(session.connection, session.time_series.rollups, slice_rows=1_000)
    while keeper.run_slice(session.time_series.cold_until()):
        pass
    for engine in (session.time_series, memory):
        while engine.retain("m", 8 * HOUR, 500):
            pass
        engine.store_many("m", late)
    return session, memory


@pytest.mark.parametrize("policy", [POLICY, RetentionPolicy(None, [RollupPolicy(timedelta(hours=2))])])
def test_a_point_that_comes_into_a_window_after_its_summary_counts(policy: RetentionPolicy) -> None:
    session = new_session()
    series = session.time_series
    series.set_policy("m", policy)

    def store(at: int, value: float) -> None:
        series.store_many("m", [TimeSeriesPoint(from_micros(at), {}, {"v": value})])

    def summarise() -> None:
        compact(session, 1)
        keeper = WindowKeeper(session.connection, series.rollups, slice_rows=10)
        while keeper.run_slice(series.cold_until()):
            pass

    def values() -> list[object]:
        request = AggregateRequest((0, 4 * HOUR), ("count", "sum"), (), None)
        return [one.values for one in series.aggregate("m", request)]

    store(0, 1.0)
    session.memory.committed()
    for other in ("x", "y"):  # what moves the border of the compaction on, and nothing else
        series.store_many(other, [TimeSeriesPoint(from_micros(9 * HOUR), {"o": other}, {"v": 0})])
    summarise()
    assert session.connection.execute("SELECT count(*) FROM ts_dirty").fetchone() == (0,)
    for count in (2, 3):
        store(count, 1.0)
        session.memory.committed()
        assert values() == [{"count": count, "sum": float(count)}]
        summarise()
        assert values() == [{"count": count, "sum": float(count)}]
    store(2, 5.0)
    assert values() == [{"count": 3, "sum": 7.0}]


@pytest.mark.parametrize("is_deleted", [False, True])
def test_the_summary_of_a_window_goes_with_its_numbers(is_deleted: bool) -> None:
    session = new_session()
    series = session.time_series
    series.set_policy("m", RetentionPolicy(None, [RollupPolicy(timedelta(hours=1))]))

    def summarise() -> None:
        compact(session, 1)
        keeper = WindowKeeper(session.connection, series.rollups, slice_rows=10)
        while keeper.run_slice(series.cold_until()):
            pass
        assert session.connection.execute("SELECT count(*) FROM ts_dirty").fetchone() == (0,)

    series.store_many("m", [TimeSeriesPoint(from_micros(0), {}, {"v": 1.0, "w": 2.0})])
    for other in ("x", "y"):
        series.store_many(other, [TimeSeriesPoint(from_micros(9 * HOUR), {"o": other}, {"v": 0})])
    summarise()
    request = AggregateRequest((0, 4 * HOUR), ("sum",), (), None, fields=("v",))
    assert [row.values for row in series.aggregate("m", request)] == [{"sum": 1.0}]
    if is_deleted:
        assert series.delete_range("m", (0, HOUR), ALL_SERIES) == 1
    else:
        series.store_many("m", [TimeSeriesPoint(from_micros(0), {}, {"v": "broken", "w": 2.0})])
    summarise()
    assert series.aggregate("m", request) == []
