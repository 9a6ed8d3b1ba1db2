"""Moving a system between PostgreSQL servers of which one hangs or is killed: nothing is lost, and the move ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.faults.test_store_routing import SECONDS, content, expected, fill, write_on
from tests.postgres_servers import PostgresServer
from tests.routed_stores import ALL, check_tidy, state

from polaris.exceptions import DataStoreError
from polaris.storage import PolarisDataStore
from polaris.storage._operation import Operation
from polaris.storage._routing import RoutedDataStore
from polaris.storage.backends.postgresql import PostgresEngine
from polaris.storage.backends.postgresql._transaction import PostgresTransaction

BOUNDS: dict[str, Any] = {
    "statement_timeout_s": 0.5,
    "acquire_timeout_s": 1.0,
    "connect_timeout_s": 1.0,
    "pool_max": 4,
}
ENDS_S_MAX = 40.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, PostgresServer]]:
    # Durable ones: what they acknowledge must outlive a kill.
    with PostgresServer(15) as one, PostgresServer(18) as other:
        yield {"a": one, "b": other}


def stores_on(servers: dict[str, PostgresServer], schema: str, **bounds: Any) -> dict[str, PolarisDataStore]:
    return {
        name: PolarisDataStore(PostgresEngine(server.dsn, schema=schema, **bounds)) for name, server in servers.items()
    }


@asynccontextmanager
async def filled(servers: dict[str, PostgresServer], schema: str) -> AsyncIterator[RoutedDataStore]:
    """With bounds that are kept while a server hangs; a busy machine may take longer to make and fill the tables."""
    async with RoutedDataStore(stores_on(servers, schema)) as patient:
        await fill(patient)
    async with RoutedDataStore(stores_on(servers, schema, **BOUNDS)) as routed:
        yield routed


class Watch:
    """Does something once, after so many transactions and operations of all engines."""

    def __init__(self, nth: int, act: Callable[[], None]) -> None:
        self.left = nth
        self.act = act
        self.fired = False

    async def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.fired = True
            await asyncio.to_thread(self.act)


@asynccontextmanager
async def watched(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Count the operations and commits of a move."""
    execute, commit = PostgresEngine.execute, PostgresTransaction.commit

    async def executed(engine: PostgresEngine, operation: Operation[Any]) -> Any:
        await watch.step()
        return await execute(engine, operation)

    async def committed(transaction: PostgresTransaction) -> None:
        await watch.step()
        await commit(transaction)

    with monkeypatch.context() as patch:
        patch.setattr(PostgresEngine, "execute", executed)
        patch.setattr(PostgresTransaction, "commit", committed)
        yield


async def healthy(routed: RoutedDataStore) -> None:
    """Wait until both servers answer again."""
    async with asyncio.timeout(30):
        while {health.status for health in (await routed.health()).values()} != {"healthy"}:
            await asyncio.sleep(0.05)


async def moved(routed: RoutedDataStore, to: str) -> None:
    """The move is carried on until it has ended; what a lost answer left open shows itself again and again."""
    async with asyncio.timeout(60):
        while True:
            try:
                await routed.resume_moves()
                await routed.move_system("web", to)
                return
            except DataStoreError:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("nth", [4, 13, 24])
@pytest.mark.parametrize("which", ["source", "target"])
@pytest.mark.parametrize("how", ["frozen", "killed"])
async def test_a_move_whose_server_fails_is_finished_by_the_next(
    servers: dict[str, PostgresServer], monkeypatch: pytest.MonkeyPatch, how: str, which: str, nth: int
) -> None:
    written = await expected(written=True)
    async with filled(servers, f"{how}_{which}_{nth}") as routed:
        home = await routed.store_of("web")
        to = "b" if home == "a" else "a"
        server = servers[home if which == "source" else to]
        watch = Watch(nth, server.freeze if how == "frozen" else server.kill)
        try:
            async with watched(watch, monkeypatch):
                moving = asyncio.create_task(routed.move_system("web", to))
                done, _ = await asyncio.wait([moving], timeout=ENDS_S_MAX)
            assert done, "the move hangs with the server"
            assert watch.fired
            failure = moving.exception()
            assert failure is None or isinstance(failure, DataStoreError), failure
        finally:
            if how == "frozen":
                server.thaw()
            else:
                await asyncio.to_thread(server.start)
        await healthy(routed)
        # Nobody has finished it: readers see all, writers write, wherever the system is now.
        await write_on(routed)
        assert await content(routed) == written
        await moved(routed, to)
        assert await routed.store_of("web") == to
        assert await content(routed) == written
        await check_tidy(routed, ["web", "db"])
        await routed.move_system("web", home)
        assert await content(routed) == written


async def test_a_system_moves_while_it_is_written_and_its_servers_are_killed(
    servers: dict[str, PostgresServer],
) -> None:
    async with filled(servers, "written") as routed:
        acknowledged: list[int] = []
        tried: list[int] = []
        stopped = asyncio.Event()

        async def write() -> None:
            second = 10_000
            while not stopped.is_set():
                second += 1
                tried.append(second)
                try:
                    await routed.save_current_state(state("web", second, second))
                    acknowledged.append(second)
                except DataStoreError:
                    await asyncio.sleep(0.02)

        async def move() -> None:
            while not stopped.is_set():
                for to in "ab":
                    try:
                        await routed.move_system("web", to)
                    except DataStoreError:
                        await asyncio.sleep(0.05)

        tasks = [asyncio.create_task(write()), asyncio.create_task(move())]
        try:
            for name in "abab":
                before = len(acknowledged)
                async with asyncio.timeout(30):
                    while len(acknowledged) < before + 15:
                        await asyncio.sleep(0.01)
                await asyncio.to_thread(servers[name].kill)
                await asyncio.sleep(0.3)
                await asyncio.to_thread(servers[name].start)
        finally:
            stopped.set()
            await asyncio.gather(*tasks)
        await healthy(routed)
        await moved(routed, "a")
        found = [one.metrics["x"].value for one in await routed.get_state_history("web", ALL)]
        assert len(set(found)) == len(found)
        assert {*SECONDS, *acknowledged} <= set(found) <= {*SECONDS, *tried}
        await check_tidy(routed, ["web", "db"])
