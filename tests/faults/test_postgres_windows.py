"""A writer and the summariser of windows, stopped at each of their statements while the other works, or ended there.

Readers are asked at every stop: what they are told is what the points say.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg  # type: ignore[import-untyped] # it ships no types
import pytest
from tests.faults.retention_acts import MovedClock
from tests.postgres_servers import QUICK, PostgresServer

from polaris.exceptions import DataStoreError
from polaris.storage import PolarisDataStore, TimeRange, TimeSeriesPoint
from polaris.storage._rollups import RetentionPolicy, RollupPolicy
from polaris.storage.backends.postgresql import _window_reads, _windows
from polaris.storage.backends.postgresql._link import Link

T0 = datetime(2030, 1, 1, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
POLICY = RetentionPolicy(None, [RollupPolicy(MINUTE)])
BLOCKED_S = 0.06
"""How long one has before it counts as waiting for the other."""

actor: ContextVar[str] = ContextVar("actor", default="")
schema_numbers = itertools.count(1)
Act = Callable[[PolarisDataStore, datetime], Awaitable[Any]]


class Stage:
    """Calls one actor in before its n-th statement."""

    def __init__(self) -> None:
        self.name = ""
        self.left = 0
        self.cue: Callable[[Link], Awaitable[None]] | None = None

    def call(self, name: str, nth: int, cue: Callable[[Link], Awaitable[None]]) -> None:
        self.name, self.left, self.cue = name, nth, cue

    async def watch(self, link: Link) -> None:
        if self.left and actor.get() == self.name:
            self.left -= 1
            if self.left == 0 and self.cue is not None:
                await self.cue(link)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    found = Stage()
    for name in ("rows", "row", "value", "run", "copy", "begin", "commit"):

        def watched(original: Any) -> Any:
            async def call(link: Link, *arguments: Any, **more: Any) -> Any:
                await found.watch(link)
                return await original(link, *arguments, **more)

            return call

        monkeypatch.setattr(Link, name, watched(getattr(Link, name)))
    monkeypatch.setattr(_windows, "RAISE_WAIT_MS", 10)
    monkeypatch.setattr(_windows, "MARKS_FIRST", 1)
    monkeypatch.setattr(_windows, "MARKS_A_SLICE", 1)
    monkeypatch.setattr(_window_reads, "WINDOWS_MIN", 1)
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(15, QUICK) as started:
        yield started


@pytest.fixture
async def stores(server: PostgresServer, stage: Stage) -> AsyncIterator[tuple[PolarisDataStore, PolarisDataStore]]:
    clock, schema = MovedClock(T0), f"windows_{next(schema_numbers)}"
    made = PolarisDataStore.postgresql(server.dsn, schema=schema, pool_max=4, clock=clock)
    async with PolarisDataStore.memory(clock=clock) as memory, made:
        for store in (memory, made):
            await store.time_series.set_retention("m", POLICY)
        yield memory, made


def points(start: datetime, step: timedelta, count: int, value: float) -> list[TimeSeriesPoint]:
    return [
        TimeSeriesPoint(start + n * step, {"h": "ab"[n % 2]}, {"v": value + n / 8, "n": n, "on": True})
        for n in range(count)
    ]


# Each writes to windows that the frontier is just passing, and to some that it passed an hour ago.
async def write_one(store: PolarisDataStore, at: datetime) -> None:
    await store.time_series.store_many("m", points(at + MINUTE, SECOND, 1, 1e3))


async def write_some(store: PolarisDataStore, at: datetime) -> None:
    await store.time_series.store_many("m", [*points(at, 7 * SECOND, 9, 2e3), *points(at - HOUR, MINUTE, 3, 1.5)])


async def write_many(store: PolarisDataStore, at: datetime) -> None:
    await store.time_series.store_many("m", points(at - HOUR, 13 * SECOND, 300, 3e3))


async def write_new_series(store: PolarisDataStore, at: datetime) -> None:
    new = [TimeSeriesPoint(at + n * MINUTE, {"h": str(at.timestamp())}, {"v": 7, "w": 0.5}) for n in range(3)]
    await store.time_series.store_many("m", new)


async def write_in_a_blind_unit(store: PolarisDataStore, at: datetime) -> None:
    async with store.unit_of_work() as unit:
        await unit.documents.put_document("d", "one", {"at": at.isoformat()})
        await write_some(unit, at)  # type: ignore[arg-type] # it has the same ports
        await unit.commit()


async def write_in_a_unit_that_read(store: PolarisDataStore, at: datetime) -> None:
    async with store.unit_of_work() as unit:
        await unit.documents.get_document("d", "one")
        await write_some(unit, at)  # type: ignore[arg-type] # it has the same ports
        await unit.time_series.latest("m")
        await write_one(unit, at)  # type: ignore[arg-type] # it has the same ports
        await unit.commit()


async def delete_some(store: PolarisDataStore, at: datetime) -> None:
    await store.time_series.delete_range("m", TimeRange(at - HOUR + 90 * SECOND, at + 150 * SECOND), {"h": "a"})


async def delete_in_a_unit_that_read(store: PolarisDataStore, at: datetime) -> None:
    async with store.unit_of_work() as unit:
        await unit.documents.get_document("d", "one")
        await delete_some(unit, at)  # type: ignore[arg-type] # it has the same ports
        await unit.commit()


async def delete_a_series(store: PolarisDataStore, at: datetime) -> None:
    await store.time_series.delete_series("m", {"h": "b"})


WRITERS: list[Act] = [
    write_one, write_some, write_many, write_new_series, write_in_a_blind_unit, write_in_a_unit_that_read,
    delete_some, delete_in_a_unit_that_read, delete_a_series,
]  # fmt: skip


async def change_the_policy(store: PolarisDataStore, at: datetime) -> None:
    """Windows get another width each time."""
    width = MINUTE if at.hour % 2 else 2 * MINUTE
    await store.time_series.set_retention("m", RetentionPolicy(None, [RollupPolicy(width)]))


INTO_THE_SUMMARISER: list[Act] = [write_some, write_in_a_unit_that_read, delete_some, change_the_policy]


async def summarise(store: PolarisDataStore, _: datetime) -> None:
    await store.time_series.apply_retention("m")


def start(name: str, act: Act, store: PolarisDataStore, at: datetime) -> asyncio.Task[Any]:
    async def named() -> None:
        actor.set(name)
        await act(store, at)

    return asyncio.create_task(named())


async def told(store: PolarisDataStore, at: datetime) -> Any:
    span = TimeRange(at - 2 * HOUR, at + HOUR)
    names = ["count", "sum", "min", "max", "increase", "first", "last", "stddev"]
    rows = await store.time_series.aggregate_many("m", span, names, bucket=5 * MINUTE)
    for row in rows:  # squares are rounded one way and the other
        row.values["stddev"] = None if row.values["stddev"] is None else round(row.values["stddev"], 6)
    return [(row.timestamp, row.field, row.count, row.values) for row in rows]


async def set_the_scene(stores: tuple[PolarisDataStore, PolarisDataStore], number: int) -> datetime:
    """Windows of the hour before are summarised, those of this hour are about to be."""
    at = T0 + number * HOUR
    for store in stores:
        await store.time_series.store_many("m", points(at, 5 * SECOND, 100, 0.25))
    stores[1].engines[0].clock.time = at + 30 * MINUTE  # type: ignore[attr-defined] # the clock of this test
    return at


async def check_the_end(stores: tuple[PolarisDataStore, PolarisDataStore], at: datetime) -> None:
    memory, server = stores
    assert await told(server, at) == await told(memory, at)
    await summarise(server, at)
    assert await told(server, at) == await told(memory, at)
    async with server.engines[0]._pool.link() as link:  # type: ignore[attr-defined] # of its engine
        assert await link.value("SELECT count(*) FROM ts_marks") == 0
        assert await link.value("SELECT count(*) FROM ts_windows") > 0


async def interleave(
    stage: Stage, stores: tuple[PolarisDataStore, PolarisDataStore], stopped: Act, other: Act, writer: Act
) -> int:
    """Stop one before each of its statements for as long as the other works, or cannot; gives how many there are."""
    memory, server = stores
    for nth in itertools.count(1):
        at = await set_the_scene(stores, 3 * nth)
        before = await told(memory, at)
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def stop(_: Link, reached: asyncio.Event = reached, go_on: asyncio.Event = go_on) -> None:
            reached.set()
            await go_on.wait()

        stage.call("stopped", nth, stop)
        first = start("stopped", stopped, server, at)
        at_stop = asyncio.create_task(reached.wait())
        await asyncio.wait([first, at_stop], return_when=asyncio.FIRST_COMPLETED)
        at_stop.cancel()
        if not reached.is_set():
            await first
            return nth - 1
        if stopped is summarise:
            assert await told(server, at) == before
        second = start("other", other, server, at)
        await asyncio.wait([second], timeout=BLOCKED_S)
        go_on.set()
        await asyncio.gather(first, second)
        await writer(memory, at)
        await check_the_end(stores, at)
    raise AssertionError


@pytest.mark.parametrize("writer", WRITERS, ids=lambda act: act.__name__)
async def test_a_writer_that_is_stopped_anywhere_while_windows_are_summarised_is_counted(
    writer: Act, stage: Stage, stores: tuple[PolarisDataStore, PolarisDataStore]
) -> None:
    assert await interleave(stage, stores, writer, summarise, writer) >= 1


@pytest.mark.parametrize("writer", INTO_THE_SUMMARISER, ids=lambda act: act.__name__)
async def test_what_is_written_while_the_summariser_is_stopped_anywhere_is_counted(
    writer: Act, stage: Stage, stores: tuple[PolarisDataStore, PolarisDataStore]
) -> None:
    assert await interleave(stage, stores, summarise, writer, writer) > 20


async def test_two_summarisers_of_which_one_is_stopped_anywhere_do_the_work_of_one(
    stage: Stage, stores: tuple[PolarisDataStore, PolarisDataStore]
) -> None:
    async def nothing(_: PolarisDataStore, __: datetime) -> None:
        pass

    assert await interleave(stage, stores, summarise, summarise, nothing) > 20


async def test_a_summariser_whose_connection_is_ended_anywhere_leaves_what_is_true(
    stage: Stage, stores: tuple[PolarisDataStore, PolarisDataStore], server: PostgresServer
) -> None:
    executioner = await asyncpg.connect(server.dsn)

    async def end(link: Link) -> None:
        pid = link.connection.get_server_pid()
        await executioner.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)

    try:
        ended = 0
        for nth in itertools.count(1):
            at = await set_the_scene(stores, 3 * nth)
            stage.call("ended", nth, end)
            work = start("ended", summarise, stores[1], at)
            await asyncio.wait([work])
            if stage.left:
                await work
                break
            error = work.exception()
            assert error is None or isinstance(error, DataStoreError)  # one that only reads is tried again
            ended += error is not None
            await write_some(stores[0], at)
            await write_some(stores[1], at)
            await check_the_end(stores, at)
        assert ended > 20
    finally:
        await executioner.close()
