"""PostgreSQL answers what the engine in memory answers, to questions drawn at random about contents drawn at random."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.conformance.conftest import QuickPostgres, schema_numbers
from tests.faults.retention_acts import MovedClock
from tests.postgres_servers import VERSIONS

from polaris.storage import AggregationType, FieldValue, PolarisDataStore, TimeRange, TimeSeriesPoint
from polaris.storage._rollups import RetentionPolicy, RollupPolicy

T0 = datetime(2030, 1, 1, tzinfo=UTC)
Stores = tuple[PolarisDataStore, PolarisDataStore]

TEXTS = ["", "a", "A", "é", "z\0", "z", "z\1", "z\2", "\0", "[1]", "{}", "true", "null", "1", "a" * 70, "a" * 71]
TEXTS += ["🦉", "\\u0000"]
NUMBERS: list[int | float] = [0, -0.0, 1, 1.0, -1, 0.1, 2**53, 2**53 + 1, 2.0**53, 2**63 - 1, -(2**63), 2.0**63]
NUMBERS += [-(2.0**63), 1e308, -1e308, 5e-324, 1e22, 1234567890123456789, 1.2345678901234568e18]
NUMBERS += [4503599627370497.5, 1e15 + 0.3]
SCALARS: list[Any] = [*TEXTS, *NUMBERS, None, True, False]
PATHS = ["a", "b", "a.b", "a.0", "0", "a.b.c", "_id", "_version", "_id.x"]


@pytest.fixture(params=VERSIONS)
async def stores(request: pytest.FixtureRequest, quick_postgres: QuickPostgres) -> AsyncIterator[Stores]:
    clock = MovedClock(T0)
    dsn = quick_postgres(request.param).dsn
    schema = f"test_{next(schema_numbers)}"
    server = PolarisDataStore.postgresql(dsn, schema=schema, clock=clock, partition_hours=1, pool_max=2)
    async with PolarisDataStore.memory(clock=clock) as memory, server:
        yield memory, server


def value(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.random()
    if depth < 3 and kind < 0.25:
        return {
            chance.choice(["a", "b", "c", "0", "é\0"]): value(chance, depth + 1) for _ in range(chance.randint(0, 3))
        }
    if depth < 3 and kind < 0.4:
        return [value(chance, depth + 1) for _ in range(chance.randint(0, 3))]
    return chance.choice(SCALARS)


def query(chance: random.Random, depth: int = 0) -> dict[str, Any]:
    kind = chance.random()
    if depth < 2 and kind < 0.15:
        return {chance.choice(["$and", "$or"]): [query(chance, depth + 1) for _ in range(chance.randint(1, 3))]}
    if depth < 2 and kind < 0.25:
        return {"$not": query(chance, depth + 1)}
    return {chance.choice(PATHS): condition(chance, depth)}


def condition(chance: random.Random, depth: int = 0) -> Any:
    ordered = [one for one in SCALARS if one is not None and not isinstance(one, bool)]
    operators: list[Any] = [
        chance.choice(SCALARS),
        {"$ne": chance.choice(SCALARS)},
        {"$in": chance.sample(SCALARS, 3)},
        {"$nin": chance.sample(SCALARS, 3)},
        {chance.choice(["$gt", "$gte", "$lt", "$lte"]): chance.choice(ordered)},
        {"$gte": chance.choice(ordered), "$lt": chance.choice(ordered)},
        {"$exists": chance.random() < 0.5},
        {"$prefix": chance.choice(TEXTS)},
        {"$contains": chance.choice(SCALARS)},
        {"$all": chance.sample(SCALARS, 2)},
        {"$size": chance.randint(0, 3)},
    ]
    if depth < 2:
        operators += [{"$elemMatch": query(chance, depth + 1)}, {"$elemMatch": {"$gt": 0}}]
        operators.append({"$not": {"$in": chance.sample(SCALARS, 2)}})
    return chance.choice(operators)


@pytest.mark.parametrize("seed", range(2))
async def test_documents_are_found_sorted_and_paged_alike(stores: Stores, seed: int) -> None:
    chance = random.Random(seed)
    documents: list[dict[str, Any]] = []
    for number in range(60):
        body = {key: value(chance) for key in ("a", "b", "0") if chance.random() < 0.8}
        documents.append({"_id": f"{number:03}{chance.choice(['', 'é', 'A'])}", **body})
    for store in stores:
        await store.documents.insert_documents("d", documents)
        if seed % 2:
            await store.documents.create_index("d", "a")
            await store.documents.create_index("d", ["b", "a.b"])
    memory, server = stores
    for document in documents:
        found = await server.documents.get_document("d", document["_id"])
        assert repr(found) == repr(await memory.documents.get_document("d", document["_id"]))
    for _ in range(120):
        asked = query(chance)
        sort = [chance.choice(["", "-"]) + path for path in chance.sample(PATHS, chance.randint(0, 2))] or None
        expected = await memory.documents.find_documents("d", asked, sort=sort)
        assert await server.documents.find_documents("d", asked, sort=sort) == expected, (asked, sort)
        assert await server.documents.count("d", asked) == len(expected)
        after, pages = None, []
        while page := await server.documents.find_documents("d", asked, 7, sort=sort, after=after):
            pages += page
            after = page[-1]
        assert pages == expected, (asked, sort)


@pytest.mark.parametrize("seed", range(2))
async def test_unique_indexes_refuse_the_same_documents(stores: Stores, seed: int) -> None:
    chance = random.Random(seed)
    for store in stores:
        await store.documents.create_index("d", ["a", "b"], unique=True)
    for number in range(120):
        body = {key: value(chance, 2) for key in ("a", "b")}
        told: list[str] = []
        for store in stores:
            try:
                await store.documents.put_document("d", str(number), body)
                told.append("done")
            except Exception as error:
                told.append(type(error).__name__)
        assert told[0] == told[1], body


def readings(chance: random.Random) -> list[TimeSeriesPoint]:
    values: list[FieldValue] = [None, True, "text", 0, 3, -7, 2.5, 1e9 + 0.25, 2**62, 1e-9]
    points = []
    for _ in range(chance.randint(1, 150)):
        tags = {"host": chance.choice("abc")} | ({"zone": "z"} if chance.random() < 0.4 else {})
        fields = {name: chance.choice(values) for name in chance.sample(["u", "v", "w"], chance.randint(1, 3))}
        points.append(TimeSeriesPoint(T0 + timedelta(seconds=chance.randint(-20_000, 20_000)), tags, fields))
    return points


@pytest.mark.parametrize("seed", range(2))
async def test_series_are_read_and_aggregated_alike(stores: Stores, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(3):
        points = readings(chance)
        for store in stores:
            await store.time_series.store_many("m", points)
    await _compare_series(chance, stores)
    cut = TimeRange(T0 - timedelta(seconds=5_000), T0 + timedelta(seconds=chance.randint(0, 9_000)))
    told = [await store.time_series.delete_range("m", cut, {"host": "a"}) for store in stores]
    assert told[0] == told[1]
    told = [await store.time_series.apply_retention("m", T0 - timedelta(seconds=9_000)) for store in stores]
    assert told[0] == told[1]
    await _compare_series(chance, stores)


async def _compare_series(chance: random.Random, stores: Stores) -> None:
    memory, server = (store.time_series for store in stores)
    assert await server.latest("m") == await memory.latest("m")
    assert await server.list_series("m", {"zone": {"$exists": True}}) == await memory.list_series(
        "m", {"zone": {"$exists": True}}
    )
    for aggregation in AggregationType:
        start = T0 + timedelta(seconds=chance.randint(-21_000, 0))
        span = TimeRange(start, start + timedelta(seconds=chance.randint(0, 30_000)))
        asked: dict[str, Any] = {
            "group_by": chance.choice([None, "zone", "host"]),
            "bucket": chance.choice([None, timedelta(seconds=777), timedelta(hours=1), "day"]),
            "tags": chance.choice([None, {"host": "a"}, {"host": {"$ne": "a"}}]),
            "fields": chance.choice([None, ["v"], ["v", "unknown", "u"]]),
        }
        expected = await memory.aggregate_time_series("m", span, aggregation, **asked)
        found = await server.aggregate_time_series("m", span, aggregation, **asked)
        assert [(one.timestamp, one.field, one.count, one.tags) for one in found] == [
            (one.timestamp, one.field, one.count, one.tags) for one in expected
        ], (aggregation, asked)
        for one, other in zip(found, expected, strict=True):
            assert one.value == pytest.approx(other.value, rel=1e-9, abs=1e-9), (aggregation, asked, one)
        order = chance.choice(["asc", "desc"])
        points = {"limit": chance.choice([None, 5]), "order": order, "fields": asked["fields"], "tags": asked["tags"]}
        assert await server.query_time_series("m", span, **points) == await memory.query_time_series(
            "m", span, **points
        )


@pytest.mark.parametrize("seed", range(2))
async def test_rollups_are_made_thinned_and_united_with_points_alike(stores: Stores, seed: int) -> None:
    chance = random.Random(seed)
    hour = timedelta(hours=1)
    policy = RetentionPolicy(hour, [RollupPolicy(hour / 2, 3 * hour), RollupPolicy(2 * hour, None)])
    for store in stores:
        await store.time_series.set_retention("m", policy)
        assert await store.time_series.get_retention("m") == policy
    for _ in range(3):
        points = [
            TimeSeriesPoint(
                T0 + timedelta(seconds=chance.randint(0, 40_000)), {"h": chance.choice("ab")}, {"v": number, "w": 0.5}
            )
            for number in range(80)
        ]
        now = T0 + timedelta(seconds=chance.randint(0, 60_000))
        for store in stores:
            await store.time_series.store_many("m", points)
            store.engines[0].clock.time = now  # type: ignore[attr-defined] # the clock of this test
            await store.time_series.apply_retention("m")
        for aggregation in AggregationType:
            asked: dict[str, Any] = {"bucket": 2 * hour, "group_by": chance.choice([None, "h"])}
            span = TimeRange(T0, T0 + 20 * hour)
            expected, found = [
                await store.time_series.aggregate_time_series("m", span, aggregation, **asked) for store in stores
            ]
            assert len(found) == len(expected), aggregation
            for one, other in zip(found, expected, strict=True):
                assert (one.timestamp, one.field, one.count, one.tags) == (
                    other.timestamp, other.field, other.count, other.tags,
                )  # fmt: skip
                assert math.isclose(one.value or 0.0, other.value or 0.0, rel_tol=1e-9), (aggregation, one, other)


@pytest.mark.parametrize("seed", range(2))
async def test_graphs_are_walked_alike(stores: Stores, seed: int) -> None:
    chance = random.Random(seed)
    names = [f"n{number}" for number in range(14)]
    for _ in range(45):
        source, target, kind = chance.choice(names), chance.choice(names), chance.choice(["needs", "hosts"])
        properties = {"w": chance.choice([1, 2.5, 0, 7]), "on": chance.random() < 0.7}
        for store in stores:
            await store.graph.add_edge(source, target, kind, properties)
    for name in chance.sample(names, 6):
        for store in stores:
            await store.graph.add_node(name, {"up": chance.random() < 2, "n": len(name)})
    memory, server = (store.graph for store in stores)
    for _ in range(40):
        one, other = chance.choice(names), chance.choice(names)
        seen: dict[str, Any] = {
            "direction": chance.choice(["out", "in", "both"]),
            "relationship_type": chance.choice([None, "needs", ["needs", "hosts"]]),
            "edge_query": chance.choice([None, {"on": True}, {"w": {"$gt": 1}}]),
        }
        assert await server.find_path(one, other, **seen) == await memory.find_path(one, other, **seen)
        assert await server.closure(one, **seen) == await memory.closure(one, **seen)
        assert await server.get_neighbors(one, **seen) == await memory.get_neighbors(one, **seen)
        assert await server.get_edges(one, **seen) == await memory.get_edges(one, **seen)
        assert await server.subgraph(one, 2, **seen) == await memory.subgraph(one, 2, **seen)
    assert await server.find_nodes({"n": 2}) == await memory.find_nodes({"n": 2})
    assert await server.count_edges() == await memory.count_edges()
