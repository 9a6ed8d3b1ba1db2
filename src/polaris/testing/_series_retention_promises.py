"""What the time series port promises of retention: what goes, what is left of it, and that it counts as before."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from polaris.exceptions import InvalidValueError, QueryError
from polaris.storage import FieldValue, RetentionPolicy, RollupPolicy, TimeRange, TimeSeriesPoint
from polaris.storage import TimeSeriesStorageBackend as Backend

T0 = datetime(2030, 1, 1, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
SPAN = TimeRange(T0, T0 + HOUR)
WEB, DB = {"host": "web"}, {"host": "db"}
MINUTES = RetentionPolicy(None, [RollupPolicy(MINUTE)])
"""Nothing is old by itself; what is retired at an instant of the test's own goes into windows of a minute."""
Rows = list[dict[str, Any]]
EXACT = ["count", "sum", "avg", "min", "max", "first", "last", "stddev"]


def _point(at: timedelta, tags: dict[str, str], **fields: FieldValue) -> TimeSeriesPoint:
    return TimeSeriesPoint(T0 + at, tags, fields)


def _from(start: datetime, count: int) -> list[TimeSeriesPoint]:
    """Points ten seconds apart, whose `n` counts up from the hour on."""
    first = (start.minute * 60 + start.second) // 10
    return [
        TimeSeriesPoint(start + 10 * n * SECOND, WEB, {"v": 0.37 * ((7 * n) % 11 - 3), "n": float(first + n)})
        for n in range(count)
    ]


def _ten_minutes(tags: dict[str, str] = WEB, factor: float = 1) -> list[TimeSeriesPoint]:
    """Six points a minute; `n` counts up and restarts in the third minute."""
    return [
        _point(10 * n * SECOND, tags, v=factor * ((7 * n) % 11 - 3), n=n if n < 15 else n - 15, b=n / 8)
        for n in range(60)
    ]


async def _count(backend: Backend, collection: str = "m", **asked: Any) -> int:
    """How many numbers of the field `v` the aggregates know of in the first hour, or in another range."""
    span = asked.pop("span", SPAN)
    rows = await backend.aggregate_time_series(collection, span, "count", fields=["v"], **asked)
    return sum(row.count for row in rows)


async def _rows(backend: Backend, names: Sequence[str], *, span: TimeRange = SPAN, **asked: Any) -> Rows:
    """Everything that the rows of an aggregate tell, with floats to nine places: their order is free."""
    return [
        {
            "at": (row.timestamp - T0) / SECOND,
            "of": [row.field, row.tags, row.count, row.approximate],
            **{name: None if value is None else round(value, 9) for name, value in row.values.items()},
        }
        for row in await backend.aggregate_many("m", span, names, **asked)
    ]


