"""Retention on a server when statements fail and callers are cancelled: a transaction is done or not, and no trace."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.faults.retention_acts import (
    ACTS,
    ROWS_MAX,
    Act,
    MovedClock,
    Stubborn,
    content,
    make_old,
    prepare,
    states_of,
)
from tests.faults.test_postgres_statements import Saboteur, saboteur, server
from tests.postgres_servers import PostgresServer

from polaris.exceptions import DataStoreError, StoreFullError
from polaris.storage import PolarisDataStore
from polaris.storage.backends.postgresql._link import Link
from polaris.storage.backends.shared import _timeseries as shared_timeseries

__all__ = ["saboteur", "server"]

schema_numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def _small_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_timeseries, "RETENTION_ROWS_MAX", ROWS_MAX)


def postgresql(server: PostgresServer) -> PolarisDataStore:
    schema = f"retention_{next(schema_numbers)}"
    return PolarisDataStore.postgresql(server.dsn, schema=schema, pool_max=2, partition_hours=1, clock=MovedClock())


@pytest.fixture
async def store(server: PostgresServer, saboteur: Saboteur) -> AsyncIterator[PolarisDataStore]:
    async with postgresql(server) as made:
        await prepare(made)
        yield made


async def sound_states(act: Act, server: PostgresServer) -> list[dict[str, Any]]:
    async with postgresql(server) as sound:
        await prepare(sound)
        return await states_of(act, sound)


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
async def test_retention_survives_the_failure_of_each_of_its_statements(
    act: Act, store: PolarisDataStore, server: PostgresServer, saboteur: Saboteur
) -> None:
    states = await sound_states(act, server)

    async def attempt(run: Callable[[], Awaitable[Any]], nth: int) -> tuple[bool, Any]:
        saboteur.arm(nth)
        try:
            return True, await run()
        except DataStoreError as error:
            assert isinstance(error, StoreFullError), error
            return False, None
        finally:
            saboteur.left = 0

    make_old(store)
    stubborn = Stubborn(store, act, states, attempt)
    await act(store)
    assert stubborn.at == len(states) - 1
    assert stubborn.attempts > 3 * len(states)
    stats = await store.engines[0].stats()
    assert stats["connections"] == stats["connections_idle"]


class Canceller:
    """Has the task that works for a test cancelled as it awaits its n-th statement."""

    def __init__(self) -> None:
        self.left = 0
        self.task: asyncio.Future[Any] | None = None

    async def watch(self, _: Link) -> None:
        if self.left:
            self.left -= 1
            if self.left == 0 and self.task is not None:
                asyncio.get_running_loop().call_soon(self.task.cancel)


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
async def test_retention_that_is_cancelled_at_any_statement_is_done_or_not(
    act: Act, store: PolarisDataStore, server: PostgresServer, saboteur: Saboteur, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = await sound_states(act, server)
    canceller = Canceller()
    monkeypatch.setattr(saboteur, "watch", canceller.watch)

    async def attempt(run: Callable[[], Awaitable[Any]], nth: int) -> tuple[bool | None, Any]:
        canceller.left = nth
        task = canceller.task = asyncio.ensure_future(run())
        await asyncio.wait([task])
        canceller.left = 0
        return (None, None) if task.cancelled() else (True, task.result())

    make_old(store)
    stubborn = Stubborn(store, act, states, attempt)
    await act(store)
    stubborn.release()
    assert await content(store, ACTS[act]) == states[-1]
    assert stubborn.attempts > 2 * len(states)
    stats = await store.engines[0].stats()
    assert stats["connections"] == stats["connections_idle"]
