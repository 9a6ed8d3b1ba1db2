"""One acknowledgement for everything up to a message: few of them, in order, and never past what is not done with."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.unit.messaging.doubles import eventually, number_of, publish_raw, running_bus, telemetry

from polaris.domain import TelemetryEvent
from polaris.exceptions import BusConnectionError, SubscriptionError
from polaris.messaging import (
    STANDARD_STREAMS,
    AckPolicy,
    ConsumerInfo,
    ConsumerSpec,
    InMemoryHub,
    InMemoryMessageBroker,
    MessageContext,
    PolarisMessageBus,
    RedeliveryPolicy,
    Subscription,
)
from polaris.messaging._invocation import Invoker
from polaris.messaging._settlement import SETTLED_TOGETHER_MAX
from polaris.messaging.brokers._memory_deliveries import MemoryConsumer, StreamDelivery
from polaris.messaging.brokers._memory_streams import ConsumerPosition
from polaris.observability import capture_logs
from polaris.resilience import CircuitBreaker, CircuitBreakerConfig
from polaris.testing import Fault, FaultPlan, FaultyBroker, running_clock

TOPIC = "polaris.telemetry.web"
STREAM = "POLARIS_TELEMETRY"
QUICK = RedeliveryPolicy(max_deliveries=3, base_delay_s=1.0, max_delay_s=1.0, jitter=1.0)


class Settlements:
    """What was sent to the broker, as pairs of the settlement and the sequence."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int | None]] = []

    def of(self, kind: str) -> list[int | None]:
        return [sequence for name, sequence in self.sent if name == kind]


@pytest.fixture
def settlements(monkeypatch: pytest.MonkeyPatch) -> Settlements:
    seen = Settlements()
    for name in ("ack", "nak", "term"):

        def recording(name: str = name) -> Any:
            original = getattr(StreamDelivery, name)

            async def settle(self: StreamDelivery, **options: Any) -> None:
                seen.sent.append((name, self.sequence))
                await original(self, **options)

            return settle

        monkeypatch.setattr(StreamDelivery, name, recording())
    return seen


@pytest.fixture
async def hub() -> InMemoryHub:
    return InMemoryHub(clock=running_clock())


def info_of(hub: InMemoryHub, durable: str = "d") -> ConsumerInfo:
    return hub.streams[STREAM].positions[durable].info()


async def publish(bus: PolarisMessageBus, *numbers: float) -> None:
    for number in numbers:
        await bus.publish(TOPIC, telemetry(number))


@asynccontextmanager
async def somebody_else(hub: InMemoryHub, count: int, **spec: Any) -> Any:
    """Another client that has taken so many messages of the position and does nothing with them."""
    broker = InMemoryMessageBroker(hub)
    await broker.connect()
    consumer = await broker.consumer(
        ConsumerSpec(stream=STREAM, durable="d", pattern="polaris.telemetry.*", ack=AckPolicy.ALL, **spec)
    )
    held = await consumer.fetch(count, wait_s=1.0)
    assert len(held) == count
    yield held
    await broker.disconnect()


class Switch:
    """Lets a server lose what it had, so that those who fetch attach to what is made in its place."""

    def __init__(self, hub: InMemoryHub) -> None:
        self._hub = hub
        self.lost: set[ConsumerPosition] = set()

    def position(self) -> None:
        """The position is deleted, and who had it finds one with the same name."""
        stream = self._hub.streams[STREAM]
        self.lost.add(stream.positions.pop("d"))
        stream.waiters.wake()

    async def stream(self, bus: PolarisMessageBus) -> None:
        """The store is empty: stream and position are made again."""
        old = self._hub.streams.pop(STREAM)
        self.lost |= set(old.positions.values())
        self._hub._routes.clear()
        for spec in STANDARD_STREAMS:
            await bus.broker.ensure_stream(spec)
        old.waiters.wake()


@asynccontextmanager
async def anew(hub: InMemoryHub) -> Any:
    """A bus, and a switch on the server that it uses; its fetches fail when their position is lost."""
    switch = Switch(hub)
    take = ConsumerPosition.take
    settle = ConsumerPosition.settle

    def taking(self: ConsumerPosition, count_max: int) -> Any:
        if self in switch.lost:
            raise SubscriptionError("the consumer is gone")
        return take(self, count_max)

    def settling(self: ConsumerPosition, sequence: int, number: int | None = None) -> None:
        """As on a server: who settles names the position, and is not told that it is another one now."""
        now = hub.streams[STREAM].positions.get(self.spec.durable, self)
        settle(now if self in switch.lost else self, sequence, number)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ConsumerPosition, "take", taking)
        patched.setattr(ConsumerPosition, "settle", settling)
        async with running_bus(hub) as bus:
            yield bus, switch


