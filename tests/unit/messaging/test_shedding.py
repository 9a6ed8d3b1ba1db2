"""Telemetry of which only the present matters: conflation and age, counted, and only for those who fall behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.messaging.doubles import eventually, health, number_of, publish_raw, running_bus, telemetry

from polaris.domain import HealthEvent, PolarisEvent, TelemetryEvent
from polaris.exceptions import InvalidValueError, SubscriptionError
from polaris.messaging import DeliveryClass, RedeliveryPolicy, Start
from polaris.observability import MetricsCollector
from polaris.testing import running_clock


def slow(seen: list[tuple[str, float]], seconds: float = 1.0) -> Any:
    async def handle(event: TelemetryEvent) -> None:
        await asyncio.sleep(seconds)
        seen.append((event.system_state.system_id, number_of(event)))

    return handle


async def test_one_who_falls_behind_gets_the_newest_of_each_system() -> None:
    seen: list[tuple[str, float]] = []
    collector = MetricsCollector()
    async with running_bus(collector=collector) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", slow(seen), conflate=True, durable="twin")
        await bus.publish_telemetry(telemetry(0, "a"))
        await eventually(lambda: subscription.in_flight == 1)
        for number in range(1, 11):
            for system_id in ("a", "b"):
                await bus.publish_telemetry(telemetry(number, system_id))
        await eventually(lambda: subscription.in_flight == 0 and len(seen) == 3)
        await asyncio.sleep(60)
    assert seen == [("a", 0.0), ("a", 10.0), ("b", 10.0)]
    stats = subscription.stats
    assert (stats.received, stats.handled, stats.conflated, stats.retried) == (21, 3, 18, 0)
    labels = {"topic": "polaris.telemetry.*", "subscription": "twin", "reason": "conflated"}
    assert collector.registry.get_sample_value("polaris_messages_dropped_total", labels) == 18


async def test_one_who_keeps_up_drops_nothing() -> None:
    seen: list[tuple[str, float]] = []
    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", slow(seen, 0.1), conflate=True, stale_after_s=5.0)
        for number in range(20):
            await bus.publish_telemetry(telemetry(number))
            await asyncio.sleep(0.5)
        await eventually(lambda: len(seen) == 20)
    assert (subscription.stats.conflated, subscription.stats.stale) == (0, 0)


async def test_what_is_too_old_when_its_turn_comes_is_passed_over() -> None:
    seen: list[tuple[str, float]] = []
    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", slow(seen, 2.0), stale_after_s=5.0)
        for number in range(10):
            await bus.publish_telemetry(telemetry(number))
        await eventually(lambda: subscription.stats.received == 10 and subscription.in_flight == 0)
    assert seen == [("web", 0.0), ("web", 1.0), ("web", 2.0)]
    assert (subscription.stats.stale, subscription.stats.handled) == (7, 3)


async def test_a_batch_handler_gets_the_newest_of_each_system_too() -> None:
    batches: list[list[float]] = []

    async def handle(events: list[TelemetryEvent]) -> None:
        await asyncio.sleep(1.0)
        batches.append([number_of(event) for event in events])

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, conflate=True, batch_max=100)
        await bus.publish_telemetry(telemetry(0, "a"))
        await asyncio.sleep(0.5)
        for number in range(1, 11):
            for system_id in ("a", "b"):
                await bus.publish_telemetry(telemetry(number, system_id))
        await eventually(lambda: subscription.in_flight == 0 and len(batches) == 2)
    assert batches == [[0.0], [10.0, 10.0]]


async def test_in_order_and_conflated_what_failed_gives_way_to_what_is_newer() -> None:
    seen: list[tuple[str, float]] = []

    async def handle(event: TelemetryEvent) -> None:
        await asyncio.sleep(1.0)
        seen.append((event.system_state.system_id, number_of(event)))
        if number_of(event) == 0:
            raise ConnectionError

    policy = RedeliveryPolicy(max_deliveries=50, base_delay_s=1.0, max_delay_s=1.0)
    async with running_bus(redelivery=policy) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, conflate=True, ordered_by="topic")
        await bus.publish_telemetry(telemetry(0))
        await eventually(lambda: len(seen) == 1)
        await bus.publish_telemetry(telemetry(1))
        await eventually(lambda: subscription.in_flight == 0)
    assert seen[-1] == ("web", 1.0)
    assert subscription.stats.conflated == 1
    assert subscription.stats.dead_lettered == 0


async def test_a_core_subscription_conflates_without_calling_it_a_loss() -> None:
    seen: list[str] = []

    async def handle(event: HealthEvent) -> None:
        await asyncio.sleep(1.0)
        seen.append(event.message)

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.health.*", handle, conflate=True)
        for number in range(5):
            await bus.publish("polaris.health.store", health(str(number)))
        await eventually(lambda: subscription.in_flight == 0 and bool(seen))
    assert seen[-1] == "4"
    assert (subscription.stats.lost, subscription.stats.conflated) == (0, 5 - len(seen))


async def test_nothing_is_remembered_of_systems_that_are_through() -> None:
    seen: list[tuple[str, float]] = []
    async with running_bus() as bus:
        subscription: Any = await bus.subscribe("polaris.telemetry.*", slow(seen, 0.0), conflate=True)
        for number in range(50):
            await bus.publish_telemetry(telemetry(number, f"s{number}"))
        await publish_raw(bus, "polaris.telemetry.x", b"noise")
        await eventually(lambda: subscription.stats.received == 51 and subscription.in_flight == 0)
        assert subscription._route._shedding._newest == {}


async def test_a_senseless_age_is_refused() -> None:
    async with running_bus() as bus:
        with pytest.raises(InvalidValueError, match="stale_after_s"):
            await bus.subscribe("polaris.telemetry.*", slow([]), stale_after_s=0.0)


async def test_a_core_subscription_knows_no_age_and_no_past() -> None:
    clock = running_clock()
    core = DeliveryClass.AT_MOST_ONCE

    async def handle(_: PolarisEvent) -> None: ...

    async with running_bus() as bus:
        for topic, delivery in (("polaris.health.*", None), ("polaris.>", None), ("polaris.telemetry.*", core)):
            with pytest.raises(SubscriptionError, match="stale_after_s"):
                await bus.subscribe(topic, handle, stale_after_s=5.0, delivery=delivery)
            for start in (Start.ALL, Start.at_sequence(1), Start.at_time(clock.now())):
                with pytest.raises(SubscriptionError, match="begins now"):
                    await bus.subscribe(topic, handle, start=start, delivery=delivery)
        assert bus.subscriptions == []
        subscription = await bus.subscribe("polaris.health.*", handle, start=Start.NEW)
        assert subscription.active
