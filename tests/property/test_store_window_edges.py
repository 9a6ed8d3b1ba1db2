"""Buckets that begin and end within summarised windows: their values are those of their points, wherever these lie."""

from __future__ import annotations

from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st
from tests.property.test_store_rollups import EXACT, SECOND, UNIT, close, policy, rows_by_cell
from tests.sqlite_sessions import compact, new_session, roll_up, scratch

from polaris.storage._buckets import FixedBuckets
from polaris.storage._points import TimeSeriesPoint
from polaris.storage._ranges import from_micros
from polaris.storage._tag_filter import parse_tags
from polaris.storage._timeseries_requests import AggregateRequest
from polaris.storage.backends.memory._journal import Journal
from polaris.storage.backends.memory._timeseries import MemoryTimeSeries
from polaris.storage.backends.sqlite import _rollup_reads
from polaris.storage.backends.sqlite._sql import scalar

SESSION = new_session()
UNITS = 200
"""Tenths of a second in which there are points."""
VALUES = st.one_of(
    st.integers(-50, 50), st.floats(-1e3, 1e3).map(lambda value: round(value, 3)), st.sampled_from([None, "text"])
)
LATE = st.lists(st.tuples(st.integers(0, UNITS), st.sampled_from("ab"), VALUES), max_size=4)


def points(rows: list[tuple[int, str, Any]]) -> list[TimeSeriesPoint]:
    return [TimeSeriesPoint(from_micros(unit * UNIT), {"h": host}, {"v": value}) for unit, host, value in rows]


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.integers(1, 6), min_size=40, max_size=60),
    values=st.lists(VALUES, min_size=5, max_size=30),
    late=LATE,
    cold=st.sampled_from([40, 70, 1_000]),
    bucket=st.one_of(st.none(), st.integers(20, 70)),
    origin=st.integers(0, 30),
    span=st.tuples(st.integers(0, 60), st.integers(100, UNITS + 20)),
    tags=st.sampled_from([{}, {"h": "a"}]),
    names=st.one_of(st.just(tuple(EXACT)), st.sampled_from(EXACT).map(lambda name: (name,)), st.just(("p50", "avg"))),
)
def test_buckets_that_cut_windows_are_exact(
    steps: list[int],
    values: list[Any],
    late: list[tuple[int, str, Any]],
    cold: int,
    bucket: int | None,
    origin: int,
    span: tuple[int, int],
    tags: dict[str, str],
    names: tuple[str, ...],
) -> None:
    unit, rows = 0, list[tuple[int, str, Any]]()
    for number, step in enumerate(steps):
        unit += step
        rows += [(unit, host, values[(number + ord(host)) % len(values)]) for host in "ab"]
    memory = MemoryTimeSeries(Journal())
    with scratch(SESSION) as session:
        engine = session.time_series
        engine.set_policy("m", policy(1))
        for written in (rows, late):
            for one in (memory, engine):
                one.store_many("m", points(written))
            if written is rows:
                compact(session, cold)
                for _ in range(4):
                    roll_up(session, 1_000)
        buckets = None if bucket is None else FixedBuckets(bucket * UNIT, origin * UNIT)
        micros = (span[0] * UNIT, span[1] * UNIT)
        request = AggregateRequest(micros, names, ("h",), buckets, parse_tags(tags), fields=("v",))
        event(f"{scalar(session.connection, 'SELECT count(*) FROM ts_windows') // 10 * 10} windows")
        expected, found = (rows_by_cell(one.aggregate("m", request)) for one in (memory, engine))
        assert sorted(found) == sorted(expected)
        for cell, row in expected.items():
            assert found[cell].count == row.count
            assert not found[cell].approximate
            for name in names:
                assert close(found[cell].values[name], row.values[name], 1e3, name), (name, cell, found[cell], row)


def test_windows_between_the_edges_are_used() -> None:
    with scratch(SESSION) as session:
        session.time_series.set_policy("m", policy(1))
        session.time_series.store_many("m", points([(unit, host, unit) for unit in range(400) for host in "ab"]))
        compact(session, 790)
        for _ in range(4):
            roll_up(session, 1_000)
        # Were points read where windows stand for them, the sum would not be what the windows say.
        session.connection.execute("UPDATE ts_windows SET total = 0.0")
        for host in ({}, {"h": "a"}):
            request = AggregateRequest(
                (0, 30 * SECOND), ("sum", "count"), ("h",), FixedBuckets(2_500_000), parse_tags(host)
            )
            for row in session.time_series.aggregate("m", request):
                # Two windows are whole, and the half of a third is read.
                begin = row.timestamp.timestamp()
                half = range(round(begin * 10), round(begin * 10) + 5) if begin % 1 else None
                half = half or range(round(begin * 10) + 20, round(begin * 10) + 25)
                assert (row.values["sum"], row.count) == (sum(half), 25)


def test_of_too_many_cut_windows_none_is_used(monkeypatch: Any) -> None:
    monkeypatch.setattr(_rollup_reads, "CUTS_MAX", 3)
    with scratch(SESSION) as session:
        session.time_series.set_policy("m", policy(1))
        session.time_series.store_many("m", points([(unit, "a", unit) for unit in range(400)]))
        compact(session, 390)
        roll_up(session, 1_000)
        session.connection.execute("UPDATE ts_windows SET total = 0.0")
        for end, is_raw in ((30, True), (9, False)):
            request = AggregateRequest((0, end * SECOND), ("sum",), (), FixedBuckets(2_500_000))
            first = session.time_series.aggregate("m", request)[0]
            assert (first.values["sum"] == sum(range(25))) is is_raw
