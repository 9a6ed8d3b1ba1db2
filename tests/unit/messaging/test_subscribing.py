"""Who gets which events, in which shape, and from where in the stream on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.messaging.doubles import (
    STORED,
    eventually,
    health,
    new_bus,
    number_of,
    publish_raw,
    running_bus,
    telemetry,
)

from polaris._correlation import correlation_scope, current_correlation_id
from polaris.domain import EVENTS, EventRegistry, HealthEvent, PolarisEvent, TelemetryEvent, event_type
from polaris.exceptions import BusConnectionError, InvalidTopicError, InvalidValueError, SubscriptionError
from polaris.messaging import DeliveryClass, EventHandler, InMemoryHub, MessageContext, Start
from polaris.messaging._handlers import bind_handler
from polaris.observability import current_trace, start_trace, trace_scope
from polaris.testing import running_clock

if TYPE_CHECKING:
    from polaris.domain import AdaptationEvent


async def test_a_handler_gets_the_events_of_its_topic() -> None:
    seen: list[TelemetryEvent] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(event)

    sent = [telemetry(1, "a"), telemetry(2, "b.c"), telemetry(3, "a")]
    async with running_bus() as bus:
        await bus.subscribe("polaris.telemetry.a", handle)
        for event in sent:
            await bus.publish_telemetry(event)
        await eventually(lambda: len(seen) == 2)
    assert [event.event_id for event in seen] == [sent[0].event_id, sent[2].event_id]
    assert [event.system_state for event in seen] == [sent[0].system_state, sent[2].system_state]


async def test_wildcards_and_every_subscriber_gets_its_own() -> None:
    star: list[float] = []
    rest: list[PolarisEvent] = []

    async def one(event: TelemetryEvent) -> None:
        star.append(number_of(event))

    async def everything(event: PolarisEvent) -> None:
        rest.append(event)

    async with running_bus() as bus:
        stored = await bus.subscribe("polaris.telemetry.*", one)
        wide = await bus.subscribe("polaris.>", everything)
        assert (stored.delivery, wide.delivery) == (STORED, DeliveryClass.AT_MOST_ONCE)
        await bus.publish_telemetry(telemetry(1, "a.b"))
        await bus.publish("polaris.health.store", health())
        await eventually(lambda: len(star) == 1 and len(rest) == 2)
    assert [type(event) for event in rest] == [TelemetryEvent, HealthEvent]


async def test_events_of_a_batch_arrive_one_by_one_in_order() -> None:
    seen: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    async with running_bus() as bus:
        await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_many([telemetry(n) for n in range(700)])
        await eventually(lambda: len(seen) == 700)
    assert seen == [float(n) for n in range(700)]


async def test_events_of_other_types_are_passed_over_and_counted() -> None:
    seen: list[PolarisEvent] = []

    async def handle(event: HealthEvent) -> None:
        seen.append(event)

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish("polaris.telemetry.web", telemetry())
        await bus.publish("polaris.telemetry.web", health("x"))
        await eventually(lambda: len(seen) == 1)
        await eventually(lambda: subscription.in_flight == 0)
        assert (subscription.stats.skipped, subscription.stats.handled, subscription.stats.dead_lettered) == (1, 1, 0)


class PickyHandler:
    """An EventHandler by its shape alone."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def can_handle(self, event: TelemetryEvent) -> bool:
        return number_of(event) > 1

    async def handle(self, event: TelemetryEvent) -> None:
        self.seen.append(number_of(event))


async def test_a_handler_object_may_decline() -> None:
    handler = PickyHandler()
    assert isinstance(handler, EventHandler)
    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handler)
        for n in range(4):
            await bus.publish_telemetry(telemetry(n))
        await eventually(lambda: subscription.stats.received == 4 and subscription.in_flight == 0)
    assert handler.seen == [2.0, 3.0]
    assert subscription.stats.skipped == 2


async def test_a_handler_that_asks_for_it_is_told_about_the_message() -> None:
    seen: list[tuple[str, int, str | None]] = []

    async def handle(event: TelemetryEvent, context: MessageContext) -> None:
        seen.append((context.topic, context.attempt, context.subscription))
        assert context.event is event
        if context.attempt == 1:
            raise KeyError("once more")

    async def handle_many(events: list[TelemetryEvent], context: MessageContext) -> None:
        assert list(context.events) == events
        seen.append((context.topic, len(events), context.subscription))

    async def with_default(event: TelemetryEvent, verbose: bool = False) -> None:
        assert verbose is False

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="one")
        await bus.publish_telemetry(telemetry(1, "a.b"))
        await eventually(lambda: len(seen) == 2)
        many = await bus.subscribe("polaris.telemetry.*", handle_many, durable="many")
        default = await bus.subscribe("polaris.telemetry.*", with_default, durable="default")
        await eventually(lambda: many.stats.handled == default.stats.handled == subscription.stats.handled == 1)
    topic = "polaris.telemetry.a%2Eb"
    assert seen == [(topic, 1, "one"), (topic, 2, "one"), (topic, 1, "many")]


