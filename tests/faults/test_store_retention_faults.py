"""Retention when statements fail and callers are cancelled: a transaction is done or not, and the next try ends it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.faults.retention_acts import (
    ACTS,
    POLICIES,
    ROWS_MAX,
    Act,
    MovedClock,
    Stubborn,
    content,
    make_old,
    prepare,
    retire_and_unite,
    states_of,
    united,
)
from tests.faults.sizes import size
from tests.faults.test_store_statements import Saboteur, saboteur

from polaris.exceptions import DataStoreError
from polaris.storage import PolarisDataStore, SqliteEngine, TimeRange
from polaris.storage.backends.shared import _timeseries as shared_timeseries

__all__ = ["saboteur"]

EVERY = size(17, 1)
"""Of the statements of the writer's own work, one in so many fails."""


@pytest.fixture(autouse=True)
def _small_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_timeseries, "RETENTION_ROWS_MAX", ROWS_MAX)


def sqlite(path: Path) -> PolarisDataStore:
    """Most of what `prepare` stores is soon in the cold table."""
    return PolarisDataStore(SqliteEngine(path, clock=MovedClock(), hot_rows_max=40, slice_rows=20))


async def prepare_sqlite(store: PolarisDataStore) -> None:
    """The same rows are cold each time, and none are moved later, so that slices are the same as well."""
    await prepare(store)
    await store.engines[0].compact(rewrite_file=False)  # type: ignore[attr-defined] # SQLite
    done, idle = 0, 0
    while idle < 5:  # until the windows of what is cold are summarised, which the writer does when nobody writes
        await asyncio.sleep(0.02)
        slices = (await store.stats())["sqlite"]["rollup_slices"]
        done, idle = int(slices), idle + 1 if slices == done else 0
    assert done > 0


@pytest.fixture
async def store(tmp_path: Path, saboteur: Saboteur) -> AsyncIterator[PolarisDataStore]:
    async with sqlite(tmp_path / "store.db") as made:
        await prepare_sqlite(made)
        yield made


async def sound_states(act: Act, path: Path) -> list[dict[str, Any]]:
    async with sqlite(path) as sound:
        await prepare_sqlite(sound)
        return await states_of(act, sound)


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
async def test_retention_survives_the_failure_of_each_of_its_statements(
    act: Act, store: PolarisDataStore, tmp_path: Path, saboteur: Saboteur
) -> None:
    states = await sound_states(act, tmp_path / "sound.db")

    async def attempt(run: Callable[[], Awaitable[Any]], nth: int) -> tuple[bool, Any]:
        saboteur.arm(nth)
        try:
            return True, await run()
        except DataStoreError:
            return False, None
        finally:
            saboteur.left = 0

    make_old(store)
    stubborn = Stubborn(store, act, states, attempt)
    await act(store)
    assert stubborn.at == len(states) - 1
    assert stubborn.attempts > 3 * len(states)
    assert await store.engines[0].verify() == []  # type: ignore[attr-defined] # SQLite


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
async def test_retention_that_is_cancelled_at_any_await_is_done_or_not(
    act: Act, store: PolarisDataStore, tmp_path: Path
) -> None:
    states = await sound_states(act, tmp_path / "sound.db")

    async def attempt(run: Callable[[], Awaitable[Any]], nth: int) -> tuple[bool | None, Any]:
        task = asyncio.ensure_future(run())
        for _ in range(2 ** (nth - 1) - 1):  # none: it has not even begun
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return (None, None) if task.cancelled() else (True, task.result())

    make_old(store)
    stubborn = Stubborn(store, act, states, attempt)
    await act(store)
    stubborn.release()
    assert await content(store, ACTS[act]) == states[-1]
    assert stubborn.attempts > len(states)
    assert (await store.stats())["sqlite"]["writes_queued"] == 0
    assert await store.engines[0].verify() == []  # type: ignore[attr-defined] # SQLite


@pytest.mark.timeout(size(120, 1_800))
async def test_what_the_writer_does_by_itself_survives_the_failure_of_each_of_its_statements(
    tmp_path: Path, saboteur: Saboteur
) -> None:
    """Compaction, summaries and retention, from the first statement after the start until a run passes."""
    template = tmp_path / "template.db"
    async with sqlite(template) as store:
        await prepare(store)
    async with sqlite(tmp_path / "sound.db") as sound:
        await prepare(sound)
        make_old(sound)
        before = united(await content(sound))
        for name in POLICIES:
            await sound.time_series.apply_retention(name)
        expected = await content(sound)
    for nth in itertools.count(1, EVERY):
        path = tmp_path / f"{nth}.db"
        path.write_bytes(template.read_bytes())
        store = sqlite(path)
        make_old(store)
        saboteur.arm(nth)
        if not await _let_work(store, expected, before, saboteur):
            break
    assert nth > 200


async def test_policies_that_could_not_be_read_are_soon_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sqlite(tmp_path / "store.db") as store:
        await prepare(store)
        before = united(await content(store))
    failures = iter([True])

    def fail_once(_: object, sql: str, __: object) -> bool:
        if "FROM ts_policies ORDER BY" in sql and next(failures, False):
            raise apsw.IOError("sabotage")
        return True

    def watch(connection: apsw.Connection) -> None:
        connection.exec_trace = fail_once

    monkeypatch.setattr(apsw, "connection_hooks", [*apsw.connection_hooks, watch])
    store = sqlite(tmp_path / "store.db")
    make_old(store)
    async with store, asyncio.timeout(20):
        while len(await store.time_series.query_time_series("united", TimeRange.all())) > 2 * 2:
            await store.graph.add_node("each write lets the writer do a part")
        assert united(await content(store)) == before
        assert not next(failures, False)


async def _let_work(store: PolarisDataStore, expected: Any, before: Any, saboteur: Saboteur) -> bool:
    """Open the store and wait until all that is old is retired; whether something failed on the way."""
    try:
        await store.connect()
    except DataStoreError:
        return True
    try:
        async with asyncio.timeout(20):  # a failure must not put it off until the next round
            while (found := await content(store)) != expected:
                assert united(found) == before
                with suppress(DataStoreError):
                    await store.graph.add_node("each write lets the writer do a part")
        assert await store.engines[0].verify() == []  # type: ignore[attr-defined] # SQLite
        saboteur.left = 0
        await store.graph.add_node("and now nothing fails any more")
        assert (await store.health()).status == "healthy"
    finally:
        saboteur.left = 0
        await store.disconnect()
    return saboteur.fired


async def test_a_store_in_memory_is_cancelled_between_two_transactions_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async with PolarisDataStore.memory(clock=MovedClock()) as sound:
        await prepare(sound)
        states = await states_of(retire_and_unite, sound)
    for turns in range(100):
        async with PolarisDataStore.memory(clock=MovedClock()) as store:
            await prepare(store)
            make_old(store)
            task = asyncio.ensure_future(retire_and_unite(store))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert await content(store, ACTS[retire_and_unite]) in states
            await retire_and_unite(store)
            assert await content(store, ACTS[retire_and_unite]) == states[-1]
            if not task.cancelled():
                break
    assert turns > len(states)
