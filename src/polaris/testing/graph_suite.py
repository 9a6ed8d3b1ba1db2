"""The contract of `GraphStorageBackend` as tests: every engine passes all of them.

Derive a class named `Test...` from `GraphSuite` and give it a fixture `backend`: a connected, empty backend.
"""

from __future__ import annotations

from typing import Any

import pytest

from polaris.exceptions import InvalidValueError, QueryError
from polaris.storage import GraphEdge, GraphNode, GraphStorageBackend, Subgraph


async def _draw(backend: GraphStorageBackend, *edges: str) -> None:
    """Add edges drawn as "a>b" (of type "needs") or "a>b:type"."""
    for edge in edges:
        ends, _, kind = edge.partition(":")
        source, target = ends.split(">")
        await backend.add_edge(source, target, kind or "needs")


class GraphSuite:
    """The promises of the graph port."""

    async def test_a_node_comes_back_as_it_was_added(self, backend: GraphStorageBackend) -> None:
        properties = {"a": [1, 2.5, None], "b": {"c": True}}
        await backend.add_node("n", properties)
        assert await backend.get_node("n") == GraphNode("n", properties)
        assert await backend.get_node("m") is None

    async def test_adding_a_node_again_replaces_its_properties(self, backend: GraphStorageBackend) -> None:
        await backend.add_node("n", {"a": 1, "b": 1})
        await backend.add_node("n", {"a": 2})
        assert await backend.get_node("n") == GraphNode("n", {"a": 2})

    async def test_an_edge_comes_back_as_it_was_added(self, backend: GraphStorageBackend) -> None:
        await backend.add_edge("a", "b", "needs", {"w": 0.5})
        assert await backend.get_edge("a", "b", "needs") == GraphEdge("a", "b", "needs", {"w": 0.5})
        assert await backend.get_edge("b", "a", "needs") is None
        assert await backend.get_edge("a", "b", "knows") is None

    async def test_an_edge_brings_its_ends_into_being_and_spares_those_there(
        self, backend: GraphStorageBackend
    ) -> None:
        await backend.add_node("a", {"kept": True})
        await backend.add_edge("a", "b", "needs")
        assert await backend.get_node("a") == GraphNode("a", {"kept": True})
        assert await backend.get_node("b") == GraphNode("b", {})

    async def test_adding_an_edge_again_replaces_its_properties(self, backend: GraphStorageBackend) -> None:
        await backend.add_edge("a", "b", "needs", {"w": 1})
        await backend.add_edge("a", "b", "needs", {"x": 2})
        assert await backend.get_edges("a") == [GraphEdge("a", "b", "needs", {"x": 2})]

    async def test_what_callers_do_to_properties_does_not_reach_the_store(self, backend: GraphStorageBackend) -> None:
        inner = [1]
        await backend.add_node("n", {"inner": inner})
        inner.append(2)
        found = await backend.get_node("n")
        assert found == GraphNode("n", {"inner": [1]})
        assert found is not None
        found.properties["inner"].append(3)
        assert await backend.get_node("n") == GraphNode("n", {"inner": [1]})

    async def test_neighbors_follow_the_direction(self, backend: GraphStorageBackend) -> None:
        await _draw(backend, "a>b", "a>c", "d>a")
        assert await backend.get_neighbors("a", "out") == ["b", "c"]
        assert await backend.get_neighbors("a", "in") == ["d"]
        assert await backend.get_neighbors("a") == ["b", "c", "d"]
        assert await backend.get_neighbors("nobody") == []

    async def test_neighbors_follow_the_type(self, backend: GraphStorageBackend) -> None:
        await _draw(backend, "a>b", "a>c:hosts", "d>a:hosts")
        assert await backend.get_neighbors("a", relationship_type="hosts") == ["c", "d"]
        assert await backend.get_neighbors("a", "out", "needs") == ["b"]
        assert await backend.get_neighbors("a", "in", "unknown") == []

    async def test_a_neighbor_by_several_edges_is_named_once(self, backend: GraphStorageBackend) -> None:
        await _draw(backend, "a>b", "a>b:hosts", "b>a", "a>a")
        assert await backend.get_neighbors("a") == ["a", "b"]
        assert await backend.get_neighbors("a", "out") == ["a", "b"]

    async def test_edges_are_listed_in_order(self, backend: GraphStorageBackend) -> None:
        await _draw(backend, "b>a", "a>c", "a>b:x", "a>b", "c>d", "a>a")
        names = [f"{one.source}>{one.target}:{one.relationship_type}" for one in await backend.get_edges()]
        assert names == ["a>a:needs", "a>b:needs", "a>b:x", "a>c:needs", "b>a:needs", "c>d:needs"]
        assert len(await backend.get_edges("a")) == 5
        assert [one.source for one in await backend.get_edges("a", "in")] == ["a", "b"]
        assert [one.target for one in await backend.get_edges("a", "out", "needs", limit=2)] == ["a", "b"]

    async def test_a_removed_node_takes_its_edges_along(self, backend: GraphStorageBackend) -> None:
        await _draw(backend, "a>b", "b>c", "a>c", "b>b")
        assert await backend.remove_node("b") is True
        assert await backend.get_node("b") is None
        assert [one.target for one in await backend.get_edges()] == ["c"]
        assert await backend.remove_node("b") is False

    async def test_a_removed_edge_is_gone_and_its_ends_stay(self, backend: GraphStorageBackend) -> None:
        await _draw(backend, "a>b", "a>b:hosts", "b>a")
        assert await backend.remove_edge("a", "b", "needs") is True
        assert await backend.remove_edge("a", "b", "needs") is False
        assert await backend.get_neighbors("a", "out") == ["b"]
        assert await backend.remove_edge("a", "b") is True
        assert await backend.get_neighbors("a", "out") == []
        assert await backend.get_neighbors("a", "in") == ["b"]
        assert await backend.get_node("b") is not None

    async def test_a_path_is_a_shortest_one(self, backend: GraphStorageBackend) -> None:
        await _draw(backend, "a>b", "b>c", "c>d", "d>e", "a>x", "x>d", "e>a", "a>a")
        assert await backend.find_path("a", "e") == ["a", "x", "d", "e"]
        assert await backend.find_path("a", "a") == ["a"]
        assert await backend.find_path("a", "b") == ["a", "b"]

    async def test_a_path_follows_the_direction(self, backend: GraphStorageBackend) -> None:
        await _draw(backend, "a>b", "b>c")
        assert await backend.find_path("c", "a") is None
        assert await backend.find_path("c", "a", direction="in") == ["c", "b", "a"]
        await _draw(backend, "d>c")
        assert await backend.find_path("a", "d", direction="both") == ["a", "b", "c", "d"]

    async def test_a_path_follows_the_type(self, backend: GraphStorageBackend) -> None:
        await _draw(backend, "a>b", "b>c:hosts", "a>x:hosts", "x>y:hosts", "y>c:hosts")
        assert await backend.find_path("a", "c", relationship_type="hosts") == ["a", "x", "y", "c"]

    async def test_a_path_is_at_most_so_long(self, backend: GraphStorageBackend) -> None:
        await _draw(backend, "a>b", "b>c", "c>d", "d>e", "e>f", "f>g")
        assert await backend.find_path("a", "f") == ["a", "b", "c", "d", "e", "f"]
        assert await backend.find_path("a", "g") is None
        assert await backend.find_path("a", "g", 6) == ["a", "b", "c", "d", "e", "f", "g"]
        assert await backend.find_path("a", "b", 0) is None

    async def test_there_is_no_path_to_a_node_that_is_not(self, backend: GraphStorageBackend) -> None:
        await _draw(backend, "a>b")
        assert await backend.find_path("a", "nobody") is None
        assert await backend.find_path("nobody", "nobody") is None

    async def test_a_closure_holds_everything_within_reach_by_distance(self, backend: GraphStorageBackend) -> None:
        await _draw(backend, "a>b", "b>c", "c>a", "a>d", "d>c", "x>a")
        assert await backend.closure("a") == {"b": 1, "d": 1, "c": 2}
        assert await backend.closure("a", "in") == {"c": 1, "x": 1, "b": 2, "d": 2}
        assert await backend.closure("a", max_depth=1) == {"b": 1, "d": 1}
        assert await backend.closure("nobody") == {}

    async def test_a_closure_follows_the_type(self, backend: GraphStorageBackend) -> None:
        await _draw(backend, "a>b", "b>c:hosts", "b>d")
        assert await backend.closure("a", relationship_type="needs") == {"b": 1, "d": 2}

    async def test_a_subgraph_holds_its_nodes_and_the_edges_between_them(self, backend: GraphStorageBackend) -> None:
        await _draw(backend, "a>b", "b>c", "c>d", "x>a", "x>b")
        await backend.add_node("b", {"k": 1})
        found = await backend.subgraph("a", 1)
        assert [node.node_id for node in found.nodes] == ["a", "b", "x"]
        assert found.nodes[1].properties == {"k": 1}
        assert [(edge.source, edge.target) for edge in found.edges] == [("a", "b"), ("x", "a"), ("x", "b")]
        out = await backend.subgraph("a", 2, direction="out")
        assert [node.node_id for node in out.nodes] == ["a", "b", "c"]
        assert await backend.subgraph("nobody") == Subgraph([], [])

    @pytest.mark.parametrize("text", ["'; DROP TABLE graph_nodes; --", '"', "\\", "%", "🦉", "a.b", "?1", "[1]"])
    async def test_hostile_ids_and_types_are_only_text(self, backend: GraphStorageBackend, text: str) -> None:
        await backend.add_node(text, {text: text})
        await backend.add_edge(text, "b", text, {text: text})
        assert await backend.get_neighbors("b", "in", text) == [text]
        assert await backend.find_path(text, "b") == [text, "b"]
        assert await backend.get_edges(text) == [GraphEdge(text, "b", text, {text: text})]
        assert await backend.remove_node(text)

    async def test_bad_arguments_are_refused(self, backend: GraphStorageBackend) -> None:
        bad: Any = "up"
        with pytest.raises(QueryError, match="direction"):
            await backend.get_neighbors("a", bad)
        with pytest.raises(QueryError, match="max_depth"):
            await backend.find_path("a", "b", 65)
        with pytest.raises(InvalidValueError, match="node_id"):
            await backend.add_node("")
        with pytest.raises(InvalidValueError, match="properties"):
            await backend.add_node("a", {"x": float("nan")})
        with pytest.raises(InvalidValueError, match="relationship_type"):
            await backend.add_edge("a", "b", "")
        assert await backend.get_node("a") is None
