"""Faults injected round the broker on a real server: the bus loses nothing there, either."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from tests.awake import within
from tests.conftest import MakeNATSServer
from tests.unit.messaging.doubles import number_of, telemetry

from polaris.domain import TelemetryEvent
from polaris.exceptions import MessageBusError
from polaris.messaging import DeduplicationMiddleware, NATSMessageBroker, PolarisMessageBus, RedeliveryPolicy
from polaris.testing import Fault, FaultPlan, FaultyBroker

EVENTS = 300
PLAN = FaultPlan(
    loss=0.05,
    unconfirmed=0.1,
    vanished=0.05,
    refused=0.05,
    ack_lost=0.1,
    nak_lost=0.1,
    at={Fault.PARTITION: {200, 500}},
    partition_s=0.5,
)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_bus_on_nats_under_faults_handles_every_event_once(make_nats_server: MakeNATSServer, seed: int) -> None:
    server = await make_nats_server()
    handled: Counter[float] = Counter()

    async def handle(event: TelemetryEvent) -> None:
        handled[number_of(event)] += 1

    broker = FaultyBroker(NATSMessageBroker(server.client_config("faulty")), PLAN, seed=seed)
    policy = RedeliveryPolicy(max_deliveries=50, base_delay_s=0.05, max_delay_s=0.2)
    async with PolarisMessageBus(broker, [DeduplicationMiddleware()], redelivery=policy) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="d", ack_wait_s=1.5)
        for number in range(EVENTS):
            event = telemetry(number)
            while True:
                try:
                    await bus.publish("polaris.telemetry.web", event)
                    break
                except MessageBusError as error:
                    assert error.retryable is True
                    await asyncio.sleep(0.05)
        async with within(60):
            while not await quiet(subscription):
                await asyncio.sleep(0.1)
    assert handled == Counter({float(number): 1 for number in range(EVENTS)})
    assert set(broker.counts) >= {Fault.LOSS, Fault.UNCONFIRMED, Fault.ACK_LOST, Fault.PARTITION}


async def quiet(subscription: object) -> bool:
    from polaris.messaging import Subscription

    assert isinstance(subscription, Subscription)
    info = await subscription.info()
    assert info is not None
    return not info.pending and not info.ack_pending and not subscription.in_flight
