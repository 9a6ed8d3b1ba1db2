"""Positions that a server has forgotten, as nobody asked for their messages: they go on where they were left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.awake import until, within
from tests.conftest import ConnectNATS, MakeNATSServer
from tests.nats_cluster import Relay

from polaris.clock import utc_now
from polaris.domain import MetricValue, SystemState, TelemetryEvent
from polaris.ids import new_id
from polaris.messaging import (
    AckPolicy,
    NATSConfig,
    NATSMessageBroker,
    PolarisMessageBus,
    Start,
    Subscription,
    _inbound,
    _sources,
)
from polaris.messaging._broker import ConsumerSpec, Delivery, DeliveryClass, OutgoingMessage, PullConsumer, StreamSpec
from polaris.messaging.brokers._embedded import EmbeddedNATSServer

TOPIC, PATTERN, STREAM = "polaris.telemetry.web", "polaris.telemetry.*", "POLARIS_TELEMETRY"
INACTIVE_S = 0.5
PATIENCE_S = 10.0
ACK_WAIT_S = 0.5
"""The server forgets nothing within this time after the last settlement."""
FETCH_WAIT_S = 0.3
POLICIES = pytest.mark.parametrize("ack", list(AckPolicy), ids=[policy.value for policy in AckPolicy])
FORGOTTEN = "the server has forgotten consumer"


class Scene:
    """A bus behind a relay, and a broker that always reaches the server."""

    def __init__(
        self, bus: PolarisMessageBus, relay: Relay, publisher: PolarisMessageBus, witness: NATSMessageBroker
    ) -> None:
        self.bus = bus
        self.relay = relay
        self.publisher = publisher
        self.witness = witness
        self.seen: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def handle(self, event: TelemetryEvent) -> None:
        number = int(float(event.system_state.value("n") or 0))
        if number == 1:
            await self.gate.wait()
        self.seen.append(number)

    async def publish(self, first: int, last: int) -> None:
        for number in range(first, last + 1):
            state = SystemState("web", utc_now(), {"n": MetricValue("n", float(number))})
            await self.publisher.publish(TOPIC, TelemetryEvent(state))

    async def forgotten(self) -> None:
        """Wait until the server knows no consumer of the stream any more."""
        async with within(PATIENCE_S):
            while any(
                stream.consumers_total
                for stream in (await self.witness.survey(streams_max=64, consumers_max=1)).streams
                if stream.name == STREAM
            ):
                await asyncio.sleep(0.05)


async def unsettled(subscription: Subscription) -> int:
    info = await subscription.info()
    assert info is not None
    return info.ack_pending


async def settled(subscription: Subscription) -> None:
    async with within(PATIENCE_S):
        while subscription.in_flight or await unsettled(subscription):
            await asyncio.sleep(0.02)


@pytest.fixture
async def scene(
    make_nats_server: MakeNATSServer, connect_nats: ConnectNATS, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Scene]:
    monkeypatch.setattr(_inbound, "UNNAMED_INACTIVE_S", INACTIVE_S)
    monkeypatch.setattr(_sources, "FETCH_WAIT_S", FETCH_WAIT_S)
    server = await make_nats_server()
    relay = Relay(server.port)
    await relay.open()
    config = NATSConfig(servers=(f"nats://127.0.0.1:{relay.port}",), token=server.token)
    witness = await connect_nats(server)
    async with (
        PolarisMessageBus(NATSMessageBroker(config), grace_s=2.0) as bus,
        PolarisMessageBus(NATSMessageBroker(server.client_config("publisher"))) as publisher,
    ):
        yield Scene(bus, relay, publisher, witness)
    relay.close()


@POLICIES
async def test_one_that_was_cut_off_handles_everything_once_and_in_order(
    scene: Scene, ack: AckPolicy, caplog: pytest.LogCaptureFixture
) -> None:
    subscription = await scene.bus.subscribe(PATTERN, scene.handle, ack=ack, ack_wait_s=ACK_WAIT_S)
    await scene.publish(1, 20)
    await until(lambda: len(scene.seen) == 20, "the first twenty")
    await settled(subscription)
    scene.relay.sever()
    await scene.publish(21, 24)
    await scene.forgotten()
    scene.relay.heal()
    await until(lambda: len(scene.seen) >= 24, "what was published meanwhile")
    await scene.publish(25, 27)
    await until(lambda: len(scene.seen) >= 27, "what was published afterwards")
    await settled(subscription)
    assert scene.seen == list(range(1, 28))
    assert (subscription.stats.received, subscription.stats.reattached) == (27, 1)
    assert [record.getMessage().startswith(FORGOTTEN) for record in caplog.records].count(True) == 1


@POLICIES
async def test_one_that_was_paused_handles_everything_once_and_in_order(scene: Scene, ack: AckPolicy) -> None:
    subscription = await scene.bus.subscribe(PATTERN, scene.handle, ack=ack, in_flight_max=8, ack_wait_s=ACK_WAIT_S)
    await scene.publish(1, 20)
    await until(lambda: len(scene.seen) == 20, "the first twenty")
    await settled(subscription)
    subscription.pause()
    await scene.forgotten()
    await scene.publish(21, 32)
    subscription.resume()
    await until(lambda: len(scene.seen) >= 32, "what was published meanwhile")
    await settled(subscription)
    assert scene.seen == list(range(1, 33))


@pytest.mark.parametrize("ack", [AckPolicy.EACH, AckPolicy.ALL], ids=["each", "all"])
async def test_what_is_being_handled_meanwhile_is_settled_and_not_handled_again(scene: Scene, ack: AckPolicy) -> None:
    scene.gate.clear()
    alone = ack is AckPolicy.ALL
    subscription = await scene.bus.subscribe(
        PATTERN, scene.handle, ack=ack, ack_wait_s=ACK_WAIT_S, concurrency=1 if alone else 2
    )
    await scene.publish(1, 4)
    await until(lambda: subscription.in_flight == (4 if alone else 1), "four are here")
    scene.relay.sever()
    await scene.publish(5, 6)
    await scene.forgotten()
    scene.relay.heal()
    await until(lambda: subscription.stats.received >= (10 if alone else 6), "what was published meanwhile")
    scene.gate.set()
    await until(lambda: len(scene.seen) >= 6, "all six")
    await settled(subscription)
    assert sorted(scene.seen) == [1, 2, 3, 4, 5, 6]
    assert (subscription.stats.reattached, subscription.stats.redelivered) == (1, 0)


# At the port of the broker


class Reading:
    """A consumer of a stream of its own, of those that the server may forget."""

    def __init__(self, broker: NATSMessageBroker) -> None:
        self.broker = broker
        self.name = f"case{new_id()}"
        self.stream = StreamSpec(name=self.name, subjects=(f"{self.name}.>",))
        self.spec = ConsumerSpec(
            stream=self.name, durable="reader", pattern=f"{self.name}.>", start=Start.NEW, inactive_s=60.0
        )

    async def publish(self, *payloads: bytes) -> None:
        for payload in payloads:
            await self.broker.publish(OutgoingMessage(f"{self.name}.a", payload), delivery=DeliveryClass.AT_LEAST_ONCE)

    async def administer(self, endpoint: str) -> None:
        answer = await self.broker.request(OutgoingMessage(f"$JS.API.{endpoint}", b""), timeout_s=5.0)
        assert b'"error"' not in answer.payload

    async def taken(self, consumer: PullConsumer, count: int) -> list[bytes]:
        found: list[bytes] = []
        async with within(PATIENCE_S):
            while len(found) < count:
                for delivery in await consumer.fetch(8, wait_s=2.0):
                    found.append(delivery.payload)
                    await delivery.ack(confirm=True)
        return found


@pytest.fixture
async def reading(nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS) -> AsyncIterator[Reading]:
    reading = Reading(await connect_nats(nats_server))
    await reading.broker.ensure_stream(reading.stream)
    yield reading
    await reading.administer(f"STREAM.DELETE.{reading.name}")


async def test_one_that_is_attached_anew_goes_on_where_it_was_left(reading: Reading) -> None:
    await reading.publish(b"before")
    consumer = await reading.broker.consumer(reading.spec)
    await reading.administer(f"CONSUMER.DELETE.{reading.name}.reader")
    await reading.publish(b"1", b"2")
    assert await reading.taken(consumer, 2) == [b"1", b"2"]
    await reading.administer(f"CONSUMER.DELETE.{reading.name}.reader")
    await reading.publish(b"3")
    await consumer.close()
    anew = await reading.broker.consumer(reading.spec)
    await reading.publish(b"4")
    assert await reading.taken(anew, 2) == [b"3", b"4"]


async def test_what_was_handed_back_comes_again_and_what_was_settled_does_not(reading: Reading) -> None:
    consumer = await reading.broker.consumer(reading.spec)
    await reading.publish(b"1", b"2", b"3")
    first, second, third = await consumer.fetch(3, wait_s=5.0)
    await first.nak(delay_s=60.0)
    await second.ack(confirm=True)
    await reading.administer(f"CONSUMER.DELETE.{reading.name}.reader")
    await reading.publish(b"4")
    found: list[Delivery] = []
    async with within(PATIENCE_S):
        while len(found) < 2:
            found += await consumer.fetch(8, wait_s=2.0)
    assert [delivery.payload for delivery in found] == [b"1", b"4"]
    for delivery in (*found, third):
        await delivery.ack(confirm=True)
    info = await consumer.info()
    assert (info.ack_pending, info.pending, info.ack_floor) == (0, 0, 4)


async def test_in_another_stream_of_the_name_nothing_is_left_out(reading: Reading) -> None:
    consumer = await reading.broker.consumer(reading.spec)
    await reading.publish(b"1", b"2", b"3")
    assert await reading.taken(consumer, 3) == [b"1", b"2", b"3"]
    await reading.administer(f"STREAM.DELETE.{reading.name}")
    await reading.broker.ensure_stream(reading.stream)
    await reading.publish(b"4", b"5")
    assert await reading.taken(consumer, 2) == [b"4", b"5"]


async def test_asking_for_a_forgotten_position_makes_it_again(reading: Reading) -> None:
    consumer = await reading.broker.consumer(reading.spec)
    await reading.publish(b"1", b"2")
    assert await reading.taken(consumer, 2) == [b"1", b"2"]
    await reading.administer(f"CONSUMER.DELETE.{reading.name}.reader")
    await reading.publish(b"3")
    assert (await consumer.info()).pending == 1
    assert await reading.taken(consumer, 1) == [b"3"]
