"""A unit of work of a managed system: one transaction of the store that has it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self, cast

from polaris.exceptions import TransactionConflictError, UnitOfWorkError
from polaris.storage._backend import StorageTransaction
from polaris.storage._data_store import PolarisDataStore
from polaris.storage._documents import DocumentStorageBackend
from polaris.storage._graph import GraphStorageBackend
from polaris.storage._outbox import Outbox
from polaris.storage._placement_book import Place, PlacementBook
from polaris.storage._placement_steps import named
from polaris.storage._routing_guard import GuardedDocuments, GuardedTimeSeries, WorkGuard
from polaris.storage._timeseries import TimeSeriesStorageBackend
from polaris.storage._unit_of_work import PolarisUnitOfWork

ATTEMPTS_MAX = 10
"""Attempts to find a system whose place changes again and again."""

_time_series = cast(Callable[..., TimeSeriesStorageBackend], GuardedTimeSeries)
_documents = cast(Callable[..., DocumentStorageBackend], GuardedDocuments)


class RoutedTransaction:
    """A transaction of one store that knows which systems it may touch, and records their placements."""

    def __init__(self, inner: StorageTransaction, guard: WorkGuard) -> None:
        self._inner = inner
        self._guard = guard
        self.time_series = _time_series(inner.time_series, guard)
        self.documents = _documents(inner.documents, guard)

    @property
    def graph(self) -> GraphStorageBackend:
        if not self._guard.is_shared:
            shared = self._guard.known.record.stores.shared
            raise UnitOfWorkError(f"dependencies are kept in store {shared!r}, not with a system")
        return self._inner.graph

    @property
    def outbox(self) -> Outbox:
        return self._inner.outbox

    @property
    def is_open(self) -> bool:
        return self._inner.is_open

    @property
    def is_committed(self) -> bool:
        return self._inner.is_committed

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        return self._inner.savepoint()

    async def commit(self) -> None:
        with named(self._guard.name):
            await self._guard.record(self._inner)
            await self._inner.commit()
        self._guard.committed()

    async def rollback(self) -> None:
        await self._inner.rollback()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.rollback()


class RoutedUnitOfWork(PolarisUnitOfWork):
    """A unit of work that stays in the store of one system.

    It may touch other systems that are placed in the same store; one that is elsewhere is a `UnitOfWorkError`. Points
    carry the tag `system_id`, documents name their system, and so do queries. When the system is moved while it is
    open, `commit` raises `TransactionConflictError` with nothing written: repeated, it works where the system is now.
    Results that are saved in it belong to its system. `dependencies`, `patterns` and the graph are those of the shared
    store, and only to be had there.
    """

    store_name: str
    """The store that it works in."""

    @classmethod
    def of(cls, store: PolarisDataStore, guard: WorkGuard, transaction: StorageTransaction) -> RoutedUnitOfWork:
        """A unit of work over a transaction that has read the record of its store."""
        work = cls(store.engines[0], {name: store.repository(name) for name in REPOSITORIES})
        work._transaction = RoutedTransaction(transaction, guard)
        work.store_name = guard.name
        return work


REPOSITORIES = ("states", "actions", "results", "patterns", "dependencies")


async def opened(book: PlacementBook, system_id: str) -> RoutedUnitOfWork:
    """A unit of work in the store where the system is now."""
    for _ in range(ATTEMPTS_MAX):
        place = (await book.writable([system_id]))[system_id]
        if not isinstance(place, Place):
            raise place
        store = await book.store(place.store)
        transaction = store.engines[0].transaction()
        with named(place.store):
            known = await book.enter(transaction, place.store)
        if known is not None and known.version == place.seen:
            return RoutedUnitOfWork.of(store, WorkGuard(book, known, system_id, place), transaction)
        await transaction.rollback()
    raise TransactionConflictError(f"the place of {system_id!r} changes all the time; try again later")
