"""Moves between stores that fail, are cancelled or killed at any step: every write is there once, and the move ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from tests.faults import routing_child
from tests.faults.killed_child import run_and_kill
from tests.faults.sizes import size
from tests.postgres_servers import QUICK, VERSIONS, PostgresServer
from tests.routed_stores import ALL, PAUSE, T0, Pause, Trouble, check_tidy, engine_of, memory_stores, other_than, state

from polaris.domain import AdaptationAction, ExecutionResult, ExecutionStatus
from polaris.exceptions import ConflictError, StoreConnectionError
from polaris.storage import PolarisDataStore, TimeRange
from polaris.storage._routing import RoutedDataStore
from polaris.storage._routing_work import RoutedUnitOfWork
from polaris.storage.backends.postgresql import PostgresEngine
from polaris.testing import VirtualClock

SECONDS = range(0, 4_000, 400)


async def fill(routed: RoutedDataStore) -> None:
    """States in several windows and forms, actions, results, and a system that stays."""
    await routed.save_many(
        [state(one, second, second, f"u{second % 3}") for one in ("web", "db") for second in SECONDS]
    )
    for number in range(3):
        await routed.in_unit_of_work("web", partial(save_action, number=number, system_id="web"))
    await routed.in_unit_of_work("web", lambda work: save_action(work, 1, "web"))


async def actions_of(system_id: str, store: PolarisDataStore) -> list[AdaptationAction]:
    return await store.actions.find_by_system(system_id, limit=100_000)


async def save_action(work: RoutedUnitOfWork, number: int, system_id: str) -> None:
    await work.actions.save(AdaptationAction(f"a-{number}", "scale", system_id, created_at=T0))
    await work.results.save(ExecutionResult(f"a-{number}", ExecutionStatus.SUCCESS, completed_at=T0))


async def write_on(routed: RoutedDataStore) -> None:
    """What others do while a move rests: a new state, a late one, one that is replaced, one deleted, new actions."""
    await routed.save_many([state("web", 9_000, 9), state("web", -9_000, 8), state("web", 400, 7)])

    async def act(work: RoutedUnitOfWork) -> None:
        await work.time_series.delete_range("system_states", SPAN, {"system_id": "web"})
        await work.actions.delete("a-0")
        await save_action(work, 9, "web")

    await routed.in_unit_of_work("web", act)


SPAN = TimeRange(state("x", 800).timestamp, state("x", 801).timestamp)


async def content(routed: RoutedDataStore) -> tuple[object, ...]:
    """All that is known of the system, read as anybody would."""
    # Questions to all come first: reading a system finishes the last step of its move, and they must do without.
    return (
        [summary.system_id for summary in await routed.systems()],
        await routed.aggregate_many("system_states", ALL, ["count", "sum", "first", "last", "p90"], fields=["x"]),
        await routed.get_state_history("web", ALL),
        await routed.get_current_state("web"),
        await routed.read("web", lambda store: store.actions.find_by_system("web")),
        await routed.read("web", lambda store: store.results.find_by_actions([f"a-{n}" for n in range(10)])),
        await routed.get_state_history("db", ALL),
    )


async def expected(*, written: bool) -> tuple[object, ...]:
    """What a store without any trouble holds."""
    async with RoutedDataStore(memory_stores("a")) as routed:
        await fill(routed)
        if written:
            await write_on(routed)
        return await content(routed)


@pytest.mark.slow
@pytest.mark.parametrize("is_late", [False, True], ids=["before it was done", "after it was done"])
@pytest.mark.parametrize("is_written", [False, True], ids=["left alone", "written meanwhile"])
async def test_a_move_survives_the_failure_of_each_of_its_operations(*, is_late: bool, is_written: bool) -> None:
    quiet, written = await expected(written=False), await expected(written=is_written)
    nth = 0
    while True:
        nth += 1
        trouble = Trouble()
        stores = memory_stores(trouble=trouble)
        async with RoutedDataStore(stores) as routed:
            await fill(routed)
            to = other_than(stores, await routed.store_of("web"))
            trouble.arm(nth, is_late=is_late)
            try:
                await routed.move_system("web", to)
                failed = False
            except StoreConnectionError:
                failed = True
            fired, trouble.left = trouble.fired, 0
            # Another node knows nothing of it, and sees all.
            async with RoutedDataStore(stores) as other:
                assert await content(other) == quiet
                if is_written:
                    await write_on(other)
                assert await content(other) == written
                assert await content(routed) == written
                if nth % 2:
                    await other.resume_moves()
                await other.move_system("web", to)
                assert await other.store_of("web") == to
                assert await content(routed) == written
                await check_tidy(other, ["web", "db"])
                await other.move_system("web", other_than(stores, to))
                assert await content(other) == written
                await check_tidy(routed, ["web", "db"])
        if not fired:
            assert not failed
            break
    assert nth > 50


async def test_a_move_that_is_cancelled_at_any_await_is_finished_by_the_next() -> None:
    written = await expected(written=True)
    steps = 0
    while True:
        stores = memory_stores()
        async with RoutedDataStore(stores) as routed:
            await fill(routed)
            to = other_than(stores, await routed.store_of("web"))
            task = asyncio.create_task(routed.move_system("web", to))
            for _ in range(steps):
                await asyncio.sleep(0)
            ended = task.done()
            task.cancel()
            await asyncio.wait([task])
            await write_on(routed)
            assert await content(routed) == written
            await routed.resume_moves()
            await routed.move_system("web", to)
            assert await content(routed) == written
            await check_tidy(routed, ["web", "db"])
        if ended:
            break
        steps += 1
    assert steps > 50


async def test_a_write_that_is_cancelled_at_any_await_is_done_or_not() -> None:
    for steps in range(60):
        async with RoutedDataStore(memory_stores()) as routed:
            await fill(routed)
            task = asyncio.create_task(routed.save_many([state("web", 9_000), state("web", 9_001)]))
            for _ in range(steps):
                await asyncio.sleep(0)
            ended = task.done()
            task.cancel()
            await asyncio.wait([task])
            assert len(await routed.get_state_history("web", ALL)) - len(SECONDS) in ((2,) if ended else (0, 2))
            await routed.move_system("web", other_than(routed.stores, await routed.store_of("web")))
            await check_tidy(routed, ["web", "db"])
            if ended:
                return
    pytest.fail("a write takes more turns than this test looks at")


async def test_a_mover_that_was_overtaken_can_do_nothing_any_more() -> None:
    written = await expected(written=True)
    nth = 0
    while True:
        nth += 1
        stores = memory_stores()
        routed, other = RoutedDataStore(stores), RoutedDataStore(stores)
        await routed.connect()
        await other.connect()
        await fill(routed)
        home = await routed.store_of("web")
        to = other_than(stores, home)
        pause = Pause(nth)
        PAUSE.set(pause)
        slow = asyncio.create_task(routed.move_system("web", to))
        PAUSE.set(None)
        paused = asyncio.create_task(pause.reached.wait())
        await asyncio.wait([slow, paused], return_when=asyncio.FIRST_COMPLETED)
        paused.cancel()
        if slow.done():
            break
        # While it sleeps another node finishes the move, moves the system back, and it is written at home again.
        await other.resume_moves()
        await other.move_system("web", to)
        if nth % 2:
            await other.move_system("web", home)
        await write_on(other)
        pause.over.set()
        await asyncio.wait([slow])
        assert slow.exception() is None or isinstance(slow.exception(), ConflictError)
        assert await content(other) == written
        await other.resume_moves()
        assert await content(other) == written
        await check_tidy(other, ["web", "db"])
    assert nth > 50


async def test_a_copy_that_was_given_up_is_never_taken_for_a_part_of_the_next() -> None:
    written = await expected(written=True)
    for nth in range(8, 60, 3):
        trouble = Trouble()
        stores = memory_stores(trouble=trouble)
        async with RoutedDataStore(stores) as routed:
            await fill(routed)
            home = await routed.store_of("web")
            to = other_than(stores, home)
            trouble.arm(nth, is_late=True)
            with suppress(StoreConnectionError):
                await routed.move_system("web", to)
            trouble.left = 0
            if (await routed.store_of("web")) == to or not await routed.moves():
                continue
            engine_of(stores[to]).is_away = True
            with pytest.raises(StoreConnectionError):
                await routed.abandon_move("web")
            await write_on(routed)
            engine_of(stores[to]).is_away = False
            assert await content(routed) == written
            await routed.move_system("web", to)
            assert await content(routed) == written
            await check_tidy(routed, ["web", "db"])


async def test_writers_take_a_system_back_whose_mover_died_in_the_last_step() -> None:
    stores = memory_stores()
    clock = VirtualClock(auto_advance=True)
    async with RoutedDataStore(stores, clock=clock) as routed:
        await fill(routed)
        home = await routed.store_of("web")
        await _died_frozen(stores, home, other_than(stores, home))
        began = clock.monotonic()
        await write_on(routed)
        assert 5.0 <= clock.monotonic() - began < 6.0
        assert await content(routed) == await expected(written=True)
        await write_on(routed)
        assert clock.monotonic() - began < 6.0
        await routed.resume_moves()
        assert await routed.store_of("web") == other_than(stores, home)
        assert await content(routed) == await expected(written=True)
        await check_tidy(routed, ["web", "db"])


async def _died_frozen(stores: dict[str, PolarisDataStore], home: str, to: str) -> None:
    """Have a move at the point between the freeze and the switch, with nobody that carries it on."""
    source, target = engine_of(stores[home]), engine_of(stores[to])
    mover = RoutedDataStore(stores)
    await mover.connect()
    task = asyncio.create_task(mover.move_system("web", to))
    while not await _is_frozen(stores[home]):
        await asyncio.sleep(0)
    source.is_away = target.is_away = True
    await asyncio.wait([task])
    source.is_away = target.is_away = False
    assert isinstance(task.exception(), StoreConnectionError)
    assert await _is_frozen(stores[home])


async def _is_frozen(store: PolarisDataStore) -> bool:
    document = await store.documents.get_document("polaris.routing", "store")
    assert document is not None
    return bool(document["moves"].get("web", {}).get("phase") == "frozen")


@pytest.fixture(scope="module", params=size(VERSIONS[:1], VERSIONS), ids=lambda version: f"PostgreSQL {version}")
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    found = PostgresServer(request.param, QUICK)
    try:
        found.create()
        found.start()
        yield found
    finally:
        found.close()


WRITES_EVERY_S, READS_EVERY_S = 0.01, 0.1


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_system_moves_between_databases_of_servers_while_it_is_written(server: PostgresServer) -> None:
    stores = {name: PolarisDataStore(PostgresEngine(server.dsn, schema=f"store_{name}")) for name in "abc"}
    async with RoutedDataStore(stores) as routed:
        await fill(routed)
        written: list[int] = []
        done = asyncio.Event()

        async def write(first: int) -> None:
            for second in range(first, 100_000, 2):
                await routed.save_many([state("web", 10_000 + second, second), state("db", 10_000 + second, second)])
                written.append(second)
                await routed.in_unit_of_work("web", lambda work: save_action(work, first, "web"), attempts_max=100)
                if done.is_set():
                    return
                # Without a pause the slower of two machines would write the more: every move takes it longer.
                await asyncio.sleep(WRITES_EVERY_S)

        async def read() -> None:
            while not done.is_set():
                await asyncio.sleep(READS_EVERY_S)
                before = len(written)
                history = await routed.get_state_history("web", ALL)
                assert len(history) >= len(SECONDS) + before
                (row,) = await routed.aggregate_many("system_states", ALL, ["count"], fields=["x"])
                assert row.count >= 2 * (len(SECONDS) + before)
                assert row.count <= 2 * (len(SECONDS) + len(written) + 2)

        others = [asyncio.create_task(one) for one in (write(0), write(1), read())]
        try:
            for to in "abcacb":
                await routed.move_system("web", to)
        finally:
            done.set()
            await asyncio.gather(*others)
        assert await routed.store_of("web") == "b"
        for system_id in ("web", "db"):
            found = [one.metrics["x"].value for one in await routed.get_state_history(system_id, ALL)]
            assert found == [*SECONDS, *sorted(written)]
        await check_tidy(routed, ["web", "db"])


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_nothing_acknowledged_is_lost_or_doubled_when_a_mover_is_killed(tmp_path: Path) -> None:
    chance = random.Random(20300102)
    batches: set[int] = set()
    works: dict[int, str] = {}
    moved = 0
    for round_number in range(size(8, 50)):
        said = await run_and_kill(
            routing_child.__file__, tmp_path, round_number * 1_000_000, after_lines=chance.randint(1, 250)
        )
        for line in said:
            kind, *rest = line.split()
            if kind == "batch":
                batches.add(int(rest[0]))
            elif kind == "work":
                works[int(rest[0])] = rest[1]
            moved += kind == "moved"
        async with routing_child.routed_at(tmp_path) as routed:
            # Half the rounds look before anybody has cleared up.
            if round_number % 2:
                await routed.resume_moves()
            for system_id in routing_child.SYSTEMS:
                history = await routed.get_state_history(system_id, ALL)
                numbers = [int(one.metrics["n"].value) for one in history]  # type: ignore[arg-type] # a number
                assert len(set(numbers)) == len(numbers)
                assert batches | {number for number, one in works.items() if one == system_id} <= set(numbers)
                for one in history:
                    assert one == routing_child.reading(system_id, int(one.metrics["n"].value))  # type: ignore[arg-type]
                actions = await routed.read(system_id, partial(actions_of, system_id))
                ids = {int(action.action_id[2:]) for action in actions}
                assert {number for number, one in works.items() if one == system_id} <= ids <= set(numbers)
            await routed.resume_moves()
            await check_tidy(routed, routing_child.SYSTEMS)
    assert len(batches) > 8
    assert len(works) > 8
    assert moved > 4
