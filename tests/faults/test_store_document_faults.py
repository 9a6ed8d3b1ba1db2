"""Bulk writes, expiry and indexes of documents under failing statements and cancellation: all of it or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.faults.test_store_statements import Saboteur

from polaris.exceptions import DataStoreError
from polaris.storage import DocumentChanges, PolarisDataStore, SqliteEngine
from polaris.testing import VirtualClock
from polaris.testing._document_expiry_promises import virtual_time

MINUTE = timedelta(minutes=1)
Act = Callable[[PolarisDataStore], Awaitable[object]]


@pytest.fixture
def saboteur() -> Iterator[Saboteur]:
    found = Saboteur()
    apsw.connection_hooks.append(found.watch)
    yield found
    apsw.connection_hooks.remove(found.watch)


async def put_many(store: PolarisDataStore) -> None:
    await store.documents.put_documents("d", [{"_id": str(n), "put": n} for n in range(-2, 12)], ttl=MINUTE)


async def take_what_expired_ones_hold(store: PolarisDataStore) -> None:
    await store.documents.insert_documents("d", [{"_id": "gone 0", "n": 100}, {"_id": "new", "n": 101}])


async def update_many(store: PolarisDataStore) -> None:
    changes = DocumentChanges(set={"deep.er": True}, increment={"count": 1})
    await store.documents.update_documents("d", {"n": {"$lt": 5}}, changes, ttl=MINUTE)


async def delete_many(store: PolarisDataStore) -> None:
    await store.documents.delete_documents("d", {"n": {"$lt": 5}})


async def purge(store: PolarisDataStore) -> None:
    await store.documents.purge_expired()


async def make_indexes(store: PolarisDataStore) -> None:
    await store.documents.create_index("d", "k", unique=True)


async def drop_index(store: PolarisDataStore) -> None:
    await store.documents.drop_index("d", "n")


async def fill(store: PolarisDataStore, clock: VirtualClock) -> None:
    """Documents that stay, that expire later, and that have expired while they hold unique values."""
    port = store.documents
    await port.create_index("d", "n", unique=True)
    await port.create_index("d", "k")
    await port.insert_documents("d", [{"_id": f"gone {n}", "n": 100 + n} for n in range(4)], ttl=MINUTE)
    clock.advance(60)
    await port.insert_documents("d", [{"_id": str(n), "n": n, "k": n} for n in range(8)])
    await port.insert_documents("d", [{"_id": "later", "n": -1}], ttl=MINUTE)


async def content(store: PolarisDataStore, clock: VirtualClock) -> list[Any]:
    """What there is now and what there will be in an hour, and the indexes."""
    port = store.documents
    found: list[Any] = [await port.find_documents("d"), await port.list_indexes("d")]
    clock.jump_wall(timedelta(hours=1))
    found.append(await port.find_documents("d"))
    clock.jump_wall(-timedelta(hours=1))
    return found


def strays(path: Path) -> int:
    """Expiries of documents that are gone."""
    reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        (number,) = reader.execute("SELECT id FROM doc_collections WHERE name = 'd'").fetchall()[0]
        found = reader.execute(f"SELECT id FROM doc_expiries WHERE id NOT IN (SELECT id FROM doc_{number})").fetchall()
        return len(found)
    finally:
        reader.close()


ACTS: list[Act] = [put_many, take_what_expired_ones_hold, update_many, delete_many, purge, make_indexes, drop_index]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
async def test_a_write_of_documents_survives_the_failure_of_each_of_its_statements(
    act: Act, tmp_path: Path, saboteur: Saboteur
) -> None:
    nth = 0
    outcomes: list[list[Any]] = []
    while True:
        nth += 1
        engine = SqliteEngine(tmp_path / f"{nth}.db")
        async with PolarisDataStore(engine) as store:
            with virtual_time(store.documents) as clock:
                await fill(store, clock)
                before = await content(store, clock)
                saboteur.arm(nth)
                try:
                    await act(store)
                    failed = False
                except DataStoreError:
                    failed = True
                fired, saboteur.left = saboteur.fired, 0
                if failed:
                    assert await content(store, clock) == before
                    await act(store)
                outcomes.append(await content(store, clock))
                assert await engine.verify() == []
                assert strays(engine.path) == 0
        if not fired:
            break
    assert nth > 3
    assert all(outcome == outcomes[-1] for outcome in outcomes)


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
async def test_a_write_of_documents_that_is_cancelled_is_done_entirely_or_not_at_all(act: Act, tmp_path: Path) -> None:
    async with PolarisDataStore.sqlite(tmp_path / "done.db") as store:
        with virtual_time(store.documents) as clock:
            await fill(store, clock)
            before = await content(store, clock)
            await act(store)
            after = await content(store, clock)
    for yields in range(12):
        async with PolarisDataStore.sqlite(tmp_path / f"{yields}.db") as store:
            with virtual_time(store.documents) as clock:
                await fill(store, clock)
                task = asyncio.ensure_future(act(store))
                for _ in range(yields):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert await content(store, clock) in (before, after)
                await store.documents.put_document("d", "alive", {})
