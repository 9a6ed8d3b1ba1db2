"""Documents of the engine in memory: plain dictionaries, filtered by the reference evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cmp_to_key

import msgspec

from polaris.exceptions import ConflictError, InvalidValueError, QueryError
from polaris.storage._documents import Document
from polaris.storage._filter import Filter, Path
from polaris.storage._filter_match import SortKey, lookup, matches, sort_key
from polaris.storage._limits import COLLECTIONS_MAX, INDEXES_MAX
from polaris.storage._rows import check_version, document_of, encoded
from polaris.storage._sorting import Page, SortBy
from polaris.storage.backends.memory._journal import Journal

Row = tuple[int, str]
"""Version and JSON: kept encoded, so that nothing a caller does to a document can reach the store."""
IndexKey = tuple[SortKey, ...]
Found = tuple[tuple[SortKey, ...], str, Document]
"""The sort keys of a document that matches, its id, and itself."""


class _Collection:
    """The documents of one collection and the values its unique indexes hold."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.indexes: dict[tuple[Path, ...], bool] = {}


class MemoryDocuments:
    """Collections of documents by id."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._collections: dict[str, _Collection] = {}

    @property
    def documents_count(self) -> int:
        return sum(len(collection.rows) for collection in self._collections.values())

    def insert_many(self, collection: str, documents: Sequence[tuple[str, Document]]) -> None:
        home = self._home(collection)
        for document_id, document in documents:
            if document_id in home.rows:
                raise ConflictError(f"document {document_id!r} exists already in {collection}")
            self._write(home, document_id, 1, document)

    def put(self, collection: str, document_id: str, document: Document, expected_version: int | None) -> None:
        home = self._home(collection)
        version = home.rows[document_id][0] if document_id in home.rows else 0
        check_version(document_id, version, expected_version)
        self._write(home, document_id, version + 1, document)

    def update(self, collection: str, document_id: str, updates: Document, expected_version: int | None) -> bool:
        home = self._home(collection)
        row = home.rows.get(document_id)
        if row is None:
            return False
        check_version(document_id, row[0], expected_version)
        self._write(home, document_id, row[0] + 1, {**msgspec.json.decode(row[1]), **updates})
        return True

    def delete(self, collection: str, document_id: str) -> bool:
        rows = self._home(collection).rows
        row = rows.pop(document_id, None)
        if row is None:
            return False
        self._journal.note(lambda: rows.__setitem__(document_id, row))
        return True

    def get(self, collection: str, document_id: str) -> Document | None:
        row = self._rows(collection).get(document_id)
        return None if row is None else document_of(document_id, *row)

    def find(
        self, collection: str, term: Filter, *, limit: int, order: tuple[SortBy, ...], page: Page | None
    ) -> list[Document]:
        found: list[Found] = []
        for document_id, row in self._rows(collection).items():
            document = msgspec.json.decode(row[1])
            if matches(term, document):
                keys = tuple(sort_key(lookup(document, key.path)) for key in order)
                found.append((keys, document_id, document_of(document_id, *row)))

        def compare(a: Found, b: Found) -> int:
            return _compare(a[0], a[1], b[0], b[1], order)

        found.sort(key=cmp_to_key(compare))
        if page is not None:
            found = [entry for entry in found if _compare(entry[0], entry[1], page.keys, page.document_id, order) > 0]
        return [document for _, _, document in found[:limit]]

    def count(self, collection: str, term: Filter) -> int:
        return sum(matches(term, msgspec.json.decode(body)) for _, body in self._rows(collection).values())

    def create_index(self, collection: str, paths: tuple[Path, ...], *, unique: bool) -> None:
        home = self._home(collection)
        former = home.indexes.get(paths)
        if former is not None and (former or not unique):
            return
        if len(home.indexes) >= INDEXES_MAX and former is None:
            raise QueryError(f"a collection has at most {INDEXES_MAX} indexes")
        home.indexes[paths] = unique
        self._journal.note(
            lambda: home.indexes.pop(paths) if former is None else home.indexes.__setitem__(paths, former)
        )
        if unique:
            for document_id, (_, body) in home.rows.items():
                self._check_unique(home, document_id, msgspec.json.decode(body))

    def _home(self, collection: str) -> _Collection:
        home = self._collections.get(collection)
        if home is None:
            if len(self._collections) >= COLLECTIONS_MAX:
                raise InvalidValueError("collection", f"at most {COLLECTIONS_MAX} document collections", collection)
            home = self._collections[collection] = _Collection()
            self._journal.note(lambda: self._collections.pop(collection))
        return home

    def _rows(self, collection: str) -> dict[str, Row]:
        home = self._collections.get(collection)
        return {} if home is None else home.rows

    def _write(self, home: _Collection, document_id: str, version: int, document: Document) -> None:
        body = encoded(document)
        self._check_unique(home, document_id, document)
        former = home.rows.get(document_id)
        home.rows[document_id] = (version, body)
        self._journal.note(
            lambda: home.rows.pop(document_id) if former is None else home.rows.__setitem__(document_id, former)
        )

    def _check_unique(self, home: _Collection, document_id: str, document: Document) -> None:
        for paths, unique in home.indexes.items():
            key = _index_key(document, paths) if unique else None
            if key is not None and any(
                other != document_id and _index_key(msgspec.json.decode(body), paths) == key
                for other, (_, body) in home.rows.items()
            ):
                raise ConflictError(
                    "a document with these values exists already in the unique index on " + _names(paths)
                )


def _index_key(document: Document, paths: tuple[Path, ...]) -> IndexKey | None:
    keys = tuple(sort_key(lookup(document, path)) for path in paths)
    return None if any(rank == 0 for rank, _ in keys) else keys


def _names(paths: tuple[Path, ...]) -> str:
    return ", ".join(".".join(path) for path in paths)


def _compare(
    keys_a: tuple[SortKey, ...], id_a: str, keys_b: tuple[SortKey, ...], id_b: str, order: tuple[SortBy, ...]
) -> int:
    for a, b, key in zip(keys_a, keys_b, order, strict=True):
        if a != b:
            return (1 if a > b else -1) * (-1 if key.descending else 1)
    return (id_a > id_b) - (id_a < id_b)
