"""Walks over large graphs: the event loop goes on, what they see does not change, they are bounded and can be ended."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.faults.sizes import size

from polaris.exceptions import QueryError
from polaris.storage import GraphEdge, PolarisDataStore, _graph_walk

NODES, EDGES = size(30_000, 100_000), size(150_000, 500_000)
PAUSE_SHARE_MAX = 0.4
"""The longest work without a turn for anybody else, as a share of the walk; one without turns would have all of it."""


def drawn() -> list[GraphEdge]:
    """A graph in which almost everything leads to almost everything."""
    chance = random.Random(7)
    return [
        GraphEdge(f"n{chance.randrange(NODES)}", f"n{chance.randrange(NODES)}", f"t{chance.randrange(3)}")
        for _ in range(EDGES)
    ]


@pytest.fixture(scope="module")
def edges() -> list[GraphEdge]:
    return drawn()


@pytest.fixture(params=["memory", "sqlite"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, edges: list[GraphEdge]
) -> AsyncIterator[PolarisDataStore]:
    memory = request.param == "memory"
    async with PolarisDataStore.memory() if memory else PolarisDataStore.sqlite(tmp_path / "store.db") as made:
        for start in range(0, EDGES, 50_000):
            await made.graph.add_edges(edges[start : start + 50_000])
        yield made


@contextlib.asynccontextmanager
async def longest_pause() -> AsyncIterator[list[float]]:
    """The most of the processor that was used between two turns of a task beside what is done inside."""
    longest = [0.0]

    async def tick() -> None:
        last = time.process_time()
        while True:
            await asyncio.sleep(0)
            now = time.process_time()
            longest[0] = max(longest[0], now - last)
            last = now

    ticking = asyncio.create_task(tick())
    try:
        yield longest
    finally:
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)


@pytest.mark.timeout(240)
async def test_a_walk_over_a_large_graph_lets_others_have_their_turn_and_is_bounded(
    store: PolarisDataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = time.process_time()
    async with longest_pause() as longest:
        found = await store.graph.closure("n5")
        assert len(found) > 0.9 * NODES
        assert (await store.graph.find_cycles(limit=5)).truncated
    walk_s = time.process_time() - started
    assert longest[0] < PAUSE_SHARE_MAX * walk_s

    walking = asyncio.create_task(store.graph.closure("n5"))
    await asyncio.sleep(0.01)
    begun = time.process_time()
    walking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await walking
    assert walking.cancelled()
    assert time.process_time() - begun < PAUSE_SHARE_MAX * walk_s, "the walk went on although nobody waited for it"
    assert await store.graph.get_node("n5") is not None

    monkeypatch.setattr(_graph_walk, "NODES_VISITED_MAX", 1_000)
    with pytest.raises(QueryError, match="1000 nodes"):
        await store.graph.closure("n5")
    monkeypatch.undo()
    monkeypatch.setattr(_graph_walk, "EDGES_VISITED_MAX", 1_000)
    with pytest.raises(QueryError, match="1000 edges"):
        await store.graph.closure("n5")


async def test_what_is_written_during_a_walk_in_memory_waits_for_its_end() -> None:
    async with PolarisDataStore.memory() as store:
        await store.graph.add_edges([GraphEdge(f"n{n}", f"n{n + 1}", "needs") for n in range(60)])
        walking = asyncio.create_task(store.graph.closure("n0"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not walking.done()
        writing = asyncio.create_task(store.graph.remove_node("n59"))
        committing = asyncio.create_task(_remove_in_a_transaction(store, "n58"))
        assert await store.graph.get_node("n59") is not None, "others may read meanwhile"
        assert await walking == {f"n{n}": n for n in range(1, 61)}
        assert await writing is True
        await committing
        assert len(await store.graph.closure("n0")) == 57


async def _remove_in_a_transaction(store: PolarisDataStore, node_id: str) -> None:
    async with store.graph.transaction() as transaction:
        assert await transaction.graph.remove_node(node_id)
        await transaction.commit()
