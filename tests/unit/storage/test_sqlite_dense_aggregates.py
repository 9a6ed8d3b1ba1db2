"""A dense series is aggregated in the order of the file, bucket by bucket, with no sorting and no rows for Python."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import apsw
import pytest
from tests.sqlite_sessions import compact, new_session, steps_of
from tests.unit.storage.sqlite_plans import plans

from polaris.storage._aggregation import AggregatedRow
from polaris.storage._buckets import CalendarBuckets, FixedBuckets
from polaris.storage._points import TimeSeriesPoint
from polaris.storage._ranges import to_micros
from polaris.storage._tag_filter import ALL_SERIES, TagFilter, parse_tags
from polaris.storage._timeseries_requests import AggregateRequest
from polaris.storage.backends.sqlite import _aggregate_cells
from polaris.storage.backends.sqlite._session import SqliteSession

T0 = datetime(2030, 1, 1, tzinfo=UTC)
COUNT = 6_000
RANGE = (to_micros(T0), to_micros(T0 + timedelta(seconds=COUNT)))
MINUTES = FixedBuckets(600_000_000)
DENSE = parse_tags({"h": "dense"})
SIMPLE = ("avg", "max", "count", "p95")


@pytest.fixture(scope="module")
def session() -> SqliteSession:
    """A sample of one system every second, and now and then one of another; most of them are cold."""
    made = new_session()
    points = [TimeSeriesPoint(T0 + timedelta(seconds=n), {"h": "dense"}, {"v": n, "u": -n}) for n in range(COUNT)]
    points += [TimeSeriesPoint(T0 + timedelta(seconds=n), {"h": "sparse"}, {"v": n}) for n in range(0, COUNT, 100)]
    made.time_series.store_many("m", points)
    compact(made, COUNT)
    return made


def asked(session: SqliteSession, names: tuple[str, ...], tags: TagFilter = DENSE, **other: Any) -> list[AggregatedRow]:
    request = AggregateRequest(RANGE, names, ("h",), **{"buckets": MINUTES, "fields": ("v",), **other}, tags=tags)
    return session.time_series.aggregate("m", request)


def statements_of(session: SqliteSession, work: Callable[[], object]) -> list[str]:
    found: list[str] = []

    def trace(_: object, sql: str, __: object) -> bool:
        found.append(sql)
        return True

    session.connection.exec_trace = trace
    try:
        work()
    finally:
        session.connection.exec_trace = None
    return found


@pytest.mark.parametrize("buckets", [None, MINUTES, CalendarBuckets("day", "UTC")])
@pytest.mark.parametrize("names", [SIMPLE, ("stddev",), ("first", "last"), ("rate",)])
def test_both_tables_are_searched_and_no_rows_are_sorted_into_buckets(
    session: SqliteSession, names: Any, buckets: Any
) -> None:
    with plans(session) as found:
        assert asked(session, names, buckets=buckets)
    assert "SEARCH ts_cold USING PRIMARY KEY (series=? AND ts>? AND ts<?)" in found
    assert "SEARCH ts_hot USING PRIMARY KEY (ts>? AND ts<?)" in found
    assert not [line for line in found if "TEMP B-TREE FOR GROUP BY" in line or line.startswith("SCAN ts_")], found


def test_it_takes_less_than_half_of_the_steps_of_one_statement(
    session: SqliteSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = steps_of(session, lambda: asked(session, SIMPLE))
    monkeypatch.setattr(_aggregate_cells, "BUCKETS_MAX", -1)
    assert 2 * dense < steps_of(session, lambda: asked(session, SIMPLE))


def test_python_sees_a_row_a_bucket(session: SqliteSession) -> None:
    rows = asked(session, SIMPLE)
    assert [row.count for row in rows] == [600] * 10
    # The series, whether it is dense, the buckets, and each of them.
    assert len(statements_of(session, lambda: asked(session, SIMPLE))) <= 10 + 5


@pytest.mark.parametrize(
    ("names", "readings"), [(SIMPLE, 1), (("stddev",), 1), (("first",), 2), (("rate",), 1), (("increase", "avg"), 2)]
)
def test_the_hot_table_is_asked_only_where_it_has_rows(
    session: SqliteSession, names: tuple[str, ...], readings: int
) -> None:
    # The sixty rows that are hot are of the last minute.
    asks = [one for one in statements_of(session, lambda: asked(session, names)) if "FROM ts_hot WHERE" in one]
    assert len(asks) == readings
    early = (RANGE[0], RANGE[1] - 600_000_000)
    request = AggregateRequest(early, names, ("h",), MINUTES, DENSE, ("v",))
    told = statements_of(session, lambda: session.time_series.aggregate("m", request))
    assert not [one for one in told if "FROM ts_hot WHERE" in one]


def test_rates_and_increases_are_told_in_one_reading(session: SqliteSession) -> None:
    rows = asked(session, ("rate", "increase"))
    assert [(row.count, row.values["rate"]) for row in rows] == [(600, 1.0)] * 10
    assert [row.values["increase"] for row in rows] == [599.0, *[600.0] * 9]
    assert len(statements_of(session, lambda: asked(session, ("rate", "increase")))) <= 10 + 5


def test_a_deviation_takes_one_reading(session: SqliteSession) -> None:
    rows = asked(session, ("stddev",))
    assert [row.values["stddev"] for row in rows] == [pytest.approx(statistics.stdev(range(600)), rel=1e-12)] * 10
    assert len(statements_of(session, lambda: asked(session, ("stddev",)))) <= 10 + 6


def test_a_deviation_that_would_lose_its_digits_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_aggregate_cells, "ROWS_A_BUCKET_MIN", 0)
    session = new_session()
    values = [0.0, *(1e9 + n % 7 / 8 for n in range(2_000))]  # it begins with a number that is far from all others
    points = [TimeSeriesPoint(T0 + timedelta(seconds=n), {"h": "dense"}, {"v": v}) for n, v in enumerate(values)]
    points.append(TimeSeriesPoint(T0 + timedelta(seconds=len(values)), {"h": "dense"}, {"u": 1}))
    session.time_series.store_many("m", points)
    compact(session, len(points) - 1)
    for buckets, numbers, times in ((MINUTES, values[:600], 0), (None, values, 1)):
        told = asked(session, ("stddev",), buckets=buckets)
        assert told[0].values["stddev"] == pytest.approx(statistics.stdev(numbers), rel=1e-12)
        again = statements_of(session, lambda buckets=buckets: asked(session, ("stddev",), buckets=buckets))  # type: ignore[misc] # bound in the loop
        assert sum("m.mean" in one for one in again) == times


@pytest.mark.parametrize(
    ("tags", "buckets"),
    [
        (parse_tags({"h": "sparse"}), MINUTES),
        (ALL_SERIES, MINUTES),
        (DENSE, FixedBuckets(1_000_000)),  # a row a bucket
        (DENSE, FixedBuckets(1)),  # more buckets than anybody counts out
    ],
)
def test_where_it_does_not_pay_one_statement_reads_everything(
    session: SqliteSession, tags: TagFilter, buckets: FixedBuckets
) -> None:
    assert len(statements_of(session, lambda: asked(session, SIMPLE, tags, buckets=buckets))) <= 5


def test_an_interruption_between_two_buckets_is_not_lost(session: SqliteSession) -> None:
    seen = 0

    def trace(connection: apsw.Cursor, _: str, __: object) -> bool:
        nonlocal seen
        seen += 1
        if seen == 8:  # before the statement of some bucket begins
            session.connection.interrupt()
        return True

    session.connection.exec_trace = trace
    try:
        with pytest.raises(apsw.InterruptError):
            asked(session, SIMPLE)
    finally:
        session.connection.exec_trace = None
    assert seen == 8
    assert len(asked(session, SIMPLE)) == 10
