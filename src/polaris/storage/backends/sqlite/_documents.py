"""Documents in SQLite: JSON text, a table for each collection, expression indexes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import apsw

from polaris.exceptions import ConflictError, InvalidValueError
from polaris.storage._document_changes import Changes, carried_out
from polaris.storage._documents import Document, DocumentIndex
from polaris.storage._filter import Filter, Path
from polaris.storage._limits import COLLECTIONS_MAX
from polaris.storage._projection import Wanted, projected
from polaris.storage._rows import check_reach, check_version, document_of, reach
from polaris.storage._sorting import Page, SortBy, stretches
from polaris.storage.backends.sqlite._document_indexes import DocumentIndexes
from polaris.storage.backends.sqlite._expiries import Expiries, Home
from polaris.storage.backends.sqlite._filter_sql import Where, order_by, within
from polaris.storage.backends.sqlite._memory import Memory
from polaris.storage.backends.sqlite._sql import row, rows, scalar

NO_LIMIT = -1
READ_AT_ONCE = 200
"""Documents of a write by query that are in memory at a time."""


class SqliteDocuments:
    """Collections as tables `doc_<number>`; the name of a collection is only ever a value.

    A limit, an integer, is a part of its statement: knowing it, SQLite takes an index of the collection rather than the
    order of the ids.
    """

    def __init__(self, connection: apsw.Connection, memory: Memory) -> None:
        self._connection = connection
        self._memory = memory
        self._expiries = Expiries(connection, memory)
        self._indexes = DocumentIndexes(connection)

    def insert_many(
        self, collection: str, documents: Sequence[tuple[str, str]], *, now_us: int, expires_us: int | None
    ) -> None:
        home = self._home(collection)

        def insert() -> None:
            self._connection.executemany(
                f"INSERT INTO {home.table} (id, version, body) VALUES (?, 1, ?)",  # noqa: S608
                documents,
            )

        self._write(home, collection, insert, [document_id for document_id, _ in documents], now_us)
        if expires_us is not None:
            self._expiries.set(home, (document_id for document_id, _ in documents), expires_us)

    def put_many(
        self,
        collection: str,
        documents: Sequence[tuple[str, str]],
        *,
        expected_version: int | None,
        now_us: int,
        expires_us: int | None,
    ) -> None:
        home = self._home(collection)
        if expected_version is not None:
            for document_id, _ in documents:
                found = self._row(home, document_id, now_us)
                check_version(document_id, 0 if found is None else found[0], expected_version)

        def put() -> None:
            self._connection.executemany(
                f"INSERT INTO {home.table} (id, version, body) VALUES (?, 1, ?)"  # noqa: S608
                " ON CONFLICT (id) DO UPDATE SET version = version + 1, body = excluded.body",
                documents,
            )

        ids = [document_id for document_id, _ in documents]
        self._write(home, collection, put, ids, now_us)
        self._expiries.set(home, ids, expires_us)

    def get(self, collection: str, document_id: str, *, fields: Wanted | None, now_us: int) -> Document | None:
        home = self._known(collection)
        found = None if home is None else self._row(home, document_id, now_us)
        return None if found is None else projected(document_of(document_id, found[0], found[1]), fields)

    def find(
        self,
        collection: str,
        term: Filter,
        *,
        limit: int,
        order: tuple[SortBy, ...],
        page: Page | None,
        fields: Wanted | None,
        now_us: int,
    ) -> list[Document]:
        home = self._known(collection)
        found: list[Document] = []
        if home is None:
            return found
        where = Where(term)
        visible, bound = self._expiries.visible(home, now_us)
        for stretch in stretches(order, page):
            condition, values = within(stretch)
            read = rows(
                self._connection,
                f"SELECT id, version, body FROM {home.table} WHERE {where.sql} AND {condition}{visible}"  # noqa: S608
                f" ORDER BY {order_by(stretch.order)} LIMIT {limit - len(found):d}",
                [*where.parameters, *values, *bound],
            )
            found += [projected(document_of(*one), fields) for one in read]
            if len(found) == limit:
                break
        return found

    def count(self, collection: str, term: Filter, *, now_us: int) -> int:
        home = self._known(collection)
        if home is None:
            return 0
        where = Where(term)
        visible, bound = self._expiries.visible(home, now_us)
        count: int = scalar(
            self._connection,
            f"SELECT count(*) FROM {home.table} WHERE {where.sql}{visible}",  # noqa: S608
            [*where.parameters, *bound],
        )
        return count

    def update(
        self,
        collection: str,
        document_id: str,
        changes: Changes,
        *,
        expected_version: int | None,
        now_us: int,
        expires_us: int | None,
    ) -> bool:
        home = self._known(collection)
        found = None if home is None else self._row(home, document_id, now_us)
        if home is None or found is None:
            return False
        check_version(document_id, found[0], expected_version)
        self._change(home, collection, [(document_id, found[1])], changes, now_us, expires_us)
        return True

    def update_where(
        self,
        collection: str,
        term: Filter,
        changes: Changes,
        *,
        limit: int | None,
        now_us: int,
        expires_us: int | None,
    ) -> int:
        home = self._known(collection)
        if home is None:
            return 0
        chosen = self._chosen(home, term, limit, now_us)
        for place in range(0, len(chosen), READ_AT_ONCE):
            document_ids = chosen[place : place + READ_AT_ONCE]
            marks = ", ".join("?" * len(document_ids))
            found = rows(
                self._connection,
                f"SELECT id, body FROM {home.table} WHERE id IN ({marks}) ORDER BY id",  # noqa: S608
                document_ids,
            )
            self._change(home, collection, found, changes, now_us, expires_us)
        return len(chosen)

    def delete(self, collection: str, document_id: str, *, expected_version: int | None, now_us: int) -> bool:
        home = self._known(collection)
        found = None if home is None else self._row(home, document_id, now_us)
        if home is None or found is None:
            return False
        check_version(document_id, found[0], expected_version)
        self._remove(home, [document_id])
        return True

    def delete_where(self, collection: str, term: Filter, *, limit: int | None, now_us: int) -> int:
        home = self._known(collection)
        if home is None:
            return 0
        chosen = self._chosen(home, term, limit, now_us)
        self._remove(home, chosen)
        return len(chosen)

    def purge(self, collection: str | None, *, limit: int, now_us: int) -> int:
        if collection is None:
            homes = [Home.of(one[0]) for one in rows(self._connection, "SELECT id FROM doc_collections")]
        else:
            home = self._known(collection)
            homes = [] if home is None else [home]
        removed = 0
        for home in homes:
            removed += self._expiries.remove_due(home, now_us, limit - removed)
            if removed == limit:
                break
        return removed

    def create_index(self, collection: str, paths: tuple[Path, ...], *, unique: bool) -> None:
        self._indexes.create(self._home(collection), collection, paths, unique=unique)

    def drop_index(self, collection: str, paths: tuple[Path, ...]) -> bool:
        home = self._known(collection)
        return home is not None and self._indexes.drop(home, paths)

    def list_indexes(self, collection: str) -> list[DocumentIndex]:
        home = self._known(collection)
        return [] if home is None else self._indexes.known(home)

    def _row(self, home: Home, document_id: str, now_us: int) -> tuple[int, str] | None:
        found: tuple[int, str] | None = row(
            self._connection,
            f"SELECT version, body FROM {home.table} WHERE id = ? AND NOT EXISTS"  # noqa: S608
            " (SELECT 1 FROM doc_expiries AS x WHERE x.collection = ? AND x.id = ? AND x.expires_us <= ?)",
            (document_id, home.number, document_id, now_us),
        )
        return found

    def _chosen(self, home: Home, term: Filter, limit: int | None, now_us: int) -> list[str]:
        """The ids of the documents that a write by query is about, in order."""
        where = Where(term)
        visible, bound = self._expiries.visible(home, now_us)
        found = rows(
            self._connection,
            f"SELECT id FROM {home.table} WHERE {where.sql}{visible} ORDER BY id LIMIT {reach(limit):d}",  # noqa: S608
            [*where.parameters, *bound],
        )
        check_reach(len(found))
        return [one[0] for one in found]

    def _change(
        self,
        home: Home,
        collection: str,
        found: Sequence[tuple[str, str]],
        changes: Changes,
        now_us: int,
        expires_us: int | None,
    ) -> None:
        changed = [(carried_out(changes, body), document_id) for document_id, body in found]

        def update() -> None:
            self._connection.executemany(
                f"UPDATE {home.table} SET version = version + 1, body = ? WHERE id = ?",  # noqa: S608
                changed,
            )

        self._write(home, collection, update, [], now_us)
        if expires_us is not None:
            self._expiries.set(home, (document_id for document_id, _ in found), expires_us)

    def _remove(self, home: Home, document_ids: Sequence[str]) -> None:
        self._connection.executemany(
            f"DELETE FROM {home.table} WHERE id = ?",  # noqa: S608
            ((document_id,) for document_id in document_ids),
        )
        self._expiries.clear(home, document_ids)

    def _write(
        self, home: Home, collection: str, write: Callable[[], None], document_ids: Sequence[str], now_us: int
    ) -> None:
        """Write to these documents. What has expired is out of the way: of the same ids, and of the same unique values.

        The latter are looked for only when they are met, because nothing names them.
        """
        first_us = self._expiries.first_us_for_writing(home)
        try:
            if first_us is None or first_us > now_us:
                write()
                return
            self._expiries.remove_these(home, document_ids, now_us)
            self._connection.execute("SAVEPOINT expired")
            try:
                write()
            except apsw.ConstraintError:
                self._connection.execute("ROLLBACK TO expired")
                self._expiries.remove_due(home, now_us, NO_LIMIT)
                write()
            self._connection.execute("RELEASE expired")
        except apsw.ConstraintError as error:
            raise ConflictError(f"a document with this id or unique value exists already in {collection}") from error

    def _known(self, collection: str) -> Home | None:
        """The home of the collection; None while it has none."""
        home: Home | None = self._memory.get(("doc", collection))
        if home is None:
            found = row(self._connection, "SELECT id FROM doc_collections WHERE name = ?", (collection,))
            if found is None:
                return None
            home = Home.of(found[0])
            self._memory.learn(("doc", collection), home)
        return home

    def _home(self, collection: str) -> Home:
        """The home of the collection, made if need be."""
        home = self._known(collection)
        if home is not None:
            return home
        count = scalar(self._connection, "SELECT count(*) FROM doc_collections")
        if count >= COLLECTIONS_MAX:
            raise InvalidValueError("collection", f"at most {COLLECTIONS_MAX} document collections", collection)
        self._connection.execute("INSERT INTO doc_collections (name) VALUES (?)", (collection,))
        home = Home.of(self._connection.last_insert_rowid())
        self._connection.execute(
            f"CREATE TABLE {home.table} (id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, body TEXT NOT NULL) STRICT"
        )
        self._memory.learn(("doc", collection), home)
        return home
