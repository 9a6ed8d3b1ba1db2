"""Writers and readers cancelled at every await: all or nothing, and nothing leaks."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.awake import until, within
from tests.faults.cancelled_acts import (
    ACTS,
    Act,
    Cancelling,
    When,
    cancel_a_unit_at_every_await,
    cancel_at_every_await,
)

from polaris.domain import MetricValue, SystemState
from polaris.exceptions import QueryError, StoreConnectionError
from polaris.storage import AggregationType, PolarisDataStore, SqliteEngine, TimeRange, TimeSeriesPoint

T0 = datetime(2030, 1, 1, tzinfo=UTC)


def states(round_number: int) -> list[SystemState]:
    readings = {f"m{round_number}": MetricValue(f"m{round_number}", 1.0, "s")}
    return [SystemState(f"sys-{round_number}", T0 + timedelta(seconds=n), readings) for n in range(20)]


async def test_save_many_cancelled_at_each_of_its_steps_is_done_or_not_at_all(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db", writes_queued_max=4)
    outcomes: set[int] = set()
    async with PolarisDataStore(engine) as store:
        for round_number in range(200):
            task = asyncio.create_task(store.states.save_many(states(round_number)))
            for _ in range(round_number % 100):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            found = await store.states.get_state_history(f"sys-{round_number}", TimeRange.all())
            assert found in ([], states(round_number))
            outcomes.add(len(found))
        await store.states.save_many(states(1_000))
        # Every place in the queue is free again: as many writers as there are places go through at once.
        assert engine._places is not None
        assert engine._places.free == 4
        assert (await store.stats())["sqlite"]["writes_queued"] == 0
    assert outcomes >= {0}


async def test_a_write_cancelled_behind_others_is_withdrawn(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db")
    async with PolarisDataStore(engine) as store:
        gate, running = threading.Event(), threading.Event()

        def hold(_session: object) -> None:
            running.set()
            gate.wait(20)

        first = asyncio.create_task(engine._write(hold, keep=True))
        while not running.is_set():
            await asyncio.sleep(0.001)
        second = asyncio.create_task(store.time_series.store_time_series("m", T0, {}, {"v": 1}))
        while len(engine._writer.queue) == 0:  # type: ignore[union-attr] # it is connected
            await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second  # at once, although the writer is busy
        gate.set()
        await first
        assert await store.time_series.query_time_series("m", TimeRange.all()) == []


async def test_a_full_queue_makes_writers_wait_and_lets_them_go_on(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db", writes_queued_max=2)
    async with PolarisDataStore(engine) as store:
        writes = [store.time_series.store_time_series("m", T0, {"n": str(n)}, {"v": n}) for n in range(50)]
        await asyncio.gather(*writes)
        assert len(await store.time_series.list_series("m")) == 50


async def test_a_cancelled_read_is_interrupted_and_its_connection_serves_the_next(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db", readers=1)
    async with PolarisDataStore(engine) as store:
        batch = [TimeSeriesPoint(T0 + timedelta(seconds=n), {}, {"v": float(n % 7)}) for n in range(30_000)]
        await store.time_series.store_many("m", batch)
        for steps in range(30):
            slow = asyncio.create_task(
                store.time_series.aggregate_time_series(
                    "m", TimeRange.all(), AggregationType.RATE, bucket=timedelta(seconds=2)
                )
            )
            for _ in range(steps):
                await asyncio.sleep(0)
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
            assert len(await store.time_series.latest("m")) == 1


async def test_a_read_cancelled_behind_others_is_not_begun(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db", readers=1)
    async with PolarisDataStore(engine):
        gate = threading.Event()
        begun: list[str] = []

        def hold(_session: object) -> None:
            begun.append("first")
            gate.wait(20)

        readers = engine._require_readers()
        first = asyncio.create_task(readers.run(hold))
        second = asyncio.create_task(readers.run(lambda _: begun.append("second")))
        third = asyncio.create_task(readers.run(lambda _: begun.append("third")))
        await until(lambda: bool(begun), "the first read has begun")
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second  # at once, although the only reader is busy
        gate.set()
        await asyncio.gather(first, third)
        assert begun == ["first", "third"]


async def test_reads_of_many_tasks_get_each_its_own_answer(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db", readers=3)

    def answer(number: int) -> int:
        if number % 7 == 0:
            raise QueryError(str(number))
        return number

    async with PolarisDataStore(engine):
        run = engine._require_readers().run
        reads = [run(lambda _, number=number: answer(number)) for number in range(200)]  # type: ignore[misc]
        answers = await asyncio.gather(*reads, return_exceptions=True)
    assert [one.message if isinstance(one, QueryError) else one for one in answers] == [
        str(number) if number % 7 == 0 else number for number in range(200)
    ]


async def test_disconnecting_finishes_the_reads_that_wait_for_a_reader(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db", readers=2)
    store = PolarisDataStore(engine)
    await store.connect()
    await store.graph.add_node("n")
    reads = [asyncio.create_task(store.graph.get_node("n")) for _ in range(12)]
    await asyncio.sleep(0)
    readers = engine._require_readers()
    await store.disconnect()
    async with within(5):
        nodes = await asyncio.gather(*reads)
    assert [node.node_id for node in nodes if node is not None] == ["n"] * 12
    with pytest.raises(StoreConnectionError):
        await readers.run(lambda _: None)


async def test_disconnecting_finishes_what_was_accepted(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db")
    store = PolarisDataStore(engine)
    await store.connect()
    writes = [
        asyncio.create_task(store.time_series.store_time_series("m", T0, {"n": str(n)}, {"v": n})) for n in range(40)
    ]
    await asyncio.sleep(0)
    await store.disconnect()
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert outcomes == [None] * 40
    async with store:
        assert len(await store.time_series.list_series("m")) == 40
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("polaris-store")]


async def test_a_connect_that_is_cancelled_leaves_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    for steps in range(12):
        store = PolarisDataStore.sqlite(path)
        task = asyncio.create_task(store.connect())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await store.disconnect()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("polaris-store")]
    async with PolarisDataStore.sqlite(path) as store:
        await store.graph.add_node("n")


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
async def test_an_act_cancelled_at_any_of_its_awaits_is_done_or_not_at_all(act: Act, tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db", writes_queued_max=4, readers=2)

    async def check_leaks() -> None:
        assert engine._places is not None
        assert engine._places.free == 4
        assert (await engine.stats())["writes_queued"] == 0

    async with PolarisDataStore(engine) as store:
        assert await cancel_at_every_await(store, act, check_leaks) == {False, True}
        assert await engine.verify() == []


async def test_a_unit_of_work_tells_of_its_commit_wherever_it_was_cancelled(tmp_path: Path) -> None:
    async with PolarisDataStore.sqlite(tmp_path / "store.db") as store:
        assert await cancel_a_unit_at_every_await(store) == {False, True}


@pytest.mark.parametrize("when", [When.AT_ONCE, When.AS_IT_WAKES])
async def test_a_write_cancelled_while_it_waits_for_a_place_takes_none(when: When, tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db", writes_queued_max=1)
    async with PolarisDataStore(engine) as store:
        for name in ("one", "two"):
            first = asyncio.create_task(store.graph.add_node(name))
            await asyncio.sleep(0)
            assert engine._places is not None
            assert engine._places.free == 0
            cancelling = Cancelling(1, when)
            assert not await cancelling.run(store.graph.add_node("cancelled"))
            await first
            assert engine._places.free == 1
        assert [node.node_id for node in await store.graph.find_nodes()] == ["one", "two"]
