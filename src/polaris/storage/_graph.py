"""The graph port: nodes and typed, directed edges with properties."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal

from polaris.storage._backend import StorageBackend
from polaris.storage._documents import Query
from polaris.storage._graph_export import GraphFormat
from polaris.storage._graph_values import (
    DIRECTIONS,
    CycleList,
    Direction,
    GraphEdge,
    GraphNode,
    PathList,
    Reach,
    Subgraph,
    WeightedPath,
)
from polaris.storage._graph_view import RelationshipTypes

__all__ = [
    "DIRECTIONS",
    "CycleList",
    "Direction",
    "GraphEdge",
    "GraphFormat",
    "GraphNode",
    "GraphStorageBackend",
    "PathList",
    "Reach",
    "RelationshipTypes",
    "Subgraph",
    "WeightedPath",
]


class GraphStorageBackend(StorageBackend):
    """Stores and walks a directed graph. All methods are safe to call from many tasks at once.

    Node ids and relationship types are strings of 1 to 256 characters; properties are JSON objects (16 levels, 10 000
    values). Between two nodes there is at most one edge of a type in each direction; a loop is allowed. Adding what is
    there replaces its properties. An edge brings missing ends into being, with empty properties. A write is durable
    when its await returns; cancelled, it is done entirely or not at all.

    What a question is about can be narrowed down, everywhere in the same way:

    - `direction` "out" follows edges, "in" goes against them, "both" ignores which way they point;
    - `relationship_type` is one type, a list of up to 64, or None for all;
    - `edge_query` and `node_query` are operator dictionaries over the properties, as in queries for documents. Edges
      that do not match are not there. Nodes that do not match are not entered; where a walk begins need not match.

    Nodes, edges and neighbours are listed up to 1 000 000. A `limit` gives the first ones, and `after` goes on behind
    the last of them; without a limit more than 1 000 000 are a `QueryError`: no list is cut unasked.

    A walk visits at most 1 000 000 nodes and meets at most 5 000 000 edges, then `QueryError`; the event loop goes on
    meanwhile. Of several results that are equally good, the one given depends only on the content, not on the engine.
    """

    @abstractmethod
    async def add_node(self, node_id: str, properties: Mapping[str, Any] | None = None) -> None:
        """Add the node or replace its properties."""

    @abstractmethod
    async def add_nodes(self, nodes: Sequence[GraphNode]) -> None:
        """Add up to 100 000 nodes in one transaction, all or none; of several with one id the last counts."""

    @abstractmethod
    async def get_node(self, node_id: str) -> GraphNode | None:
        """The node, or None."""

    @abstractmethod
    async def find_nodes(
        self, query: Query | None = None, *, limit: int | None = None, after: str | GraphNode | None = None
    ) -> list[GraphNode]:
        """The nodes whose properties match, in order of their ids, behind the node `after` (which may be gone)."""

    @abstractmethod
    async def count_nodes(self, query: Query | None = None) -> int:
        """How many nodes match."""

    @abstractmethod
    async def remove_node(self, node_id: str) -> bool:
        """Remove the node and all its edges; False when there is none."""

    @abstractmethod
    async def add_edge(
        self, source: str, target: str, relationship_type: str, properties: Mapping[str, Any] | None = None
    ) -> None:
        """Add the edge or replace its properties; missing ends are added."""

    @abstractmethod
    async def add_edges(self, edges: Sequence[GraphEdge]) -> None:
        """Add up to 100 000 edges in one transaction, all or none, and missing ends; of doubles the last counts."""

    @abstractmethod
    async def get_edge(self, source: str, target: str, relationship_type: str) -> GraphEdge | None:
        """The edge, or None."""

    @abstractmethod
    async def remove_edge(self, source: str, target: str, relationship_type: str | None = None) -> bool:
        """Remove the edge of that type, or of every type, from source to target; False when there is none."""

    @abstractmethod
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
        """The edges of a node, or of all nodes, in order of source, target and type, behind the edge `after`."""

    @abstractmethod
    async def count_edges(
        self,
        node_id: str | None = None,
        direction: Direction = "both",
        relationship_type: RelationshipTypes = None,
        *,
        edge_query: Query | None = None,
    ) -> int:
        """How many edges `get_edges` would list without a limit; a loop is one edge."""

    @abstractmethod
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
        """The ids of the nodes one hop away, each once, in order, behind `after`; empty for an unknown node."""

    @abstractmethod
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
        """A path of the fewest hops, both ends included, or None when `max_depth` hops (at most 64) do not suffice."""

    @abstractmethod
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
        """A path whose weights sum up to the least, or None when there is none, or none of at most `max_cost`.

        `weight` is the dotted path of a property of the edges. An edge met on the way whose weight is missing, negative
        or no number is a `QueryError` that names it; to go without such edges, leave them out by `edge_query`.
        """

    @abstractmethod
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
        """All paths of at most `max_depth` hops that visit no node twice, the shortest first, up to `limit` (10 000).

        There can be exponentially many: when `limit` does not suffice, or 2 000 000 steps of the search do not, the
        result holds the first of them and says that it is truncated.
        """

    @abstractmethod
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
        """Every node reachable from this one, with its distance in hops; the node itself is not among them.

        With "out" these are its dependencies, direct and not; with "in" all that depend on it. Nearest first, those
        equally near in order. `max_depth` is 64 unless given.
        """

    @abstractmethod
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
        """The closure together with the way to each node: with "in", how the failure of this one gets to others."""

    @abstractmethod
    async def find_cycles(
        self,
        relationship_type: RelationshipTypes = None,
        *,
        edge_query: Query | None = None,
        node_query: Query | None = None,
        limit: int = 100,
    ) -> CycleList:
        """The cycles along the edges, each once, in order, up to `limit` (10 000); a loop is a cycle of one node.

        There can be exponentially many. With a limit of 1 it tells whether there is one: where there is, one is found.
        Beyond that, 5 000 000 steps of the search are the bound.
        """

    @abstractmethod
    async def topological_order(
        self,
        direction: Literal["out", "in"] = "in",
        relationship_type: RelationshipTypes = None,
        *,
        edge_query: Query | None = None,
        node_query: Query | None = None,
    ) -> list[str]:
        """All nodes: with "in" each after those that its edges lead to (dependencies first), with "out" before them.

        Of the nodes that could be next, it is the first in order. Raises `QueryError` that names a cycle when there is
        one.
        """

    @abstractmethod
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
        """The node, what is reachable in `max_depth` hops, and all edges between these; empty for an unknown node.

        For None, everything. At most 1 000 000 nodes and edges in all, then `QueryError`.
        """

    @abstractmethod
    def export(
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
        """The subgraph as text in pieces, for a file or a response.

        - `json`: node-link data as networkx and D3 read it (RFC 8259), nothing is lost: `nodes` with `id` and
          `properties`, `edges` with `source`, `target`, `key` (the type) and `properties`;
        - `graphml`: GraphML 1.0, properties as typed attributes; those of mixed kinds, lists and objects as JSON text;
        - `mermaid`: a flowchart to look at, without properties.
        """
