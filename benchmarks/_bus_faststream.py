"""FastStream as a contender: typed with pydantic, bare and with its Prometheus and OpenTelemetry middlewares."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
from _bus_common import PACE, SAMPLED, SUBJECT, Meter, Role, Sender, at_pace, sample
from _harness import await_release, say

from polaris.domain import TelemetryEvent

PULL = 1_024


def broker_of(url: str, *, full: bool) -> Any:
    """A broker that logs nothing, with the middlewares if `full`."""
    import logging

    from faststream.nats import NatsBroker

    middlewares: list[Any] = []
    if full:
        from faststream.nats.opentelemetry import NatsTelemetryMiddleware
        from faststream.nats.prometheus import NatsPrometheusMiddleware
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
        from prometheus_client import CollectorRegistry

        middlewares = [
            NatsPrometheusMiddleware(registry=CollectorRegistry()),
            NatsTelemetryMiddleware(tracer_provider=TracerProvider(sampler=TraceIdRatioBased(SAMPLED))),
        ]
    return NatsBroker(url, middlewares=middlewares, logger=None, log_level=logging.CRITICAL)


def event_classes() -> tuple[Any, Any]:
    """The event as pydantic describes it, bare and in the envelope that POLARIS stores."""
    from pydantic import BaseModel

    class Metric(BaseModel):
        name: str
        value: float | None = None
        unit: str | None = None

    class State(BaseModel):
        system_id: str
        timestamp: datetime
        metrics: dict[str, Metric]
        health_status: str = "unknown"

    class Event(BaseModel):
        event_id: str
        timestamp: datetime
        correlation_id: str | None = None
        source: str = "polaris"
        system_state: State

    class Data(BaseModel):
        system_state: State

    class CloudEvent(BaseModel):
        specversion: str
        type: str
        id: str
        source: str
        time: datetime
        data: Data
        correlationid: str | None = None

    for made in (State, Event, Data, CloudEvent):
        made.model_rebuild(_types_namespace={"datetime": datetime, "Metric": Metric, "State": State, "Data": Data})
    return Event, CloudEvent


async def sub(url: str, events: int, *, full: bool, timed: bool = False) -> None:
    meter = Meter(events)
    broker = broker_of(url, full=full)

    async def handle(event: Any) -> None:
        if timed:
            meter.time(event.timestamp.timestamp())
        else:
            meter.add()

    handle.__annotations__["event"], _ = event_classes()
    broker.subscriber(SUBJECT, pending_msgs_limit=-1, pending_bytes_limit=-1)(handle)
    await broker.start()
    say(ready=True)
    await meter.report()
    await broker.stop()


async def pub(url: str, events: int, *, full: bool, paced: bool = False) -> None:
    broker = broker_of(url, full=full)
    event_type, _ = event_classes()
    plain = json.loads(msgspec.json.encode(TelemetryEvent(sample())))
    event = event_type(**plain)
    await broker.start()
    async with Sender(events):
        if paced:
            async for _ in at_pace(events, PACE):
                await broker.publish(event_type(**plain | {"timestamp": datetime.now(UTC)}), SUBJECT)
        else:
            for _ in range(events):
                await broker.publish(event, SUBJECT)
    await broker.stop()


async def pull(url: str, events: int) -> None:
    """Handle what the stream holds, acknowledging each event."""
    from faststream.nats import JStream, PullSub
    from nats.js.api import ConsumerConfig

    meter = Meter(events)
    broker = broker_of(url, full=True)

    async def handle(event: Any) -> None:
        meter.add()

    _, handle.__annotations__["event"] = event_classes()
    broker.subscriber(
        SUBJECT,
        stream=JStream("POLARIS_TELEMETRY", declare=False),
        pull_sub=PullSub(batch_size=PULL, timeout=5.0),
        durable="faststream",
        config=ConsumerConfig(max_ack_pending=8 * PULL),
    )(handle)
    say(ready=True)
    await asyncio.to_thread(await_release)
    meter.begin()
    await broker.start()
    await meter.report()
    await broker.stop()


async def in_memory(events: int) -> tuple[float, float]:
    """Events a second and CPU seconds through the broker for tests."""
    from faststream.nats import TestNatsBroker

    broker = broker_of("nats://127.0.0.1:1", full=True)
    count = 0
    event_type, _ = event_classes()

    async def handle(event: Any) -> None:
        nonlocal count
        count += 1

    handle.__annotations__["event"] = event_type
    broker.subscriber(SUBJECT)(handle)
    event = event_type(**json.loads(msgspec.json.encode(TelemetryEvent(sample()))))
    async with TestNatsBroker(broker) as connected:
        began, began_cpu = time.perf_counter(), time.process_time()
        for _ in range(events):
            await connected.publish(event, SUBJECT)
        rate, cpu = events / (time.perf_counter() - began), time.process_time() - began_cpu
    assert count == events
    return rate, cpu


IN_MEMORY: dict[str, Any] = {"faststream": in_memory}
RECEIVERS: dict[str, Role] = {
    "faststream": partial(sub, full=False),
    "faststream-full": partial(sub, full=True),
    "faststream-paced": partial(sub, full=True, timed=True),
    "faststream-pull": pull,
}
SENDERS: dict[str, Role] = {
    "faststream": partial(pub, full=False),
    "faststream-full": partial(pub, full=True),
    "faststream-paced": partial(pub, full=True, paced=True),
}
