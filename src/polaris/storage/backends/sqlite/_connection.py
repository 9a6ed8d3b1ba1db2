"""Connections to the file, set up for durability and for being read while it is written."""

from __future__ import annotations

from pathlib import Path

import apsw

from polaris.storage.backends.sqlite._lock import check_single_name

WRITER_CACHE_KIB = 32_768
READER_CACHE_KIB = 8_192
STATEMENTS_CACHED = 256
BUSY_TIMEOUT_MS = 5_000
JOURNAL_BYTES_KEPT = 64 << 20


def open_writer(path: Path, *, size_bytes_max: int | None) -> apsw.Connection:
    """The one connection that writes: WAL, every commit synced, checkpoints left to the writer."""
    check_single_name(path)
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    connection = apsw.Connection(str(path), flags=flags, statementcachesize=STATEMENTS_CACHED)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full")
        connection.pragma("wal_autocheckpoint", 0)
        connection.pragma("journal_size_limit", JOURNAL_BYTES_KEPT)
        set_up(connection, cache_kib=WRITER_CACHE_KIB)
        if size_bytes_max is not None:
            page_bytes = int(connection.pragma("page_size"))
            connection.pragma("max_page_count", max(1, size_bytes_max // page_bytes))
    except BaseException:  # boundary: undone, then raised again
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> apsw.Connection:
    """A connection that cannot write, in this process or in another one than the writer's."""
    check_single_name(path)
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, statementcachesize=STATEMENTS_CACHED)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.pragma("query_only", True)
        set_up(connection, cache_kib=READER_CACHE_KIB)
    except BaseException:  # boundary: undone, then raised again
        connection.close()
        raise
    return connection


def set_up(connection: apsw.Connection, *, cache_kib: int) -> None:
    """What connections have in common, whatever they are for."""
    connection.pragma("cache_size", -cache_kib)
    connection.pragma("temp_store", "memory")
    connection.pragma("trusted_schema", False)
    # Statements are prepared once. Without this guarantee SQLite prepares one anew whenever other values are bound to
    # it, to ask statistics that a store does not keep: a join of three rows then takes ten times as long.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)


def log_path(path: Path) -> Path:
    """Where SQLite keeps the log of the file: beside the file itself, whatever links lead to it."""
    resolved = path.resolve()
    return resolved.with_name(resolved.name + "-wal")