async def test_a_batch_handler_gets_many_events_at_once() -> None:
    calls: list[list[float]] = []

    async def handle(events: list[TelemetryEvent]) -> None:
        calls.append([number_of(event) for event in events])
        await asyncio.sleep(1.0)

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, batch_max=50)
        for n in range(120):
            await bus.publish_telemetry(telemetry(n))
        await eventually(lambda: subscription.stats.handled == 120 and subscription.in_flight == 0)
    assert [number for call in calls for number in call] == [float(n) for n in range(120)]
    assert len(calls) <= 5
    assert max(len(call) for call in calls) == 50


async def test_a_message_of_no_events_calls_no_batch_handler_and_is_done_with() -> None:
    batches: list[int] = []

    async def handle(events: list[TelemetryEvent]) -> None:
        batches.append(len(events))

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="w", batch_linger_s=0.0)
        await publish_raw(bus, "polaris.telemetry.web", b"[]")
        await eventually(lambda: subscription.stats.received == 1 and subscription.in_flight == 0)
        await bus.publish_telemetry(telemetry())
        await eventually(lambda: batches == [1])


async def test_a_batch_handler_does_not_wait_long_for_company() -> None:
    when: list[float] = []
    clock = running_clock()

    async def handle(events: Sequence[TelemetryEvent]) -> None:
        when.append(clock.monotonic())

    async with running_bus() as bus:
        await bus.subscribe("polaris.telemetry.*", handle, batch_linger_s=0.2)
        began_s = clock.monotonic()
        await bus.publish_telemetry(telemetry())
        await eventually(lambda: len(when) == 1)
        assert 0.15 <= when[0] - began_s <= 0.5


async def test_a_durable_position_begins_with_everything_and_is_taken_up_again() -> None:
    hub = InMemoryHub(clock=running_clock())
    seen: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    async with running_bus(hub) as bus:
        await bus.publish_telemetry(telemetry(1))
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="store.writer")
        await eventually(lambda: seen == [1.0])
        await subscription.unsubscribe()
        await bus.publish_telemetry(telemetry(2))
    async with running_bus(hub) as bus:
        await bus.subscribe("polaris.telemetry.*", handle, durable="store.writer")
        await eventually(lambda: seen == [1.0, 2.0])


async def test_an_unnamed_subscription_begins_with_what_is_new() -> None:
    seen: dict[str, list[float]] = {"new": [], "all": []}

    async def handle(name: str, event: TelemetryEvent) -> None:
        seen[name].append(number_of(event))

    async with running_bus() as bus:
        await bus.publish_telemetry(telemetry(1))
        await bus.subscribe("polaris.telemetry.*", partial(handle, "new"), event_type=TelemetryEvent)
        await bus.subscribe("polaris.telemetry.*", partial(handle, "all"), event_type=TelemetryEvent, start=Start.ALL)
        await bus.publish_telemetry(telemetry(2))
        await eventually(lambda: len(seen["all"]) == 2 and len(seen["new"]) == 1)
    assert seen == {"new": [2.0], "all": [1.0, 2.0]}


@pytest.mark.parametrize("delivery", DeliveryClass)
async def test_a_group_shares_and_others_get_everything(delivery: DeliveryClass) -> None:
    hub = InMemoryHub(clock=running_clock())
    seen: list[tuple[int, float]] = []

    async def handle(member: int, event: TelemetryEvent) -> None:
        seen.append((member, number_of(event)))
        await asyncio.sleep(0.1)

    buses = [new_bus(hub) for _ in range(3)]
    for bus in buses:
        await bus.start()
    for member, bus in enumerate(buses):
        await bus.subscribe(
            "polaris.telemetry.*",
            partial(handle, member),
            event_type=TelemetryEvent,
            group="workers",
            delivery=delivery,
            in_flight_max=2,
        )
    for n in range(30):
        await buses[0].publish("polaris.telemetry.web", telemetry(n), delivery=delivery)
    await eventually(lambda: len(seen) >= 30)
    await asyncio.sleep(1.0)
    assert sorted(number for _, number in seen) == [float(n) for n in range(30)]
    assert len({member for member, _ in seen}) > 1
    for bus in buses:
        await bus.stop()


