"""Questions about the graph as SQL. Every value is a parameter.

Nodes and edges are selected under the names that the columns of documents have, so that filters mean the same.
"""

from __future__ import annotations

from typing import Any

from polaris.storage._filter import EVERYTHING, Filter
from polaris.storage._graph_values import EdgeKey
from polaris.storage._graph_view import GraphView
from polaris.storage.backends.sqlite._filter_sql import Where

NODES = "(SELECT id, 0 AS version, properties AS body FROM graph_nodes)"
EDGES = "(SELECT source, type, target, properties AS body FROM graph_edges)"

_ENDS = {"out": (("source", "target"),), "in": (("target", "source"),)}
_BOTH = (("source", "target"), ("target", "source"))


def condition(term: Filter) -> tuple[str, list[Any]]:
    """The condition on the properties, and its parameters."""
    if term == EVERYTHING:
        return "1", []
    where = Where(term)
    return where.sql, list(where.parameters)


def _conditions(view: GraphView) -> tuple[str, list[Any]]:
    """What the view asks of an edge."""
    parts: list[str] = []
    parameters: list[Any] = []
    if view.types is not None:
        parts.append(f" AND edge.type IN ({', '.join('?' * len(view.types))})")
        parameters += view.types
    if view.edges != EVERYTHING:
        where, bound = condition(view.edges)
        parts.append(f" AND {where}")
        parameters += bound
    return "".join(parts), parameters


def around(view: GraphView, columns: str, names: str, bound: list[Any] | None = None) -> tuple[str, list[Any]]:
    """The edges of the view at many nodes, given as a JSON list; `bound` are the parameters of the columns.

    In the columns `{near}` is the node and `{far}` the other end. An edge between two of the nodes comes twice.
    """
    narrowed, parameters = _conditions(view)
    parts: list[str] = []
    values: list[Any] = []
    for near, far in _ENDS.get(view.direction, _BOTH):
        chosen = columns.format(near=f"edge.{near}", far=f"edge.{far}")
        parts.append(
            f"SELECT {chosen} FROM json_each(?) AS asked CROSS JOIN {EDGES} AS edge"  # noqa: S608 - made of parameters
            f" WHERE edge.{near} = asked.value{narrowed}"
        )
        values += [*(bound or ()), names, *parameters]
    return " UNION ALL ".join(parts), values


def neighbors(view: GraphView, node_id: str, after: str | None) -> tuple[str, list[Any]]:
    """The nodes at the other ends of the edges of one node, each once."""
    narrowed, parameters = _conditions(view)
    parts: list[str] = []
    values: list[Any] = []
    for near, far in _ENDS.get(view.direction, _BOTH):
        later = "" if after is None else f" AND edge.{far} > ?"
        parts.append(f"SELECT DISTINCT edge.{far} FROM {EDGES} AS edge WHERE edge.{near} = ?{later}{narrowed}")  # noqa: S608
        values += [node_id, *(() if after is None else (after,)), *parameters]
    return " UNION ".join(parts), values


def listed(view: GraphView, columns: str, node_id: str | None, after: EdgeKey | None = None) -> tuple[str, list[Any]]:
    """The edges of one node or of all, each once, behind the edge `after`."""
    narrowed, parameters = _conditions(view)
    if after is not None:
        narrowed += " AND (edge.source, edge.target, edge.type) > (?, ?, ?)"
        parameters = [*parameters, *after]
    select = f"SELECT {columns} FROM {EDGES} AS edge WHERE "  # noqa: S608
    if node_id is None:
        return f"{select}1{narrowed}", parameters
    out, into = "edge.source = ?", "edge.target = ?"
    if view.direction == "out":
        return f"{select}{out}{narrowed}", [node_id, *parameters]
    if view.direction == "in":
        return f"{select}{into}{narrowed}", [node_id, *parameters]
    loops_left_out = f"{into} AND edge.source <> edge.target"
    return (
        f"{select}{out}{narrowed} UNION ALL {select}{loops_left_out}{narrowed}",
        [node_id, *parameters, node_id, *parameters],
    )