async def test_one_acknowledgement_is_sent_for_many_messages(hub: InMemoryHub, settlements: Settlements) -> None:
    seen: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    async with running_bus(hub) as bus:
        await publish(bus, *range(300))
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL)
        await eventually(lambda: len(seen) == 300 and subscription.in_flight == 0)
        assert (info_of(hub).ack_pending, info_of(hub).ack_floor) == (0, 300)
    assert seen == [float(number) for number in range(300)]
    acknowledged = settlements.of("ack")
    assert acknowledged[-1] == 300
    assert len(acknowledged) <= 300 / SETTLED_TOGETHER_MAX + 4
    assert len(settlements.sent) == len(acknowledged)
    stats = subscription.stats
    assert (stats.received, stats.handled, stats.redelivered, stats.retried, stats.unsettled) == (300, 300, 0, 0, 0)


async def test_what_fails_is_tried_again_in_its_place_and_nothing_is_settled_past_it(
    hub: InMemoryHub, settlements: Settlements
) -> None:
    calls: list[tuple[float, int]] = []

    async def handle(event: TelemetryEvent, context: MessageContext) -> None:
        calls.append((number_of(event), context.attempt))
        assert info_of(hub).ack_floor < number_of(event)
        if number_of(event) == 3 and context.attempt < 3:
            raise ConnectionError("not yet")

    async with running_bus(hub, redelivery=QUICK) as bus:
        await publish(bus, 1, 2, 3, 4, 5)
        subscription = await bus.subscribe(
            "polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL, ack_wait_s=0.6
        )
        await eventually(lambda: subscription.in_flight == 0 and subscription.stats.handled == 5)
        assert info_of(hub).ack_floor == 5
        assert await bus.dead_letters.list() == []
    assert calls == [(1, 1), (2, 1), (3, 1), (3, 2), (3, 3), (4, 1), (5, 1)]
    stats = subscription.stats
    assert (stats.failed, stats.retried, stats.received, stats.redelivered) == (2, 2, 5, 0)
    assert settlements.of("nak") == []


async def test_what_has_failed_often_enough_is_put_aside_before_what_comes_after_it(
    hub: InMemoryHub, settlements: Settlements
) -> None:
    calls: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        calls.append(number_of(event))
        if number_of(event) == 2:
            raise ConnectionError("never")

    async with running_bus(hub, redelivery=QUICK) as bus:
        await publish(bus, 1, 2)
        await publish_raw(bus, TOPIC, b"no event")
        await publish(bus, 4)
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL)
        await eventually(lambda: calls[-1:] == [4.0] and subscription.in_flight == 0)
        letters = [record.entry for record in await bus.dead_letters.list()]
        assert [(letter.sequence, letter.attempts) for letter in letters] == [(2, 3), (3, 1)]
        assert info_of(hub).ack_floor == 4
    assert calls == [1, 2, 2, 2, 4]
    assert subscription.stats.dead_lettered == 2
    assert settlements.of("term") == []


async def test_a_dead_letter_that_cannot_be_stored_holds_everything_up_until_it_can(
    hub: InMemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    async with running_bus(hub, redelivery=QUICK) as bus:
        await publish_raw(bus, TOPIC, b"no event")
        await publish(bus, 2)
        dead_letters = hub.streams.pop("POLARIS_DEAD_LETTER")
        hub._routes.clear()
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL)
        await asyncio.sleep(30)
        assert (seen, info_of(hub).ack_floor, subscription.stats.dead_lettered) == ([], 0, 0)
        hub.streams["POLARIS_DEAD_LETTER"] = dead_letters
        hub._routes.clear()
        await eventually(lambda: seen == [2.0] and subscription.in_flight == 0)
        assert info_of(hub).ack_floor == 2
        assert subscription.stats.dead_lettered == 1


