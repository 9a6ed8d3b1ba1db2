"""The graph in SQLite: an edge table in both orders, walked one level at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import apsw
import msgspec

from polaris.storage._graph import Direction, GraphEdge, GraphNode, Subgraph
from polaris.storage._traversal import OPPOSITE, Expand, distances, shortest_path

_json = msgspec.json.Encoder().encode
_EDGE = "source, target, type, properties"


class SqliteGraph:
    """Nodes and edges as rows, properties as JSON."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def add_node(self, node_id: str, properties: dict[str, Any]) -> None:
        self._connection.execute(
            "INSERT INTO graph_nodes VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET properties = excluded.properties",
            (node_id, _json(properties).decode()),
        )

    def get_node(self, node_id: str) -> GraphNode | None:
        row = self._connection.execute("SELECT properties FROM graph_nodes WHERE id = ?", (node_id,)).fetchone()
        return None if row is None else GraphNode(node_id, msgspec.json.decode(row[0]))

    def remove_node(self, node_id: str) -> bool:
        self._connection.execute("DELETE FROM graph_edges WHERE source = ?", (node_id,))
        self._connection.execute("DELETE FROM graph_edges WHERE target = ?", (node_id,))
        self._connection.execute("DELETE FROM graph_nodes WHERE id = ?", (node_id,))
        return self._connection.changes() > 0

    def add_edge(self, edge: GraphEdge) -> None:
        self._connection.execute(
            "INSERT INTO graph_nodes VALUES (?, '{}'), (?, '{}') ON CONFLICT (id) DO NOTHING",
            (edge.source, edge.target),
        )
        self._connection.execute(
            "INSERT INTO graph_edges VALUES (?, ?, ?, ?)"
            " ON CONFLICT (source, type, target) DO UPDATE SET properties = excluded.properties",
            (edge.source, edge.relationship_type, edge.target, _json(edge.properties).decode()),
        )

    def get_edge(self, source: str, target: str, relationship_type: str) -> GraphEdge | None:
        row = self._connection.execute(
            f"SELECT {_EDGE} FROM graph_edges WHERE source = ? AND type = ? AND target = ?",  # noqa: S608
            (source, relationship_type, target),
        ).fetchone()
        return None if row is None else _edge(row)

    def remove_edge(self, source: str, target: str, relationship_type: str | None) -> bool:
        if relationship_type is None:
            self._connection.execute("DELETE FROM graph_edges WHERE target = ? AND source = ?", (target, source))
        else:
            self._connection.execute(
                "DELETE FROM graph_edges WHERE source = ? AND type = ? AND target = ?",
                (source, relationship_type, target),
            )
        return self._connection.changes() > 0

    def neighbors(self, node_id: str, direction: Direction, relationship_type: str | None) -> list[str]:
        return self._expand(direction, relationship_type)([node_id]).get(node_id, [])

    def edges(
        self, node_id: str | None, direction: Direction, relationship_type: str | None, limit: int
    ) -> list[GraphEdge]:
        typed = "" if relationship_type is None else " AND type = :type"
        ends = {"out": ["source = :node"], "in": ["target = :node"]}.get(
            direction, ["source = :node", "target = :node AND source <> :node"]
        )
        if node_id is None:
            ends = ["1"]
        parts = (f"SELECT {_EDGE} FROM graph_edges WHERE {end}{typed}" for end in ends)  # noqa: S608
        rows = self._connection.execute(
            " UNION ALL ".join(parts) + " ORDER BY source, target, type LIMIT :limit",
            {"node": node_id, "type": relationship_type, "limit": limit},
        )
        return [_edge(row) for row in rows]

    def _expand(self, direction: Direction, relationship_type: str | None) -> Expand:
        typed = "" if relationship_type is None else " AND type = ?2"
        out = f"SELECT source, target FROM graph_edges WHERE source IN (SELECT value FROM json_each(?1)){typed}"  # noqa: S608
        into = f"SELECT target, source FROM graph_edges WHERE target IN (SELECT value FROM json_each(?1)){typed}"  # noqa: S608
        sql = {"out": out, "in": into, "both": f"{out} UNION {into}"}[direction] + " ORDER BY 1, 2"

        def expand(nodes: Iterable[str]) -> dict[str, list[str]]:
            names = _json(list(nodes)).decode()
            bindings = (names,) if relationship_type is None else (names, relationship_type)
            found: dict[str, list[str]] = {}
            for node, neighbor in self._connection.execute(sql, bindings):
                known = found.setdefault(node, [])
                if not known or known[-1] != neighbor:
                    known.append(neighbor)
            return found

        return expand

    def path(
        self, source: str, target: str, max_depth: int, direction: Direction, relationship_type: str | None
    ) -> list[str] | None:
        if self.get_node(source) is None or self.get_node(target) is None:
            return None
        ahead = self._expand(direction, relationship_type)
        back = self._expand(OPPOSITE[direction], relationship_type)
        return shortest_path(source, target, max_depth, ahead, back)

    def closure(
        self, node_id: str, direction: Direction, relationship_type: str | None, max_depth: int
    ) -> dict[str, int]:
        return distances(node_id, max_depth, self._expand(direction, relationship_type))

    def subgraph(self, node_id: str, max_depth: int, direction: Direction) -> Subgraph:
        if self.get_node(node_id) is None:
            return Subgraph([], [])
        names = _json([node_id, *distances(node_id, max_depth, self._expand(direction, None))]).decode()
        nodes = self._connection.execute(
            "SELECT id, properties FROM graph_nodes WHERE id IN (SELECT value FROM json_each(?1)) ORDER BY id", (names,)
        )
        edges = self._connection.execute(
            f"SELECT {_EDGE} FROM graph_edges WHERE source IN (SELECT value FROM json_each(?1))"  # noqa: S608
            " AND target IN (SELECT value FROM json_each(?1)) ORDER BY source, target, type",
            (names,),
        )
        found = [GraphNode(row[0], msgspec.json.decode(row[1])) for row in nodes]
        return Subgraph(found, [_edge(row) for row in edges])


def _edge(row: Sequence[Any]) -> GraphEdge:
    return GraphEdge(row[0], row[1], row[2], msgspec.json.decode(row[3]))
