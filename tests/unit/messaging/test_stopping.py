"""How subscriptions and the bus end: nothing accepted is forgotten, nothing keeps running."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.messaging.doubles import eventually, health, new_bus, number_of, running_bus, telemetry

from polaris.domain import HealthEvent, TelemetryEvent
from polaris.exceptions import BusConnectionError
from polaris.messaging import (
    ConnectionState,
    ConsumerSpec,
    InMemoryHub,
    InMemoryMessageBroker,
    MessageContext,
    PolarisMessageBus,
    Subscription,
)
from polaris.testing import running_clock


class Worker:
    """A handler whose calls take a while."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.begun: list[float] = []
        self.done: list[float] = []

    async def handle(self, event: TelemetryEvent) -> None:
        self.begun.append(number_of(event))
        await asyncio.sleep(self.delay_s)
        self.done.append(number_of(event))


async def test_stop_lets_running_handlers_finish_and_hands_the_rest_back_at_once() -> None:
    hub = InMemoryHub(clock=running_clock())
    first, second = Worker(2.0), Worker(0.0)
    bus = new_bus(hub)
    await bus.start()
    subscription = await bus.subscribe("polaris.telemetry.*", first, durable="w", concurrency=2)
    for n in range(6):
        await bus.publish_telemetry(telemetry(n))
    await eventually(lambda: len(first.begun) == 2)
    await bus.stop()
    assert sorted(first.done) == first.begun == [0.0, 1.0]
    assert (subscription.in_flight, subscription.active, subscription.stats.retried) == (0, False, 4)
    async with running_bus(hub) as later:
        await later.subscribe("polaris.telemetry.*", second, durable="w")
        await asyncio.sleep(0.5)
        assert second.done == [2.0, 3.0, 4.0, 5.0]


async def test_a_handler_over_the_grace_period_is_cancelled_and_its_message_handed_back() -> None:
    clock = running_clock()
    hub = InMemoryHub(clock=clock)
    slow = Worker(100.0)
    bus = new_bus(hub, grace_s=3.0)
    await bus.start()
    await bus.subscribe("polaris.telemetry.*", slow, durable="w")
    await bus.publish_telemetry(telemetry(1))
    await eventually(lambda: slow.begun == [1.0])
    began_s = clock.monotonic()
    await bus.stop()
    assert 2.9 <= clock.monotonic() - began_s <= 4.0
    assert slow.done == []
    quick = Worker(0.0)
    async with running_bus(hub) as later:
        await later.subscribe("polaris.telemetry.*", quick, durable="w")
        await asyncio.sleep(0.5)
        assert quick.done == [1.0]


async def test_drain_handles_everything_that_was_accepted() -> None:
    worker = Worker(0.1)
    bus = new_bus()
    await bus.start()
    subscription = await bus.subscribe("polaris.telemetry.*", worker)
    for n in range(20):
        await bus.publish_telemetry(telemetry(n))
    await eventually(lambda: subscription.in_flight == 20)
    await bus.drain()
    assert worker.done == [float(n) for n in range(20)]
    assert bus.state is ConnectionState.CLOSED


async def test_drain_of_a_batch_handler_handles_everything_that_was_accepted() -> None:
    handled: list[float] = []

    async def handle(events: list[TelemetryEvent]) -> None:
        await asyncio.sleep(0.1)
        handled.extend(number_of(event) for event in events)

    bus = new_bus()
    await bus.start()
    subscription = await bus.subscribe("polaris.telemetry.*", handle, batch_max=3, batch_linger_s=60.0)
    for n in range(20):
        await bus.publish_telemetry(telemetry(n))
    await eventually(lambda: subscription.stats.received == 20)
    await bus.drain()
    assert handled == [float(n) for n in range(20)]


async def test_stop_ends_a_batch_handler_that_waits_for_company() -> None:
    hub = InMemoryHub(clock=running_clock())

    async def handle(events: list[TelemetryEvent]) -> None: ...

    bus = new_bus(hub)
    await bus.start()
    subscription = await bus.subscribe("polaris.telemetry.*", handle, batch_linger_s=5.0, durable="w")
    await bus.publish_telemetry(telemetry())
    await asyncio.sleep(0.1)
    await bus.stop()
    assert subscription.in_flight == 0
    assert subscription.stats.handled + subscription.stats.retried == 1


async def test_what_a_core_subscription_received_is_handled_before_the_end() -> None:
    seen: list[str] = []

    async def handle(event: HealthEvent) -> None:
        await asyncio.sleep(0.1)
        seen.append(event.message)

    bus = new_bus()
    await bus.start()
    await bus.subscribe("polaris.health.*", handle, in_flight_max=2)
    for n in range(10):
        await bus.publish("polaris.health.store", health(str(n)))
    await bus.stop()
    assert seen == [str(n) for n in range(10)]


