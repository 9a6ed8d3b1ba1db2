"""Documents of the engine in memory: plain dictionaries, filtered by the reference evaluator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cmp_to_key
from typing import NamedTuple

import msgspec

from polaris.exceptions import ConflictError, InvalidValueError, QueryError
from polaris.storage._document_changes import Changes, carried_out
from polaris.storage._documents import Document, DocumentIndex
from polaris.storage._filter import Filter, Path
from polaris.storage._filter_match import SortKey, lookup, matches, sort_key
from polaris.storage._limits import COLLECTIONS_MAX, INDEXES_MAX
from polaris.storage._projection import Wanted, projected
from polaris.storage._rows import check_reach, check_version, document_of, reach
from polaris.storage._sorting import Page, SortBy
from polaris.storage.backends.memory._journal import Journal


class Row(NamedTuple):
    """A document as it is kept: encoded, so that nothing a caller does to it can reach the store."""

    version: int
    body: str
    expires_us: int | None

    def is_there(self, now_us: int) -> bool:
        return self.expires_us is None or self.expires_us > now_us


IndexKey = tuple[SortKey, ...]
Found = tuple[tuple[SortKey, ...], str, Document]
"""The sort keys of a document that matches, its id, and itself."""


class _Collection:
    """The documents of one collection, its indexes, and who holds the values of the unique ones."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.indexes: dict[tuple[Path, ...], bool] = {}
        self.holders: dict[tuple[Path, ...], dict[IndexKey, str]] = {}


_NOTHING = _Collection()
"""Stands for a collection that nobody has written to yet."""


