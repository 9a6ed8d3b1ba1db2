"""What a unit of work of a managed system may touch: this system, and others in the same store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from polaris.exceptions import TransactionConflictError, UnitOfWorkError
from polaris.ids import new_id
from polaris.storage._backend import StorageTransaction
from polaris.storage._documents import DocumentChanges, DocumentStorageBackend
from polaris.storage._placement import PLACEMENTS, Placement, document_of, value_at
from polaris.storage._placement_book import KnownRecord, Place, PlacementBook
from polaris.storage._placement_marks import Mark, Span, make_marks, windows_of, windows_over
from polaris.storage._ranges import TimeRange, to_micros
from polaris.storage._routing_passing import PassingDocuments, PassingTimeSeries
from polaris.storage._timeseries import TimeSeriesStorageBackend
from polaris.storage.repositories._state_codec import SYSTEM_TAG
from polaris.storage.repositories._states import FORMS

_WRITES = {"store_many", "store_time_series", "delete_range"}
_TIME_SERIES = _WRITES | {
    "query_time_series", "iterate_time_series", "aggregate_time_series", "aggregate_many", "latest", "list_series",
    "count_series", "list_fields", "list_tag_values",
}  # fmt: skip
_FOUND = {"find_documents", "count"}
_DOCUMENTS = _FOUND | {
    "insert_document", "insert_documents", "put_document", "put_documents", "get_document", "update_document",
    "delete_document",
}  # fmt: skip
_RESULTS = "execution_results"


class WorkGuard:
    """Knows the store and the systems of one unit of work, and what has to be recorded with its commit."""

    def __init__(self, book: PlacementBook, known: KnownRecord, system_id: str, place: Place) -> None:
        self.book = book
        self.known = known
        self.name = known.record.name
        self.system_id = system_id
        self.places = {system_id: place}
        self._written: set[str] = set()
        self._marks: dict[str, Mark] = {}

    @property
    def is_shared(self) -> bool:
        """Whether the store also keeps what belongs to no system."""
        return self.known.record.stores.shared == self.name

    def owner_path(self, collection: str) -> str | None:
        """The key that says to which system a document of the collection belongs."""
        return self.known.record.stores.documents.get(collection)

    def has_series(self, collection: str) -> bool:
        """Whether the points of the collection belong to systems."""
        return collection in self.known.record.stores.series

    async def admit(self, system_id: str) -> None:
        """Refuse a system that is placed elsewhere: a transaction cannot span two stores."""
        if system_id in self.places:
            return
        place = (await self.book.writable([system_id]))[system_id]
        if not isinstance(place, Place):
            raise place
        if place.store != self.name:
            raise UnitOfWorkError(
                f"{system_id!r} is in store {place.store!r}, and this unit of work is of {self.system_id!r} in store "
                f"{self.name!r}: one transaction cannot span two",
                {"system_id": system_id, "store": place.store, "unit_of_work_store": self.name},
            )
        if place.seen != self.known.version:
            raise TransactionConflictError("a system has moved meanwhile; repeat the unit of work")
        self.places[system_id] = place

    def wrote_points(self, system_id: str, collection: str, spans: Callable[[], Iterable[Span]]) -> None:
        """Note points that are written or deleted."""
        self._written.add(system_id)
        if system_id in self.known.record.moves:
            for start_us, end_us in spans():
                self._mark(Mark(system_id, collection, start_us, end_us))

    def wrote_document(self, system_id: str, collection: str, document_id: str) -> None:
        """Note a document that is written or deleted."""
        self._written.add(system_id)
        if system_id in self.known.record.moves:
            self._mark(Mark(system_id, collection, document_id=document_id))

    def _mark(self, mark: Mark) -> None:
        self._marks[mark.mark_id] = mark

    async def record(self, transaction: StorageTransaction) -> None:
        """Before the commit: record where systems are that were written for the first time, and make the marks."""
        for system_id in sorted(self._written):
            if self.places[system_id].version == 0:
                placement = Placement(system_id, self.name)
                await transaction.documents.put_document(PLACEMENTS, system_id, document_of(placement))
        await make_marks(transaction, list(self._marks.values()))

    def committed(self) -> None:
        """After the commit: know of the systems that were placed by it."""
        for system_id in self._written:
            if self.places[system_id].version == 0:
                self.book.placed(system_id, self.name, self.known.version)


class GuardedTimeSeries(PassingTimeSeries):
    """Time series of systems in one store, in a unit of work."""

    def __init__(self, inner: TimeSeriesStorageBackend, guard: WorkGuard) -> None:
        super().__init__(inner)
        self._guard = guard

    async def admit(self, name: str, arguments: dict[str, Any]) -> None:
        guard, collection = self._guard, arguments.get("collection")
        if collection == FORMS:
            return
        if not isinstance(collection, str) or not guard.has_series(collection):
            raise UnitOfWorkError(
                f"time series {collection!r} belong to no system: name them in `series` of the routed store",
                {"collection": str(collection)},
            )
        if name not in _TIME_SERIES:
            raise UnitOfWorkError(f"{name} is not for one system alone: use the store itself")
        if name == "store_many":
            points = arguments["points"] = list(arguments["points"])
            await self._admit_points(collection, points)
        else:
            system_id = _system_of(arguments.get("tags"))
            await guard.admit(system_id)
            if name == "store_time_series":
                time_us = to_micros(arguments["timestamp"])
                guard.wrote_points(system_id, collection, lambda: windows_of([time_us]))
            elif name == "delete_range" and isinstance(arguments["time_range"], TimeRange):
                micros = arguments["time_range"].micros
                guard.wrote_points(system_id, collection, lambda: windows_over(micros))

    async def _admit_points(self, collection: str, points: list[Any]) -> None:
        times: dict[str, list[Any]] = {}
        for point in points:
            times.setdefault(_system_of(getattr(point, "tags", None)), []).append(point)
        for system_id, chosen in times.items():
            await self._guard.admit(system_id)
            self._guard.wrote_points(system_id, collection, partial(_windows, chosen))


def _windows(points: Iterable[Any]) -> list[Span]:
    return windows_of(to_micros(point.timestamp) for point in points)


def _system_of(tags: object) -> str:
    named = tags.get(SYSTEM_TAG) if isinstance(tags, Mapping) else None
    if not isinstance(named, str):
        raise UnitOfWorkError(f"in a unit of work of a system, name the system: the tag {SYSTEM_TAG!r} is missing")
    return named


class GuardedDocuments(PassingDocuments):
    """Documents of systems in one store, in a unit of work. The shared store also has those that belong to none."""

    def __init__(self, inner: DocumentStorageBackend, guard: WorkGuard) -> None:
        super().__init__(inner)
        self._documents = inner
        self._guard = guard

    async def admit(self, name: str, arguments: dict[str, Any]) -> None:
        guard, collection = self._guard, arguments.get("collection")
        path = guard.owner_path(collection) if isinstance(collection, str) else None
        if path is None:
            if not guard.is_shared or str(collection).startswith("polaris."):
                raise UnitOfWorkError(
                    f"documents {collection!r} belong to no system: keep them in store "
                    f"{guard.known.record.stores.shared!r}, or name them in `documents` of the routed store",
                    {"collection": str(collection)},
                )
            return
        assert isinstance(collection, str)  # noqa: S101 # it has a path
        if name not in _DOCUMENTS:
            raise UnitOfWorkError(f"{name} is not for one system alone: use the store itself")
        if arguments.get("ttl") is not None or arguments.get("expires_at") is not None:
            raise UnitOfWorkError("documents of systems do not expire: a move could not take the time along")
        if name in _FOUND:
            arguments["query"] = await self._admitted_query(collection, path, arguments.get("query"))
        elif name in ("insert_documents", "put_documents"):
            documents = [await self._admitted(collection, path, one) for one in arguments["documents"]]
            arguments["documents"] = documents
        elif name in ("insert_document", "put_document"):
            arguments["document"] = await self._admitted(collection, path, arguments["document"], arguments.get("id"))
        elif name != "get_document":
            await self._admit_change(name, collection, path, arguments)

    async def _admitted(self, collection: str, path: str, document: Any, known_id: str | None = None) -> Any:
        """The document with an id, so that it can be marked, and with its owner where that is left out."""
        if not isinstance(document, Mapping):
            return document
        if collection == _RESULTS and value_at(document, path) is None:
            document = {**document, path: self._guard.system_id}
        if known_id is None:
            document = {**document, "_id": document.get("_id") or new_id()}
        owner = await self._admit_owner(collection, path, document)
        document_id = str(known_id or document["_id"])
        self._guard.wrote_document(owner, collection, document_id)
        if self._guard.known.record.moves:
            # It may take the place of another system's document, which is to be copied then.
            former = await self._documents.get_document(collection, document_id)
            if former is not None:
                self._guard.wrote_document(await self._admit_owner(collection, path, former), collection, document_id)
        return document

    async def _admit_owner(self, collection: str, path: str, document: Mapping[str, Any]) -> str:
        owner = value_at(document, path)
        if not isinstance(owner, str):
            raise UnitOfWorkError(f"a document of {collection!r} names its system in {path!r}")
        await self._guard.admit(owner)
        return owner

    async def _admitted_query(self, collection: str, path: str, query: Any) -> Any:
        owner = query.get(path) if isinstance(query, Mapping) else None
        if isinstance(owner, str):
            await self._guard.admit(owner)
            return query
        if collection == _RESULTS:
            mine = {path: self._guard.system_id}
            return mine if query is None else {"$and": [query, mine]}
        raise UnitOfWorkError(f"in a unit of work of a system, name the system: {path!r} is missing in the query")

    async def _admit_change(self, name: str, collection: str, path: str, arguments: dict[str, Any]) -> None:
        document_id = arguments["id"]
        former = await self._documents.get_document(collection, document_id)
        if former is None:
            return
        owner = await self._admit_owner(collection, path, former)
        if name == "update_document":
            updates = arguments["updates"]
            key = path.partition(".")[0]
            if isinstance(updates, DocumentChanges):
                paths = [*updates.set, *updates.unset, *updates.increment]
                changed = any(str(one).partition(".")[0] == key for one in paths)
            else:
                changed = isinstance(updates, Mapping) and key in updates and value_at(updates, path) != owner
            if changed:
                raise UnitOfWorkError(f"a document of {collection!r} stays with its system ({path!r})")
        self._guard.wrote_document(owner, collection, document_id)

    async def answered(self, name: str, arguments: dict[str, Any], answer: Any) -> Any:
        path = self._guard.owner_path(arguments.get("collection", ""))
        if name == "get_document" and answer is not None and path is not None:
            whole: Any = answer
            if arguments["fields"] is not None:
                whole = await self._documents.get_document(arguments["collection"], arguments["id"])
            if whole is not None:
                await self._admit_owner(arguments["collection"], path, whole)
        return answer