async def test_what_a_core_subscription_cannot_finish_is_counted_as_lost() -> None:
    async def handle(event: HealthEvent) -> None:
        await asyncio.sleep(100)

    bus = new_bus(grace_s=1.0)
    await bus.start()
    subscription = await bus.subscribe("polaris.health.*", handle)
    for n in range(3):
        await bus.publish("polaris.health.store", health(str(n)))
    await bus.stop()
    assert (subscription.stats.lost, subscription.in_flight) == (3, 0)


async def test_a_handler_may_publish_while_the_bus_ends() -> None:
    outcomes: list[Any] = []
    bus = new_bus()

    async def handle(event: TelemetryEvent) -> None:
        await asyncio.sleep(1.0)
        outcomes.append(await bus.publish("polaris.executions.web", health()))
        with pytest.raises(BusConnectionError):
            await bus.subscribe("polaris.telemetry.*", handle)

    await bus.start()
    subscription = await bus.subscribe("polaris.telemetry.*", handle)
    await bus.publish_telemetry(telemetry())
    await eventually(lambda: subscription.in_flight == 1)
    await bus.stop()
    assert outcomes[0].stream == "POLARIS_EXECUTIONS"
    assert subscription.stats.handled == 1


async def test_a_handler_may_end_its_own_subscription() -> None:
    seen: list[float] = []
    holder: list[Subscription] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))
        await holder[0].unsubscribe()

    async with running_bus() as bus:
        holder.append(await bus.subscribe("polaris.telemetry.*", handle))
        for n in range(3):
            await bus.publish_telemetry(telemetry(n))
        await eventually(lambda: not holder[0].active and holder[0].in_flight == 0)
        await asyncio.sleep(60)
    assert seen == [0.0]
    assert holder[0].stats.handled == 1


async def test_ending_twice_and_at_the_same_time_is_harmless() -> None:
    worker = Worker(1.0)
    bus = new_bus()
    await bus.start()
    subscription = await bus.subscribe("polaris.telemetry.*", worker)
    await bus.publish_telemetry(telemetry(1))
    await eventually(lambda: worker.begun == [1.0])
    await asyncio.gather(bus.stop(), bus.drain(), subscription.unsubscribe(), subscription.drain())
    await bus.stop()
    await subscription.unsubscribe()
    assert worker.done == [1.0]


async def test_a_cancelled_stop_is_honoured_and_the_end_goes_on() -> None:
    worker = Worker(2.0)
    bus = new_bus()
    await bus.start()
    await bus.subscribe("polaris.telemetry.*", worker)
    await bus.publish_telemetry(telemetry(1))
    await eventually(lambda: worker.begun == [1.0])
    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0.1)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    await bus.stop()
    assert worker.done == [1.0]
    assert not bus.started


async def test_a_handler_that_ignores_its_cancellation_does_not_keep_the_bus_from_ending() -> None:
    clock = running_clock()
    release = asyncio.Event()

    async def stubborn(event: TelemetryEvent) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    bus = new_bus(grace_s=1.0)
    await bus.start()
    await bus.subscribe("polaris.telemetry.*", stubborn, handler_timeout_s=None)
    await bus.publish_telemetry(telemetry())
    await asyncio.sleep(0.1)
    began_s = clock.monotonic()
    await bus.stop()
    assert clock.monotonic() - began_s <= 10.0
    release.set()
    await asyncio.sleep(1)


async def test_a_bus_ends_although_its_broker_is_gone() -> None:
    worker = Worker(1.0)
    bus = new_bus()
    await bus.start()
    subscription = await bus.subscribe("polaris.telemetry.*", worker)
    await bus.publish_telemetry(telemetry(1))
    await bus.publish_telemetry(telemetry(2))
    await eventually(lambda: worker.begun == [1.0])
    await bus.broker.disconnect()
    await bus.stop()
    assert subscription.in_flight == 0
    assert subscription.stats.unsettled == 2


async def test_an_ended_subscription_receives_nothing_more() -> None:
    worker = Worker(0.0)
    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", worker)
        await subscription.unsubscribe()
        await bus.publish_telemetry(telemetry())
        await asyncio.sleep(60)
    assert worker.begun == []


async def test_two_who_stop_a_bus_that_fails_to_disconnect_get_an_error_each() -> None:
    class Failing(InMemoryMessageBroker):
        async def disconnect(self) -> None:
            await asyncio.sleep(0.01)
            raise BusConnectionError("stuck")

    bus = PolarisMessageBus(Failing(clock=running_clock()), clock=running_clock())
    await bus.start()
    first, second = await asyncio.gather(bus.stop(), bus.stop(), return_exceptions=True)
    assert isinstance(first, BusConnectionError)
    assert isinstance(second, BusConnectionError)
    assert first is not second
    assert first.to_dict() == second.to_dict()


