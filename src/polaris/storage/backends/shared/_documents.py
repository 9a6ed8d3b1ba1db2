"""The document port of all engines: arguments are checked here, once."""
# ruff: noqa: A002 - the specification names the parameter `id`

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from polaris.exceptions import InvalidValueError, QueryError
from polaris.ids import new_id
from polaris.storage._documents import ID_KEY, VERSION_KEY, Document, DocumentStorageBackend, Query
from polaris.storage._filter import parse_query
from polaris.storage._limits import (
    BATCH_DOCUMENTS_MAX,
    INDEX_FIELDS_MAX,
    check_collection,
    check_document_id,
    check_limit,
    check_path,
    checked_tree,
)
from polaris.storage._operation import Executor, Operation
from polaris.storage._sorting import parse_after, parse_sort
from polaris.storage._turns import in_turns

if TYPE_CHECKING:
    from polaris.storage.backends.shared._engine import SharedEngine


class DocumentPort(DocumentStorageBackend):
    """Checks arguments and hands programs to its executor: the engine, or a transaction on it."""

    def __init__(self, engine: SharedEngine, executor: Executor) -> None:
        self._engine = engine
        self._executor = executor

    @property
    def engine(self) -> SharedEngine:
        return self._engine

    async def insert_document(self, collection: str, document: Mapping[str, Any]) -> str:
        return (await self.insert_documents(collection, [document]))[0]

    async def insert_documents(self, collection: str, documents: Sequence[Mapping[str, Any]]) -> list[str]:
        check_collection(collection)
        if len(documents) > BATCH_DOCUMENTS_MAX:
            raise InvalidValueError("documents", f"at most {BATCH_DOCUMENTS_MAX} documents", documents)
        rows = [_identified(document) async for document in in_turns(documents)]
        await self._executor.execute(
            Operation(
                lambda session: session.documents.insert_many(collection, rows),
                mutates=bool(rows),
                known=None,
                weight=len(rows),
            )
        )
        return [document_id for document_id, _ in rows]

    async def put_document(
        self, collection: str, id: str, document: Mapping[str, Any], *, expected_version: int | None = None
    ) -> None:
        check_collection(collection)
        check_document_id(id)
        _check_version(expected_version, least=0)
        body = _body(document)
        await self._executor.execute(
            Operation(
                lambda session: session.documents.put(collection, id, body, expected_version), mutates=True, known=None
            )
        )

    async def get_document(self, collection: str, id: str) -> Document | None:
        check_collection(collection)
        check_document_id(id)
        return await self._executor.execute(
            Operation(lambda session: session.documents.get(collection, id), mutates=False)
        )

    async def find_documents(
        self,
        collection: str,
        query: Query | None = None,
        limit: int | None = None,
        *,
        sort: str | Sequence[str] | None = None,
        after: str | Mapping[str, Any] | None = None,
    ) -> list[Document]:
        check_collection(collection)
        term, count, order = parse_query(query), check_limit(limit), parse_sort(sort)
        page = parse_after(after, order)
        return await self._executor.execute(
            Operation(
                lambda session: session.documents.find(collection, term, limit=count, order=order, page=page),
                mutates=False,
            )
        )

    async def count(self, collection: str, query: Query | None = None) -> int:
        check_collection(collection)
        term = parse_query(query)
        return await self._executor.execute(
            Operation(lambda session: session.documents.count(collection, term), mutates=False)
        )

    async def update_document(
        self, collection: str, id: str, updates: Mapping[str, Any], *, expected_version: int | None = None
    ) -> bool:
        check_collection(collection)
        check_document_id(id)
        _check_version(expected_version, least=1)
        changes = checked_tree("updates", updates)
        for key in (ID_KEY, VERSION_KEY):
            if key in changes:
                raise InvalidValueError(f"updates.{key}", "a key of the document's own", updates)
        return await self._executor.execute(
            Operation(lambda session: session.documents.update(collection, id, changes, expected_version), mutates=True)
        )

    async def delete_document(self, collection: str, id: str) -> bool:
        check_collection(collection)
        check_document_id(id)
        return await self._executor.execute(
            Operation(lambda session: session.documents.delete(collection, id), mutates=True)
        )

    async def create_index(self, collection: str, fields: str | Sequence[str], unique: bool = False) -> None:
        check_collection(collection)
        names = [fields] if isinstance(fields, str) else list(fields)
        if not 1 <= len(names) <= INDEX_FIELDS_MAX:
            raise QueryError(f"fields: 1 to {INDEX_FIELDS_MAX} paths")
        paths = tuple(check_path(name) for name in names)
        await self._executor.execute(
            Operation(
                lambda session: session.documents.create_index(collection, paths, unique=unique),
                mutates=True,
                known=None,
            )
        )


def _body(document: object) -> Document:
    if not isinstance(document, Mapping):
        raise InvalidValueError("document", "a mapping with string keys", document)
    body = checked_tree("document", document)
    body.pop(ID_KEY, None)
    body.pop(VERSION_KEY, None)
    return body


def _identified(document: Mapping[str, Any]) -> tuple[str, Document]:
    body = _body(document)
    document_id = document.get(ID_KEY)
    if document_id is None:
        return new_id(), body
    check_document_id(document_id)
    return document_id, body


def _check_version(version: object, *, least: int) -> None:
    if version is not None and (type(version) is not int or version < least):
        raise InvalidValueError("expected_version", f"an integer of at least {least}, or None", version)
