"""What every storage port and engine has in common: a life, a health and transactions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import msgspec

from polaris.domain import HealthStatus

if TYPE_CHECKING:
    from polaris.storage._documents import DocumentStorageBackend
    from polaris.storage._graph import GraphStorageBackend
    from polaris.storage._outbox import Outbox
    from polaris.storage._timeseries import TimeSeriesStorageBackend


class StoreHealth(msgspec.Struct, frozen=True):
    """How a store is doing: `healthy`, `unhealthy` (an operation just failed), or `unknown` (not connected)."""

    status: HealthStatus
    engine: str
    message: str = ""
    details: dict[str, Any] = {}


class StorageModels(Protocol):
    """Three models of one database: an engine, or a transaction on it."""

    @property
    def time_series(self) -> TimeSeriesStorageBackend: ...

    @property
    def documents(self) -> DocumentStorageBackend: ...

    @property
    def graph(self) -> GraphStorageBackend: ...


class StorageTransaction(StorageModels, Protocol):
    """A transaction in progress: its models see its own writes; nobody else does before `commit`.

    As a context manager it rolls back unless `commit` has returned: leaving, errors and cancellation all undo.
    """

    @property
    def outbox(self) -> Outbox: ...

    @property
    def is_open(self) -> bool: ...

    @property
    def is_committed(self) -> bool: ...

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """A part that can be undone alone: an error or cancellation inside takes back what was written in it.

        Leaving it without an error runs what was written in it, so that errors of these writes come there and not at
        the commit, and keeps it. Savepoints nest. Reads that were made in it count for the transaction even then: a
        decision may rest on them.
        """
        ...

    async def commit(self) -> None: ...

    async def rollback(self) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class StorageEngine(ABC):
    """One database with its three models. What a transaction can span is one engine, never two.

    `connect` before use and `disconnect` at the end, by whoever made it, or `async with engine:`.
    """

    name: str
    """Which engine, for people: `memory`, `sqlite`."""
    read_only: bool = False

    @property
    @abstractmethod
    def time_series(self) -> TimeSeriesStorageBackend: ...

    @property
    @abstractmethod
    def documents(self) -> DocumentStorageBackend: ...

    @property
    @abstractmethod
    def graph(self) -> GraphStorageBackend: ...

    @property
    @abstractmethod
    def outbox(self) -> Outbox: ...

    @property
    @abstractmethod
    def is_connected(self) -> bool: ...

    @abstractmethod
    async def connect(self) -> None:
        """Open the database and bring its schema up to date. Idempotent. When it raises, nothing is left open."""

    @abstractmethod
    async def disconnect(self) -> None:
        """Finish the writes that were accepted, then close. Idempotent."""

    @abstractmethod
    async def health(self) -> StoreHealth:
        """Ask the database itself; never raises."""

    @abstractmethod
    async def stats(self) -> dict[str, int | float]:
        """Counts since `connect` and present sizes, by name; units are the last part of the name."""

    @abstractmethod
    def transaction(self) -> StorageTransaction:
        """A new transaction; it begins with its first operation and holds nothing before."""

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.disconnect()


class StorageBackend(ABC):
    """One model of an engine. The ports of time series, documents and graph derive from it.

    Its life is the engine's: connecting or disconnecting one model of an engine does so for all of them.
    """

    @property
    @abstractmethod
    def engine(self) -> StorageEngine:
        """The database this model belongs to; equal engines can take part in one transaction."""

    async def connect(self) -> None:
        """Connect the engine. Idempotent."""
        await self.engine.connect()

    async def disconnect(self) -> None:
        """Disconnect the engine. Idempotent."""
        await self.engine.disconnect()

    async def health(self) -> StoreHealth:
        """The engine's health; never raises."""
        return await self.engine.health()

    def transaction(self) -> StorageTransaction:
        """A transaction over all models of the engine."""
        return self.engine.transaction()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.disconnect()
