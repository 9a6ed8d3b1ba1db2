"""The data store: repositories by name and type over the engines that keep them, and units of work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from os import PathLike
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, cast, overload, runtime_checkable

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import HealthStatus
from polaris.exceptions import ConfigurationError, DataStoreError, TransactionConflictError, UnitOfWorkError
from polaris.resilience import Backoff
from polaris.storage._backend import StorageBackend, StorageEngine, StoreHealth
from polaris.storage._documents import DocumentStorageBackend
from polaris.storage._graph import GraphStorageBackend
from polaris.storage._outbox import Outbox
from polaris.storage._repository import PORTS, Repository
from polaris.storage._timeseries import TimeSeriesStorageBackend
from polaris.storage._unit_of_work import PolarisUnitOfWork
from polaris.storage.repositories import (
    AdaptationActionRepository,
    ExecutionResultRepository,
    LearnedPatternRepository,
    SystemDependencyRepository,
    SystemStateRepository,
)

R = TypeVar("R", bound=Repository[Any])
T = TypeVar("T")

_CONFLICT_BACKOFF = Backoff(0.002, 0.1)


@runtime_checkable
class BacksUp(Protocol):
    """An engine that copies itself."""

    async def backup(self, destination: str | PathLike[str], *, force: bool = False) -> object: ...


@runtime_checkable
class Verifies(Protocol):
    """An engine that can be checked as a whole; `verify` gives what is wrong with it."""

    async def verify(self) -> list[str]: ...


class PolarisDataStore:
    """Everything that POLARIS remembers.

    `backends` maps "time_series", "documents" and "graph" to a backend each; an engine has all three, so giving the
    engine is enough. Usually they share one engine, as `sqlite` and `memory` arrange it; then a unit of work spans all
    of them. Whoever makes the store connects and disconnects it, or uses `async with`. Safe for many tasks at once.
    """

    def __init__(self, backends: Mapping[str, StorageBackend] | StorageEngine) -> None:
        if isinstance(backends, StorageEngine):
            backends = {name: getattr(backends, name) for name in PORTS}
        problems = [f"backends: {name!r} is missing" for name in PORTS if name not in backends]
        problems += [f"backends: {name!r} is none of {', '.join(PORTS)}" for name in backends if name not in PORTS]
        problems += [
            f"backends: {name!r} is no {PORTS[name].__name__}"
            for name, backend in backends.items()
            if name in PORTS and not isinstance(backend, PORTS[name])
        ]
        if problems:
            raise ConfigurationError(problems=problems)
        self.backends: Mapping[str, StorageBackend] = dict(backends)
        self.engines = tuple({id(backend.engine): backend.engine for backend in self.backends.values()}.values())
        self.states = SystemStateRepository(self.time_series)
        self.actions = AdaptationActionRepository(self.documents)
        self.results = ExecutionResultRepository(self.documents)
        self.patterns = LearnedPatternRepository(self.documents)
        self.dependencies = SystemDependencyRepository(self.graph)
        self._repositories: dict[str, Repository[Any]] = {
            "states": self.states,
            "actions": self.actions,
            "results": self.results,
            "patterns": self.patterns,
            "dependencies": self.dependencies,
        }

    @classmethod
    def memory(cls, *, clock: Clock = SYSTEM_CLOCK) -> PolarisDataStore:
        """A store that lives as long as the object."""
        from polaris.storage.backends.memory import InMemoryEngine

        return cls(InMemoryEngine(clock=clock))

    @classmethod
    def sqlite(cls, path: str | PathLike[str], *, read_only: bool = False, **options: Any) -> PolarisDataStore:
        """A store in one SQLite file. `read_only` may be used beside a process that writes. Options: `SqliteEngine`."""
        from polaris.storage.backends.sqlite import SqliteEngine

        return cls(SqliteEngine(path, read_only=read_only, **options))

    @classmethod
    def postgresql(
        cls, dsn: str, *, schema: str = "polaris", read_only: bool = False, **options: Any
    ) -> PolarisDataStore:
        """A store in a schema of a PostgreSQL database, which many processes may use. Options: `PostgresEngine`."""
        from polaris.storage.backends.postgresql import PostgresEngine

        return cls(PostgresEngine(dsn, schema=schema, read_only=read_only, **options))

    async def connect(self) -> None:
        """Connect every engine and create the indexes of the repositories. Idempotent; failing, it leaves none open."""
        connected: list[StorageEngine] = []
        try:
            for engine in self.engines:
                if not engine.is_connected:
                    connected.append(engine)
                    await engine.connect()
            if not any(engine.read_only for engine in self.engines):
                for repository in (self.actions, self.results, self.patterns):
                    await repository.prepare()
        except BaseException:  # boundary: undone, then raised again
            for engine in connected:
                await engine.disconnect()
            raise

    async def disconnect(self) -> None:
        """Finish what was accepted and close every engine, whatever fails; the first failure is raised. Idempotent."""
        failures: list[DataStoreError] = []
        for engine in self.engines:
            try:
                await engine.disconnect()
            except DataStoreError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.disconnect()

    @property
    def time_series(self) -> TimeSeriesStorageBackend:
        return cast(TimeSeriesStorageBackend, self.backends["time_series"])

    @property
    def documents(self) -> DocumentStorageBackend:
        return cast(DocumentStorageBackend, self.backends["documents"])

    @property
    def graph(self) -> GraphStorageBackend:
        return cast(GraphStorageBackend, self.backends["graph"])

    @property
    def outbox(self) -> Outbox:
        """The outbox that units of work write to: the one of the documents' engine."""
        return self.documents.engine.outbox

    @property
    def is_connected(self) -> bool:
        return all(engine.is_connected for engine in self.engines)

    def add_repository(self, name: str, repository: Repository[Any]) -> None:
        """Make a repository of one's own known under a name. Raises `ConfigurationError` when the name is taken."""
        if self._repositories.setdefault(name, repository) is not repository:
            raise ConfigurationError(f"repository name {name!r} is taken")

    @overload
    def repository(self, chosen: type[R]) -> R: ...
    @overload
    def repository(self, chosen: str) -> Repository[Any]: ...
    def repository(self, chosen: str | type[Repository[Any]]) -> Repository[Any]:
        """A repository by its name or exact type. Raises `DataStoreError` when there is none."""
        for name, repository in self._repositories.items():
            if chosen == name or chosen is type(repository):
                return repository
        raise DataStoreError(f"the store has no repository {chosen!r}", {"known": list(self._repositories)})

    def unit_of_work(self, engine: StorageEngine | None = None) -> PolarisUnitOfWork:
        """A new unit of work over one engine, which may be left out when the store has only one.

        Raises `UnitOfWorkError` when it has several: a transaction over two engines would be a fake.
        """
        if engine is None:
            if len(self.engines) > 1:
                names = ", ".join(engine.name for engine in self.engines)
                raise UnitOfWorkError(f"the models of this store are on several engines ({names}): name the one to use")
            engine = self.engines[0]
        if engine not in self.engines:
            raise UnitOfWorkError("the engine is not one of this store")
        return PolarisUnitOfWork(engine, self._repositories)

    async def in_unit_of_work(
        self,
        body: Callable[[PolarisUnitOfWork], Awaitable[T]],
        *,
        engine: StorageEngine | None = None,
        attempts_max: int = 10,
    ) -> T:
        """Run `body` in a unit of work, commit it, and give what it gave.

        When others changed what it was based on, all of it is done again in a new unit of work, after a pause of some
        milliseconds, at most `attempts_max` times in all; then the `TransactionConflictError` comes out. Nothing else
        is repeated. `body` may run several times, so what it does beside the store must bear that. One that has
        committed or rolled back by itself is left at that.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self.unit_of_work(engine) as work:
                    result = await body(work)
                    if work.is_open:
                        await work.commit()
                    return result
            except TransactionConflictError:
                if attempt >= attempts_max:
                    raise
            await asyncio.sleep(_CONFLICT_BACKOFF.delay_s(attempt))

    async def health(self) -> StoreHealth:
        """The worst of the engines; never raises."""
        healths = [await engine.health() for engine in self.engines]
        return next((health for health in healths if health.status is not HealthStatus.HEALTHY), healths[0])

    async def backup(self, destination: str | PathLike[str], *, force: bool = False) -> None:
        """Copy the store as it is now to a file of its own while everybody goes on; see `SqliteEngine.backup`.

        Raises `DataStoreError` where the engine makes no backups by itself (see the table of capabilities).
        """
        for engine in self.engines:
            if isinstance(engine, BacksUp) and len(self.engines) == 1:
                await engine.backup(destination, force=force)
                return
        names = ", ".join(engine.name for engine in self.engines)
        raise DataStoreError(f"a store on {names} makes no backups by itself: use the means of the server")

    async def verify(self) -> list[str]:
        """What is wrong with the store, as far as its engines can tell; an empty list when nothing is found.

        What is looked at differs: see `SqliteEngine.verify` and `PostgresEngine.verify`. Raises `DataStoreError` where
        an engine cannot be checked (see the table of capabilities): then nothing is looked at, and nothing is said.
        """
        checked = [engine for engine in self.engines if isinstance(engine, Verifies)]
        if len(checked) < len(self.engines):
            names = ", ".join(engine.name for engine in self.engines if not isinstance(engine, Verifies))
            raise DataStoreError(f"a store on {names} is not checked: it has nothing but what this process holds")
        return [finding for engine in checked for finding in await engine.verify()]

    async def stats(self) -> dict[str, dict[str, int | float]]:
        """The statistics of every engine, by its name."""
        return {engine.name: await engine.stats() for engine in self.engines}
