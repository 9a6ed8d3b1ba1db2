"""Publishers whose broker is slow, away, in doubt or broken, and whose bus ends: what each is told, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.unit.messaging.doubles import NOW, health, telemetry

from polaris._correlation import correlation_scope
from polaris.domain import EventKind, MetricValue, SystemState, TelemetryEvent
from polaris.exceptions import (
    BusConnectionError,
    ConfigurationError,
    DeadlineExceededError,
    InvalidValueError,
    PublishError,
    UnconfirmedPublishError,
)
from polaris.messaging import (
    DeliveryClass,
    InMemoryMessageBroker,
    MessageContext,
    OutageBuffer,
    OutgoingMessage,
    PolarisMessageBus,
    Receipt,
)
from polaris.messaging._broker import NOBODY_STORES
from polaris.resilience import deadline_scope
from polaris.testing import FaultPlan, FaultyBroker, running_clock

TOPIC = "polaris.telemetry.web"
COMMANDS = "polaris.adaptations.web"


class SlowBroker(InMemoryMessageBroker):
    """Takes a while to store; an attempt that has less time than that ends without an answer."""

    def __init__(self, delay_s: float) -> None:
        super().__init__(clock=running_clock())
        self.delay_s = delay_s

    async def publish(
        self,
        message: OutgoingMessage,
        *,
        delivery: DeliveryClass = DeliveryClass.AT_MOST_ONCE,
        timeout_s: float = 5.0,
    ) -> Receipt:
        if self.delay_s > timeout_s:
            await asyncio.sleep(timeout_s)
            raise UnconfirmedPublishError("no answer")
        await asyncio.sleep(self.delay_s)
        return await super().publish(message, delivery=delivery, timeout_s=timeout_s)


class Scripted(InMemoryMessageBroker):
    """Stores what it gets first. Attempts to store meet the errors given, all further ones the last of them."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__(clock=running_clock())
        self.errors = errors
        self.attempts = 0

    async def publish(self, message: OutgoingMessage, **options: Any) -> Receipt:
        if options["delivery"] is DeliveryClass.AT_MOST_ONCE:
            return await super().publish(message, **options)
        self.attempts += 1
        if self.attempts == 1:
            await super().publish(message, **options)
        raise self.errors[min(self.attempts, len(self.errors)) - 1]


@asynccontextmanager
async def cut_off(delay_s: float = 0.0, **options: Any) -> AsyncIterator[tuple[PolarisMessageBus, FaultyBroker]]:
    """A bus whose broker, slow or not, is away until it is mended."""
    clock = running_clock()
    broker = FaultyBroker(SlowBroker(delay_s), FaultPlan(), clock=clock)
    async with PolarisMessageBus(broker, clock=clock, **options) as bus:
        broker.cut()
        yield bus, broker
        broker.mend()


def large(number: int) -> TelemetryEvent:
    """An event of a little over 1 000 bytes."""
    return TelemetryEvent(SystemState("web", NOW, {"note": MetricValue("note", "x" * 700)}), event_id=f"web{number}")


def started(*works: Any) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(work) for work in works]


async def outcomes(*works: Any) -> list[Any]:
    return await asyncio.gather(*works, return_exceptions=True)


async def kinds(*works: Any) -> list[type[Any]]:
    return [type(outcome) for outcome in await outcomes(*works)]


# Who said that it would wait does so to the end.


async def test_a_publisher_is_still_there_when_the_broker_is_back_just_before_its_time_is_up() -> None:
    async with cut_off() as (bus, broker):
        tasks = started(*(bus.publish(COMMANDS, health(), timeout_s=5.0) for _ in range(50)))
        await asyncio.sleep(4.9)
        broker.mend()
        assert await kinds(*tasks) == [Receipt] * 50


async def test_what_is_not_too_old_yet_is_sent() -> None:
    async with cut_off(outage=OutageBuffer(age_max_s=3.0)) as (bus, broker):
        tasks = started(*(bus.publish(COMMANDS, health(), timeout_s=60.0) for _ in range(50)))
        await asyncio.sleep(2.9)
        broker.mend()
        assert await kinds(*tasks) == [Receipt] * 50


