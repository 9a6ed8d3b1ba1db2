"""Documents in SQLite: JSON text, a table for each collection, expression indexes."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import apsw
import msgspec

from polaris.exceptions import ConflictError, InvalidValueError, QueryError
from polaris.storage._documents import Document
from polaris.storage._filter import Filter, Path
from polaris.storage._limits import COLLECTIONS_MAX, INDEXES_MAX
from polaris.storage._rows import check_version, document_of, encoded
from polaris.storage._sorting import Page, SortBy
from polaris.storage.backends.sqlite._filter_sql import Where, behind, extract, order_by
from polaris.storage.backends.sqlite._memory import Memory
from polaris.storage.backends.sqlite._sql import rows, scalar


class SqliteDocuments:
    """Collections as tables `doc_<number>`; the name of a collection is only ever a value."""

    def __init__(self, connection: apsw.Connection, memory: Memory) -> None:
        self._connection = connection
        self._memory = memory

    def insert_many(self, collection: str, documents: Sequence[tuple[str, Document]]) -> None:
        table = self._home(collection)
        try:
            self._connection.executemany(
                f"INSERT INTO {table} (id, version, body) VALUES (?, 1, ?)",  # noqa: S608
                [(document_id, encoded(document)) for document_id, document in documents],
            )
        except apsw.ConstraintError as error:
            raise ConflictError(f"a document with this id or unique value exists already in {collection}") from error

    def put(self, collection: str, document_id: str, document: Document, expected_version: int | None) -> None:
        table = self._home(collection)
        body = encoded(document)
        if expected_version is not None:
            row = self._row(table, document_id)
            check_version(document_id, 0 if row is None else row[0], expected_version)
        try:
            self._connection.execute(
                f"INSERT INTO {table} (id, version, body) VALUES (?, 1, ?)"  # noqa: S608
                " ON CONFLICT (id) DO UPDATE SET version = version + 1, body = excluded.body",
                (document_id, body),
            )
        except apsw.ConstraintError as error:
            raise ConflictError(f"a document with this unique value exists already in {collection}") from error

    def update(self, collection: str, document_id: str, updates: Document, expected_version: int | None) -> bool:
        table = self._table(collection)
        row = None if table is None else self._row(table, document_id)
        if row is None:
            return False
        check_version(document_id, row[0], expected_version)
        body = encoded({**msgspec.json.decode(row[1]), **updates})
        try:
            self._connection.execute(
                f"UPDATE {table} SET version = version + 1, body = ? WHERE id = ?",  # noqa: S608
                (body, document_id),
            )
        except apsw.ConstraintError as error:
            raise ConflictError(f"a document with this unique value exists already in {collection}") from error
        return True

    def delete(self, collection: str, document_id: str) -> bool:
        table = self._table(collection)
        if table is None:
            return False
        self._connection.execute(f"DELETE FROM {table} WHERE id = ?", (document_id,))  # noqa: S608
        return self._connection.changes() > 0

    def get(self, collection: str, document_id: str) -> Document | None:
        table = self._table(collection)
        row = None if table is None else self._row(table, document_id)
        return None if row is None else document_of(document_id, row[0], row[1])

    def find(
        self, collection: str, term: Filter, *, limit: int, order: tuple[SortBy, ...], page: Page | None
    ) -> list[Document]:
        table = self._table(collection)
        if table is None:
            return []
        where = Where(term)
        condition, parameters = where.sql, where.parameters
        if page is not None:
            later, bound = behind(order, page)
            condition, parameters = f"{condition} AND {later}", [*parameters, *bound]
        found = rows(
            self._connection,
            f"SELECT id, version, body FROM {table} WHERE {condition}"  # noqa: S608 - made of parameters and checked paths
            f" ORDER BY {order_by(order)} LIMIT ?",
            [*parameters, limit],
        )
        return [document_of(*one) for one in found]

    def count(self, collection: str, term: Filter) -> int:
        table = self._table(collection)
        if table is None:
            return 0
        where = Where(term)
        count: int = scalar(
            self._connection,
            f"SELECT count(*) FROM {table} WHERE {where.sql}",  # noqa: S608 - made of parameters and checked paths
            where.parameters,
        )
        return count

    def create_index(self, collection: str, paths: tuple[Path, ...], *, unique: bool) -> None:
        table = self._home(collection)
        key = msgspec.json.encode(paths).decode()
        number = int(table.removeprefix("doc_"))
        known = self._connection.execute(
            "SELECT is_unique, name FROM doc_indexes WHERE collection = ? AND paths = ?", (number, key)
        ).fetchone()
        if known is not None and (known[0] or not unique):
            return
        if known is not None:
            self._connection.execute(f"DROP INDEX {known[1]}")
        count = scalar(self._connection, "SELECT count(*) FROM doc_indexes WHERE collection = ?", (number,))
        if count >= INDEXES_MAX and known is None:
            raise QueryError(f"a collection has at most {INDEXES_MAX} indexes")
        name = f"{table}_{blake2b(key.encode(), digest_size=12).hexdigest()}"
        columns = ", ".join(extract(path) for path in paths)
        try:
            self._connection.execute(f"CREATE {'UNIQUE ' if unique else ''}INDEX {name} ON {table} ({columns})")
        except apsw.ConstraintError as error:
            raise ConflictError(f"documents of {collection} break the unique index that was asked for") from error
        self._connection.execute(
            "INSERT OR REPLACE INTO doc_indexes VALUES (?, ?, ?, ?)", (number, key, int(unique), name)
        )

    def _row(self, table: str, document_id: str) -> tuple[int, str] | None:
        found: tuple[int, str] | None = self._connection.execute(
            f"SELECT version, body FROM {table} WHERE id = ?",  # noqa: S608
            (document_id,),
        ).fetchone()
        return found

    def _table(self, collection: str) -> str | None:
        """The table of the collection; None while it has none."""
        table: str | None = self._memory.get(("doc", collection))
        if table is None:
            row = self._connection.execute("SELECT id FROM doc_collections WHERE name = ?", (collection,)).fetchone()
            if row is None:
                return None
            table = f"doc_{row[0]}"
            self._memory.learn(("doc", collection), table)
        return table

    def _home(self, collection: str) -> str:
        """The table of the collection, made if need be."""
        table = self._table(collection)
        if table is not None:
            return table
        count = scalar(self._connection, "SELECT count(*) FROM doc_collections")
        if count >= COLLECTIONS_MAX:
            raise InvalidValueError("collection", f"at most {COLLECTIONS_MAX} document collections", collection)
        self._connection.execute("INSERT INTO doc_collections (name) VALUES (?)", (collection,))
        table = f"doc_{self._connection.last_insert_rowid()}"
        self._connection.execute(
            f"CREATE TABLE {table} (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, body TEXT NOT NULL) STRICT"
        )
        self._memory.learn(("doc", collection), table)
        return table
