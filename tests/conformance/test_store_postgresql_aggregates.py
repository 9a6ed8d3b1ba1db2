"""Each way in which PostgreSQL reads numbers gives what the engine in memory gives."""

from __future__ import annotations

import random
import statistics
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.conformance.conftest import QuickPostgres, schema_numbers
from tests.postgres_servers import VERSIONS

from polaris.storage import AggregationType, FieldValue, PolarisDataStore, TimeRange, TimeSeriesPoint
from polaris.storage._rollups import RetentionPolicy, RollupPolicy
from polaris.storage.backends.postgresql import _aggregate_numbers, _aggregate_sql
from polaris.storage.backends.postgresql._link import Link

T0 = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ALL = TimeRange.all()
NAMES = [*AggregationType, "p37.5"]
ALWAYS, NEVER = 0, 10**9
"""Numbers that a bucket must have on average to be looked up by itself."""
Stores = tuple[PolarisDataStore, PolarisDataStore]


@pytest.fixture(params=VERSIONS)
async def stores(request: pytest.FixtureRequest, quick_postgres: QuickPostgres) -> AsyncIterator[Stores]:
    schema = f"test_{next(schema_numbers)}"
    server = PolarisDataStore.postgresql(
        quick_postgres(request.param).dsn, schema=schema, partition_hours=1, pool_max=2
    )
    async with PolarisDataStore.memory() as memory, server:
        yield memory, server


@pytest.fixture
async def server(quick_postgres: QuickPostgres) -> AsyncIterator[PolarisDataStore]:
    schema = f"test_{next(schema_numbers)}"
    async with PolarisDataStore.postgresql(quick_postgres(15).dsn, schema=schema, pool_max=2) as store:
        yield store


def of_hosts(chance: random.Random, count: int) -> list[TimeSeriesPoint]:
    """Some hosts report floats, some integers, some either, and each keeps a field in another place."""
    kinds: dict[str, list[FieldValue]] = {
        "a": [0.5, -2.25, 1e9 + 0.25, 7.0],
        "b": [3, -7, 0, 2**62],
        "c": [1, 2.5, None, True, "text", 1e-9],
    }
    points = []
    for _ in range(count):
        host = chance.choice("abc")
        names = chance.sample(["u", "v", "w"] if host == "a" else ["w", "x", "v"], chance.randint(1, 3))
        tags = {"host": host} | ({"zone": "z"} if chance.random() < 0.4 else {})
        at = T0 + timedelta(seconds=chance.randint(-9_000, 9_000))
        points.append(TimeSeriesPoint(at, tags, {name: chance.choice(kinds[host]) for name in names}))
    return points


@pytest.mark.parametrize("numbers_min", [ALWAYS, NEVER])
async def test_buckets_that_are_looked_up_and_sorted_numbers_tell_the_same(
    stores: Stores, numbers_min: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_aggregate_sql, "NUMBERS_A_CELL_MIN", numbers_min)
    monkeypatch.setattr(_aggregate_numbers, "FIELDS_A_SCAN", 2)
    monkeypatch.setattr(_aggregate_sql, "ROWS_A_TURN", 20)
    chance = random.Random(7)
    for store in stores:
        await store.time_series.store_many("m", of_hosts(random.Random(11), 400))
    for name in NAMES:
        for group_by in (["host", "zone"], "host", None):
            start = T0 + timedelta(seconds=chance.randint(-10_000, 0))
            span = chance.choice([ALL, TimeRange(start, start + timedelta(seconds=chance.randint(0, 15_000)))])
            asked: dict[str, Any] = {
                "group_by": group_by,
                "bucket": chance.choice([None, 13 * MINUTE, "day"]),
                "tags": chance.choice([None, {"host": "c"}, {"host": {"$ne": "a"}}]),
                "fields": chance.choice([None, ["v"], ["w", "unknown", "x"]]),
            }
            if chance.random() < 0.5 and isinstance(asked["bucket"], timedelta):
                asked["origin"] = T0 + timedelta(days=90, seconds=5)
            await _compare(stores, span, name, asked)


