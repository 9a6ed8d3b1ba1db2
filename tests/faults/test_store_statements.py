"""Every n-th SQL statement failing, for each operation of several statements: all of it or nothing, and no trace."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from polaris.domain import AdaptationAction, HealthEvent, HealthStatus, MetricValue, SystemState
from polaris.exceptions import ConflictError, DataStoreError
from polaris.storage import GraphEdge, PolarisDataStore, SqliteEngine, TimeRange, TimeSeriesPoint

T0 = datetime(2030, 1, 1, tzinfo=UTC)
Act = Callable[[PolarisDataStore], Awaitable[object]]


class Saboteur:
    """Lets the n-th statement of the writing connection fail, once armed."""

    def __init__(self) -> None:
        self.left = 0
        self.fired = False

    def arm(self, nth: int) -> None:
        self.left, self.fired = nth, False

    def watch(self, connection: apsw.Connection) -> None:
        if not connection.open_flags & apsw.SQLITE_OPEN_READONLY:
            connection.exec_trace = self._trace

    def _trace(self, *_: object) -> bool:
        if self.left:
            self.left -= 1
            if self.left == 0:
                self.fired = True
                raise apsw.IOError("sabotage")
        return True


@pytest.fixture
def saboteur() -> Iterator[Saboteur]:
    found = Saboteur()
    apsw.connection_hooks.append(found.watch)
    yield found
    apsw.connection_hooks.remove(found.watch)


def points(start: int, count: int, **more: Any) -> list[TimeSeriesPoint]:
    return [
        TimeSeriesPoint(T0 + timedelta(seconds=n), {"h": str(n % 3)}, {"v": n, **more})
        for n in range(start, start + count)
    ]


async def store_points(store: PolarisDataStore) -> None:
    """New series, wider ones, late points, more rows than one statement takes, and with them a compaction."""
    wide = {f"w{n}": 1.5 for n in range(15)}
    batch = [*points(-5, 30, **wide), *points(100, 90), TimeSeriesPoint(T0, {"new": "1"}, {"v": 1})]
    await store.time_series.store_many("m", batch)


async def save_states(store: PolarisDataStore) -> None:
    readings = {"cpu": MetricValue("cpu", 1.0, "s"), "new": MetricValue("new", 1, "1")}
    await store.states.save_many([SystemState("x", T0 + timedelta(seconds=n), readings) for n in range(3)])


async def delete_points(store: PolarisDataStore) -> None:
    await store.time_series.delete_range("m", TimeRange(T0 + timedelta(seconds=2), T0 + timedelta(seconds=99)))


async def delete_series(store: PolarisDataStore) -> None:
    await store.time_series.delete_series("m", {"h": "1"})


async def write_documents(store: PolarisDataStore) -> None:
    await store.documents.insert_documents("fresh", [{"_id": str(n), "n": n} for n in range(3)])


async def index_documents(store: PolarisDataStore) -> None:
    await store.documents.create_index("d", "n", unique=True)


async def update_document(store: PolarisDataStore) -> None:
    await store.documents.update_document("d", "0", {"n": 77}, expected_version=1)


async def remove_node(store: PolarisDataStore) -> None:
    await store.graph.remove_node("hub")


async def load_graph(store: PolarisDataStore) -> None:
    """New nodes, new properties for one that is there, new and known edges."""
    await store.graph.add_edges(
        [GraphEdge(f"n{n}", "hub", "needs") for n in range(20)] + [GraphEdge("hub", "a", "needs", {"w": 1})]
    )


async def work(store: PolarisDataStore) -> None:
    async with store.unit_of_work() as unit:
        await unit.actions.save(AdaptationAction("a-1", "scale", "web", created_at=T0))
        await unit.time_series.store_many("m", points(50, 3, extra=1))
        await unit.graph.add_edge("hub", "y", "needs")
        await unit.publish("t", HealthEvent(component="c", status=HealthStatus.HEALTHY))
        await unit.actions.find_all()
        await unit.commit()


async def part_of_a_unit(store: PolarisDataStore) -> None:
    """Of two savepoints one is kept, and one is taken back."""
    async with store.unit_of_work() as unit:
        await unit.graph.add_node("kept")
        async with unit.savepoint():
            await unit.graph.add_edge("kept", "a", "needs")
        with suppress(ConflictError):
            async with unit.savepoint():
                await unit.graph.add_node("not kept")
                await unit.documents.insert_document("d", {"_id": "0"})
        await unit.time_series.store_many("m", points(70, 3, extra=2))
        await unit.commit()


async def forgiving_unit(store: PolarisDataStore) -> tuple[bool, bool]:
    """Goes on when its savepoint fails, whatever the failure; whether the unit and the savepoint are done."""
    is_whole = False
    with suppress(DataStoreError):
        async with store.unit_of_work() as unit:
            await unit.graph.add_node("before")
            with suppress(DataStoreError):
                async with unit.savepoint():
                    await unit.graph.add_node("within")
                    await unit.documents.insert_document("d", {"_id": "within"})
                is_whole = True
            await unit.graph.add_node("after")
            await unit.commit()
    return unit.is_committed, is_whole


async def seen_of_unit(store: PolarisDataStore) -> list[bool]:
    """Whether there are the parts of the unit: before its savepoint, twice within it, after it."""
    nodes = [await store.graph.get_node(name) is not None for name in ("before", "within", "after")]
    document = await store.documents.get_document("d", "within")
    return [nodes[0], nodes[1], document is not None, nodes[2]]


async def content(store: PolarisDataStore) -> dict[str, Any]:
    """Everything the store holds, read by readers of its own."""
    return {
        "points": await store.time_series.query_time_series("m", TimeRange.all()),
        "latest": await store.time_series.latest("m"),
        "states": await store.states.get_state_history("x", TimeRange.all()),
        "systems": await store.states.systems(),
        "documents": [await store.documents.find_documents(name) for name in ("d", "fresh", "adaptation_actions")],
        "edges": await store.graph.get_edges(),
        "hub": await store.graph.get_node("hub"),
        "nodes": await store.graph.find_nodes(),
        "series": await store.time_series.list_series("m"),
        "outbox": await store.outbox.count(),
    }


async def fill(store: PolarisDataStore) -> None:
    await store.time_series.store_many("m", points(0, 40))
    await store.documents.insert_documents("d", [{"_id": str(n), "n": n} for n in range(5)])
    for end in "abc":
        await store.graph.add_edge("hub", end, "needs")
        await store.graph.add_edge(end, "hub", "needs")


ACTS: list[Act] = [
    store_points,
    save_states,
    delete_points,
    delete_series,
    write_documents,
    index_documents,
    update_document,
    remove_node,
    load_graph,
    work,
    part_of_a_unit,
]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
async def test_an_operation_survives_the_failure_of_each_of_its_statements(
    act: Act, tmp_path: Path, saboteur: Saboteur
) -> None:
    async with PolarisDataStore.sqlite(tmp_path / "sound.db", hot_rows_max=20, slice_rows=10) as sound:
        await fill(sound)
        await act(sound)
        expected = _comparable(await content(sound))
    nth = 0
    while True:
        nth += 1
        engine = SqliteEngine(tmp_path / f"{nth}.db", hot_rows_max=20, slice_rows=10)
        async with PolarisDataStore(engine) as store:
            await fill(store)
            before = await content(store)
            saboteur.arm(nth)
            try:
                await act(store)
                failed = False
            except DataStoreError:
                failed = True
            fired, saboteur.left = saboteur.fired, 0
            if failed:
                assert await content(store) == before
                await act(store)
            after = await content(store)
            # A second run changes no more than a first one does: what was remembered while it failed was true.
            assert _comparable(after) == expected
            assert await engine.verify() == []
            if not fired:
                break
    assert nth > 3


def _comparable(found: dict[str, Any]) -> dict[str, Any]:
    documents = [
        [{key: value for key, value in document.items() if key != "_id"} for document in part]
        for part in found["documents"]
    ]
    return {**found, "documents": documents}


async def test_a_savepoint_that_fails_leaves_the_rest_of_its_unit(tmp_path: Path, saboteur: Saboteur) -> None:
    outcomes: set[tuple[bool, bool]] = set()
    async with PolarisDataStore.sqlite(tmp_path / "store.db") as store:
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


async def test_a_failure_of_one_writer_does_not_reach_the_others(tmp_path: Path, saboteur: Saboteur) -> None:
    import asyncio

    async with PolarisDataStore.sqlite(tmp_path / "store.db") as store:
        await fill(store)
        for nth in range(1, 80):
            saboteur.arm(nth)
            writes = [
                store.time_series.store_many("g", [TimeSeriesPoint(T0, {"n": f"{nth}-{place}"}, {"v": 1})])
                for place in range(8)
            ]
            outcomes = await asyncio.gather(*writes, return_exceptions=True)
            saboteur.left = 0
            failed = {place for place, outcome in enumerate(outcomes) if isinstance(outcome, BaseException)}
            assert len(failed) <= 1
            stored = {tags["n"] for tags in await store.time_series.list_series("g")}
            for place in range(8):
                assert (f"{nth}-{place}" in stored) is (place not in failed)