@pytest.mark.parametrize(("age_max_s", "back_s", "delay_s"), [(3.0, 2.9, 0.5), (0.5, 0.4, 0.2)])
async def test_an_attempt_that_began_in_time_is_not_broken_off_for_its_age(
    age_max_s: float, back_s: float, delay_s: float
) -> None:
    async with cut_off(delay_s, outage=OutageBuffer(age_max_s=age_max_s)) as (bus, broker):
        task = asyncio.create_task(bus.publish(COMMANDS, health(), timeout_s=60.0))
        await asyncio.sleep(back_s)
        broker.mend()
        assert await kinds(task) == [Receipt]
        assert bus.published[EventKind.CONTROL].dropped == {}


@pytest.mark.parametrize("hasty_s", [0.05, 0.0105])
async def test_one_who_is_in_a_hurry_fails_nobody_who_travels_with_it(hasty_s: float) -> None:
    async with PolarisMessageBus(SlowBroker(0.2), clock=running_clock()) as bus:
        first = started(bus.publish_telemetry(telemetry(0)))
        await asyncio.sleep(0.19)
        patient = started(*(bus.publish_telemetry(telemetry(n), timeout_s=60.0) for n in range(200)))
        hasty = started(bus.publish_telemetry(telemetry(9), timeout_s=hasty_s))
        assert await kinds(*first, *patient) == [Receipt] * 201
        assert await kinds(*hasty) == [UnconfirmedPublishError]


async def test_one_who_is_in_a_hurry_fails_nobody_who_waits_with_it_for_the_broker() -> None:
    clock = running_clock()
    broker = FaultyBroker(SlowBroker(0.5), FaultPlan(), clock=clock)
    async with PolarisMessageBus(broker, clock=clock) as bus:
        first = started(bus.publish_telemetry(telemetry(0), timeout_s=60.0))
        await asyncio.sleep(0.49)
        patient = started(*(bus.publish_telemetry(telemetry(n), timeout_s=60.0) for n in range(3)))
        hasty = started(bus.publish_telemetry(telemetry(9), timeout_s=1.0))
        assert await kinds(*first) == [Receipt]
        broker.cut()
        await asyncio.sleep(5.0)
        assert [task.done() for task in (*patient, *hasty)] == [False] * 3 + [True]
        broker.mend()
        assert await kinds(*patient) == [Receipt] * 3
        (outcome,) = await outcomes(*hasty)
        assert isinstance(outcome, BusConnectionError | UnconfirmedPublishError)


# Errors of one's own.


def refusing_company(refusal: Callable[[], BaseException]) -> Any:
    """A middleware that lets only single events pass."""

    async def refuse(context: MessageContext, next_handler: Any) -> Any:
        if len(context.events) > 1:
            raise refusal()
        return await next_handler(context)

    return refuse


async def test_an_error_of_a_middleware_is_another_object_for_each_publisher() -> None:
    refuse = refusing_company(lambda: KeyError("no batches"))
    async with PolarisMessageBus(SlowBroker(0.1), [refuse], clock=running_clock()) as bus:
        _, *errors = await outcomes(*(bus.publish_telemetry(telemetry(n)) for n in range(5)))
    assert [type(error) for error in errors] == [KeyError] * 4
    assert len({id(error) for error in errors}) == 4


async def test_an_error_bears_the_correlation_of_the_publisher_who_gets_it() -> None:
    refuse = refusing_company(lambda: InvalidValueError("event", "single", 1))

    async def publish(number: int) -> Receipt:
        with correlation_scope(f"chain-{number}"):
            return await bus.publish_telemetry(telemetry(number))

    async with PolarisMessageBus(SlowBroker(0.1), [refuse], clock=running_clock()) as bus:
        _, *errors = await outcomes(*map(publish, range(4)))
    assert [error.correlation_id for error in errors] == ["chain-1", "chain-2", "chain-3"]


async def test_what_one_publisher_writes_on_its_error_is_not_read_by_another() -> None:
    def refusal() -> InvalidValueError:
        error = InvalidValueError("event", "single", 1)
        error.add_note("by the middleware")
        error.context["found"] = []
        return error

    async with PolarisMessageBus(SlowBroker(0.1), [refusing_company(refusal)], clock=running_clock()) as bus:
        _, mine, other, _ = await outcomes(*(bus.publish_telemetry(telemetry(n)) for n in range(4)))
    mine.add_note("mine")
    mine.context["mine"] = True
    mine.context["found"].append("mine")
    assert other.__notes__ == ["by the middleware"]
    assert "mine" not in other.context
    assert other.context["found"] == []


