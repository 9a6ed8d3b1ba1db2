"""The graph port of all engines: arguments are checked here, once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from polaris.domain._checks import check_id
from polaris.exceptions import InvalidValueError, QueryError
from polaris.storage._documents import Query
from polaris.storage._graph import GraphStorageBackend
from polaris.storage._graph_cycles import find_cycles
from polaris.storage._graph_export import GraphFormat, check_format, export_pieces
from polaris.storage._graph_order import topological_order
from polaris.storage._graph_paths import simple_paths
from polaris.storage._graph_values import (
    CycleList,
    Direction,
    EdgeKey,
    GraphEdge,
    GraphNode,
    PathList,
    Reach,
    Subgraph,
    WeightedPath,
)
from polaris.storage._graph_view import RelationshipTypes, parse_node_query, parse_view
from polaris.storage._graph_walk import Walk
from polaris.storage._graph_weighted import cheapest_path
from polaris.storage._limits import (
    BATCH_EDGES_MAX,
    BATCH_NODES_MAX,
    DEPTH_MAX,
    ROUTES_MAX,
    check_depth,
    check_path,
    checked_tree,
    rows_wanted,
    whole_answer,
)
from polaris.storage._operation import Executor, Operation
from polaris.storage._traversal import neighbors_seen, reach, shortest_path, subgraph
from polaris.storage._turns import in_turns

if TYPE_CHECKING:
    from polaris.storage.backends.shared._engine import SharedEngine

T = TypeVar("T")


class GraphPort(GraphStorageBackend):
    """Checks arguments and hands programs to its executor: the engine, or a transaction on it."""

    def __init__(self, engine: SharedEngine, executor: Executor) -> None:
        self._engine = engine
        self._executor = executor

    @property
    def engine(self) -> SharedEngine:
        return self._engine

    async def _walk(self, make: Callable[[], Walk[T]]) -> T:
        operation: Operation[T] = Operation(lambda session: session.graph.walk(make), mutates=False)
        return await self._executor.execute(operation)

    async def add_node(self, node_id: str, properties: Mapping[str, Any] | None = None) -> None:
        check_id("node_id", node_id)
        await self._add_nodes([GraphNode(node_id, checked_tree("properties", properties))])

    async def add_nodes(self, nodes: Sequence[GraphNode]) -> None:
        if len(nodes) > BATCH_NODES_MAX:
            raise InvalidValueError("nodes", f"at most {BATCH_NODES_MAX} nodes", nodes)
        await self._add_nodes([_checked_node(node) async for node in in_turns(nodes)])

    def _add_nodes(self, nodes: list[GraphNode]) -> Awaitable[None]:
        return self._executor.execute(
            Operation(
                lambda session: session.graph.add_nodes(nodes), mutates=bool(nodes), known=None, weight=len(nodes)
            )
        )

    async def get_node(self, node_id: str) -> GraphNode | None:
        check_id("node_id", node_id)
        return await self._executor.execute(Operation(lambda session: session.graph.get_node(node_id), mutates=False))

    async def find_nodes(
        self, query: Query | None = None, *, limit: int | None = None, after: str | GraphNode | None = None
    ) -> list[GraphNode]:
        term, count = parse_node_query(query), rows_wanted(limit)
        behind = after.node_id if isinstance(after, GraphNode) else _cursor(after)
        nodes = await self._executor.execute(
            Operation(lambda session: session.graph.find_nodes(term, count, behind), mutates=False)
        )
        return whole_answer(nodes, "nodes")

    async def count_nodes(self, query: Query | None = None) -> int:
        term = parse_node_query(query)
        return await self._executor.execute(Operation(lambda session: session.graph.count_nodes(term), mutates=False))

    async def remove_node(self, node_id: str) -> bool:
        check_id("node_id", node_id)
        return await self._executor.execute(Operation(lambda session: session.graph.remove_node(node_id), mutates=True))

    async def add_edge(
        self, source: str, target: str, relationship_type: str, properties: Mapping[str, Any] | None = None
    ) -> None:
        _check_edge(source, target, relationship_type)
        await self._add_edges([GraphEdge(source, target, relationship_type, checked_tree("properties", properties))])

    async def add_edges(self, edges: Sequence[GraphEdge]) -> None:
        if len(edges) > BATCH_EDGES_MAX:
            raise InvalidValueError("edges", f"at most {BATCH_EDGES_MAX} edges", edges)
        await self._add_edges([_checked_edge(edge) async for edge in in_turns(edges)])

    def _add_edges(self, edges: list[GraphEdge]) -> Awaitable[None]:
        return self._executor.execute(
            Operation(
                lambda session: session.graph.add_edges(edges), mutates=bool(edges), known=None, weight=len(edges)
            )
        )

    async def get_edge(self, source: str, target: str, relationship_type: str) -> GraphEdge | None:
        _check_edge(source, target, relationship_type)
        return await self._executor.execute(
            Operation(lambda session: session.graph.get_edge(source, target, relationship_type), mutates=False)
        )

    async def remove_edge(self, source: str, target: str, relationship_type: str | None = None) -> bool:
        _check_edge(source, target, "any" if relationship_type is None else relationship_type)
        return await self._executor.execute(
            Operation(lambda session: session.graph.remove_edge(source, target, relationship_type), mutates=True)
        )

    async def get_edges(
        self,
        node_id: str | None = None,
        direction: Direction = "both",
        relationship_type: RelationshipTypes = None,
        *,
        edge_query: Query | None = None,
        limit: int | None = None,
        after: GraphEdge | None = None,
    ) -> list[GraphEdge]:
        _check_start(node_id)
        view, count, behind = parse_view(direction, relationship_type, edge_query), rows_wanted(limit), _edge_key(after)
        edges = await self._executor.execute(
            Operation(lambda session: session.graph.edges(node_id, view, count, behind), mutates=False)
        )
        return whole_answer(edges, "edges")

    async def count_edges(
        self,
        node_id: str | None = None,
        direction: Direction = "both",
        relationship_type: RelationshipTypes = None,
        *,
        edge_query: Query | None = None,
    ) -> int:
        _check_start(node_id)
        view = parse_view(direction, relationship_type, edge_query)
        return await self._executor.execute(
            Operation(lambda session: session.graph.count_edges(node_id, view), mutates=False)
        )

    async def get_neighbors(
        self,
        node_id: str,
        direction: Direction = "both",
        relationship_type: RelationshipTypes = None,
        *,
        edge_query: Query | None = None,
        node_query: Query | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> list[str]:
        check_id("node_id", node_id)
        view = parse_view(direction, relationship_type, edge_query, node_query)
        count, behind = rows_wanted(limit), _cursor(after)
        if view.sees_all_nodes:
            neighbors = await self._executor.execute(
                Operation(lambda session: session.graph.neighbors(node_id, view, count, behind), mutates=False)
            )
        else:
            neighbors = await self._walk(lambda: neighbors_seen(node_id, count, behind, view))
        return whole_answer(neighbors, "neighbours")

    async def find_path(
        self,
        source: str,
        target: str,
        max_depth: int = 5,
        *,
        direction: Direction = "out",
        relationship_type: RelationshipTypes = None,
        edge_query: Query | None = None,
        node_query: Query | None = None,
    ) -> list[str] | None:
        _check_ends(source, target)
        depth = check_depth(max_depth)
        view = parse_view(direction, relationship_type, edge_query, node_query)
        return await self._walk(lambda: shortest_path(source, target, depth, view))

    async def find_cheapest_path(
        self,
        source: str,
        target: str,
        weight: str,
        *,
        direction: Direction = "out",
        relationship_type: RelationshipTypes = None,
        edge_query: Query | None = None,
        node_query: Query | None = None,
        max_cost: float | None = None,
    ) -> WeightedPath | None:
        _check_ends(source, target)
        path, bound = check_path(weight), _check_cost(max_cost)
        view = parse_view(direction, relationship_type, edge_query, node_query)
        return await self._walk(lambda: cheapest_path(source, target, path, bound, view))

    async def find_paths(
        self,
        source: str,
        target: str,
        max_depth: int = 5,
        *,
        direction: Direction = "out",
        relationship_type: RelationshipTypes = None,
        edge_query: Query | None = None,
        node_query: Query | None = None,
        limit: int = 1_000,
    ) -> PathList:
        _check_ends(source, target)
        depth, count = check_depth(max_depth), _check_routes(limit)
        view = parse_view(direction, relationship_type, edge_query, node_query)
        return await self._walk(lambda: simple_paths(source, target, depth, count, view))

    async def closure(
        self,
        node_id: str,
        direction: Direction = "out",
        relationship_type: RelationshipTypes = None,
        *,
        edge_query: Query | None = None,
        node_query: Query | None = None,
        max_depth: int | None = None,
    ) -> dict[str, int]:
        found = await self.trace(
            node_id, direction, relationship_type, edge_query=edge_query, node_query=node_query, max_depth=max_depth
        )
        return found.distances

    async def trace(
        self,
        node_id: str,
        direction: Direction = "out",
        relationship_type: RelationshipTypes = None,
        *,
        edge_query: Query | None = None,
        node_query: Query | None = None,
        max_depth: int | None = None,
    ) -> Reach:
        check_id("node_id", node_id)
        depth = DEPTH_MAX if max_depth is None else check_depth(max_depth)
        view = parse_view(direction, relationship_type, edge_query, node_query)
        return await self._walk(lambda: reach(node_id, depth, view))

    async def find_cycles(
        self,
        relationship_type: RelationshipTypes = None,
        *,
        edge_query: Query | None = None,
        node_query: Query | None = None,
        limit: int = 100,
    ) -> CycleList:
        count = _check_routes(limit)
        view = parse_view("out", relationship_type, edge_query, node_query)
        return await self._walk(lambda: find_cycles(count, view))

    async def topological_order(
        self,
        direction: Literal["out", "in"] = "in",
        relationship_type: RelationshipTypes = None,
        *,
        edge_query: Query | None = None,
        node_query: Query | None = None,
    ) -> list[str]:
        view = parse_view(direction, relationship_type, edge_query, node_query)
        if view.direction == "both":
            raise QueryError("direction: in or out; an order needs one")
        return await self._walk(lambda: topological_order(view))

    async def subgraph(
        self,
        node_id: str | None,
        max_depth: int = 1,
        *,
        direction: Direction = "both",
        relationship_type: RelationshipTypes = None,
        edge_query: Query | None = None,
        node_query: Query | None = None,
    ) -> Subgraph:
        _check_start(node_id)
        depth = check_depth(max_depth)
        view = parse_view(direction, relationship_type, edge_query, node_query)
        return await self._walk(lambda: subgraph(node_id, depth, view))

    async def export(
        self,
        graph_format: GraphFormat,
        node_id: str | None = None,
        max_depth: int = 1,
        *,
        direction: Direction = "both",
        relationship_type: RelationshipTypes = None,
        edge_query: Query | None = None,
        node_query: Query | None = None,
    ) -> AsyncIterator[str]:
        check_format(graph_format)
        found = await self.subgraph(
            node_id,
            max_depth,
            direction=direction,
            relationship_type=relationship_type,
            edge_query=edge_query,
            node_query=node_query,
        )
        async for piece in in_turns(export_pieces(found, graph_format)):
            yield piece


def _checked_node(node: object) -> GraphNode:
    if not isinstance(node, GraphNode):
        raise InvalidValueError("nodes", "instances of GraphNode", node)
    check_id("node_id", node.node_id)
    return GraphNode(node.node_id, checked_tree("properties", node.properties))


def _checked_edge(edge: object) -> GraphEdge:
    if not isinstance(edge, GraphEdge):
        raise InvalidValueError("edges", "instances of GraphEdge", edge)
    _check_edge(edge.source, edge.target, edge.relationship_type)
    return GraphEdge(edge.source, edge.target, edge.relationship_type, checked_tree("properties", edge.properties))


def _check_edge(source: object, target: object, relationship_type: object) -> None:
    _check_ends(source, target)
    check_id("relationship_type", relationship_type)


def _check_ends(source: object, target: object) -> None:
    check_id("source", source)
    check_id("target", target)


def _check_start(node_id: object) -> None:
    if node_id is not None:
        check_id("node_id", node_id)


def _cursor(after: object) -> str | None:
    if after is None:
        return None
    if not isinstance(after, str):
        raise QueryError(f"after: the id of a node, got {type(after).__name__}")
    check_id("after", after)
    return after


def _edge_key(after: object) -> EdgeKey | None:
    if after is None:
        return None
    if not isinstance(after, GraphEdge):
        raise QueryError(f"after: the last edge of the previous page, got {type(after).__name__}")
    _check_edge(after.source, after.target, after.relationship_type)
    return after.source, after.target, after.relationship_type


def _check_routes(limit: object) -> int:
    if type(limit) is not int or not 0 <= limit <= ROUTES_MAX:
        raise QueryError(f"limit: an integer from 0 to {ROUTES_MAX}, got {limit!r}")
    return limit


def _check_cost(max_cost: object) -> float | None:
    if max_cost is None:
        return None
    if isinstance(max_cost, bool) or not isinstance(max_cost, (int, float)) or not max_cost >= 0:
        raise QueryError(f"max_cost: a number of at least 0 or None, got {max_cost!r}")
    return max_cost
