"""A core subscription on a real server that is too slow: what it loses is counted, over one connection and over two."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.awake import until
from tests.conftest import ConnectNATS

from polaris.domain import HealthEvent, HealthStatus
from polaris.ids import new_id
from polaris.messaging import LanedMessageBroker, MessageBroker, PolarisMessageBus
from polaris.messaging.brokers._embedded import EmbeddedNATSServer
from polaris.observability import MetricsCollector

Connect = Callable[[], Awaitable[MessageBroker]]


async def plain(connect: Connect) -> MessageBroker:
    return await connect()


async def laned(connect: Connect) -> MessageBroker:
    return LanedMessageBroker(await connect(), await connect())


@pytest.mark.parametrize("make_broker", [plain, laned])
@pytest.mark.parametrize(
    "bound", [{"pending_messages_max": 10}, {"pending_bytes_max": 3_000}], ids=["messages", "bytes"]
)
async def test_control_events_that_find_no_room_are_counted_as_lost(
    nats_server: EmbeddedNATSServer,
    connect_nats: ConnectNATS,
    make_broker: Callable[[Connect], Awaitable[MessageBroker]],
    bound: dict[str, int],
) -> None:
    collector = MetricsCollector()
    topic, opened, seen = f"polaris.health.{new_id()}", asyncio.Event(), 0

    async def slow(_: HealthEvent) -> None:
        nonlocal seen
        await opened.wait()
        seen += 1

    broker = await make_broker(lambda: connect_nats(nats_server, **bound))
    async with PolarisMessageBus(broker, streams=(), collector=collector) as bus:
        subscription = await bus.subscribe(topic, slow, in_flight_max=1)
        stats = subscription.stats
        for _ in range(50):
            await bus.publish(topic, HealthEvent("store", HealthStatus.HEALTHY, ""))
        await until(lambda: stats.overflowed >= 30, "what has no room is dropped")
        opened.set()
        await until(lambda: seen + stats.lost == 50, "what had room is handled")
        labels = {"topic": "polaris.health.*", "subscription": topic, "reason": "overflow"}
        counted = collector.registry.get_sample_value("polaris_messages_dropped_total", labels)
    assert counted == stats.lost == stats.overflowed
