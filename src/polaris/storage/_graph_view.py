"""The part of a graph that a question is about: a direction, types of edges, filters on edges and nodes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from polaris.domain._checks import check_id
from polaris.exceptions import QueryError
from polaris.storage._documents import ID_KEY, VERSION_KEY, Query
from polaris.storage._filter import EVERYTHING, Every, Filter, Not, Some, parse_query
from polaris.storage._graph_values import DIRECTIONS, Direction
from polaris.storage._limits import RELATIONSHIP_TYPES_MAX

RelationshipTypes = str | Sequence[str] | None
"""One type, several, or None for all."""

_OPPOSITE: dict[Direction, Direction] = {"out": "in", "in": "out", "both": "both"}


class GraphView(msgspec.Struct, frozen=True):
    """What a walk sees: it goes in this direction, over such edges, into such nodes; where it begins need not match."""

    direction: Direction
    types: tuple[str, ...] | None = None
    edges: Filter = EVERYTHING
    nodes: Filter = EVERYTHING

    @property
    def reversed(self) -> GraphView:
        """The same edges, walked the other way."""
        return msgspec.structs.replace(self, direction=_OPPOSITE[self.direction])

    @property
    def sees_all_nodes(self) -> bool:
        return self.nodes == EVERYTHING


def parse_view(
    direction: object,
    relationship_type: RelationshipTypes = None,
    edge_query: Query | None = None,
    node_query: Query | None = None,
) -> GraphView:
    """The view that the arguments mean. Raises `QueryError`, and `InvalidValueError` for what cannot be a type."""
    for known in DIRECTIONS:
        if direction == known:
            return GraphView(
                known, _types(relationship_type), parse_edge_query(edge_query), parse_node_query(node_query)
            )
    raise QueryError(f"direction: both, in or out, got {direction!r}")


def parse_node_query(query: Query | None) -> Filter:
    """The filter on the properties of nodes that the query means, and on `_id`, the id of the node itself."""
    return _checked(parse_query(query), {VERSION_KEY})


def parse_edge_query(query: Query | None) -> Filter:
    """The filter on the properties of edges that the query means."""
    return _checked(parse_query(query), {VERSION_KEY, ID_KEY})


def _checked(term: Filter, unknown: set[str]) -> Filter:
    """Refuse what documents have and nodes or edges have not."""
    if isinstance(term, Every | Some):
        for part in term.terms:
            _checked(part, unknown)
    elif isinstance(term, Not):
        _checked(term.term, unknown)
    elif term.path[0] in unknown:
        raise QueryError(f"{term.path[0]}: documents have it, this part of a graph has not")
    return term


def _types(relationship_type: RelationshipTypes) -> tuple[str, ...] | None:
    if relationship_type is None:
        return None
    if isinstance(relationship_type, str):
        check_id("relationship_type", relationship_type)
        return (relationship_type,)
    if not isinstance(relationship_type, Sequence) or not 0 < len(relationship_type) <= RELATIONSHIP_TYPES_MAX:
        raise QueryError(f"relationship_type: a type, a list of 1 to {RELATIONSHIP_TYPES_MAX} types, or None for all")
    for one in relationship_type:
        check_id("relationship_type", one)
    return tuple(sorted(set(relationship_type)))