async def test_a_cancellation_that_escapes_from_a_middleware_cancels_no_publisher() -> None:
    strays: list[BaseException] = [asyncio.CancelledError()]

    async def stray(context: MessageContext, next_handler: Any) -> Any:
        if len(context.events) > 1 and strays:
            raise strays.pop()
        return await next_handler(context)

    async with PolarisMessageBus(SlowBroker(0.1), [stray], clock=running_clock()) as bus:
        tasks = started(*(bus.publish_telemetry(telemetry(n)) for n in range(700)))
        found = await kinds(*tasks)
    # Those of the message that it hit are told that they do not know; the first one and the last ones were not in it.
    assert found == [Receipt] + [UnconfirmedPublishError] * 512 + [Receipt] * 187


# What is in doubt stays in doubt.


async def test_a_defect_of_the_broker_is_shown_and_not_tried_again() -> None:
    broker = Scripted(BusConnectionError("away"), RuntimeError("a bug in the adapter"))
    async with PolarisMessageBus(broker, clock=running_clock()) as bus:
        with pytest.raises(RuntimeError, match="a bug in the adapter"):
            await bus.publish(TOPIC, telemetry(), timeout_s=50.0)
    assert broker.attempts == 2


@pytest.mark.parametrize("later", [ConfigurationError("permissions were taken away"), RuntimeError("a bug")])
async def test_what_may_be_stored_stays_in_doubt_whatever_the_next_attempt_ends_in(later: Exception) -> None:
    broker = Scripted(UnconfirmedPublishError("no answer"), later)
    async with PolarisMessageBus(broker, clock=running_clock()) as bus:
        with pytest.raises(UnconfirmedPublishError):
            await bus.publish(TOPIC, telemetry(), timeout_s=5.0)
        assert bus.published[EventKind.TELEMETRY].dropped == {"unconfirmed": 1}


async def test_one_that_had_to_make_room_is_told_so_whatever_its_last_attempt_ended_in() -> None:
    broker = Scripted(PublishError("no leader", {"reason": NOBODY_STORES}))
    async with PolarisMessageBus(broker, clock=running_clock(), outage=OutageBuffer(bytes_max=1_500)) as bus:
        older = started(bus.publish(TOPIC, large(1), timeout_s=5.0))
        await asyncio.sleep(0.3)
        newer = started(bus.publish(TOPIC, large(2), timeout_s=1.0))
        assert await kinds(*older, *newer) == [BusConnectionError, PublishError]
        assert bus.published[EventKind.TELEMETRY].dropped == {"buffer_full": 1, "refused": 1}


class OneAnswerMissing(InMemoryMessageBroker):
    """Answers to no telemetry, and not to the first command."""

    commands = 0

    async def publish(self, message: OutgoingMessage, **options: Any) -> Receipt:
        self.commands += message.subject == COMMANDS
        if message.subject == TOPIC or (message.subject == COMMANDS and self.commands == 1):
            await asyncio.sleep(options["timeout_s"])
            raise UnconfirmedPublishError("no answer")
        return await super().publish(message, **options)


async def test_a_command_in_doubt_is_sent_again_though_what_waits_leaves_no_room() -> None:
    clock = running_clock()
    broker = OneAnswerMissing(clock=clock)
    async with PolarisMessageBus(broker, clock=clock, outage=OutageBuffer(bytes_max=5_000)) as bus:
        readings = started(*(bus.publish(TOPIC, large(n), timeout_s=50.0) for n in range(4)))
        await asyncio.sleep(5.5)
        assert await kinds(bus.publish(COMMANDS, health("x" * 900), timeout_s=6.0)) == [Receipt]
        for reading in readings:
            reading.cancel()
        assert await kinds(*readings) == [asyncio.CancelledError] * 4
    assert broker.commands == 2


# The end of the bus.


async def test_the_end_of_the_bus_sends_what_gathers_behind_a_message_under_way() -> None:
    bus = PolarisMessageBus(SlowBroker(0.1), clock=running_clock())
    await bus.start()
    tasks = started(*(bus.publish_telemetry(telemetry(n)) for n in range(10)))
    await asyncio.sleep(0.05)
    await bus.stop()
    assert [task.done() for task in tasks] == [True] * 10
    assert await kinds(*tasks) == [Receipt] * 10


