"""Repositories: the domain's values by their ids, whatever engine keeps them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar, cast

import msgspec

from polaris.exceptions import InvalidValueError, QueryError, StoreCorruptError
from polaris.storage._backend import StorageBackend
from polaris.storage._documents import Document, DocumentStorageBackend, Query
from polaris.storage._graph import GraphStorageBackend
from polaris.storage._timeseries import TimeSeriesStorageBackend
from polaris.storage._turns import in_turns

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)
B = TypeVar("B", bound=StorageBackend)

Model = Literal["time_series", "documents", "graph"]

PORTS: dict[str, type[Any]] = {
    "time_series": TimeSeriesStorageBackend,
    "documents": DocumentStorageBackend,
    "graph": GraphStorageBackend,
}
"""The models of a store and their ports."""


class Repository(ABC, Generic[T]):
    """Saves and finds values of one type on one storage port.

    `model` names the port it needs; `storage_backend` is that port of an engine, or of a transaction, in which case
    everything done here is a part of the transaction. A repository holds no connection; whoever made the backend
    connects and disconnects it. Saving what is there replaces it: writes are idempotent.
    """

    model: ClassVar[Model]

    def __init__(self, storage_backend: StorageBackend) -> None:
        port = PORTS[self.model]
        if not isinstance(storage_backend, port):
            raise InvalidValueError("storage_backend", f"a {port.__name__}", storage_backend)
        self.storage_backend = storage_backend

    @abstractmethod
    async def save(self, entity: T) -> None:
        """Keep the value durably, in place of the one with the same id."""

    @abstractmethod
    async def find_by_id(self, entity_id: str) -> T | None:
        """The value with this id, or None."""

    @abstractmethod
    async def find_all(self, *, limit: int | None = None) -> list[T]:
        """All values; with a `limit`, of 1 000 000 at most, the first ones.

        Raises `QueryError` for more than 1 000 000 without a limit: nothing is left out unasked.
        """

    @abstractmethod
    async def delete(self, entity_id: str) -> bool:
        """Delete the value; False when there is none."""


class DocumentRepository(Repository[S], Generic[S]):
    """A repository of msgspec structs on documents. Derive, name `collection`, `entity` and `key`, and it is complete.

    Values are kept as the JSON that msgspec makes of them. A document that is no such value any more is a
    `StoreCorruptError` that names it.
    """

    model = "documents"
    collection: ClassVar[str]
    entity: ClassVar[type[Any]]
    key: ClassVar[str]
    """The attribute that is the id."""

    @property
    def documents(self) -> DocumentStorageBackend:
        return cast(DocumentStorageBackend, self.storage_backend)

    async def save(self, entity: S) -> None:
        document = self._document(entity)
        await self.documents.put_document(self.collection, getattr(entity, self.key), document)

    async def find_by_id(self, entity_id: str) -> S | None:
        document = await self.documents.get_document(self.collection, entity_id)
        return None if document is None else self._entity(document)

    async def find_all(self, *, limit: int | None = None) -> list[S]:
        return await self.find(limit=limit)

    async def find(
        self,
        query: Query | None = None,
        *,
        limit: int | None = None,
        sort: str | Sequence[str] | None = None,
        after: Document | str | None = None,
    ) -> list[S]:
        """The values that match an operator dictionary over their attributes; `limit` as in `find_all`."""
        documents = await self.documents.find_documents(self.collection, query, limit, sort=sort, after=after)
        return [self._entity(document) async for document in in_turns(documents)]

    async def count(self, query: Query | None = None) -> int:
        """How many values match."""
        return await self.documents.count(self.collection, query)

    async def delete(self, entity_id: str) -> bool:
        return await self.documents.delete_document(self.collection, entity_id)

    def _document(self, entity: S) -> Document:
        if not isinstance(entity, self.entity):
            raise InvalidValueError("entity", f"a {self.entity.__name__}", entity)
        return cast(Document, msgspec.to_builtins(entity))

    def _entity(self, document: Document) -> S:
        try:
            return cast(S, msgspec.convert(document, self.entity))
        except (msgspec.ValidationError, InvalidValueError) as error:
            name = self.entity.__name__
            raise StoreCorruptError(f"{self.collection}/{document.get('_id')!r} is no {name}: {error}") from error

    async def _newest(self, query: Query, attribute: str, limit: int, before: str | None) -> list[S]:
        """The matching values, newest by `attribute` first; `before` is the id of the last one of the previous page."""
        after = None
        if before is not None:
            after = await self.documents.get_document(self.collection, before)
            if after is None:
                raise QueryError(f"before: there is no {before!r} in {self.collection}")
        return await self.find(query, limit=limit, sort=[f"-{attribute}", "-" + self.key], after=after)
