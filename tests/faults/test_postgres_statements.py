"""Every n-th statement to a server failing, for each operation of several: all of it or nothing, and no trace."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.faults.sizes import size
from tests.faults.test_store_statements import (
    ACTS,
    T0,
    Act,
    _comparable,
    content,
    fill,
    forgiving_unit,
    points,
    seen_of_unit,
)
from tests.postgres_servers import PostgresServer

from polaris.exceptions import DataStoreError, StoreFullError
from polaris.storage import DocumentChanges, GraphEdge, PolarisDataStore, TimeSeriesPoint
from polaris.storage._rollups import RetentionPolicy, RollupPolicy
from polaris.storage.backends.postgresql._link import Link

schema_numbers = itertools.count(1)
HOUR = timedelta(hours=1)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
EXPIRED = 4

# Real errors of the server: what was begun is really of no use any more.
_FAIL = "DO $$ BEGIN RAISE EXCEPTION 'sabotage' USING ERRCODE = '53100'; END $$"


class Saboteur:
    """Lets the n-th statement fail on the server, once armed."""

    def __init__(self) -> None:
        self.left = 0
        self.fired = False

    def arm(self, nth: int) -> None:
        self.left, self.fired = nth, False

    async def watch(self, link: Link) -> None:
        if self.left:
            self.left -= 1
            if self.left == 0:
                self.fired = True
                await link.connection.execute(_FAIL)


@pytest.fixture
def saboteur(monkeypatch: pytest.MonkeyPatch) -> Saboteur:
    found = Saboteur()
    for name in ("rows", "row", "value", "run", "run_many", "copy", "begin", "commit"):
        original = getattr(Link, name)

        def watched(original: Any) -> Any:
            async def call(link: Link, *arguments: Any, **more: Any) -> Any:
                await found.watch(link)
                return await original(link, *arguments, **more)

            return call

        monkeypatch.setattr(Link, name, watched(original))
    return found


@pytest.fixture(scope="module", params=size((15,), (15, 18)))
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with PostgresServer(request.param) as started:
        yield started


async def put_in_bulk(store: PolarisDataStore) -> None:
    """So many points that they go by COPY, into partitions that are not there."""
    await store.time_series.store_many("m", [*points(-5_000, 300), *points(10_000_000, 300, more=1.5)])


async def update_documents(store: PolarisDataStore) -> None:
    await store.documents.update_documents("u", {"n": {"$gte": 2}}, DocumentChanges(increment={"n": 10}))


async def put_documents(store: PolarisDataStore) -> None:
    """Into a collection with a unique index, one of whose places is that of an expired document."""
    await store.documents.put_documents("u", [{"_id": "0", "n": 50}, {"_id": "new", "n": 99}])


async def delete_documents(store: PolarisDataStore) -> None:
    await store.documents.delete_documents("d", {"n": {"$lt": 3}})


async def drop_index(store: PolarisDataStore) -> None:
    await store.documents.drop_index("u", "n")


async def purge_expired(store: PolarisDataStore) -> None:
    """Of two collections: a failure keeps those of both, so that all are counted when they go."""
    assert await store.documents.purge_expired() == EXPIRED


async def add_edges(store: PolarisDataStore) -> None:
    await store.graph.add_edges([GraphEdge("x", end, "needs") for end in "pqr"])


async def roll_up(store: PolarisDataStore) -> None:
    await store.time_series.apply_retention("r", T0 + HOUR)


async def drop_partition(store: PolarisDataStore) -> None:
    await store.time_series.apply_retention("p", T0 + 900 * HOUR)


MORE: list[Act] = [
    put_in_bulk,
    update_documents,
    put_documents,
    delete_documents,
    drop_index,
    purge_expired,
    add_edges,
    roll_up,
    drop_partition,
]
IN_PARTS = {roll_up, drop_partition}
"""Acts of several transactions: interrupted, they have done a part, and repeated they do the rest."""


async def everything(store: PolarisDataStore) -> dict[str, Any]:
    found = _comparable(await content(store))
    hours = {"bucket": HOUR, "fields": ["v"]}
    for name in ("r", "p"):
        found[name] = await store.time_series.query_time_series(name, _all())
        found[f"{name} counts"] = await store.time_series.aggregate_time_series(name, _all(), "count", **hours)  # type: ignore[arg-type] # its name
    found["unique"] = await store.documents.find_documents("u")
    found["indexes"] = [await store.documents.list_indexes(name) for name in ("d", "u")]
    return found


def _all() -> Any:
    from polaris.storage import TimeRange

    return TimeRange(T0 - 10_000 * HOUR, T0 + 10_000 * HOUR)


async def prepare(store: PolarisDataStore) -> None:
    await fill(store)
    await store.time_series.set_retention("r", RetentionPolicy(HOUR, [RollupPolicy(HOUR / 4, None)]))
    await store.documents.create_index("u", "n", unique=True)
    await store.documents.insert_documents("u", [{"_id": str(n), "n": n} for n in range(5)])
    await store.documents.insert_document("u", {"_id": "gone", "n": 99}, expires_at=LONG_AGO)
    await store.documents.insert_documents("gone", [{"n": n} for n in range(EXPIRED - 1)], expires_at=LONG_AGO)
    for name, step in (("r", HOUR / 12), ("p", 30 * HOUR)):
        batch = [TimeSeriesPoint(T0 + n * step, {"h": str(n % 2)}, {"v": n}) for n in range(40)]
        await store.time_series.store_many(name, batch)


@pytest.fixture
async def sound() -> AsyncIterator[PolarisDataStore]:
    async with PolarisDataStore.memory() as store:
        yield store


@pytest.mark.parametrize("act", [*ACTS, *MORE], ids=lambda act: act.__name__)
async def test_an_operation_survives_the_failure_of_each_of_its_statements(
    act: Act, server: PostgresServer, saboteur: Saboteur, sound: PolarisDataStore
) -> None:
    await prepare(sound)
    await act(sound)
    expected = await everything(sound)
    schema = f"statements_{next(schema_numbers)}"
    async with PolarisDataStore.postgresql(server.dsn, schema=schema, pool_max=2) as store:
        await prepare(store)
        before = await everything(store)
        for nth in itertools.count(1):
            saboteur.arm(nth)
            try:
                await act(store)
            except DataStoreError as error:
                assert isinstance(error, StoreFullError), error
                assert saboteur.fired
            else:
                break
            if act not in IN_PARTS:
                left = await everything(store)
                changed = [name for name in left if left[name] != before[name]]
                assert not changed, f"{changed} after the failure of statement {nth}"
            stats = await store.engines[0].stats()
            assert stats["connections"] == stats["connections_idle"]
        saboteur.left = 0
        # What was remembered while it failed was true: in the end it does what it does elsewhere.
        done = await everything(store)
        assert [name for name in done if done[name] != expected[name]] == []
    assert nth > 1


async def test_a_savepoint_that_fails_leaves_the_rest_of_its_unit(server: PostgresServer, saboteur: Saboteur) -> None:
    outcomes: set[tuple[bool, bool]] = set()
    schema = f"statements_{next(schema_numbers)}"
    async with PolarisDataStore.postgresql(server.dsn, schema=schema, pool_max=2) as store:
        await store.documents.insert_document("d", {"_id": "0"})
        for nth in itertools.count(1):
            saboteur.arm(nth)
            done, is_whole = await forgiving_unit(store)
            fired, saboteur.left = saboteur.fired, 0
            assert await seen_of_unit(store) == [done, done and is_whole, done and is_whole, done]
            outcomes.add((done, is_whole))
            if not fired:
                break
            for name in ("before", "within", "after"):
                await store.graph.remove_node(name)
            await store.documents.delete_document("d", "within")
    assert outcomes >= {(False, True), (True, False), (True, True)}
