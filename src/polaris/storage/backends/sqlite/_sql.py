"""Running one statement and getting its rows, typed loosely: SQLite's values have no static types."""

from __future__ import annotations

from typing import Any

import apsw

from polaris.exceptions import StoreCorruptError

Row = tuple[Any, ...]


def rows(connection: apsw.Connection, sql: str, bindings: Any = ()) -> list[Row]:
    """All rows of the statement."""
    return connection.execute(sql, bindings).fetchall()


def row(connection: apsw.Connection, sql: str, bindings: Any = ()) -> Row | None:
    """The first row, or None."""
    return connection.execute(sql, bindings).fetchone()


def scalar(connection: apsw.Connection, sql: str, bindings: Any = ()) -> Any:
    """The first value of a statement that always has one, such as a count."""
    found = connection.execute(sql, bindings).fetchone()
    if found is None:  # not by the nature of the statement
        raise StoreCorruptError("the store's file is damaged (a row that is always there is missing)")
    return found[0]
