"""Deleting series goes in short transactions: what is left after each of them is true, also where rollups are kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tests.sqlite_sessions import compact, new_session, roll_up

from polaris.storage._buckets import FixedBuckets
from polaris.storage._points import TimeSeriesPoint
from polaris.storage._rollups import RetentionPolicy, RollupPolicy
from polaris.storage._tag_filter import ALL_SERIES, parse_tags
from polaris.storage._timeseries_requests import AggregateRequest, PointQuery
from polaris.storage.backends.sqlite._session import SqliteSession

T0 = datetime(2030, 1, 1, tzinfo=UTC)
ALL = (-(2**62), 2**62)
TWO = parse_tags({"h": {"$in": ["a", "b"]}})


def counted(session: SqliteSession) -> int:
    """How many points the aggregates know of."""
    request = AggregateRequest(ALL, ("count",), buckets=FixedBuckets(60_000_000))
    return sum(row.count for row in session.time_series.aggregate("m", request))


@pytest.mark.parametrize("where", ["hot", "cold", "late ones hot"])
def test_after_every_slice_aggregates_and_latest_are_those_of_the_points_left(where: str) -> None:
    session = new_session()
    series = session.time_series
    series.set_policy("m", RetentionPolicy(timedelta(days=1), (RollupPolicy(timedelta(minutes=1)),)))
    points = [TimeSeriesPoint(T0 + timedelta(seconds=n), {"h": host}, {"v": n}) for n in range(300) for host in "abc"]
    series.store_many("m", points)
    if where != "hot":
        compact(session, 899)
    if where == "late ones hot":
        series.store_many(
            "m", [TimeSeriesPoint(T0 - timedelta(seconds=n), {"h": "ab"[n % 2]}, {"v": n}) for n in range(90)]
        )
    for _ in range(100):
        roll_up(session, 10)
    slices, deleted, is_done = 0, 0, False
    while not is_done:
        part, is_done = series.delete_series("m", TWO, 70)
        deleted += part
        slices += 1
        left = series.query("m", PointQuery(ALL, 10_000))
        assert counted(session) == len(left)
        newest = {one.tags["h"]: one.timestamp for one in left}
        assert {one.tags["h"]: one.timestamp for one in series.latest("m", ALL_SERIES, None)} == newest
    assert (deleted, len(left)) == (2, 300)
    assert slices > 8
    for table in ("ts_tags", "ts_latest", "ts_rollups", "ts_windows", "ts_dirty"):
        orphans = f"SELECT count(*) FROM {table} WHERE series NOT IN (SELECT id FROM ts_series)"
        assert session.connection.execute(orphans).fetchone() == (0,), table


def test_the_number_of_a_deleted_series_brings_nothing_back() -> None:
    session = new_session()
    series = session.time_series
    series.store_many("m", [TimeSeriesPoint(T0, {"h": "a"}, {"old": 1})])
    assert series.delete_series("m", ALL_SERIES, 10) == (1, True)
    series.store_many("n", [TimeSeriesPoint(T0 - timedelta(days=1), {"h": "b"}, {"new": 2})])
    assert series.query("n", PointQuery(ALL, 10)) == series.latest("n", ALL_SERIES, None)
    assert series.list_fields("n", ALL_SERIES) == ["new"]
    assert series.list_collections() == ["n"]
