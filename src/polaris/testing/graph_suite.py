"""The contract of `GraphStorageBackend` as tests: every engine passes all of them.

Derive a class named `Test...` from `GraphSuite` and give it a fixture `backend`: a connected, empty backend.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from polaris.exceptions import InvalidValueError, QueryError
from polaris.storage import GraphEdge, GraphNode, GraphStorageBackend
from polaris.testing._graph_content_promises import GraphContentPromises
from polaris.testing._graph_route_promises import GraphRoutePromises
from polaris.testing._graph_scratch import draw
from polaris.testing._graph_walk_promises import GraphWalkPromises


class GraphSuite(GraphContentPromises, GraphWalkPromises, GraphRoutePromises):
    """The promises of the graph port."""

    @pytest.mark.parametrize("text", ["'; DROP TABLE graph_nodes; --", '"', "\\", "%", "🦉", "a.b", "?1", "[1]"])
    async def test_hostile_ids_and_types_are_only_text(self, backend: GraphStorageBackend, text: str) -> None:
        await backend.add_node(text, {text: text})
        await backend.add_edge(text, "b", text, {text: text})
        assert await backend.get_neighbors("b", "in", text) == [text]
        assert await backend.find_path(text, "b") == [text, "b"]
        assert await backend.get_edges(text) == [GraphEdge(text, "b", text, {text: text})]
        assert await backend.remove_node(text)

    async def test_an_export_holds_the_subgraph(self, backend: GraphStorageBackend) -> None:
        await draw(backend, "a>b:x=1", "b>c", "c>d")
        await backend.add_node("a", {"k": [1, None], "n": 2})
        told = json.loads("".join([piece async for piece in backend.export("json", "a", 2, direction="out")]))
        assert told["directed"] is True
        assert told["nodes"][0] == {"id": "a", "properties": {"k": [1, None], "n": 2}}
        assert [(edge["source"], edge["target"], edge["key"]) for edge in told["edges"]] == [
            ("a", "b", "x"),
            ("b", "c", "needs"),
        ]
        drawing = "".join([piece async for piece in backend.export("mermaid", relationship_type="x")])
        assert drawing.splitlines()[0] == "flowchart LR"
        assert '    n1 -->|"x"| n2' in drawing.splitlines()
        document = ET.fromstring("".join([piece async for piece in backend.export("graphml")]))  # noqa: S314 - our own
        assert len(document.findall(".//{*}node")) == 4
        bad: Any = "dot"
        with pytest.raises(QueryError, match="graph_format"):
            await anext(aiter(backend.export(bad)))

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

    async def test_bad_walks_are_refused(self, backend: GraphStorageBackend) -> None:
        bad: Any = object()
        calls: list[tuple[Callable[[], Awaitable[object]], str]] = [
            (lambda: backend.find_paths("a", "b", limit=10_001), "limit"),
            (lambda: backend.find_cycles(limit=-1), "limit"),
            (lambda: backend.find_cheapest_path("a", "b", "a..b"), "path"),
            (lambda: backend.find_cheapest_path("a", "b", "w", max_cost=float("nan")), "max_cost"),
            (lambda: backend.topological_order(bad), "direction"),
            (lambda: backend.topological_order("both"), "direction"),  # type: ignore[arg-type] # refused when it runs too
            (lambda: backend.get_neighbors("a", "both", []), "relationship_type"),
            (lambda: backend.get_neighbors("a", "both", bad), "relationship_type"),
            (lambda: backend.closure("a", edge_query={"w": {"$near": 1}}), "unknown operator"),
            (lambda: backend.find_nodes({"_version": 1}), "_version"),
            (lambda: backend.closure("a", edge_query={"$or": [{"w": 1}, {"$not": {"_id": "x"}}]}), "_id"),
            (lambda: backend.find_nodes(after=bad), "after"),
            (lambda: backend.get_edges(after=bad), "after"),
        ]
        for call, named in calls:
            with pytest.raises(QueryError, match=named):
                await call()

    async def test_a_batch_has_a_limit(self, backend: GraphStorageBackend) -> None:
        with pytest.raises(InvalidValueError, match="100000 nodes"):
            await backend.add_nodes([GraphNode("a")] * 100_001)
        with pytest.raises(InvalidValueError, match="100000 edges"):
            await backend.add_edges([GraphEdge("a", "b", "c")] * 100_001)
        bad: Any = [("a", {})]
        with pytest.raises(InvalidValueError, match="GraphNode"):
            await backend.add_nodes(bad)
        with pytest.raises(InvalidValueError, match="GraphEdge"):
            await backend.add_edges(bad)
        assert await backend.count_nodes() == 0
