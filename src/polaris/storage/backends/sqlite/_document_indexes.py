"""The expression indexes of collections."""

from __future__ import annotations

from hashlib import blake2b

import apsw
import msgspec

from polaris.exceptions import ConflictError, QueryError
from polaris.storage._documents import DocumentIndex
from polaris.storage._filter import Path
from polaris.storage._limits import INDEXES_MAX
from polaris.storage.backends.sqlite._expiries import Home
from polaris.storage.backends.sqlite._filter_sql import extract, kind
from polaris.storage.backends.sqlite._sql import row, rows, scalar

FORM = 2
"""Counts the forms that indexes had: one of an earlier form serves queries less well, and is made anew when created."""


class DocumentIndexes:
    """An index holds the values of its paths, then the id, so that ties come in order, then the kinds of the values.

    With the kinds it tells 1 from true and null from missing without a look at the documents. A unique index holds the
    values alone: there is one document for each.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def create(self, home: Home, collection: str, paths: tuple[Path, ...], *, unique: bool) -> None:
        key = msgspec.json.encode(paths).decode()
        known = row(
            self._connection,
            "SELECT is_unique, name FROM doc_indexes WHERE collection = ? AND paths = ?",
            (home.number, key),
        )
        unique = unique or (known is not None and bool(known[0]))
        name = _name(home, key, unique=unique)
        if known is not None and (bool(known[0]), known[1]) == (unique, name):
            return
        if known is not None:
            self._connection.execute(f"DROP INDEX {known[1]}")
        elif self._count(home) >= INDEXES_MAX:
            raise QueryError(f"a collection has at most {INDEXES_MAX} indexes")
        columns = [extract(path) for path in paths]
        if not unique:
            columns += ["id", *map(kind, paths)]
        try:
            self._connection.execute(
                f"CREATE {'UNIQUE ' if unique else ''}INDEX {name} ON {home.table} ({', '.join(columns)})"
            )
        except apsw.ConstraintError as error:
            raise ConflictError(f"documents of {collection} break the unique index that was asked for") from error
        self._connection.execute(
            "INSERT OR REPLACE INTO doc_indexes VALUES (?, ?, ?, ?)", (home.number, key, int(unique), name)
        )

    def drop(self, home: Home, paths: tuple[Path, ...]) -> bool:
        key = (home.number, msgspec.json.encode(paths).decode())
        known = row(self._connection, "SELECT name FROM doc_indexes WHERE collection = ? AND paths = ?", key)
        if known is None:
            return False
        self._connection.execute(f"DROP INDEX {known[0]}")
        self._connection.execute("DELETE FROM doc_indexes WHERE collection = ? AND paths = ?", key)
        return True

    def known(self, home: Home) -> list[DocumentIndex]:
        found = rows(self._connection, "SELECT paths, is_unique FROM doc_indexes WHERE collection = ?", (home.number,))
        return sorted(
            DocumentIndex(tuple(".".join(path) for path in msgspec.json.decode(paths)), bool(unique))
            for paths, unique in found
        )

    def _count(self, home: Home) -> int:
        count: int = scalar(self._connection, "SELECT count(*) FROM doc_indexes WHERE collection = ?", (home.number,))
        return count


def _name(home: Home, key: str, *, unique: bool) -> str:
    form = key if unique else f"{key} {FORM}"
    return f"{home.table}_{blake2b(form.encode(), digest_size=12).hexdigest()}"
