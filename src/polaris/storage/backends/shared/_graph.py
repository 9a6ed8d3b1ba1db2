"""The graph port of all engines: arguments are checked here, once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from polaris.domain._checks import check_id
from polaris.exceptions import QueryError
from polaris.storage._graph import DIRECTIONS, Direction, GraphEdge, GraphNode, GraphStorageBackend, Subgraph
from polaris.storage._limits import DEPTH_MAX, check_depth, check_limit, checked_tree
from polaris.storage._operation import Executor, Operation

if TYPE_CHECKING:
    from polaris.storage.backends.shared._engine import SharedEngine


class GraphPort(GraphStorageBackend):
    """Checks arguments and hands programs to its executor: the engine, or a transaction on it."""

    def __init__(self, engine: SharedEngine, executor: Executor) -> None:
        self._engine = engine
        self._executor = executor

    @property
    def engine(self) -> SharedEngine:
        return self._engine

    async def add_node(self, node_id: str, properties: Mapping[str, Any] | None = None) -> None:
        check_id("node_id", node_id)
        tree = checked_tree("properties", properties)
        await self._executor.execute(
            Operation(lambda session: session.graph.add_node(node_id, tree), mutates=True, known=None)
        )

    async def get_node(self, node_id: str) -> GraphNode | None:
        check_id("node_id", node_id)
        return await self._executor.execute(Operation(lambda session: session.graph.get_node(node_id), mutates=False))

    async def remove_node(self, node_id: str) -> bool:
        check_id("node_id", node_id)
        return await self._executor.execute(Operation(lambda session: session.graph.remove_node(node_id), mutates=True))

    async def add_edge(
        self, source: str, target: str, relationship_type: str, properties: Mapping[str, Any] | None = None
    ) -> None:
        _check_ends(source, target, relationship_type)
        edge = GraphEdge(source, target, relationship_type, checked_tree("properties", properties))
        await self._executor.execute(Operation(lambda session: session.graph.add_edge(edge), mutates=True, known=None))

    async def get_edge(self, source: str, target: str, relationship_type: str) -> GraphEdge | None:
        _check_ends(source, target, relationship_type)
        return await self._executor.execute(
            Operation(lambda session: session.graph.get_edge(source, target, relationship_type), mutates=False)
        )

    async def remove_edge(self, source: str, target: str, relationship_type: str | None = None) -> bool:
        _check_ends(source, target, relationship_type)
        return await self._executor.execute(
            Operation(lambda session: session.graph.remove_edge(source, target, relationship_type), mutates=True)
        )

    async def get_neighbors(
        self, node_id: str, direction: Direction = "both", relationship_type: str | None = None
    ) -> list[str]:
        _check_walk(node_id, direction, relationship_type)
        return await self._executor.execute(
            Operation(lambda session: session.graph.neighbors(node_id, direction, relationship_type), mutates=False)
        )

    async def get_edges(
        self,
        node_id: str | None = None,
        direction: Direction = "both",
        relationship_type: str | None = None,
        *,
        limit: int | None = None,
    ) -> list[GraphEdge]:
        _check_walk(node_id, direction, relationship_type)
        count = check_limit(limit)
        return await self._executor.execute(
            Operation(lambda session: session.graph.edges(node_id, direction, relationship_type, count), mutates=False)
        )

    async def find_path(
        self,
        source: str,
        target: str,
        max_depth: int = 5,
        *,
        direction: Direction = "out",
        relationship_type: str | None = None,
    ) -> list[str] | None:
        _check_walk(source, direction, relationship_type)
        check_id("target", target)
        depth = check_depth(max_depth)
        return await self._executor.execute(
            Operation(
                lambda session: session.graph.path(source, target, depth, direction, relationship_type), mutates=False
            )
        )

    async def closure(
        self,
        node_id: str,
        direction: Direction = "out",
        relationship_type: str | None = None,
        *,
        max_depth: int | None = None,
    ) -> dict[str, int]:
        _check_walk(node_id, direction, relationship_type)
        depth = DEPTH_MAX if max_depth is None else check_depth(max_depth)
        return await self._executor.execute(
            Operation(
                lambda session: session.graph.closure(node_id, direction, relationship_type, depth), mutates=False
            )
        )

    async def subgraph(self, node_id: str, max_depth: int = 1, *, direction: Direction = "both") -> Subgraph:
        _check_walk(node_id, direction, None)
        depth = check_depth(max_depth)
        return await self._executor.execute(
            Operation(lambda session: session.graph.subgraph(node_id, depth, direction), mutates=False)
        )


def _check_ends(source: object, target: object, relationship_type: object) -> None:
    check_id("source", source)
    check_id("target", target)
    if relationship_type is not None:
        check_id("relationship_type", relationship_type)


def _check_walk(node_id: object, direction: object, relationship_type: object) -> None:
    if node_id is not None:
        check_id("node_id", node_id)
    if direction not in DIRECTIONS:
        raise QueryError(f"direction: both, in or out, got {direction!r}")
    if relationship_type is not None:
        check_id("relationship_type", relationship_type)
