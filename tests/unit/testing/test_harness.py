"""The harness waits for what happens on a bus, and says what did happen when it waits in vain."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from tests.unit.messaging.doubles import health, number_of, telemetry

from polaris.domain import AdaptationAction, AdaptationEvent, HealthEvent, PolarisEvent, TelemetryEvent
from polaris.exceptions import BusConnectionError, ConflictError, PublishError
from polaris.messaging import (
    DeadLetterReason,
    DeduplicationMiddleware,
    MessageContext,
    MiddlewareChain,
    NextHandler,
    RedeliveryPolicy,
    adaptation_topic,
)
from polaris.testing import BusHarness, Fault, FaultPlan, FaultyBroker, HappeningKind, running_clock

TOPIC = "polaris.telemetry.web"


def action(number: int = 1, system_id: str = "web") -> AdaptationEvent:
    return AdaptationEvent(AdaptationAction(f"a{number}", "add_worker", system_id))


async def vain(waiting: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        await waiting
    return str(caught.value)


async def test_it_waits_for_what_a_handler_publishes() -> None:
    async with BusHarness() as harness:

        async def control(event: TelemetryEvent) -> None:
            await asyncio.sleep(1.0)
            if number_of(event) > 5:
                await harness.bus.publish(adaptation_topic("web"), action())

        await harness.bus.subscribe("polaris.telemetry.*", control)
        await harness.bus.publish_telemetry(telemetry(9))
        asked = await harness.published(AdaptationEvent, where=lambda event: event.action.target_system == "web")
        assert asked.action.action_type == "add_worker"
        handled = await harness.handled(TelemetryEvent)
        assert number_of(handled) == 9


async def test_what_happened_before_counts_until_it_is_forgotten() -> None:
    async with BusHarness() as harness:
        event = health("up")
        await harness.bus.publish("polaris.health.store", event)
        assert (await harness.published(HealthEvent)).event_id == event.event_id
        assert (await harness.published(HealthEvent)).event_id == event.event_id
        harness.forget()
        assert list(harness.happenings) == []
        await vain(harness.published(HealthEvent))


async def test_the_nth_of_its_kind_is_waited_for() -> None:
    async with BusHarness() as harness:

        async def later() -> None:
            for n in range(1, 4):
                await asyncio.sleep(1.0)
                await harness.bus.publish(TOPIC, telemetry(n))

        publishing = asyncio.create_task(later())
        assert number_of(await harness.published(TelemetryEvent, nth=3)) == 3
        assert number_of(await harness.published(TelemetryEvent, nth=2)) == 2
        said = await vain(harness.published(TelemetryEvent, nth=4))
        assert said.startswith("no 4. TelemetryEvent was published within 5 s, only 3\n")
        await publishing


async def test_topics_patterns_types_and_conditions_narrow() -> None:
    async with BusHarness() as harness:
        await harness.bus.publish(TOPIC, telemetry(1))
        await harness.bus.publish("polaris.telemetry.db", telemetry(2, "db"))
        await harness.bus.publish("polaris.health.store", health())
        assert number_of(await harness.published(TelemetryEvent, topic="polaris.telemetry.db")) == 2
        assert isinstance(await harness.published(topic="polaris.health.>"), HealthEvent)
        assert number_of(await harness.published(TelemetryEvent, where=lambda event: number_of(event) > 1)) == 2
        await vain(harness.published(HealthEvent, topic="polaris.telemetry.*"))
        assert [number_of(one) for one in harness.events(HappeningKind.PUBLISHED, TelemetryEvent)] == [1, 2]
        assert harness.events(HappeningKind.HANDLED, PolarisEvent) == []


async def test_the_events_of_a_batch_count_each() -> None:
    async with BusHarness() as harness:
        taken: list[int] = []

        async def take(events: list[TelemetryEvent]) -> None:
            taken.append(len(events))

        await harness.bus.subscribe("polaris.telemetry.*", take)
        await harness.bus.publish_many([telemetry(n) for n in range(10)])
        await harness.handled(TelemetryEvent, nth=10)
        await harness.published(TelemetryEvent, nth=10)
        assert sum(taken) == 10


async def test_a_wait_in_vain_says_what_happened_instead() -> None:
    async with BusHarness(redelivery=RedeliveryPolicy(max_deliveries=2)) as harness:

        async def broken(event: TelemetryEvent) -> None:
            raise ValueError("the controller is broken")

        await harness.bus.subscribe("polaris.telemetry.*", broken, durable="control")
        await harness.bus.publish_telemetry(telemetry(1))
        await harness.bus.publish(adaptation_topic("db"), action(1, "db"))
        said = await vain(
            harness.published(
                AdaptationEvent, topic="polaris.>", where=lambda event: event.action.target_system == "web"
            )
        )
        lines = said.splitlines()
        assert lines[0] == "no AdaptationEvent was published on polaris.> within 5 s"
        assert lines[1] == "1 otherwise like it did not satisfy `where`."
        assert lines[2] == "What happened:"
        assert re.match(r"  \+0\.000 s  published      polaris\.telemetry\.web  TelemetryEvent\(", lines[3])
        assert any(
            re.match(r"  \+0\.000 s  failed .* by control: ValueError: the controller is broken$", line)
            for line in lines
        )
        assert any(
            re.match(r"  \+\d.*  failed .* by control, delivery 2: ValueError: the controller is broken$", line)
            for line in lines
        )
        assert any(
            "dead-lettered  polaris.telemetry.web  " in line and "exhausted, ValueError" in line for line in lines
        )
        assert all(len(line) <= 242 for line in lines)


async def test_a_wait_in_vain_where_nothing_happened_says_so() -> None:
    async with BusHarness() as harness:
        assert await vain(harness.handled(HealthEvent, subscription="watcher", timeout_s=2.0)) == (
            "no HealthEvent was handled by watcher within 2 s\nNothing happened at all."
        )


async def test_of_very_much_the_last_is_told() -> None:
    async with BusHarness() as harness:
        for n in range(60):
            await harness.bus.publish("polaris.health.store", health(f"message {n}"))
        said = await vain(harness.published(TelemetryEvent))
        assert "  ... 20 before" in said
        assert "message 59" in said
        assert "message 19'" not in said


async def test_failures_are_waited_for_and_handed_over() -> None:
    async with BusHarness() as harness:
        tries: list[int] = []

        async def flaky(event: TelemetryEvent, context: MessageContext) -> None:
            tries.append(context.attempt)
            if len(tries) < 3:
                raise ConnectionError(f"attempt {len(tries)}")

        await harness.bus.subscribe("polaris.telemetry.*", flaky, durable="flaky")
        await harness.bus.publish_telemetry(telemetry())
        error = await harness.failed(TelemetryEvent, subscription="flaky", nth=2)
        assert isinstance(error, ConnectionError)
        assert str(error) == "attempt 2"
        await harness.handled(TelemetryEvent, subscription="flaky")
        assert tries == [1, 2, 3]


async def test_what_is_put_aside_is_waited_for_with_its_bytes() -> None:
    async with BusHarness() as harness:

        async def refuse(event: TelemetryEvent) -> None:
            raise ConflictError("no")

        await harness.bus.subscribe("polaris.telemetry.*", refuse, durable="strict")
        await harness.publish_bytes(TOPIC, b"\x00\xff", headers={"Origin": "x"})
        await harness.bus.publish_telemetry(telemetry())
        noise = await harness.dead_lettered(topic=TOPIC, reason=DeadLetterReason.UNDECODABLE)
        assert (noise.payload, noise.headers) == (b"\x00\xff", {"Origin": "x"})
        refused = await harness.dead_lettered(
            subscription="strict", where=lambda letter: letter.error_code.endswith("conflict")
        )
        assert refused.reason is DeadLetterReason.REFUSED
        said = await vain(harness.dead_lettered(reason=DeadLetterReason.EXHAUSTED))
        assert said.startswith(
            "no message was dead-lettered within 5 s\n2 otherwise like it did not satisfy `where`.\n"
        )


async def test_silence_is_waited_for_and_broken() -> None:
    async with BusHarness() as harness:
        await harness.bus.publish_telemetry(telemetry())
        clock = running_clock()
        began_s = clock.monotonic()
        await harness.nothing_published(AdaptationEvent, within_s=3.0)
        assert clock.monotonic() - began_s == pytest.approx(3.0)

        async def late() -> None:
            await asyncio.sleep(2.0)
            await harness.bus.publish(adaptation_topic("web"), action())

        publishing = asyncio.create_task(late())
        said = await vain(harness.nothing_published(AdaptationEvent, within_s=3.0))
        assert said.startswith("AdaptationEvent was published, where nothing was expected: +5.000 s  published")
        await publishing
        said = await vain(harness.nothing_published(where=lambda event: isinstance(event, AdaptationEvent)))
        assert "where nothing was expected" in said
        await harness.nothing_published(HealthEvent)


async def test_settled_means_handled_and_acknowledged_with_all_that_came_of_it() -> None:
    async with BusHarness() as harness:
        done: list[str] = []

        async def first(event: TelemetryEvent) -> None:
            await asyncio.sleep(0.3)
            await harness.bus.publish("polaris.health.web", health())
            done.append("first")

        async def second(event: HealthEvent) -> None:
            await asyncio.sleep(0.3)
            await harness.bus.publish(adaptation_topic("web"), action())
            done.append("second")

        async def third(event: AdaptationEvent, context: MessageContext) -> None:
            if context.attempt < 3:
                raise ConnectionError("not yet")
            done.append("third")

        await harness.bus.subscribe("polaris.telemetry.*", first)
        await harness.bus.subscribe("polaris.health.*", second)
        await harness.bus.subscribe("polaris.adaptations.*", third, durable="third")
        await harness.bus.publish_telemetry(telemetry())
        await harness.settled()
        assert done == ["first", "second", "third"]
        await harness.settled(timeout_s=0.1)


async def test_what_never_settles_is_named() -> None:
    async with BusHarness() as harness:

        async def hang(event: TelemetryEvent) -> None:
            await asyncio.sleep(1000.0)

        await harness.bus.subscribe("polaris.telemetry.*", hang, durable="hanging", in_flight_max=1)
        for n in range(3):
            await harness.bus.publish(TOPIC, telemetry(n))
        said = await vain(harness.settled(timeout_s=2.0))
        assert said.startswith(
            "not settled within 2 s: hanging has 1 in hand, 2 waiting, 1 not acknowledged\nWhat happened:"
        )


async def test_what_a_middleware_keeps_back_is_not_handled() -> None:
    async with BusHarness([DeduplicationMiddleware()]) as harness:
        seen: list[str] = []

        async def handle(event: HealthEvent) -> None:
            seen.append(event.message)

        await harness.bus.subscribe("polaris.health.*", handle)
        event = health("once")
        await harness.bus.publish("polaris.health.a", event)
        await harness.bus.publish("polaris.health.a", event)
        await harness.settled()
        assert seen == ["once"]
        assert len(harness.events(HappeningKind.HANDLED, HealthEvent)) == 1
        assert len(harness.events(HappeningKind.PUBLISHED, HealthEvent)) == 2


async def test_a_chain_can_be_given_and_an_event_it_stops_was_not_published() -> None:
    async def stop(context: MessageContext, next_handler: NextHandler) -> Any:
        return None

    async with BusHarness(MiddlewareChain([stop])) as harness:
        with pytest.raises(PublishError, match="stopped"):
            await harness.bus.publish("polaris.health.a", health())
        await harness.nothing_published()


async def test_an_event_that_could_not_be_published_is_told_apart() -> None:
    plan = FaultPlan(at={Fault.PARTITION: set(range(6, 100))}, partition_s=100.0)
    clock = running_clock()
    async with BusHarness(around=lambda broker: FaultyBroker(broker, plan, clock=clock)) as harness:
        with pytest.raises(BusConnectionError):
            await harness.bus.publish("polaris.health.a", health(), timeout_s=1.0)
        (happening,) = harness.happenings
        assert happening.kind is HappeningKind.NOT_PUBLISHED
        assert isinstance(happening.error, BusConnectionError)
        await harness.nothing_published()


async def test_several_buses_of_one_server_share_the_record() -> None:
    async with BusHarness() as harness:
        other = await harness.new_bus()
        seen: list[str] = []

        async def handle(event: HealthEvent) -> None:
            seen.append(event.message)

        await other.subscribe("polaris.health.*", handle)
        await harness.bus.publish("polaris.health.a", health("hello"))
        await harness.handled(HealthEvent)
        await harness.settled()
        assert seen == ["hello"]
    assert not other.started


async def test_it_can_be_stopped_twice_and_refuses_work_before_its_start() -> None:
    harness = BusHarness()
    with pytest.raises(RuntimeError, match="not started"):
        _ = harness.bus
    await harness.stop()
    await harness.start()
    await harness.stop()
    await harness.stop()
    assert not harness.bus.started


def test_it_works_in_real_time_too() -> None:
    async def main() -> None:
        async with BusHarness() as harness:

            async def handle(event: HealthEvent) -> None:
                pass

            await harness.bus.subscribe("polaris.health.*", handle)
            await harness.bus.publish("polaris.health.a", health("hello"))
            await harness.handled(HealthEvent)
            await harness.settled()

    asyncio.run(main())
