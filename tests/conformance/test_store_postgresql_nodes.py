"""Nodes found by their properties on a server: the first ones without looking at all, and always the right ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.conformance.conftest import QuickPostgres, schema_numbers
from tests.postgres_servers import VERSIONS

from polaris.storage import GraphNode, PolarisDataStore
from polaris.storage.backends.postgresql import PostgresEngine
from polaris.storage.backends.postgresql._graph import PROBED_FOR_ONE, PROBED_LIMIT_MAX
from polaris.storage.backends.postgresql._link import Link

COUNT = 2_000
RARE = f"n{COUNT - 7:04}"


@pytest.fixture(params=VERSIONS)
async def store(request: pytest.FixtureRequest, quick_postgres: QuickPostgres) -> AsyncIterator[PolarisDataStore]:
    server = quick_postgres(request.param)
    async with PolarisDataStore.postgresql(server.dsn, schema=f"nodes_{next(schema_numbers)}", pool_max=2) as made:
        await made.graph.add_nodes(nodes())
        yield made


def nodes() -> list[GraphNode]:
    return [GraphNode(f"n{n:04}", {"tier": n % 5, "name": f"node-{n}", "last": n >= COUNT - 50}) for n in range(COUNT)]


async def plans(store: PolarisDataStore, query: dict[str, Any], limit: int) -> str:
    """What the server did to find the nodes."""
    told: list[str] = []
    original = Link.rows

    async def explained(link: Link, sql: str, *values: Any) -> list[Any]:
        told.extend(row[0] for row in await original(link, f"EXPLAIN (ANALYZE, TIMING OFF) {sql}", *values))
        return await original(link, sql, *values)

    engine = store.engines[0]
    assert isinstance(engine, PostgresEngine)
    async with engine._pool.link() as link:
        await link.run("ANALYZE graph_nodes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Link, "rows", explained)
        await store.graph.find_nodes(query, limit=limit)
    return "\n".join(told)


async def test_what_many_nodes_have_is_found_without_looking_at_all(store: PolarisDataStore) -> None:
    for condition in (1, {"$gte": 3}, {"$in": [1, 2]}, {"$ne": 4}):
        plan = await plans(store, {"tier": condition}, 20)
        assert "Index Scan using graph_nodes_pkey" in plan
        scans = [line for line in plan.splitlines() if "Seq Scan on graph_nodes" in line]
        assert all("never executed" in line for line in scans), plan


async def test_ids_are_looked_up(store: PolarisDataStore) -> None:
    assert "Seq Scan" not in await plans(store, {"_id": RARE, "tier": {"$gte": 0}}, 20)


async def test_whatever_is_looked_at_first_the_right_nodes_are_found_in_order(store: PolarisDataStore) -> None:
    async with PolarisDataStore.memory() as model:
        await model.graph.add_nodes(nodes())
        for query in ({"tier": 1}, {"name": f"node-{COUNT - 7}"}, {"last": True}, {"tier": 9}, {"_id": RARE}, {}):
            for limit in (0, 1, 50, 51, COUNT // PROBED_FOR_ONE, PROBED_LIMIT_MAX + 1, None):
                for after in (None, "n0002", f"n{COUNT - 20}"):
                    found = await store.graph.find_nodes(query, limit=limit, after=after)
                    assert found == await model.graph.find_nodes(query, limit=limit, after=after), (query, limit, after)
