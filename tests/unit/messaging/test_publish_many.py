"""Many events in one call: what stands in the account, and whom the broker's absence may cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.unit.messaging.doubles import NOW, health, running_bus, telemetry

from polaris.domain import EventKind, MetricValue, PolarisEvent, SystemState, TelemetryEvent
from polaris.exceptions import BusConnectionError, InvalidValueError, UnknownEventTypeError
from polaris.messaging import InMemoryMessageBroker, OutageBuffer, PolarisMessageBus, PublishAccount
from polaris.testing import FaultPlan, FaultyBroker, running_clock

TOPIC = "polaris.telemetry.web"
COMMANDS = "polaris.adaptations.web"


class Stray(PolarisEvent, frozen=True):
    """Nobody registered it."""


def large(number: int, system_id: str = "web") -> TelemetryEvent:
    return TelemetryEvent(
        SystemState(system_id, NOW, {"note": MetricValue("note", "x" * 700)}), event_id=f"{system_id}{number}"
    )


def balances(account: PublishAccount) -> bool:
    return account.published == account.confirmed + account.waiting + sum(account.dropped.values())


@asynccontextmanager
async def cut_off(**options: Any) -> AsyncIterator[tuple[PolarisMessageBus, FaultyBroker]]:
    """A bus whose broker is away until it is mended."""
    clock = running_clock()
    broker = FaultyBroker(InMemoryMessageBroker(clock=clock), FaultPlan(), clock=clock)
    async with PolarisMessageBus(broker, clock=clock, **options) as bus:
        broker.cut()
        yield bus, broker
        broker.mend()


async def test_a_type_that_nobody_registered_is_refused_before_anything_is_published() -> None:
    async with running_bus() as bus:
        with pytest.raises(UnknownEventTypeError):
            await bus.publish_many([telemetry(), Stray()], topic=TOPIC)
        assert bus.published[EventKind.TELEMETRY].published == 0
        assert not await bus.broker.read_stored("POLARIS_TELEMETRY")


async def test_an_event_without_a_state_is_refused_before_anything_is_published() -> None:
    async with running_bus() as bus:
        nothing: Any = TelemetryEvent(None)  # type: ignore[arg-type]
        with pytest.raises(InvalidValueError, match="system_state"):
            await bus.publish_many([telemetry(), nothing])
        with pytest.raises(InvalidValueError, match="system_state"):
            await bus.publish_telemetry(nothing)
        assert bus.published[EventKind.TELEMETRY].published == 0
        assert not await bus.broker.read_stored("POLARIS_TELEMETRY")


async def test_the_events_of_all_topics_are_in_the_account_from_the_beginning() -> None:
    async with cut_off() as (bus, broker):
        events = [telemetry(n, f"s{n}") for n in range(100)]
        publishing = asyncio.create_task(bus.publish_many(events, timeout_s=60.0))
        await asyncio.sleep(0.2)
        account = bus.published[EventKind.TELEMETRY]
        assert (account.published, account.waiting) == (100, 100)
        broker.mend()
        assert len(await publishing) == 100
        account = bus.published[EventKind.TELEMETRY]
        assert (account.confirmed, account.waiting) == (100, 0)


async def test_what_a_cancelled_call_did_not_come_to_is_in_the_account_as_not_sent() -> None:
    async with cut_off() as (bus, _):
        publishing = asyncio.create_task(bus.publish_many([telemetry(n, f"s{n}") for n in range(100)]))
        await asyncio.sleep(0.2)
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        account = bus.published[EventKind.TELEMETRY]
        assert balances(account)
        assert (account.published, account.waiting) == (100, 0)
        assert account.dropped == {"cancelled": 64, "not_sent": 36}


async def test_a_call_that_is_cancelled_before_its_first_step_leaves_nothing_waiting() -> None:
    async with cut_off() as (bus, _):
        publishing = asyncio.create_task(bus.publish_many([telemetry(n, f"s{n}") for n in range(3)]))
        for steps in range(4):
            await asyncio.sleep(0)
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
            account = bus.published[EventKind.TELEMETRY]
            assert balances(account), steps
            assert account.waiting == 0, steps
            publishing = asyncio.create_task(bus.publish_many([telemetry(n, f"s{n}") for n in range(3)]))
            for _ in range(steps):
                await asyncio.sleep(0)
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)


async def test_an_event_that_cannot_be_encoded_takes_the_others_of_its_topic_out_of_the_account() -> None:
    async def nothing(context: Any, next_handler: Any) -> None:
        raise InvalidValueError("event", "another", context.event)

    async with running_bus(middlewares=[nothing]) as bus:
        with pytest.raises(InvalidValueError):
            await bus.publish_many([telemetry(1), telemetry(2), health()], topic=TOPIC)
        for kind, count in ((EventKind.TELEMETRY, 2), (EventKind.CONTROL, 1)):
            assert bus.published[kind].dropped == {"rejected": count}
            assert bus.published[kind].waiting == 0


@pytest.mark.parametrize("place", [0, 1])
async def test_a_message_that_holds_one_control_event_is_dropped_for_no_telemetry(place: int) -> None:
    events: list[PolarisEvent] = [large(0)]
    events.insert(place, health("x" * 800))
    async with cut_off(outage=OutageBuffer(bytes_max=4_000)) as (bus, broker):
        mixed = asyncio.create_task(bus.publish_many(events, topic=COMMANDS, timeout_s=60.0))
        await asyncio.sleep(0.3)
        newer = [asyncio.create_task(bus.publish(TOPIC, large(n), timeout_s=60.0)) for n in range(1, 4)]
        await asyncio.sleep(0.3)
        broker.mend()
        assert len(await mixed) == 2
        outcomes = await asyncio.gather(*newer, return_exceptions=True)
    assert any(isinstance(outcome, BusConnectionError) for outcome in outcomes)
