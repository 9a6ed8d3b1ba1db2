"""Promises of the graph port: nodes, edges, and what is around a node."""

from __future__ import annotations

from typing import Any

import pytest

from polaris.exceptions import InvalidValueError
from polaris.storage import GraphEdge, GraphNode, GraphStorageBackend
from polaris.testing._graph_scratch import draw, drawn


class GraphContentPromises:
    """What is added is there, found, counted and removed."""

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
        await draw(backend, "a>b", "a>c", "d>a")
        assert await backend.get_neighbors("a", "out") == ["b", "c"]
        assert await backend.get_neighbors("a", "in") == ["d"]
        assert await backend.get_neighbors("a") == ["b", "c", "d"]
        assert await backend.get_neighbors("nobody") == []

    async def test_neighbors_follow_the_type(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b", "a>c:hosts", "d>a:hosts")
        assert await backend.get_neighbors("a", relationship_type="hosts") == ["c", "d"]
        assert await backend.get_neighbors("a", "out", "needs") == ["b"]
        assert await backend.get_neighbors("a", "in", "unknown") == []

    async def test_a_neighbor_by_several_edges_is_named_once(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b", "a>b:hosts", "b>a", "a>a")
        assert await backend.get_neighbors("a") == ["a", "b"]
        assert await backend.get_neighbors("a", "out") == ["a", "b"]

    async def test_edges_are_listed_in_order(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "b>a", "a>c", "a>b:x", "a>b", "c>d", "a>a")
        assert drawn(await backend.get_edges()) == [
            "a>a:needs",
            "a>b:needs",
            "a>b:x",
            "a>c:needs",
            "b>a:needs",
            "c>d:needs",
        ]
        assert len(await backend.get_edges("a")) == 5
        assert [one.source for one in await backend.get_edges("a", "in")] == ["a", "b"]
        assert [one.target for one in await backend.get_edges("a", "out", "needs", limit=2)] == ["a", "b"]

    async def test_a_removed_node_takes_its_edges_along(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b", "b>c", "a>c", "b>b")
        assert await backend.remove_node("b") is True
        assert await backend.get_node("b") is None
        assert [one.target for one in await backend.get_edges()] == ["c"]
        assert await backend.remove_node("b") is False

    async def test_a_removed_edge_is_gone_and_its_ends_stay(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b", "a>b:hosts", "b>a")
        assert await backend.remove_edge("a", "b", "needs") is True
        assert await backend.remove_edge("a", "b", "needs") is False
        assert await backend.get_neighbors("a", "out") == ["b"]
        assert await backend.remove_edge("a", "b") is True
        assert await backend.get_neighbors("a", "out") == []
        assert await backend.get_neighbors("a", "in") == ["b"]
        assert await backend.get_node("b") is not None

    async def test_many_nodes_and_edges_are_added_at_once(self, backend: GraphStorageBackend) -> None:
        await backend.add_node("n1", {"old": True})
        await backend.add_nodes([GraphNode("n1", {"k": 1}), GraphNode("n2"), GraphNode("n2", {"k": 2})])
        await backend.add_edges([GraphEdge("n1", "n3", "needs", {"w": w}) for w in (1, 2)])
        await backend.add_nodes([])
        await backend.add_edges([])
        assert await backend.find_nodes() == [GraphNode("n1", {"k": 1}), GraphNode("n2", {"k": 2}), GraphNode("n3")]
        assert await backend.get_edges() == [GraphEdge("n1", "n3", "needs", {"w": 2})]

    async def test_a_batch_is_added_entirely_or_not_at_all(self, backend: GraphStorageBackend) -> None:
        with pytest.raises(InvalidValueError, match="properties"):
            await backend.add_nodes([GraphNode("a"), GraphNode("b", {"x": float("inf")})])
        with pytest.raises(InvalidValueError, match="relationship_type"):
            await backend.add_edges([GraphEdge("a", "b", "needs"), GraphEdge("a", "b", "")])
        assert await backend.find_nodes() == []

    async def test_nodes_are_found_by_their_properties(self, backend: GraphStorageBackend) -> None:
        tiers: list[Any] = [1, 2, "1", None, {"x": [1, 2]}]
        await backend.add_nodes([GraphNode(f"n{n}", {"tier": tier}) for n, tier in enumerate(tiers)])
        await backend.add_node("bare")
        for query, ids in (
            ({"tier": 1}, ["n0"]),
            ({"tier": {"$gte": 1}}, ["n0", "n1"]),
            ({"tier": {"$in": ["1", 2]}}, ["n1", "n2"]),
            ({"tier": None}, ["bare", "n3"]),
            ({"tier": {"$exists": False}}, ["bare"]),
            ({"$or": [{"tier": 2}, {"tier.x": {"$exists": True}}]}, ["n1", "n4"]),
        ):
            assert [node.node_id for node in await backend.find_nodes(query)] == ids, query

    async def test_nodes_are_found_by_their_ids_too(self, backend: GraphStorageBackend) -> None:
        await backend.add_nodes([GraphNode(node_id, {"_id": "z", "k": node_id}) for node_id in ("a", "b", "z")])
        assert [node.node_id for node in await backend.find_nodes({"_id": {"$gt": "a"}, "k": {"$lt": "c"}})] == ["b"]
        assert await backend.find_nodes({"_id": "z"}) == [GraphNode("z", {"_id": "z", "k": "z"})]

    async def test_nodes_are_paged_in_order(self, backend: GraphStorageBackend) -> None:
        await backend.add_nodes([GraphNode(node_id, {"even": n % 2 == 0}) for n, node_id in enumerate("edacb")])
        first = await backend.find_nodes(limit=2)
        assert [node.node_id for node in first] == ["a", "b"]
        await backend.remove_node("b")
        rest = await backend.find_nodes(limit=2, after=first[-1])
        assert [node.node_id for node in rest] == ["c", "d"]
        assert [node.node_id for node in await backend.find_nodes({"even": True}, after="a")] == ["e"]
        assert await backend.find_nodes(after="e") == []
        assert await backend.find_nodes(limit=0) == []

    async def test_nodes_are_counted(self, backend: GraphStorageBackend) -> None:
        assert await backend.count_nodes() == 0
        await backend.add_nodes([GraphNode(f"n{n}", {"tier": n % 3}) for n in range(7)])
        assert (await backend.count_nodes(), await backend.count_nodes({"tier": 0})) == (7, 3)

    async def test_edges_are_counted(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b", "a>b:hosts=2", "b>a", "a>a", "c>b:hosts=9")
        assert await backend.count_edges() == 5
        assert await backend.count_edges("a") == 4
        assert (await backend.count_edges("a", "out"), await backend.count_edges("a", "in")) == (3, 2)
        assert await backend.count_edges("b", "in", "hosts") == 2
        assert await backend.count_edges(edge_query={"ms": {"$gt": 2}}) == 1

    async def test_edges_are_found_by_their_properties(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b:x=1", "a>c:x=2", "b>a:x=3", "a>d:y=3", "c>d:x=3")
        assert drawn(await backend.get_edges(edge_query={"ms": 3})) == ["a>d:y", "b>a:x", "c>d:x"]
        assert drawn(await backend.get_edges("a", "out", "x", edge_query={"ms": {"$gt": 1}})) == ["a>c:x"]
        assert drawn(await backend.get_edges("a", edge_query={"$not": {"ms": 3}})) == ["a>b:x", "a>c:x"]

    async def test_edges_are_paged_in_order(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b:x", "a>b:y", "a>c", "b>a", "b>b", "c>a")
        every = await backend.get_edges()
        first = await backend.get_edges(limit=2)
        await backend.remove_edge("a", "b", "y")
        assert first + await backend.get_edges(after=first[-1]) == every
        assert drawn(await backend.get_edges("a", "in", after=every[2])) == ["b>a:needs", "c>a:needs"]
        assert drawn(await backend.get_edges("b", after=GraphEdge("b", "a", "zzz"), limit=1)) == ["b>b:needs"]

    async def test_neighbors_follow_several_types(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b", "a>c:hosts", "d>a:hosts", "a>e:knows")
        assert await backend.get_neighbors("a", "both", ["hosts", "needs", "needs"]) == ["b", "c", "d"]
        assert await backend.get_neighbors("a", "out", ("knows", "unknown")) == ["e"]
        assert drawn(await backend.get_edges("a", "out", ["hosts", "knows"])) == ["a>c:hosts", "a>e:knows"]

    async def test_neighbors_are_those_over_edges_that_match(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b:x=1", "a>b:y=5", "a>c:x=5", "d>a:x=1")
        assert await backend.get_neighbors("a", edge_query={"ms": {"$lt": 5}}) == ["b", "d"]
        assert await backend.get_neighbors("a", "out", "x", edge_query={"ms": 5}) == ["c"]

    async def test_neighbors_are_those_nodes_that_match(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b", "a>c", "d>a", "a>a")
        await backend.add_nodes([GraphNode(node, {"up": node != "c"}) for node in "bcd"])
        assert await backend.get_neighbors("a", node_query={"up": True}) == ["b", "d"]
        assert await backend.get_neighbors("a", "out", node_query={"up": {"$ne": True}}) == ["a", "c"]
        assert await backend.get_neighbors("a", node_query={"up": True}, limit=1, after="b") == ["d"]

    async def test_neighbors_are_paged_in_order(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>d", "a>c", "a>b", "a>b:x", "e>a", "c>a")
        assert await backend.get_neighbors("a", limit=2) == ["b", "c"]
        assert await backend.get_neighbors("a", limit=2, after="c") == ["d", "e"]
        assert await backend.get_neighbors("a", "out", after="bb") == ["c", "d"]