async def _compare(stores: Stores, span: TimeRange, name: str, asked: dict[str, Any]) -> None:
    expected, found = [await store.time_series.aggregate_time_series("m", span, name, **asked) for store in stores]
    assert [(one.timestamp, one.field, one.count, one.tags) for one in found] == [
        (one.timestamp, one.field, one.count, one.tags) for one in expected
    ], (name, asked)
    for one, other in zip(found, expected, strict=True):
        assert type(one.value) is type(other.value), (name, asked, one, other)
        assert one.value == pytest.approx(other.value, rel=1e-9, abs=1e-9), (name, asked, one, other)


@pytest.mark.parametrize("numbers_min", [ALWAYS, NEVER])
async def test_many_at_once_are_what_each_is_alone(
    stores: Stores, numbers_min: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_aggregate_sql, "NUMBERS_A_CELL_MIN", numbers_min)
    for store in stores:
        await store.time_series.store_many("m", of_hosts(random.Random(5), 300))
    wanted = {
        "v": ["avg", "p90", "last", "stddev"],
        "w": ["p12", "p90", "rate", "min", "first"],
        "x": ["max", "increase"],
        "u": ["count", "sum"],
    }
    for group_by in (["host", "zone"], "zone"):
        expected, found = [
            await store.time_series.aggregate_many("m", ALL, wanted, group_by, bucket=20 * MINUTE) for store in stores
        ]
        assert [(row.timestamp, row.field, row.tags, row.count) for row in found] == [
            (row.timestamp, row.field, row.tags, row.count) for row in expected
        ]
        for row, other in zip(found, expected, strict=True):
            assert [*row.values] == [*other.values]
            assert row.values == {
                name: None if value is None else pytest.approx(value, rel=1e-9, abs=1e-9)
                for name, value in other.values.items()
            }


