"""The graph on a server: an edge table in both orders, asked for many nodes at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TypeVar
from uuid import UUID

import msgspec

from polaris.storage._documents import ID_KEY
from polaris.storage._filter import EVERYTHING, Every, Filter, Path
from polaris.storage._graph_values import EdgeKey, GraphEdge, GraphNode
from polaris.storage._graph_view import GraphView
from polaris.storage._graph_walk import Walk, Weighed, drive_awaiting
from polaris.storage._turns import in_turns
from polaris.storage.backends.postgresql._driver import driver_errors
from polaris.storage.backends.postgresql._errors import RepeatError
from polaris.storage.backends.postgresql._filter_sql import EDGE, NODE, Where, extract
from polaris.storage.backends.postgresql._json import searchable
from polaris.storage.backends.postgresql._link import SNAPSHOT, Link, Row

T = TypeVar("T")

PROBED_LIMIT_MAX = 1_000
PROBED_FOR_ONE = 16
"""Nodes that are looked at in order for each that is wanted, before all are looked at."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

_NODE_ROW = "n.id, coalesce(n.exact, n.properties::text)"
_EDGE_ROW = "e.source, e.target, e.type, coalesce(e.exact, e.properties::text)"
_PUT_NODES = (
    "INSERT INTO graph_nodes (id, properties, exact) SELECT n.id, n.properties::json, n.exact"
    " FROM unnest($1::text[], $2::text[], $3::text[]) AS n (id, properties, exact) ORDER BY n.id"
    " ON CONFLICT (id) DO UPDATE SET properties = excluded.properties, exact = excluded.exact"
)
_PUT_EDGES = (
    "WITH ends AS (INSERT INTO graph_nodes (id, properties) SELECT n.id, '{}' FROM unnest($1::text[]) AS n (id)"
    " ORDER BY n.id ON CONFLICT (id) DO NOTHING)"
    " INSERT INTO graph_edges (source, target, type, type_key, properties, exact)"
    " SELECT n.source, n.target, n.type, n.type_key, n.properties::json, n.exact"
    " FROM unnest($2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::text[])"
    " AS n (source, target, type, type_key, properties, exact) ORDER BY n.source, n.type_key, n.target"
    " ON CONFLICT (source, type_key, target) DO UPDATE SET properties = excluded.properties, exact = excluded.exact"
)


def type_key(relationship_type: str) -> UUID:
    """What stands for a type in keys: two ids and a type may be longer than what an index takes."""
    return UUID(bytes=blake2b(relationship_type.encode(), digest_size=16).digest())


