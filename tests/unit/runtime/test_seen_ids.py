"""Handled events in the store: the same in memory and in a file, found after a restart, and forgotten in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from polaris.domain import HealthEvent, HealthStatus
from polaris.exceptions import InvalidValueError
from polaris.messaging import (
    DeduplicationMiddleware,
    DeliveryClass,
    MessageContext,
    MessageDirection,
    MiddlewareChain,
    SeenIds,
)
from polaris.runtime import _seen_ids
from polaris.runtime._seen_ids import COLLECTION, StoredSeenIds
from polaris.storage import InMemoryEngine, PolarisDataStore, SqliteEngine
from polaris.testing import VirtualClock

DAY_S = 86_400.0
Reopen = Callable[[], PolarisDataStore]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(params=["memory", "sqlite"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path, clock: VirtualClock) -> Reopen:
    """Opens the same store again."""
    memory = InMemoryEngine(clock=clock)

    def open_store() -> PolarisDataStore:
        engine = memory if request.param == "memory" else SqliteEngine(tmp_path / "store.db", clock=clock)
        return PolarisDataStore(engine)

    return open_store


@pytest.fixture
async def store(reopen: Reopen) -> AsyncIterator[PolarisDataStore]:
    async with reopen() as opened:
        yield opened


async def test_what_is_remembered_is_found_after_a_restart_by_its_receiver_alone(reopen: Reopen) -> None:
    async with reopen() as store:
        ids: SeenIds = StoredSeenIds(store.documents)
        assert await ids.seen("s", ["a", "b"]) == set()
        await ids.remember("s", ["a", "b"])
        await ids.remember("s", ["b"])
    async with reopen() as store:
        ids = StoredSeenIds(store.documents)
        assert await ids.seen("s", ["a", "b", "c"]) == {"a", "b"}
        assert await ids.seen("other", ["a"]) == set()
        assert await ids.seen("s", []) == set()


@pytest.mark.parametrize("event_id", ["", "a b", "x" * 256, "ä/ö.*>", "\x00"])
async def test_any_id_can_be_remembered(store: PolarisDataStore, event_id: str) -> None:
    ids = StoredSeenIds(store.documents)
    await ids.remember("r" * 200, [event_id])
    assert await ids.seen("r" * 200, [event_id]) == {event_id}


async def test_receiver_and_id_cannot_be_confused(store: PolarisDataStore) -> None:
    ids = StoredSeenIds(store.documents)
    await ids.remember("a b", ["c"])
    assert await ids.seen("a", ["b c"]) == set()


async def test_what_is_older_than_it_is_kept_counts_no_more_and_goes(
    store: PolarisDataStore, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_seen_ids, "FORGET_EVERY", 10)
    ids = StoredSeenIds(store.documents, kept_s=DAY_S)
    await ids.remember("s", [f"old{n}" for n in range(9)])
    assert await ids.seen("s", ["old1"]) == {"old1"}
    clock.advance(DAY_S + 1)
    assert await ids.seen("s", ["old1"]) == set()
    await ids.remember("s", [f"new{n}" for n in range(10)])
    assert await ids.seen("s", ["old1", "new1"]) == {"new1"}
    assert await store.documents.purge_expired(COLLECTION) == 0, "the expired ones were given back in passing"


async def test_what_is_remembered_again_is_kept_from_then_on(store: PolarisDataStore, clock: VirtualClock) -> None:
    ids = StoredSeenIds(store.documents, kept_s=DAY_S)
    await ids.remember("s", ["a", "b"])
    clock.advance(DAY_S / 2)
    await ids.remember("s", ["a"])
    clock.advance(DAY_S / 2 + 1)
    assert await ids.seen("s", ["a", "b"]) == {"a"}


async def test_a_subscription_passes_over_what_it_handled_before_the_restart(reopen: Reopen) -> None:
    handled: list[str] = []

    async def final(context: MessageContext) -> None:
        handled.append(context.event.event_id)

    async def deliver(store: PolarisDataStore, *event_ids: str) -> None:
        chain = MiddlewareChain([DeduplicationMiddleware(seen=StoredSeenIds(store.documents))])
        contexts = [
            MessageContext(
                "polaris.health.store",
                HealthEvent("store", HealthStatus.HEALTHY, "", event_id=event_id),
                MessageDirection.DELIVER,
                receiver="s",
                delivery=DeliveryClass.AT_LEAST_ONCE,
            )
            for event_id in event_ids
        ]
        await asyncio.gather(*(chain.process(context, final) for context in contexts))

    async with reopen() as store:
        await deliver(store, "a", "b", "a")
    async with reopen() as store:
        await deliver(store, "b", "c", "a")
    assert sorted(handled) == ["a", "b", "c"]


@pytest.mark.parametrize("kept_s", [0, -1.0, True, float("nan"), float("inf"), 1e12, "a day"])
def test_a_time_that_is_none_is_refused(kept_s: object) -> None:
    with pytest.raises(InvalidValueError):
        StoredSeenIds(None, kept_s=kept_s)  # type: ignore[arg-type]
