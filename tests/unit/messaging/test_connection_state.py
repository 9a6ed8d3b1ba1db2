"""Where the connection stands, for those who ask, listen or scrape; and who goes on at once when it is back."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
from tests.unit.messaging.doubles import telemetry

from polaris.domain import TelemetryEvent
from polaris.messaging import (
    STANDARD_STREAMS,
    ConnectionState,
    ConsumerSpec,
    Delivery,
    InMemoryHub,
    InMemoryMessageBroker,
    LanedMessageBroker,
    PolarisMessageBus,
)
from polaris.messaging._state_listeners import StateListeners
from polaris.observability import MetricsCollector
from polaris.testing import FaultyBroker, running_clock

TELEMETRY = [stream for stream in STANDARD_STREAMS if stream.name == "POLARIS_TELEMETRY"]
LOST, BACK = ConnectionState.RECONNECTING, ConnectionState.CONNECTED


def faulty(hub: InMemoryHub | None = None) -> FaultyBroker:
    clock = running_clock()
    return FaultyBroker(InMemoryMessageBroker(hub, clock=clock), clock=clock)


def bus_on(broker: FaultyBroker | LanedMessageBroker, **options: Any) -> PolarisMessageBus:
    # Without dead letters, so without subscriptions of the bus's own.
    return PolarisMessageBus(broker, streams=TELEMETRY, clock=running_clock(), **options)


class Warnings:
    """A logger that keeps warnings."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def warning(self, message: str, **_: object) -> None:
        self.messages.append(message)

    def debug(self, message: str, **_: object) -> None:
        """Nobody reads it."""


async def _ignore(_: TelemetryEvent) -> None:
    """A handler without interest."""


def test_a_listener_is_told_in_turn_until_it_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    listeners = StateListeners()
    heard: list[str] = []
    forget_first = listeners.add(lambda _: heard.append("first"))

    def failing(_: ConnectionState) -> None:
        forget_last()
        raise RuntimeError("of the listener")

    listeners.add(failing)
    forget_last = listeners.add(lambda _: heard.append("last"))
    listeners.add(heard.append)
    listeners.tell(LOST)
    assert heard == ["first", LOST], "the last one was forgotten just before its turn"
    assert "a listener for the state of the connection failed" in caplog.text
    forget_first()
    forget_first()
    listeners.tell(BACK)
    assert heard == ["first", LOST, BACK]
    assert len(listeners) == 2


async def test_a_bus_tells_its_listeners_of_the_connection() -> None:
    broker = faulty()
    bus = bus_on(broker)
    heard: list[ConnectionState] = []
    forget = bus.on_state(heard.append)
    async with bus:
        broker.cut()
        broker.mend()
        forget()
        broker.cut()
    assert heard == [BACK, LOST, BACK]


async def test_a_durable_subscription_goes_on_as_soon_as_the_broker_is_back() -> None:
    hub = InMemoryHub(clock=running_clock())
    broker, elsewhere = faulty(hub), bus_on(faulty(hub))
    seen: list[TelemetryEvent] = []
    logger = Warnings()

    async def handle(event: TelemetryEvent) -> None:
        seen.append(event)

    async with bus_on(broker, logger=logger) as bus, elsewhere:
        await bus.subscribe("polaris.telemetry.*", handle, durable="worker")
        await asyncio.sleep(0.1)
        for outage in range(1, 6):
            broker.cut()
            await elsewhere.publish_telemetry(telemetry(outage))
            # Long enough for the longest pauses between its attempts.
            await asyncio.sleep(60.0 + outage / 3)
            broker.mend()
            await asyncio.sleep(0.01)
            assert len(seen) == outage
        # Once an outage, however many attempts there were.
        assert logger.messages == ["the broker is away; the subscription waits"] * 5


class Broken:
    """A consumer that never gives anything."""

    def __init__(self) -> None:
        self.fetches = 0

    async def fetch(self, count_max: int, *, wait_s: float) -> Sequence[Delivery]:
        self.fetches += 1
        raise RuntimeError(f"not one of {count_max} within {wait_s} s")

    async def close(self) -> None:
        """There is nothing to let go of."""


async def test_one_that_fails_though_the_broker_is_there_pauses_and_begins_anew_with_a_new_connection() -> None:
    broker, consumer = faulty(), Broken()

    async def attach(_: ConsumerSpec) -> Broken:
        return consumer

    broker.consumer = attach  # type: ignore[method-assign,assignment]
    async with bus_on(broker) as bus:
        await bus.subscribe("polaris.telemetry.*", _ignore, durable="worker")
        await asyncio.sleep(60.0)
        assert 15 < consumer.fetches < 40
        before = consumer.fetches
        broker.cut()
        broker.mend()
        await asyncio.sleep(0.4)
        # At once, and with the shortest pauses again.
        assert consumer.fetches - before >= 4


async def test_an_ended_subscription_listens_no_more() -> None:
    broker = faulty()
    async with bus_on(broker) as bus:
        before = len(broker._listeners)
        for _ in range(5):
            subscription = await bus.subscribe("polaris.telemetry.*", _ignore)
            await subscription.unsubscribe()
        kept = await bus.subscribe("polaris.telemetry.*", _ignore)
        assert len(broker._listeners) == before + 1
        assert kept.active
    assert len(broker._listeners) == before


