"""What a graph holds and what questions about it give."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Direction = Literal["both", "in", "out"]
DIRECTIONS: tuple[Direction, ...] = ("both", "in", "out")
EdgeKey = tuple[str, str, str]
"""Source, target, type: the order in which edges are listed."""


class GraphNode(msgspec.Struct, frozen=True):
    """A node and what is known of it."""

    node_id: str
    properties: dict[str, Any] = {}


class GraphEdge(msgspec.Struct, frozen=True):
    """A relationship that leads from `source` to `target`."""

    source: str
    target: str
    relationship_type: str
    properties: dict[str, Any] = {}


class Subgraph(msgspec.Struct, frozen=True):
    """Nodes in order of their ids, and every edge between two of them in order of source, target and type."""

    nodes: list[GraphNode]
    edges: list[GraphEdge]


class Reach(msgspec.Struct, frozen=True):
    """Everything that can be reached from a node, and by which way.

    `distances` holds each node reached with its hops, nearest first, those equally near in order; the start is not
    among them. `parents` holds the node before each on a path of the fewest hops: of several, the one first in order.
    """

    start: str
    distances: dict[str, int]
    parents: dict[str, str]

    def path_to(self, node_id: str) -> list[str] | None:
        """A path of the fewest hops from the start to the node, both included; None when it is not reached."""
        if node_id == self.start:
            return [node_id]
        if node_id not in self.parents:
            return None
        path = [node_id]
        while path[-1] != self.start:
            path.append(self.parents[path[-1]])
        return path[::-1]


class WeightedPath(msgspec.Struct, frozen=True):
    """A path, both ends included, and the sum of the weights along it."""

    nodes: list[str]
    cost: int | float


class PathList(msgspec.Struct, frozen=True):
    """Paths, those of the fewest hops first, those equally long in order of their nodes.

    `truncated` says that there are more, or may be.
    """

    paths: list[list[str]]
    truncated: bool


class CycleList(msgspec.Struct, frozen=True):
    """Cycles, each once and from its first node in order on, which is not repeated at the end; in order of their nodes.

    `truncated` says that there are more, or may be.
    """

    cycles: list[list[str]]
    truncated: bool
