"""The contract of `TimeSeriesStorageBackend` as tests: every engine passes all of them.

Derive a class named `Test...` from `TimeSeriesSuite` and give it a fixture `backend`: a connected, empty backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from polaris.exceptions import InvalidValueError, QueryError
from polaris.storage import (
    AggregatedPoint,
    AggregationType,
    FieldValue,
    TimeRange,
    TimeSeriesPoint,
    TimeSeriesStorageBackend,
)
from polaris.testing._series_chart_promises import SeriesChartPromises
from polaris.testing._series_retention_promises import SeriesRetentionPromises
from polaris.testing._series_selection_promises import SeriesSelectionPromises

T0 = datetime(2030, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ALL = TimeRange.all()
WEB, DB = {"host": "web"}, {"host": "db"}


def point(second: float, tags: dict[str, str], **fields: FieldValue) -> TimeSeriesPoint:
    """A point some seconds after the beginning."""
    return TimeSeriesPoint(T0 + second * SECOND, tags, fields)


async def _numbers(
    backend: TimeSeriesStorageBackend, aggregation: AggregationType, values: Sequence[FieldValue]
) -> list[int | float | None]:
    await backend.store_many("m", [point(n, WEB, v=value) for n, value in enumerate(values)])
    return [found.value for found in await backend.aggregate_time_series("m", ALL, aggregation)]


class TimeSeriesSuite(SeriesSelectionPromises, SeriesChartPromises, SeriesRetentionPromises):
    """The promises of the time series port."""

    async def test_a_point_comes_back_as_it_was_stored(self, backend: TimeSeriesStorageBackend) -> None:
        stamp = T0 + timedelta(microseconds=123_457)
        fields: dict[str, FieldValue] = {"i": 7, "f": 7.0, "t": "sieben", "e": "", "big": -(2**63), "tiny": 5e-324}
        await backend.store_time_series("m", stamp, {"a": "1", "b": "é"}, fields)
        (found,) = await backend.query_time_series("m", ALL)
        assert found == TimeSeriesPoint(stamp, {"a": "1", "b": "é"}, fields)
        assert {name: type(value) for name, value in found.fields.items()} == {
            name: type(value) for name, value in fields.items()
        }

    async def test_true_stays_true_and_is_not_one(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_many("m", [point(0, WEB, a=True, b=False, c=1)])
        (found,) = await backend.query_time_series("m", ALL)
        assert [repr(found.fields[name]) for name in "abc"] == ["True", "False", "1"]

    async def test_missing_is_kept_apart_from_absent_and_from_zero(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_many("m", [point(0, WEB, a=None, b=0.0), point(1, WEB, b=1.0)])
        found = await backend.query_time_series("m", ALL)
        assert [one.fields for one in found] == [{"a": None, "b": 0.0}, {"b": 1.0}]

    async def test_a_point_of_many_fields_comes_back_whole(self, backend: TimeSeriesStorageBackend) -> None:
        wide: dict[str, FieldValue] = {f"f{n}": n for n in range(61)}
        await backend.store_many("m", [TimeSeriesPoint(T0, WEB, {"f60": 1}), TimeSeriesPoint(T0 + SECOND, WEB, wide)])
        found = await backend.query_time_series("m", ALL)
        assert [one.fields for one in found] == [{"f60": 1}, wide]

    async def test_the_last_write_of_a_point_wins_as_a_whole(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_many("m", [TimeSeriesPoint(T0, WEB, {f"f{n}": n for n in range(40)})])
        await backend.store_many("m", [TimeSeriesPoint(T0, WEB, {"f3": "new"})])
        assert [one.fields for one in await backend.query_time_series("m", ALL)] == [{"f3": "new"}]

    async def test_within_a_batch_the_later_of_equal_points_stays(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_many("m", [point(0, WEB, v=1), point(0, DB, v=2), point(0, WEB, v=3)])
        found = await backend.query_time_series("m", ALL, WEB)
        assert [one.fields for one in found] == [{"v": 3}]

    async def test_points_come_in_order_of_time_however_they_were_stored(
        self, backend: TimeSeriesStorageBackend
    ) -> None:
        for second in (5, 1, 3, 2, 4):
            await backend.store_many("m", [point(second, WEB, v=second)])
        assert [one.fields["v"] for one in await backend.query_time_series("m", ALL)] == [1, 2, 3, 4, 5]
        assert [one.fields["v"] for one in await backend.query_time_series("m", ALL, order="desc")] == [5, 4, 3, 2, 1]

    async def test_points_of_one_instant_come_in_order_of_their_tags(self, backend: TimeSeriesStorageBackend) -> None:
        tags: list[dict[str, str]] = [{"b": "1"}, {"a": "2"}, {"a": "1", "b": "0"}, {"a": "1"}, {}]
        await backend.store_many("m", [point(0, one, v=1) for one in tags])
        assert [one.tags for one in await backend.query_time_series("m", ALL, order="desc")] == tags[::-1]

    async def test_ranges_hold_their_start_and_not_their_end(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_many("m", [point(n, WEB, v=n) for n in range(4)])
        found = await backend.query_time_series("m", TimeRange(T0 + SECOND, T0 + 3 * SECOND))
        assert [one.fields["v"] for one in found] == [1, 2]

    async def test_times_before_1970_and_far_ahead_are_times_as_well(self, backend: TimeSeriesStorageBackend) -> None:
        stamps = [datetime(1, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), T0]
        stamps.append(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
        await backend.store_many("m", [TimeSeriesPoint(stamp, WEB, {"v": 1}) for stamp in stamps[::-1]])
        assert [one.timestamp for one in await backend.query_time_series("m", ALL)] == stamps

    async def test_times_of_other_zones_are_the_same_instants(self, backend: TimeSeriesStorageBackend) -> None:
        stamp = T0.astimezone(timezone(timedelta(hours=5, minutes=30)))
        await backend.store_time_series("m", stamp, WEB, {"v": 1})
        await backend.store_time_series("m", T0, WEB, {"v": 2})
        (found,) = await backend.query_time_series("m", ALL)
        assert (found.timestamp, found.timestamp.tzinfo, found.fields) == (T0, UTC, {"v": 2})

    async def test_tags_choose_the_series_that_have_all_of_them(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_many(
            "m",
            [point(0, {"host": "web", "zone": "a"}, v=1), point(1, {"host": "web"}, v=2), point(2, {"zone": "a"}, v=3)],
        )
        assert [one.fields["v"] for one in await backend.query_time_series("m", ALL, {"host": "web"})] == [1, 2]
        both = {"zone": "a", "host": "web"}
        assert [one.fields["v"] for one in await backend.query_time_series("m", ALL, both)] == [1]
        assert await backend.query_time_series("m", ALL, {"host": "nobody"}) == []

    async def test_the_order_in_which_tags_are_given_does_not_matter(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_many("m", [point(0, {"a": "1", "b": "2"}, v=1), point(0, {"b": "2", "a": "1"}, v=2)])
        assert [one.fields for one in await backend.query_time_series("m", ALL)] == [{"v": 2}]

    async def test_collections_do_not_see_each_other(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_many("m", [point(0, WEB, v=1)])
        assert await backend.query_time_series("n", ALL) == []
        assert await backend.latest("n") == []
        await backend.store_many("M", [point(0, WEB, v=2), point(1, DB, v=3)])
        assert await backend.query_time_series("m", ALL) == await backend.latest("m") == [point(0, WEB, v=1)]
        assert await backend.list_series("m") == [WEB]
        (found,) = await backend.aggregate_time_series("m", ALL, AggregationType.SUM)
        assert (found.value, found.count) == (1.0, 1)
        assert await backend.delete_range("M", ALL) == 2
        assert await backend.query_time_series("m", ALL) == [point(0, WEB, v=1)]

    async def test_a_limit_takes_the_first_points_of_the_order(self, backend: TimeSeriesStorageBackend) -> None:
        wide: dict[str, FieldValue] = {f"f{n}": n for n in range(30)}
        await backend.store_many(
            "m", [TimeSeriesPoint(T0 + n * SECOND, one, wide) for n in range(5) for one in (WEB, DB)]
        )
        found = await backend.query_time_series("m", ALL, limit=3)
        assert [(one.timestamp - T0, one.tags) for one in found] == [
            (0 * SECOND, DB),
            (0 * SECOND, WEB),
            (1 * SECOND, DB),
        ]
        assert all(one.fields == wide for one in found)
        assert len(await backend.query_time_series("m", ALL, WEB, limit=2, order="desc")) == 2
        assert await backend.query_time_series("m", ALL, limit=0) == []

    async def test_chosen_fields_leave_the_others_out(self, backend: TimeSeriesStorageBackend) -> None:
        wide: dict[str, FieldValue] = {f"f{n}": n for n in range(30)}
        await backend.store_many("m", [TimeSeriesPoint(T0, WEB, wide), point(1, WEB, f0=-1, z=1), point(2, WEB, z=2)])
        found = await backend.query_time_series("m", ALL, fields=["f0", "f29", "unknown"])
        assert [one.fields for one in found] == [{"f0": 0, "f29": 29}, {"f0": -1}]

    async def test_a_limit_counts_only_points_with_chosen_fields(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_many("m", [point(n, WEB, **{"rare" if n % 10 == 9 else "common": n}) for n in range(50)])
        found = await backend.query_time_series("m", ALL, WEB, fields=["rare"], limit=3)
        assert [one.fields for one in found] == [{"rare": 9}, {"rare": 19}, {"rare": 29}]

    async def test_the_latest_point_is_the_newest_and_not_the_last_written(
        self, backend: TimeSeriesStorageBackend
    ) -> None:
        await backend.store_many("m", [point(9, WEB, v="new"), point(1, DB, v="db")])
        await backend.store_many("m", [point(3, WEB, v="late")])
        assert await backend.latest("m") == [point(1, DB, v="db"), point(9, WEB, v="new")]
        assert await backend.latest("m", WEB) == [point(9, WEB, v="new")]

    async def test_every_series_is_listed_once(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_many("m", [point(n, tags, v=1) for n in range(3) for tags in (WEB, DB)])
        assert await backend.list_series("m") == [DB, WEB]
        assert await backend.list_series("m", WEB) == [WEB]

    async def test_a_deleted_range_is_gone_and_nothing_else(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_many("m", [point(n, tags, v=n) for n in range(4) for tags in (WEB, DB)])
        assert await backend.delete_range("m", TimeRange(T0 + SECOND, T0 + 3 * SECOND), WEB) == 2
        assert [one.fields["v"] for one in await backend.query_time_series("m", ALL, WEB)] == [0, 3]
        assert len(await backend.query_time_series("m", ALL, DB)) == 4
        assert await backend.delete_range("m", TimeRange(T0 + SECOND, T0 + 3 * SECOND), WEB) == 0

    async def test_after_the_newest_was_deleted_the_one_before_is_the_latest(
        self, backend: TimeSeriesStorageBackend
    ) -> None:
        await backend.store_many("m", [point(n, WEB, v=n) for n in range(4)])
        await backend.delete_range("m", TimeRange(T0 + 2 * SECOND, T0 + 9 * SECOND))
        assert await backend.latest("m") == [point(1, WEB, v=1)]
        await backend.delete_range("m", ALL)
        assert await backend.latest("m") == []

    async def test_retention_keeps_the_newest_point_of_each_series(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_many(
            "m", [*[point(n, WEB, v=n) for n in range(10)], *[point(n, DB, v=n) for n in range(3)]]
        )
        assert await backend.apply_retention("m", T0 + 7 * SECOND) == 7 + 2
        assert [one.fields["v"] for one in await backend.query_time_series("m", ALL, WEB)] == [7, 8, 9]
        assert await backend.latest("m", DB) == [point(2, DB, v=2)]
        assert await backend.apply_retention("m", T0 + 7 * SECOND) == 0

    async def test_an_average_ignores_what_is_missing_or_no_number(self, backend: TimeSeriesStorageBackend) -> None:
        values: list[FieldValue] = [2, None, 4.0, "8", True, False]
        assert await _numbers(backend, AggregationType.AVG, values) == [3.0]

    async def test_a_count_counts_numbers_and_nothing_else(self, backend: TimeSeriesStorageBackend) -> None:
        assert await _numbers(backend, AggregationType.COUNT, [2, None, 4.0, "8", True, 0]) == [3]

    async def test_a_sum_is_exact_and_a_float(self, backend: TimeSeriesStorageBackend) -> None:
        (found,) = await _numbers(backend, AggregationType.SUM, [0.1] * 10 + [2**62, -(2**62)])
        assert isinstance(found, float)
        assert found == pytest.approx(1.0, abs=1e-9)

    async def test_extremes_are_what_was_stored(self, backend: TimeSeriesStorageBackend) -> None:
        low = await _numbers(backend, AggregationType.MIN, [3, -2, 7.5])
        high = await _numbers(backend, AggregationType.MAX, [3, -2, 7.5])
        assert [repr(one) for one in low + high] == ["-2", "7.5"]
        beyond_floats = await _numbers(backend, AggregationType.MAX, [2**53 + 1, 7.5])
        assert beyond_floats == [2**53 + 1]

    async def test_first_and_last_go_by_time_and_then_by_tags(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_many("m", [point(5, WEB, v=5), point(5, DB, v=6), point(1, WEB, v=1), point(1, DB, v=2)])
        first = await backend.aggregate_time_series("m", ALL, AggregationType.FIRST)
        last = await backend.aggregate_time_series("m", ALL, AggregationType.LAST)
        assert [(one.value, one.count) for one in first + last] == [(2, 4), (5, 4)]

    async def test_the_deviation_is_that_of_a_sample(self, backend: TimeSeriesStorageBackend) -> None:
        large = 1e9
        (found,) = await _numbers(backend, AggregationType.STDDEV, [large + 1, large + 2, large + 3, large + 4])
        assert found == pytest.approx(1.2909944487358056, rel=1e-9)

    async def test_one_number_has_no_deviation(self, backend: TimeSeriesStorageBackend) -> None:
        assert await _numbers(backend, AggregationType.STDDEV, [1.0]) == []

    async def test_percentiles_interpolate(self, backend: TimeSeriesStorageBackend) -> None:
        values: list[FieldValue] = [float(value) for value in range(10, 0, -1)]
        assert await _numbers(backend, AggregationType.MEDIAN, values) == [5.5]
        expected = {AggregationType.P90: 9.1, AggregationType.P95: 9.55, AggregationType.P99: 9.91}
        for aggregation, value in expected.items():
            (found,) = await backend.aggregate_time_series("m", ALL, aggregation)
            assert found.value == pytest.approx(value)

    async def test_a_rate_survives_the_restart_of_its_counter(self, backend: TimeSeriesStorageBackend) -> None:
        # 0 -> 10 -> (restart) 4 -> 6 in three seconds: 10 + 4 + 2.
        assert await _numbers(backend, AggregationType.RATE, [0, 10, 4, 6]) == [pytest.approx(16 / 3)]

    async def test_rates_of_several_series_are_added_up(self, backend: TimeSeriesStorageBackend) -> None:
        points = [point(n, tags, v=n * step) for n in range(3) for tags, step in ((WEB, 1), (DB, 10))]
        await backend.store_many("m", [*points, point(0, {"host": "once"}, v=99)])
        (found,) = await backend.aggregate_time_series("m", ALL, AggregationType.RATE)
        assert found.value == pytest.approx(11.0)
        assert found.count == 7

    async def test_one_sample_has_no_rate(self, backend: TimeSeriesStorageBackend) -> None:
        assert await _numbers(backend, AggregationType.RATE, [5]) == []

    async def test_buckets_are_aligned_and_cut_by_the_range(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_many("m", [point(n, WEB, v=n) for n in range(-30, 130, 10)])
        found = await backend.aggregate_time_series(
            "m", TimeRange(T0 - 10 * SECOND, T0 + 90 * SECOND), AggregationType.COUNT, bucket=timedelta(minutes=1)
        )
        assert [((one.timestamp - T0).total_seconds(), one.value) for one in found] == [(-60, 1), (0, 6), (60, 3)]

    async def test_buckets_before_1970_are_aligned_as_well(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_time_series("m", datetime(1969, 12, 31, 23, 59, 30, tzinfo=UTC), WEB, {"v": 1})
        (found,) = await backend.aggregate_time_series("m", ALL, AggregationType.COUNT, bucket=timedelta(minutes=1))
        assert found.timestamp == datetime(1969, 12, 31, 23, 59, tzinfo=UTC)

    async def test_a_bucket_without_numbers_has_no_point(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_many("m", [point(0, WEB, v=1), point(60, WEB, v=None), point(120, WEB, v=3)])
        found = await backend.aggregate_time_series("m", ALL, AggregationType.SUM, bucket=timedelta(minutes=1))
        assert [one.value for one in found] == [1.0, 3.0]

    async def test_without_a_bucket_there_is_one_from_the_start_of_the_range(
        self, backend: TimeSeriesStorageBackend
    ) -> None:
        await backend.store_many("m", [point(n, WEB, v=n) for n in range(4)])
        found = await backend.aggregate_time_series("m", TimeRange.since(T0 - SECOND), AggregationType.MAX)
        assert found == [AggregatedPoint(T0 - SECOND, "v", 3, 4, {})]

    async def test_groups_are_told_apart_by_their_tags(self, backend: TimeSeriesStorageBackend) -> None:
        zones: list[tuple[dict[str, str], int]] = [
            ({"host": "1", "zone": "a"}, 1),
            ({"host": "2", "zone": "a"}, 2),
            ({"host": "3", "zone": "b"}, 4),
            ({"host": "4"}, 8),
        ]
        await backend.store_many("m", [point(0, tags, v=value) for tags, value in zones])
        found = await backend.aggregate_time_series("m", ALL, AggregationType.SUM, "zone")
        assert [(one.tags, one.value) for one in found] == [({}, 8.0), ({"zone": "a"}, 3.0), ({"zone": "b"}, 4.0)]

    async def test_aggregates_take_the_series_that_have_the_tags(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_many("m", [point(0, WEB, v=1), point(0, DB, v=10)])
        (found,) = await backend.aggregate_time_series("m", ALL, AggregationType.SUM, tags=WEB)
        assert found.value == 1.0

    async def test_each_field_has_its_own_aggregate(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_many("m", [point(0, WEB, a=1, b=2), point(1, DB, b=4, c=8)])
        found = await backend.aggregate_time_series("m", ALL, AggregationType.SUM)
        assert [(one.field, one.value, one.count) for one in found] == [("a", 1.0, 1), ("b", 6.0, 2), ("c", 8.0, 1)]

    async def test_chosen_fields_are_aggregated_alone(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_many("m", [point(0, WEB, a=1, b=2)])
        found = await backend.aggregate_time_series("m", ALL, AggregationType.SUM, fields=["b", "unknown"])
        assert [one.field for one in found] == ["b"]

    async def test_a_refused_batch_stores_nothing(self, backend: TimeSeriesStorageBackend) -> None:
        batch: list[Any] = [point(0, WEB, v=1), "no point"]
        with pytest.raises(InvalidValueError):
            await backend.store_many("m", batch)
        assert await backend.query_time_series("m", ALL) == []

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 2**63, b"bytes", [1], "\ud800"])
    async def test_values_that_are_none_are_refused(self, backend: TimeSeriesStorageBackend, value: Any) -> None:
        with pytest.raises(InvalidValueError, match=r"fields\.v"):
            await backend.store_time_series("m", T0, WEB, {"v": value})
        assert await backend.query_time_series("m", ALL) == []

    async def test_naive_times_are_refused(self, backend: TimeSeriesStorageBackend) -> None:
        naive = datetime(2030, 1, 1)  # noqa: DTZ001 - what is refused
        with pytest.raises(InvalidValueError, match="timezone-aware"):
            await backend.store_time_series("m", naive, WEB, {"v": 1})
        with pytest.raises(InvalidValueError, match="timezone-aware"):
            TimeRange(naive, T0)

    @pytest.mark.parametrize("name", ["", "a b", "x'; DROP TABLE ts_hot; --", "ä", "n" * 129, ".hidden", 7, "a\0b"])
    async def test_bad_names_of_collections_are_refused(self, backend: TimeSeriesStorageBackend, name: Any) -> None:
        with pytest.raises(InvalidValueError, match="collection"):
            await backend.store_many(name, [point(0, WEB, v=1)])
        with pytest.raises(InvalidValueError, match="collection"):
            await backend.query_time_series(name, ALL)

    @pytest.mark.parametrize("text", ["'; DROP TABLE ts_hot; --", '"', "\\", "%_", "$.a", "🦉", "a.b", "[0]", "?1"])
    async def test_hostile_tags_and_fields_are_only_text(self, backend: TimeSeriesStorageBackend, text: str) -> None:
        stored = TimeSeriesPoint(T0, {text: text}, {text: text, "n": 1})
        await backend.store_many("m", [stored, point(0, WEB, n=2)])
        assert await backend.query_time_series("m", ALL, {text: text}, fields=[text, "n"]) == [stored]
        assert await backend.latest("m", {text: text}) == [stored]
        (found,) = await backend.aggregate_time_series("m", ALL, AggregationType.SUM, text, tags={text: text})
        assert (found.tags, found.value) == ({text: text}, 1.0)

    async def test_bad_queries_are_refused(self, backend: TimeSeriesStorageBackend) -> None:
        bad: Any = "sideways"
        with pytest.raises(QueryError, match="order"):
            await backend.query_time_series("m", ALL, order=bad)
        with pytest.raises(QueryError, match="limit"):
            await backend.query_time_series("m", ALL, limit=-1)
        with pytest.raises(QueryError, match="aggregation"):
            await backend.aggregate_time_series("m", ALL, bad)
        with pytest.raises(InvalidValueError, match="bucket"):
            await backend.aggregate_time_series("m", ALL, AggregationType.SUM, bucket=timedelta(0))