async def test_concurrency_bounds_the_handlers_that_run() -> None:
    running = most = 0

    async def handle(event: TelemetryEvent) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.1)
        running -= 1

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, concurrency=4)
        for n in range(20):
            await bus.publish_telemetry(telemetry(n))
        await eventually(lambda: subscription.stats.handled == 20)
    assert most == 4


async def test_no_more_than_in_flight_max_is_taken() -> None:
    release = asyncio.Event()

    async def handle(event: TelemetryEvent) -> None:
        await release.wait()

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, in_flight_max=8)
        for n in range(50):
            await bus.publish_telemetry(telemetry(n))
        await asyncio.sleep(20)
        assert subscription.in_flight <= 8
        info = await subscription.info()
        assert info is not None
        assert (info.pending, info.ack_pending) == (42, 8)
        release.set()
        await eventually(lambda: subscription.stats.handled == 50)


async def test_the_correlation_id_of_an_event_is_current_in_its_handler_and_goes_on() -> None:
    seen: list[tuple[str, str | None, str | None]] = []

    async with running_bus() as bus:

        async def first(event: TelemetryEvent) -> None:
            seen.append(("first", event.correlation_id, current_correlation_id()))
            await bus.publish("polaris.health.store", health())

        async def second(event: HealthEvent) -> None:
            seen.append(("second", event.correlation_id, current_correlation_id()))

        await bus.subscribe("polaris.telemetry.*", first)
        await bus.subscribe("polaris.health.*", second)
        with correlation_scope("chain-1"):
            await bus.publish_telemetry(telemetry())
        await eventually(lambda: len(seen) == 2)
        assert current_correlation_id() is None
    assert seen == [("first", "chain-1", "chain-1"), ("second", "chain-1", "chain-1")]


async def test_the_trace_of_an_event_goes_on_in_its_handler() -> None:
    seen: list[Any] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(current_trace())

    async with running_bus() as bus:
        await bus.subscribe("polaris.telemetry.*", handle)
        with trace_scope(start_trace(sampled=True)) as trace:
            await bus.publish_telemetry(telemetry())
        await eventually(lambda: len(seen) == 1)
    assert seen[0].trace_id == trace.trace_id
    assert seen[0].span_id != trace.span_id


async def test_a_subscription_needs_a_running_bus_and_a_legal_pattern() -> None:
    async def handle(event: TelemetryEvent) -> None: ...

    bus = new_bus()
    with pytest.raises(BusConnectionError):
        await bus.subscribe("polaris.telemetry.*", handle)
    async with bus:
        for pattern in ("", "a.>.b", "a b", "$JS.>"):
            with pytest.raises(InvalidTopicError):
                await bus.subscribe(pattern, handle)


async def test_a_guarantee_that_cannot_be_given_is_refused() -> None:
    async def handle(event: PolarisEvent) -> None: ...

    async with running_bus() as bus:
        with pytest.raises(SubscriptionError, match="POLARIS_TELEMETRY"):
            await bus.subscribe("polaris.>", handle, delivery=STORED)
        with pytest.raises(SubscriptionError, match="no stream"):
            await bus.subscribe("polaris.health.*", handle, durable="x")
        with pytest.raises(SubscriptionError):
            await bus.subscribe("polaris.telemetry.*", handle, durable="x", delivery=DeliveryClass.AT_MOST_ONCE)


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"concurrency": 1.5},
        {"in_flight_max": 0},
        {"ack_wait_s": 0},
        {"handler_timeout_s": 0},
        {"batch_max": 0},
        {"batch_linger_s": -1},
    ],
)
async def test_options_out_of_bounds_are_refused(options: dict[str, Any]) -> None:
    async def handle(event: TelemetryEvent) -> None: ...

    async with running_bus() as bus:
        with pytest.raises(InvalidValueError):
            await bus.subscribe("polaris.telemetry.*", handle, **options)


async def test_a_subscription_that_the_broker_refuses_leaves_nothing_running() -> None:
    async def handle(event: TelemetryEvent) -> None: ...

    async with running_bus() as bus:
        bus.broker.hub.streams.clear()  # type: ignore[attr-defined]
        with pytest.raises(SubscriptionError):
            await bus.subscribe("polaris.telemetry.*", handle)


# What annotations say.


