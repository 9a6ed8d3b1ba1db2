"""Promises of the graph port: paths of the fewest hops, and what is within reach."""

from __future__ import annotations

from polaris.storage import GraphNode, GraphStorageBackend, Subgraph
from polaris.testing._graph_scratch import draw, drawn


class GraphWalkPromises:
    """Walks level by level."""

    async def test_a_path_is_a_shortest_one(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b", "b>c", "c>d", "d>e", "a>x", "x>d", "e>a", "a>a")
        assert await backend.find_path("a", "e") == ["a", "x", "d", "e"]
        assert await backend.find_path("a", "a") == ["a"]
        assert await backend.find_path("a", "b") == ["a", "b"]

    async def test_a_path_follows_the_direction(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b", "b>c")
        assert await backend.find_path("c", "a") is None
        assert await backend.find_path("c", "a", direction="in") == ["c", "b", "a"]
        await draw(backend, "d>c")
        assert await backend.find_path("a", "d", direction="both") == ["a", "b", "c", "d"]

    async def test_a_path_follows_the_type(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b", "b>c:hosts", "a>x:hosts", "x>y:hosts", "y>c:hosts")
        assert await backend.find_path("a", "c", relationship_type="hosts") == ["a", "x", "y", "c"]

    async def test_a_path_is_at_most_so_long(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b", "b>c", "c>d", "d>e", "e>f", "f>g")
        assert await backend.find_path("a", "f") == ["a", "b", "c", "d", "e", "f"]
        assert await backend.find_path("a", "g") is None
        assert await backend.find_path("a", "g", 6) == ["a", "b", "c", "d", "e", "f", "g"]
        assert await backend.find_path("a", "b", 0) is None

    async def test_there_is_no_path_to_a_node_that_is_not(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b")
        assert await backend.find_path("a", "nobody") is None
        assert await backend.find_path("nobody", "nobody") is None

    async def test_a_closure_holds_everything_within_reach_by_distance(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b", "b>c", "c>a", "a>d", "d>c", "x>a")
        assert await backend.closure("a") == {"b": 1, "d": 1, "c": 2}
        assert await backend.closure("a", "in") == {"c": 1, "x": 1, "b": 2, "d": 2}
        assert await backend.closure("a", max_depth=1) == {"b": 1, "d": 1}
        assert await backend.closure("nobody") == {}

    async def test_a_closure_follows_the_type(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b", "b>c:hosts", "b>d")
        assert await backend.closure("a", relationship_type="needs") == {"b": 1, "d": 2}

    async def test_a_subgraph_holds_its_nodes_and_the_edges_between_them(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b", "b>c", "c>d", "x>a", "x>b")
        await backend.add_node("b", {"k": 1})
        found = await backend.subgraph("a", 1)
        assert [node.node_id for node in found.nodes] == ["a", "b", "x"]
        assert found.nodes[1].properties == {"k": 1}
        assert [(edge.source, edge.target) for edge in found.edges] == [("a", "b"), ("x", "a"), ("x", "b")]
        out = await backend.subgraph("a", 2, direction="out")
        assert [node.node_id for node in out.nodes] == ["a", "b", "c"]
        assert await backend.subgraph("nobody") == Subgraph([], [])

    async def test_a_subgraph_keeps_to_what_matches(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b:x=1", "b>c:x=1", "a>c:y=1", "c>d:x=9", "e>a:x=1")
        await backend.add_nodes([GraphNode("b", {"up": True}), GraphNode("c", {"up": True})])
        found = await backend.subgraph("a", 3, direction="out", relationship_type="x", node_query={"up": True})
        assert ([node.node_id for node in found.nodes], drawn(found.edges)) == (["a", "b", "c"], ["a>b:x", "b>c:x"])
        cheap = await backend.subgraph("a", 3, edge_query={"ms": {"$lt": 9}})
        assert drawn(cheap.edges) == ["a>b:x", "a>c:y", "b>c:x", "e>a:x"]

    async def test_a_subgraph_of_no_node_is_everything(self, backend: GraphStorageBackend) -> None:
        assert await backend.subgraph(None) == Subgraph([], [])
        await draw(backend, "b>a", "c>d:hosts")
        await backend.add_node("lonely", {"k": 1})
        found = await backend.subgraph(None, 0)
        assert [node.node_id for node in found.nodes] == ["a", "b", "c", "d", "lonely"]
        assert found.nodes[4].properties == {"k": 1}
        assert drawn(found.edges) == ["b>a:needs", "c>d:hosts"]
        only = await backend.subgraph(None, relationship_type="hosts", node_query={"k": {"$exists": False}})
        assert ([node.node_id for node in only.nodes], drawn(only.edges)) == (["a", "b", "c", "d"], ["c>d:hosts"])

    async def test_a_path_keeps_to_nodes_that_match(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b", "b>z", "a>c", "c>d", "d>z")
        await backend.add_nodes([GraphNode(node, {"up": node != "b"}) for node in "bcdz"])
        assert await backend.find_path("a", "z", node_query={"up": True}) == ["a", "c", "d", "z"]
        assert await backend.find_path("a", "b", node_query={"up": True}) is None
        assert await backend.find_path("b", "z", node_query={"up": True}) == ["b", "z"]
        assert await backend.find_path("b", "b", node_query={"up": True}) == ["b"]

    async def test_a_path_keeps_to_edges_that_match(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>z:slow=90", "a>b:fast=2", "b>z:fast=3", "a>c:odd=1", "c>z:even=1")
        assert await backend.find_path("a", "z", edge_query={"ms": {"$lte": 3}}) in (["a", "b", "z"], ["a", "c", "z"])
        assert await backend.find_path("a", "z", relationship_type=["fast", "even"]) == ["a", "b", "z"]
        assert await backend.find_path("a", "z", relationship_type=["odd", "even"], edge_query={"ms": 1}) == [
            "a",
            "c",
            "z",
        ]

    async def test_a_closure_keeps_to_what_matches(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b:x=1", "b>c:x=1", "a>d:y=1", "d>e:x=1", "a>f:z=1")
        await backend.add_node("b", {"up": False})
        assert await backend.closure("a", relationship_type=["x", "y"]) == {"b": 1, "d": 1, "c": 2, "e": 2}
        assert await backend.closure("a", node_query={"up": None}) == {"d": 1, "f": 1, "e": 2}
        assert await backend.closure("b", node_query={"up": None}) == {"c": 1}
        await draw(backend, "d>e:x=7")
        assert list(await backend.closure("a", edge_query={"ms": {"$lt": 7}})) == ["b", "d", "f", "c"]

    async def test_a_trace_knows_the_way_to_each_node(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "web>api", "api>db", "job>db", "web>job", "x>web")
        found = await backend.trace("db", "in")
        assert found.distances == {"api": 1, "job": 1, "web": 2, "x": 3}
        assert found.path_to("x") == ["db", "api", "web", "x"]
        assert found.path_to("db") == ["db"]
        assert found.path_to("nobody") is None
        assert (await backend.trace("db", "in", max_depth=1)).distances == {"api": 1, "job": 1}
        assert (await backend.trace("nobody")).distances == {}
