"""Summaries of windows on PostgreSQL: whatever happens to the points, aggregates are those of the points alone."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.conformance.conftest import QuickPostgres, schema_numbers
from tests.faults.retention_acts import MovedClock
from tests.postgres_servers import VERSIONS

from polaris.clock import SYSTEM_CLOCK
from polaris.storage import AggregationType, FieldValue, PolarisDataStore, TimeRange, TimeSeriesPoint
from polaris.storage._operation import Operation
from polaris.storage._ranges import to_micros
from polaris.storage._rollups import RetentionPolicy, RollupPolicy
from polaris.storage.backends.postgresql import _point_writes, _rollup_reads, _window_reads, _windows
from polaris.storage.backends.postgresql._drop_pauses import DropPauses
from polaris.storage.backends.postgresql._link import READ_COMMITTED, SERIALIZABLE
from polaris.storage.backends.postgresql._piece_reads import PieceRead
from polaris.storage.backends.postgresql._retention import Retention
from polaris.storage.backends.postgresql._window_summaries import window_rollups

T0 = datetime(2030, 1, 1, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
POLICY = RetentionPolicy(None, [RollupPolicy(10 * SECOND)])
NAMES = [*AggregationType, "p37.5"]
VALUES: list[FieldValue] = [None, True, "text", 0, 3, -7, 2.5, 1e9 + 0.25, 2**62, 1e-9, 1e15 + 0.5, -1e15, 1e16, -1e16]
NO_NEGATIVES = [value for value in VALUES if not isinstance(value, (int, float)) or value >= 0]
Stores = tuple[PolarisDataStore, PolarisDataStore]


@pytest.fixture(params=VERSIONS)
async def stores(request: pytest.FixtureRequest, quick_postgres: QuickPostgres) -> AsyncIterator[Stores]:
    clock = MovedClock()
    dsn = quick_postgres(request.param).dsn
    schema = f"test_{next(schema_numbers)}"
    server = PolarisDataStore.postgresql(dsn, schema=schema, clock=clock, partition_hours=1, pool_max=2)
    async with PolarisDataStore.memory(clock=clock) as memory, server:
        yield memory, server


@pytest.fixture
async def server(quick_postgres: QuickPostgres) -> AsyncIterator[PolarisDataStore]:
    dsn, schema = quick_postgres(15).dsn, f"test_{next(schema_numbers)}"
    async with PolarisDataStore.postgresql(dsn, schema=schema, clock=MovedClock(), pool_max=2) as store:
        yield store


def move(store: PolarisDataStore, to: datetime) -> None:
    store.engines[0].clock.time = to  # type: ignore[attr-defined] # the clock of this test


async def ask(store: PolarisDataStore, sql: str, *values: Any) -> Any:
    """What is in the tables."""
    async with store.engines[0]._pool.link() as link:  # type: ignore[attr-defined] # of its engine
        return await link.value(sql, *values)


async def summarise_in_part(store: PolarisDataStore, now: datetime, slices: int) -> None:
    """As much of the upkeep as is done when it is ended early."""

    async def run(step: Any) -> Any:
        return await store.engines[0].execute(  # type: ignore[attr-defined] # of its engine
            Operation(lambda session: step(session.time_series), mutates=True)
        )

    await run(lambda series: series.raise_frontier("m", to_micros(now)))
    if slices:
        until = await run(lambda series: series.expand("m"))
        for _ in range(slices if until is not None else 0):
            await run(lambda series: series.summarise("m", until, 24))


def drawn(chance: random.Random, count: int, values: Sequence[FieldValue] = tuple(VALUES)) -> list[TimeSeriesPoint]:
    points = []
    for _ in range(count):
        tags = {"host": chance.choice("abc")} | ({"zone": "z"} if chance.random() < 0.3 else {})
        fields = {name: chance.choice(values) for name in chance.sample(["u", "v", "w"], chance.randint(1, 3))}
        points.append(TimeSeriesPoint(T0 + chance.randint(-900, 900) * SECOND, tags, fields))
    return points


async def step(chance: random.Random, stores: Stores) -> None:
    """Something happens to both stores; upkeep only to the one that has any."""
    kind = chance.choice(["store", "few", "unit", "delete", "delete series", "summarise", "in part", "in part"])
    start = T0 + chance.randint(-900, 900) * SECOND
    tags = chance.choice([None, {"host": "a"}, {"host": {"$ne": "b"}}])
    now = T0 + chance.randint(0, 1_600) * SECOND
    size, slices = chance.choice([1, 8, 20, 30]), chance.randint(0, 3)
    points = drawn(chance, size if kind == "few" else 150)
    for store in stores:
        if kind in ("store", "few"):
            await store.time_series.store_many("m", points)
        elif kind == "unit":
            async with store.unit_of_work() as unit:
                await unit.time_series.latest("m")
                await unit.time_series.store_many("m", points[:20])
                await unit.commit()
        elif kind == "delete":
            await store.time_series.delete_range("m", TimeRange(start, start + 333 * SECOND), tags)
        elif kind == "delete series":
            await store.time_series.delete_series("m", {"host": "c", "zone": {"$exists": True}})
        elif kind == "summarise":
            move(store, now)
            await store.time_series.apply_retention("m")
    if kind == "in part":
        await summarise_in_part(stores[1], now, slices)


async def compare(chance: random.Random, stores: Stores, names: list[str], *, approximately: bool = False) -> None:
    start = T0 + chance.randint(-950, 100) * SECOND
    span = chance.choice([TimeRange.all(), TimeRange(start, start + chance.randint(1, 1_800) * SECOND)])
    asked: dict[str, Any] = {
        "group_by": chance.choice([None, "zone", "host", ["host", "zone"]]),
        "bucket": chance.choice([None, 20 * SECOND, 47 * SECOND, MINUTE, HOUR, "day"]),
        "tags": chance.choice([None, None, {"host": "a"}, {"host": {"$ne": "a"}}]),
        "fields": chance.choice([None, ["v"], ["v", "unknown", "u"]]),
    }
    if span == TimeRange.all() and asked["bucket"] != "day":
        asked["bucket"] = None
    expected, found = [await store.time_series.aggregate_many("m", span, names, **asked) for store in stores]
    assert [(one.timestamp, one.field, one.count, one.tags) for one in found] == [
        (one.timestamp, one.field, one.count, one.tags) for one in expected
    ], asked
    for one, other in zip(found, expected, strict=True):
        assert one.approximate == (approximately and other.approximate)
        for name in names:
            assert is_close(one.values[name], other.values[name]), (name, asked, one, other)


def is_close(one: Any, other: Any, within: float = 1e-9) -> bool:
    return bool(one is other or (None not in (one, other) and one == pytest.approx(other, rel=within, abs=within)))


@pytest.fixture
def told_by_pieces(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of aggregations that were told without all points, once for each field."""
    told: list[str] = []
    values = PieceRead.values

    async def noted(read: PieceRead, name: str, fields: Sequence[int]) -> tuple[list[Any], list[int]]:
        found, lost = await values(read, name, fields)
        told.extend([name] * (len(fields) - len(lost)))
        return found, lost

    monkeypatch.setattr(PieceRead, "values", noted)
    return told


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_written_deleted_and_summarised_both_tell_the_same(
    stores: Stores, seed: int, told_by_pieces: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_point_writes, "COPY_FROM", 30)
    monkeypatch.setattr(_window_reads, "WINDOWS_MIN", 1)
    monkeypatch.setattr(_window_reads, "ROWS_A_TURN", 20)
    monkeypatch.setattr(_window_reads, "BUCKET_WINDOWS_MIN", 2)
    monkeypatch.setattr(_windows, "FIELDS_A_STATEMENT", 2)
    chance = random.Random(seed)
    for store in stores:
        await store.time_series.set_retention("m", POLICY)
        await store.time_series.store_many("m", drawn(random.Random(99), 300))
    await summarise_in_part(stores[1], T0 + 800 * SECOND, 4)
    used = 0
    for _ in range(9):
        await step(chance, stores)
        used += int(await ask(stores[1], "SELECT count(*) > 0 FROM ts_windows"))
        await compare(chance, stores, ["avg", "min", "count"])
        await compare(chance, stores, [chance.choice(NAMES), "max"])
        await compare(chance, stores, ["stddev", "rate", "increase", "sum"])
        await compare(chance, stores, ["first", "last"])
    assert used > 3
    assert set(told_by_pieces) == {"stddev", "rate", "increase", "first", "last"}
    await stores[1].time_series.apply_retention("m")
    assert await ask(stores[1], "SELECT count(*) FROM ts_marks WHERE collection = 1") == 0


