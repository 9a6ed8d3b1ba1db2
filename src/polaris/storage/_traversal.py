"""Walks level by level: the shortest path, everything within reach, and the subgraph of it."""

from __future__ import annotations

from polaris.exceptions import QueryError
from polaris.storage._filter import EVERYTHING
from polaris.storage._graph_values import GraphEdge, GraphNode, Reach, Subgraph
from polaris.storage._graph_view import GraphView
from polaris.storage._graph_walk import (
    Explorer,
    Walk,
    all_nodes,
    check_visited,
    edge_rows,
    ends_present,
    node_rows,
    parts,
    present,
)
from polaris.storage._limits import LIMIT_MAX


def shortest_path(source: str, target: str, depth_max: int, view: GraphView) -> Walk[list[str] | None]:
    """A path of the fewest hops, found from both ends at once (bidirectional breadth-first search, Pohl 1971)."""
    if not (yield from ends_present(source, target, view)):
        return None
    if source == target:
        return [source]
    front = _Frontier(source, Explorer(view))
    rear = _Frontier(target, Explorer(view.reversed, always=source))
    for _ in range(depth_max):
        # The smaller frontier grows by one whole level, so all that meet now are on shortest paths.
        side, other = (front, rear) if len(front.nodes) <= len(rear.nodes) else (rear, front)
        met = yield from side.grow(other.parents)
        if met is not None:
            return [*reversed(front.trail(met)), *rear.trail(met)[1:]]
        if not side.nodes:
            return None
    return None


class _Frontier:
    """The nodes that were reached last from one end, and the way back to it from everywhere."""

    def __init__(self, start: str, explorer: Explorer) -> None:
        self.nodes = [start]
        self.parents: dict[str, str | None] = {start: None}
        self._explorer = explorer

    def grow(self, others: dict[str, str | None]) -> Walk[str | None]:
        """Reach one level further; the first node in order that others have reached already, or None."""
        level: dict[str, str] = {}
        for part in parts(self.nodes):
            pairs = yield from self._explorer.neighbors(part)
            _enter(level, pairs, self.parents)
            met = others.keys() & level.keys()
            if met:
                self.parents.update(level)
                return min(met)
            check_visited(len(self.parents) + len(level))
        self.parents.update(level)
        self.nodes = sorted(level)
        return None

    def trail(self, node: str) -> list[str]:
        """From the node back to where this side began."""
        trail = [node]
        while (parent := self.parents[trail[-1]]) is not None:
            trail.append(parent)
        return trail


def _enter(level: dict[str, str], pairs: list[tuple[str, str]], known: dict[str, str | None] | dict[str, int]) -> None:
    """Add the new ones among the neighbours to the level, each with the first in order of those it is reached from."""
    for node, neighbor in pairs:
        if neighbor not in known:
            parent = level.get(neighbor)
            if parent is None or node < parent:
                level[neighbor] = node


def reach(start: str, depth_max: int, view: GraphView) -> Walk[Reach]:
    """Every node within `depth_max` hops of the start, nearest first."""
    found = {start: 0}
    parents: dict[str, str] = {}
    frontier = [start]
    explorer = Explorer(view)
    for depth in range(1, depth_max + 1):
        level: dict[str, str] = {}
        for part in parts(frontier):
            _enter(level, (yield from explorer.neighbors(part)), found)
            check_visited(len(found) + len(level))
        if not level:
            break
        frontier = sorted(level)
        for node in frontier:
            found[node] = depth
            parents[node] = level[node]
    del found[start]
    return Reach(start, found, parents)


def neighbors_seen(node_id: str, limit: int, after: str | None, view: GraphView) -> Walk[list[str]]:
    """The neighbours that the view sees, each once, in order, behind `after`."""
    found = {neighbor for _, neighbor in (yield from Explorer(view).neighbors([node_id]))}
    return sorted(neighbor for neighbor in found if after is None or neighbor > after)[:limit]


def subgraph(node_id: str | None, depth_max: int, view: GraphView) -> Walk[Subgraph]:
    """The node, what is within reach, and the edges of the view between these; without a node, all of the view."""
    if node_id is None:
        members = yield from all_nodes(view)
    elif not (yield from present([node_id], EVERYTHING)):
        members = []
    else:
        members = sorted([node_id, *(yield from reach(node_id, depth_max, view)).distances])
    known = set(members)
    nodes: list[GraphNode] = []
    edges: list[GraphEdge] = []
    for part in parts(members):
        nodes += yield from node_rows(part)
        edges += [edge for edge in (yield from edge_rows(part, view)) if edge.target in known]
        if len(nodes) + len(edges) > LIMIT_MAX:
            raise QueryError(f"a subgraph has at most {LIMIT_MAX} nodes and edges; ask for less of the graph")
    return Subgraph(nodes, edges)
