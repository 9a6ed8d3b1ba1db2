"""The document port of all engines: arguments are checked here, once."""
# ruff: noqa: A002 - the specification names the parameter `id`

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from polaris.domain._checks import utc
from polaris.exceptions import InvalidValueError, QueryError
from polaris.ids import new_id
from polaris.storage._document_changes import parse_changes
from polaris.storage._documents import (
    ID_KEY,
    VERSION_KEY,
    Document,
    DocumentChanges,
    DocumentIndex,
    DocumentStorageBackend,
    Query,
)
from polaris.storage._filter import Filter, Path, parse_query
from polaris.storage._limits import (
    BATCH_DOCUMENTS_MAX,
    INDEX_FIELDS_MAX,
    check_collection,
    check_document_id,
    check_limit,
    check_path,
    rows_wanted,
    whole_answer,
)
from polaris.storage._operation import Executor, Operation
from polaris.storage._projection import parse_fields
from polaris.storage._ranges import to_micros
from polaris.storage._rows import encoded_checked
from polaris.storage._sorting import parse_after, parse_sort
from polaris.storage._turns import TURN_ITEMS, in_turns

if TYPE_CHECKING:
    from polaris.storage.backends.shared._engine import SharedEngine

PURGE_DOCUMENTS = 500
"""Documents that one transaction of a purge removes: some milliseconds."""