async def test_a_batch_is_repeated_in_place_and_acknowledged_once(hub: InMemoryHub, settlements: Settlements) -> None:
    calls: list[tuple[list[float], int]] = []

    async def handle(events: list[TelemetryEvent], context: MessageContext) -> None:
        calls.append(([number_of(event) for event in events], context.attempt))
        if len(calls) == 2:
            raise ConnectionError("not yet")

    async with running_bus(hub, redelivery=QUICK) as bus:
        await publish(bus, *range(1, 8))
        subscription = await bus.subscribe(
            "polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL, batch_max=3, ack_wait_s=60.0
        )
        await eventually(lambda: subscription.stats.handled == 7 and subscription.in_flight == 0)
    assert calls == [([1, 2, 3], 1), ([4, 5, 6], 1), ([4, 5, 6], 2), ([7], 1)]
    assert settlements.sent == [("ack", 3), ("ack", 6), ("ack", 7)]
    assert (subscription.stats.failed, subscription.stats.retried, subscription.stats.redelivered) == (3, 3, 0)


async def test_of_a_batch_that_fails_for_good_only_the_bad_message_is_put_aside(hub: InMemoryHub) -> None:
    handled: list[float] = []

    async def handle(events: list[TelemetryEvent]) -> None:
        numbers = [number_of(event) for event in events]
        if 2.0 in numbers:
            raise ConnectionError("never")
        handled.extend(numbers)

    async with running_bus(hub, redelivery=QUICK) as bus:
        await publish(bus, 1, 2, 3, 4)
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL, batch_max=3)
        await eventually(lambda: 4.0 in handled and subscription.in_flight == 0)
        (letter,) = await bus.dead_letters.list()
        assert (letter.entry.sequence, letter.entry.attempts) == (2, 3)
        assert info_of(hub).ack_floor == 4
    assert handled == [1, 3, 4]


@pytest.mark.parametrize("batches", [False, True])
async def test_a_subscription_that_ends_acknowledges_what_is_done_and_hands_back_the_rest(
    hub: InMemoryHub, settlements: Settlements, batches: bool
) -> None:
    seen: list[float] = []

    async def one(event: TelemetryEvent) -> None:
        await asyncio.sleep(1)
        seen.append(number_of(event))

    async def many(events: list[TelemetryEvent]) -> None:
        for event in events:
            await one(event)

    handler = many if batches else one
    async with running_bus(hub) as bus:
        await publish(bus, *range(1, 11))
        for until in (3, 10):
            subscription = await bus.subscribe(
                "polaris.telemetry.*", handler, durable="d", ack=AckPolicy.ALL, batch_max=2
            )
            await eventually(lambda until=until: len(seen) >= until)  # type: ignore[misc]
            await asyncio.sleep(0.5)
            await subscription.unsubscribe()
            assert (subscription.in_flight, info_of(hub).ack_floor) == (0, len(seen))
    assert seen == [float(number) for number in range(1, 11)]
    assert settlements.of("nak") == list(range(5, 11))


async def test_draining_while_something_waits_to_be_tried_again_hands_it_back_with_all_behind_it(
    hub: InMemoryHub,
) -> None:
    seen: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        if number_of(event) == 2 and not failed:
            failed.append(True)
            raise ConnectionError("not yet")
        seen.append(number_of(event))

    failed: list[bool] = []
    patient = RedeliveryPolicy(base_delay_s=50.0, max_delay_s=50.0, jitter=1.0)
    async with running_bus(hub, redelivery=patient) as bus:
        await publish(bus, 1, 2, 3)
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL)
        await eventually(lambda: bool(failed))
        async with asyncio.timeout(1):
            await subscription.drain()
        assert seen == [1.0]
        assert (info_of(hub).ack_floor, info_of(hub).ack_pending) == (1, 2)
        await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL)
        await eventually(lambda: seen == [1.0, 2.0, 3.0], timeout_s=5.0)


async def test_what_a_former_client_died_with_is_not_covered_by_what_came_after_it(
    hub: InMemoryHub, settlements: Settlements
) -> None:
    seen: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    async with running_bus(hub) as bus:
        await publish(bus, *range(1, 6))
        async with somebody_else(hub, 3, ack_wait_s=30.0):
            pass
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL)
        await asyncio.sleep(20)
        assert seen == [4.0, 5.0]
        assert (settlements.sent, info_of(hub).ack_floor, subscription.in_flight) == ([], 0, 2)
        await eventually(lambda: subscription.in_flight == 0, timeout_s=15.0)
        assert info_of(hub).ack_floor == 5
        await publish(bus, 6)
        await eventually(lambda: info_of(hub).ack_floor == 6, timeout_s=1.0)
    assert seen == [4.0, 5.0, 1.0, 2.0, 3.0, 6.0]


