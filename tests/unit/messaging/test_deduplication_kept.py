"""Deduplication with a memory that outlives the process, and who shares it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from tests.unit.messaging.doubles import eventually, health, publish_raw, running_bus, telemetry

from polaris.domain import HealthEvent, TelemetryEvent
from polaris.exceptions import InvalidValueError, StoreConnectionError
from polaris.messaging import (
    DeduplicationMiddleware,
    DeliveryClass,
    EventCodec,
    InMemoryHub,
    MessageContext,
    MessageDirection,
    MiddlewareChain,
    RedeliveryPolicy,
    ValidationMiddleware,
)

TOPIC = "polaris.telemetry.web"


class Kept:
    """A memory that outlives the middleware, and fails when told to."""

    def __init__(self) -> None:
        self.ids: set[tuple[str, str]] = set()
        self.asked: list[tuple[str, ...]] = []
        self.failing: set[str] = set()

    async def seen(self, receiver: str, event_ids: Sequence[str]) -> Collection[str]:
        await asyncio.sleep(0.01)
        if "seen" in self.failing:
            raise StoreConnectionError("no store")
        self.asked.append(tuple(event_ids))
        return {one for one in event_ids if (receiver, one) in self.ids}

    async def remember(self, receiver: str, event_ids: Sequence[str]) -> None:
        await asyncio.sleep(0.01)
        if "remember" in self.failing:
            raise StoreConnectionError("no store")
        self.ids.update((receiver, one) for one in event_ids)


def delivered(*ids: str, **fields: Any) -> MessageContext:
    events = tuple(health(event_id=one) for one in ids)
    fields = {"receiver": "s", "delivery": DeliveryClass.AT_LEAST_ONCE, **fields}
    batch = events if len(events) > 1 else None
    return MessageContext("polaris.health.store", events[0], MessageDirection.DELIVER, batch=batch, **fields)


async def test_an_event_handled_before_a_restart_is_passed_over() -> None:
    hub, kept, handled = InMemoryHub(), Kept(), []

    async def handle(event: TelemetryEvent) -> None:
        handled.append(event.event_id)

    payload = EventCodec().encode(telemetry(event_id="same"))
    for _ in range(3):
        middleware = DeduplicationMiddleware(seen=kept)
        async with running_bus(hub, [middleware]) as bus:
            subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="store")
            await publish_raw(bus, TOPIC, payload)
            await eventually(lambda s=subscription: s.stats.received == 1 and s.in_flight == 0)  # type: ignore[misc]
    assert handled == ["same"]
    assert kept.ids == {("store", "same")}
    assert middleware.skipped == 1


async def test_positions_do_not_share_what_they_have_handled_but_their_members_do() -> None:
    hub, kept, handled = InMemoryHub(), Kept(), []

    async def handle(event: TelemetryEvent, context: MessageContext) -> None:
        handled.append(context.subscription)

    payload = EventCodec().encode(telemetry(event_id="same"))
    async with running_bus(hub, [DeduplicationMiddleware(seen=kept)]) as bus:
        for durable in ("a", "b", "b"):
            await bus.subscribe("polaris.telemetry.*", handle, durable=durable)
        for _ in range(4):
            await publish_raw(bus, TOPIC, payload)
        await asyncio.sleep(5)
    assert sorted(map(str, handled)) == ["a", "b"]


async def test_what_could_not_be_remembered_is_not_handled_again_but_remembered_when_it_comes_again() -> None:
    kept, handled = Kept(), []

    async def handle(event: TelemetryEvent) -> None:
        handled.append(event.event_id)

    policy = RedeliveryPolicy(base_delay_s=1.0, max_deliveries=100)
    async with running_bus(middlewares=[DeduplicationMiddleware(seen=kept)], redelivery=policy) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="store")
        kept.failing.add("remember")
        await bus.publish(TOPIC, telemetry(event_id="e"))
        await eventually(lambda: subscription.stats.retried == 3)
        assert handled == ["e"]
        kept.failing.clear()
        await eventually(lambda: subscription.in_flight == 0 and bool(kept.ids))
        await asyncio.sleep(120)
    assert handled == ["e"]
    assert kept.ids == {("store", "e")}
    assert kept.asked == [("e",)]
    assert subscription.stats.dead_lettered == 0


async def test_while_the_memory_cannot_be_asked_nothing_is_handled() -> None:
    kept, handled = Kept(), []

    async def final(context: MessageContext) -> None:
        handled.append(context.event.event_id)

    middleware = DeduplicationMiddleware(seen=kept)
    chain = MiddlewareChain([middleware])
    kept.failing.add("seen")
    with pytest.raises(StoreConnectionError):
        await chain.process(delivered("e"), final)
    assert handled == []
    assert middleware._running == {}
    kept.failing.clear()
    await chain.process(delivered("e"), final)
    assert handled == ["e"]


async def test_a_batch_leaves_out_what_is_remembered_and_remembers_the_rest_at_once() -> None:
    kept, seen = Kept(), []
    kept.ids.add(("s", "1"))

    async def final(context: MessageContext) -> None:
        seen.append([event.event_id for event in context.events])

    middleware = DeduplicationMiddleware(ids_max=2, seen=kept)
    chain = MiddlewareChain([middleware])
    await chain.process(delivered("0", "1", "2", "3", "4", "0"), final)
    assert seen == [["0", "2", "3", "4"]]
    assert middleware.skipped == 2
    # More than the memory of the process holds: all of them are remembered all the same.
    assert kept.ids == {("s", name) for name in "01234"}
    assert kept.asked == [tuple("01234")]
    await chain.process(delivered("0", "3"), final)
    assert len(seen) == 1


async def test_the_same_event_arriving_meanwhile_waits_until_it_is_remembered() -> None:
    kept, handled = Kept(), []

    async def final(context: MessageContext) -> None:
        handled.append(context.event.event_id)

    chain = MiddlewareChain([DeduplicationMiddleware(seen=kept)])
    await asyncio.gather(*(chain.process(delivered("e"), final) for _ in range(5)))
    assert handled == ["e"]
    assert kept.asked == [("e",)]


async def test_a_cancelled_delivery_lets_the_next_one_handle_the_event() -> None:
    kept, handled = Kept(), []

    async def final(context: MessageContext) -> None:
        handled.append("begun")
        await asyncio.sleep(1 if len(handled) > 1 else 1_000)

    middleware = DeduplicationMiddleware(seen=kept)
    chain = MiddlewareChain([middleware])
    first = asyncio.create_task(chain.process(delivered("e"), final))
    await asyncio.sleep(0.1)
    second = asyncio.create_task(chain.process(delivered("e"), final))
    await asyncio.sleep(0.1)
    first.cancel()
    await second
    assert handled == ["begun", "begun"]
    assert kept.ids == {("s", "e")}
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_what_is_delivered_at_most_once_is_not_kept() -> None:
    """The names of such subscriptions mean something else after a restart."""
    kept = Kept()

    async def handle(event: HealthEvent) -> None: ...

    async with running_bus(middlewares=[DeduplicationMiddleware(seen=kept)]) as bus:
        subscription = await bus.subscribe("polaris.health.*", handle)
        await bus.publish("polaris.health.store", health())
        await eventually(lambda: subscription.stats.handled == 1)
    assert kept.ids == set()
    assert kept.asked == []


async def test_two_who_listen_to_the_same_topic_both_get_every_event_once() -> None:
    handled: list[str] = []

    async def one(event: HealthEvent) -> None:
        handled.append("one")

    async def other(event: HealthEvent) -> None:
        handled.append("other")

    async with running_bus(middlewares=[DeduplicationMiddleware()]) as bus:
        await bus.subscribe("polaris.health.*", one)
        await bus.subscribe("polaris.health.*", other)
        event = health()
        for _ in range(3):
            await bus.publish("polaris.health.store", event)
        await asyncio.sleep(1)
    assert sorted(handled) == ["one", "other"]


@pytest.mark.parametrize("ids_max", [0, -1, 1.5, True, "many"])
def test_a_bound_that_is_none_is_refused(ids_max: Any) -> None:
    with pytest.raises(InvalidValueError):
        DeduplicationMiddleware(ids_max=ids_max)


def test_a_check_that_is_async_or_cannot_be_called_is_refused() -> None:
    async def check(context: MessageContext, event: Any) -> None: ...

    for wrong in (check, 7):
        with pytest.raises(InvalidValueError, match="checks"):
            ValidationMiddleware(wrong)  # type: ignore[arg-type]
