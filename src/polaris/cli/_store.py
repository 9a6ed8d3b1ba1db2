"""The store of a node, read beside it while it runs and by itself when it does not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from polaris.cli._waiting import Doing
from polaris.exceptions import ConfigurationError, StoreConnectionError
from polaris.runtime import DataFolder

if TYPE_CHECKING:
    from polaris.runtime import Settings
    from polaris.storage import PolarisDataStore, PostgresEngine

T = TypeVar("T")


def store_file(settings: Settings) -> Path:
    """The file of the running node's store, whatever configuration it runs with; without a node, the configured one."""
    running = DataFolder(settings.data_dir).running_node()
    return Path(running.store_path) if running is not None and running.store_path else settings.store_path


def existing_file(settings: Settings) -> Path:
    """As `store_file`. Raises `StoreConnectionError` when it does not exist, or the node's store is no file."""
    running = DataFolder(settings.data_dir).running_node()
    if running is not None and not running.store_path:
        raise StoreConnectionError(
            f"the node {running.name!r} (pid {running.pid}) has its store on a server; give its file with --config",
            {"pid": running.pid},
        )
    path = store_file(settings)
    if not path.exists():
        raise StoreConnectionError(f"there is no store at {path} yet; start a node with: polaris run")
    return path


def require_file(settings: Settings, verb: str, instead: str) -> None:
    """Raises `ConfigurationError` for a store that is no file, with what to do `instead`; `{schema}` is its schema."""
    if settings.store.engine == "postgresql":
        instead = instead.format(schema=settings.store.schema)
        raise ConfigurationError(
            problems=[f"polaris store {verb}: is for a store in a file, this one is on PostgreSQL; {instead}"]
        )


def whereabouts(settings: Settings) -> str:
    """Which store on a server, without anything of its address."""
    return f"PostgreSQL, schema {settings.store.schema}"


@asynccontextmanager
async def store_on_server(settings: Settings) -> AsyncIterator[PostgresEngine]:
    """The engine of the one server that the settings name, read-only. Raises as `open_store` does."""
    from polaris.runtime._store import open_store
    from polaris.storage import PostgresEngine

    async with open_store(settings, read_only=True) as store:
        (engine,) = store.engines
        assert isinstance(engine, PostgresEngine)  # noqa: S101 # as the settings say
        yield engine


@asynccontextmanager
async def opened_store(settings: Settings) -> AsyncIterator[PolarisDataStore]:
    """The store, read-only. Raises `StoreConnectionError` when there is none yet."""
    from polaris.runtime._store import open_store
    from polaris.storage import PolarisDataStore

    if settings.store.engine == "postgresql":
        async with open_store(settings, read_only=True) as store:
            yield store
        return
    async with PolarisDataStore.sqlite(existing_file(settings), read_only=True) as store:
        yield store


def ask(settings: Settings, question: Callable[[PolarisDataStore], Awaitable[T]]) -> T:
    """The answer of the store to one question. Raises `StoreConnectionError` when there is none yet."""

    async def answer() -> T:
        async with opened_store(settings) as store:
            return await question(store)

    return Doing("reading the store").run(answer())