async def test_a_delivery_that_was_lost_on_its_way_is_waited_for(hub: InMemoryHub) -> None:
    seen: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    clock = hub.clock
    broker = FaultyBroker(InMemoryMessageBroker(hub), FaultPlan(at={Fault.LOSS: {3}}), clock=clock)
    async with PolarisMessageBus(broker, clock=clock) as bus:
        subscription = await bus.subscribe(
            "polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL, ack_wait_s=10.0
        )
        for number in range(1, 6):
            await publish(bus, number)
            await asyncio.sleep(1)
        assert (seen, info_of(hub).ack_floor) == ([1.0, 2.0, 4.0, 5.0], 2)
        await eventually(lambda: subscription.in_flight == 0, timeout_s=15.0)
        assert (seen[-1], info_of(hub).ack_floor) == (3.0, 5)
    assert subscription.stats.handled == 5


async def test_no_more_is_asked_for_than_the_broker_will_give_while_others_have_the_rest(
    hub: InMemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    fetch = MemoryConsumer.fetch

    async def recording(self: MemoryConsumer, count_max: int, *, wait_s: float) -> Any:
        if self._position.spec.durable == "d":
            asked.append(count_max)
        return await fetch(self, count_max, wait_s=wait_s)

    async def handle(event: TelemetryEvent) -> None:
        pass

    async with running_bus(hub) as bus:
        await publish(bus, *range(20))
        async with somebody_else(hub, 3, ack_wait_s=30.0):
            pass
        monkeypatch.setattr(MemoryConsumer, "fetch", recording)
        subscription = await bus.subscribe(
            "polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL, in_flight_max=8
        )
        await eventually(lambda: subscription.stats.handled == 5)
        await asyncio.sleep(20)
        assert (asked[0], set(asked[1:])) == (5, {1})
        await eventually(lambda: subscription.stats.handled == 20 and subscription.in_flight == 0)


async def test_acknowledgements_come_often_enough_for_a_small_bound(hub: InMemoryHub, settlements: Settlements) -> None:
    async def handle(event: TelemetryEvent) -> None:
        await asyncio.sleep(0.01)

    async with running_bus(hub) as bus:
        await publish(bus, *range(40))
        subscription = await bus.subscribe(
            "polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL, in_flight_max=8
        )
        await eventually(lambda: subscription.stats.handled == 40 and subscription.in_flight == 0)
    assert settlements.of("ack") == list(range(2, 41, 2))


async def test_what_a_defect_hands_back_is_not_covered_by_what_comes_after_it(
    hub: InMemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    decode, defects = Invoker.decode, 0

    def defective(self: Invoker, delivery: Any) -> Any:
        nonlocal defects
        if delivery.sequence == 3 and not defects:
            defects += 1
            raise RuntimeError("a defect")
        return decode(self, delivery)

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    monkeypatch.setattr(Invoker, "decode", defective)
    slow = RedeliveryPolicy(base_delay_s=20.0, max_delay_s=20.0, jitter=1.0)
    async with running_bus(hub, redelivery=slow) as bus:
        await publish(bus, 1, 2, 3, 4, 5)
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL)
        await asyncio.sleep(15)
        assert seen == [1.0, 2.0, 4.0, 5.0]
        assert (info_of(hub).ack_floor, subscription.in_flight) == (2, 2)
        await eventually(lambda: info_of(hub).ack_floor == 5, timeout_s=10.0)
    assert seen == [1.0, 2.0, 4.0, 5.0, 3.0]
    assert defects == 1


async def test_what_is_done_and_cannot_be_acknowledged_is_handed_back_at_the_end(hub: InMemoryHub) -> None:
    async def handle(event: TelemetryEvent) -> None:
        pass

    async with running_bus(hub) as bus:
        await publish(bus, 1, 2, 3)
        async with somebody_else(hub, 1, ack_wait_s=30.0):
            pass
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL)
        await eventually(lambda: subscription.stats.handled == 2)
        await subscription.unsubscribe()
        assert (subscription.in_flight, subscription.stats.unsettled) == (0, 2)
        assert info_of(hub).ack_floor == 0
        again = await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL)
        await eventually(lambda: again.stats.redelivered == 2, timeout_s=1.0)


