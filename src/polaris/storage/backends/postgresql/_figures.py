"""What a store on a server is made of, in figures."""

# ruff: noqa: S608 - numbers of own tables

from __future__ import annotations

import msgspec

from polaris.storage._ranges import from_micros
from polaris.storage.backends.postgresql._verify_reader import SnapshotReader
from polaris.storage.backends.shared._figures import DocumentFigures, SeriesFigures

_SIZE = (
    "SELECT current_setting('server_version'), (SELECT max(number) FROM polaris_migrations),"
    " (SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c"
    " WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'),"
    " (SELECT count(*) FROM graph_nodes), (SELECT count(*) FROM graph_edges), (SELECT count(*) FROM outbox)"
)
_SERIES = (
    "SELECT c.id, c.name, count(*), max(l.ts) FROM ts_collections c JOIN ts_series s ON s.collection = c.id"
    " LEFT JOIN ts_latest l ON l.series = s.id GROUP BY c.id, c.name ORDER BY c.name"
)
_DOCUMENTS = (
    "SELECT c.id, c.name, (SELECT count(*) FROM doc_indexes i WHERE i.collection = c.id)"
    " FROM doc_collections c ORDER BY c.name"
)


class ServerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a store on a server at one moment. `bytes_used`: its tables with their indexes."""

    server_version: str
    schema_version: int
    bytes_used: int
    time_series: list[SeriesFigures]
    documents: list[DocumentFigures]
    nodes: int
    edges: int
    outbox: int


async def figures(reader: SnapshotReader, *, count_points: bool) -> ServerFigures:
    """The figures of the store. Counting points reads all of them."""
    server, schema, used, nodes, edges, outbox = (await reader.rows(_SIZE))[0]
    series = [
        SeriesFigures(
            name,
            count,
            None if ts is None else from_micros(ts),
            await _counted(reader, f"ts_{number}") if count_points else None,
        )
        for number, name, count, ts in await reader.rows(_SERIES)
    ]
    documents = [
        DocumentFigures(name, await _counted(reader, f"doc_{number}"), indexes)
        for number, name, indexes in await reader.rows(_DOCUMENTS)
    ]
    return ServerFigures(
        server_version=server,
        schema_version=schema,
        bytes_used=used,
        time_series=series,
        documents=documents,
        nodes=nodes,
        edges=edges,
        outbox=outbox,
    )


async def _counted(reader: SnapshotReader, table: str) -> int:
    return int((await reader.rows(f"SELECT count(*) FROM {table}"))[0][0])
