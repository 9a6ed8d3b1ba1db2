"""What a core subscription has no room for: lost, but never silently."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from tests.unit.messaging.doubles import eventually, health, running_bus, telemetry

from polaris.domain import HealthEvent, TelemetryEvent
from polaris.messaging import DeliveryClass, InMemoryHub, InMemoryMessageBroker, LanedMessageBroker, PolarisMessageBus
from polaris.messaging._broker import Delivery
from polaris.messaging.brokers import _memory_core
from polaris.messaging.brokers._memory_deliveries import CoreDelivery
from polaris.messaging.brokers._overflow import Overflow
from polaris.observability import MetricsCollector
from polaris.testing import FaultyBroker, running_clock

ROOM = 10
DROPPED = "polaris_messages_dropped_total"


@pytest.fixture(autouse=True)
def _little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory_core, "PENDING_MAX", ROOM)


def plain() -> InMemoryMessageBroker:
    return InMemoryMessageBroker(clock=running_clock())


def laned() -> LanedMessageBroker:
    hub = InMemoryHub(clock=running_clock())
    return LanedMessageBroker(InMemoryMessageBroker(hub), InMemoryMessageBroker(hub))


def faulty() -> FaultyBroker:
    return FaultyBroker(plain(), clock=running_clock())


@asynccontextmanager
async def bus_on(broker: object, collector: MetricsCollector) -> AsyncIterator[PolarisMessageBus]:
    async with PolarisMessageBus(broker, collector=collector, clock=running_clock()) as bus:  # type: ignore[arg-type]
        yield bus


@pytest.mark.parametrize("make_broker", [plain, laned, faulty])
async def test_control_events_that_find_no_room_are_counted_as_lost(make_broker: Callable[[], object]) -> None:
    collector = MetricsCollector()
    opened = asyncio.Event()
    seen: list[str] = []

    async def slow(event: HealthEvent) -> None:
        await opened.wait()
        seen.append(event.message)

    async with bus_on(make_broker(), collector) as bus:
        subscription = await bus.subscribe("polaris.health.*", slow, in_flight_max=1)
        for number in range(30):
            await bus.publish("polaris.health.store", health(str(number)))
        await eventually(lambda: subscription.stats.overflowed > 0)
        stats = subscription.stats
        dropped = stats.overflowed
        labels = {"topic": "polaris.health.*", "subscription": "polaris.health.*", "reason": "overflow"}
        assert collector.registry.get_sample_value(DROPPED, labels) == dropped
        opened.set()
        await eventually(lambda: len(seen) == 30 - dropped)
    assert (stats.handled, stats.lost, stats.overflowed) == (30 - dropped, dropped, dropped)
    assert dropped >= 30 - ROOM - 2
    assert seen == [str(number) for number in range(30 - dropped)], "the newest are dropped"


async def test_telemetry_that_finds_no_room_in_its_lane_is_counted_too() -> None:
    collector = MetricsCollector()
    opened = asyncio.Event()

    async def slow(_: TelemetryEvent) -> None:
        await opened.wait()

    async with bus_on(laned(), collector) as bus:
        core = DeliveryClass.AT_MOST_ONCE
        subscription = await bus.subscribe("polaris.telemetry.web", slow, in_flight_max=1, delivery=core)
        for number in range(30):
            await bus.publish("polaris.telemetry.web", telemetry(number), delivery=core)
        assert subscription.stats.lost == subscription.stats.overflowed >= 30 - ROOM - 2
        opened.set()


async def test_one_who_keeps_up_loses_nothing() -> None:
    seen: list[str] = []

    async def handle(event: HealthEvent) -> None:
        seen.append(event.message)

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.health.*", handle)
        for number in range(5 * ROOM):
            await bus.publish("polaris.health.store", health(str(number)))
            await asyncio.sleep(0)
        await eventually(lambda: len(seen) == 5 * ROOM)
    assert (subscription.stats.lost, subscription.stats.overflowed) == (0, 0)


class Callback:
    """Takes no delivery; is told of what is dropped, and may fail at that."""

    def __init__(self, *, fails: bool = False) -> None:
        self.told: list[bytes] = []
        self._fails = fails

    async def __call__(self, delivery: Delivery) -> None:
        raise AssertionError(delivery)

    def dropped(self, delivery: Delivery) -> None:
        self.told.append(delivery.payload)
        if self._fails:
            raise ValueError("broken")


def delivery(number: int) -> CoreDelivery:
    return CoreDelivery("a.b", str(number).encode(), {}, None)


async def test_an_overflow_that_goes_on_is_logged_once_a_minute_and_at_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    overflow = Overflow("a.b", Callback(), clock=running_clock())
    with caplog.at_level(logging.WARNING):
        for number in range(100):
            overflow.drop(delivery(number))
            await asyncio.sleep(1)
        overflow.end()
        overflow.end()
    assert [record.args for record in caplog.records] == [("a.b", 1), ("a.b", 61), ("a.b", 100)]


async def test_a_callback_that_fails_when_it_is_told_fails_no_publisher(caplog: pytest.LogCaptureFixture) -> None:
    callback = Callback(fails=True)
    overflow = Overflow("a.b", callback, clock=running_clock())
    with caplog.at_level(logging.ERROR):
        overflow.drop(delivery(1))
        overflow.drop(delivery(2))
    assert (callback.told, overflow.count) == ([b"1", b"2"], 2)
    assert "the callback of subscription a.b failed" in caplog.text
