"""What a consumer of another client was given too often and did not settle becomes a dead letter."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from tests.unit.messaging.doubles import eventually, new_bus, number_of, running_bus, telemetry

from polaris.domain import TelemetryEvent
from polaris.exceptions import BusConnectionError, PublishError, SubscriptionError
from polaris.messaging import (
    DEAD_LETTER_STREAM,
    STANDARD_STREAMS,
    ConsumerInfo,
    ConsumerSpec,
    DeadLetterReason,
    DeadLetterRecord,
    Delivery,
    DeliveryClass,
    InMemoryHub,
    InMemoryMessageBroker,
    LanedMessageBroker,
    MessageBroker,
    OutgoingMessage,
    PolarisMessageBus,
    Receipt,
    StreamSpec,
)
from polaris.messaging._broker import GIVEN_UP_PREFIX
from polaris.messaging._given_up import ABANDONED, ATTEMPTS_MAX, DURABLE, GONE, IN_FLIGHT_MAX, UNREADABLE
from polaris.messaging._streams import ADVISORY_STREAM
from polaris.messaging.brokers._memory_deliveries import MemoryConsumer
from polaris.observability import MetricsCollector, capture_logs
from polaris.testing import running_clock

TOPIC = "polaris.telemetry.web"
FOREIGN = ConsumerSpec(
    stream="POLARIS_TELEMETRY", durable="node-client", pattern="polaris.telemetry.>", deliveries_max=2
)
OVENS = StreamSpec(name="OVENS", subjects=("acme.ovens.>",))
STRANGERS = StreamSpec(name="STRANGERS", subjects=("acme.strangers.>",))


async def give_up(broker: MessageBroker, spec: ConsumerSpec = FOREIGN, *, count: int = 1) -> None:
    """As another client: take `count` messages as often as allowed, hand them back, and ask once more."""
    consumer = await broker.consumer(spec)
    for _ in range(spec.deliveries_max or 0):
        for delivery in await consumer.fetch(count, wait_s=1.0):
            await delivery.nak(delay_s=0.0)
    await consumer.fetch(1, wait_s=0.1)
    await consumer.close()


async def listed(bus: PolarisMessageBus, count: int) -> Sequence[DeadLetterRecord]:
    """All dead letters, once there are so many."""
    async with asyncio.timeout(3_600):
        while len(found := await bus.dead_letters.list()) < count:
            await asyncio.sleep(0.1)
    return found


async def test_it_is_listed_with_its_bytes_and_who_did_not_settle_it() -> None:
    async with running_bus() as bus:
        await bus.publish(TOPIC, telemetry(7), headers={"Origin": "x"})
        (stored,) = await bus.broker.read_stored("POLARIS_TELEMETRY")
        await give_up(bus.broker)
        (record,) = await listed(bus, 1)
    entry = record.entry
    assert (entry.reason, entry.subscription, entry.attempts) == (DeadLetterReason.GIVEN_UP, "node-client", 2)
    assert (entry.topic, entry.stream, entry.sequence) == (TOPIC, "POLARIS_TELEMETRY", 1)
    assert (entry.payload, entry.headers) == (stored.payload, stored.headers)
    assert entry.first_at == stored.stored_at


async def test_what_was_given_up_while_no_bus_ran_is_put_aside_at_the_next_start() -> None:
    hub = InMemoryHub(clock=running_clock())
    async with running_bus(hub) as bus:
        for n in range(3):
            await bus.publish_telemetry(telemetry(n))
    alone = InMemoryMessageBroker(hub)
    await alone.connect()
    await give_up(alone, count=3)
    await asyncio.sleep(3_600)
    async with running_bus(hub) as bus:
        records = await listed(bus, 3)
    await alone.disconnect()
    assert [record.entry.sequence for record in records] == [1, 2, 3]


async def test_each_is_put_aside_once_however_many_buses_run() -> None:
    hub = InMemoryHub(clock=running_clock())
    collectors = [MetricsCollector() for _ in range(3)]
    buses = [new_bus(hub, collector=collector) for collector in collectors]
    for bus in buses:
        await bus.start()
    for n in range(40):
        await buses[0].publish_telemetry(telemetry(n))
    await give_up(buses[0].broker, count=40)
    await asyncio.sleep(300)
    records = await buses[0].dead_letters.list()
    for bus in buses:
        await bus.stop()
    assert sorted(record.entry.sequence or 0 for record in records) == list(range(1, 41))
    counted = [collector.instruments.dead_letters("polaris.telemetry.*", "given_up").value for collector in collectors]
    assert sum(counted) == 40


class Killed(InMemoryMessageBroker):
    """Of a process that dies between storing a dead letter and acknowledging the advisory, as seen from outside."""

    dies = True

    async def publish(
        self,
        message: OutgoingMessage,
        *,
        delivery: DeliveryClass = DeliveryClass.AT_MOST_ONCE,
        timeout_s: float = 5.0,
    ) -> Receipt:
        receipt = await super().publish(message, delivery=delivery, timeout_s=timeout_s)
        if self.dies and message.subject.startswith("polaris.dead_letter."):
            await asyncio.Event().wait()
        return receipt


@pytest.mark.parametrize("away_s", [1.0, 600.0])
async def test_one_that_was_stored_and_not_acknowledged_is_not_stored_again(away_s: float) -> None:
    """Neither while the broker knows the id of the dead letter, nor when it has long forgotten it."""
    hub = InMemoryHub(clock=running_clock())
    killed = PolarisMessageBus(Killed(hub), clock=hub.clock)
    await killed.start()
    await killed.publish_telemetry(telemetry(1))
    await give_up(killed.broker)
    await listed(killed, 1)
    await killed.broker.disconnect()
    await asyncio.sleep(away_s)
    async with running_bus(hub) as bus:
        await asyncio.sleep(300)
        records = await bus.dead_letters.list()
        position = await bus.broker.consumer(
            ConsumerSpec(
                stream=ADVISORY_STREAM.name, durable=f"{DURABLE}-POLARIS_TELEMETRY", pattern=f"{GIVEN_UP_PREFIX}>"
            )
        )
        info = await position.info()
        await position.close()
    await killed.stop()
    assert [record.entry.sequence for record in records] == [1]
    assert (info.pending, info.ack_pending) == (0, 0)


async def test_an_advisory_that_is_sent_twice_makes_one_dead_letter() -> None:
    collector = MetricsCollector()
    async with running_bus(collector=collector) as bus:
        await bus.publish_telemetry(telemetry(1))
        await give_up(bus.broker)
        (advisory,) = await bus.broker.read_stored(ADVISORY_STREAM.name)
        await bus.broker.publish(OutgoingMessage(advisory.subject, advisory.payload))
        await asyncio.sleep(60)
        assert len(await bus.dead_letters.list()) == 1
    assert collector.instruments.dead_letters("polaris.telemetry.*", "given_up").value == 1


async def test_a_message_that_is_gone_is_logged_and_counted() -> None:
    hub, collector = InMemoryHub(clock=running_clock()), MetricsCollector()
    async with running_bus(hub) as bus:
        await bus.publish_telemetry(telemetry(1))
    alone = InMemoryMessageBroker(hub)
    await alone.connect()
    await give_up(alone)
    await alone.erase_stored("POLARIS_TELEMETRY", 1)
    await alone.disconnect()
    with capture_logs() as logs:
        async with running_bus(hub, collector=collector) as bus:
            await bus.publish_telemetry(telemetry(2))
            await asyncio.sleep(300)
            assert await bus.dead_letters.list() == []
    assert collector.instruments.messages_dropped("polaris.telemetry.*", DURABLE, GONE).value == 1
    (line,) = [line["fields"] for line in logs if "gone from its stream" in line["message"]]
    assert (line["stream"], line["sequence"], line["subscription"]) == ("POLARIS_TELEMETRY", 1, "node-client")


async def test_another_message_at_the_same_place_is_not_taken_for_it() -> None:
    """A server that comes back with an empty store numbers its messages anew."""
    hub = InMemoryHub(clock=running_clock())
    async with running_bus(hub) as bus:
        await bus.publish_telemetry(telemetry(1))
    alone = InMemoryMessageBroker(hub)
    await alone.connect()
    await give_up(alone)
    del hub.streams["POLARIS_TELEMETRY"]
    await alone.disconnect()
    await asyncio.sleep(1)
    async with running_bus(hub) as bus:
        (receipt,) = [await bus.publish_telemetry(telemetry(2))]
        assert receipt.sequence == 1
        await asyncio.sleep(300)
        assert await bus.dead_letters.list() == []


async def test_a_dead_letter_that_cannot_be_stored_is_tried_again() -> None:
    class Refusing(InMemoryMessageBroker):
        refusals = 4

        async def publish(
            self,
            message: OutgoingMessage,
            *,
            delivery: DeliveryClass = DeliveryClass.AT_MOST_ONCE,
            timeout_s: float = 5.0,
        ) -> Receipt:
            if self.refusals and message.subject.startswith("polaris.dead_letter."):
                self.refusals -= 1
                raise PublishError("no room")
            return await super().publish(message, delivery=delivery, timeout_s=timeout_s)

    broker = Refusing(clock=running_clock())
    async with PolarisMessageBus(broker, clock=running_clock()) as bus:
        await bus.publish_telemetry(telemetry(1))
        await give_up(broker)
        (record,) = await listed(bus, 1)
    assert (record.entry.sequence, broker.refusals) == (1, 0)


async def test_a_server_that_forbids_it_is_said_once_and_the_bus_works_without() -> None:
    class Forbidding(InMemoryMessageBroker):
        forbids, asked = True, 0

        async def ensure_stream(self, spec: StreamSpec) -> None:
            if spec.name == ADVISORY_STREAM.name:
                self.asked += 1
                if self.forbids:
                    raise BusConnectionError("no answer: the server forbids it")
            await super().ensure_stream(spec)

    broker = Forbidding(clock=running_clock())
    with capture_logs() as logs:
        async with PolarisMessageBus(broker, clock=running_clock()) as bus:
            await asyncio.sleep(21_600)
            asked, broker.forbids = broker.asked, False
            await asyncio.sleep(600)
            await bus.publish_telemetry(telemetry(1))
            await give_up(broker)
            assert len(await listed(bus, 1)) == 1
    assert len([line for line in logs if "cannot become a dead letter" in line["message"]]) == 1
    assert 21_600 / 600 < asked < 21_600 / 200


async def test_only_streams_of_the_bus_are_looked_at() -> None:
    hub = InMemoryHub(clock=running_clock())
    async with running_bus(hub) as bus, running_bus(hub, streams=[DEAD_LETTER_STREAM, OVENS]) as ovens:
        await ovens.broker.ensure_stream(STRANGERS)
        for stream in (OVENS, STRANGERS):
            (pattern,) = stream.subjects
            message = OutgoingMessage(pattern.replace(">", "1"), b"hot")
            await bus.broker.publish(message, delivery=DeliveryClass.AT_LEAST_ONCE)
            await give_up(
                bus.broker, ConsumerSpec(stream=stream.name, durable="foreign", pattern=pattern, deliveries_max=1)
            )
        await asyncio.sleep(300)
        # The other bus knows nothing of the first stream, and must not have taken what belongs to it.
        assert [record.entry.stream for record in await bus.dead_letters.list()] == ["OVENS"]


async def test_a_dead_letter_that_is_given_up_stays_where_it_is() -> None:
    async with running_bus() as bus:
        await bus.publish_telemetry(telemetry(1))
        await give_up(bus.broker)
        assert len(await listed(bus, 1)) == 1
        spec = ConsumerSpec(
            stream=DEAD_LETTER_STREAM.name, durable="foreign", pattern="polaris.dead_letter.>", deliveries_max=1
        )
        await give_up(bus.broker, spec)
        await asyncio.sleep(300)
        assert len(await bus.dead_letters.list()) == 1


async def test_what_is_no_advisory_holds_nothing_up() -> None:
    async with running_bus() as bus:
        for payload in (b"", b"[]", b'{"stream":1}', b"\xff"):
            subject = f"{GIVEN_UP_PREFIX}POLARIS_TELEMETRY.odd"
            await bus.broker.publish(OutgoingMessage(subject, payload), delivery=DeliveryClass.AT_LEAST_ONCE)
        await bus.publish_telemetry(telemetry(1))
        await give_up(bus.broker)
        assert len(await listed(bus, 1)) == 1


@pytest.mark.parametrize(
    "fields", [{"stream": "NOBODY"}, {"consumer": "other"}, {"stream_seq": 0}, {"stream_seq": 2**63}]
)
async def test_one_that_says_something_else_than_its_subject_is_passed_over_once(fields: dict[str, object]) -> None:
    """As many as a position holds: were they tried again, nothing else would come any more."""
    body = {"stream": "POLARIS_TELEMETRY", "consumer": "c", "stream_seq": 1, "deliveries": 2, **fields}
    collector = MetricsCollector()
    with capture_logs() as logs:
        async with running_bus(collector=collector) as bus:
            for _ in range(IN_FLIGHT_MAX):
                message = OutgoingMessage(f"{GIVEN_UP_PREFIX}POLARIS_TELEMETRY.c", json.dumps(body).encode())
                await bus.broker.publish(message, delivery=DeliveryClass.AT_LEAST_ONCE)
            await asyncio.sleep(5)
            await bus.publish_telemetry(telemetry(1))
            await give_up(bus.broker)
            await asyncio.sleep(5)
            assert [record.entry.subscription for record in await bus.dead_letters.list()] == ["node-client"]
            position = bus.broker.hub.streams[ADVISORY_STREAM.name].positions[f"{DURABLE}-POLARIS_TELEMETRY"]  # type: ignore[attr-defined]
            assert (position.info().pending, position.info().ack_pending) == (0, 0)
    dropped = collector.instruments.messages_dropped("polaris.telemetry.*", DURABLE, UNREADABLE)
    assert dropped.value == IN_FLIGHT_MAX
    said = [line["fields"]["kept_back"] for line in logs if "cannot be read" in line["message"]]
    # The second line says at the end how many more there were.
    assert said == [None, IN_FLIGHT_MAX - 1]


async def test_one_that_can_never_be_put_aside_is_not_tried_for_ever() -> None:
    class Full(InMemoryMessageBroker):
        refusals = 0

        async def publish(
            self,
            message: OutgoingMessage,
            *,
            delivery: DeliveryClass = DeliveryClass.AT_MOST_ONCE,
            timeout_s: float = 5.0,
        ) -> Receipt:
            if message.subject.startswith("polaris.dead_letter."):
                self.refusals += 1
                raise PublishError("no room")
            return await super().publish(message, delivery=delivery, timeout_s=timeout_s)

    broker, collector = Full(clock=running_clock()), MetricsCollector()
    dropped = collector.instruments.messages_dropped("polaris.telemetry.*", DURABLE, ABANDONED)
    with capture_logs() as logs:
        async with PolarisMessageBus(broker, clock=running_clock(), collector=collector) as bus:
            await bus.publish_telemetry(telemetry(1))
            await give_up(broker)
            await asyncio.sleep(6 * 3_600)
            assert (dropped.value, broker.refusals > 0) == (0, True)
            await asyncio.sleep(18 * 3_600)
            asked = broker.refusals
            await asyncio.sleep(3_600)
            assert (dropped.value, broker.refusals) == (1, asked)
    assert asked <= ATTEMPTS_MAX * 5
    assert len([line for line in logs if "not tried any more" in line["message"]]) == 1


async def test_a_stream_that_is_refused_keeps_no_other_from_being_watched() -> None:
    class Forbidding(InMemoryMessageBroker):
        forbids = True

        async def consumer(self, spec: ConsumerSpec) -> MemoryConsumer:
            if self.forbids and spec.durable == f"{DURABLE}-OVENS":
                raise SubscriptionError("not this one")
            return await super().consumer(spec)

    broker = Forbidding(clock=running_clock())
    streams = [OVENS, DEAD_LETTER_STREAM, *(spec for spec in STANDARD_STREAMS if spec.name == "POLARIS_TELEMETRY")]
    bus = PolarisMessageBus(broker, clock=running_clock(), streams=streams)
    with capture_logs() as logs:
        async with bus:
            await bus.publish_telemetry(telemetry(1))
            await give_up(broker)
            assert len(await listed(bus, 1)) == 1
            await asyncio.sleep(3_600)
        # Each time that the bus is started it is said again.
        async with bus:
            await broker.publish(OutgoingMessage("acme.ovens.1", b"hot"), delivery=DeliveryClass.AT_LEAST_ONCE)
            await give_up(
                broker, ConsumerSpec(stream="OVENS", durable="foreign", pattern="acme.ovens.>", deliveries_max=1)
            )
            broker.forbids = False
            await listed(bus, 2)
    said = [line["fields"]["stream"] for line in logs if "cannot become a dead letter" in line["message"]]
    assert said == ["OVENS", "OVENS"]


async def test_an_idle_bus_seldom_asks_for_what_is_given_up_and_has_it_at_once() -> None:
    class Counting(InMemoryMessageBroker):
        asked = 0

        async def consumer(self, spec: ConsumerSpec) -> MemoryConsumer:
            consumer = await super().consumer(spec)
            if spec.durable.startswith(DURABLE):
                fetch, info = consumer.fetch, consumer.info

                async def counted_fetch(count_max: int, *, wait_s: float) -> Sequence[Delivery]:
                    self.asked += 1
                    return await fetch(count_max, wait_s=wait_s)

                async def counted_info() -> ConsumerInfo:
                    self.asked += 1
                    return await info()

                consumer.fetch, consumer.info = counted_fetch, counted_info  # type: ignore[method-assign]
            return consumer

    broker = Counting(clock=running_clock())
    async with PolarisMessageBus(broker, clock=running_clock()) as bus:
        await asyncio.sleep(3_600)
        assert 3_600 / 30 < broker.asked < 0.2 * 3_600
        await bus.publish_telemetry(telemetry(1))
        await give_up(broker)
        await asyncio.sleep(0.2)
        assert len(await bus.dead_letters.list()) == 1


async def test_replaying_it_delivers_it_to_everybody_once_more() -> None:
    seen: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    async with running_bus() as bus:
        await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry(7))
        await give_up(bus.broker)
        (record,) = await listed(bus, 1)
        receipt = await bus.dead_letters.replay(record.sequence)
        assert (receipt.duplicate, receipt.sequence) == (False, 2)
        await eventually(lambda: seen == [7.0, 7.0])
        consumer = await bus.broker.consumer(FOREIGN)
        (delivery,) = await consumer.fetch(5, wait_s=1.0)
        assert (delivery.sequence, delivery.attempt) == (2, 1)
        await consumer.close()
        assert await bus.dead_letters.list() == []


async def test_it_works_over_two_lanes() -> None:
    hub = InMemoryHub(clock=running_clock())
    lanes = LanedMessageBroker(InMemoryMessageBroker(hub), InMemoryMessageBroker(hub))
    async with PolarisMessageBus(lanes, clock=hub.clock) as bus:
        await bus.publish_telemetry(telemetry(1))
        await give_up(lanes)
        assert len(await listed(bus, 1)) == 1


async def test_stopping_does_not_wait_for_a_dead_letter_that_hangs() -> None:
    hub = InMemoryHub(clock=running_clock())
    bus = PolarisMessageBus(Killed(hub), clock=hub.clock)
    await bus.start()
    for n in range(3):
        await bus.publish_telemetry(telemetry(n))
    await give_up(bus.broker, count=3)
    await listed(bus, 1)
    async with asyncio.timeout(30):
        await bus.stop()
    async with running_bus(hub) as later:
        records = await listed(later, 3)
        assert sorted(record.entry.sequence or 0 for record in records) == [1, 2, 3]
        # What was handed back came at once, and not after the patience of the broker.
        assert (records[-1].stored_at - records[0].stored_at).total_seconds() < 30


async def test_its_end_is_within_the_grace_of_the_bus_and_no_handler_is_given_more_meanwhile() -> None:
    hub, seen = InMemoryHub(clock=running_clock()), list[float]()
    bus = PolarisMessageBus(Killed(hub), clock=hub.clock, grace_s=1.0)
    loop = asyncio.get_running_loop()

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    async with running_bus(hub, streams=[]) as elsewhere:
        await bus.start()
        await bus.publish_telemetry(telemetry(1))
        await give_up(bus.broker)
        await listed(bus, 1)
        await bus.subscribe("polaris.telemetry.*", handle, durable="worker")
        await eventually(lambda: seen == [1.0])
        began_s = loop.time()
        stopping = asyncio.create_task(bus.stop())
        await asyncio.sleep(0.1)
        assert not stopping.done(), "the dead letter hangs"
        await elsewhere.publish(TOPIC, telemetry(2), delivery=DeliveryClass.AT_LEAST_ONCE)
        await stopping
    assert 0.9 < loop.time() - began_s < 1.5
    assert seen == [1.0]


async def test_a_bus_without_dead_letters_keeps_no_advisories() -> None:
    hub = InMemoryHub(clock=running_clock())
    async with running_bus(hub, streams=[OVENS]):
        assert set(hub.streams) == {"OVENS"}
