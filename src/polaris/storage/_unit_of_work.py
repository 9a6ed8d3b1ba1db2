"""Several changes as one: all of them durable, or none."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from polaris.domain import PolarisEvent
from polaris.exceptions import UnitOfWorkError
from polaris.storage._backend import StorageEngine
from polaris.storage._documents import DocumentStorageBackend
from polaris.storage._graph import GraphStorageBackend
from polaris.storage._outbox import Outbox
from polaris.storage._repository import Repository
from polaris.storage._timeseries import TimeSeriesStorageBackend

if TYPE_CHECKING:
    from polaris.storage.repositories import (
        AdaptationActionRepository,
        ExecutionResultRepository,
        LearnedPatternRepository,
        SystemDependencyRepository,
        SystemStateRepository,
    )

R = TypeVar("R", bound=Repository[Any])


class PolarisUnitOfWork:
    """One ACID transaction over time series, documents, graph and outbox of one engine.

        async with store.unit_of_work() as work:
            await work.actions.save(action)
            await work.results.save(result)
            await work.publish("polaris.executions.web", ExecutionResultEvent(result=result))
            await work.commit()

    Only `commit` makes it last; leaving without it, an error, and cancellation undo everything. Reads see the writes
    made in it; nobody else does before the commit. However long it stays open, it locks nothing and holds up nobody;
    in return the commit is refused with `TransactionConflictError` when others changed what it was based on, and then
    it is to be repeated from the beginning, as `PolarisDataStore.in_unit_of_work` does. Its bounds and isolation: see
    `StorageTransaction` and docs/adr/0002-unit-of-work.md.
    Used by one task at a time, once; every use after its end is a `UnitOfWorkError`.
    """

    def __init__(self, engine: StorageEngine, repositories: dict[str, Repository[Any]]) -> None:
        self._engine = engine
        self._originals = repositories
        self._bound: dict[int, Repository[Any]] = {}
        self._entered = False
        self._transaction = engine.transaction()

    async def __aenter__(self) -> Self:
        if self._entered:
            raise UnitOfWorkError("a unit of work is entered once; ask the store for a new one")
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transaction.rollback()

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """A part that can be undone alone, with `async with`: an error inside takes back what was written in it.

            with suppress(ConflictError):
                async with work.savepoint():
                    await work.documents.insert_document("names", {"_id": "web"})

        The error comes out and the unit of work goes on. Errors of the writes inside come at its end at the latest.
        Savepoints nest; `commit` within one is a `UnitOfWorkError`.
        """
        return self._transaction.savepoint()

    async def commit(self) -> None:
        """Make everything durable at once and end the unit of work.

        Raises `TransactionConflictError`, `ConflictError`, `StoreFullError` or another `DataStoreError`: then nothing
        was written, but for `UnconfirmedWriteError`, which says that nobody knows. Cancelled before the store took it,
        nothing was written; cancelled later, it is waited for and done entirely.
        """
        await self._transaction.commit()

    async def rollback(self) -> None:
        """Undo everything and end the unit of work. Idempotent."""
        await self._transaction.rollback()

    @property
    def is_open(self) -> bool:
        """Whether it can still be used."""
        return self._transaction.is_open

    @property
    def is_committed(self) -> bool:
        """Whether everything was made durable; tells it also when `commit` was cancelled."""
        return self._transaction.is_committed

    @property
    def time_series(self) -> TimeSeriesStorageBackend:
        """The time series port inside this transaction."""
        return self._transaction.time_series

    @property
    def documents(self) -> DocumentStorageBackend:
        """The document port inside this transaction."""
        return self._transaction.documents

    @property
    def graph(self) -> GraphStorageBackend:
        """The graph port inside this transaction."""
        return self._transaction.graph

    @property
    def outbox(self) -> Outbox:
        """The outbox inside this transaction."""
        return self._transaction.outbox

    async def publish(self, topic: str, event: PolarisEvent) -> None:
        """Have the event published after the commit, at least once; not at all without it."""
        await self._transaction.outbox.add(topic, event)

    @overload
    def repository(self, chosen: type[R]) -> R: ...
    @overload
    def repository(self, chosen: R) -> R: ...
    @overload
    def repository(self, chosen: str) -> Repository[Any]: ...
    def repository(self, chosen: str | type[Repository[Any]] | Repository[Any]) -> Repository[Any]:
        """A repository of the store, by name, type or itself, whose work is a part of this transaction.

        Raises `UnitOfWorkError` when it lives on another engine or there is none.
        """
        original = self._original(chosen)
        if original.storage_backend.engine is not self._engine:
            raise UnitOfWorkError(
                f"{type(original).__name__} is on another engine; one transaction cannot span two",
                {"engine": self._engine.name, "other": original.storage_backend.engine.name},
            )
        bound = self._bound.get(id(original))
        if bound is None:
            port = getattr(self._transaction, original.model)
            bound = self._bound[id(original)] = type(original)(port)
        return bound

    def _original(self, chosen: str | type[Repository[Any]] | Repository[Any]) -> Repository[Any]:
        if isinstance(chosen, Repository):
            return chosen
        for name, repository in self._originals.items():
            if chosen == name or chosen is type(repository):
                return repository
        raise UnitOfWorkError(f"the store has no repository {chosen!r}")

    @property
    def states(self) -> SystemStateRepository:
        from polaris.storage.repositories import SystemStateRepository

        return self.repository(SystemStateRepository)

    @property
    def actions(self) -> AdaptationActionRepository:
        from polaris.storage.repositories import AdaptationActionRepository

        return self.repository(AdaptationActionRepository)

    @property
    def results(self) -> ExecutionResultRepository:
        from polaris.storage.repositories import ExecutionResultRepository

        return self.repository(ExecutionResultRepository)

    @property
    def patterns(self) -> LearnedPatternRepository:
        from polaris.storage.repositories import LearnedPatternRepository

        return self.repository(LearnedPatternRepository)

    @property
    def dependencies(self) -> SystemDependencyRepository:
        from polaris.storage.repositories import SystemDependencyRepository

        return self.repository(SystemDependencyRepository)