@pytest.mark.parametrize("how", [READ_COMMITTED, SERIALIZABLE])
async def test_retention_that_has_not_heard_of_windows_marks_those_that_there_are(
    server: PolarisDataStore, how: str
) -> None:
    await server.time_series.set_retention("m", POLICY)
    points = [TimeSeriesPoint(at, {}, {"v": 1}) for at in (T0, T0 + MINUTE, T0 + HOUR)]
    await server.time_series.store_many("m", points)
    move(server, T0 + 2 * HOUR)
    await server.time_series.apply_retention("m")
    async with server.engines[0]._pool.link() as link:  # type: ignore[attr-defined] # of its engine
        home = await server.engines[0]._catalog.find_series_home(link, "m")  # type: ignore[attr-defined] # of its engine
        async with link.atomic(how):
            assert await Retention(link, home, DropPauses(), SYSTEM_CLOCK).apply(to_micros(T0 + 2 * HOUR), 10) == 2
        marks = await link.rows("SELECT start_us, end_us FROM ts_marks")
        assert [tuple(mark) for mark in marks] == [(to_micros(T0), to_micros(T0 + MINUTE) + 1)]


async def test_a_rollup_that_goes_with_its_points_lets_whole_partitions_go(stores: Stores) -> None:
    day = timedelta(days=1)
    for store in stores:
        await store.time_series.set_retention("m", RetentionPolicy(day, [RollupPolicy(MINUTE, day)]))
        for start, step in ((T0 - 27 * HOUR, 3 * MINUTE), (T0 - 30 * SECOND, SECOND)):
            batch = [TimeSeriesPoint(start + n * step, {"h": str(n % 3)}, {"v": n}) for n in range(130)]
            await store.time_series.store_many("m", batch)
        await store.time_series.store_time_series("m", T0 - 26 * HOUR, {"h": "quiet"}, {"v": 1})
    move(stores[1], T0 - 4 * HOUR)
    assert await stores[1].time_series.apply_retention("m") == 0
    assert await ask(stores[1], "SELECT count(*) FROM ts_windows") > 0
    partitions = await ask(stores[1], "SELECT count(*) FROM ts_partitions")
    for hours in (0, 1, 20):
        gone = []
        for store in stores:
            move(store, T0 + hours * HOUR + 10 * SECOND)
            gone.append(await store.time_series.apply_retention("m"))
        assert gone[0] == gone[1]
        assert gone[0] > 0
        assert await ask(stores[1], "SELECT count(*) FROM ts_rollups") == 0
        points = [await store.time_series.query_time_series("m", TimeRange.all()) for store in stores]
        assert points[0] == points[1]
        for bucket in (None, 10 * MINUTE):
            span = TimeRange(T0 - 40 * HOUR, T0 + HOUR)
            told = [await store.time_series.aggregate_time_series("m", span, "sum", bucket=bucket) for store in stores]
            assert told[0] == told[1]
        assert await ask(stores[1], "SELECT count(*) FROM ts_marks") == 0
    assert await ask(stores[1], "SELECT count(*) FROM ts_partitions") <= partitions - 4


