"""Drawing small graphs for the promises of the graph port."""

from __future__ import annotations

from polaris.storage import GraphEdge, GraphStorageBackend


async def draw(backend: GraphStorageBackend, *edges: str) -> None:
    """Add edges drawn as "a>b" (of type "needs"), "a>b:type" or "a>b:type=3" (with a property `ms`)."""
    await backend.add_edges([_edge(drawing) for drawing in edges])


def _edge(drawing: str) -> GraphEdge:
    ends, _, rest = drawing.partition(":")
    source, target = ends.split(">")
    kind, _, weight = rest.partition("=")
    return GraphEdge(source, target, kind or "needs", {"ms": float(weight)} if weight else {})


def drawn(edges: list[GraphEdge]) -> list[str]:
    """The edges as "a>b:type"."""
    return [f"{one.source}>{one.target}:{one.relationship_type}" for one in edges]
