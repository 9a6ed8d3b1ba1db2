"""The graph in SQLite: nodes and edges as rows, edges in both orders, properties as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, TypeVar

import apsw
import msgspec

from polaris.storage._filter import Filter, Path
from polaris.storage._graph_values import EdgeKey, GraphEdge, GraphNode
from polaris.storage._graph_view import GraphView
from polaris.storage._graph_walk import Walk, Weighed, drive
from polaris.storage.backends.sqlite._graph_sql import NODES, around, condition, listed, neighbors
from polaris.storage.backends.sqlite._sql import rows, scalar

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_ADD_NODE = "INSERT INTO graph_nodes VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET properties = excluded.properties"
_ADD_END = "INSERT INTO graph_nodes VALUES (?, '{}') ON CONFLICT (id) DO NOTHING"
_ADD_EDGE = (
    "INSERT INTO graph_edges VALUES (?, ?, ?, ?)"
    " ON CONFLICT (source, type, target) DO UPDATE SET properties = excluded.properties"
)


class SqliteGraph:
    """Nodes and edges of one connection. Values are parameters, never a part of a statement."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def add_nodes(self, nodes: Sequence[GraphNode]) -> None:
        self._connection.executemany(_ADD_NODE, [(node.node_id, _json(node.properties)) for node in nodes])

    def get_node(self, node_id: str) -> GraphNode | None:
        row = self._connection.execute("SELECT properties FROM graph_nodes WHERE id = ?", (node_id,)).fetchone()
        return None if row is None else GraphNode(node_id, _decode(row[0]))

    def find_nodes(self, term: Filter, limit: int, after: str | None) -> list[GraphNode]:
        where, parameters = condition(term)
        found = rows(
            self._connection,
            f"SELECT id, body FROM {NODES} WHERE id > ? AND {where} ORDER BY id LIMIT ?",  # noqa: S608
            [after or "", *parameters, limit],
        )
        return [GraphNode(row[0], _decode(row[1])) for row in found]

    def count_nodes(self, term: Filter) -> int:
        where, parameters = condition(term)
        count: int = scalar(self._connection, f"SELECT count(*) FROM {NODES} WHERE {where}", parameters)  # noqa: S608
        return count

    def remove_node(self, node_id: str) -> bool:
        self._connection.execute("DELETE FROM graph_edges WHERE source = ?", (node_id,))
        self._connection.execute("DELETE FROM graph_edges WHERE target = ?", (node_id,))
        self._connection.execute("DELETE FROM graph_nodes WHERE id = ?", (node_id,))
        return self._connection.changes() > 0

    def add_edges(self, edges: Sequence[GraphEdge]) -> None:
        ends = {end: None for edge in edges for end in (edge.source, edge.target)}
        self._connection.executemany(_ADD_END, [(end,) for end in ends])
        self._connection.executemany(
            _ADD_EDGE, [(edge.source, edge.relationship_type, edge.target, _json(edge.properties)) for edge in edges]
        )

    def get_edge(self, source: str, target: str, relationship_type: str) -> GraphEdge | None:
        row = self._connection.execute(
            "SELECT properties FROM graph_edges WHERE source = ? AND type = ? AND target = ?",
            (source, relationship_type, target),
        ).fetchone()
        return None if row is None else GraphEdge(source, target, relationship_type, _decode(row[0]))

    def remove_edge(self, source: str, target: str, relationship_type: str | None) -> bool:
        if relationship_type is None:
            self._connection.execute("DELETE FROM graph_edges WHERE target = ? AND source = ?", (target, source))
        else:
            self._connection.execute(
                "DELETE FROM graph_edges WHERE source = ? AND type = ? AND target = ?",
                (source, relationship_type, target),
            )
        return self._connection.changes() > 0

    def edges(self, node_id: str | None, view: GraphView, limit: int, after: EdgeKey | None) -> list[GraphEdge]:
        sql, parameters = listed(view, "edge.source, edge.target, edge.type, edge.body", node_id, after)
        found = rows(self._connection, f"{sql} ORDER BY 1, 2, 3 LIMIT ?", [*parameters, limit])
        return [_edge(row) for row in found]

    def count_edges(self, node_id: str | None, view: GraphView) -> int:
        sql, parameters = listed(view, "1", node_id)
        count: int = scalar(self._connection, f"SELECT count(*) FROM ({sql})", parameters)  # noqa: S608
        return count

    def neighbors(self, node_id: str, view: GraphView, limit: int, after: str | None) -> list[str]:
        sql, parameters = neighbors(view, node_id, after)
        found = rows(self._connection, f"{sql} ORDER BY 1 LIMIT ?", [*parameters, limit])
        return [row[0] for row in found]

    def walk(self, make: Callable[[], Walk[T]]) -> T:
        # A statement that is under way all the time lets an interruption that comes between two questions be noticed
        # by the next one (sqlite3_interrupt: it lasts until no statement runs).
        with closing(self._connection.execute("VALUES (1), (2)")) as under_way:
            next(under_way)
            return drive(make(), self)

    # What walks ask.

    def expand(self, nodes: Sequence[str], view: GraphView) -> list[tuple[str, str]]:
        sql, parameters = around(view, "{near}, {far}", _json(nodes))
        found: list[Any] = self._connection.execute(sql, parameters).fetchall()
        return found

    def weigh(self, nodes: Sequence[str], view: GraphView, weight: Path) -> list[Weighed]:
        at = "$" + "".join(f'."{segment}"' for segment in weight)
        sql, parameters = around(view, "{near}, {far}, edge.type, edge.body -> ?", _json(nodes), [at])
        found = rows(self._connection, sql, parameters)
        return [(row[0], row[1], row[2], None if row[3] is None else _decode(row[3])) for row in found]

    def present(self, nodes: Sequence[str], term: Filter) -> list[str]:
        where, parameters = condition(term)
        found = rows(
            self._connection,
            f"SELECT id FROM {NODES} WHERE id IN (SELECT value FROM json_each(?)) AND {where}",  # noqa: S608
            [_json(nodes), *parameters],
        )
        return [row[0] for row in found]

    def node_page(self, term: Filter, after: str | None, count: int) -> list[str]:
        where, parameters = condition(term)
        found = rows(
            self._connection,
            f"SELECT id FROM {NODES} WHERE id > ? AND {where} ORDER BY id LIMIT ?",  # noqa: S608
            [after or "", *parameters, count],
        )
        return [row[0] for row in found]

    def node_rows(self, nodes: Sequence[str]) -> list[GraphNode]:
        found = rows(
            self._connection,
            "SELECT id, properties FROM graph_nodes WHERE id IN (SELECT value FROM json_each(?))",
            (_json(nodes),),
        )
        return [GraphNode(row[0], _decode(row[1])) for row in found]

    def edge_rows(self, nodes: Sequence[str], view: GraphView) -> list[GraphEdge]:
        outward = msgspec.structs.replace(view, direction="out")
        sql, parameters = around(outward, "{near}, {far}, edge.type, edge.body", _json(nodes))
        return [_edge(row) for row in rows(self._connection, sql, parameters)]

    def pause(self) -> None:
        """A statement that does nothing but fail when nobody waits for the walk any more."""
        self._connection.execute("SELECT 1").fetchall()


def _json(value: Any) -> str:
    return _encode(value).decode()


def _edge(row: Sequence[Any]) -> GraphEdge:
    return GraphEdge(row[0], row[1], row[2], _decode(row[3]))
