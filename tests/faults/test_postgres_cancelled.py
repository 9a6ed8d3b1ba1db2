"""Acts on a server cancelled at every await: all or nothing, and no connection leaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.faults.cancelled_acts import ACTS, Act, When, cancel_a_unit_at_every_await, cancel_at_every_await
from tests.faults.sizes import size
from tests.faults.test_postgres_statements import server
from tests.postgres_servers import PostgresServer

from polaris.storage import PolarisDataStore

__all__ = ["server"]

WHENS = size((When.AS_IT_WAKES, When.AND_AGAIN), tuple(When))


@pytest.fixture
async def store(server: PostgresServer) -> AsyncIterator[PolarisDataStore]:
    """Always the same schema: each act has keys of its own."""
    async with PolarisDataStore.postgresql(server.dsn, schema="cancelled", pool_max=2) as opened:
        yield opened


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
async def test_an_act_cancelled_at_any_of_its_awaits_is_done_or_not_at_all(act: Act, store: PolarisDataStore) -> None:
    async def check_leaks() -> None:
        stats = await store.engines[0].stats()
        assert stats["connections"] == stats["connections_idle"]

    tasks = asyncio.all_tasks()
    assert await cancel_at_every_await(store, act, check_leaks, WHENS)
    assert asyncio.all_tasks() == tasks


async def test_a_unit_of_work_tells_of_its_commit_wherever_it_was_cancelled(store: PolarisDataStore) -> None:
    assert await cancel_a_unit_at_every_await(store) == {False, True}
