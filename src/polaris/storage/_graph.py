"""The graph port: nodes and typed, directed edges with properties."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from polaris.storage._backend import StorageBackend

Direction = Literal["both", "in", "out"]
DIRECTIONS = ("both", "in", "out")


class GraphNode(msgspec.Struct, frozen=True):
    """A node and what is known of it."""

    node_id: str
    properties: dict[str, Any]


class GraphEdge(msgspec.Struct, frozen=True):
    """A relationship that leads from `source` to `target`."""

    source: str
    target: str
    relationship_type: str
    properties: dict[str, Any]


class Subgraph(msgspec.Struct, frozen=True):
    """Nodes in order of their ids, and every edge between two of them in order of source, target and type."""

    nodes: list[GraphNode]
    edges: list[GraphEdge]


class GraphStorageBackend(StorageBackend):
    """Stores and walks a directed graph. All methods are safe to call from many tasks at once.

    Node ids and relationship types are strings of 1 to 256 characters; properties are JSON objects (16 levels, 10 000
    values). Between two nodes there is at most one edge of a type in each direction; a loop is allowed. Adding what is
    there replaces its properties. An edge brings missing ends into being, with empty properties.

    `direction` "out" follows edges, "in" goes against them, "both" ignores which way they point. A walk visits at most
    1 000 000 nodes, then `QueryError`. A write is durable when its await returns; cancelled, it is done or not at all.
    """

    @abstractmethod
    async def add_node(self, node_id: str, properties: Mapping[str, Any] | None = None) -> None:
        """Add the node or replace its properties."""

    @abstractmethod
    async def get_node(self, node_id: str) -> GraphNode | None:
        """The node, or None."""

    @abstractmethod
    async def remove_node(self, node_id: str) -> bool:
        """Remove the node and all its edges; False when there is none."""

    @abstractmethod
    async def add_edge(
        self, source: str, target: str, relationship_type: str, properties: Mapping[str, Any] | None = None
    ) -> None:
        """Add the edge or replace its properties; missing ends are added."""

    @abstractmethod
    async def get_edge(self, source: str, target: str, relationship_type: str) -> GraphEdge | None:
        """The edge, or None."""

    @abstractmethod
    async def remove_edge(self, source: str, target: str, relationship_type: str | None = None) -> bool:
        """Remove the edge of that type, or of every type, from source to target; False when there is none."""

    @abstractmethod
    async def get_neighbors(
        self, node_id: str, direction: Direction = "both", relationship_type: str | None = None
    ) -> list[str]:
        """The ids of the nodes one hop away, each once, in order; empty for an unknown node."""

    @abstractmethod
    async def get_edges(
        self,
        node_id: str | None = None,
        direction: Direction = "both",
        relationship_type: str | None = None,
        *,
        limit: int | None = None,
    ) -> list[GraphEdge]:
        """The edges of a node, or of all nodes, in order of source, target and type."""

    @abstractmethod
    async def find_path(
        self,
        source: str,
        target: str,
        max_depth: int = 5,
        *,
        direction: Direction = "out",
        relationship_type: str | None = None,
    ) -> list[str] | None:
        """A path of the fewest hops, both ends included, or None when `max_depth` hops (at most 64) do not suffice."""

    @abstractmethod
    async def closure(
        self,
        node_id: str,
        direction: Direction = "out",
        relationship_type: str | None = None,
        *,
        max_depth: int | None = None,
    ) -> dict[str, int]:
        """Every node reachable from this one, with its distance in hops; the node itself is not among them.

        With "out" these are its dependencies, direct and not; with "in" all that depend on it. `max_depth` is 64
        unless given.
        """

    @abstractmethod
    async def subgraph(self, node_id: str, max_depth: int = 1, *, direction: Direction = "both") -> Subgraph:
        """The node, what is reachable in `max_depth` hops, and all edges between these; empty for an unknown node."""