async def of_telemetry(event: TelemetryEvent) -> None: ...
async def of_two(event: TelemetryEvent | HealthEvent) -> None: ...
async def of_any(event: Any) -> None: ...
async def of_anything(event) -> None: ...
async def of_list(events: list[TelemetryEvent]) -> None: ...
async def of_sequence_of_two(events: Sequence[TelemetryEvent | HealthEvent]) -> None: ...
async def of_type_checking_import(event: AdaptationEvent) -> None: ...
async def of_list_of_strings(events: list["TelemetryEvent"]) -> None: ...  # noqa: UP037 # a string inside a string


@pytest.mark.parametrize(
    ("handler", "names", "batch"),
    [
        (of_telemetry, ["TelemetryEvent"], False),
        (of_two, ["TelemetryEvent", "HealthEvent"], False),
        (of_any, ["PolarisEvent"], False),
        (of_anything, ["PolarisEvent"], False),
        (of_list, ["TelemetryEvent"], True),
        (of_sequence_of_two, ["TelemetryEvent", "HealthEvent"], True),
        (of_type_checking_import, ["AdaptationEvent"], False),
        (of_list_of_strings, ["TelemetryEvent"], True),
        (PickyHandler(), ["TelemetryEvent"], False),
        (PickyHandler().handle, ["TelemetryEvent"], False),
        (lambda event: of_telemetry(event), ["PolarisEvent"], False),
    ],
)
async def test_the_events_are_taken_from_the_annotation(handler: Any, names: list[str], batch: bool) -> None:
    bound = bind_handler(handler, None)
    assert [one.__name__ for one in bound.types] == names
    assert bound.takes_batch is batch


async def test_a_class_defined_where_the_handler_is_defined_is_found() -> None:
    registry = EventRegistry(parent=EVENTS)

    @event_type("acme.local.event", registry=registry)
    class Local(PolarisEvent, frozen=True):
        n: int

    async def handle(event: Local) -> None: ...

    assert bind_handler(handle, None, registry).types == (Local,)


async def test_an_event_type_given_goes_before_the_annotation() -> None:
    assert bind_handler(of_any, TelemetryEvent).types == (TelemetryEvent,)
    assert bind_handler(of_any, [TelemetryEvent, HealthEvent]).types == (TelemetryEvent, HealthEvent)


def blocking(event: TelemetryEvent) -> None: ...
async def of_nothing() -> None: ...
async def of_numbers(event: int) -> None: ...
async def of_unknown(event: Whatever) -> None: ...  # type: ignore[name-defined] # noqa: F821 # that is the point


@pytest.mark.parametrize("handler", [blocking, of_nothing, of_numbers, of_unknown, object(), 7, None])
async def test_what_is_no_handler_is_refused(handler: Any) -> None:
    with pytest.raises(SubscriptionError):
        bind_handler(handler, None)


async def test_an_event_type_that_is_none_is_refused() -> None:
    for wanted in (int, [TelemetryEvent, int], []):
        with pytest.raises(SubscriptionError):
            bind_handler(of_any, wanted)  # type: ignore[arg-type]


# Names of positions.


async def test_any_name_becomes_a_legal_one_and_different_names_stay_apart() -> None:
    async def handle(event: TelemetryEvent) -> None: ...

    names: list[str] = []
    given = ["writer", "store.writer", "store/writer", "store writer", "*", "é", "x" * 1_000, "x" * 999, "\ud800"]
    async with running_bus() as bus:
        for name in given:
            names.append((await bus.subscribe("polaris.telemetry.*", handle, durable=name)).name)
            names.append((await bus.subscribe("polaris.telemetry.*", handle, group=name)).name)
        other = await bus.subscribe("polaris.telemetry.>", handle, group="writer")
        same = await bus.subscribe("polaris.telemetry.*", handle, group="writer")
        with pytest.raises(SubscriptionError):
            await bus.subscribe("polaris.telemetry.*", handle, durable="")
        with pytest.raises(SubscriptionError):
            await bus.subscribe("polaris.health.*", handle, group="")
    assert names[0] == "writer"
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,255}", name) for name in names)
    assert same.name == names[1] != other.name


async def test_a_batch_handler_can_have_its_whole_batch_in_flight() -> None:
    calls: list[int] = []

    async def handle(events: list[TelemetryEvent]) -> None:
        calls.append(len(events))

    async with running_bus() as bus:
        for n in range(600):
            await bus.publish("polaris.telemetry.web", telemetry(n))
        await bus.subscribe("polaris.telemetry.*", handle, durable="w", batch_max=600, batch_linger_s=1.0)
        await eventually(lambda: sum(calls) == 600)
    assert calls == [600]


async def test_a_handler_may_use_a_name_that_is_bound_after_it_has_subscribed() -> None:
    seen: list[int] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(subscription.stats.received)

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry())
        await eventually(lambda: seen == [1])
