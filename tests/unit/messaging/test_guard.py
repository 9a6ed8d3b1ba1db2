"""A subscription whose breaker is open: what waits stays where it is, and does not hold up the end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from tests.unit.messaging.doubles import eventually, health, running_bus, telemetry

from polaris.domain import HealthEvent, TelemetryEvent
from polaris.exceptions import InvalidValueError, RequestFailedError, StoreConnectionError
from polaris.messaging import AckPolicy, DeadLetterReason, EventCodec, PolarisMessageBus, RedeliveryPolicy, Subscription
from polaris.resilience import CircuitBreaker, CircuitBreakerConfig, CircuitBreakerState
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


async def opened(config: CircuitBreakerConfig) -> CircuitBreaker:
    """A breaker that has just opened."""
    breaker = CircuitBreaker("store", config, clock=running_clock())

    async def fail() -> None:
        raise ConnectionError("the store is away")

    for _ in range(config.failure_threshold):
        with suppress(ConnectionError):
            await breaker.call(fail)
    return breaker


async def test_who_waits_for_the_probe_of_another_begins_soon_after_it_and_asks_seldom() -> None:
    clock = running_clock()
    breaker = await opened(CircuitBreakerConfig(failure_threshold=1, timeout=1.0, probe_lease=60.0))
    await asyncio.sleep(1.0)
    probe = asyncio.create_task(breaker.call(asyncio.sleep, 2.25))
    begun_s: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        begun_s.append(clock.monotonic())

    async with running_bus() as bus:
        await bus.subscribe("polaris.telemetry.*", handle, breaker=breaker)
        await bus.publish_telemetry(telemetry())
        await probe
        closed_s = clock.monotonic()
        rejected = breaker.snapshot().rejected_total
        await eventually(lambda: bool(begun_s))
    assert begun_s[0] - closed_s <= 0.11
    assert 2 <= rejected <= 25


async def test_who_waits_for_a_breaker_that_was_isolated_asks_once_a_second() -> None:
    async def handle(event: TelemetryEvent) -> None: ...

    breaker = CircuitBreaker("store", clock=running_clock())
    breaker.isolate()
    async with running_bus() as bus:
        await bus.subscribe("polaris.telemetry.*", handle, breaker=breaker)
        await bus.publish_telemetry(telemetry())
        await asyncio.sleep(10.0)
        assert 9 <= breaker.snapshot().rejected_total <= 11


# An outage uses up no message, within the bound on the probes of each.


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
async def test_an_outage_of_less_than_a_hundred_probes_puts_nothing_aside(way: str) -> None:
    store = Store()
    breaker = CircuitBreaker("store", CircuitBreakerConfig(failure_threshold=2, timeout=1.0), clock=running_clock())
    async with running_bus(redelivery=POLICY) as bus:
        for number in range(50):
            await bus.publish_telemetry(telemetry(number, system_id=f"s{number}", event_id=f"e{number}"))
        subscription = await subscribed(bus, store, way, breaker)
        await asyncio.sleep(80.0)
        assert subscription.stats.failed > 70
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


@pytest.mark.parametrize("way", ["single", "ordered", "cumulative", "cumulative batch"])
async def test_a_bad_message_that_nothing_can_overtake_is_put_aside_after_a_hundred_probes(way: str) -> None:
    store = Store()
    store.away, store.bad = False, {"e0"}
    behind = [] if way == "single" else [f"e{number}" for number in range(1, 20)]
    breaker = CircuitBreaker("store", CircuitBreakerConfig(failure_threshold=2, timeout=1.0), clock=running_clock())
    async with running_bus(redelivery=POLICY) as bus:
        for event_id in ["e0", *behind]:
            await bus.publish_telemetry(telemetry(event_id=event_id))
        subscription = await subscribed(bus, store, way, breaker)
        await asyncio.sleep(95.0)
        assert (subscription.stats.dead_lettered, store.saved) == (0, [])
        await eventually(lambda: subscription.stats.dead_lettered == 1)
        await eventually(lambda: store.saved == behind)
        await eventually(lambda: subscription.in_flight == 0)
        (record,) = await bus.dead_letters.list()
    assert EventCodec().decode(record.entry.payload).event.event_id == "e0"
    assert record.entry.reason is DeadLetterReason.EXHAUSTED
    assert "the store is away" in record.entry.error_message
    # Two failures opened the breaker; of a batch, each message was then tried alone.
    assert record.entry.attempts == 2 + 100 + ("batch" in way)


async def test_a_bad_event_that_probed_in_vain_is_put_aside_without_those_in_its_message() -> None:
    store = Store()
    store.away, store.bad = False, {"e0"}
    breaker = CircuitBreaker("store", CircuitBreakerConfig(failure_threshold=2, timeout=1.0), clock=running_clock())
    async with running_bus(redelivery=POLICY) as bus:
        subscription = await subscribed(bus, store, "batch", breaker)
        await bus.publish_many([telemetry(number, event_id=f"e{number}") for number in range(3)])
        await eventually(lambda: store.saved == ["e1", "e2"])
        await eventually(lambda: subscription.in_flight == 0)
        (record,) = await bus.dead_letters.list()
    assert EventCodec().decode(record.entry.payload).event.event_id == "e0"


async def test_an_end_while_the_breaker_is_open_puts_no_good_event_aside() -> None:
    """The bad event, alone, opened the breaker; the good one beside it waits for its turn."""
    store = Store()
    store.away, store.bad = False, {"e0"}
    breaker = CircuitBreaker("store", CircuitBreakerConfig(failure_threshold=3, timeout=60.0), clock=running_clock())
    async with running_bus(redelivery=RedeliveryPolicy(max_deliveries=2, base_delay_s=0.1)) as bus:
        subscription = await subscribed(bus, store, "batch", breaker)
        await bus.publish_many([telemetry(number, event_id=f"e{number}") for number in range(2)])
        await eventually(lambda: subscription.stats.dead_lettered == 1)
        await subscription.unsubscribe()
        assert (subscription.stats.dead_lettered, subscription.in_flight) == (1, 0)
        breaker.close()
        await subscribed(bus, store, "batch", breaker)
        await eventually(lambda: store.saved == ["e1"])


@pytest.mark.parametrize("hangs_s", [0.0, 1.5, 5.0])
async def test_an_outage_in_which_calls_hang_for_longer_than_a_break_puts_nothing_aside(hangs_s: float) -> None:
    store = Store()

    async def handle(event: TelemetryEvent) -> None:
        await asyncio.sleep(hangs_s if store.away else 0.0)
        store.save(event)

    breaker = CircuitBreaker("store", CircuitBreakerConfig(failure_threshold=2, timeout=1.0), clock=running_clock())
    async with running_bus(redelivery=POLICY) as bus:
        for number in range(20):
            await bus.publish_telemetry(telemetry(number, event_id=f"e{number}"))
        subscription = await bus.subscribe("polaris.telemetry.*", handle, breaker=breaker, concurrency=4, durable="d")
        await asyncio.sleep(600.0)
        assert subscription.stats.failed > 200
        assert subscription.stats.dead_lettered == 0
        store.away = False
        await eventually(lambda: len(store.saved) == 20)
        assert subscription.stats.dead_lettered == 0


@pytest.mark.parametrize(
    ("own", "counted"),
    [(InvalidValueError("n", "another number", 2), "dead_lettered"), (KeyError("a defect"), "retried")],
    ids=["not retryable", "ignored"],
)
async def test_what_the_breaker_does_not_count_is_a_failure_of_the_probes_own_message(
    own: Exception, counted: str
) -> None:
    """Also when another probe has opened the breaker meanwhile."""
    rules = CircuitBreakerConfig(
        failure_threshold=1, timeout=1.0, half_open_max_calls=2, ignored_exceptions=(KeyError,)
    )

    async def handle(event: TelemetryEvent) -> None:
        if event.event_id == "bad":
            await asyncio.sleep(0.5)
            raise own
        raise ConnectionError("the store is away")

    async with running_bus(redelivery=RedeliveryPolicy(base_delay_s=10.0)) as bus:
        breaker = await opened(rules)
        subscription = await bus.subscribe("polaris.telemetry.*", handle, breaker=breaker, concurrency=2)
        for event_id in ("bad", "good"):
            await bus.publish_telemetry(telemetry(event_id=event_id))
        await asyncio.sleep(1.75)
        assert breaker.state is CircuitBreakerState.OPEN
        assert subscription.stats.failed == 2
        assert getattr(subscription.stats, counted) == 1


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