def _expected(
    points: Sequence[TimeSeriesPoint], bucket: timedelta | None, group_by: str | None, start: datetime = T0
) -> Rows:
    """What `_rows` gives of points in order of time, none of which lacks a field; `start` is that of the range."""
    cells: dict[tuple[float, str, str], list[Any]] = {}
    for point in points:
        at = ((start - T0) if bucket is None else (point.timestamp - T0) // bucket * bucket) / SECOND
        for field, value in point.fields.items():
            cells.setdefault((at, point.tags["host"] if group_by else "", field), []).append(value)
    return [
        {
            "at": at,
            "of": [field, {"host": host} if host else {}, len(values), False],
            "count": len(values),
            "sum": round(math.fsum(values), 9),
            "avg": round(statistics.fmean(values), 9),
            "min": round(min(values), 9),
            "max": round(max(values), 9),
            "first": round(values[0], 9),
            "last": round(values[-1], 9),
            "stddev": round(statistics.stdev(values), 9) if len(values) > 1 else None,
        }
        for (at, host, field), values in sorted(cells.items())
    ]


class SeriesRetentionPromises:
    """The promises about policies, rollups, and what is answered when points are gone."""

    async def test_a_policy_comes_back_and_the_next_one_replaces_it(self, backend: Backend) -> None:
        assert await backend.get_retention("m") is None
        first = RetentionPolicy(HOUR, [RollupPolicy(MINUTE, 2 * HOUR), RollupPolicy(10 * MINUTE)])
        await backend.set_retention("m", first)
        assert await backend.get_retention("m") == first
        await backend.set_retention("m", RetentionPolicy(MINUTE))
        assert await backend.get_retention("m") == RetentionPolicy(MINUTE)
        assert await backend.get_retention("n") is None

    async def test_without_a_policy_nothing_is_old(self, backend: Backend) -> None:
        old = [TimeSeriesPoint(datetime(1990, 1, day, tzinfo=UTC), WEB, {"v": day}) for day in range(1, 4)]
        await backend.store_many("m", old)
        assert await backend.apply_retention("m") == 0
        assert await backend.apply_retention("nobody") == 0
        assert await backend.query_time_series("m", TimeRange.all()) == old

    async def test_points_go_in_whole_windows_and_once(self, backend: Backend) -> None:
        await backend.set_retention("m", MINUTES)
        await backend.store_many("m", _ten_minutes())
        assert await backend.apply_retention("m", T0 + 4 * MINUTE + 30 * SECOND) == 24
        left = await backend.query_time_series("m", SPAN)
        assert left == _ten_minutes()[24:]
        assert await backend.apply_retention("m", T0 + 4 * MINUTE + 59 * SECOND) == 0
        assert await _count(backend) == 60

    async def test_the_window_of_the_newest_point_stays(self, backend: Backend) -> None:
        await backend.set_retention("m", MINUTES)
        await backend.store_many("m", [*_ten_minutes(), *_ten_minutes(DB)[:16]])
        assert await backend.apply_retention("m", T0 + 5 * MINUTE) == 30 + 12
        left = await backend.query_time_series("m", SPAN, DB)
        assert left == _ten_minutes(DB)[12:16]
        assert await backend.latest("m", DB) == left[-1:]
        assert await _count(backend, tags=DB) == 16

    @pytest.mark.parametrize(("until", "bucket"), [(7, MINUTE), (7, 5 * MINUTE), (7, None), (60, None)])
    async def test_aggregates_are_the_same_when_points_are_gone(
        self, backend: Backend, until: int, bucket: timedelta | None
    ) -> None:
        await backend.set_retention("m", MINUTES)
        later = [TimeSeriesPoint(one.timestamp + SECOND, one.tags, one.fields) for one in _ten_minutes(DB, 0.37)]
        points = sorted([*_ten_minutes(), *later], key=lambda one: one.timestamp)
        await backend.store_many("m", points)
        assert await backend.apply_retention("m", T0 + 7 * MINUTE) == 2 * 42
        span = TimeRange(T0, T0 + until * MINUTE)
        for tags, group_by in (({}, None), ({}, "host"), (DB, None)):
            found = await _rows(backend, EXACT, span=span, bucket=bucket, tags=tags, group_by=group_by)
            chosen = [one for one in points if tags.items() <= one.tags.items() and one.timestamp < span.end]
            assert found == _expected(chosen, bucket, group_by)

    async def test_an_increase_goes_on_over_what_is_gone(self, backend: Backend) -> None:
        await backend.set_retention("m", MINUTES)
        await backend.store_many("m", _ten_minutes())
        await backend.apply_retention("m", T0 + 7 * MINUTE)
        minutes = await _rows(backend, ["increase"], bucket=MINUTE, fields=["n"])
        # The first number has none before it, and in the third minute it begins from zero again.
        assert [row["increase"] for row in minutes] == [5, 6, 5, *[6] * 7]
        (whole,) = await _rows(backend, ["increase", "rate"], fields=["n"])
        assert (whole["increase"], whole["rate"]) == (58, round(58 / 590, 9))

    async def test_percentiles_of_what_is_gone_are_within_a_percent_and_say_so(self, backend: Backend) -> None:
        await backend.set_retention("m", MINUTES)
        await backend.store_many("m", [_point(n * SECOND, WEB, v=(37 * n) % 601 + 1.5) for n in range(601)])
        names = ["median", "p90", "p99", "p1"]
        exact = (await backend.aggregate_many("m", SPAN, names))[0].values
        await backend.apply_retention("m", T0 + 8 * MINUTE)
        (row,) = await backend.aggregate_many("m", SPAN, names)
        assert (row.count, row.approximate) == (601, True)
        for name in names:
            # Neighbours are one apart: a percent of the value, and where between two of them it lies.
            assert row.values[name] == pytest.approx(exact[name], rel=0.0101, abs=1.01), name
        (row,) = await backend.aggregate_many("m", TimeRange(T0 + 8 * MINUTE, T0 + HOUR), names)
        assert (row.count, row.approximate) == (121, False)

    async def test_a_window_that_is_gone_counts_where_it_starts_and_says_so(self, backend: Backend) -> None:
        await backend.set_retention("m", MINUTES)
        await backend.store_many("m", _ten_minutes())
        await backend.apply_retention("m", T0 + 2 * MINUTE)
        found = await backend.aggregate_time_series("m", SPAN, "count", bucket=30 * SECOND, fields=["v"])
        assert [((one.timestamp - T0) / SECOND, one.count, one.approximate) for one in found[:4]] == [
            (0, 6, True),
            (60, 6, True),
            (120, 3, False),
            (150, 3, False),
        ]
        (cut,) = await backend.aggregate_time_series(
            "m", TimeRange(T0 + 30 * SECOND, T0 + 90 * SECOND), "count", fields=["v"]
        )
        assert (cut.count, cut.approximate) == (6, True)

    async def test_of_what_is_no_number_nothing_is_left(self, backend: Backend) -> None:
        await backend.set_retention("m", MINUTES)
        batch = [_point(10 * n * SECOND, WEB, v=n, text="t", flag=True, none=None) for n in range(30)]
        await backend.store_many("m", batch)
        assert await backend.apply_retention("m", T0 + 3 * MINUTE) == 18
        found = await backend.aggregate_time_series("m", SPAN, "count")
        assert [(one.field, one.count) for one in found] == [("v", 30)]
        assert await backend.list_fields("m") == ["flag", "none", "text", "v"]

    async def test_a_point_that_comes_late_counts_besides_what_is_gone(self, backend: Backend) -> None:
        await backend.set_retention("m", MINUTES)
        await backend.store_many("m", _ten_minutes())
        await backend.apply_retention("m", T0 + 5 * MINUTE)
        await backend.store_many("m", [_point(65 * SECOND, WEB, v=1_000)])
        assert await _count(backend) == 61
        assert len(await backend.query_time_series("m", SPAN)) == 31
        assert await backend.apply_retention("m", T0 + 5 * MINUTE) == 1
        found = await backend.aggregate_many("m", SPAN, ["count", "max"], bucket=MINUTE, fields=["v"])
        assert [row.count for row in found] == [6, 7, *[6] * 8]
        assert found[1].values["max"] == 1_000

    async def test_a_range_that_cuts_what_is_left_cannot_be_deleted(self, backend: Backend) -> None:
        await backend.set_retention("m", MINUTES)
        await backend.store_many("m", [*_ten_minutes(), _point(90 * SECOND, DB, v=1)])
        await backend.apply_retention("m", T0 + 5 * MINUTE)
        with pytest.raises(QueryError, match="time_range"):
            await backend.delete_range("m", TimeRange(T0 + 30 * SECOND, T0 + 8 * MINUTE))
        assert await _count(backend) == 61
        assert await backend.delete_range("m", TimeRange(T0 + MINUTE, T0 + 6 * MINUTE + 5 * SECOND)) == 7 + 1
        found = await backend.aggregate_time_series("m", SPAN, "count", bucket=MINUTE, fields=["v"])
        assert [((one.timestamp - T0) / MINUTE, one.count) for one in found] == [(0, 6), (6, 5), (7, 6), (8, 6), (9, 6)]

    async def test_what_is_left_goes_with_its_series(self, backend: Backend) -> None:
        await backend.set_retention("m", MINUTES)
        await backend.store_many("m", [*_ten_minutes(), *_ten_minutes(DB)])
        await backend.apply_retention("m", T0 + 5 * MINUTE)
        assert await backend.delete_series("m", WEB) == 1
        assert await _count(backend) == 60
        await backend.store_many("m", [_point(9 * MINUTE, WEB, v=1)])
        assert await _count(backend, tags=WEB) == 1

    async def test_retention_of_one_collection_leaves_the_others_alone(self, backend: Backend) -> None:
        for name in ("m", "n"):
            await backend.set_retention(name, MINUTES)
            await backend.store_many(name, _ten_minutes())
        assert await backend.apply_retention("m", T0 + 5 * MINUTE) == 30
        assert len(await backend.query_time_series("n", SPAN)) == 60
        assert [await _count(backend, name) for name in ("m", "n")] == [60, 60]

    async def test_what_is_left_outlives_its_policy(self, backend: Backend) -> None:
        await backend.set_retention("m", MINUTES)
        await backend.store_many("m", _ten_minutes())
        await backend.apply_retention("m", T0 + 4 * MINUTE)
        await backend.set_retention("m", RetentionPolicy(None, [RollupPolicy(2 * MINUTE)]))
        assert await _count(backend) == 60
        await backend.apply_retention("m", T0 + 6 * MINUTE)
        assert len(await backend.query_time_series("m", SPAN)) == 24
        await backend.set_retention("m", RetentionPolicy())
        found = await backend.aggregate_time_series("m", SPAN, "count", bucket=MINUTE, fields=["v"])
        assert [one.count for one in found] == [6, 6, 6, 6, 12, 6, 6, 6, 6]

    async def test_what_is_left_goes_into_wider_windows_and_at_last_for_good(self, backend: Backend) -> None:
        policy = RetentionPolicy(10 * MINUTE, [RollupPolicy(MINUTE, HOUR), RollupPolicy(10 * MINUTE, 3 * HOUR)])
        await backend.set_retention("m", policy)
        now = datetime.now(UTC)
        starts = [_aligned(now - age) for age in (5 * HOUR, 2 * HOUR, 30 * MINUTE)]
        points = [TimeSeriesPoint(one + 10 * n * SECOND, WEB, {"v": n}) for one in starts for n in range(20)]
        await backend.store_many("m", [*points, TimeSeriesPoint(now, WEB, {"v": -1})])
        await backend.apply_retention("m")
        found = [
            await backend.aggregate_time_series(
                "m", TimeRange(start, start + 10 * MINUTE), "count", bucket=MINUTE, fields=["v"]
            )
            for start in starts
        ]
        assert [[(one.count, one.approximate) for one in part] for part in found] == [
            [],
            [(20, True)],
            [(6, False), (6, False), (6, False), (2, False)],
        ]
        assert await backend.latest("m") == [TimeSeriesPoint(now, WEB, {"v": -1})]

    @pytest.mark.parametrize("bucket", [10 * MINUTE, HOUR, None])
    async def test_aggregates_are_the_same_when_what_is_left_is_in_wider_windows(
        self, backend: Backend, bucket: timedelta | None
    ) -> None:
        policy = RetentionPolicy(10 * MINUTE, [RollupPolicy(MINUTE, HOUR), RollupPolicy(10 * MINUTE, 9 * HOUR)])
        await backend.set_retention("m", policy)
        now = datetime.now(UTC)
        day = now - 5 * HOUR
        old = [point for age in (4 * HOUR, 2 * HOUR, 30 * MINUTE) for point in _from(_aligned(now - age), 60)]
        points = [*old, *_from(_aligned(now), 2)]
        await backend.store_many("m", points)
        await backend.apply_retention("m")
        span = TimeRange(day, now + HOUR)
        assert await backend.query_time_series("m", span) == points[-2:]
        found = await _rows(backend, EXACT, span=span, bucket=bucket)
        assert found == _expected(points, bucket, None, day)
        (whole,) = await _rows(backend, ["increase"], span=span, fields=["n"])
        counted = [float(str(point.fields["n"])) for point in points]
        rises = [later - former if later >= former else later for former, later in pairwise(counted)]
        assert whole["increase"] == sum(rises)

    async def test_a_rollup_that_is_kept_as_long_as_the_points_goes_when_they_would(self, backend: Backend) -> None:
        now = datetime.now(UTC)
        old, young = (_from(_aligned(now - age), 60) for age in (3 * HOUR, 30 * MINUTE))
        begun = old[0].timestamp
        span = TimeRange(begun, now)
        await backend.set_retention("m", MINUTES)
        await backend.store_many("m", [*old, *young])
        assert await backend.apply_retention("m", begun + 5 * MINUTE) == 30
        assert await _rows(backend, EXACT, span=span) == _expected([*old, *young], None, None, begun)
        await backend.set_retention("m", RetentionPolicy(HOUR, [RollupPolicy(MINUTE, HOUR)]))
        await backend.apply_retention("m")
        assert await backend.query_time_series("m", span) == young
        for bucket in (MINUTE, 10 * MINUTE, None):
            assert await _rows(backend, EXACT, span=span, bucket=bucket) == _expected(young, bucket, None, begun)
        # Nothing is left that a deletion could cut.
        assert await backend.delete_range("m", TimeRange(begun + 30 * SECOND, begun + 9 * MINUTE + SECOND)) == 0

    async def test_what_is_left_of_points_that_go_early_stays_as_long_as_they_would_have(
        self, backend: Backend
    ) -> None:
        now = datetime.now(UTC)
        old, young = (_from(_aligned(now - age), 60) for age in (3 * HOUR, 30 * MINUTE))
        begun = old[0].timestamp
        await backend.set_retention("m", RetentionPolicy(10 * HOUR, [RollupPolicy(MINUTE, 10 * HOUR)]))
        await backend.store_many("m", [*old, *young])
        assert await backend.apply_retention("m", now - HOUR) == 60
        assert await backend.apply_retention("m") == 0
        span = TimeRange(begun, now)
        assert await backend.query_time_series("m", span) == young
        for bucket in (MINUTE, None):
            found = await _rows(backend, EXACT, span=span, bucket=bucket)
            assert found == _expected([*old, *young], bucket, None, begun)

    async def test_sums_beyond_a_float_are_infinite_and_hold_nothing_up(self, backend: Backend) -> None:
        policy = RetentionPolicy(10 * MINUTE, [RollupPolicy(MINUTE, HOUR), RollupPolicy(10 * MINUTE, 9 * HOUR)])
        await backend.set_retention("m", policy)
        now, most = datetime.now(UTC), 1.7e308
        begun = _aligned(now - 4 * HOUR)
        huge = [TimeSeriesPoint(begun + 10 * n * SECOND, WEB, {"v": most if n < 6 else -most}) for n in range(12)]
        await backend.store_many("m", [*huge, TimeSeriesPoint(now, WEB, {"v": 1})])
        await backend.apply_retention("m")
        names = ["count", "min", "max", "sum", "avg", "stddev"]
        (row,) = await backend.aggregate_many("m", TimeRange(begun, begun + HOUR), names)
        assert list(row.values.values()) == [12, -most, most, *[math.inf] * 3]

    async def test_what_changes_where_points_were_summarised_counts_at_once(self, backend: Backend) -> None:
        start = datetime(2020, 1, 1, tzinfo=UTC)
        span = TimeRange(start, start + HOUR)
        known = {point.timestamp: point for point in _from(start, 120)}
        await backend.set_retention("m", RetentionPolicy(None, [RollupPolicy(MINUTE)]))
        await backend.store_many("m", list(known.values()))
        late = TimeSeriesPoint(start + 65 * SECOND, WEB, {"v": 7.5, "n": 1.0})
        replaced = TimeSeriesPoint(start + 5 * MINUTE, WEB, {"v": -50.0, "n": 2.0})
        for change in (None, late, replaced, TimeRange(start + 8 * MINUTE + 45 * SECOND, start + 10 * MINUTE + SECOND)):
            await backend.apply_retention("m")  # where an engine summarises when it is told, it is told here
            if isinstance(change, TimeRange):
                assert await backend.delete_range("m", change) == 8
                known = {at: point for at, point in known.items() if not change.start <= at < change.end}
            elif change is not None:
                await backend.store_many("m", [change])
                known[change.timestamp] = change
            points = [known[at] for at in sorted(known)]
            for bucket in (MINUTE, 5 * MINUTE, None):
                found = await _rows(backend, EXACT, span=span, bucket=bucket)
                assert found == _expected(points, bucket, None, start), (change, bucket)

    async def test_without_rollups_old_points_leave_nothing(self, backend: Backend) -> None:
        await backend.set_retention("m", RetentionPolicy(HOUR))
        now = datetime.now(UTC)
        ages = [3 * HOUR, 2 * HOUR, 30 * MINUTE]
        await backend.store_many("m", [TimeSeriesPoint(now - age, WEB, {"v": 1}) for age in ages])
        await backend.store_many("m", [TimeSeriesPoint(now - 9 * HOUR, DB, {"v": 1})])
        await backend.apply_retention("m")
        span = TimeRange(now - 10 * HOUR, now)
        assert [one.timestamp for one in await backend.query_time_series("m", span)] == [
            now - 9 * HOUR,
            now - 30 * MINUTE,
        ]
        assert await _count(backend, span=span) == 2

    async def test_what_is_no_policy_is_refused(self, backend: Backend) -> None:
        await backend.set_retention("m", MINUTES)
        bad: Any = {"raw_kept": HOUR}
        with pytest.raises(InvalidValueError, match="policy"):
            await backend.set_retention("m", bad)
        with pytest.raises(InvalidValueError, match="collection"):
            await backend.set_retention("'; DROP TABLE ts_policies; --", MINUTES)
        with pytest.raises(InvalidValueError, match="timezone-aware"):
            await backend.apply_retention("m", datetime(2030, 1, 1))  # noqa: DTZ001 - what is refused
        assert await backend.get_retention("m") == MINUTES


def _aligned(at: datetime) -> datetime:
    """The start of the ten minutes that hold an instant."""
    return at.replace(minute=at.minute - at.minute % 10, second=0, microsecond=0)
