"""Which ack policy a subscription gets, and what a subscriber to whom nothing is acknowledged may count on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.messaging.doubles import eventually, health, new_bus, number_of, publish_raw, running_bus, telemetry

from polaris.domain import (
    AdaptationEvent,
    EventKind,
    HealthEvent,
    PolarisEvent,
    TelemetryBatch,
    TelemetryEvent,
)
from polaris.exceptions import ConfigurationError, InvalidValueError, SubscriptionError
from polaris.messaging import (
    AckPolicy,
    ConsumerSpec,
    DeduplicationMiddleware,
    DeliveryClass,
    EventCodec,
    InMemoryHub,
    MessageContext,
    PolarisMessageBus,
    RedeliveryPolicy,
    Start,
    Subscription,
)
from polaris.messaging.brokers._memory_deliveries import MemoryConsumer
from polaris.observability import MetricsCollector, capture_logs
from polaris.testing import running_clock

TOPIC = "polaris.telemetry.web"
PATTERN = "polaris.telemetry.*"
LOOSE = {EventKind.TELEMETRY: AckPolicy.NONE, EventKind.CONTROL: AckPolicy.ALL}


@pytest.fixture
async def hub() -> InMemoryHub:
    return InMemoryHub(clock=running_clock())


async def ignore(event: TelemetryEvent) -> None:
    pass


async def ignore_both(event: TelemetryEvent | TelemetryBatch) -> None:
    pass


async def ignore_mixed(event: TelemetryEvent | HealthEvent) -> None:
    pass


async def ignore_any(event: PolarisEvent) -> None:
    pass


async def obey(event: AdaptationEvent) -> None:
    pass


def spec_of(hub: InMemoryHub, durable: str = "d") -> ConsumerSpec:
    (spec,) = (stream.positions[durable].spec for stream in hub.streams.values() if durable in stream.positions)
    return spec


@pytest.mark.parametrize(
    ("topic", "handler", "expected"),
    [
        (PATTERN, ignore, AckPolicy.NONE),
        (PATTERN, ignore_both, AckPolicy.NONE),
        (PATTERN, ignore_mixed, AckPolicy.ALL),
        (PATTERN, ignore_any, AckPolicy.ALL),
        ("polaris.adaptations.*", obey, AckPolicy.ALL),
    ],
)
async def test_the_kind_of_all_the_events_decides_where_nothing_is_asked_for(
    hub: InMemoryHub, topic: str, handler: Any, expected: AckPolicy
) -> None:
    async with running_bus(hub, ack_policies=LOOSE) as bus:
        await bus.subscribe(topic, handler, durable="d")
        assert spec_of(hub).ack is expected


async def test_every_message_is_acknowledged_by_itself_unless_something_else_is_said(hub: InMemoryHub) -> None:
    async with running_bus(hub) as bus:
        await bus.subscribe(PATTERN, ignore, durable="d")
        assert spec_of(hub).ack is AckPolicy.EACH
    async with running_bus(hub, ack_policies=LOOSE) as bus:
        await bus.subscribe(PATTERN, ignore, durable="asked", ack=AckPolicy.EACH)
        assert spec_of(hub, "asked").ack is AckPolicy.EACH


@pytest.mark.parametrize(
    "options", [{"group": "g"}, {"concurrency": 2}, {"ordered_by": "topic"}, {"conflate": True}], ids=str
)
async def test_what_cannot_be_had_is_refused_if_asked_for_and_passed_over_if_not(
    hub: InMemoryHub, options: dict[str, Any]
) -> None:
    async with running_bus(hub, ack_policies={EventKind.TELEMETRY: AckPolicy.ALL}) as bus:
        with pytest.raises(SubscriptionError, match="'all' cannot be had"):
            await bus.subscribe(PATTERN, ignore, ack=AckPolicy.ALL, **options)
        assert hub.streams["POLARIS_TELEMETRY"].positions == {}
        await bus.subscribe(PATTERN, ignore, **options)
        (position,) = hub.streams["POLARIS_TELEMETRY"].positions.values()
        assert position.spec.ack is AckPolicy.EACH


@pytest.mark.parametrize("ack", AckPolicy)
async def test_a_core_subscription_acknowledges_nothing(hub: InMemoryHub, ack: AckPolicy) -> None:
    async with running_bus(hub, ack_policies=LOOSE) as bus:
        with pytest.raises(SubscriptionError, match="core"):
            await bus.subscribe(PATTERN, ignore_any, ack=ack, delivery=DeliveryClass.AT_MOST_ONCE)
        with pytest.raises(SubscriptionError, match="core"):
            await bus.subscribe("polaris.health.*", ignore_any, ack=ack)
        subscription = await bus.subscribe("polaris.health.*", ignore_any)
        assert subscription.delivery is DeliveryClass.AT_MOST_ONCE


async def test_at_least_once_and_no_acknowledgements_do_not_go_together(hub: InMemoryHub) -> None:
    at_least: dict[str, Any] = {"delivery": DeliveryClass.AT_LEAST_ONCE}
    async with running_bus(hub, ack_policies=LOOSE) as bus:
        with pytest.raises(SubscriptionError, match="at most once"):
            await bus.subscribe(PATTERN, ignore, ack=AckPolicy.NONE, **at_least)
        subscription = await bus.subscribe(PATTERN, ignore, durable="d", **at_least)
        assert (subscription.delivery, spec_of(hub).ack) == (DeliveryClass.AT_LEAST_ONCE, AckPolicy.EACH)


@pytest.mark.parametrize(
    "policies",
    [
        {EventKind.CONTROL: AckPolicy.NONE},
        {"telemetry": AckPolicy.ALL},
        {EventKind.TELEMETRY: "all"},
        {EventKind.TELEMETRY: None},
    ],
    ids=str,
)
async def test_a_bus_that_would_lose_control_events_or_means_nothing_is_refused(policies: Any) -> None:
    with pytest.raises(ConfigurationError, match="ack_policies"):
        new_bus(ack_policies=policies)


async def test_a_subscriber_may_ask_to_lose_control_events_himself_and_must_name_a_policy(hub: InMemoryHub) -> None:
    async with running_bus(hub) as bus:
        subscription = await bus.subscribe("polaris.adaptations.*", obey, durable="d", ack=AckPolicy.NONE)
        assert (subscription.delivery, spec_of(hub).ack) == (DeliveryClass.AT_MOST_ONCE, AckPolicy.NONE)
        with pytest.raises(InvalidValueError, match="ack"):
            await bus.subscribe("polaris.adaptations.*", obey, ack="none")  # type: ignore[arg-type]


async def test_another_policy_for_a_position_that_exists_is_refused(hub: InMemoryHub) -> None:
    async with running_bus(hub) as bus:
        await (await bus.subscribe(PATTERN, ignore, durable="d")).unsubscribe()
        with pytest.raises(SubscriptionError, match=r"'each'.*'none'"):
            await bus.subscribe(PATTERN, ignore, durable="d", ack=AckPolicy.NONE)
        await bus.subscribe(PATTERN, ignore, durable="d", ack=AckPolicy.EACH)


# Nothing is acknowledged.


class Careless:
    """A subscriber to whom nothing comes twice: what it got, and which of it it fails on."""

    def __init__(self, *fails: float, seconds: float = 0.0) -> None:
        self.got: list[tuple[float, int, DeliveryClass | None]] = []
        self.handled: list[float] = []
        self._fails = fails
        self._seconds = seconds

    async def handle(self, event: TelemetryEvent, context: MessageContext) -> None:
        self.got.append((number_of(event), context.attempt, context.delivery))
        await asyncio.sleep(self._seconds)
        if number_of(event) in self._fails:
            raise ConnectionError("once is all there is")
        self.handled.append(number_of(event))


async def filled(bus: PolarisMessageBus, count: int, careless: Careless, **options: Any) -> Subscription:
    for number in range(1, count + 1):
        await bus.publish(TOPIC, telemetry(number))
    return await bus.subscribe(PATTERN, careless.handle, durable="d", ack=AckPolicy.NONE, **options)


async def test_what_fails_is_lost_counted_and_told_and_nothing_comes_twice(hub: InMemoryHub) -> None:
    careless = Careless(2, 4)
    async with running_bus(hub) as bus:
        with capture_logs() as logs:
            subscription = await filled(bus, 5, careless, ack_wait_s=1.0)
            await eventually(lambda: len(careless.got) == 5)
            await asyncio.sleep(60)
        assert await bus.dead_letters.list() == []
        info = await subscription.info()
        assert info is not None
        assert (info.pending, info.ack_pending, info.redelivered) == (0, 0, 0)
    assert careless.got == [(number, 1, DeliveryClass.AT_MOST_ONCE) for number in range(1, 6)]
    assert careless.handled == [1, 3, 5]
    stats = subscription.stats
    assert (stats.received, stats.handled, stats.failed, stats.lost) == (5, 3, 2, 2)
    assert (stats.retried, stats.dead_lettered, stats.unsettled, stats.redelivered) == (0, 0, 0, 0)
    (line,) = [record for record in logs if record["message"] == "a message was delivered once and not handled"]
    assert line["fields"]["sequence"] == 2


async def test_of_a_batch_all_is_lost_when_the_handler_fails(hub: InMemoryHub) -> None:
    calls: list[int] = []

    async def handle(events: list[TelemetryEvent]) -> None:
        calls.append(len(events))
        if len(calls) == 1:
            raise ConnectionError("once is all there is")

    async with running_bus(hub, redelivery=RedeliveryPolicy(max_deliveries=1)) as bus:
        for number in range(5):
            await bus.publish(TOPIC, telemetry(number))
        subscription = await bus.subscribe(PATTERN, handle, durable="d", ack=AckPolicy.NONE, batch_max=3)
        await eventually(lambda: subscription.stats.handled == 2)
        assert await bus.dead_letters.list() == []
    assert (calls, subscription.stats.lost, subscription.stats.failed) == ([3, 2], 3, 3)


async def test_what_cannot_be_decoded_is_put_aside_all_the_same(hub: InMemoryHub) -> None:
    collector = MetricsCollector()
    async with running_bus(hub, collector=collector) as bus:
        await publish_raw(bus, TOPIC, b"no event")
        careless = Careless()
        subscription = await filled(bus, 1, careless)
        await eventually(lambda: careless.handled == [1.0])
        (letter,) = await bus.dead_letters.list()
    assert (letter.entry.payload, letter.entry.sequence, letter.entry.stream) == (b"no event", 1, "POLARIS_TELEMETRY")
    assert (subscription.stats.dead_lettered, subscription.stats.lost, subscription.in_flight) == (1, 0, 0)
    labels = {"topic": PATTERN, "reason": "undecodable"}
    assert collector.registry.get_sample_value("polaris_dead_letters_total", labels) == 1


async def test_it_begins_where_it_is_told_to_and_goes_on_where_it_was(hub: InMemoryHub) -> None:
    careless = Careless()
    async with running_bus(hub) as bus:
        subscription = await filled(bus, 9, careless, start=Start.at_sequence(4))
        await eventually(lambda: careless.handled == [4, 5, 6, 7, 8, 9])
        await subscription.unsubscribe()
        await bus.publish(TOPIC, telemetry(10))
        await bus.subscribe(PATTERN, careless.handle, durable="d", ack=AckPolicy.NONE)
        await eventually(lambda: careless.handled[-1] == 10)
    assert len(careless.handled) == 7


async def test_no_more_is_taken_than_there_is_room_for(hub: InMemoryHub) -> None:
    careless = Careless(seconds=1.0)
    async with running_bus(hub) as bus:
        subscription = await filled(bus, 100, careless, in_flight_max=8)
        most = 0
        while len(careless.handled) < 50:
            await asyncio.sleep(0.25)
            most = max(most, subscription.in_flight)
        assert most == 8
        info = await subscription.info()
        assert info is not None
        assert 100 - info.pending - len(careless.handled) <= 8


@pytest.mark.parametrize("end", ["unsubscribe", "drain"])
async def test_what_was_taken_is_handled_before_the_end(hub: InMemoryHub, end: str) -> None:
    careless = Careless(seconds=0.5)
    async with running_bus(hub) as bus:
        subscription = await filled(bus, 20, careless, in_flight_max=8)
        await eventually(lambda: len(careless.handled) == 3)
        await getattr(subscription, end)()
        info = hub.streams["POLARIS_TELEMETRY"].positions["d"].info()
        assert 20 - info.pending == len(careless.handled) < 20
    assert subscription.stats.lost == 0


async def test_what_a_handler_cannot_finish_in_the_grace_period_is_lost_and_counted(hub: InMemoryHub) -> None:
    careless = Careless(seconds=100.0)
    async with running_bus(hub, grace_s=1.0) as bus:
        subscription = await filled(bus, 3, careless, in_flight_max=3)
        await eventually(lambda: subscription.in_flight == 3)
        await subscription.unsubscribe()
    assert (subscription.stats.lost, subscription.in_flight, careless.handled) == (3, 0, [])


async def test_a_fetch_is_not_broken_off_when_what_it_brings_would_be_lost(
    hub: InMemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = MemoryConsumer.fetch
    taken = 0

    async def slow(self: MemoryConsumer, count_max: int, *, wait_s: float) -> Any:
        nonlocal taken
        found = await fetch(self, count_max, wait_s=wait_s)
        taken += len(found)
        await asyncio.sleep(0.3)  # the way from the broker
        return found

    monkeypatch.setattr(MemoryConsumer, "fetch", slow)
    careless = Careless()
    async with running_bus(hub) as bus:
        subscription = await filled(bus, 5, careless)
        await eventually(lambda: taken > 0)
        assert careless.handled == []
        await subscription.unsubscribe()
    assert (taken, len(careless.handled), subscription.stats.lost) == (5, 5, 0)


async def test_members_of_a_group_may_share_what_is_not_acknowledged(hub: InMemoryHub) -> None:
    first, second = Careless(), Careless()
    async with running_bus(hub) as bus:
        for careless in (first, second):
            await bus.subscribe(PATTERN, careless.handle, group="g", ack=AckPolicy.NONE, in_flight_max=1)
        for number in range(20):
            await bus.publish(TOPIC, telemetry(number))
        await eventually(lambda: len(first.handled) + len(second.handled) == 20)
    assert sorted(first.handled + second.handled) == list(range(20))


async def test_members_of_a_group_know_what_the_others_have_handled(hub: InMemoryHub) -> None:
    first, second = Careless(seconds=5.0), Careless(seconds=5.0)
    payload = EventCodec().encode(telemetry(1))
    async with running_bus(hub, [DeduplicationMiddleware()]) as bus:
        for careless in (first, second):
            await bus.subscribe(PATTERN, careless.handle, group="g", ack=AckPolicy.NONE, in_flight_max=1)
        for _ in range(2):
            await publish_raw(bus, TOPIC, payload)
        await asyncio.sleep(20)
        (position,) = hub.streams["POLARIS_TELEMETRY"].positions.values()
        assert position.info().pending == 0
    assert len(first.got) + len(second.got) == 1


async def test_other_subscriptions_are_as_they_were(hub: InMemoryHub) -> None:
    async with running_bus(hub, ack_policies=LOOSE) as bus:
        seen: list[str] = []

        async def listen(event: HealthEvent) -> None:
            seen.append(event.message)

        await bus.subscribe("polaris.health.*", listen)
        await bus.publish("polaris.health.store", health("well"))
        await eventually(lambda: seen == ["well"])