# The broker takes its time to connect, and a second to disconnect.


class SlowToEnd(InMemoryMessageBroker):
    """Counts how often it was connected; may fail at the end."""

    connected = 0
    fails = False

    async def connect(self) -> None:
        await asyncio.sleep(0.1)
        await super().connect()
        self.connected += 1

    async def disconnect(self) -> None:
        await asyncio.sleep(1.0)
        await super().disconnect()
        if self.fails:
            raise BusConnectionError("stuck")


def slow_to_end() -> tuple[PolarisMessageBus, SlowToEnd]:
    clock = running_clock()
    broker = SlowToEnd(clock=clock)
    return PolarisMessageBus(broker, clock=clock), broker


async def test_a_bus_that_is_started_while_it_ends_runs_afterwards() -> None:
    bus, broker = slow_to_end()
    await bus.start()
    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0.5)
    with pytest.raises(BusConnectionError):
        await bus.publish("polaris.executions.web", health())
    await asyncio.gather(bus.start(), bus.start())
    assert stopping.done()
    assert (bus.started, broker.connected) == (True, 2)
    worker = Worker(0.0)
    await bus.subscribe("polaris.telemetry.*", worker)
    await bus.publish_telemetry(telemetry(1))
    await eventually(lambda: worker.done == [1.0])
    await bus.stop()
    assert not bus.started


async def test_a_bus_that_is_started_while_a_handler_winds_up_runs_afterwards() -> None:
    bus, _ = slow_to_end()
    outcomes: list[Any] = []

    async def handle(event: TelemetryEvent) -> None:
        await asyncio.sleep(1.0)
        outcomes.append(await bus.publish("polaris.executions.web", health()))

    await bus.start()
    subscription = await bus.subscribe("polaris.telemetry.*", handle)
    await bus.publish_telemetry(telemetry(1))
    await eventually(lambda: subscription.in_flight == 1)
    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0.1)
    await bus.start()
    await stopping
    assert bus.started
    assert (len(outcomes), subscription.stats.handled) == (1, 1)
    await bus.publish("polaris.executions.web", health())
    await bus.stop()


async def test_a_second_stop_waits_for_the_end() -> None:
    bus, broker = slow_to_end()
    await bus.start()
    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0.5)
    assert not bus.started
    await bus.stop()
    await asyncio.sleep(0)
    assert stopping.done()
    assert broker.state is ConnectionState.CLOSED


async def test_a_start_that_is_cancelled_while_the_bus_ends_leaves_it_to_end() -> None:
    bus, broker = slow_to_end()
    await bus.start()
    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0.5)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bus.start(), 0.1)
    await stopping
    assert (bus.started, broker.connected) == (False, 1)
    await bus.start()
    assert (bus.started, broker.connected) == (True, 2)
    await bus.stop()


async def test_a_bus_starts_again_after_an_end_that_failed() -> None:
    bus, broker = slow_to_end()
    broker.fails = True
    await bus.start()
    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0.5)
    await bus.start()
    with pytest.raises(BusConnectionError):
        await stopping
    broker.fails = False
    await bus.publish("polaris.executions.web", health())
    await bus.stop()


class Suspending(InMemoryMessageBroker):
    """Gives way to others in every call, as a broker over a network does."""

    async def consumer(self, spec: ConsumerSpec) -> Any:
        await asyncio.sleep(0.05)
        return await super().consumer(spec)


async def test_a_subscription_that_begins_while_the_bus_ends_does_not_outlive_it() -> None:
    async def handle(event: TelemetryEvent) -> None: ...

    bus = PolarisMessageBus(Suspending(clock=running_clock()), clock=running_clock())
    await bus.start()
    beginning = asyncio.create_task(bus.subscribe("polaris.telemetry.*", handle, durable="late"))
    await asyncio.sleep(0.01)
    await bus.stop()
    with pytest.raises(BusConnectionError):
        await beginning
    assert list(bus.subscriptions) == []


async def test_what_an_ending_subscription_hands_back_does_not_come_to_it_again() -> None:
    attempts: list[int] = []
    begun: list[Subscription] = []

    async def handle(event: TelemetryEvent, context: MessageContext) -> None:
        attempts.append(context.attempt)
        await begun[-1].unsubscribe()

    async with running_bus() as bus:
        for number in range(20):
            await bus.publish_telemetry(telemetry(number))
        for _ in range(20):
            begun.append(await bus.subscribe("polaris.telemetry.*", handle, durable="one"))
            await eventually(lambda: not begun[-1].active and begun[-1].in_flight == 0)
    # Every round one is handled, and the others come once more.
    assert attempts == list(range(1, 21))
