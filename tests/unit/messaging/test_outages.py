"""What may wait while the broker is away, who must go when it is too much, and the account of all that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.unit.messaging.doubles import NOW, eventually, health, telemetry

from polaris.domain import EventKind, HealthEvent, MetricValue, SystemState, TelemetryEvent
from polaris.exceptions import (
    BusConnectionError,
    InvalidValueError,
    MessageBusError,
    PayloadTooLargeError,
    PublishError,
    UnconfirmedPublishError,
)
from polaris.messaging import (
    DeliveryClass,
    InMemoryMessageBroker,
    OutageBuffer,
    OutgoingMessage,
    PolarisMessageBus,
    PublishAccount,
    Receipt,
    WhenFull,
)
from polaris.messaging._broker import NOBODY_STORES
from polaris.observability import MetricsCollector
from polaris.testing import FaultPlan, FaultyBroker, running_clock

ADAPTATIONS = "polaris.adaptations.web"


@asynccontextmanager
async def cut_off(**options: Any) -> AsyncIterator[tuple[PolarisMessageBus, FaultyBroker]]:
    """A started bus whose broker is away."""
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


def command(number: int = 0) -> HealthEvent:
    """An event of a little over 1 000 bytes."""
    return health("x" * 800, event_id=f"command{number}")


async def stored(bus: PolarisMessageBus, stream: str = "POLARIS_TELEMETRY") -> list[str]:
    found: list[str] = []
    for message in await bus.broker.read_stored(stream, count_max=10_000):
        content = json.loads(message.payload)
        found += [event["id"] for event in (content if isinstance(content, list) else [content])]
    return found


def started(*works: Any) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(work) for work in works]


async def outcomes(tasks: list[asyncio.Task[Any]]) -> list[str]:
    """Of each: "receipt", or the reason in its error."""
    results = await asyncio.gather(*tasks, return_exceptions=True)
    shown = []
    for result in results:
        if isinstance(result, MessageBusError):
            shown.append(str(result.context.get("reason", type(result).__name__)))
        else:
            assert isinstance(result, Receipt)
            shown.append("receipt")
    return shown


async def test_what_waits_leaves_at_once_when_the_broker_is_back() -> None:
    async with cut_off() as (bus, broker):
        tasks = started(*(bus.publish("polaris.telemetry.web", telemetry(n), timeout_s=60) for n in range(50)))
        await asyncio.sleep(20)
        back_s = running_clock().monotonic()
        broker.mend()
        assert await outcomes(tasks) == ["receipt"] * 50
        assert running_clock().monotonic() - back_s < 0.01
        assert len(await stored(bus)) == 50


async def test_the_newest_telemetry_wins_when_there_is_no_room() -> None:
    async with cut_off(outage=OutageBuffer(bytes_max=5_000)) as (bus, broker):
        tasks = []
        for number in range(10):
            tasks += started(bus.publish("polaris.telemetry.web", large(number), timeout_s=60))
            await asyncio.sleep(0.3)
        broker.mend()
        shown = await outcomes(tasks)
        assert shown == ["buffer_full"] * 6 + ["receipt"] * 4
        assert sorted(await stored(bus)) == [f"web{number}" for number in range(6, 10)]


async def test_telemetry_that_gathers_counts_and_the_newest_wins() -> None:
    async with cut_off(outage=OutageBuffer(bytes_max=5_000)) as (bus, broker):
        tasks = []
        for number in range(10):
            tasks += started(bus.publish_telemetry(large(number), timeout_s=60))
            await asyncio.sleep(0.3)
        broker.mend()
        shown = await outcomes(tasks)
        assert shown == ["buffer_full"] * 6 + ["receipt"] * 4
        assert sorted(await stored(bus)) == [f"web{number}" for number in range(6, 10)]


async def test_control_is_told_at_once_that_there_is_no_room() -> None:
    async with cut_off(outage=OutageBuffer(bytes_max=5_000)) as (bus, broker):
        tasks = started(*(bus.publish(ADAPTATIONS, command(n), timeout_s=60) for n in range(6)))
        await asyncio.sleep(0.3)
        assert [task.done() for task in tasks] == [False] * 4 + [True] * 2
        broker.mend()
        assert await outcomes(tasks) == ["receipt"] * 4 + ["buffer_full"] * 2
        assert len(await stored(bus, "POLARIS_ADAPTATIONS")) == 4


async def test_control_takes_the_place_of_telemetry_and_never_the_other_way_round() -> None:
    async with cut_off(outage=OutageBuffer(bytes_max=5_000)) as (bus, broker):
        readings = started(*(bus.publish("polaris.telemetry.web", large(n), timeout_s=60) for n in range(4)))
        await asyncio.sleep(0.3)
        commands = started(*(bus.publish(ADAPTATIONS, command(n), timeout_s=60) for n in range(4)))
        await asyncio.sleep(0.3)
        late = started(bus.publish("polaris.telemetry.web", large(9), timeout_s=60))
        await asyncio.sleep(0.3)
        broker.mend()
        assert await outcomes(readings) == ["buffer_full"] * 4
        assert await outcomes(commands) == ["receipt"] * 4
        assert await outcomes(late) == ["buffer_full"]


async def test_the_rules_can_be_turned_round() -> None:
    outage = OutageBuffer(bytes_max=2_500, telemetry=WhenFull.REFUSE, control=WhenFull.NEWEST_WINS)
    async with cut_off(outage=outage) as (bus, broker):
        readings, commands = [], []
        for number in range(3):
            readings += started(bus.publish("polaris.telemetry.web", large(number), timeout_s=60))
            await asyncio.sleep(0.3)
        for _ in range(2):
            commands += started(bus.publish(ADAPTATIONS, command(), timeout_s=60))
            await asyncio.sleep(0.3)
        broker.mend()
        assert await outcomes(readings) == ["receipt", "receipt", "buffer_full"]
        assert await outcomes(commands) == ["buffer_full"] * 2


async def test_what_has_waited_for_too_long_is_not_sent_any_more() -> None:
    async with cut_off(outage=OutageBuffer(age_max_s=3.0)) as (bus, broker):
        tasks = started(
            bus.publish("polaris.telemetry.web", telemetry(1), timeout_s=60),
            bus.publish(ADAPTATIONS, health(), timeout_s=60),
            bus.publish_telemetry(telemetry(2, system_id="db"), timeout_s=60),
            bus.publish_telemetry(telemetry(3, system_id="db"), timeout_s=60),
        )
        await asyncio.sleep(3.5)
        broker.mend()
        assert await outcomes(tasks) == ["expired"] * 4
        assert await stored(bus) == []


async def test_a_publisher_that_gives_up_makes_room() -> None:
    async with cut_off(outage=OutageBuffer(bytes_max=2_500)) as (bus, broker):
        first = started(*(bus.publish(ADAPTATIONS, command(n), timeout_s=60) for n in range(2)))
        await asyncio.sleep(0.3)
        first[0].cancel()
        await asyncio.sleep(0)
        second = started(bus.publish(ADAPTATIONS, command(), timeout_s=60))
        await asyncio.sleep(0.3)
        broker.mend()
        assert await outcomes(second) == ["receipt"]
        assert await outcomes(first[1:]) == ["receipt"]


class Doubtful(InMemoryMessageBroker):
    """Stores without confirming, once; is away afterwards."""

    async def publish(self, message: OutgoingMessage, **options: Any) -> Receipt:
        if not hasattr(self, "doubted"):
            self.doubted = True
            await super().publish(message, **options)
            raise UnconfirmedPublishError("no answer")
        raise BusConnectionError("away")


async def test_one_that_may_be_stored_stays_unconfirmed_when_it_has_to_go() -> None:
    clock = running_clock()
    async with PolarisMessageBus(Doubtful(clock=clock), clock=clock, outage=OutageBuffer(bytes_max=1_500)) as bus:
        first = started(bus.publish("polaris.telemetry.web", large(1), timeout_s=60))
        await asyncio.sleep(0.3)
        second = started(bus.publish("polaris.telemetry.web", large(2), timeout_s=1))
        with pytest.raises(UnconfirmedPublishError):
            await first[0]
        with pytest.raises(BusConnectionError):
            await second[0]
        assert bus.published[EventKind.TELEMETRY].dropped == {"unconfirmed": 1, "away": 1}


class Leaderless(InMemoryMessageBroker):
    """No stream answers for a while."""

    until_s = 0.0

    async def publish(self, message: OutgoingMessage, **options: Any) -> Receipt:
        if options["delivery"] is DeliveryClass.AT_LEAST_ONCE and running_clock().monotonic() < self.until_s:
            raise PublishError("no stream", {"reason": NOBODY_STORES})
        return await super().publish(message, **options)


async def test_a_stream_without_a_leader_is_waited_for_if_the_bus_knows_it() -> None:
    clock = running_clock()
    broker = Leaderless(clock=clock)
    async with PolarisMessageBus(broker, clock=clock) as bus:
        broker.until_s = clock.monotonic() + 3.0
        assert (await bus.publish_telemetry(telemetry(1))).sequence == 1

        began_s = clock.monotonic()
        broker.until_s = began_s + 3.0
        with pytest.raises(PublishError):
            await bus.publish("acme.orders", health(), delivery=DeliveryClass.AT_LEAST_ONCE)
        assert clock.monotonic() - began_s < 1.0


# The account.


def balanced(account: PublishAccount) -> bool:
    return account.published == account.confirmed + account.waiting + sum(account.dropped.values())


async def test_every_published_event_is_confirmed_waiting_or_dropped_for_a_reason() -> None:
    collector = MetricsCollector()
    async with cut_off(outage=OutageBuffer(bytes_max=5_000, age_max_s=30), collector=collector) as (bus, broker):
        readings = []
        for number in range(10):
            readings += started(bus.publish_telemetry(large(number), timeout_s=60))
            await asyncio.sleep(0.01)
        command = started(bus.publish(ADAPTATIONS, health(), timeout_s=0.5))
        await asyncio.sleep(0.1)
        for account in bus.published.values():
            assert balanced(account)
            assert account.waiting
        with pytest.raises(BusConnectionError):
            await command[0]
        readings[-1].cancel()
        await asyncio.sleep(0.1)
        broker.mend()
        await asyncio.gather(*readings, return_exceptions=True)
        with pytest.raises(PayloadTooLargeError):
            await bus.publish(ADAPTATIONS, health("x" * 2_000_000))
        telemetry_account, control = bus.published[EventKind.TELEMETRY], bus.published[EventKind.CONTROL]
        assert telemetry_account == PublishAccount(
            published=10, confirmed=3, waiting=0, dropped={"buffer_full": 6, "cancelled": 1}
        )
        assert control == PublishAccount(published=2, confirmed=0, waiting=0, dropped={"away": 1, "too_large": 1})
        # The one whose publisher gave up may have left before.
        assert len(await stored(bus)) in (3, 4)
    text = collector.render().decode()
    assert 'polaris_events_published_total{kind="telemetry"} 10.0' in text
    assert 'polaris_events_confirmed_total{kind="telemetry"} 3.0' in text
    assert 'polaris_events_waiting{kind="telemetry"} 0.0' in text
    assert 'polaris_events_dropped_total{kind="telemetry",reason="buffer_full"} 6.0' in text
    assert 'polaris_events_dropped_total{kind="control",reason="too_large"} 1.0' in text


async def test_the_events_behind_one_that_failed_count_as_not_sent() -> None:
    clock = running_clock()

    class Third(InMemoryMessageBroker):
        calls = 0

        async def publish(self, message: OutgoingMessage, **options: Any) -> Receipt:
            if options["delivery"] is DeliveryClass.AT_LEAST_ONCE:
                self.calls += 1
                if self.calls == 2:
                    raise MessageBusError("no")
            return await super().publish(message, **options)

    async with PolarisMessageBus(Third(clock=clock), clock=clock) as bus:
        with pytest.raises(MessageBusError):
            await bus.publish_many([telemetry(n) for n in range(1_200)])
        assert bus.published[EventKind.TELEMETRY] == PublishAccount(
            published=1_200, confirmed=512, waiting=0, dropped={"rejected": 512, "not_sent": 176}
        )


async def test_two_buses_show_one_sum_in_the_metrics() -> None:
    collector = MetricsCollector()
    clock = running_clock()
    for _ in range(2):
        async with PolarisMessageBus(InMemoryMessageBroker(clock=clock), clock=clock, collector=collector) as bus:
            await bus.publish_telemetry(telemetry(1))
    assert 'polaris_events_published_total{kind="telemetry"} 2.0' in collector.render().decode()


@pytest.mark.parametrize(
    "wrong", [{"bytes_max": 0}, {"bytes_max": 1.5}, {"age_max_s": 0}, {"telemetry": "newest_wins"}]
)
def test_a_buffer_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        OutageBuffer(**wrong)


async def test_nothing_waits_for_long_in_the_way_of_others() -> None:
    """Of the bytes that were let in nothing is left when all have ended."""
    async with cut_off(outage=OutageBuffer(bytes_max=50_000)) as (bus, broker):
        tasks = started(*(bus.publish_telemetry(large(n, f"s{n % 5}"), timeout_s=0.5 + n / 50) for n in range(40)))
        await asyncio.sleep(0.9)
        broker.mend()
        await asyncio.gather(*tasks, return_exceptions=True)
        room = bus._outbound._publisher.room
        await eventually(lambda: room.bytes == 0)
        assert len(room) == 0
        assert all(balanced(account) for account in bus.published.values())