async def test_the_end_of_the_bus_waits_for_single_events_and_for_many_that_are_under_way() -> None:
    bus = PolarisMessageBus(SlowBroker(0.1), clock=running_clock())
    await bus.start()
    single = started(bus.publish(COMMANDS, health()))
    many = started(bus.publish_many([telemetry(n) for n in range(600)]))
    await asyncio.sleep(0.05)
    await bus.stop()
    assert await kinds(*single, *many) == [Receipt, list]


async def test_nobody_waits_longer_than_the_bus_lives() -> None:
    clock = running_clock()
    broker = FaultyBroker(InMemoryMessageBroker(clock=clock), FaultPlan(), clock=clock)
    bus = PolarisMessageBus(broker, clock=clock, grace_s=1.0)
    await bus.start()
    broker.cut()
    tasks = started(
        bus.publish(COMMANDS, health(), timeout_s=3_600.0),
        *(bus.publish_telemetry(telemetry(n), timeout_s=3_600.0) for n in range(3)),
    )
    await asyncio.sleep(0.2)
    began_s = clock.monotonic()
    await bus.stop()
    assert await kinds(*tasks) == [BusConnectionError] * 4
    assert clock.monotonic() - began_s <= 2.0
    assert [bus.published[kind].dropped for kind in EventKind] == [
        {"ended": 3 if kind is EventKind.TELEMETRY else 1} for kind in EventKind
    ]


async def test_what_waited_when_the_bus_ended_is_not_sent_by_its_next_life() -> None:
    clock = running_clock()
    broker = FaultyBroker(InMemoryMessageBroker(clock=clock), FaultPlan(), clock=clock)
    bus = PolarisMessageBus(broker, clock=clock, grace_s=1.0)
    await bus.start()
    broker.cut()
    task = asyncio.create_task(bus.publish(COMMANDS, health(), timeout_s=3_600.0))
    await asyncio.sleep(0.2)
    await bus.stop()
    await asyncio.sleep(10.0)
    broker.mend()
    await bus.start()
    await asyncio.sleep(2.0)
    assert await bus.broker.read_stored("POLARIS_ADAPTATIONS") == []
    assert await kinds(task) == [BusConnectionError]
    assert await kinds(bus.publish(COMMANDS, health())) == [Receipt]
    await bus.stop()


# Age, and the deadlines that surround a publisher.


async def test_of_telemetry_that_never_left_nothing_is_in_doubt() -> None:
    async with cut_off() as (bus, broker):
        first = started(bus.publish_telemetry(telemetry(0), timeout_s=30.0))
        await asyncio.sleep(0.1)
        behind = (bus.publish_telemetry(telemetry(n), timeout_s=2.0) for n in range(1, 4))
        assert await kinds(*behind) == [BusConnectionError] * 3
        assert bus.published[EventKind.TELEMETRY].dropped == {"away": 3}
        broker.mend()
        assert await kinds(*first) == [Receipt]


async def test_a_surrounding_deadline_is_not_taken_for_the_age_of_the_event() -> None:
    async with cut_off() as (bus, _):
        began_s = running_clock().monotonic()
        # It ends when no further attempt fits in, or while it waits for one: the pauses are drawn.
        with pytest.raises((BusConnectionError, DeadlineExceededError)) as caught, deadline_scope(2.0):
            await bus.publish(TOPIC, telemetry(), timeout_s=90.0)
        assert caught.value.context.get("reason") != "expired"
        assert running_clock().monotonic() - began_s <= 2.001
        assert bus.published[EventKind.TELEMETRY].dropped in ({"away": 1}, {"cancelled": 1})


@pytest.mark.parametrize("single", [True, False])
async def test_one_may_wait_for_ever(single: bool) -> None:
    forever = float("inf")
    async with cut_off(outage=OutageBuffer(age_max_s=forever)) as (bus, broker):
        if single:
            tasks = started(bus.publish(COMMANDS, health(), timeout_s=forever))
        else:
            tasks = started(*(bus.publish_telemetry(telemetry(n), timeout_s=forever) for n in range(3)))
        await asyncio.sleep(300.0)
        broker.mend()
        assert await kinds(*tasks) == [Receipt] * len(tasks)