async def test_rollups_are_added_to_what_the_server_counts(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    read_one_by_one: list[str] = []
    original = Link.rows

    async def seen(link: Link, sql: str, *values: Any) -> list[Any]:
        if sql.startswith("SELECT p.series, p.ts, p.f, p.i FROM"):
            read_one_by_one.append(sql)
        return await original(link, sql, *values)

    monkeypatch.setattr(Link, "rows", seen)
    for store in stores:
        await store.time_series.set_retention("m", RetentionPolicy(None, [RollupPolicy(10 * MINUTE)]))
        await store.time_series.store_many("m", of_hosts(random.Random(2), 400))
        assert await store.time_series.apply_retention("m", T0) > 100
        await store.time_series.store_many("m", of_hosts(random.Random(4), 60))
    approximate = set()
    for names in (["avg", "sum", "min", "max", "count"], ["count"], ["max"], {"v": ["avg"], "w": ["min", "count"]}):
        for group_by in (["host", "zone"], "zone", None):
            for bucket in (None, 10 * MINUTE, 13 * MINUTE, "day"):
                for span in (ALL, TimeRange(T0 - 95 * MINUTE, T0 + 33 * MINUTE)):
                    asked = ("m", span, names, group_by)
                    expected, found = [
                        await store.time_series.aggregate_many(*asked, bucket=bucket) for store in stores
                    ]
                    assert found
                    assert [(row.timestamp, row.field, row.tags, row.count, row.approximate) for row in found] == [
                        (row.timestamp, row.field, row.tags, row.count, row.approximate) for row in expected
                    ]
                    for row, other in zip(found, expected, strict=True):
                        assert row.values == pytest.approx(other.values, rel=1e-12, abs=1e-9), (row, other)
                    approximate |= {row.approximate for row in found}
    assert approximate == {True, False}
    assert not read_one_by_one
    await stores[1].time_series.aggregate_many("m", ALL, ["last"])
    assert read_one_by_one


async def test_what_a_sum_loses_is_added_up_again_exactly(server: PolarisDataStore) -> None:
    values: list[int | float] = [1e17, 1.0, -1e17, 2**62, 1, -(2**62)]
    await server.time_series.store_many(
        "m", [TimeSeriesPoint(T0 + n * MINUTE, {"host": "a"}, {"v": one, "w": 0.1}) for n, one in enumerate(values)]
    )
    (of_v, of_w) = await server.time_series.aggregate_many("m", ALL, ["sum", "avg", "min", "max"])
    assert of_v.values == {"sum": 2.0, "avg": 2.0 / 6, "min": -(2**62), "max": 2**62}
    assert of_w.values["sum"] == pytest.approx(0.6, rel=1e-15)


@pytest.mark.parametrize("numbers_min", [ALWAYS, NEVER])
async def test_small_deviations_of_large_numbers_keep_their_digits(
    server: PolarisDataStore, numbers_min: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_aggregate_sql, "NUMBERS_A_CELL_MIN", numbers_min)
    values = [1e9 + n % 7 / 8 for n in range(500)]
    await server.time_series.store_many(
        "m", [TimeSeriesPoint(T0 + timedelta(seconds=n), {}, {"v": one}) for n, one in enumerate(values)]
    )
    (told,) = await server.time_series.aggregate_time_series("m", ALL, AggregationType.STDDEV)
    assert told.value == pytest.approx(statistics.stdev(values), rel=1e-9)


async def test_numbers_are_read_once_where_counts_sums_and_extremes_are_asked(
    server: PolarisDataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await server.time_series.store_many("m", of_hosts(random.Random(3), 200))
    asked = await _statements_over_points(
        server, monkeypatch, lambda: server.time_series.aggregate_many("m", ALL, ["avg", "max"], "host", bucket=MINUTE)
    )
    assert len(asked) == 1
    assert "min(" not in asked[0][0]
    alone = await _statements_over_points(
        server, monkeypatch, lambda: server.time_series.aggregate_many("m", ALL, ["count"], fields=["v"])
    )
    assert [("sum(" in sql, "max(" in sql) for sql, _ in alone] == [(False, False)]


async def test_a_question_is_planned_for_its_own_range_and_asked_of_several_processes(
    server: PolarisDataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await server.time_series.store_many("m", of_hosts(random.Random(3), 200))
    asked = await _statements_over_points(
        server, monkeypatch, lambda: server.time_series.aggregate_many("m", ALL, ["avg"], bucket=MINUTE)
    )
    ((_, settings),) = asked
    assert settings["plan_cache_mode"] == "force_custom_plan"
    assert "Gather" in settings["plan"]


async def test_a_unit_of_work_adds_up_in_the_same_order_when_it_is_done_anew(
    server: PolarisDataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await server.time_series.store_many("m", of_hosts(random.Random(3), 200))

    async def ask() -> None:
        async with server.unit_of_work() as work:
            await work.time_series.aggregate_many("m", ALL, ["avg"], bucket=MINUTE)

    ((_, settings),) = await _statements_over_points(server, monkeypatch, ask)
    assert "Gather" not in settings["plan"]
    assert settings["synchronize_seqscans"] == "off"


async def _statements_over_points(
    server: PolarisDataStore, monkeypatch: pytest.MonkeyPatch, call: Any
) -> list[tuple[str, dict[str, str]]]:
    """The statements over points that the call makes, each with the settings that held and the plan it may get.

    Setting up several processes is made to cost nothing here: what may use them then does.
    """
    found: list[tuple[str, dict[str, str]]] = []
    original = Link.rows

    async def seen(link: Link, sql: str, *values: Any) -> list[Any]:
        if " p WHERE " in sql or " p, unnest(" in sql:
            told = {
                name: await link.value(f"SELECT current_setting('{name}')")
                for name in ("plan_cache_mode", "synchronize_seqscans")
            }
            for name in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
                await link.value(f"SELECT set_config('{name}', '0', true)")
            told["plan"] = "\n".join([row[0] for row in await original(link, f"EXPLAIN {sql}", *values)])
            found.append((sql, told))
        return await original(link, sql, *values)

    with monkeypatch.context() as patch:
        patch.setattr(Link, "rows", seen)
        await call()
    return found


async def test_sums_beyond_a_float_are_infinite_in_a_unit_of_work_too(stores: Stores) -> None:
    values = [1.7e308, 1.7e308, -1.7e308, 1.7e308]
    points = [TimeSeriesPoint(T0 + n * timedelta(seconds=1), {}, {"v": value}) for n, value in enumerate(values)]
    told = []
    for store in stores:
        await store.time_series.store_many("m", points[:3])
        async with store.unit_of_work() as work:
            await work.time_series.store_many("m", points[3:])
            rows = await work.time_series.aggregate_many("m", ALL, ["sum", "avg", "stddev", "rate", "increase", "max"])
            (last,) = await work.time_series.latest("m")  # the transaction goes on
            told.append((rows, last.fields))
            await work.commit()
    assert told[0] == told[1]
    assert told[1][0][0].values["sum"] == float("inf")
