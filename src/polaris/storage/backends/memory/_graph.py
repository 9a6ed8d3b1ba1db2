"""The graph of the engine in memory: edges kept from both ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from polaris.storage._graph import Direction, GraphEdge, GraphNode, Subgraph
from polaris.storage._traversal import OPPOSITE, Expand, distances, shortest_path
from polaris.storage.backends.memory._journal import Journal

EdgeKey = tuple[str, str, str]
"""Source, target, type: the order in which edges are listed."""


class MemoryGraph:
    """Nodes by id, edges by their ends; properties kept encoded, so that no caller can change them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._nodes: dict[str, bytes] = {}
        self._edges: dict[EdgeKey, bytes] = {}
        self._out: dict[str, set[EdgeKey]] = {}
        self._in: dict[str, set[EdgeKey]] = {}

    @property
    def nodes_count(self) -> int:
        return len(self._nodes)

    def add_node(self, node_id: str, properties: dict[str, Any]) -> None:
        former = self._nodes.get(node_id)
        self._nodes[node_id] = msgspec.json.encode(properties)
        self._journal.note(
            lambda: self._nodes.pop(node_id) if former is None else self._nodes.__setitem__(node_id, former)
        )

    def get_node(self, node_id: str) -> GraphNode | None:
        text = self._nodes.get(node_id)
        return None if text is None else GraphNode(node_id, msgspec.json.decode(text))

    def remove_node(self, node_id: str) -> bool:
        text = self._nodes.get(node_id)
        if text is None:
            return False
        for key in self._keys(node_id, "both", None):
            self._drop(key)
        del self._nodes[node_id]
        self._journal.note(lambda: self._nodes.__setitem__(node_id, text))
        return True

    def add_edge(self, edge: GraphEdge) -> None:
        for end in (edge.source, edge.target):
            if end not in self._nodes:
                self.add_node(end, {})
        key = (edge.source, edge.target, edge.relationship_type)
        former = self._edges.get(key)
        self._link(key, msgspec.json.encode(edge.properties))
        self._journal.note(lambda: self._unlink(key) if former is None else self._link(key, former))

    def _link(self, key: EdgeKey, text: bytes) -> None:
        self._edges[key] = text
        self._out.setdefault(key[0], set()).add(key)
        self._in.setdefault(key[1], set()).add(key)

    def _unlink(self, key: EdgeKey) -> bytes:
        self._out[key[0]].discard(key)
        self._in[key[1]].discard(key)
        return self._edges.pop(key)

    def _drop(self, key: EdgeKey) -> None:
        text = self._unlink(key)
        self._journal.note(lambda: self._link(key, text))

    def get_edge(self, source: str, target: str, relationship_type: str) -> GraphEdge | None:
        key = (source, target, relationship_type)
        return self._edge(key) if key in self._edges else None

    def _edge(self, key: EdgeKey) -> GraphEdge:
        return GraphEdge(*key, msgspec.json.decode(self._edges[key]))

    def remove_edge(self, source: str, target: str, relationship_type: str | None) -> bool:
        keys = [key for key in self._keys(source, "out", relationship_type) if key[1] == target]
        for key in keys:
            self._drop(key)
        return bool(keys)

    def _keys(self, node_id: str, direction: Direction, relationship_type: str | None) -> set[EdgeKey]:
        keys: set[EdgeKey] = set()
        if direction != "in":
            keys |= self._out.get(node_id, set())
        if direction != "out":
            keys |= self._in.get(node_id, set())
        return keys if relationship_type is None else {key for key in keys if key[2] == relationship_type}

    def neighbors(self, node_id: str, direction: Direction, relationship_type: str | None) -> list[str]:
        found: set[str] = set()
        for source, target, _ in self._keys(node_id, direction, relationship_type):
            if direction != "in" and source == node_id:
                found.add(target)
            if direction != "out" and target == node_id:
                found.add(source)
        return sorted(found)

    def edges(
        self, node_id: str | None, direction: Direction, relationship_type: str | None, limit: int
    ) -> list[GraphEdge]:
        if node_id is None:
            keys: Iterable[EdgeKey] = (
                key for key in self._edges if relationship_type is None or key[2] == relationship_type
            )
        else:
            keys = self._keys(node_id, direction, relationship_type)
        return [self._edge(key) for key in sorted(keys)[:limit]]

    def _expand(self, direction: Direction, relationship_type: str | None) -> Expand:
        neighbors: Callable[[str], list[str]] = lambda node: self.neighbors(node, direction, relationship_type)  # noqa: E731
        return lambda nodes: {node: neighbors(node) for node in nodes}

    def path(
        self, source: str, target: str, max_depth: int, direction: Direction, relationship_type: str | None
    ) -> list[str] | None:
        if source not in self._nodes or target not in self._nodes:
            return None
        return shortest_path(
            source,
            target,
            max_depth,
            self._expand(direction, relationship_type),
            self._expand(OPPOSITE[direction], relationship_type),
        )

    def closure(
        self, node_id: str, direction: Direction, relationship_type: str | None, max_depth: int
    ) -> dict[str, int]:
        return distances(node_id, max_depth, self._expand(direction, relationship_type))

    def subgraph(self, node_id: str, max_depth: int, direction: Direction) -> Subgraph:
        if node_id not in self._nodes:
            return Subgraph([], [])
        members = {node_id, *distances(node_id, max_depth, self._expand(direction, None))}
        edges = sorted(key for node in members for key in self._out.get(node, set()) if key[1] in members)
        nodes = [GraphNode(node, msgspec.json.decode(self._nodes[node])) for node in sorted(members)]
        return Subgraph(nodes, [self._edge(key) for key in edges])
