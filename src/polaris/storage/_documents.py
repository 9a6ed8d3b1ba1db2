"""The document port: JSON objects by id, found by operator dictionaries."""
# ruff: noqa: A002 - the specification names the parameter `id`

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from polaris.storage._backend import StorageBackend

Document = dict[str, Any]
Query = Mapping[str, Any]

ID_KEY = "_id"
VERSION_KEY = "_version"


class DocumentChanges(msgspec.Struct, frozen=True, kw_only=True):
    """Changes to what dotted paths lead to, carried out within the store: nobody's write comes between.

    `set`: paths and their new values; objects that are missing on the way are made. `unset`: paths to take out; one
    that is not there is no error. `increment`: paths and what to add to the numbers there; null and missing count as 0.
    No path lies within another. Where the way leads through something that is no object, or a sum is none of 64 bits,
    the update is an `InvalidValueError` and changes nothing. At most 256 paths in all.
    """

    set: Mapping[str, Any] = {}
    unset: Sequence[str] = ()
    increment: Mapping[str, int | float] = {}


class DocumentIndex(msgspec.Struct, frozen=True, order=True):
    """An index of a collection: its dotted paths in order."""

    fields: tuple[str, ...]
    unique: bool


class DocumentStorageBackend(StorageBackend):
    """Stores and finds JSON objects. All methods are safe to call from many tasks at once.

    A document is a mapping of at most 1 MiB as JSON, 16 levels, 10 000 values; ids are strings of 1 to 256 characters.
    What comes back is a fresh copy of what went in, with two keys more: `_id`, and `_version`, which is 1 at first and
    grows by 1 with every change. `_id` may be given at insertion; a `_version` given there is ignored.

    Queries map dotted paths to a value (equality) or to operators; `$and`, `$or` and `$not` combine queries. The empty
    query matches everything. The operators, all of which must hold when several are given:

    - `$eq $ne $in $nin`: equal to a value, or to one of at most 1 000 values, or not;
    - `$gt $gte $lt $lte`: compared with a number or a string;
    - `$prefix`: a string that begins with this one; the empty one begins every string;
    - `$exists`: true or false, whether the path is there, null or not;
    - `$contains`: an array that has an element equal to the value; `$all`: one that has elements equal to each value;
    - `$size`: an array of exactly so many elements;
    - `$elemMatch`: an array that has one element for which all of the operand holds. Operators speak of the element
      itself, whatever it is (`{"$gt": 5, "$lt": 9}`); anything else is a query about an element that is an object;
    - `$not`: operators that do not hold.

    The laws:

    - null and a missing path are the same but for `$exists`;
    - numbers equal and compare with numbers by their exact values, strings with strings by code point, booleans only
      equal booleans; `$gt` and its like never match across kinds;
    - `$ne`, `$nin` and `$not` are exact negations, so they match documents without the path;
    - paths lead through objects, not into arrays, but for what `$elemMatch` says of an element. An array equals no
      value and is compared with none: `{"tags": "a"}` does not match `["a"]`, `{"tags": {"$contains": "a"}}` does. So
      every condition speaks of one value, a negation is the exact opposite, and one index entry a document suffices;
    - arrays and objects are no operands, and the operators of arrays match nothing but arrays;
    - `_id` and `_version` are paths like others.

    An unknown operator, a bad path or operand is a `QueryError`, and nothing is read. A query has at most 256 terms,
    16 levels, and 10 000 values in its lists.

    Sorting: a path, or `-path` for descending, or several. Null and missing come first, then numbers (false is 0, true
    is 1), then strings; arrays and objects as their compact JSON text. Ties, and everything when no sort is given, in
    order of the id. `after` is the last document of the previous page, or its id when no sort is given (keyset cursor):
    a document that does not change meanwhile is on exactly one page, whatever comes, goes or changes.

    `fields` are the dotted paths that are wanted, at most 256: what comes back has these parts alone, as far as they
    are there, always `_id` and `_version`, and the paths of the sort order, so that it serves as a cursor.

    A document may expire: at `expires_at`, or `ttl` after now by the engine's clock. From that instant on it is not
    there for any operation, its id and its unique values are free again, and `purge_expired` gives back its room. Every
    operation uses the instant at which it was called, also in a transaction.

    A write is durable when its await returns; cancelled, it is done entirely or not at all. Bulk writes are done
    entirely or not at all too. What a caller does to a document afterwards does not reach the store.

    Indexes change no answer, only the time it takes. An index serves conditions on its first path, and on the next ones
    behind equalities: equality, `$in`, `$gt` and its like, `$prefix`, `$exists`, `$ne: null`, the sort order and its
    cursor. Of `$and` one term that is served suffices, of `$or` each has to be. No index serves `$ne`, `$nin` and
    `$not` of values (most documents match them), `$contains`, `$all`, `$size` and `$elemMatch`: these are checked for
    the documents that the other conditions leave. Two engines differ: on PostgreSQL none serves `$exists: true` either,
    as its entries do not tell null from missing (`$ne: null` is served); SQLite cannot tell how few documents an open
    range within `$or` leaves, and may look at all in order of the ids until there are enough.
    """

    @abstractmethod
    async def insert_document(
        self,
        collection: str,
        document: Mapping[str, Any],
        *,
        expires_at: datetime | None = None,
        ttl: timedelta | None = None,
    ) -> str:
        """Store a new document and give its id, a fresh one unless it has `_id`. An id in use is a `ConflictError`."""

    @abstractmethod
    async def insert_documents(
        self,
        collection: str,
        documents: Sequence[Mapping[str, Any]],
        *,
        expires_at: datetime | None = None,
        ttl: timedelta | None = None,
    ) -> list[str]:
        """Store up to 100 000 new documents in one transaction: all or none."""

    @abstractmethod
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
        """Store the document under the id, whether it exists or not; all of its former content goes, its expiry too.

        `expected_version` is the version to replace, 0 for none: anything else is a `ConflictError`, nothing written.
        """

    @abstractmethod
    async def put_documents(
        self,
        collection: str,
        documents: Sequence[Mapping[str, Any]],
        *,
        expires_at: datetime | None = None,
        ttl: timedelta | None = None,
    ) -> list[str]:
        """Store up to 100 000 documents under their `_id` as `put_document` does, in one transaction; gives the ids.

        Those without `_id` get a fresh one. Of several with the same id the last stays.
        """

    @abstractmethod
    async def get_document(
        self, collection: str, id: str, *, fields: str | Sequence[str] | None = None
    ) -> Document | None:
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
        fields: str | Sequence[str] | None = None,
    ) -> list[Document]:
        """The documents that match, in order; with a `limit`, of 1 000 000 at most, the first ones.

        Without it more than 1 000 000 matches are a `QueryError`: read so many in pages, by `limit` and `after`.
        """

    @abstractmethod
    async def count(self, collection: str, query: Query | None = None) -> int:
        """How many documents match."""

    @abstractmethod
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
        """Replace the named top-level keys and keep the others; False when there is no such document.

        `DocumentChanges` instead of a mapping change what dotted paths lead to. The expiry stays unless one is given.
        Raises `ConflictError` when the version is not the expected one or a unique index would be broken.
        """

    @abstractmethod
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
        """Update every document that matches, in one transaction; gives how many there were.

        `limit`, of 100 000 at most, takes the first ones in order of the id. Without it more than 100 000 matches are a
        `QueryError`, and nothing is changed: they would hold up all other writers for seconds.
        """

    @abstractmethod
    async def delete_document(self, collection: str, id: str, *, expected_version: int | None = None) -> bool:
        """Delete the document; False when there is none. `ConflictError` when its version is not the expected one."""

    @abstractmethod
    async def delete_documents(self, collection: str, query: Query, *, limit: int | None = None) -> int:
        """Delete every document that matches, in one transaction; gives how many. `limit`: as in `update_documents`."""

    @abstractmethod
    async def purge_expired(self, collection: str | None = None) -> int:
        """Give back the room of what has expired, in one collection or all; gives how many documents that were.

        Changes no answer. Works in transactions of 500 documents each; cancelled, what was done is done.
        """

    @abstractmethod
    async def create_index(self, collection: str, fields: str | Sequence[str], unique: bool = False) -> None:
        """Index the dotted paths together. Idempotent; a unique index that is there already stays unique.

        `unique` refuses a second document with equal values in all of them, in the order's sense of equal (true is 1);
        documents in which one of them is null or missing are not constrained. Raises `ConflictError` when present
        documents break it; there is no index then. At most 8 paths an index and 32 indexes a collection; `_id` and
        `_version` need none.
        """

    @abstractmethod
    async def drop_index(self, collection: str, fields: str | Sequence[str]) -> bool:
        """Give up the index over just these paths in this order; False when there is none."""

    @abstractmethod
    async def list_indexes(self, collection: str) -> list[DocumentIndex]:
        """The indexes of the collection, in order of their fields."""
