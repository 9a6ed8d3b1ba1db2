from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polaris.api import LiveFeed, LiveSubscription, SampleUpdate
from polaris.domain import HealthStatus
from polaris.exceptions import InvalidValueError

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def update(value: float = 1.0, *, system_id: str = "s") -> SampleUpdate:
    return SampleUpdate(system_id=system_id, timestamp=NOW, health_status=HealthStatus.HEALTHY, values={"m": value})


async def numbers(subscription: LiveSubscription) -> list[int]:
    batch = await asyncio.wait_for(subscription.next_batch(), 1)
    assert batch is not None
    return [event.number for event in batch.events]


async def test_every_subscriber_gets_every_update_in_order() -> None:
    feed = LiveFeed()
    with feed.subscribe() as one, feed.subscribe() as two:
        for value in range(3):
            feed.publish(update(value))
        assert await numbers(one) == [1, 2, 3]
        assert await numbers(two) == [1, 2, 3]
    assert feed.subscribers == 0


async def test_an_update_carries_its_kind_and_json_with_utc_times() -> None:
    feed = LiveFeed()
    with feed.subscribe() as subscription:
        feed.publish(update(0.5))
        batch = await subscription.next_batch()
    assert batch is not None
    assert batch.events[0].kind == "sample"
    assert msgspec.json.decode(batch.events[0].payload) == {
        "system_id": "s",
        "timestamp": "2026-03-01T00:00:00Z",
        "health_status": "healthy",
        "values": {"m": 0.5},
        "qualities": {},
    }


async def test_a_subscriber_hears_nothing_from_before_it_came() -> None:
    feed = LiveFeed()
    feed.publish(update())
    with feed.subscribe() as subscription:
        assert not subscription.resumed
        feed.publish(update())
        assert await numbers(subscription) == [2]


async def test_a_slow_subscriber_loses_the_oldest_updates_and_is_told_how_many() -> None:
    feed = LiveFeed(events_max=10)
    with feed.subscribe() as slow:
        for _ in range(25):
            feed.publish(update())
        batch = await slow.next_batch()
        assert batch is not None
        assert batch.dropped == 15
        assert [event.number for event in batch.events] == list(range(16, 26))
    assert feed.dropped_total == 15


async def test_the_ring_is_bounded_in_bytes_too() -> None:
    feed = LiveFeed(bytes_max=10_000)
    with feed.subscribe() as slow:
        for _ in range(100):
            feed.publish(update(system_id="x" * 1_000))
        batch = await slow.next_batch()
        assert batch is not None
        assert sum(len(event.payload) for event in batch.events) <= 10_000
        assert batch.dropped + len(batch.events) == 100


async def test_an_update_larger_than_the_ring_is_still_delivered() -> None:
    feed = LiveFeed(bytes_max=10)
    with feed.subscribe() as subscription:
        feed.publish(update())
        assert await numbers(subscription) == [1]


async def test_a_client_that_comes_back_in_time_misses_nothing() -> None:
    feed = LiveFeed()
    for _ in range(5):
        feed.publish(update())
    with feed.subscribe(feed.event_id(3)) as subscription:
        assert subscription.resumed
        assert await numbers(subscription) == [4, 5]


@pytest.mark.parametrize(
    "make",
    [
        lambda feed: feed.event_id(1),  # too old: the ring begins later
        lambda feed: feed.event_id(99),  # from the future
        lambda feed: "0123456789ab-12",  # of another process
        lambda feed: "",
        lambda feed: "nonsense",
        lambda feed: f"{feed.boot_id}-" + "9" * 400,
    ],
)
async def test_an_event_id_that_cannot_be_resumed_starts_anew_and_says_so(make: Any) -> None:
    feed = LiveFeed(events_max=3)
    for _ in range(10):
        feed.publish(update())
    with feed.subscribe(make(feed)) as subscription:
        assert not subscription.resumed
        feed.publish(update())
        assert await numbers(subscription) == [11]


async def test_a_burst_comes_in_batches_of_bounded_size() -> None:
    feed = LiveFeed(events_max=2_000)
    with feed.subscribe() as subscription:
        for _ in range(600):
            feed.publish(update())
        assert [len(await numbers(subscription)) for _ in range(3)] == [256, 256, 88]


async def test_closing_the_feed_ends_every_waiting_subscriber() -> None:
    feed = LiveFeed()
    subscription = feed.subscribe()
    waiting = asyncio.create_task(subscription.next_batch())
    await asyncio.sleep(0)
    feed.close()
    assert await asyncio.wait_for(waiting, 1) is None
    assert subscription.closed
    assert feed.subscribers == 0


async def test_a_cancelled_wait_loses_nothing() -> None:
    feed = LiveFeed()
    with feed.subscribe() as subscription:
        waiting = asyncio.create_task(subscription.next_batch())
        await asyncio.sleep(0)
        feed.publish(update())
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await numbers(subscription) == [1]


def test_what_is_no_update_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="SampleUpdate"):
        LiveFeed().publish("news")  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="events_max"):
        LiveFeed(events_max=0)


@given(steps=st.lists(st.integers(min_value=0, max_value=40), max_size=30), events_max=st.integers(1, 20))
async def test_received_and_dropped_always_add_up_to_published(steps: list[int], events_max: int) -> None:
    feed = LiveFeed(events_max=events_max)
    received: list[int] = []
    dropped = published = 0
    with feed.subscribe() as subscription:
        for count in steps:
            for _ in range(count):
                feed.publish(update())
                published += 1
            while subscription.position < published:
                batch = await subscription.next_batch()
                assert batch is not None
                dropped += batch.dropped
                received += [event.number for event in batch.events]
    assert len(received) + dropped == published
    assert received == sorted(set(received))
    assert feed.dropped_total == dropped
