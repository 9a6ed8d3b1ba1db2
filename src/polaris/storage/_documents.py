"""The document port: JSON objects by id, found by operator dictionaries."""
# ruff: noqa: A002 - the specification names the parameter `id`

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from polaris.storage._backend import StorageBackend

Document = dict[str, Any]
Query = Mapping[str, Any]

ID_KEY = "_id"
VERSION_KEY = "_version"


class DocumentStorageBackend(StorageBackend):
    """Stores and finds JSON objects. All methods are safe to call from many tasks at once.

    A document is a mapping of at most 1 MiB as JSON, 16 levels, 10 000 values; ids are strings of 1 to 256 characters.
    What comes back is a fresh copy of what went in, with two keys more: `_id`, and `_version`, which is 1 at first and
    grows by 1 with every change. `_id` may be given at insertion; a `_version` given there is ignored.

    Queries map dotted paths to a value (equality) or to operators: `$eq $ne $gt $gte $lt $lte $in $nin $exists $not`;
    `$and`, `$or` and `$not` combine queries. The empty query matches everything. The laws:

    - null and a missing path are the same but for `$exists`, which asks whether the path is there, null or not;
    - numbers equal and compare with numbers, strings with strings (by code point), booleans only equal booleans;
      `$gt` and its like never match across kinds, and take numbers and strings only;
    - `$ne`, `$nin` and `$not` are exact negations, so they match documents without the path;
    - paths lead through objects, not into arrays; arrays and objects are no operands.

    An unknown operator, a bad path or operand is a `QueryError`, and nothing is read.

    Sorting: a path, or `-path` for descending, or several. Null and missing come first, then numbers (false is 0, true
    is 1), then strings; arrays and objects as their compact JSON text. Ties, and everything when no sort is given, in
    order of the id. `after` is the last document of the previous page, or its id when no sort is given (keyset cursor:
    it stays right while documents come and go).

    A write is durable when its await returns; cancelled, it is done entirely or not at all.
    """

    @abstractmethod
    async def insert_document(self, collection: str, document: Mapping[str, Any]) -> str:
        """Store a new document and give its id, a fresh one unless it has `_id`. An id in use is a `ConflictError`."""

    @abstractmethod
    async def insert_documents(self, collection: str, documents: Sequence[Mapping[str, Any]]) -> list[str]:
        """Store up to 100 000 new documents in one transaction: all or none."""

    @abstractmethod
    async def put_document(
        self, collection: str, id: str, document: Mapping[str, Any], *, expected_version: int | None = None
    ) -> None:
        """Store the document under the id, whether it exists or not; all of its former content goes.

        `expected_version` is the version to replace, 0 for none: anything else is a `ConflictError`, nothing written.
        """

    @abstractmethod
    async def get_document(self, collection: str, id: str) -> Document | None:
        """The document, or None."""

    @abstractmethod
    async def find_documents(
        self,
        collection: str,
        query: Query | None = None,
        limit: int | None = None,
        *,
        sort: str | Sequence[str] | None = None,
        after: str | Mapping[str, Any] | None = None,
    ) -> list[Document]:
        """The documents that match, in order. `limit` is 1 000 000 unless given."""

    @abstractmethod
    async def count(self, collection: str, query: Query | None = None) -> int:
        """How many documents match."""

    @abstractmethod
    async def update_document(
        self, collection: str, id: str, updates: Mapping[str, Any], *, expected_version: int | None = None
    ) -> bool:
        """Replace the named top-level keys, keep the others; False when there is no such document.

        Raises `ConflictError` when the version is not the expected one or a unique index would be broken.
        """

    @abstractmethod
    async def delete_document(self, collection: str, id: str) -> bool:
        """Delete the document; False when there is none."""

    @abstractmethod
    async def create_index(self, collection: str, fields: str | Sequence[str], unique: bool = False) -> None:
        """Index the dotted paths together. Idempotent.

        `unique` refuses a second document with equal values in all of them; documents in which one of them is null or
        missing are not constrained. Raises `ConflictError` when present documents break it; there is no index then.
        At most 8 paths an index and 32 indexes a collection.
        """
