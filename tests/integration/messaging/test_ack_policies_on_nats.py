"""The ack policies on a real server: what dead clients leave behind, what is under way at the end, servers that die."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable

import nats
import pytest
from tests.awake import within
from tests.conftest import ConnectNATS, MakeNATSServer

from polaris.clock import utc_now
from polaris.domain import MetricValue, SystemState, TelemetryEvent
from polaris.exceptions import MessageBusError, SubscriptionError
from polaris.messaging import (
    AckPolicy,
    ConsumerSpec,
    DeliveryClass,
    NATSMessageBroker,
    PolarisMessageBus,
    RedeliveryPolicy,
    Start,
    Subscription,
)
from polaris.messaging.brokers._embedded import EmbeddedNATSServer

PATIENCE_S = 20.0
TOPIC, PATTERN = "polaris.telemetry.web", "polaris.telemetry.*"


def telemetry(number: int) -> TelemetryEvent:
    return TelemetryEvent(SystemState("web", utc_now(), {"n": MetricValue("n", float(number))}))


def number_of(event: TelemetryEvent) -> int:
    return int(float(event.system_state.value("n") or 0))


async def eventually(holds: Callable[[], bool], *, within_s: float = PATIENCE_S) -> None:
    async with within(within_s):
        while not holds():
            await asyncio.sleep(0.01)


async def published(bus: PolarisMessageBus, count: int) -> None:
    for number in range(1, count + 1):
        await bus.publish(TOPIC, telemetry(number))


async def floor_of(subscription: Subscription) -> tuple[int, int]:
    """What the server has waiting for its settlement, and up to where everything is settled."""
    info = await subscription.info()
    assert info is not None
    return info.ack_pending, info.ack_floor


async def settled(subscription: Subscription, sequence: int) -> None:
    """Wait until the server knows that everything up to there is done."""
    async with within(PATIENCE_S):
        while await floor_of(subscription) != (0, sequence):
            await asyncio.sleep(0.02)


@pytest.fixture
async def server(make_nats_server: MakeNATSServer) -> EmbeddedNATSServer:
    return await make_nats_server()


@pytest.fixture
async def bus(server: EmbeddedNATSServer) -> AsyncIterator[PolarisMessageBus]:
    broker = NATSMessageBroker(server.client_config("bus"))
    policy = RedeliveryPolicy(max_deliveries=3, base_delay_s=0.1)
    async with PolarisMessageBus(broker, redelivery=policy, grace_s=2.0) as running:
        yield running


async def test_what_a_dead_client_had_comes_again_while_what_is_new_is_handled_at_once(
    bus: PolarisMessageBus, server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    seen: list[int] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    await published(bus, 600)
    dead = await connect_nats(server)
    spec = ConsumerSpec(
        stream="POLARIS_TELEMETRY", durable="d", pattern=PATTERN, ack=AckPolicy.ALL, ack_wait_s=2.0, in_flight_max=256
    )
    assert len(await (await dead.consumer(spec)).fetch(100, wait_s=5.0)) == 100
    await dead.disconnect()
    subscription = await bus.subscribe(PATTERN, handle, durable="d", ack=AckPolicy.ALL, ack_wait_s=2.0)
    await eventually(lambda: len(seen) >= 156, within_s=1.5)
    # What the other one has comes again later.
    assert seen[:156] == list(range(101, 257))
    _, floor = await floor_of(subscription)
    assert set(range(1, floor + 1)) <= set(seen), "what another one has was settled for it"
    await eventually(lambda: len(seen) == 600 and not subscription.in_flight)
    assert sorted(seen) == list(range(1, 601))
    await settled(subscription, 600)


async def test_what_fails_holds_up_and_what_ends_hands_back(bus: PolarisMessageBus) -> None:
    seen: list[int] = []
    failures = 0

    async def handle(event: TelemetryEvent) -> None:
        nonlocal failures
        await asyncio.sleep(0.005)
        if number_of(event) == 50 and failures < 2:
            failures += 1
            raise ConnectionError("not yet")
        seen.append(number_of(event))

    await published(bus, 200)
    for target in (70, 140, 200):
        subscription = await bus.subscribe(PATTERN, handle, durable="d", ack=AckPolicy.ALL, ack_wait_s=30.0)
        await eventually(lambda: len(set(seen)) >= target)  # noqa: B023
        await subscription.unsubscribe()
    # What was handed back the server may give out in another order.
    assert seen[:70] == list(range(1, 71))
    assert set(seen) == set(range(1, 201))
    assert failures == 2
    subscription = await bus.subscribe(PATTERN, handle, durable="d", ack=AckPolicy.ALL)
    assert await floor_of(subscription) == (0, 200)


async def test_nothing_under_way_is_lost_when_one_ends_to_whom_nothing_comes_twice(bus: PolarisMessageBus) -> None:
    seen: list[int] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    async def publish() -> None:
        for number in range(1, 401):
            await bus.publish(TOPIC, telemetry(number))

    publishing = asyncio.create_task(publish())
    ended_s = 0.0
    while len(seen) < 400:
        subscription = await bus.subscribe(PATTERN, handle, durable="d", ack=AckPolicy.NONE, start=Start.ALL)
        assert subscription.delivery is DeliveryClass.AT_MOST_ONCE
        before = len(seen)
        await eventually(lambda: len(seen) > before or len(seen) == 400)  # noqa: B023
        began_s = time.monotonic()
        await subscription.unsubscribe()
        ended_s = max(ended_s, time.monotonic() - began_s)
    await publishing
    assert seen == list(range(1, 401))
    assert ended_s < 1.5


async def test_messages_do_not_wait_in_a_pull_that_cannot_be_filled(
    bus: PolarisMessageBus, server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    await published(bus, 12)
    brokers = [await connect_nats(server) for _ in range(2)]
    spec = ConsumerSpec(stream="POLARIS_TELEMETRY", durable="d", pattern=PATTERN, ack_wait_s=30.0, in_flight_max=10)
    first, second = [await broker.consumer(spec) for broker in brokers]
    assert len(await first.fetch(6, wait_s=5.0)) == 6
    began_s = time.monotonic()
    found = await second.fetch(6, wait_s=8.0)
    assert [delivery.sequence for delivery in found] == [7, 8, 9, 10]
    assert time.monotonic() - began_s < 4.0


async def test_another_ack_policy_for_a_position_is_refused_with_the_reason(bus: PolarisMessageBus) -> None:
    async def handle(event: TelemetryEvent) -> None:
        pass

    await (await bus.subscribe(PATTERN, handle, durable="d")).unsubscribe()
    for wanted in (AckPolicy.ALL, AckPolicy.NONE):
        with pytest.raises(SubscriptionError, match=rf"ack policy 'each', which cannot be changed to '{wanted.value}'"):
            await bus.subscribe(PATTERN, handle, durable="d", ack=wanted)
    await bus.subscribe(PATTERN, handle, durable="d")


async def test_nothing_is_covered_that_was_lost_with_a_server_that_was_killed(
    bus: PolarisMessageBus, server: EmbeddedNATSServer
) -> None:
    seen: set[int] = set()

    async def handle(event: TelemetryEvent) -> None:
        await asyncio.sleep(0.002)
        seen.add(number_of(event))

    await published(bus, 900)
    subscription = await bus.subscribe(PATTERN, handle, durable="d", ack=AckPolicy.ALL, ack_wait_s=1.5)
    for target in (200, 500):
        await eventually(lambda: len(seen) >= target)  # noqa: B023
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        await server.wait()
        await server.restart()
    await eventually(lambda: len(seen) == 900)
    await settled(subscription, 900)
    assert seen == set(range(1, 901))
    assert await bus.dead_letters.list() == []


async def test_new_messages_under_the_numbers_of_old_ones_are_handled(
    bus: PolarisMessageBus, server: EmbeddedNATSServer
) -> None:
    seen: list[int] = []
    gate = asyncio.Event()

    async def handle(event: TelemetryEvent) -> None:
        await gate.wait()
        seen.append(number_of(event))

    await published(bus, 5)
    subscription = await bus.subscribe(PATTERN, handle, durable="d", ack=AckPolicy.ALL, ack_wait_s=3.0)
    await eventually(lambda: subscription.in_flight == 5)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await server.wait()
    shutil.rmtree(server.config.data_dir / "store")
    await server.restart()
    for number in range(101, 106):
        while True:
            try:
                await bus.publish(TOPIC, telemetry(number))
                break
            except MessageBusError:
                await asyncio.sleep(0.1)
    await eventually(lambda: subscription.stats.received >= 10)
    gate.set()
    await eventually(lambda: not subscription.in_flight)
    await settled(subscription, 5)
    assert sorted(seen) == [1, 2, 3, 4, 5, 101, 102, 103, 104, 105]


async def test_a_position_that_is_made_anew_goes_on_being_settled(
    bus: PolarisMessageBus, server: EmbeddedNATSServer
) -> None:
    seen: list[int] = []
    gate = asyncio.Event()
    gate.set()

    async def handle(event: TelemetryEvent) -> None:
        await gate.wait()
        seen.append(number_of(event))

    async def publish(*numbers: int) -> None:
        for number in numbers:
            await bus.publish(TOPIC, telemetry(number))

    await published(bus, 100)
    subscription = await bus.subscribe(PATTERN, handle, durable="d", ack=AckPolicy.ALL, ack_wait_s=3.0)
    await eventually(lambda: len(seen) == 100 and not subscription.in_flight)
    gate.clear()
    await publish(*range(101, 106))
    await eventually(lambda: subscription.in_flight == 5)
    config = server.client_config("other")
    client = await nats.connect(list(config.servers), token=config.token)
    try:
        await client.jetstream().purge_stream("POLARIS_TELEMETRY", seq=101)
        await client.jetstream().delete_consumer("POLARIS_TELEMETRY", "d")
    finally:
        await client.close()
    await eventually(lambda: subscription.stats.received == 110)
    gate.set()
    await publish(*range(106, 121))
    await eventually(lambda: len(seen) == 120 and not subscription.in_flight)
    await settled(subscription, 120)
    assert seen == list(range(1, 121))
