"""The plans by which SQLite runs statements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from polaris.storage.backends.sqlite._session import SqliteSession


@contextmanager
def plans(session: SqliteSession) -> Iterator[list[str]]:
    """The plan of every statement that runs meanwhile."""
    statements: list[tuple[str, Any]] = []

    def trace(_: object, sql: str, bindings: Any) -> bool:
        statements.append((sql, bindings))
        return True

    found: list[str] = []
    session.connection.exec_trace = trace
    try:
        yield found
    finally:
        session.connection.exec_trace = None
        for sql, bindings in statements:
            rows = session.connection.execute("EXPLAIN QUERY PLAN " + sql, bindings).fetchall()
            found.extend(str(row[3]) for row in rows)
