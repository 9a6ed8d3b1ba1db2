"""What the time series port promises of choosing: filters on tags, pages, lists of what there is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from polaris.exceptions import InvalidValueError, QueryError
from polaris.storage import FieldValue, Order, TimeRange, TimeSeriesPoint, TimeSeriesStorageBackend

T0 = datetime(2030, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ALL = TimeRange.all()

HOSTS: list[dict[str, str]] = [
    {"host": "web-1", "zone": "a"},
    {"host": "web-2", "zone": "b"},
    {"host": "db", "zone": "a"},
    {"host": "", "zone": "b"},
    {"zone": "a"},
]


def _point(second: float, tags: dict[str, str], **fields: FieldValue) -> TimeSeriesPoint:
    return TimeSeriesPoint(T0 + second * SECOND, tags, fields)


async def _store_hosts(backend: TimeSeriesStorageBackend) -> None:
    await backend.store_many("m", [_point(n, tags, v=n) for n, tags in enumerate(HOSTS)])


async def _store_grid(backend: TimeSeriesStorageBackend, seconds: int = 4) -> list[TimeSeriesPoint]:
    """Three series with points at the same instants; gives all in order."""
    points = [_point(n, {"host": host}, v=n) for n in range(seconds) for host in "abc"]
    await backend.store_many("m", points)
    return points


class SeriesSelectionPromises:
    """The promises about filters, pages and lists."""

    @pytest.mark.parametrize(
        ("tags", "chosen"),
        [
            ({"host": "db"}, [2]),
            ({"host": {"$eq": ""}}, [3]),
            ({"host": {"$in": ["db", "web-2", "nobody"]}}, [1, 2]),
            ({"host": {"$in": []}}, []),
            ({"host": {"$in": [f"web-{n}" for n in range(40)]}}, [0, 1]),
            ({"host": {"$prefix": "web-"}}, [0, 1]),
            ({"host": {"$prefix": ""}}, [0, 1, 2, 3]),
            ({"host": {"$prefix": "web-1x"}}, []),
            ({"host": {"$exists": True}}, [0, 1, 2, 3]),
            ({"host": {"$exists": False}}, [4]),
            ({"host": {"$prefix": "web-", "$nin": ["web-1"]}, "zone": {"$in": ["a", "b"]}}, [1]),
            ({"zone": "a", "host": {"$prefix": "w"}}, [0]),
            ({"zone": {"$exists": True}, "host": {"$exists": True, "$prefix": "d"}}, [2]),
        ],
    )
    async def test_conditions_on_tags_choose_series(
        self, backend: TimeSeriesStorageBackend, tags: Any, chosen: list[int]
    ) -> None:
        await _store_hosts(backend)
        assert [one.fields["v"] for one in await backend.query_time_series("m", ALL, tags)] == chosen

    @pytest.mark.parametrize(
        ("tags", "chosen"),
        [
            ({"host": {"$ne": "db"}}, [0, 1, 3, 4]),
            ({"host": {"$nin": ["db", "web-1"]}}, [1, 3, 4]),
            ({"host": {"$nin": []}}, [0, 1, 2, 3, 4]),
            ({"host": {"$nin": [f"web-{n}" for n in range(40)]}, "zone": "a"}, [2, 4]),
            ({"host": {"$ne": "db", "$exists": True}}, [0, 1, 3]),
        ],
    )
    async def test_opposites_let_series_without_the_tag_pass(
        self, backend: TimeSeriesStorageBackend, tags: Any, chosen: list[int]
    ) -> None:
        await _store_hosts(backend)
        assert [one.fields["v"] for one in await backend.query_time_series("m", ALL, tags)] == chosen

    async def test_every_read_and_deletion_understands_conditions(self, backend: TimeSeriesStorageBackend) -> None:
        await _store_hosts(backend)
        web: Any = {"host": {"$prefix": "web-"}}
        assert [one.fields["v"] for one in await backend.latest("m", web)] == [0, 1]
        assert await backend.list_series("m", web) == HOSTS[:2]
        assert await backend.count_series("m", web) == 2
        (found,) = await backend.aggregate_time_series("m", ALL, "sum", tags=web)
        assert (found.value, found.count) == (1.0, 2)
        assert await backend.delete_range("m", ALL, web) == 2
        assert await backend.delete_series("m", web) == 2
        assert await backend.count_series("m") == 3

    @pytest.mark.parametrize(
        "tags",
        [
            {"host": {"$like": "x"}},
            {"host": {}},
            {"host": {"$in": "web"}},
            {"host": {"$in": ["x"] * 1_001}},
            {"host": {"$exists": 1}},
        ],
    )
    async def test_conditions_that_make_no_sense_are_refused(
        self, backend: TimeSeriesStorageBackend, tags: Any
    ) -> None:
        with pytest.raises(QueryError, match=r"tags\.host"):
            await backend.query_time_series("m", ALL, tags)
        with pytest.raises(InvalidValueError, match="tags"):
            await backend.query_time_series("m", ALL, {"host": 7})  # type: ignore[dict-item] # what is refused

    @pytest.mark.parametrize("order", ["asc", "desc"])
    @pytest.mark.parametrize("limit", [1, 2, 4, 5])
    async def test_pages_follow_each_other_without_gap_or_double(
        self, backend: TimeSeriesStorageBackend, order: Order, limit: int
    ) -> None:
        await _store_grid(backend)
        whole = await backend.query_time_series("m", ALL, order=order)
        found: list[TimeSeriesPoint] = []
        while page := await backend.query_time_series(
            "m", ALL, order=order, limit=limit, after=found[-1] if found else None
        ):
            found += page
        assert found == whole

    async def test_a_page_goes_on_behind_a_point_that_is_gone(self, backend: TimeSeriesStorageBackend) -> None:
        points = await _store_grid(backend)
        await backend.delete_series("m", {"host": "b"})
        left = [one for one in points[5:] if one.tags["host"] != "b"]
        assert await backend.query_time_series("m", ALL, after=points[4]) == left

    async def test_what_is_written_between_two_pages_does_not_shift_them(
        self, backend: TimeSeriesStorageBackend
    ) -> None:
        points = await _store_grid(backend)
        page = await backend.query_time_series("m", ALL, limit=5)
        new = [_point(1, {"host": "aa"}, v=-1), _point(1, {"host": "bb"}, v=-2), _point(0, {"host": "d"}, v=-3)]
        await backend.store_many("m", new)
        rest = await backend.query_time_series("m", ALL, after=page[-1])
        assert [one for one in rest if one not in new] == points[5:]
        assert [one.tags["host"] for one in rest if one in new] == ["bb"]

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_iterating_gives_every_point_in_order(self, backend: TimeSeriesStorageBackend, order: Order) -> None:
        await _store_grid(backend, 7)
        whole = await backend.query_time_series("m", ALL, {"host": {"$ne": "b"}}, order=order)
        for page_points in (1, 3, 14, 100):
            pages = backend.iterate_time_series("m", ALL, {"host": {"$ne": "b"}}, order=order, page_points=page_points)
            assert [one async for one in pages] == whole

    async def test_the_latest_points_can_be_cut_to_fields(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_many("m", [_point(0, {"host": "b"}, x=9)])
        await backend.store_many("m", [_point(1, {"host": "a"}, x=1, y=2), _point(1, {"host": "b"}, y=3)])
        assert await backend.latest("m", fields=["x"]) == [_point(1, {"host": "a"}, x=1)]

    async def test_series_are_listed_in_pages_and_counted(self, backend: TimeSeriesStorageBackend) -> None:
        await _store_hosts(backend)
        whole = await backend.list_series("m")
        assert whole == sorted(HOSTS, key=lambda tags: sorted(tags.items()))
        found: list[dict[str, str]] = []
        while page := await backend.list_series("m", limit=2, after=found[-1] if found else None):
            found += page
        assert found == whole
        assert await backend.list_series("m", {"zone": "a"}, limit=1) == [{"host": "db", "zone": "a"}]
        await backend.store_many("n", [_point(0, {}, v=1)])
        assert [await backend.count_series(name) for name in ("m", "n", "o", None)] == [5, 1, 0, 6]
        assert await backend.list_series("n", after={}) == []

    async def test_collections_fields_and_tags_are_listed(self, backend: TimeSeriesStorageBackend) -> None:
        assert await backend.list_collections() == []
        await _store_hosts(backend)
        await backend.store_many("k", [_point(0, {"disk": "x"}, free=1, used=2), _point(1, {"disk": "y"}, free=3)])
        await backend.delete_range("k", ALL)
        assert await backend.list_collections() == ["k", "m"]
        assert await backend.list_fields("k") == ["free", "used"]
        assert await backend.list_fields("k", {"disk": "y"}) == ["free"]
        assert await backend.list_tag_keys("m") == ["host", "zone"]
        assert await backend.list_tag_values("m", "host") == ["", "db", "web-1", "web-2"]
        assert await backend.list_tag_values("m", "host", {"zone": "a"}) == ["db", "web-1"]
        assert await backend.list_tag_values("m", "nothing") == []

    async def test_deleted_series_are_gone_with_their_points(self, backend: TimeSeriesStorageBackend) -> None:
        await _store_grid(backend)
        assert await backend.delete_series("m", {"host": {"$in": ["a", "b", "x"]}}) == 2
        assert await backend.list_series("m") == [{"host": "c"}]
        assert {one.tags["host"] for one in await backend.query_time_series("m", ALL)} == {"c"}
        assert [one.tags["host"] for one in await backend.latest("m")] == ["c"]
        assert await backend.list_tag_values("m", "host") == ["c"]
        assert await backend.delete_series("m") == 1
        assert await backend.list_collections() == []

    async def test_a_deleted_series_may_come_again_as_a_new_one(self, backend: TimeSeriesStorageBackend) -> None:
        await backend.store_many("m", [_point(0, {"host": "a"}, old=1), _point(9, {"host": "a"}, old=2)])
        await backend.delete_series("m")
        await backend.store_many("m", [_point(1, {"host": "a"}, new=3)])
        assert await backend.query_time_series("m", ALL) == [_point(1, {"host": "a"}, new=3)]
        assert await backend.latest("m") == [_point(1, {"host": "a"}, new=3)]
        assert await backend.list_fields("m") == ["new"]