async def test_points_that_are_in_time_are_not_marked_and_late_ones_are_with_their_windows(
    server: PolarisDataStore,
) -> None:
    await server.time_series.set_retention("m", POLICY)
    await server.time_series.store_many("m", [TimeSeriesPoint(T0 + HOUR, {}, {"v": 1})])
    move(server, T0 + 2 * HOUR)
    await server.time_series.apply_retention("m")
    for count in (1, 3, 8, 300):
        new = [TimeSeriesPoint(T0 + HOUR + n * SECOND, {}, {"v": count}) for n in range(count)]
        await server.time_series.store_many("m", new)
    assert await ask(server, "SELECT count(*) FROM ts_marks") == 0
    await server.time_series.store_many("m", [TimeSeriesPoint(T0 + n * SECOND, {}, {"v": 2}) for n in (3, 4, 95)])
    await server.time_series.store_time_series("m", T0 + 33 * SECOND, {}, {"v": 2})
    marks = await ask(server, "SELECT array_agg(start_us ORDER BY start_us) FROM ts_marks")
    assert marks == [to_micros(T0 + n * SECOND) for n in (0, 30, 90)]


async def test_a_frontier_waits_for_a_unit_of_work_that_wrote_and_is_raised_later(
    server: PolarisDataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_windows, "RAISE_WAIT_MS", 10)
    await server.time_series.set_retention("m", POLICY)
    await server.time_series.store_many("m", drawn(random.Random(1), 50))
    move(server, T0 + 2 * HOUR)
    async with server.unit_of_work() as unit:
        await unit.time_series.store_time_series("m", T0, {"host": "a"}, {"v": 5})
        await unit.time_series.latest("m")
        await server.time_series.apply_retention("m")
        assert await ask(server, "SELECT count(*) FROM ts_windows") == 0
        await unit.commit()
    await server.time_series.apply_retention("m")
    assert await ask(server, "SELECT count(*) FROM ts_windows") > 0