class MemoryDocuments:
    """Collections of documents by id."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._collections: dict[str, _Collection] = {}

    @property
    def documents_count(self) -> int:
        return sum(len(collection.rows) for collection in self._collections.values())

    def insert_many(
        self, collection: str, documents: Sequence[tuple[str, str]], *, now_us: int, expires_us: int | None
    ) -> None:
        home = self._home(collection)
        for document_id, body in documents:
            former = home.rows.get(document_id)
            if former is not None and former.is_there(now_us):
                raise ConflictError(f"document {document_id!r} exists already in {collection}")
            self._write(home, document_id, Row(1, body, expires_us), now_us)

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
        for document_id, body in documents:
            former = home.rows.get(document_id)
            version = former.version if former is not None and former.is_there(now_us) else 0
            check_version(document_id, version, expected_version)
            self._write(home, document_id, Row(version + 1, body, expires_us), now_us)

    def get(self, collection: str, document_id: str, *, fields: Wanted | None, now_us: int) -> Document | None:
        row = self._row(collection, document_id, now_us)
        return None if row is None else projected(document_of(document_id, row.version, row.body), fields)

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
        found: list[Found] = [
            (tuple(sort_key(lookup(document, key.path)) for key in order), document["_id"], document)
            for document in self._matching(collection, term, now_us)
        ]

        def compare(a: Found, b: Found) -> int:
            return _compare(a[0], a[1], b[0], b[1], order)

        found.sort(key=cmp_to_key(compare))
        if page is not None:
            found = [entry for entry in found if _compare(entry[0], entry[1], page.keys, page.document_id, order) > 0]
        return [projected(document, fields) for _, _, document in found[:limit]]

    def count(self, collection: str, term: Filter, *, now_us: int) -> int:
        return sum(1 for _ in self._matching(collection, term, now_us))

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
        row = self._row(collection, document_id, now_us)
        if row is None:
            return False
        check_version(document_id, row.version, expected_version)
        self._change(self._home(collection), document_id, row, changes, now_us, expires_us)
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
        chosen = self._chosen(collection, term, limit, now_us)
        for document_id in chosen:
            home = self._home(collection)
            self._change(home, document_id, home.rows[document_id], changes, now_us, expires_us)
        return len(chosen)

    def delete(self, collection: str, document_id: str, *, expected_version: int | None, now_us: int) -> bool:
        row = self._row(collection, document_id, now_us)
        if row is None:
            return False
        check_version(document_id, row.version, expected_version)
        self._remove(self._home(collection), document_id)
        return True

    def delete_where(self, collection: str, term: Filter, *, limit: int | None, now_us: int) -> int:
        chosen = self._chosen(collection, term, limit, now_us)
        for document_id in chosen:
            self._remove(self._home(collection), document_id)
        return len(chosen)

    def purge(self, collection: str | None, *, limit: int, now_us: int) -> int:
        names = list(self._collections) if collection is None else [collection]
        homes = [self._collections[name] for name in names if name in self._collections]
        due = [(home, one) for home in homes for one, row in home.rows.items() if not row.is_there(now_us)][:limit]
        for home, document_id in due:
            self._remove(home, document_id)
        return len(due)

    def create_index(self, collection: str, paths: tuple[Path, ...], *, unique: bool) -> None:
        home = self._home(collection)
        former = home.indexes.get(paths)
        if former is not None and (former or not unique):
            return
        if len(home.indexes) >= INDEXES_MAX and former is None:
            raise QueryError(f"a collection has at most {INDEXES_MAX} indexes")
        self._keep_index(home, paths)
        home.indexes[paths] = unique
        if unique:
            home.holders[paths] = {}
            for document_id, row in home.rows.items():
                self._hold(home, paths, document_id, row.body)

    def drop_index(self, collection: str, paths: tuple[Path, ...]) -> bool:
        home = self._collections.get(collection, _NOTHING)
        if paths not in home.indexes:
            return False
        self._keep_index(home, paths)
        del home.indexes[paths]
        home.holders.pop(paths, None)
        return True

    def list_indexes(self, collection: str) -> list[DocumentIndex]:
        indexes = self._collections.get(collection, _NOTHING).indexes
        return sorted(
            DocumentIndex(tuple(".".join(path) for path in paths), unique) for paths, unique in indexes.items()
        )

    def _home(self, collection: str) -> _Collection:
        home = self._collections.get(collection)
        if home is None:
            if len(self._collections) >= COLLECTIONS_MAX:
                raise InvalidValueError("collection", f"at most {COLLECTIONS_MAX} document collections", collection)
            home = self._collections[collection] = _Collection()
            self._journal.note(lambda: self._collections.pop(collection))
        return home

    def _row(self, collection: str, document_id: str, now_us: int) -> Row | None:
        row = self._collections.get(collection, _NOTHING).rows.get(document_id)
        return row if row is not None and row.is_there(now_us) else None

    def _matching(self, collection: str, term: Filter, now_us: int) -> Iterator[Document]:
        for document_id, row in self._collections.get(collection, _NOTHING).rows.items():
            if row.is_there(now_us):
                document = document_of(document_id, row.version, row.body)
                if matches(term, document):
                    yield document

    def _chosen(self, collection: str, term: Filter, limit: int | None, now_us: int) -> list[str]:
        """The ids of the documents that a write by query is about, in order."""
        found = sorted(document["_id"] for document in self._matching(collection, term, now_us))[: reach(limit)]
        check_reach(len(found))
        return found

    def _change(
        self, home: _Collection, document_id: str, row: Row, changes: Changes, now_us: int, expires_us: int | None
    ) -> None:
        expires_us = row.expires_us if expires_us is None else expires_us
        self._write(home, document_id, Row(row.version + 1, carried_out(changes, row.body), expires_us), now_us)

    def _write(self, home: _Collection, document_id: str, row: Row, now_us: int) -> None:
        self._remove(home, document_id)
        for paths in home.holders:
            holder = home.holders[paths].get(_index_key(row.body, paths) or ())
            if holder is not None and not home.rows[holder].is_there(now_us):
                self._remove(home, holder)
            self._hold(home, paths, document_id, row.body)
        home.rows[document_id] = row
        self._journal.note(lambda: home.rows.pop(document_id))

    def _remove(self, home: _Collection, document_id: str) -> None:
        row = home.rows.pop(document_id, None)
        if row is None:
            return
        self._journal.note(lambda: home.rows.__setitem__(document_id, row))
        for paths, holders in home.holders.items():
            key = _index_key(row.body, paths)
            if key is not None:
                del holders[key]
                self._note_holder(home, paths, key, document_id)

    def _hold(self, home: _Collection, paths: tuple[Path, ...], document_id: str, body: str) -> None:
        """Take the document's values in the unique index, unless somebody has them."""
        key = _index_key(body, paths)
        if key is None:
            return
        holders = home.holders[paths]
        if key in holders:
            names = ", ".join(".".join(path) for path in paths)
            raise ConflictError(f"a document with these values exists already in the unique index on {names}")
        holders[key] = document_id
        self._journal.note(lambda: home.holders[paths].pop(key, None))

    def _note_holder(self, home: _Collection, paths: tuple[Path, ...], key: IndexKey, document_id: str) -> None:
        self._journal.note(lambda: home.holders[paths].__setitem__(key, document_id))

    def _keep_index(self, home: _Collection, paths: tuple[Path, ...]) -> None:
        """Note the index as it is, in case that its change is taken back."""
        unique, holders = home.indexes.get(paths), home.holders.get(paths)

        def restore() -> None:
            home.indexes.pop(paths, None)
            home.holders.pop(paths, None)
            if unique is not None:
                home.indexes[paths] = unique
            if holders is not None:
                home.holders[paths] = holders

        self._journal.note(restore)


def _index_key(body: str, paths: tuple[Path, ...]) -> IndexKey | None:
    document = msgspec.json.decode(body)
    keys = tuple(sort_key(lookup(document, path)) for path in paths)
    return None if any(rank == 0 for rank, _ in keys) else keys


def _compare(
    keys_a: tuple[SortKey, ...], id_a: str, keys_b: tuple[SortKey, ...], id_b: str, order: tuple[SortBy, ...]
) -> int:
    for a, b, key in zip(keys_a, keys_b, order, strict=True):
        if a != b:
            return (1 if a > b else -1) * (-1 if key.descending else 1)
    return (id_a > id_b) - (id_a < id_b)