class DocumentPort(DocumentStorageBackend):
    """Checks arguments and hands programs to its executor: the engine, or a transaction on it."""

    def __init__(self, engine: SharedEngine, executor: Executor) -> None:
        self._engine = engine
        self._executor = executor

    @property
    def engine(self) -> SharedEngine:
        return self._engine

    async def insert_document(
        self,
        collection: str,
        document: Mapping[str, Any],
        *,
        expires_at: datetime | None = None,
        ttl: timedelta | None = None,
    ) -> str:
        check_collection(collection)
        now_us, expires_us = self._instants(expires_at, ttl)
        row = _identified(document)
        await self._insert(collection, [row], now_us, expires_us)
        return row[0]

    async def insert_documents(
        self,
        collection: str,
        documents: Sequence[Mapping[str, Any]],
        *,
        expires_at: datetime | None = None,
        ttl: timedelta | None = None,
    ) -> list[str]:
        check_collection(collection)
        now_us, expires_us = self._instants(expires_at, ttl)
        rows = await _rows(documents)
        if rows:
            await self._insert(collection, rows, now_us, expires_us)
        return [document_id for document_id, _ in rows]

    def _insert(
        self, collection: str, rows: list[tuple[str, str]], now_us: int, expires_us: int | None
    ) -> Awaitable[None]:
        return self._executor.execute(
            Operation(
                lambda session: session.documents.insert_many(collection, rows, now_us=now_us, expires_us=expires_us),
                mutates=True,
                known=None,
                weight=len(rows),
            )
        )

    async def put_document(
        self,
        collection: str,
        id: str,
        document: Mapping[str, Any],
        *,
        expected_version: int | None = None,
        expires_at: datetime | None = None,
        ttl: timedelta | None = None,
    ) -> None:
        check_collection(collection)
        check_document_id(id)
        _check_version(expected_version, least=0)
        await self._put(collection, [(id, _body(document))], expected_version, self._instants(expires_at, ttl))

    async def put_documents(
        self,
        collection: str,
        documents: Sequence[Mapping[str, Any]],
        *,
        expires_at: datetime | None = None,
        ttl: timedelta | None = None,
    ) -> list[str]:
        check_collection(collection)
        instants = self._instants(expires_at, ttl)
        rows = await _rows(documents)
        if rows:
            await self._put(collection, rows, None, instants)
        return [document_id for document_id, _ in rows]

    def _put(
        self,
        collection: str,
        rows: list[tuple[str, str]],
        expected_version: int | None,
        instants: tuple[int, int | None],
    ) -> Awaitable[None]:
        now_us, expires_us = instants
        return self._executor.execute(
            Operation(
                lambda session: session.documents.put_many(
                    collection, rows, expected_version=expected_version, now_us=now_us, expires_us=expires_us
                ),
                mutates=True,
                known=None,
                weight=len(rows),
            )
        )

    async def get_document(
        self, collection: str, id: str, *, fields: str | Sequence[str] | None = None
    ) -> Document | None:
        check_collection(collection)
        check_document_id(id)
        wanted, now_us = parse_fields(fields), self._now_us()
        return await self._executor.execute(
            Operation(
                lambda session: session.documents.get(collection, id, fields=wanted, now_us=now_us), mutates=False
            )
        )

    async def find_documents(
        self,
        collection: str,
        query: Query | None = None,
        limit: int | None = None,
        *,
        sort: str | Sequence[str] | None = None,
        after: str | Mapping[str, Any] | None = None,
        fields: str | Sequence[str] | None = None,
    ) -> list[Document]:
        check_collection(collection)
        term, count, order = parse_query(query), rows_wanted(limit), parse_sort(sort)
        page, wanted, now_us = parse_after(after, order), parse_fields(fields, order), self._now_us()
        documents = await self._executor.execute(
            Operation(
                lambda session: session.documents.find(
                    collection, term, limit=count, order=order, page=page, fields=wanted, now_us=now_us
                ),
                mutates=False,
            )
        )
        return whole_answer(documents, "documents")

    async def count(self, collection: str, query: Query | None = None) -> int:
        check_collection(collection)
        term, now_us = parse_query(query), self._now_us()
        return await self._executor.execute(
            Operation(lambda session: session.documents.count(collection, term, now_us=now_us), mutates=False)
        )

    async def update_document(
        self,
        collection: str,
        id: str,
        updates: Mapping[str, Any] | DocumentChanges,
        *,
        expected_version: int | None = None,
        expires_at: datetime | None = None,
        ttl: timedelta | None = None,
    ) -> bool:
        check_collection(collection)
        check_document_id(id)
        _check_version(expected_version, least=1)
        changes = parse_changes(updates)
        now_us, expires_us = self._instants(expires_at, ttl)
        return await self._executor.execute(
            Operation(
                lambda session: session.documents.update(
                    collection, id, changes, expected_version=expected_version, now_us=now_us, expires_us=expires_us
                ),
                mutates=True,
            )
        )

    async def update_documents(
        self,
        collection: str,
        query: Query,
        updates: Mapping[str, Any] | DocumentChanges,
        *,
        limit: int | None = None,
        expires_at: datetime | None = None,
        ttl: timedelta | None = None,
    ) -> int:
        check_collection(collection)
        term, changes, most = _chosen(query), parse_changes(updates), _reach(limit)
        now_us, expires_us = self._instants(expires_at, ttl)
        return await self._executor.execute(
            Operation(
                lambda session: session.documents.update_where(
                    collection, term, changes, limit=most, now_us=now_us, expires_us=expires_us
                ),
                mutates=True,
            )
        )

    async def delete_document(self, collection: str, id: str, *, expected_version: int | None = None) -> bool:
        check_collection(collection)
        check_document_id(id)
        _check_version(expected_version, least=1)
        now_us = self._now_us()
        return await self._executor.execute(
            Operation(
                lambda session: session.documents.delete(
                    collection, id, expected_version=expected_version, now_us=now_us
                ),
                mutates=True,
            )
        )

    async def delete_documents(self, collection: str, query: Query, *, limit: int | None = None) -> int:
        check_collection(collection)
        term, most, now_us = _chosen(query), _reach(limit), self._now_us()
        return await self._executor.execute(
            Operation(
                lambda session: session.documents.delete_where(collection, term, limit=most, now_us=now_us),
                mutates=True,
            )
        )

    async def purge_expired(self, collection: str | None = None) -> int:
        if collection is not None:
            check_collection(collection)
        now_us = self._now_us()
        purge = Operation(
            lambda session: session.documents.purge(collection, limit=PURGE_DOCUMENTS, now_us=now_us), mutates=True
        )
        total = 0
        while True:
            removed = await self._executor.execute(purge)
            total += removed
            if removed < PURGE_DOCUMENTS:
                return total

    async def create_index(self, collection: str, fields: str | Sequence[str], unique: bool = False) -> None:
        check_collection(collection)
        paths = _index_paths(fields)
        await self._executor.execute(
            Operation(
                lambda session: session.documents.create_index(collection, paths, unique=unique),
                mutates=True,
                known=None,
            )
        )

    async def drop_index(self, collection: str, fields: str | Sequence[str]) -> bool:
        check_collection(collection)
        paths = _index_paths(fields)
        return await self._executor.execute(
            Operation(lambda session: session.documents.drop_index(collection, paths), mutates=True)
        )

    async def list_indexes(self, collection: str) -> list[DocumentIndex]:
        check_collection(collection)
        return await self._executor.execute(
            Operation(lambda session: session.documents.list_indexes(collection), mutates=False)
        )

    def _now_us(self) -> int:
        return to_micros(self._engine.clock.now())

    def _instants(self, expires_at: datetime | None, ttl: timedelta | None) -> tuple[int, int | None]:
        """Now, and when new content expires if it does."""
        now = self._engine.clock.now()
        if expires_at is None and ttl is None:
            return to_micros(now), None
        if expires_at is not None and ttl is not None:
            raise InvalidValueError("ttl", "None when expires_at is given", ttl)
        if expires_at is None:
            if not isinstance(ttl, timedelta) or ttl <= timedelta(0):
                raise InvalidValueError("ttl", "a timedelta of more than 0", ttl)
            try:
                expires_at = now + ttl
            except OverflowError as error:
                raise InvalidValueError("ttl", "a timedelta whose end is before the year 10 000", ttl) from error
        return to_micros(now), to_micros(utc("expires_at", expires_at))


