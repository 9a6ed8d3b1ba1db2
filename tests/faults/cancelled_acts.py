"""Acts on a store whose task is cancelled at one of its awaits, and what a store shows of them."""

from __future__ import annotations

import asyncio
import itertools
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec
from tests.store_tables import documents_kept

from polaris.domain import AdaptationAction, HealthEvent, HealthStatus
from polaris.exceptions import ConflictError
from polaris.storage import (
    DocumentChanges,
    GraphEdge,
    GraphNode,
    PolarisDataStore,
    PolarisUnitOfWork,
    RetentionPolicy,
    RollupPolicy,
    TimeRange,
    TimeSeriesPoint,
)

T0 = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
Act = Callable[[PolarisDataStore, str], Awaitable[object]]
"""Changes what belongs to a key, and done again changes nothing more."""
keys = (f"k{number}k" for number in itertools.count(1))


class When(StrEnum):
    """When a task is cancelled, seen from an await."""

    AT_ONCE = "at once"
    A_TURN_LATER = "a turn later"
    AS_IT_WAKES = "as it wakes"
    """What it awaits has come, and it has not heard of it."""
    AND_AGAIN = "at once, and again while it clears up"


class Cancelling:
    """Runs a coroutine as a task, which is cancelled at the n-th of its awaits that suspend it."""

    def __init__(self, nth: int, when: When) -> None:
        self._nths = {nth, nth + 1} if when is When.AND_AGAIN else {nth}
        self._when = when
        self.awaits = 0
        self._is_asked = False
        """Whether the task was told in time."""

    async def run(self, coroutine: Coroutine[Any, Any, Any]) -> bool:
        """False when the task ended as cancelled. AssertionError when it was cancelled and ended otherwise."""

        async def driven() -> Any:
            return await self._drive(coroutine)

        task = asyncio.create_task(driven())
        await asyncio.wait([task])
        assert task.cancelled() or not self._is_asked, f"cancelled {self._when}, it went on: {task}"
        if not task.cancelled():
            task.result()
        return not task.cancelled()

    @types.coroutine
    def _drive(self, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        step: Callable[[Any], Any] = coroutine.send
        given: Any = None
        while True:
            try:
                awaited = step(given)
            except StopIteration as end:
                return end.value
            self.awaits += 1
            if self.awaits in self._nths:
                self._cancel(awaited)
            try:
                step, given = coroutine.send, (yield awaited)
            except BaseException as error:  # boundary: handed on to the coroutine
                step, given = coroutine.throw, error

    def _cancel(self, awaited: asyncio.Future[Any] | None) -> None:
        task = asyncio.current_task()
        assert task is not None

        def cancel(_: object = None) -> None:
            self._is_asked |= task.cancel()

        if self._when is When.A_TURN_LATER:
            asyncio.get_running_loop().call_soon(cancel)
        elif self._when is When.AS_IT_WAKES and awaited is not None:
            awaited.add_done_callback(cancel)  # before the task's own
        else:
            cancel()


def points(key: str, start: int, count: int) -> list[TimeSeriesPoint]:
    """Of two series, a second apart."""
    return [
        TimeSeriesPoint(T0 + timedelta(seconds=n), {"key": key, "h": str(n % 2)}, {"v": n})
        for n in range(start, start + count)
    ]


async def prepare(store: PolarisDataStore, key: str, act: Act | None = None) -> None:
    """Give the key what acts change, and what this one needs besides."""
    await store.time_series.store_many("m", points(key, 0, 6))
    await store.documents.put_documents("d", [{"_id": f"{key}{n}", "key": key, "n": n} for n in range(3)])
    await store.graph.add_edges([GraphEdge(key, f"{key}{end}", "needs") for end in "ab"])
    if act in BEFOREHAND:
        await BEFOREHAND[act](store, key)


async def seen(store: PolarisDataStore, key: str) -> str:
    """All that belongs to the key, in a form that is alike for all keys."""
    tags = {"key": key}
    names = [key, *(f"{key}{end}" for end in "abc")]
    found = {
        "points": await store.time_series.query_time_series("m", TimeRange.all(), tags),
        "newest": await store.time_series.latest("m", tags),
        "series": await store.time_series.list_series("m", tags),
        "documents": await store.documents.find_documents("d", {"key": key}),
        "action": await store.actions.find_by_id(key),
        "nodes": [await store.graph.get_node(name) for name in names],
        "edges": await store.graph.get_edges(key),
        "collections": [
            await store.time_series.query_time_series(f"m-{key}", TimeRange.all()),
            await store.documents.find_documents(f"d-{key}"),
        ],
        "indexes": await store.documents.list_indexes(f"d-{key}"),
        "kept": await documents_kept(store.engines[0], f"d-{key}"),
        "policy": await store.time_series.get_retention(f"m-{key}"),
        "events": [entry.topic for entry in await store.outbox.pending(limit=1_000)].count(key),
    }
    return msgspec.json.encode(found).decode().replace(key, "KEY")


async def store_point(store: PolarisDataStore, key: str) -> None:
    await store.time_series.store_time_series("m", T0 + HOUR, {"key": key, "h": "0"}, {"v": 1})


async def store_points(store: PolarisDataStore, key: str) -> None:
    """Late ones, wider ones, and one of a new series."""
    wide = TimeSeriesPoint(T0, {"key": key, "h": "0"}, {f"w{n}": 1.5 for n in range(15)})
    await store.time_series.store_many("m", [*points(key, -4, 8), wide, TimeSeriesPoint(T0, {"key": key}, {"v": 1})])


async def begin_series(store: PolarisDataStore, key: str) -> None:
    """The first points of a collection."""
    await store.time_series.store_many(f"m-{key}", points(key, 0, 3))


async def begin_documents(store: PolarisDataStore, key: str) -> None:
    """The first document of a collection."""
    if not await store.documents.count(f"d-{key}"):
        await store.documents.put_document(f"d-{key}", "first", {"n": 1})


async def delete_range(store: PolarisDataStore, key: str) -> None:
    await store.time_series.delete_range("m", TimeRange(T0 + timedelta(seconds=3), T0 + HOUR), {"key": key})


async def delete_series(store: PolarisDataStore, key: str) -> None:
    await store.time_series.delete_series("m", {"key": key, "h": "1"})


async def apply_retention(store: PolarisDataStore, _key: str) -> None:
    await store.time_series.apply_retention("m", T0 + timedelta(seconds=3))


async def put_documents(store: PolarisDataStore, key: str) -> None:
    """One that is there, and one that is not; once, because each time is a version."""
    if not await store.documents.count("d", {"key": key, "n": 70}):
        await store.documents.put_documents("d", [{"_id": f"{key}{n}", "key": key, "n": 70} for n in (2, 3)])


async def update_document(store: PolarisDataStore, key: str) -> None:
    """By the version that it has, so that nothing can be done twice."""
    with suppress(ConflictError):
        await store.documents.update_document("d", f"{key}1", {"n": 77}, expected_version=1)


async def update_documents(store: PolarisDataStore, key: str) -> None:
    await store.documents.update_documents("d", {"key": key, "n": {"$lt": 10}}, DocumentChanges(increment={"n": 10}))


async def delete_documents(store: PolarisDataStore, key: str) -> None:
    await store.documents.delete_documents("d", {"key": key, "n": {"$gte": 1}})


async def add_nodes(store: PolarisDataStore, key: str) -> None:
    await store.graph.add_nodes([GraphNode(f"{key}c", {"n": 1}), GraphNode(key, {"n": 2})])


async def add_edges(store: PolarisDataStore, key: str) -> None:
    await store.graph.add_edges([GraphEdge(f"{key}c", key, "needs"), GraphEdge(key, f"{key}a", "needs", {"w": 1})])


async def remove_node(store: PolarisDataStore, key: str) -> None:
    await store.graph.remove_node(key)


async def work(store: PolarisDataStore, key: str) -> None:
    """All models, an answer that the rest depends on, a savepoint that is kept and one that is not."""
    async with store.unit_of_work() as unit:
        await unit.time_series.store_many("m", points(key, 100, 3))
        assert await unit.documents.count("d", {"key": key}) >= 3
        async with unit.savepoint():
            await unit.graph.add_edge(f"{key}c", key, "needs")
        with suppress(ConflictError):
            async with unit.savepoint():
                await unit.graph.add_node(f"{key}a", {"kept": False})
                await unit.documents.insert_document("d", {"_id": f"{key}0", "key": key})
        if await unit.actions.find_by_id(key) is None:
            await unit.actions.save(AdaptationAction(key, "scale", "web", created_at=T0))
            await unit.publish(key, HealthEvent(component="c", status=HealthStatus.HEALTHY))
        await unit.commit()


async def some_expired(store: PolarisDataStore, key: str) -> None:
    """Three documents of a collection, two of which have expired."""
    gone = [{"_id": str(n), "n": n} for n in range(2)]
    await store.documents.insert_documents(f"d-{key}", gone, expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    await store.documents.insert_document(f"d-{key}", {"_id": "stays", "n": 2})


async def purge_expired(store: PolarisDataStore, key: str) -> None:
    await store.documents.purge_expired(f"d-{key}")


async def create_index(store: PolarisDataStore, key: str) -> None:
    """A unique one, of a collection that has documents."""
    await store.documents.create_index(f"d-{key}", "n", unique=True)


async def drop_index(store: PolarisDataStore, key: str) -> None:
    await store.documents.drop_index(f"d-{key}", "n")


async def set_retention(store: PolarisDataStore, key: str) -> None:
    await store.time_series.set_retention(f"m-{key}", RetentionPolicy(HOUR, [RollupPolicy(HOUR / 4)]))


async def publish(store: PolarisDataStore, key: str) -> None:
    """Two events."""
    async with store.unit_of_work() as unit:
        for _ in range(2):
            await unit.publish(key, HealthEvent(component="c", status=HealthStatus.HEALTHY))
        await unit.commit()


async def mark_published(store: PolarisDataStore, key: str) -> None:
    entries = await store.outbox.pending(limit=1_000)
    await store.outbox.mark_published([entry.sequence for entry in entries if entry.topic == key])


ACTS: list[Act] = [
    store_point,
    store_points,
    begin_series,
    begin_documents,
    delete_range,
    delete_series,
    apply_retention,
    put_documents,
    update_document,
    update_documents,
    delete_documents,
    add_nodes,
    add_edges,
    remove_node,
    purge_expired,
    create_index,
    drop_index,
    set_retention,
    mark_published,
    work,
]
BEFOREHAND: dict[Act, Act] = {
    purge_expired: some_expired,
    create_index: begin_documents,
    drop_index: create_index,
    mark_published: publish,
}
"""What an act needs for a key besides what all have."""


async def cancel_at_every_await(
    store: PolarisDataStore, act: Act, check_leaks: Callable[[], Awaitable[None]], whens: Iterable[When] = When
) -> set[bool]:
    """Cancel the act at its first await, its second, until there is no such await, each time with a new key.

    Each time it is done entirely or not at all, and can be done afterwards. Gives whether those cancelled were done.
    """
    outcomes: set[bool] = set()
    key = next(keys)
    await prepare(store, key, act)
    before = await seen(store, key)
    await act(store, key)
    after = await seen(store, key)
    assert after != before
    for when in whens:
        for nth in itertools.count(1):
            key = next(keys)
            await prepare(store, key, act)
            cancelling = Cancelling(nth, when)
            ended = await cancelling.run(_coroutine(act(store, key)))
            if when is When.AND_AGAIN:
                await store.graph.add_node("behind everything")
            found = await seen(store, key)
            assert found in (before, after), f"cancelled {when} at await {nth}"
            assert found == after or not ended
            await check_leaks()
            if not ended:
                outcomes.add(found == after)
                await act(store, key)
                assert await seen(store, key) == after, f"done again after it was cancelled {when} at await {nth}"
            await store.outbox.mark_published([entry.sequence for entry in await store.outbox.pending(limit=1_000)])
            if cancelling.awaits < nth:
                break
    return outcomes


async def cancel_a_unit_at_every_await(store: PolarisDataStore) -> set[bool]:
    """As `cancel_at_every_await`: what a unit of work tells of its commit is what is seen of it."""
    outcomes: set[bool] = set()
    for when in When:
        for nth in itertools.count(1):
            key = next(keys)
            await prepare(store, key)
            unit = store.unit_of_work()

            async def act(unit: PolarisUnitOfWork = unit, key: str = key) -> None:
                async with unit:
                    await unit.documents.insert_document("d", {"_id": key})
                    await unit.graph.remove_node(key)
                    await unit.commit()

            cancelling = Cancelling(nth, when)
            ended = await cancelling.run(act())
            assert not unit.is_open
            document, node = await store.documents.get_document("d", key), await store.graph.get_node(key)
            assert (document is not None, node is None) == (unit.is_committed, unit.is_committed), f"{when}, {nth}"
            outcomes.add(unit.is_committed)
            if cancelling.awaits < nth:
                assert ended
                break
    return outcomes


async def _coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