class PostgresGraph:
    """Nodes and edges as rows, properties as JSON."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def add_nodes(self, nodes: Sequence[GraphNode]) -> None:
        last = {node.node_id: node async for node in in_turns(nodes)}
        bodies = [searchable(_encode(node.properties).decode()) async for node in in_turns(last.values())]
        await self._link.run(_PUT_NODES, list(last), [body for body, _ in bodies], [exact for _, exact in bodies])

    async def get_node(self, node_id: str) -> GraphNode | None:
        found = await self.node_rows([node_id])
        return found[0] if found else None

    async def find_nodes(self, term: Filter, limit: int, after: str | None) -> list[GraphNode]:
        return await self._nodes(_NODE_ROW, term, after, limit)

    async def _nodes(self, columns: str, term: Filter, after: str | None, limit: int) -> list[GraphNode]:
        return [_node(row) async for row in in_turns(await self._page(columns, term, after, limit))]

    async def _page(self, columns: str, term: Filter, after: str | None, limit: int) -> list[Row]:
        where = Where(term, root=NODE)
        behind = "TRUE" if after is None else f"n.id > {where.bind(after, 'text')}"
        most = where.bind(limit, "bigint")
        matching = f"SELECT {columns} FROM graph_nodes n WHERE {where.sql} AND {behind}"  # noqa: S608
        sql = f"{matching} ORDER BY n.id LIMIT {most}"
        if term != EVERYTHING and not _names_ids(term) and 0 < limit <= PROBED_LIMIT_MAX:
            # The server cannot know how many nodes match, and would look at all of them for the first few. So it looks
            # at some in order first. If too few of these match, few do at all: then all that match are found, by an
            # index where there is one, and put in order. Whatever it does, it is one statement.
            probed = PROBED_FOR_ONE * limit
            sql = (
                f"WITH found AS MATERIALIZED (SELECT {columns} FROM (SELECT n.id, n.properties, n.exact"  # noqa: S608
                f" FROM graph_nodes n WHERE {behind} ORDER BY n.id LIMIT {probed}) AS n"
                f" WHERE {where.sql} ORDER BY n.id LIMIT {most}),"
                f" known AS MATERIALIZED (SELECT CASE WHEN (SELECT count(*) FROM found) = {most} THEN TRUE"
                f" ELSE (SELECT count(*) FROM (SELECT FROM graph_nodes n WHERE {behind} LIMIT {probed}) AS seen)"
                f" < {probed} END AS enough)"
                " SELECT * FROM found WHERE (SELECT enough FROM known) UNION ALL"
                f" SELECT * FROM (SELECT * FROM ({matching} OFFSET 0) AS every ORDER BY 1 LIMIT {most}) AS rest"
                " WHERE NOT (SELECT enough FROM known) ORDER BY 1"
            )
        return await self._link.rows(sql, *where.parameters)

    async def count_nodes(self, term: Filter) -> int:
        where = Where(term, root=NODE)
        return int(
            await self._link.value(f"SELECT count(*) FROM graph_nodes n WHERE {where.sql}", *where.parameters)  # noqa: S608
        )

    async def remove_node(self, node_id: str) -> bool:
        return await self._link.run("DELETE FROM graph_nodes WHERE id = $1", node_id) > 0

    async def add_edges(self, edges: Sequence[GraphEdge]) -> None:
        last = {(edge.source, edge.target, edge.relationship_type): edge async for edge in in_turns(edges)}
        bodies = [searchable(_encode(edge.properties).decode()) async for edge in in_turns(last.values())]
        try:
            await self._link.run(
                _PUT_EDGES,
                list({end for key in last for end in key[:2]}),
                *([key[place] for key in last] for place in range(3)),
                [type_key(key[2]) for key in last],
                [body for body, _ in bodies],
                [exact for _, exact in bodies],
            )
        except driver_errors.ForeignKeyViolationError as error:
            # Somebody removed one of the ends meanwhile; it is made anew.
            raise RepeatError from error

    async def get_edge(self, source: str, target: str, relationship_type: str) -> GraphEdge | None:
        row = await self._link.row(
            f"SELECT {_EDGE_ROW} FROM graph_edges e WHERE e.source = $1 AND e.type_key = $2 AND e.target = $3",  # noqa: S608
            source,
            type_key(relationship_type),
            target,
        )
        return None if row is None else _edge(row)

    async def remove_edge(self, source: str, target: str, relationship_type: str | None) -> bool:
        if relationship_type is None:
            sql = "DELETE FROM graph_edges WHERE source = $1 AND target = $2"
            return await self._link.run(sql, source, target) > 0
        sql = "DELETE FROM graph_edges WHERE source = $1 AND target = $2 AND type_key = $3"
        return await self._link.run(sql, source, target, type_key(relationship_type)) > 0

    async def edges(self, node_id: str | None, view: GraphView, limit: int, after: EdgeKey | None) -> list[GraphEdge]:
        where = self._at(node_id, view)
        condition = where.sql
        if after is not None:
            marks = ", ".join(where.bind(part, "text") for part in after)
            condition += f" AND (e.source, e.target, e.type) > ({marks})"
        rows = await self._link.rows(
            f"SELECT {_EDGE_ROW} FROM graph_edges e WHERE {condition}"  # noqa: S608 - parameters and checked paths
            f" ORDER BY e.source, e.target, e.type LIMIT {where.bind(limit, 'bigint')}",
            *where.parameters,
        )
        return [_edge(row) async for row in in_turns(rows)]

    async def count_edges(self, node_id: str | None, view: GraphView) -> int:
        where = self._at(node_id, view)
        return int(
            await self._link.value(f"SELECT count(*) FROM graph_edges e WHERE {where.sql}", *where.parameters)  # noqa: S608
        )

    def _at(self, node_id: str | None, view: GraphView) -> Where:
        """The condition for the edges of the view at a node, or at all."""
        where = _seen(view)
        if node_id is not None:
            mark = where.bind(node_id, "text")
            ends = {"out": ("source",), "in": ("target",), "both": ("source", "target")}[view.direction]
            where.sql += " AND (" + " OR ".join(f"e.{end} = {mark}" for end in ends) + ")"
        return where

    async def neighbors(self, node_id: str, view: GraphView, limit: int, after: str | None) -> list[str]:
        where = _seen(view)
        mark = where.bind(node_id, "text")
        found = " UNION ALL ".join(
            f"SELECT e.{there} AS id FROM graph_edges e WHERE {where.sql} AND e.{here} = {mark}"  # noqa: S608
            for here, there in _ways(view)
        )
        behind = "TRUE" if after is None else f"id > {where.bind(after, 'text')}"
        rows = await self._link.rows(
            f"SELECT DISTINCT id FROM ({found}) AS f WHERE {behind} ORDER BY id LIMIT {where.bind(limit, 'bigint')}",  # noqa: S608
            *where.parameters,
        )
        return [row[0] for row in rows]

    async def walk(self, make: Callable[[], Walk[T]]) -> T:
        async with self._link.atomic(SNAPSHOT):
            return await drive_awaiting(make(), self)

    # What walks ask.

    async def expand(self, nodes: Sequence[str], view: GraphView) -> list[tuple[str, str]]:
        return [(row[0], row[1]) for row in await self._around(nodes, view, "")]

    async def weigh(self, nodes: Sequence[str], view: GraphView, weight: Path) -> list[Weighed]:
        found = await self._around(nodes, view, f", e.type, {extract(weight, EDGE)}::text")
        return [(row[0], row[1], row[2], None if row[3] is None else _decode(row[3])) for row in found]

    async def _around(self, nodes: Sequence[str], view: GraphView, columns: str) -> list[Row]:
        """Each of the nodes with each neighbour."""
        where = _seen(view)
        mark = where.bind(list(nodes), "text[]")
        sql = " UNION ALL ".join(
            f"SELECT e.{here}, e.{there}{columns} FROM graph_edges e WHERE {where.sql} AND e.{here} = ANY({mark})"  # noqa: S608
            for here, there in _ways(view)
        )
        return await self._link.rows(sql, *where.parameters)

    async def present(self, nodes: Sequence[str], term: Filter) -> list[str]:
        where = Where(term, root=NODE)
        mark = where.bind(list(nodes), "text[]")
        rows = await self._link.rows(
            f"SELECT n.id FROM graph_nodes n WHERE {where.sql} AND n.id = ANY({mark})",  # noqa: S608
            *where.parameters,
        )
        return [row[0] for row in rows]

    async def node_page(self, term: Filter, after: str | None, count: int) -> list[str]:
        return [row[0] for row in await self._page("n.id", term, after, count)]

    async def node_rows(self, nodes: Sequence[str]) -> list[GraphNode]:
        rows = await self._link.rows(
            f"SELECT {_NODE_ROW} FROM graph_nodes n WHERE n.id = ANY($1::text[])",  # noqa: S608
            list(nodes),
        )
        return [_node(row) for row in rows]

    async def edge_rows(self, nodes: Sequence[str], view: GraphView) -> list[GraphEdge]:
        where = _seen(view)
        mark = where.bind(list(nodes), "text[]")
        rows = await self._link.rows(
            f"SELECT {_EDGE_ROW} FROM graph_edges e WHERE {where.sql} AND e.source = ANY({mark})",  # noqa: S608
            *where.parameters,
        )
        return [_edge(row) async for row in in_turns(rows)]

    def pause(self) -> None:
        """Nothing: whoever drives a walk lets others have their turn."""


def _names_ids(term: Filter) -> bool:
    """Whether the filter can be answered by the key of the nodes."""
    if isinstance(term, Every):
        return any(_names_ids(part) for part in term.terms)
    return getattr(term, "path", None) == (ID_KEY,)


def _seen(view: GraphView) -> Where:
    """The condition for the edges `e` of the view, wherever they are."""
    where = Where(view.edges, root=EDGE)
    if view.types is not None:
        where.sql += f" AND e.type_key = ANY({where.bind([type_key(one) for one in view.types], 'uuid[]')})"
    return where


def _ways(view: GraphView) -> list[tuple[str, str]]:
    """From which end to which other the view walks."""
    ways = {"out": [("source", "target")], "in": [("target", "source")]}
    return ways.get(view.direction) or [*ways["out"], *ways["in"]]


def _node(row: Row) -> GraphNode:
    return GraphNode(row[0], _decode(row[1]))


def _edge(row: Row) -> GraphEdge:
    return GraphEdge(row[0], row[1], row[2], _decode(row[3]))