async def _rows(documents: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The documents as ids and JSON: nothing a caller does to them meanwhile can reach the store."""
    if isinstance(documents, Mapping) or not isinstance(documents, Sequence):
        raise InvalidValueError("documents", "a list of mappings", documents)
    if len(documents) > BATCH_DOCUMENTS_MAX:
        raise InvalidValueError("documents", f"at most {BATCH_DOCUMENTS_MAX} documents", documents)
    if len(documents) <= TURN_ITEMS:
        return [_identified(document) for document in documents]
    return [_identified(document) async for document in in_turns(documents)]


def _body(document: object) -> str:
    if type(document) is not dict and not isinstance(document, Mapping):
        raise InvalidValueError("document", "a mapping with string keys", document)
    return encoded_checked(document)


def _identified(document: Mapping[str, Any]) -> tuple[str, str]:
    body = _body(document)
    document_id = document.get(ID_KEY)
    if document_id is None:
        return new_id(), body
    check_document_id(document_id)
    return document_id, body


def _chosen(query: object) -> Filter:
    """The filter of a write by query, which is never left out by mistake."""
    if not isinstance(query, Mapping):
        raise QueryError(f"a query is a mapping, {{}} for all documents, got {type(query).__name__}")
    return parse_query(query)


def _reach(limit: int | None) -> int | None:
    if limit is not None and check_limit(limit) > BATCH_DOCUMENTS_MAX:
        raise QueryError(f"limit: at most {BATCH_DOCUMENTS_MAX} documents in one transaction")
    return limit


def _index_paths(fields: str | Sequence[str]) -> tuple[Path, ...]:
    names = [fields] if isinstance(fields, str) else list(fields)
    if not 1 <= len(names) <= INDEX_FIELDS_MAX:
        raise QueryError(f"fields: 1 to {INDEX_FIELDS_MAX} paths")
    paths = tuple(check_path(name) for name in names)
    if any(path[0] in (ID_KEY, VERSION_KEY) for path in paths):
        raise QueryError("fields: the id is indexed as it is, and the version needs no index")
    return paths


def _check_version(version: object, *, least: int) -> None:
    if version is not None and (type(version) is not int or version < least):
        raise InvalidValueError("expected_version", f"an integer of at least {least}, or None", version)
