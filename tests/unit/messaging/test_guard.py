"""A subscription whose breaker is open: what waits stays where it is, and does not hold up the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.messaging.doubles import eventually, health, running_bus, telemetry

from polaris.domain import HealthEvent, TelemetryEvent
from polaris.exceptions import RequestFailedError, StoreConnectionError
from polaris.messaging import AckPolicy, PolarisMessageBus, RedeliveryPolicy, Subscription
from polaris.resilience import CircuitBreaker, CircuitBreakerConfig
from polaris.testing import running_clock

POLICY = RedeliveryPolicy(max_deliveries=5, base_delay_s=0.1, max_delay_s=0.1)


async def test_while_the_breaker_is_open_only_what_failed_goes_back_to_the_broker() -> None:
    clock = running_clock()
    failed = 0

    async def handle(event: TelemetryEvent) -> None:
        nonlocal failed
        failed += 1
        raise ConnectionError("the store is away")

    breaker = CircuitBreaker("store", CircuitBreakerConfig(failure_threshold=2, timeout=60.0), clock=clock)
    async with running_bus(redelivery=POLICY) as bus:
        for number in range(50):
            await bus.publish_telemetry(telemetry(number))
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="d", breaker=breaker, in_flight_max=8)
        await asyncio.sleep(119.0)
        # Two failures opened it, one probe failed since, which stays.
        assert (failed, subscription.stats.retried) == (3, 2)
        assert subscription.stats.received <= 8 + 2
        assert subscription.in_flight <= 8


async def test_an_open_breaker_costs_no_grace_period_at_the_end() -> None:
    clock = running_clock()

    async def handle(event: TelemetryEvent) -> None: ...

    breaker = CircuitBreaker("store", clock=clock)
    breaker.isolate()
    async with running_bus(grace_s=10.0) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, concurrency=3, breaker=breaker)
        for number in range(5):
            await bus.publish_telemetry(telemetry(number))
        await eventually(lambda: subscription.in_flight == 5)
        began_s = clock.monotonic()
        await subscription.unsubscribe()
        assert clock.monotonic() - began_s < 0.1
        assert (subscription.stats.handled, subscription.in_flight) == (0, 0)


# An outage uses up no message, however long it lasts.


class Store:
    """What the handlers depend on. A message may be bad in itself."""

    def __init__(self) -> None:
        self.away = True
        self.bad: set[str] = set()
        self.saved: list[str] = []

    def save(self, event: TelemetryEvent) -> None:
        if self.away or event.event_id in self.bad:
            raise ConnectionError("the store is away")
        if event.event_id not in self.saved:
            self.saved.append(event.event_id)


WAYS: dict[str, dict[str, Any]] = {
    "single": {},
    "four at once": {"concurrency": 4},
    "ordered": {"ordered_by": "topic"},
    "batch": {"batch_max": 10},
    "cumulative": {"ack": AckPolicy.ALL},
    "cumulative batch": {"ack": AckPolicy.ALL, "batch_max": 10},
    "conflating": {"conflate": True},
}


async def subscribed(bus: PolarisMessageBus, store: Store, way: str, breaker: CircuitBreaker) -> Subscription:
    async def handle(event: TelemetryEvent) -> None:
        store.save(event)

    async def handle_all(events: list[TelemetryEvent]) -> None:
        for event in events:
            store.save(event)

    return await bus.subscribe(
        "polaris.telemetry.*",
        handle_all if "batch" in way else handle,
        durable="d",
        breaker=breaker,
        in_flight_max=16,
        **WAYS[way],
    )


@pytest.mark.parametrize("way", WAYS)
async def test_an_outage_puts_nothing_aside_however_long_it_lasts(way: str) -> None:
    store = Store()
    breaker = CircuitBreaker("store", CircuitBreakerConfig(failure_threshold=2, timeout=1.0), clock=running_clock())
    async with running_bus(redelivery=POLICY) as bus:
        for number in range(50):
            await bus.publish_telemetry(telemetry(number, system_id=f"s{number}", event_id=f"e{number}"))
        subscription = await subscribed(bus, store, way, breaker)
        await asyncio.sleep(150.0)
        assert subscription.stats.failed > 100
        assert (subscription.stats.dead_lettered, store.saved) == (0, [])
        store.away = False
        await eventually(lambda: len(store.saved) == 50)
        await asyncio.sleep(1.0)
        assert subscription.stats.dead_lettered == 0
        assert (await subscription.info()) is not None
    assert sorted(store.saved) == sorted(f"e{number}" for number in range(50))


@pytest.mark.parametrize("way", ["single", "four at once", "batch"])
async def test_a_bad_message_is_no_probe_for_ever(way: str) -> None:
    """Whatever is behind it gets its turn, closes the breaker, and the bad one is put aside."""
    store = Store()
    store.away, store.bad = False, {"e0"}
    breaker = CircuitBreaker("store", CircuitBreakerConfig(failure_threshold=2, timeout=1.0), clock=running_clock())
    async with running_bus(redelivery=POLICY) as bus:
        subscription = await subscribed(bus, store, way, breaker)
        for number in range(30):
            await bus.publish_telemetry(telemetry(number, system_id=f"s{number}", event_id=f"e{number}"))
            await asyncio.sleep(1.0)
        await eventually(lambda: subscription.stats.dead_lettered == 1)
        await eventually(lambda: len(store.saved) == 29)


async def test_what_waits_as_a_probe_is_handed_back_at_the_end() -> None:
    store = Store()
    breaker = CircuitBreaker("store", CircuitBreakerConfig(failure_threshold=2, timeout=60.0), clock=running_clock())
    async with running_bus(redelivery=POLICY) as bus:
        for number in range(5):
            await bus.publish_telemetry(telemetry(number, event_id=f"e{number}"))
        subscription = await subscribed(bus, store, "single", breaker)
        await asyncio.sleep(130.0)
        await subscription.unsubscribe()
        assert subscription.in_flight == 0
        store.away = False
        again = await subscribed(bus, store, "single", breaker)
        await eventually(lambda: len(store.saved) == 5)
        assert again.stats.dead_lettered == 0


async def test_a_request_that_served_as_a_probe_gets_the_error_of_its_handler() -> None:
    breaker = CircuitBreaker("store", CircuitBreakerConfig(failure_threshold=1, timeout=10.0), clock=running_clock())

    async def answer(event: HealthEvent) -> HealthEvent:
        raise StoreConnectionError("away")

    async with running_bus() as bus:
        await bus.subscribe("acme.ask", answer, breaker=breaker)
        for _ in range(3):
            with pytest.raises(RequestFailedError) as caught:
                await bus.request("acme.ask", health(), timeout=60.0)
            assert caught.value.remote_code == StoreConnectionError.code
