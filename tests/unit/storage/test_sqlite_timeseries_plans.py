"""Reads of time series in the embedded engine use their indexes, and no more of the store than they need."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace
from tests.sqlite_sessions import compact, new_session, steps_of
from tests.unit.storage.sqlite_plans import plans

from polaris.storage._buckets import CalendarBuckets, FixedBuckets
from polaris.storage._points import TimeSeriesPoint
from polaris.storage._ranges import to_micros
from polaris.storage._tag_filter import ALL_SERIES, parse_tags
from polaris.storage._timeseries_requests import AggregateRequest, PointCursor, PointQuery
from polaris.storage.backends.sqlite._session import SqliteSession

T0 = datetime(2030, 1, 1, tzinfo=UTC)
ALL = (-(2**62), 2**62)
THREE = parse_tags({"h": "w3"})
ONE_SERIES = PointQuery(ALL, 5, THREE, descending=True)
MANY = [f"w{n}" for n in range(12)]


def tags_of(n: int) -> dict[str, str]:
    return {"h": f"w{n % 20}", "z": str(n % 20 % 3)}


@pytest.fixture
def session() -> SqliteSession:
    made = new_session()
    points = [TimeSeriesPoint(T0 + timedelta(seconds=n), tags_of(n), {"v": n, "u": -n}) for n in range(2_000)]
    made.time_series.store_many("m", points)
    compact(made, 1_500)
    return made


@pytest.mark.parametrize(
    "read",
    [
        lambda series: series.query("m", ONE_SERIES),
        lambda series: series.query("m", replace(ONE_SERIES, after=PointCursor(to_micros(T0), ()))),
        lambda series: series.query("m", PointQuery(ALL, 5, fields=frozenset("v"))),
        lambda series: series.query("m", PointQuery(ALL, 100_000)),
        lambda series: series.latest("m", THREE, None),
        lambda series: series.latest("m", ALL_SERIES, None),
        lambda series: series.aggregate("m", AggregateRequest(ALL, ("avg",), ("h",), FixedBuckets(60), THREE, ("v",))),
        lambda series: series.aggregate("m", AggregateRequest(ALL, ("avg", "max", "p95"), ("h",), FixedBuckets(60))),
        lambda series: series.aggregate("m", AggregateRequest(ALL, ("last",), (), CalendarBuckets("day", "UTC"))),
    ],
)
def test_the_cold_table_is_never_read_as_a_whole(session: SqliteSession, read: Callable[[Any], Any]) -> None:
    with plans(session) as found:
        read(session.time_series)
    assert any("SEARCH p USING PRIMARY KEY (series=?" in line for line in found), found
    scanned = [line.split()[1] for line in found if line.startswith("SCAN ")]
    assert not {"p", "ts_cold", "ts_series", "s", "ts_tags", "t", "x"} & set(scanned), found


@pytest.mark.parametrize(
    "read",
    [
        lambda series: series.query("m", PointQuery(ALL, 5)),
        lambda series: series.query("m", PointQuery(ALL, 100_000)),
        lambda series: series.aggregate("m", AggregateRequest(ALL, ("avg", "last"))),
        lambda series: series.aggregate("m", AggregateRequest(ALL, ("sum",), (), CalendarBuckets("day", "UTC"))),
    ],
)
def test_hot_rows_look_their_series_up(session: SqliteSession, read: Callable[[Any], Any]) -> None:
    with plans(session) as found:
        read(session.time_series)
    walked = [place for place, line in enumerate(found) if line.startswith("SEARCH p USING PRIMARY KEY (ts>?")]
    assert walked
    for place in walked:
        assert any("SEARCH c USING AUTOMATIC" in line for line in found[place + 1 : place + 3]), found


def test_one_series_comes_sorted_from_both_tables(session: SqliteSession) -> None:
    with plans(session) as found:
        session.time_series.query("m", ONE_SERIES)
    reading = found[found.index("MERGE (UNION ALL)") :]
    # Within one instant the few parts of a point may be sorted; the instants themselves never are.
    assert not any(line == "USE TEMP B-TREE FOR ORDER BY" for line in reading), found


WALKED_BY_VALUE = "SEARCH t USING PRIMARY KEY (collection=? AND key=? AND value=?)"
LISTED = "SEARCH s USING COVERING INDEX sqlite_autoindex_ts_series_1 (collection=? AND tags>?)"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"h": "w3"}, [WALKED_BY_VALUE]),
        ({"h": {"$eq": "w3"}}, [WALKED_BY_VALUE]),
        ({"h": {"$in": ["w1", "w2"]}}, [WALKED_BY_VALUE]),
        ({"h": {"$in": MANY}}, [WALKED_BY_VALUE]),
        ({"h": {"$prefix": "w1"}}, ["SEARCH t USING PRIMARY KEY (collection=? AND key=? AND value>? AND value<?)"]),
        ({"h": {"$exists": True}}, ["SEARCH t USING PRIMARY KEY (collection=? AND key=?)"]),
        (
            {"h": {"$ne": "w1"}},
            [LISTED, "SEARCH x USING PRIMARY KEY (collection=? AND key=? AND value=? AND series=?)"],
        ),
        ({"h": {"$nin": MANY}}, [LISTED, "SEARCH x USING PRIMARY KEY (collection=? AND key=? AND value=?)"]),
        ({"h": {"$exists": False}}, [LISTED, "SEARCH x USING PRIMARY KEY (collection=? AND key=?)"]),
        ({"h": "w3", "z": "0"}, [WALKED_BY_VALUE, "(collection=? AND key=? AND value=? AND series=?)"]),
        (
            {"z": {"$prefix": ""}, "h": {"$prefix": "w1"}},
            [
                "SEARCH t USING PRIMARY KEY (collection=? AND key=? AND value>? AND value<?)",
                "SEARCH x USING PRIMARY KEY (collection=? AND key=? AND value>?)",
            ],
        ),
    ],
)
def test_every_condition_on_tags_is_served_by_an_index(session: SqliteSession, tags: Any, expected: list[str]) -> None:
    with plans(session) as found:
        session.time_series.list_series("m", parse_tags(tags), 10, (("a", ""),))
    for part in expected:
        assert any(part in line for line in found), found
    scanned = {line.split()[1] for line in found if line.startswith("SCAN ")}
    assert scanned <= {"json_each"}, found


@pytest.mark.parametrize(
    "read",
    [
        lambda series: series.list_collections(),
        lambda series: series.list_tag_keys("m"),
        lambda series: series.list_tag_values("m", "h", ALL_SERIES),
    ],
)
def test_lists_of_names_step_from_one_to_the_next(session: SqliteSession, read: Callable[[Any], Any]) -> None:
    with plans(session) as found:
        read(session.time_series)
    assert any(">?)" in line for line in found), found
    assert {line.split()[1] for line in found if line.startswith("SCAN ")} <= {"step"}, found


@pytest.mark.parametrize("descending", [False, True])
def test_a_page_of_many_series_costs_the_same_however_much_there_is(descending: bool) -> None:
    costs: list[int] = []
    for seconds in (300, 3_000):
        session = new_session()
        for start in range(0, seconds, 100):
            batch = [
                TimeSeriesPoint(T0 + timedelta(seconds=n), {"h": str(host)}, {"v": n})
                for n in range(start, start + 100)
                for host in range(20)
            ]
            session.time_series.store_many("m", batch)
        compact(session, 20 * seconds - 10)
        after = PointCursor(to_micros(T0) + 200_000_000, (("h", "5"),))
        page = PointQuery(ALL, 50, descending=descending, after=after)
        costs.append(steps_of(session, partial(session.time_series.query, "m", page)))
        assert len(session.time_series.query("m", page)) == 50
    assert costs[1] < 2 * costs[0], costs


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("limit", [1, 5, 12, 40, 150])
def test_windows_of_time_join_without_gap_or_double(descending: bool, limit: int) -> None:
    session = new_session()
    dense = [
        TimeSeriesPoint(T0 + timedelta(microseconds=n), {"h": host}, {"v": n}) for n in range(200) for host in "ab"
    ]
    sparse = [TimeSeriesPoint(T0 + timedelta(microseconds=n), {"h": "c"}, {"v": n}) for n in range(-50, 260, 90)]
    session.time_series.store_many("m", dense + sparse)
    compact(session, 350)
    whole = session.time_series.query("m", PointQuery(ALL, 100_000, descending=descending))
    assert len(whole) == 404
    found: list[TimeSeriesPoint] = []
    while page := session.time_series.query(
        "m", replace(PointQuery(ALL, limit, descending=descending), after=place(found))
    ):
        found += page
    assert found == whole


def place(found: list[TimeSeriesPoint]) -> PointCursor | None:
    """That of the last point."""
    return PointCursor(to_micros(found[-1].timestamp), tuple(found[-1].tags.items())) if found else None


def test_several_fields_and_aggregations_cost_about_one_reading(session: SqliteSession) -> None:
    one = AggregateRequest(ALL, ("avg",), ("h",), FixedBuckets(3_600_000_000), fields=("v",))
    many = replace(one, aggregations=("avg", "min", "max", "sum"), fields=("u", "v"))
    alone = steps_of(session, lambda: session.time_series.aggregate("m", one))
    together = steps_of(session, lambda: session.time_series.aggregate("m", many))
    assert together < 3 * alone, (alone, together)
