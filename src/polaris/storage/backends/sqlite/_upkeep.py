"""What a store is made of, in figures, and giving back the room that it does not use."""

from __future__ import annotations

from collections.abc import Callable

import apsw
import msgspec

from polaris.storage._ranges import from_micros
from polaris.storage.backends.shared._figures import DocumentFigures, SeriesFigures
from polaris.storage.backends.sqlite._sql import rows, scalar

FREE_SHARE_MIN = 0.2
"""From this share of free pages on, rewriting the file is worth it."""


class StoreFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a store at one moment. `bytes_free` is room within the file that later writes use first."""

    schema_version: int
    bytes_used: int
    bytes_free: int
    log_bytes: int = 0
    hot_rows: int
    time_series: list[SeriesFigures]
    documents: list[DocumentFigures]
    nodes: int
    edges: int
    outbox: int


class CompactProgress(msgspec.Struct, frozen=True):
    """How far a compaction is. `doing` is "moving rows", "rewriting the file" or "emptying the log"."""

    doing: str
    rows: int


class CompactReport(msgspec.Struct, frozen=True):
    """What a compaction did; sizes are those of the file and its log together."""

    bytes_before: int
    bytes_after: int
    rows_moved: int
    rewritten: bool


def figures(connection: apsw.Connection, *, count_points: bool) -> StoreFigures:
    """The figures of the store. Counting points reads all of them, everything else is quick."""
    page_bytes = int(connection.pragma("page_size"))
    free = int(connection.pragma("freelist_count"))
    pages = int(connection.pragma("page_count"))
    return StoreFigures(
        schema_version=int(connection.pragma("user_version")),
        bytes_used=(pages - free) * page_bytes,
        bytes_free=free * page_bytes,
        hot_rows=int(scalar(connection, "SELECT count(*) FROM ts_hot")),
        time_series=_time_series(connection, count_points=count_points),
        documents=[
            DocumentFigures(name, int(scalar(connection, f"SELECT count(*) FROM doc_{int(number)}")), indexes)  # noqa: S608
            for number, name, indexes in rows(
                connection,
                "SELECT id, name, (SELECT count(*) FROM doc_indexes i WHERE i.collection = c.id)"
                " FROM doc_collections c ORDER BY name",
            )
        ],
        nodes=int(scalar(connection, "SELECT count(*) FROM graph_nodes")),
        edges=int(scalar(connection, "SELECT count(*) FROM graph_edges")),
        outbox=int(scalar(connection, "SELECT count(*) FROM outbox")),
    )


def _time_series(connection: apsw.Connection, *, count_points: bool) -> list[SeriesFigures]:
    points: dict[str, int] = {}
    if count_points:
        counted = " UNION ALL ".join(
            f"SELECT series, count(*) AS points FROM {table} WHERE part = 0 GROUP BY series"  # noqa: S608
            for table in ("ts_hot", "ts_cold")
        )
        points = dict(
            rows(
                connection,
                f"SELECT s.collection, sum(p.points) FROM ({counted}) p JOIN ts_series s ON s.id = p.series"  # noqa: S608
                " GROUP BY s.collection",
            )
        )
    found = rows(
        connection,
        "SELECT s.collection, count(*), max(l.ts) FROM ts_series s LEFT JOIN ts_latest l ON l.series = s.id"
        " GROUP BY s.collection ORDER BY s.collection",
    )
    return [
        SeriesFigures(
            name, count, None if ts is None else from_micros(ts), points.get(name, 0) if count_points else None
        )
        for name, count, ts in found
    ]


def is_loose(connection: apsw.Connection) -> bool:
    """Whether so much of the file is free that rewriting it is worth it."""
    return int(connection.pragma("freelist_count")) > FREE_SHARE_MIN * int(connection.pragma("page_count"))


def rewrite(connection: apsw.Connection, is_stopped: Callable[[], bool]) -> None:
    """Write the whole file anew without its free pages, atomically, outside of a transaction.

    Needs about twice its size for a while: in the folder for temporary files, and in the log. Stopped, it raises
    `apsw.InterruptError`, and the file is as before.
    """
    connection.set_progress_handler(is_stopped, 10_000)
    # The copy that SQLite makes goes to a file, not to memory.
    connection.pragma("temp_store", 1)
    try:
        connection.execute("VACUUM")
    finally:
        connection.pragma("temp_store", 2)
        connection.set_progress_handler(None)


def empty_log(connection: apsw.Connection) -> None:
    """Move what is in the log to the file and cut the log, as far as readers allow. Outside of a transaction."""
    try:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.BusyError:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
