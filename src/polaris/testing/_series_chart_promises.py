"""What the time series port promises of charts: calendars and zones, gaps, any percentile, many aggregates at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from polaris.exceptions import InvalidValueError, QueryError
from polaris.storage import AggregatedRow, AggregationType, FieldValue, Fill, TimeRange, TimeSeriesPoint
from polaris.storage import TimeSeriesStorageBackend as Backend

T0 = datetime(2030, 1, 1, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
ALL = TimeRange.all()
BERLIN = "Europe/Berlin"


def _point(at: timedelta, tags: dict[str, str], **fields: FieldValue) -> TimeSeriesPoint:
    return TimeSeriesPoint(T0 + at, tags, fields)


async def _store_hours(backend: Backend, start: datetime, hours: int) -> None:
    await backend.store_many("m", [TimeSeriesPoint(start + n * HOUR, {}, {"v": n}) for n in range(hours)])


async def _filled(backend: Backend, fill: Fill, start: timedelta = -MINUTE) -> list[tuple[float, Any, int]]:
    """Minutes 0 and 3 have numbers, of which four buckets around are asked for."""
    await backend.store_many("m", [_point(0 * MINUTE, {}, v=10), _point(3 * MINUTE, {}, v=40.0)])
    found = await backend.aggregate_time_series(
        "m", TimeRange(T0 + start, T0 + 5 * MINUTE), AggregationType.AVG, bucket=MINUTE, fill=fill
    )
    return [((one.timestamp - T0) / MINUTE, one.value, one.count) for one in found]


class SeriesChartPromises:
    """The promises about buckets of the calendar, gaps, and aggregates asked for together."""

    @pytest.mark.parametrize(("day", "hours"), [((2026, 3, 29), 23), ((2026, 10, 25), 25), ((2026, 7, 1), 24)])
    async def test_days_of_a_zone_have_the_hours_that_its_clocks_give_them(
        self, backend: Backend, day: tuple[int, int, int], hours: int
    ) -> None:
        midnight = datetime(*day, tzinfo=ZoneInfo(BERLIN))
        await _store_hours(backend, midnight.astimezone(UTC) - 30 * HOUR, 90)
        found = await backend.aggregate_time_series("m", ALL, "count", bucket="day", timezone=BERLIN)
        assert {one.timestamp: one.value for one in found}[midnight.astimezone(UTC)] == hours

    @pytest.mark.parametrize(
        ("unit", "starts"),
        [
            ("day", ["2026-02-26", "2026-02-27", "2026-02-28", "2026-03-01", "2026-03-02", "2026-03-03"]),
            ("week", ["2026-02-23", "2026-03-02"]),
            ("month", ["2026-02-01", "2026-03-01"]),
            ("quarter", ["2026-01-01"]),
            ("year", ["2026-01-01"]),
        ],
    )
    async def test_units_of_the_calendar_begin_where_people_say(
        self, backend: Backend, unit: Any, starts: list[str]
    ) -> None:
        await _store_hours(backend, datetime(2026, 2, 26, 3, tzinfo=UTC), 24 * 6 - 6)
        found = await backend.aggregate_time_series("m", ALL, "count", bucket=unit)
        assert [one.timestamp.date().isoformat() for one in found] == starts

    async def test_an_origin_moves_the_buckets(self, backend: Backend) -> None:
        await _store_hours(backend, T0, 48)
        six = T0.replace(hour=6)
        by_length = await backend.aggregate_time_series("m", ALL, "count", bucket=DAY, origin=six)
        by_unit = await backend.aggregate_time_series("m", ALL, "count", bucket="day", origin=six - 400 * DAY)
        assert by_length == by_unit
        assert [(one.timestamp, one.value) for one in by_unit] == [(six - DAY, 6), (six, 24), (six + DAY, 18)]

    async def test_gaps_are_shown_as_null(self, backend: Backend) -> None:
        found = await _filled(backend, "null")
        assert found == [(-1, None, 0), (0, 10.0, 1), (1, None, 0), (2, None, 0), (3, 40.0, 1), (4, None, 0)]

    async def test_gaps_keep_the_value_before_them(self, backend: Backend) -> None:
        found = await _filled(backend, "previous")
        assert found == [(-1, None, 0), (0, 10.0, 1), (1, 10.0, 0), (2, 10.0, 0), (3, 40.0, 1), (4, 40.0, 0)]

    async def test_gaps_are_bridged_by_a_line(self, backend: Backend) -> None:
        found = await _filled(backend, "linear")
        assert found == [
            (-1, None, 0), (0, 10.0, 1), (1, pytest.approx(20.0), 0), (2, pytest.approx(30.0), 0), (3, 40.0, 1),
            (4, None, 0),
        ]  # fmt: skip

    async def test_gaps_are_filled_within_the_range_only(self, backend: Backend) -> None:
        found = await _filled(backend, "previous", start=90 * SECOND)
        assert found == [(1, None, 0), (2, None, 0), (3, 40.0, 1), (4, 40.0, 0)]

    async def test_each_group_and_field_has_gaps_of_its_own(self, backend: Backend) -> None:
        await backend.store_many("m", [_point(0 * MINUTE, {"h": "a"}, x=1), _point(1 * MINUTE, {"h": "b"}, x=2, y=3)])
        found = await backend.aggregate_time_series(
            "m", TimeRange(T0, T0 + 2 * MINUTE), "sum", "h", bucket=MINUTE, fill="previous"
        )
        assert [(one.timestamp - T0, one.tags["h"], one.field, one.value) for one in found] == [
            (0 * MINUTE, "a", "x", 1.0), (0 * MINUTE, "b", "x", None), (0 * MINUTE, "b", "y", None),
            (1 * MINUTE, "a", "x", 1.0), (1 * MINUTE, "b", "x", 2.0), (1 * MINUTE, "b", "y", 3.0),
        ]  # fmt: skip

    async def test_days_are_filled_over_a_change_of_the_clocks(self, backend: Backend) -> None:
        start = datetime(2026, 3, 27, 23, tzinfo=UTC)
        await backend.store_many("m", [TimeSeriesPoint(start, {}, {"v": 0})])
        await backend.store_many("m", [TimeSeriesPoint(start + 80 * HOUR, {}, {"v": 71})])
        found = await backend.aggregate_time_series(
            "m", TimeRange(start, start + 3 * DAY + 23 * HOUR), "avg", bucket="day", timezone=BERLIN, fill="linear"
        )
        assert [((one.timestamp - start) / HOUR, one.value) for one in found] == [
            (0, 0), (24, pytest.approx(24.0)), (47, pytest.approx(47.0)), (71, 71),
        ]  # fmt: skip

    async def test_more_than_can_be_filled_is_refused(self, backend: Backend) -> None:
        await backend.store_many("m", [_point(0 * SECOND, {}, v=1)])
        with pytest.raises(QueryError, match="more than 100000"):
            await backend.aggregate_time_series("m", ALL, "avg", bucket=MINUTE, fill="null")

    async def test_any_percentile_can_be_asked_for(self, backend: Backend) -> None:
        await backend.store_many("m", [_point(n * SECOND, {}, v=n) for n in range(101)])
        for name, value in (("p0", 0), ("p12.5", 12.5), ("p99.9", 99.9), ("p100", 100)):
            (found,) = await backend.aggregate_time_series("m", ALL, name)
            assert found.value == pytest.approx(value)

    async def test_increases_of_buckets_add_up(self, backend: Backend) -> None:
        # 0 5 | 9 (restart) 2 | 2 7: what ends in a bucket counts in it, also from the one before.
        await backend.store_many("m", [_point(n * SECOND, {}, v=value) for n, value in enumerate([0, 5, 9, 2, 2, 7])])
        found = await backend.aggregate_time_series("m", ALL, AggregationType.INCREASE, bucket=2 * SECOND)
        assert [(one.value, one.count) for one in found] == [(5.0, 2), (6.0, 2), (5.0, 2)]
        (whole,) = await backend.aggregate_time_series("m", ALL, AggregationType.INCREASE)
        assert whole.value == 16.0

    async def test_an_increase_knows_nothing_from_before_the_range(self, backend: Backend) -> None:
        await backend.store_many("m", [_point(n * SECOND, {}, v=10 * n) for n in range(4)])
        found = await backend.aggregate_time_series("m", TimeRange.since(T0 + SECOND), "increase", bucket=SECOND)
        assert [(one.timestamp - T0, one.value) for one in found] == [(2 * SECOND, 10.0), (3 * SECOND, 10.0)]

    async def test_many_aggregates_come_at_once(self, backend: Backend) -> None:
        await backend.store_many(
            "m", [_point(n * SECOND, {"h": host}, x=n, y=n if n % 2 else None) for n in range(4) for host in "ab"]
        )
        names = ["avg", "max", "p50", "last", "rate"]
        found = await backend.aggregate_many("m", ALL, names, "h", bucket=2 * SECOND, tags={"h": "b"})
        assert [(row.timestamp - T0, row.field, row.count, row.tags) for row in found] == [
            (0 * SECOND, "x", 2, {"h": "b"}), (0 * SECOND, "y", 1, {"h": "b"}),
            (2 * SECOND, "x", 2, {"h": "b"}), (2 * SECOND, "y", 1, {"h": "b"}),
        ]  # fmt: skip
        assert found[2].values == pytest.approx({"avg": 2.5, "max": 3, "p50": 2.5, "last": 3, "rate": 1.0})
        assert found[3].values == {"avg": 3.0, "max": 3, "p50": 3.0, "last": 3, "rate": None}

    async def test_each_field_can_have_aggregates_of_its_own(self, backend: Backend) -> None:
        await backend.store_many("m", [_point(0 * SECOND, {}, x=1, y=2, z=3), _point(SECOND, {}, x=5, y=6, z=7)])
        found = await backend.aggregate_many("m", TimeRange.since(T0), {"y": ["min", "max"], "x": ["first"]})
        assert found == [
            AggregatedRow(T0, "x", {"first": 1}, 2, {}),
            AggregatedRow(T0, "y", {"min": 2, "max": 6}, 2, {}),
        ]

    @pytest.mark.parametrize(
        "options",
        [
            {"bucket": "fortnight"},
            {"bucket": "day", "timezone": "Europe/Nowhere"},
            {"bucket": "day", "timezone": "../../etc/passwd"},
            {"bucket": HOUR, "timezone": BERLIN},
            {"timezone": BERLIN},
            {"origin": T0},
            {"bucket": "month", "origin": T0.replace(day=31)},
            {"fill": "null"},
            {"bucket": HOUR, "fill": "zero"},
            {"aggregation": "p101"},
            {"aggregation": "p-1"},
            {"aggregation": "percentile"},
        ],
    )
    async def test_charts_that_make_no_sense_are_refused(self, backend: Backend, options: dict[str, Any]) -> None:
        arguments: dict[str, Any] = {"aggregation": "avg", **options}
        with pytest.raises(QueryError):
            await backend.aggregate_time_series("m", ALL, **arguments)
        with pytest.raises(InvalidValueError, match="origin"):
            await backend.aggregate_time_series("m", ALL, "avg", bucket=HOUR, origin=datetime(2030, 1, 1))  # noqa: DTZ001
        with pytest.raises(QueryError):
            await backend.aggregate_many("m", ALL, [])
        with pytest.raises(QueryError, match="fields"):
            await backend.aggregate_many("m", ALL, {"x": ["avg"]}, fields=["x"])