async def test_digits_that_points_and_windows_lose_together_are_added_up_exactly(
    server: PolarisDataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_window_reads, "WINDOWS_MIN", 1)
    chance = random.Random(5)
    at_the_edge = [sign * 1e6 + chance.random() * 500 for _ in range(4) for sign in (1, -1)]
    values = [*at_the_edge, *[-math.fsum(at_the_edge) / 20 + chance.random() / 10 for _ in range(20)]]
    await server.time_series.set_retention("m", POLICY)
    points = [TimeSeriesPoint(T0 + (2 + n) * SECOND, {}, {"v": value}) for n, value in enumerate(values)]
    await server.time_series.store_many("m", [*points, TimeSeriesPoint(T0 + HOUR, {}, {"v": 0})])
    span = TimeRange(T0 + SECOND, T0 + MINUTE)
    of_points = await server.time_series.aggregate_time_series("m", span, "sum")
    move(server, T0 + 2 * HOUR)
    await server.time_series.apply_retention("m")
    assert await ask(server, "SELECT count(*) FROM ts_windows") > 2
    assert await server.time_series.aggregate_time_series("m", span, "sum") == of_points
    assert of_points[0].value == pytest.approx(math.fsum(values), rel=1e-12)


@pytest.fixture
def told_by_windows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many windows stood for their points beside rollups, each time that they were asked."""
    told: list[int] = []

    async def noted(*arguments: Any, **more: Any) -> Any:
        found = await window_rollups(*arguments, **more)
        told.append(sum(map(len, (found or {}).values())))
        return found

    monkeypatch.setattr(_rollup_reads, "window_rollups", noted)
    return told


@pytest.mark.parametrize(("seed", "values"), [(0, VALUES), (1, NO_NEGATIVES)])
async def test_beside_rollups_of_points_that_are_gone_windows_tell_what_points_would(
    stores: Stores,
    seed: int,
    values: list[FieldValue],
    told_by_windows: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_window_reads, "WINDOWS_MIN", 1)
    chance = random.Random(seed)
    policy = RetentionPolicy(15 * MINUTE, [RollupPolicy(10 * SECOND, 2 * HOUR), RollupPolicy(MINUTE, 9 * HOUR)])
    for store in stores:
        await store.time_series.set_retention("m", policy)
    for minutes in (16, 20, 22, 25, 29):
        points = drawn(chance, 200, values)
        gone = []
        for store in stores:
            # What comes later than its window goes into the rollup in another order than in time.
            since = T0 + minutes * MINUTE - 15 * MINUTE
            await store.time_series.store_many("m", [one for one in points if one.timestamp >= since])
            move(store, T0 + minutes * MINUTE)
            gone.append(await store.time_series.apply_retention("m"))
        assert gone[0] == gone[1]
        late = [one for one in drawn(chance, 3, values) if one.timestamp > T0 + 500 * SECOND]
        for store in stores:
            await store.time_series.store_many("m", late)
        for names in (["stddev", "rate", "increase", "max"], ["first", "last"], ["avg", "increase"]):
            await compare(chance, stores, names, approximately=True)
    assert sum(told_by_windows) > 50


async def test_late_numbers_beside_a_rollup_of_their_window_are_put_in_order_one_by_one(
    stores: Stores, told_by_windows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_window_reads, "WINDOWS_MIN", 1)
    for store in stores:
        await store.time_series.set_retention("m", RetentionPolicy(15 * MINUTE, [RollupPolicy(10 * SECOND, 9 * HOUR)]))
        points = [(30, 1.0), (32, 1.5), (41, 4.0), (2200, 7.0), (2205, 8.0), (2999, 9.0)]
        batch = [TimeSeriesPoint(T0 + at * SECOND, {}, {"v": value}) for at, value in points]
        await store.time_series.store_many("m", batch)
        move(store, T0 + 3000 * SECOND)
        await store.time_series.apply_retention("m")
        late = [TimeSeriesPoint(T0 + at * SECOND, {}, {"v": value}) for at, value in ((31, 1.0), (34, 9.0), (36, 2.0))]
        await store.time_series.store_many("m", late)
    await summarise_in_part(stores[1], T0 + 3000 * SECOND, 3)
    assert await ask(stores[1], "SELECT count(*) FROM ts_windows WHERE count = 3") == 1
    found = await told_alike(stores, ["increase"], TimeRange(T0, T0 + 4000 * SECOND))
    assert found == [{"increase": 0.5 + 7.5 + 2.0 + 2.0 + 3.0 + 1.0 + 1.0}]
    assert told_by_windows == [1]


COUNTER = [(0, 5.0), (4, 7.5), (9, 9.0), (12, 30.0), (19, 2.0), (23, 2.5), (40, 8.0), (41, 1.0), (45, 1.5), (59, 11.0)]
"""Seconds and what a counter showed; it began again from zero within a window, between two, and after an empty one."""


async def summarised(stores: Stores, points: Sequence[tuple[float, FieldValue]], **tags: str) -> None:
    """Both stores hold these points of field `v`, and the server has summaries of all their windows."""
    for store in stores:
        await store.time_series.set_retention("m", POLICY)
        batch = [TimeSeriesPoint(T0 + at * SECOND, tags, {"v": value}) for at, value in points]
        await store.time_series.store_many("m", [*batch, TimeSeriesPoint(T0 + HOUR, {}, {"other": 1})])
    move(stores[1], T0 + 2 * HOUR)
    await stores[1].time_series.apply_retention("m")
    assert await ask(stores[1], "SELECT count(*) FROM ts_windows") > 0


async def told_alike(stores: Stores, names: Sequence[str], span: TimeRange, **asked: Any) -> list[dict[str, Any]]:
    """The values of the rows, which are the same in both stores."""
    expected, found = [
        [row.values for row in await store.time_series.aggregate_many("m", span, names, fields=["v"], **asked)]
        for store in stores
    ]
    for one, other in zip(found, expected, strict=True):
        assert all(is_close(one[name], other[name], within=1e-12) for name in names), (one, other)
    return found


async def test_a_counter_that_rises_within_windows_and_between_them_and_restarts_is_told_by_them(
    stores: Stores, told_by_pieces: list[str]
) -> None:
    await summarised(stores, COUNTER)
    names = ["increase", "rate", "stddev"]
    (whole,) = await told_alike(stores, names, TimeRange(T0, T0 + MINUTE))
    assert whole["increase"] == 2.5 + 1.5 + 21.0 + 2.0 + 0.5 + 5.5 + 1.0 + 0.5 + 9.5
    await told_alike(stores, names, TimeRange(T0 + 3 * SECOND, T0 + 57 * SECOND))
    await told_alike(stores, names, TimeRange(T0, T0 + MINUTE), bucket=20 * SECOND)
    assert told_by_pieces == names * 3
    # Late ones in windows that are summarised, and some that are gone.
    for store in stores:
        late = [TimeSeriesPoint(T0 + at * SECOND, {}, {"v": 4.0}) for at in (2, 30, 46)]
        await store.time_series.store_many("m", late)
        await store.time_series.delete_range("m", TimeRange(T0 + 9 * SECOND, T0 + 13 * SECOND))
    before = await told_alike(stores, names, TimeRange(T0, T0 + MINUTE))
    await stores[1].time_series.apply_retention("m")
    assert await told_alike(stores, names, TimeRange(T0, T0 + MINUTE)) == before


async def test_the_first_and_last_of_many_series_are_told_by_windows(stores: Stores, told_by_pieces: list[str]) -> None:
    await summarised(stores, [(at, value) for at, value in COUNTER if at < 42], host="a")
    await summarised(stores, [(at, -value) for at, value in COUNTER if at > 3], host="b")
    found = await told_alike(stores, ["first", "last"], TimeRange(T0, T0 + MINUTE))
    assert found == [{"first": 5.0, "last": -11.0}]
    await told_alike(stores, ["first", "last"], TimeRange(T0, T0 + MINUTE), bucket=20 * SECOND)
    assert told_by_pieces == ["first", "last"] * 2


@pytest.mark.parametrize(
    ("name", "change", "by"),
    [("increase", "rise = rise + 100", 100), ("rate", "rise = rise + 100", 100 / 59), ("last", "last = last + 7", 7)],
)
async def test_what_is_told_is_read_from_the_windows(
    server: PolarisDataStore, name: str, change: str, by: float
) -> None:
    async with PolarisDataStore.memory() as memory:
        await summarised((memory, server), COUNTER, host="a")
    await server.time_series.store_time_series("m", T0 + 2 * HOUR, {"host": "b"}, {"v": 1})
    span = TimeRange(T0, T0 + MINUTE)
    (before,) = await server.time_series.aggregate_time_series("m", span, name, fields=["v"])
    edge = to_micros(T0 + 50 * SECOND)
    await ask(server, f"UPDATE ts_windows SET {change} WHERE start_us = {edge}")
    (after,) = await server.time_series.aggregate_time_series("m", span, name, fields=["v"])
    assert (before.value or 0) + by == pytest.approx(after.value)


async def test_numbers_that_are_too_large_to_be_summed_up_are_told_from_the_points(
    stores: Stores, told_by_pieces: list[str]
) -> None:
    large: list[FieldValue] = [1e200, -1e300, 5e-324, 1e-200, 2.5, 0.0, 1e146, 3]
    await summarised(stores, [(3.0 * n, value) for n, value in enumerate(large)])
    assert await ask(stores[1], "SELECT count(*) FROM ts_windows WHERE spread = 'Infinity'") > 0
    span = TimeRange(T0, T0 + MINUTE)
    await told_alike(stores, ["increase", "rate"], span)
    await told_alike(stores, ["increase", "rate"], span, bucket=10 * SECOND)
    assert told_by_pieces == []
    await told_alike(stores, ["stddev"], TimeRange(T0 + 6 * SECOND, T0 + 18 * SECOND), bucket=2 * SECOND)


async def test_sums_beyond_a_float_are_infinite(stores: Stores) -> None:
    names = ["sum", "avg", "stddev", "rate", "increase", "first", "max", "p90"]
    values = [1.7e308, 1.7e308, -1.7e308, 1.0, 5e-324, 1e200]
    await summarised(stores, [(3.0 * n, value) for n, value in enumerate(values)])
    for bucket in (None, 10 * SECOND, 3 * SECOND):
        await told_alike(stores, names, TimeRange(T0, T0 + MINUTE), bucket=bucket)
    (found,) = await told_alike(stores, ["sum"], TimeRange(T0, T0 + MINUTE))
    assert found == {"sum": math.inf}


async def test_integers_that_a_double_does_not_tell_apart_fall_and_rise(stores: Stores) -> None:
    counts: list[FieldValue] = [2**62, 2**62 - 1, 2**62 + 1, -(2**63), 2**63 - 1, 5, 5, 2**53 + 1, 2**53]
    for upkeep in (False, True):
        if upkeep:
            await summarised(stores, [])
        for store in stores:
            await store.time_series.store_many(
                "m", [TimeSeriesPoint(T0 + 3 * n * SECOND, {}, {"v": count}) for n, count in enumerate(counts)]
            )
        if upkeep:
            await stores[1].time_series.apply_retention("m")
        for bucket in (None, 10 * SECOND):
            await told_alike(stores, ["increase", "rate"], TimeRange(T0, T0 + MINUTE), bucket=bucket)


async def test_what_is_left_of_large_numbers_that_cancel_each_other_is_exact(stores: Stores) -> None:
    values = [1e15 + 0.25, -1e15, 2.0, 1e16, -1e16, 2.5, 0.1, -1e16, 1e16 + 2, -1e16]
    for store in stores:
        points = [TimeSeriesPoint(T0 + n * SECOND, {}, {"v": value}) for n, value in enumerate(values)]
        await store.time_series.store_many("m", points)
    span = TimeRange(T0, T0 + MINUTE)
    (found,) = await told_alike(stores, ["sum", "increase", "rate"], span)
    assert found["sum"] == math.fsum(values)
    for bucket in (2, 3, 4):
        await told_alike(stores, ["sum", "increase", "rate"], span, bucket=bucket * SECOND)