async def test_the_events_of_one_message_stay_in_order_through_a_failure(hub: InMemoryHub) -> None:
    calls: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        calls.append(number_of(event))
        if calls == [1.0, 2.0]:
            raise ConnectionError("not yet")

    async with running_bus(hub, redelivery=QUICK) as bus:
        await bus.publish_many([telemetry(number) for number in (1, 2, 3)])
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL)
        await eventually(lambda: subscription.stats.handled == 3 and subscription.in_flight == 0)
    assert calls == [1, 2, 2, 3]


async def test_what_arrives_out_of_order_is_handled_in_the_order_of_the_stream(hub: InMemoryHub) -> None:
    seen: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    broker = FaultyBroker(InMemoryMessageBroker(hub), FaultPlan(reorder=1.0), clock=hub.clock)
    async with PolarisMessageBus(broker, clock=hub.clock) as bus:
        await publish(bus, *range(20))
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL)
        await eventually(lambda: len(seen) == 20 and subscription.in_flight == 0)
        assert info_of(hub).ack_floor == 20
        await subscription.drain()
    assert broker.counts[Fault.REORDER] > 0
    assert seen == [float(number) for number in range(20)]


async def test_a_message_that_comes_again_while_it_is_here_is_handled_once(
    hub: InMemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        await asyncio.sleep(3)
        seen.append(number_of(event))

    async def unheard(self: StreamDelivery) -> None:
        """A heartbeat that gets lost."""

    monkeypatch.setattr(StreamDelivery, "in_progress", unheard)
    async with running_bus(hub) as bus:
        await publish(bus, 1, 2, 3, 4)
        subscription = await bus.subscribe(
            "polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL, ack_wait_s=2.0
        )
        await eventually(lambda: subscription.stats.handled == 4 and subscription.in_flight == 0)
        assert info_of(hub).ack_floor == 4
    assert seen == [1, 2, 3, 4]
    assert subscription.stats.redelivered > 0


async def test_what_is_done_and_not_settled_yet_is_kept_alive(hub: InMemoryHub) -> None:
    async def handle(event: TelemetryEvent) -> None:
        pass

    async with running_bus(hub) as bus:
        await publish(bus, *range(12))
        async with somebody_else(hub, 1, ack_wait_s=6.0) as held:
            subscription = await bus.subscribe(
                "polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL, ack_wait_s=6.0
            )
            for _ in range(30):
                await asyncio.sleep(2)
                await held[0].in_progress()
            assert (subscription.in_flight, subscription.stats.redelivered) == (11, 0)
        await eventually(lambda: info_of(hub).ack_floor == 12)
        assert (subscription.stats.handled, subscription.stats.redelivered) == (12, 1)


async def test_an_acknowledgement_that_cannot_be_sent_is_sent_later(hub: InMemoryHub) -> None:
    seen: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        if number_of(event) == 2:
            broker.cut()
        seen.append(number_of(event))

    broker = FaultyBroker(InMemoryMessageBroker(hub), clock=hub.clock)
    async with PolarisMessageBus(broker, clock=hub.clock) as bus:
        await publish(bus, 1, 2)
        subscription = await bus.subscribe(
            "polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL, ack_wait_s=30.0
        )
        await eventually(lambda: seen == [1.0, 2.0])
        await asyncio.sleep(3)
        assert (info_of(hub).ack_floor, subscription.in_flight) == (0, 2)
        broker.mend()
        await eventually(lambda: info_of(hub).ack_floor == 2, timeout_s=10.0)
        assert (subscription.in_flight, subscription.stats.unsettled) == (0, 0)


async def test_no_more_is_taken_than_may_be_in_flight_though_it_is_done(hub: InMemoryHub) -> None:
    taken_max = 0

    async def handle(event: TelemetryEvent) -> None:
        nonlocal taken_max
        await asyncio.sleep(0.1)
        taken_max = max(taken_max, subscription.in_flight, info_of(hub).ack_pending)

    async with running_bus(hub) as bus:
        await publish(bus, *range(100))
        async with somebody_else(hub, 8, ack_wait_s=20.0):
            pass
        subscription = await bus.subscribe(
            "polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL, in_flight_max=10, ack_wait_s=20.0
        )
        await eventually(lambda: subscription.stats.handled == 100 and subscription.in_flight == 0)
        assert info_of(hub).ack_floor == 100
    assert taken_max == 10


async def test_one_who_shares_his_position_is_told_why_nothing_is_settled(hub: InMemoryHub) -> None:
    async def handle(event: TelemetryEvent) -> None:
        pass

    async with running_bus(hub) as bus:
        await publish(bus, 1, 2)
        with capture_logs() as logs:
            async with somebody_else(hub, 1, ack_wait_s=6.0) as held:
                subscription = await bus.subscribe(
                    "polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL, ack_wait_s=6.0
                )
                for _ in range(10):
                    await asyncio.sleep(2)
                    await held[0].in_progress()
                assert (info_of(hub).ack_floor, subscription.in_flight) == (0, 1)
        assert sum("others hold messages" in record["message"] for record in logs) == 1
        await eventually(lambda: info_of(hub).ack_floor == 2)


async def test_a_second_subscription_to_the_same_position_is_refused(hub: InMemoryHub) -> None:
    async def handle(event: TelemetryEvent) -> None:
        pass

    async with running_bus(hub) as bus:
        first = await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL)
        with pytest.raises(SubscriptionError, match="alone"):
            await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL)
        await first.unsubscribe()
        await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL)


