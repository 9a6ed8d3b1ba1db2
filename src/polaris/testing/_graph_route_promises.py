"""Promises of the graph port: cheapest paths, all paths, cycles and orders."""

from __future__ import annotations

from typing import Any

import pytest

from polaris.exceptions import QueryError
from polaris.storage import CycleList, GraphEdge, GraphStorageBackend, PathList, WeightedPath
from polaris.testing._graph_scratch import draw


class GraphRoutePromises:
    """Questions about many ways through a graph."""

    async def test_a_cheapest_path_sums_up_to_the_least(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>z:x=9", "a>b:x=1", "b>c:x=2.5", "c>z:x=1", "a>b:y=8", "c>a:x=0")
        assert await backend.find_cheapest_path("a", "z", "ms") == WeightedPath(["a", "b", "c", "z"], 4.5)
        assert await backend.find_cheapest_path("a", "a", "ms") == WeightedPath(["a"], 0)
        assert await backend.find_cheapest_path("z", "a", "ms") is None
        assert await backend.find_cheapest_path("a", "nobody", "ms") is None
        assert await backend.find_cheapest_path("z", "a", "ms", direction="in") == WeightedPath(
            ["z", "c", "b", "a"], 4.5
        )

    async def test_a_cheapest_path_keeps_to_what_matches(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b:x=1", "b>z:x=1", "a>c:x=2", "c>z:x=2", "a>z:y=1")
        await backend.add_node("b", {"up": False})
        await backend.add_edge("a", "z", "none")
        cheapest = backend.find_cheapest_path
        assert await cheapest("a", "z", "ms", relationship_type="x") == WeightedPath(["a", "b", "z"], 2.0)
        kept: dict[str, Any] = {"relationship_type": ["x"], "node_query": {"up": None}}
        assert await cheapest("a", "z", "ms", **kept) == WeightedPath(["a", "c", "z"], 4.0)
        assert await cheapest("a", "z", "ms", edge_query={"ms": {"$exists": True}}) == WeightedPath(["a", "z"], 1.0)
        assert await cheapest("z", "c", "ms", direction="both", relationship_type="x") == WeightedPath(["z", "c"], 2.0)

    async def test_a_cheapest_path_costs_at_most_what_it_may(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b:x=2", "b>z:x=3")
        assert await backend.find_cheapest_path("a", "z", "ms", max_cost=5) == WeightedPath(["a", "b", "z"], 5.0)
        assert await backend.find_cheapest_path("a", "z", "ms", max_cost=4.9) is None

    @pytest.mark.parametrize("found", [None, -1, "1", True, [1]])
    async def test_a_weight_that_is_none_is_an_error_that_names_its_edge(
        self, backend: GraphStorageBackend, found: Any
    ) -> None:
        await draw(backend, "a>b:x=1")
        await backend.add_edge("b", "c", "leads to", {} if found is None else {"deep": {"ms": found}})
        await backend.add_edge("a", "b", "x", {"deep": {"ms": 1}})
        with pytest.raises(QueryError, match=r"weight 'deep.ms' .*'leads to'.* at least 0, found") as caught:
            await backend.find_cheapest_path("a", "c", "deep.ms")
        assert {caught.value.context["node"], caught.value.context["neighbor"]} == {"b", "c"}

    async def test_all_paths_come_the_shortest_first(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>c", "c>z", "a>b", "b>z", "a>z", "a>z:x", "b>c", "c>b", "z>a", "b>b", "c>d", "d>e", "e>z")
        found = await backend.find_paths("a", "z", 3)
        assert found == PathList(
            [["a", "z"], ["a", "b", "z"], ["a", "c", "z"], ["a", "b", "c", "z"], ["a", "c", "b", "z"]], False
        )
        assert (await backend.find_paths("a", "z", 1)).paths == [["a", "z"]]
        assert len((await backend.find_paths("a", "z", 5)).paths) == 7
        assert await backend.find_paths("a", "a") == PathList([["a"]], False)
        assert await backend.find_paths("a", "nobody") == PathList([], False)
        assert (await backend.find_paths("a", "z", relationship_type="x")).paths == [["a", "z"]]

    async def test_paths_beyond_the_limit_are_told(self, backend: GraphStorageBackend) -> None:
        await draw(backend, *(f"a>m{n}" for n in range(5)), *(f"m{n}>z" for n in range(5)))
        assert await backend.find_paths("a", "z", limit=5) == PathList([["a", f"m{n}", "z"] for n in range(5)], False)
        assert await backend.find_paths("a", "z", limit=2) == PathList([["a", "m0", "z"], ["a", "m1", "z"]], True)

    async def test_cycles_are_found_each_once(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b", "b>a", "b>c", "c>a", "c>c", "c>d", "d>e", "a>b:x", "f>d")
        assert await backend.find_cycles() == CycleList([["a", "b"], ["a", "b", "c"], ["c"]], False)
        assert await backend.find_cycles("x") == CycleList([], False)

    async def test_cycles_keep_to_what_matches(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b:x=1", "b>a:x=2", "b>c:y=1", "c>b:x=1")
        assert (await backend.find_cycles("x")).cycles == [["a", "b"]]
        assert (await backend.find_cycles(edge_query={"ms": 1})).cycles == [["b", "c"]]
        await backend.add_node("b", {"up": False})
        assert (await backend.find_cycles(node_query={"up": None})).cycles == []

    async def test_cycles_beyond_the_limit_are_told(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b", "b>a", "c>d", "d>c")
        assert await backend.find_cycles(limit=1) == CycleList([["a", "b"]], True)
        assert await backend.find_cycles(limit=2) == CycleList([["a", "b"], ["c", "d"]], False)
        assert await backend.find_cycles(limit=0) == CycleList([], True)

    async def test_dependencies_come_first_in_an_order(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "web>api", "api>db", "web>cache", "cache>db", "api>cache", "api>cache:x")
        await backend.add_node("alone")
        assert await backend.topological_order() == ["alone", "db", "cache", "api", "web"]
        assert await backend.topological_order("out") == ["alone", "web", "api", "cache", "db"]
        assert await backend.topological_order("in", "x") == ["alone", "cache", "api", "db", "web"]

    async def test_there_is_no_order_where_there_is_a_cycle(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "x>c", "c>b", "b>a", "a>c", "a>y", "y>y:x")
        with pytest.raises(QueryError, match="a -> c -> b -> a is a cycle") as caught:
            await backend.topological_order(edge_query={"ms": None}, relationship_type="needs")
        assert caught.value.context["cycle"] == ["a", "c", "b"]
        with pytest.raises(QueryError, match="y -> y is a cycle"):
            await backend.topological_order("out", "x")

    async def test_walks_inside_a_transaction_see_what_was_written_in_it(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b")
        async with backend.transaction() as transaction:
            await transaction.graph.add_edges([GraphEdge("b", "c", "needs"), GraphEdge("c", "a", "needs")])
            assert await transaction.graph.find_path("a", "c") == ["a", "b", "c"]
            assert (await transaction.graph.find_cycles()).cycles == [["a", "b", "c"]]
            assert await transaction.graph.closure("b") == {"c": 1, "a": 2}
            assert await backend.find_path("a", "c") is None
        assert await backend.closure("a") == {"b": 1}