async def test_every_lane_is_in_the_metrics() -> None:
    control, bulk, collector = faulty(), faulty(), MetricsCollector()
    bus = bus_on(LanedMessageBroker(control, bulk), collector=collector)

    def read(name: str, **labels: str) -> float | None:
        return collector.registry.get_sample_value(f"polaris_{name}", labels)

    assert read("broker_connected", broker="bulk") == 0.0
    async with bus:
        assert [read("broker_connected", broker=lane) for lane in ("control", "bulk")] == [1.0, 1.0]
        assert read("active_connections", connection_type="broker") == 2.0
        assert read("broker_reconnects_total", broker="bulk") == 0.0
        for lost in (1, 2):
            bulk.cut()
            await asyncio.sleep(2.0)
            assert [read("broker_connected", broker=lane) for lane in ("control", "bulk")] == [1.0, 0.0]
            assert read("active_connections", connection_type="broker") == 1.0
            assert read("broker_away_seconds_total", broker="bulk") == pytest.approx(4.0 * lost - 2.0)
            await asyncio.sleep(2.0)
            bulk.mend()
            assert read("broker_reconnects_total", broker="bulk") == lost
        await asyncio.sleep(5.0)
        assert read("broker_away_seconds_total", broker="bulk") == pytest.approx(8.0)
        assert read("broker_reconnects_total", broker="control") == read("broker_away_seconds_total", broker="control")
    assert read("active_connections", connection_type="broker") == 0.0
    # A bus that is started again has not lost its connection.
    async with bus:
        assert read("broker_reconnects_total", broker="control") == 0.0


async def test_a_single_connection_is_in_the_metrics_too() -> None:
    broker, collector = faulty(), MetricsCollector()
    async with bus_on(broker, collector=collector):
        broker.cut()
        assert collector.registry.get_sample_value("polaris_broker_connected", {"broker": "main"}) == 0.0
    # It was given up, not made again.
    assert collector.registry.get_sample_value("polaris_broker_reconnects_total", {"broker": "main"}) == 0.0


async def test_buses_that_share_a_broker_show_one_connection() -> None:
    broker, collector = faulty(), MetricsCollector()
    async with bus_on(broker, collector=collector):
        bus_on(broker, collector=collector)
        broker.cut()
        await asyncio.sleep(5.0)
        broker.mend()
        series = collector.registry.get_sample_value
        assert series("polaris_broker_reconnects_total", {"broker": "main"}) == 1.0
        assert series("polaris_broker_away_seconds_total", {"broker": "main"}) == pytest.approx(5.0)
        assert series("polaris_active_connections", {"connection_type": "broker"}) == 1.0
        # Another collector has its own account.
        other = MetricsCollector()
        bus_on(broker, collector=other)
        assert other.registry.get_sample_value("polaris_broker_connected", {"broker": "main"}) == 1.0


async def test_each_of_several_brokers_has_a_name_of_its_own_in_a_collector() -> None:
    first, second, collector = faulty(), faulty(), MetricsCollector()
    control, bulk = faulty(), faulty()

    def read(name: str, broker: str) -> float | None:
        return collector.registry.get_sample_value(f"polaris_broker_{name}", {"broker": broker})

    async with bus_on(first, collector=collector):
        first.cut()
        await asyncio.sleep(5.0)
        first.mend()
        async with bus_on(second, collector=collector):
            assert [read("connected", broker) for broker in ("main", "main-2")] == [1.0, 1.0]
            second.cut()
            await asyncio.sleep(2.0)
            assert [read("connected", broker) for broker in ("main", "main-2")] == [1.0, 0.0]
            second.mend()
        assert [read("connected", broker) for broker in ("main", "main-2")] == [1.0, 0.0]
        assert [read("away_seconds_total", broker) for broker in ("main", "main-2")] == [5.0, 2.0]
        async with bus_on(LanedMessageBroker(control, bulk), collector=collector):
            async with bus_on(LanedMessageBroker(faulty(), faulty()), collector=collector):
                assert read("connected", "bulk-2") == 1.0
            assert [read("connected", broker) for broker in ("bulk", "bulk-2")] == [1.0, 0.0]


async def test_the_next_broker_of_a_name_goes_on_from_what_the_last_one_counted() -> None:
    collector = MetricsCollector()

    def read(name: str) -> float | None:
        return collector.registry.get_sample_value(f"polaris_broker_{name}", {"broker": "main"})

    for past in range(3):
        broker = faulty()
        async with bus_on(broker, collector=collector):
            assert read("away_seconds_total") == pytest.approx(3.0 * past)
            broker.cut()
            await asyncio.sleep(3.0)
            broker.mend()
            assert read("reconnects_total") == past + 1.0
        del broker
        gc.collect()


async def test_a_broker_keeps_nothing_of_the_buses_and_collectors_that_used_it() -> None:
    broker = faulty()
    async with bus_on(broker, collector=MetricsCollector()):
        pass
    gc.collect()
    before, gone = len(broker._listeners), list[weakref.ref[PolarisMessageBus]]()
    for _ in range(20):
        bus = bus_on(broker, collector=MetricsCollector())
        async with bus:
            await bus.publish_telemetry(telemetry(1))
        gone.append(weakref.ref(bus))
        del bus
    gc.collect()
    assert [ref() for ref in gone] == [None] * 20
    assert len(broker._listeners) == before
    # One that is kept listens on, however often it is started.
    bus = bus_on(broker)
    for _ in range(3):
        async with bus:
            gc.collect()
            broker.cut()
            publishing = asyncio.create_task(bus.publish_telemetry(telemetry(2), timeout_s=60.0))
            await asyncio.sleep(20.0)
            broker.mend()
            await asyncio.sleep(0.01)
            assert publishing.done()