async def test_of_two_who_want_one_position_at_the_same_time_one_is_refused(hub: InMemoryHub) -> None:
    async def handle(event: TelemetryEvent) -> None:
        pass

    async with running_bus(hub) as bus:
        outcomes = await asyncio.gather(
            *(bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL) for _ in range(3)),
            return_exceptions=True,
        )
        refused = [outcome for outcome in outcomes if isinstance(outcome, SubscriptionError)]
        assert len(refused) == 2
        assert len(bus.subscriptions) == 1


async def test_who_could_not_take_a_position_does_not_keep_it(
    hub: InMemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handle(event: TelemetryEvent) -> None:
        pass

    async def refuse(self: InMemoryMessageBroker, spec: ConsumerSpec) -> Any:
        raise SubscriptionError("not now")

    async with running_bus(hub) as bus:
        with monkeypatch.context() as patched:
            patched.setattr(InMemoryMessageBroker, "consumer", refuse)
            with pytest.raises(SubscriptionError, match="not now"):
                await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL)
        await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL)


async def test_one_that_ends_with_its_first_message_has_settled_it(hub: InMemoryHub) -> None:
    seen: list[float] = []
    subscriptions: list[Subscription] = []

    async def handle(event: TelemetryEvent) -> None:
        await ready.wait()
        seen.append(number_of(event))
        await subscriptions[-1].unsubscribe()

    async with running_bus(hub) as bus:
        await publish(bus, *range(1, 6))
        for count in (1, 2, 3):
            ready = asyncio.Event()
            subscriptions.append(await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL))
            ready.set()
            await eventually(lambda: len(seen) == count, timeout_s=1.0)  # noqa: B023
            await subscriptions[-1].unsubscribe()
            assert info_of(hub).ack_floor == count
    assert seen == [1.0, 2.0, 3.0]
    assert [one.stats.unsettled for one in subscriptions] == [0, 0, 0]


async def test_one_that_cannot_ask_at_its_end_hands_back_what_it_has_done(
    hub: InMemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handle(event: TelemetryEvent) -> None:
        await ready.wait()
        await subscription.unsubscribe()

    async def away(self: MemoryConsumer) -> ConsumerInfo:
        raise BusConnectionError("away")

    ready = asyncio.Event()
    async with running_bus(hub) as bus:
        await publish(bus, 1)
        monkeypatch.setattr(MemoryConsumer, "info", away)
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL)
        await eventually(lambda: subscription.in_flight == 1)
        ready.set()
        await eventually(lambda: subscription.stats.unsettled == 1)
        assert (info_of(hub).ack_floor, subscription.in_flight) == (0, 0)


