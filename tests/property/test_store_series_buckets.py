"""Buckets of calendars and zones, and filled gaps: both engines say what pandas says."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.sqlite_sessions import compact, new_session, scratch

from polaris.storage._aggregation import AggregatedPoint, Fill
from polaris.storage._operation import Operation, TimeSeriesSession
from polaris.storage._points import TimeSeriesPoint
from polaris.storage._ranges import TimeRange
from polaris.storage._timeseries import CalendarUnit
from polaris.storage.backends.memory._journal import Journal
from polaris.storage.backends.memory._timeseries import MemoryTimeSeries
from polaris.storage.backends.shared import TimeSeriesPort

SESSION = new_session()
T = TypeVar("T")

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/Sao_Paulo",  # its clocks were put forward at midnight
    "America/Havana",  # and back to midnight
    "Australia/Lord_Howe",  # by half an hour
    "Pacific/Apia",  # left out a whole day
    "Africa/Monrovia",  # was off by seconds
    "Asia/Kathmandu",
]
DAYS = [
    datetime(2026, 3, 29, tzinfo=UTC),
    datetime(2026, 10, 25, tzinfo=UTC),
    datetime(2017, 10, 15, tzinfo=UTC),
    datetime(2018, 2, 18, tzinfo=UTC),
    datetime(2011, 12, 30, tzinfo=UTC),
    datetime(1972, 1, 7, tzinfo=UTC),
    datetime(1969, 12, 28, tzinfo=UTC),
    datetime(2024, 2, 29, tzinfo=UTC),
]
UNITS: dict[CalendarUnit, str] = {"day": "D", "week": "W-SUN", "month": "M", "quarter": "Q-DEC", "year": "Y-DEC"}
REACHES = {"day": 4, "week": 20, "month": 70, "quarter": 250, "year": 900}
HOSTS = ["a", "b"]


class _Alone:
    """Runs operations on a session at once."""

    def __init__(self, session: TimeSeriesSession) -> None:
        self.time_series = session

    async def execute(self, operation: Operation[T]) -> T:
        return operation.run(cast(Any, self))


def port(session: TimeSeriesSession) -> TimeSeriesPort:
    return TimeSeriesPort(cast(Any, None), _Alone(session))


def starts(stamps: pd.DatetimeIndex, unit: CalendarUnit, zone: str) -> pd.DatetimeIndex:
    """The start of the period of the calendar that each instant is in."""
    periods = stamps.tz_convert(zone).tz_localize(None).to_period(UNITS[unit])
    return instants(periods, zone)


def instants(periods: pd.PeriodIndex, zone: str) -> pd.DatetimeIndex:
    walls = periods.start_time
    found = walls.tz_localize(zone, ambiguous=np.ones(len(walls), dtype=bool), nonexistent="shift_forward")
    return found.tz_convert("UTC")


def every_start(first: datetime, last: datetime, unit: CalendarUnit, zone: str) -> pd.DatetimeIndex:
    ends = pd.DatetimeIndex([first, last]).tz_convert(zone).tz_localize(None).to_period(UNITS[unit])
    periods = pd.period_range(ends[0], ends[1], freq=UNITS[unit])
    if unit == "day":
        noons = periods.start_time + pd.Timedelta(hours=12)
        periods = periods[~noons.tz_localize(zone, ambiguous="NaT", nonexistent="NaT").isna()]
    return instants(periods, zone)


def gaps_filled(column: Any, buckets: pd.DatetimeIndex, fill: Fill) -> Any:
    full = column.reindex(buckets)
    if fill == "previous":
        return full.ffill()
    if fill == "linear":
        return full.interpolate(method="time", limit_area="inside")
    return full


def table(found: list[AggregatedPoint]) -> list[tuple[datetime, str, float | None, int]]:
    return [(one.timestamp, one.tags["host"], one.value, one.count) for one in found]


@st.composite
def cases(draw: st.DrawFn) -> tuple[CalendarUnit, str, datetime, datetime, list[tuple[datetime, str, int]]]:
    unit: CalendarUnit = draw(st.sampled_from([*UNITS]))
    zone = draw(st.sampled_from(ZONES))
    day = draw(st.sampled_from(DAYS))
    reach = REACHES[unit] * 86_400
    offsets = st.one_of(st.integers(-reach, reach), st.integers(-30 * 4, 30 * 4).map(lambda n: n * 900))
    low, high = sorted([draw(offsets), draw(offsets)])
    rows = draw(st.lists(st.tuples(offsets, st.sampled_from(HOSTS), st.integers(-9, 9)), max_size=25))
    placed = {(day + timedelta(seconds=offset), host): value for offset, host, value in rows}
    stored = [(stamp, host, value) for (stamp, host), value in sorted(placed.items())]
    return unit, zone, day + timedelta(seconds=low), day + timedelta(seconds=high), stored


FILLS: list[Fill] = ["none", "null", "previous", "linear"]


@settings(max_examples=250, deadline=None)
@given(case=cases(), fill=st.sampled_from(FILLS), slices=st.lists(st.integers(1, 20), max_size=2))
@example(
    case=(
        "day",
        "Pacific/Apia",
        datetime(2011, 12, 28, tzinfo=UTC),
        datetime(2012, 1, 3, tzinfo=UTC),
        [(datetime(2011, 12, 29, 12, tzinfo=UTC), "a", 1), (datetime(2011, 12, 30, 12, tzinfo=UTC), "a", 5)],
    ),
    fill="linear",
    slices=[1],
)
def test_calendar_buckets_and_their_gaps_are_those_of_pandas(
    case: tuple[CalendarUnit, str, datetime, datetime, list[tuple[datetime, str, int]]], fill: Fill, slices: list[int]
) -> None:
    unit, zone, start, end, rows = case
    inside = [row for row in rows if start <= row[0] < end]
    wanted: list[tuple[datetime, str, Any, int]] = []
    if inside:
        frame = pd.DataFrame(inside, columns=["stamp", "host", "value"])
        frame["bucket"] = starts(pd.DatetimeIndex(frame["stamp"]), unit, zone)
        buckets = every_start(start, end - timedelta(microseconds=1), unit, zone)
        for host, own in frame.groupby("host"):
            means, counts = own.groupby("bucket")["value"].mean(), own.groupby("bucket")["value"].count()
            if fill != "none":
                means, counts = gaps_filled(means, buckets, fill), counts.reindex(buckets, fill_value=0)
            for stamp, mean in means.items():
                value = None if math.isnan(mean) else pytest.approx(mean, rel=1e-9, abs=1e-9)
                wanted.append((stamp.to_pydatetime(), str(host), value, int(counts[stamp])))
        wanted.sort(key=lambda row: row[:2])
    points = [TimeSeriesPoint(stamp, {"host": host}, {"v": value}) for stamp, host, value in rows]
    with scratch(SESSION) as session:
        memory = MemoryTimeSeries(Journal())
        for engine in (memory, session.time_series):
            engine.store_many("m", points)
        for size in slices:
            compact(session, size)
        for engine in (memory, session.time_series):
            asked = port(engine).aggregate_time_series(
                "m", TimeRange(start, end), "avg", "host", bucket=unit, timezone=zone, fill=fill
            )
            assert table(asyncio.run(asked)) == wanted


@settings(max_examples=150, deadline=None)
@given(
    rows=st.dictionaries(st.integers(-300, 300), st.integers(-9, 9), max_size=12),
    span=st.tuples(st.integers(-400, 400), st.integers(-400, 400)).map(sorted),
    width=st.integers(1, 90),
    origin=st.integers(-100, 100),
    fill=st.sampled_from(FILLS),
)
def test_gaps_between_equal_buckets_are_those_of_pandas(
    rows: dict[int, int], span: list[int], width: int, origin: int, fill: Fill
) -> None:
    base = datetime(2026, 1, 1, tzinfo=UTC)
    start, end = (base + timedelta(seconds=second) for second in span)
    stored = {base + timedelta(seconds=second): float(value) for second, value in sorted(rows.items())}
    column = pd.Series({stamp: value for stamp, value in stored.items() if start <= stamp < end}, dtype=float)
    wanted: list[tuple[datetime, Any]] = []
    if not column.empty:
        grid: dict[str, Any] = {"freq": f"{width}s", "origin": pd.Timestamp(base + timedelta(seconds=origin))}
        means = column.groupby(pd.Grouper(**grid)).mean().dropna()
        if fill != "none":
            whole = pd.Series(0.0, index=[start, end - timedelta(microseconds=1)]).groupby(pd.Grouper(**grid)).count()
            means = gaps_filled(means, pd.DatetimeIndex(whole.index), fill)
        for stamp, mean in means.items():
            wanted.append((stamp.to_pydatetime(), None if math.isnan(mean) else pytest.approx(mean, abs=1e-9)))
    memory = MemoryTimeSeries(Journal())
    memory.store_many("m", [TimeSeriesPoint(stamp, {}, {"v": value}) for stamp, value in stored.items()])
    asked = port(memory).aggregate_time_series(
        "m",
        TimeRange(start, end),
        "avg",
        bucket=timedelta(seconds=width),
        origin=base + timedelta(seconds=origin),
        fill=fill,
    )
    assert [(one.timestamp, one.value) for one in asyncio.run(asked)] == wanted
