"""What tests of the bus share: events, a bus in virtual time, and waiting for something to become true."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from polaris.domain import HealthEvent, HealthStatus, MetricValue, SystemState, TelemetryEvent
from polaris.messaging import DeliveryClass, InMemoryHub, InMemoryMessageBroker, OutgoingMessage, PolarisMessageBus
from polaris.testing import running_clock

NOW = datetime(2026, 3, 1, tzinfo=UTC)
STORED = DeliveryClass.AT_LEAST_ONCE


def telemetry(number: float = 1.0, system_id: str = "web", **envelope: Any) -> TelemetryEvent:
    return TelemetryEvent(SystemState(system_id, NOW, {"n": MetricValue("n", float(number))}), **envelope)


def number_of(event: TelemetryEvent) -> float:
    value = event.system_state.value("n")
    assert isinstance(value, float)
    return value


def health(message: str = "", component: str = "store", **envelope: Any) -> HealthEvent:
    return HealthEvent(component, HealthStatus.HEALTHY, message, **envelope)


def new_bus(hub: InMemoryHub | None = None, middlewares: Any = None, **options: Any) -> PolarisMessageBus:
    clock = running_clock()
    broker = InMemoryMessageBroker(hub, clock=clock)
    return PolarisMessageBus(broker, middlewares, clock=clock, **options)


@asynccontextmanager
async def running_bus(
    hub: InMemoryHub | None = None, middlewares: Any = None, **options: Any
) -> AsyncIterator[PolarisMessageBus]:
    async with new_bus(hub, middlewares, **options) as bus:
        yield bus


async def eventually(holds: Callable[[], bool], *, timeout_s: float = 600.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.01)


async def publish_raw(
    bus: PolarisMessageBus, topic: str, payload: bytes, *, delivery: DeliveryClass = STORED, **headers: str
) -> None:
    await bus.broker.publish(OutgoingMessage(topic, payload, None, headers or None), delivery=delivery)
