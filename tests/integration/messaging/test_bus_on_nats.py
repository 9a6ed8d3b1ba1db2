"""The whole bus on a real server: what unit tests show in memory holds on NATS too."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable

import pytest
from tests.awake import within
from tests.conftest import ConnectNATS, MakeNATSServer

from polaris.clock import utc_now
from polaris.domain import HealthEvent, HealthStatus, MetricValue, SystemState, TelemetryEvent
from polaris.exceptions import ConflictError, PayloadTooLargeError, RequestFailedError
from polaris.messaging import (
    DeadLetterReason,
    DeliveryClass,
    NATSMessageBroker,
    OutgoingMessage,
    PolarisMessageBus,
    RedeliveryPolicy,
)
from polaris.messaging.brokers._embedded import EmbeddedNATSServer

PATIENCE_S = 20.0
HOSTILE = [b"\x00\xff", b"", b"[", b'{"a":' * 5_000, b'{"specversion":"1.0","type":"acme.x","id":"1","source":"s"}']


def telemetry(number: int, system_id: str = "web.1") -> TelemetryEvent:
    return TelemetryEvent(SystemState(system_id, utc_now(), {"n": MetricValue("n", float(number))}))


def number_of(event: TelemetryEvent) -> int:
    return int(float(event.system_state.value("n") or 0))


async def eventually(holds: Callable[[], bool]) -> None:
    async with within(PATIENCE_S):
        while not holds():
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


async def test_good_events_are_handled_in_order_between_hostile_ones(bus: PolarisMessageBus) -> None:
    seen: list[int] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="writer")
    for n in range(100):
        await bus.publish_telemetry(telemetry(n))
        raw = OutgoingMessage("polaris.telemetry.web%2E1", HOSTILE[n % len(HOSTILE)], f"bad-{n}")
        await bus.broker.publish(raw, delivery=DeliveryClass.AT_LEAST_ONCE)
    await bus.publish_many([telemetry(n) for n in range(100, 1_000)])
    await eventually(lambda: len(seen) >= 1_000 and subscription.in_flight == 0)
    assert seen == list(range(1_000))
    records = await bus.dead_letters.list(count_max=1_000)
    assert [record.entry.payload for record in records] == [HOSTILE[n % len(HOSTILE)] for n in range(100)]
    info = await subscription.info()
    assert info is not None
    assert (info.pending, info.redelivered) == (0, 0)


async def test_failures_come_again_with_a_delay_and_end_as_dead_letters(bus: PolarisMessageBus) -> None:
    tries: dict[int, list[float]] = {}
    loop = asyncio.get_running_loop()

    async def handle(event: TelemetryEvent) -> None:
        tries.setdefault(number_of(event), []).append(loop.time())
        if number_of(event) == 1:
            raise ConflictError("no")
        if number_of(event) == 2 or (number_of(event) == 3 and len(tries[3]) < 3):
            raise KeyError("later")

    subscription = await bus.subscribe("polaris.telemetry.*", handle, concurrency=2)
    for n in range(5):
        await bus.publish_telemetry(telemetry(n))
    await eventually(lambda: subscription.stats.dead_lettered == 2 and subscription.stats.handled == 3)
    assert {n: len(when) for n, when in tries.items()} == {0: 1, 1: 1, 2: 3, 3: 3, 4: 1}
    assert tries[2][1] - tries[2][0] >= 0.05
    reasons = {record.entry.reason: record.entry.attempts for record in await bus.dead_letters.list()}
    assert reasons == {DeadLetterReason.REFUSED: 1, DeadLetterReason.EXHAUSTED: 3}


async def test_a_dead_letter_is_replayed_and_dropped(bus: PolarisMessageBus) -> None:
    seen: list[int] = []
    refuse = True

    async def handle(event: TelemetryEvent) -> None:
        if refuse:
            raise ConflictError("no")
        seen.append(number_of(event))

    subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="w")
    await bus.publish_telemetry(telemetry(1))
    await bus.publish_telemetry(telemetry(2))
    await eventually(lambda: subscription.stats.dead_lettered == 2)
    first, second = await bus.dead_letters.list()
    refuse = False
    receipt = await bus.dead_letters.replay(first.sequence)
    assert not receipt.duplicate
    await eventually(lambda: seen == [1])
    assert await bus.dead_letters.drop(second.sequence)
    assert await bus.dead_letters.list() == []


async def test_the_largest_message_can_be_put_aside_and_one_larger_cannot_be_sent(bus: PolarisMessageBus) -> None:
    async def handle(event: TelemetryEvent) -> None: ...

    subscription = await bus.subscribe("polaris.telemetry.*", handle)
    limit = bus.broker.capabilities.payload_bytes_max
    payload = os.urandom(limit - 200)
    await bus.broker.publish(
        OutgoingMessage("polaris.telemetry.x", payload, "big"), delivery=DeliveryClass.AT_LEAST_ONCE
    )
    await eventually(lambda: subscription.stats.dead_lettered == 1)
    (record,) = await bus.dead_letters.list()
    assert (await bus.dead_letters.show(record.sequence)).entry.payload == payload
    huge = TelemetryEvent(
        SystemState("x", utc_now(), metadata={str(n): "x" * 8_000 for n in range(limit // 8_000 + 1)})
    )
    with pytest.raises(PayloadTooLargeError):
        await bus.publish_telemetry(huge)


async def test_stopping_hands_back_and_the_next_bus_goes_on(
    server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    seen: list[int] = []

    async def slow(event: TelemetryEvent) -> None:
        await asyncio.sleep(0.05)
        seen.append(number_of(event))

    for _ in range(4):
        bus = PolarisMessageBus(NATSMessageBroker(server.client_config("bus")))
        await bus.start()
        if not seen:
            await bus.publish_many([telemetry(n, f"s{n}") for n in range(40)])
        await bus.subscribe("polaris.telemetry.*", slow, durable="w", concurrency=2)
        await asyncio.sleep(0.4)
        await bus.stop()
    async with PolarisMessageBus(NATSMessageBroker(server.client_config("bus"))) as last:
        await last.subscribe("polaris.telemetry.*", slow, durable="w", concurrency=8)
        await eventually(lambda: len(seen) >= 40)
        await asyncio.sleep(0.3)
    assert sorted(seen) == list(range(40))


async def test_requests_are_answered(bus: PolarisMessageBus) -> None:
    async def answer(event: HealthEvent) -> HealthEvent:
        if event.message == "fail":
            raise ConflictError("no")
        return HealthEvent("answer", HealthStatus.HEALTHY, event.message.upper())

    await bus.subscribe("polaris.health.*", answer)
    reply = await bus.request("polaris.health.store", HealthEvent("c", HealthStatus.HEALTHY, "hello"))
    assert isinstance(reply, HealthEvent)
    assert reply.message == "HELLO"
    with pytest.raises(RequestFailedError) as caught:
        await bus.request("polaris.health.store", HealthEvent("c", HealthStatus.HEALTHY, "fail"))
    assert caught.value.remote_code == "polaris.store.conflict"
