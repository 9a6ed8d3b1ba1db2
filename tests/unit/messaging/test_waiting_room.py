"""What waits for the broker: what counts, who has to go for whom, and that nothing of those who have gone is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.unit.messaging.doubles import NOW, health, telemetry

from polaris.domain import EventKind, MetricValue, PolarisEvent, SystemState, TelemetryEvent
from polaris.exceptions import BusConnectionError, PublishError, UnconfirmedPublishError
from polaris.messaging import (
    DeliveryClass,
    InMemoryMessageBroker,
    OutageBuffer,
    OutgoingMessage,
    PolarisMessageBus,
    PublishAccount,
    Receipt,
)
from polaris.messaging._broker import NOBODY_STORES
from polaris.messaging._outage import WaitingRoom
from polaris.testing import FaultPlan, FaultyBroker, running_clock

TOPIC = "polaris.telemetry.web"
COMMANDS = "polaris.adaptations.web"
LARGE_BYTES = 1_000


class Departing(InMemoryMessageBroker):
    """Takes a while to confirm what is stored. Goes away for new attempts only, and says nothing of it."""

    def __init__(self, delay_s: float = 0.1) -> None:
        super().__init__(clock=running_clock())
        self.delay_s = delay_s
        self.away = False
        self.attempts = 0

    async def publish(self, message: OutgoingMessage, **options: Any) -> Receipt:
        self.attempts += 1
        if self.away:
            raise BusConnectionError("away")
        if options["delivery"] is DeliveryClass.AT_LEAST_ONCE:
            await asyncio.sleep(self.delay_s)
        return await super().publish(message, **options)


@asynccontextmanager
async def cut_off(**options: Any) -> AsyncIterator[tuple[PolarisMessageBus, FaultyBroker]]:
    """A bus whose broker is away until it is mended."""
    clock = running_clock()
    broker = FaultyBroker(InMemoryMessageBroker(clock=clock), FaultPlan(), clock=clock)
    async with PolarisMessageBus(broker, clock=clock, **options) as bus:
        broker.cut()
        yield bus, broker
        broker.mend()


def large(number: int, system_id: str = "web") -> TelemetryEvent:
    """An event of a little over 1 000 bytes."""
    text = MetricValue("note", "x" * 700)
    return TelemetryEvent(SystemState(system_id, NOW, {"note": text}), event_id=f"{system_id}{number}")


def room_of(bus: PolarisMessageBus) -> WaitingRoom:
    return bus._outbound._publisher.room


def gathered(bus: PolarisMessageBus) -> int:
    """How many events are kept in memory behind those that leave first."""
    return sum(len(gathering.members) for gathering in bus._outbound._coalescer._gathering.values())


def started(*works: Any) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(work) for work in works]


async def kinds(*works: Any) -> list[type[Any]]:
    return [type(outcome) for outcome in await asyncio.gather(*works, return_exceptions=True)]


def balances(account: PublishAccount) -> bool:
    return account.waiting >= 0 and account.published == account.confirmed + account.waiting + sum(
        account.dropped.values()
    )


# What counts.


async def test_of_what_was_driven_out_nothing_is_kept() -> None:
    async with cut_off(outage=OutageBuffer(bytes_max=5_000)) as (bus, broker):
        tasks: list[asyncio.Task[Any]] = []
        for number in range(1_000):
            tasks += started(bus.publish_telemetry(large(number), timeout_s=50.0))
            if number % 10 == 9:
                await asyncio.sleep(0.001)
                assert room_of(bus).bytes <= 5_000
                # Those of this millisecond have not been told yet.
                assert gathered(bus) <= 5_000 // LARGE_BYTES + 10
        await asyncio.sleep(0.1)
        assert gathered(bus) <= 5_000 // LARGE_BYTES
        broker.mend()
        found = await kinds(*tasks)
    assert found.count(Receipt) == 4
    assert found.count(BusConnectionError) == 996


async def test_of_those_who_have_given_up_nothing_is_kept() -> None:
    async with cut_off(outage=OutageBuffer(bytes_max=50_000)) as (bus, broker):
        patient = started(bus.publish_telemetry(large(0), timeout_s=59.0))
        await asyncio.sleep(0.1)
        for number in range(1, 501):
            assert await kinds(bus.publish_telemetry(large(number), timeout_s=0.02)) == [BusConnectionError]
            assert gathered(bus) <= 1
        assert len(room_of(bus)) == 1
        broker.mend()
        assert await kinds(*patient) == [Receipt]


async def test_a_batch_that_meets_an_outage_waits_as_single_events() -> None:
    broker = Departing()
    async with PolarisMessageBus(broker, clock=running_clock(), outage=OutageBuffer(bytes_max=130_000)) as bus:
        tasks = started(*(bus.publish_telemetry(large(n), timeout_s=60.0) for n in range(101)))
        await asyncio.sleep(0.06)
        broker.away = True
        await asyncio.sleep(1.0)
        # More than there is room for: each of them takes the place of one older one at most.
        tasks += started(*(bus.publish_telemetry(large(n), timeout_s=60.0) for n in range(101, 121)))
        await asyncio.sleep(0.5)
        broker.away = False
        found = await kinds(*tasks)
    assert 0 < found.count(BusConnectionError) <= 20
    assert found[-20:] == [Receipt] * 20


async def test_what_was_under_way_when_the_broker_broke_off_is_let_in_though_there_is_no_room() -> None:
    broker = Departing()
    async with PolarisMessageBus(broker, clock=running_clock(), outage=OutageBuffer(bytes_max=50_000)) as bus:
        tasks = started(*(bus.publish_telemetry(large(n), timeout_s=60.0) for n in range(101)))
        await asyncio.sleep(0.06)
        broker.away = True
        await asyncio.sleep(1.0)
        assert room_of(bus).bytes > 100 * LARGE_BYTES
        broker.away = False
        assert await kinds(*tasks) == [Receipt] * 101
        assert bus.published[EventKind.TELEMETRY].dropped == {}


# Who has to go for whom.


class Mute(InMemoryMessageBroker):
    """Answers to no telemetry; cannot send the first command."""

    commands = 0

    async def publish(self, message: OutgoingMessage, **options: Any) -> Receipt:
        if message.subject == TOPIC:
            await asyncio.sleep(options["timeout_s"])
            raise UnconfirmedPublishError("no answer")
        if message.subject == COMMANDS:
            self.commands += 1
            if self.commands == 1:
                raise BusConnectionError("away")
        return await super().publish(message, **options)


async def test_a_command_is_not_refused_for_telemetry_that_is_under_way() -> None:
    clock = running_clock()
    async with PolarisMessageBus(Mute(clock=clock), clock=clock, outage=OutageBuffer(bytes_max=5_000)) as bus:
        readings = started(*(bus.publish(TOPIC, large(n), timeout_s=60.0) for n in range(4)))
        await asyncio.sleep(6.0)
        assert await kinds(bus.publish(COMMANDS, health("x" * 900), timeout_s=5.0)) == [Receipt]
        for reading in readings:
            reading.cancel()
        assert await kinds(*readings) == [asyncio.CancelledError] * 4


async def test_no_newer_telemetry_drops_a_message_that_holds_a_command() -> None:
    events: list[PolarisEvent] = [large(0), health("x" * 800)]
    async with cut_off(outage=OutageBuffer(bytes_max=4_000)) as (bus, broker):
        mixed = started(bus.publish_many(events, topic=COMMANDS, timeout_s=60.0))
        await asyncio.sleep(0.3)
        newer = started(*(bus.publish(TOPIC, large(n, "db"), timeout_s=60.0) for n in range(1, 4)))
        await asyncio.sleep(0.3)
        broker.mend()
        assert await kinds(*mixed) == [list]
        assert (await kinds(*newer)).count(BusConnectionError) == 2
        assert bus.published[EventKind.CONTROL].dropped == {}


class NobodyStoresCommands(InMemoryMessageBroker):
    """The stream of the commands has no leader; that of the telemetry has, and takes a while."""

    async def publish(self, message: OutgoingMessage, **options: Any) -> Receipt:
        if message.subject == COMMANDS:
            raise PublishError("no stream", {"reason": NOBODY_STORES})
        await asyncio.sleep(0.01)
        return await super().publish(message, **options)


async def test_no_telemetry_is_dropped_while_only_a_command_is_sent_again_and_again() -> None:
    clock = running_clock()
    broker = NobodyStoresCommands(clock=clock)
    async with PolarisMessageBus(broker, clock=clock, outage=OutageBuffer(bytes_max=5_000)) as bus:
        command = started(bus.publish(COMMANDS, health(), timeout_s=10.0))
        await asyncio.sleep(0.1)
        assert await kinds(*(bus.publish_telemetry(large(n)) for n in range(30))) == [Receipt] * 30
        command[0].cancel()
        assert await kinds(*command) == [asyncio.CancelledError]


# Whoever is cancelled leaves nothing behind.

Publish = Callable[[PolarisMessageBus, int], Awaitable[Any]]
WAYS: dict[str, Publish] = {
    "one_reading": lambda bus, number: bus.publish(TOPIC, large(number), timeout_s=2.0),
    "one_command": lambda bus, number: bus.publish(COMMANDS, health("x" * 900), timeout_s=2.0),
    "many": lambda bus, number: bus.publish_many([large(number), large(number, "db"), health("c")], timeout_s=2.0),
    "telemetry": lambda bus, number: bus.publish_telemetry(large(number), timeout_s=2.0),
    "telemetry_behind_others": lambda bus, number: bus.publish_telemetry(large(number), timeout_s=2.0),
}


def check_books(bus: PolarisMessageBus) -> None:
    assert all(balances(account) for account in bus.published.values())
    assert 0 <= room_of(bus).bytes <= 6_000


def check_empty(bus: PolarisMessageBus) -> None:
    check_books(bus)
    assert [account.waiting for account in bus.published.values()] == [0] * len(bus.published)
    assert (room_of(bus).bytes, len(room_of(bus))) == (0, 0)
    assert bus._outbound._coalescer._gathering == {}
    assert bus._outbound._traces == {}


@pytest.mark.parametrize("outage", ["none", "from_the_beginning", "half_way"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_publisher_that_is_cancelled_at_whatever_step_leaves_nothing_behind(way: str, outage: str) -> None:
    clock = running_clock()
    broker = FaultyBroker(InMemoryMessageBroker(clock=clock), FaultPlan(), clock=clock)
    publish = WAYS[way]
    async with PolarisMessageBus(broker, clock=clock, outage=OutageBuffer(bytes_max=6_000)) as bus:
        for steps in range(45):
            if outage == "from_the_beginning":
                broker.cut()
            others = started(
                *(publish(bus, 10 * steps + n) for n in range(2 if way == "telemetry_behind_others" else 0))
            )
            (cancelled,) = started(publish(bus, 10 * steps + 5))
            for step in range(steps):
                if outage == "half_way" and step == steps // 2:
                    broker.cut()
                await asyncio.sleep(0 if step < 15 else 0.013)
                check_books(bus)
            cancelled.cancel()
            await kinds(cancelled)
            broker.mend()
            assert await kinds(*others) == [Receipt] * len(others)
            await asyncio.sleep(0.01)
            check_empty(bus)


async def test_nobody_is_left_behind_when_the_flushing_of_a_topic_is_cancelled_as_it_waits_for_company() -> None:
    broker = Departing()
    async with PolarisMessageBus(broker, clock=running_clock(), telemetry_linger_s=1.0) as bus:
        assert await kinds(*(bus.publish_telemetry(telemetry(n)) for n in range(20))) == [Receipt] * 20
        attempts = broker.attempts
        tasks = started(*(bus.publish_telemetry(telemetry(n)) for n in range(3)))
        # Nineteen came before, so they wait for sixteen more.
        await asyncio.sleep(0.15)
        assert broker.attempts == attempts
        (flushing,) = bus._outbound._coalescer._tasks
        flushing.cancel()
        assert await kinds(*tasks) == [UnconfirmedPublishError] * 3
        check_empty(bus)
        assert await kinds(bus.publish_telemetry(telemetry())) == [Receipt]


# What an outage costs.


@pytest.mark.parametrize("way", ["one_reading", "one_command", "telemetry", "on_topics_of_their_own"])
async def test_a_thousand_who_wait_ask_no_more_often_than_one(way: str) -> None:
    broker = Departing(0.0)

    def publish(bus: PolarisMessageBus, number: int) -> Awaitable[Any]:
        match way:
            case "one_reading":
                return bus.publish(TOPIC, telemetry(number), timeout_s=60.0)
            case "one_command":
                return bus.publish(COMMANDS, health(), timeout_s=60.0)
            case "telemetry":
                return bus.publish_telemetry(telemetry(number), timeout_s=60.0)
        return bus.publish_telemetry(telemetry(number, f"s{number}"), timeout_s=60.0)

    async with PolarisMessageBus(broker, clock=running_clock()) as bus:
        broker.away = True
        tasks = started(*(publish(bus, number) for number in range(1_000)))
        await asyncio.sleep(5.0)
        before = broker.attempts
        await asyncio.sleep(20.0)
        # One at a time, every half second at most and every second at least.
        assert 18 <= broker.attempts - before <= 41
        broker.away = False
        assert await kinds(*tasks) == [Receipt] * 1_000
        check_books(bus)
