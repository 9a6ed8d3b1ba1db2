"""The graph of the engine in memory: edges kept from both ends."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar, cast

import msgspec

from polaris.storage._documents import ID_KEY
from polaris.storage._filter import EVERYTHING, Filter, Path
from polaris.storage._filter_match import MISSING, lookup, matches
from polaris.storage._graph_values import EdgeKey, GraphEdge, GraphNode
from polaris.storage._graph_view import GraphView
from polaris.storage._graph_walk import Walk, Weighed, drive, drive_awaiting
from polaris.storage.backends.memory._journal import Journal

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class WalkInTurns:
    """A walk to be driven between the turns of other tasks, while nobody changes the graph."""

    def __init__(self, walk: Walk[Any], graph: MemoryGraph) -> None:
        self._walk = walk
        self._graph = graph

    async def drive(self) -> Any:
        """The result of the walk."""
        return await drive_awaiting(self._walk, self._graph)


class MemoryGraph:
    """Nodes by id, edges by their ends; properties kept encoded, so that no caller can change them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._nodes: dict[str, bytes] = {}
        self._edges: dict[EdgeKey, bytes] = {}
        self._out: dict[str, set[EdgeKey]] = {}
        self._in: dict[str, set[EdgeKey]] = {}
        self._ordered: list[str] | None = []
        """The ids in order, as long as nobody added or removed a node since they were put in order."""

        self._in_turns = False

    @property
    def nodes_count(self) -> int:
        return len(self._nodes)

    def add_nodes(self, nodes: Sequence[GraphNode]) -> None:
        for node in nodes:
            self._put_node(node.node_id, _encode(node.properties))

    def _put_node(self, node_id: str, text: bytes) -> None:
        former = self._nodes.get(node_id)
        self._set_node(node_id, text)
        self._journal.note(lambda: self._set_node(node_id, former))

    def _set_node(self, node_id: str, text: bytes | None) -> None:
        if (text is None) is (node_id in self._nodes):
            self._ordered = None
        if text is None:
            del self._nodes[node_id]
        else:
            self._nodes[node_id] = text

    def get_node(self, node_id: str) -> GraphNode | None:
        return self._node(node_id) if node_id in self._nodes else None

    def _node(self, node_id: str) -> GraphNode:
        return GraphNode(node_id, _decode(self._nodes[node_id]))

    def _node_matches(self, node_id: str, term: Filter) -> bool:
        return term == EVERYTHING or matches(term, {**_decode(self._nodes[node_id]), ID_KEY: node_id})

    def _matching(self, term: Filter, after: str | None) -> Iterator[str]:
        """The ids of the nodes that match, in order, behind `after`."""
        if self._ordered is None:
            self._ordered = sorted(self._nodes)
        start = 0 if after is None else bisect_right(self._ordered, after)
        return (node for node in islice(self._ordered, start, None) if self._node_matches(node, term))

    def find_nodes(self, term: Filter, limit: int, after: str | None) -> list[GraphNode]:
        return [self._node(node) for node in islice(self._matching(term, after), limit)]

    def count_nodes(self, term: Filter) -> int:
        return len(self._nodes) if term == EVERYTHING else sum(1 for _ in self._matching(term, None))

    def remove_node(self, node_id: str) -> bool:
        text = self._nodes.get(node_id)
        if text is None:
            return False
        for key in self._keys(node_id, GraphView("both")):
            self._drop(key)
        self._set_node(node_id, None)
        self._journal.note(lambda: self._set_node(node_id, text))
        return True

    def add_edges(self, edges: Sequence[GraphEdge]) -> None:
        for edge in edges:
            for end in (edge.source, edge.target):
                if end not in self._nodes:
                    self._put_node(end, b"{}")
            self._put_edge((edge.source, edge.target, edge.relationship_type), _encode(edge.properties))

    def _put_edge(self, key: EdgeKey, text: bytes) -> None:
        former = self._edges.get(key)
        self._link(key, text)
        self._journal.note(lambda: self._unlink(key) if former is None else self._link(key, former))

    def _link(self, key: EdgeKey, text: bytes) -> None:
        self._edges[key] = text
        self._out.setdefault(key[0], set()).add(key)
        self._in.setdefault(key[1], set()).add(key)

    def _unlink(self, key: EdgeKey) -> bytes:
        for ends, end in ((self._out, key[0]), (self._in, key[1])):
            ends[end].discard(key)
            if not ends[end]:
                del ends[end]
        return self._edges.pop(key)

    def _drop(self, key: EdgeKey) -> None:
        text = self._unlink(key)
        self._journal.note(lambda: self._link(key, text))

    def get_edge(self, source: str, target: str, relationship_type: str) -> GraphEdge | None:
        key = (source, target, relationship_type)
        return self._edge(key) if key in self._edges else None

    def _edge(self, key: EdgeKey) -> GraphEdge:
        return GraphEdge(*key, _decode(self._edges[key]))

    def remove_edge(self, source: str, target: str, relationship_type: str | None) -> bool:
        types = None if relationship_type is None else (relationship_type,)
        keys = [key for key in self._keys(source, GraphView("out", types)) if key[1] == target]
        for key in keys:
            self._drop(key)
        return bool(keys)

    def _edge_seen(self, key: EdgeKey, view: GraphView) -> bool:
        if view.types is not None and key[2] not in view.types:
            return False
        return view.edges == EVERYTHING or matches(view.edges, _decode(self._edges[key]))

    def _keys(self, node_id: str, view: GraphView) -> set[EdgeKey]:
        """The edges of the view at the node."""
        keys: set[EdgeKey] = set()
        if view.direction != "in":
            keys |= self._out.get(node_id, set())
        if view.direction != "out":
            keys |= self._in.get(node_id, set())
        if view.types is None and view.edges == EVERYTHING:
            return keys
        return {key for key in keys if self._edge_seen(key, view)}

    def _seen(self, node_id: str | None, view: GraphView) -> Iterable[EdgeKey]:
        if node_id is None:
            return (key for key in self._edges if self._edge_seen(key, view))
        return self._keys(node_id, view)

    def edges(self, node_id: str | None, view: GraphView, limit: int, after: EdgeKey | None) -> list[GraphEdge]:
        keys = sorted(key for key in self._seen(node_id, view) if after is None or key > after)
        return [self._edge(key) for key in keys[:limit]]

    def count_edges(self, node_id: str | None, view: GraphView) -> int:
        return sum(1 for _ in self._seen(node_id, view))

    def neighbors(self, node_id: str, view: GraphView, limit: int, after: str | None) -> list[str]:
        found = {neighbor for _, neighbor in self.expand([node_id], view)}
        return sorted(neighbor for neighbor in found if after is None or neighbor > after)[:limit]

    def walk(self, make: Callable[[], Walk[T]]) -> T:
        if self._in_turns:
            return cast(T, WalkInTurns(make(), self))  # who asked for it drives it
        return drive(make(), self)

    @contextmanager
    def walking_in_turns(self) -> Iterator[None]:
        """Meanwhile `walk` gives a `WalkInTurns` instead of a result."""
        self._in_turns = True
        try:
            yield
        finally:
            self._in_turns = False

    # What walks ask.

    def expand(self, nodes: Sequence[str], view: GraphView) -> list[tuple[str, str]]:
        return [(node, neighbor) for node, neighbor, _ in self._around(nodes, view)]

    def weigh(self, nodes: Sequence[str], view: GraphView, weight: Path) -> list[Weighed]:
        return [
            (node, neighbor, key[2], self._weight(key, weight)) for node, neighbor, key in self._around(nodes, view)
        ]

    def _weight(self, key: EdgeKey, weight: Path) -> Any:
        found = lookup(_decode(self._edges[key]), weight)
        return None if found is MISSING else found

    def _around(self, nodes: Sequence[str], view: GraphView) -> Iterator[tuple[str, str, EdgeKey]]:
        """Each of the nodes with each neighbour and the edge between them."""
        for node in nodes:
            for key in self._keys(node, view):
                if view.direction != "in" and key[0] == node:
                    yield node, key[1], key
                if view.direction != "out" and key[1] == node:
                    yield node, key[0], key

    def present(self, nodes: Sequence[str], term: Filter) -> list[str]:
        return [node for node in nodes if node in self._nodes and self._node_matches(node, term)]

    def node_page(self, term: Filter, after: str | None, count: int) -> list[str]:
        return list(islice(self._matching(term, after), count))

    def node_rows(self, nodes: Sequence[str]) -> list[GraphNode]:
        return [self._node(node) for node in nodes if node in self._nodes]

    def edge_rows(self, nodes: Sequence[str], view: GraphView) -> list[GraphEdge]:
        outward = msgspec.structs.replace(view, direction="out")
        return [self._edge(key) for node in nodes for key in self._keys(node, outward)]

    def pause(self) -> None:
        """Nothing happens here: whoever drives a walk lets others have their turn between its questions."""
