"""Nodes found by their properties on a server: the first ones without looking at all, and always the right ones."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from tests.conformance.conftest import QuickPostgres, schema_numbers
from tests.conformance.postgres_plans import analyze, plans
from tests.postgres_servers import VERSIONS

from polaris.storage import GraphNode, PolarisDataStore
from polaris.storage.backends.postgresql._graph import PROBED_FOR_ONE, PROBED_LIMIT_MAX

COUNT = 2_000
RARE = f"n{COUNT - 7:04}"


@pytest.fixture(params=VERSIONS)
async def store(request: pytest.FixtureRequest, quick_postgres: QuickPostgres) -> AsyncIterator[PolarisDataStore]:
    server = quick_postgres(request.param)
    async with PolarisDataStore.postgresql(server.dsn, schema=f"nodes_{next(schema_numbers)}", pool_max=2) as made:
        await made.graph.add_nodes(nodes())
        await analyze(made)
        yield made


def nodes() -> list[GraphNode]:
    return [
        GraphNode(f"n{n:04}", {"tier": n % 5, "name": f"node-{n}", "last": n >= COUNT - 50, "at": {"rack": n}})
        for n in range(COUNT)
    ]


async def plan_of(store: PolarisDataStore, ask: Callable[[], Awaitable[object]]) -> str:
    """What the server did to answer."""
    return "\n".join(await plans(store, ask))


async def test_what_many_nodes_have_is_found_without_looking_at_all(store: PolarisDataStore) -> None:
    for condition in (1, {"$gte": 3}, {"$in": [1, 2]}, {"$ne": 4}):
        plan = await plan_of(store, partial(store.graph.find_nodes, {"tier": condition}, limit=20))
        assert "Index Scan using graph_nodes_pkey" in plan
        scans = [line for line in plan.splitlines() if "Seq Scan on graph_nodes" in line]
        assert all("never executed" in line for line in scans), plan


async def test_ids_are_looked_up(store: PolarisDataStore) -> None:
    query = {"_id": RARE, "tier": {"$gte": 0}}
    assert "Seq Scan" not in await plan_of(store, partial(store.graph.find_nodes, query, limit=20))


async def test_what_few_nodes_have_is_looked_up(store: PolarisDataStore) -> None:
    for query in ({"name": "node-7"}, {"name": {"$in": ["node-7", "node-9"]}}, {"at.rack": 7, "tier": {"$gte": 0}}):
        for ask in (partial(store.graph.find_nodes, query, limit=20), partial(store.graph.count_nodes, query)):
            plan = await plan_of(store, ask)
            assert "Bitmap Index Scan on graph_nodes_contain" in plan, plan
            looked_at = [int(count) for count in re.findall(r"Rows Removed by Filter: (\d+)", plan)]
            assert all(count <= PROBED_FOR_ONE * 20 for count in looked_at), plan


VALUES: list[Any] = [
    *(1, 1.0, 0, -0.0, 0.1, 1e-7, 5e-324, 2**53, 2**53 + 1, 2.0**53, 1e16, 1e300, -(2**63), True, False, None),
    *("", "1", "true", "ü", "a\0b", "a\1b", "a\1\1b", "x" * 300),
    *([1], ["1"], [], {}, {"b": 1}, {"b": {"c": "1"}}, [{"b": 1}]),
]  # fmt: skip


async def test_nodes_are_looked_up_by_exactly_what_the_filter_means(store: PolarisDataStore) -> None:
    made = [GraphNode(f"v{n}", {"v": value}) for n, value in enumerate(VALUES)] + [GraphNode("bare")]
    async with PolarisDataStore.memory() as model:
        await model.graph.add_nodes(nodes() + made)
        await store.graph.add_nodes(made)
        scalars = [value for value in VALUES if not isinstance(value, (list, dict))]
        conditions: list[Any] = [{operator: value} for value in scalars for operator in ("$eq", "$ne")]
        conditions += [{"$in": scalars[n : n + 3]} for n in range(len(scalars))] + [{"$in": []}, {"$nin": scalars}]
        queries: list[dict[str, Any]] = [{"v": condition} for condition in conditions]
        queries += [{path: value} for path in ("v.b", "v.b.c") for value in (1, "1", True, None)]
        for query in queries:
            query["_id"] = {"$gte": "v"}
            assert await store.graph.find_nodes(query) == await model.graph.find_nodes(query), query


async def test_whatever_is_looked_at_first_the_right_nodes_are_found_in_order(store: PolarisDataStore) -> None:
    async with PolarisDataStore.memory() as model:
        await model.graph.add_nodes(nodes())
        for query in ({"tier": 1}, {"name": f"node-{COUNT - 7}"}, {"last": True}, {"tier": 9}, {"_id": RARE}, {}):
            for limit in (0, 1, 50, 51, COUNT // PROBED_FOR_ONE, PROBED_LIMIT_MAX + 1, None):
                for after in (None, "n0002", f"n{COUNT - 20}"):
                    found = await store.graph.find_nodes(query, limit=limit, after=after)
                    assert found == await model.graph.find_nodes(query, limit=limit, after=after), (query, limit, after)