async def test_what_came_late_is_settled_without_making_what_waits_behind_it_come_again(hub: InMemoryHub) -> None:
    seen: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        await asyncio.sleep(12 if number_of(event) == 1 else 8)
        seen.append(number_of(event))

    broker = FaultyBroker(InMemoryMessageBroker(hub), FaultPlan(at={Fault.LOSS: {2}}), clock=hub.clock)
    async with PolarisMessageBus(broker, clock=hub.clock) as bus:
        subscription = await bus.subscribe(
            "polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL, ack_wait_s=10.0
        )
        for number in range(1, 6):
            await publish(bus, number)
            await asyncio.sleep(0.1)
        await eventually(lambda: subscription.in_flight == 0, timeout_s=100.0)
        assert info_of(hub).ack_floor == 5
        await asyncio.sleep(60)
    assert seen == [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize("held_up", [True, False], ids=["in hand", "done with"])
async def test_new_messages_under_the_numbers_of_old_ones_are_handled(
    hub: InMemoryHub, settlements: Settlements, held_up: bool
) -> None:
    seen: list[float] = []
    gate = asyncio.Event()

    async def handle(event: TelemetryEvent) -> None:
        if held_up or number_of(event) == 5:
            await gate.wait()
        seen.append(number_of(event))

    async with anew(hub) as (bus, switch):
        await publish(bus, *range(1, 6))
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL)
        await eventually(lambda: subscription.in_flight == 5 and len(seen) == (0 if held_up else 4))
        await switch.stream(bus)
        await publish(bus, *range(101, 106))
        await eventually(lambda: subscription.stats.received == 10)
        assert settlements.sent == []
        gate.set()
        await eventually(lambda: subscription.in_flight == 0)
        assert info_of(hub).ack_floor == 5
        await asyncio.sleep(100)
    assert sorted(seen) == [1, 2, 3, 4, 5, 101, 102, 103, 104, 105]
    assert subscription.stats.redelivered == 0
    # What was done with has left with the stream; of what was in hand the settlements could not be sent.
    assert subscription.stats.unsettled == (5 if held_up else 1)


async def test_a_position_that_is_made_anew_goes_on_being_settled(hub: InMemoryHub) -> None:
    seen: list[float] = []
    gate = asyncio.Event()
    gate.set()

    async def handle(event: TelemetryEvent) -> None:
        await gate.wait()
        seen.append(number_of(event))

    async with anew(hub) as (bus, switch):
        await publish(bus, *range(1, 51))
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL)
        await eventually(lambda: len(seen) == 50 and subscription.in_flight == 0)
        gate.clear()
        await publish(bus, *range(51, 56))
        await eventually(lambda: subscription.in_flight == 5)
        for sequence in range(1, 51):
            hub.streams[STREAM].erase(sequence)
        switch.position()
        await eventually(lambda: subscription.stats.received == 60, timeout_s=60.0)
        gate.set()
        await publish(bus, *range(56, 61))
        await eventually(lambda: len(seen) == 60 and subscription.in_flight == 0)
        assert (info_of(hub).ack_floor, info_of(hub).ack_pending) == (60, 0)
        await asyncio.sleep(100)
    assert seen == [float(number) for number in range(1, 61)]


async def test_a_pause_holds_what_waits_to_be_tried_again(hub: InMemoryHub) -> None:
    calls = 0

    async def handle(event: TelemetryEvent) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ConnectionError("not yet")

    async with running_bus(hub, redelivery=QUICK) as bus:
        await publish(bus, 1)
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL)
        await eventually(lambda: calls == 1)
        subscription.pause()
        await asyncio.sleep(100)
        assert (calls, subscription.in_flight) == (1, 1)
        subscription.resume()
        await eventually(lambda: calls == 2 and subscription.in_flight == 0)


async def test_while_what_the_handler_needs_is_down_everything_waits_in_order(hub: InMemoryHub) -> None:
    seen: list[float] = []
    calls = 0

    async def handle(event: TelemetryEvent) -> None:
        nonlocal calls
        calls += 1
        if calls <= 6:
            raise ConnectionError("the store is away")
        seen.append(number_of(event))

    breaker = CircuitBreaker("store", CircuitBreakerConfig(failure_threshold=2, timeout=5.0), clock=hub.clock)
    async with running_bus(hub, redelivery=QUICK) as bus:
        await publish(bus, 1, 2, 3)
        subscription = await bus.subscribe(
            "polaris.telemetry.*", handle, durable="d", ack=AckPolicy.ALL, breaker=breaker, ack_wait_s=6.0
        )
        await eventually(lambda: subscription.stats.handled == 3 and subscription.in_flight == 0)
        assert await bus.dead_letters.list() == []
        assert info_of(hub).ack_floor == 3
    assert seen == [1.0, 2.0, 3.0]
    assert subscription.stats.redelivered == 0
