"""The store of a node, read beside it while it runs and by itself when it does not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from polaris.cli._waiting import Doing
from polaris.exceptions import StoreConnectionError
from polaris.runtime import DataFolder

if TYPE_CHECKING:
    from polaris.runtime import Settings
    from polaris.storage import PolarisDataStore

T = TypeVar("T")


def store_file(settings: Settings) -> Path:
    """The file of the running node's store, whatever configuration it runs with; without a node, the configured one."""
    running = DataFolder(settings.data_dir).running_node()
    return Path(running.store_path) if running is not None and running.store_path else settings.store_path


@asynccontextmanager
async def opened_store(settings: Settings) -> AsyncIterator[PolarisDataStore]:
    """The store, read-only. Raises `StoreConnectionError` when there is none yet."""
    from polaris.runtime._store import open_store
    from polaris.storage import PolarisDataStore

    if settings.store.engine == "postgresql":
        async with open_store(settings, read_only=True) as store:
            yield store
        return
    path = store_file(settings)
    if not path.exists():
        raise StoreConnectionError(f"there is no store at {path} yet; start a node with: polaris run")
    async with PolarisDataStore.sqlite(path, read_only=True) as store:
        yield store


def ask(settings: Settings, question: Callable[[PolarisDataStore], Awaitable[T]]) -> T:
    """The answer of the store to one question. Raises `StoreConnectionError` when there is none yet."""

    async def answer() -> T:
        async with opened_store(settings) as store:
            return await question(store)

    return Doing("reading the store").run(answer())
