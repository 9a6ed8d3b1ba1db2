"""What takes part in the benchmark of the bus: who publishes, who subscribes, and how they report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
from _harness import say

from polaris.domain import HealthStatus, MetricValue, SystemState, TelemetryBatch, TelemetryEvent
from polaris.messaging import (
    DeliveryClass,
    InMemoryMessageBroker,
    LoggingMiddleware,
    MessageMiddleware,
    MetricsMiddleware,
    NATSConfig,
    NATSMessageBroker,
    PolarisMessageBus,
)
from polaris.observability import LoggingConfig, MetricsCollector, StructuredLogger

SUBJECT = "polaris.telemetry.bench"
LABELS = {
    "raw": "nats-py raw bytes",
    "hand": "nats-py, typed by hand (msgspec)",
    "faststream": "FastStream typed (pydantic)",
    "faststream-full": "FastStream typed + Prometheus + OpenTelemetry",
    "polaris": "POLARIS typed, no middleware",
    "polaris-full": "POLARIS typed, full chain",
    "polaris-memory": "POLARIS typed, full chain, broker in memory, nothing stored (one process)",
    "polaris-many": "POLARIS typed, full chain, 100 events a message, batch handler",
    "polaris-columns": "POLARIS typed, full chain, 100 samples a TelemetryBatch",
    "polaris-states": "POLARIS typed, full chain, 100 samples a TelemetryBatch, read as 100 states",
    "polaris-stored": "POLARIS typed, full chain, 100 events a message, JetStream, acknowledged both ways",
}
PUBLISH_WINDOW = 256
BATCH = 100
BATCHED = ("polaris-many", "polaris-columns", "polaris-states", "polaris-stored")
PACE = 1_000.0
STORED_SENDERS = 16
SHAPES = ("many", "columns", "states", "stored", "slow")


def state() -> SystemState:
    names = ("cpu", "memory", "response_time", "request_rate", "workers")
    metrics = {name: MetricValue(name, 0.25 + index, "s") for index, name in enumerate(names)}
    return SystemState("bench", datetime.now(UTC), metrics, HealthStatus.HEALTHY)


class Meter:
    """Counts what arrives and reports once everything has."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.count = 0
        self.begun = 0.0
        self.begun_cpu = 0.0
        self.latencies: list[float] = []
        self.done = asyncio.Event()

    def add(self, number: int = 1) -> None:
        if self.count == 0:
            self.begun, self.begun_cpu = time.perf_counter(), time.process_time()
        self.count += number
        if self.count >= self.wanted:
            self.done.set()

    def time(self, event: Any) -> None:
        """Note how old the event is: both processes read the clock of the same machine."""
        self.latencies.append((datetime.now(UTC) - event.timestamp).total_seconds())
        self.add()

    async def report(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.done.wait(), 60)
        seconds, cpu = time.perf_counter() - self.begun, time.process_time() - self.begun_cpu
        ordered = sorted(self.latencies[len(self.latencies) // 10 :])  # the first tenth warms up
        latency = {"p50": ordered[len(ordered) // 2], "p99": ordered[len(ordered) * 99 // 100]} if ordered else {}
        say(received=self.count, seconds=seconds, cpu=cpu, **latency)


class Sender:
    """Ready on entry; reports on exit what the sending cost."""

    async def __aenter__(self) -> None:
        say(ready=True)
        self.begun_cpu = time.process_time()

    async def __aexit__(self, *exc_info: object) -> None:
        say(cpu=time.process_time() - self.begun_cpu)


async def at_pace(events: int, per_second: float) -> AsyncIterator[int]:
    """Count at an even pace."""
    due = time.perf_counter()
    for number in range(events):
        due += 1 / per_second
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        yield number


# --- nats-py ---


async def subscribe_nats(url: str, events: int, decode: Callable[[bytes], object]) -> None:
    import nats

    meter = Meter(events)
    connection = await nats.connect(url)

    async def on_message(message: Any) -> None:
        decode(message.data)
        meter.add()

    await connection.subscribe(SUBJECT, cb=on_message, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await connection.flush()
    say(ready=True)
    await meter.report()
    await connection.close()


async def publish_nats(url: str, events: int, encode: Callable[[], bytes]) -> None:
    import nats

    connection = await nats.connect(url)
    async with Sender():
        for number in range(events):
            await connection.publish(SUBJECT, encode())
            if number % PUBLISH_WINDOW == 0:
                await connection.flush()
        await connection.flush()
    await connection.close()


async def raw_sub(url: str, events: int) -> None:
    await subscribe_nats(url, events, len)


async def raw_pub(url: str, events: int) -> None:
    payload = msgspec.json.encode({"system_state": state()})
    await publish_nats(url, events, lambda: payload)


async def hand_sub(url: str, events: int) -> None:
    await subscribe_nats(url, events, msgspec.json.Decoder(TelemetryEvent).decode)


async def hand_pub(url: str, events: int) -> None:
    encoder, sample = msgspec.json.Encoder(), state()
    await publish_nats(url, events, lambda: encoder.encode(TelemetryEvent(sample)))


# --- FastStream ---


def faststream_broker(url: str, *, full: bool) -> Any:
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
            NatsTelemetryMiddleware(tracer_provider=TracerProvider(sampler=TraceIdRatioBased(0.01))),
        ]
    return NatsBroker(url, middlewares=middlewares, logger=None, log_level=logging.CRITICAL)


def pydantic_event() -> Any:
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

    return Event


async def faststream_sub(url: str, events: int, *, full: bool, timed: bool = False) -> None:
    meter = Meter(events)
    broker = faststream_broker(url, full=full)
    event_class = pydantic_event()

    async def handle(event: Any) -> None:
        if timed:
            meter.time(event)
        else:
            meter.add()

    handle.__annotations__["event"] = event_class
    broker.subscriber(SUBJECT, pending_msgs_limit=-1, pending_bytes_limit=-1)(handle)
    await broker.start()
    say(ready=True)
    await meter.report()
    await broker.stop()


async def faststream_pub(url: str, events: int, *, full: bool) -> None:
    broker = faststream_broker(url, full=full)
    event_class = pydantic_event()
    await broker.start()
    event = event_class.model_validate_json(msgspec.json.encode(TelemetryEvent(state())))
    async with Sender():
        for _ in range(events):
            await broker.publish(event, SUBJECT)
    await broker.stop()


async def faststream_slow_pub(url: str, events: int) -> None:
    broker = faststream_broker(url, full=True)
    event_class = pydantic_event()
    plain = json.loads(msgspec.json.encode(TelemetryEvent(state())))
    await broker.start()
    async with Sender():
        async for _ in at_pace(events, PACE):
            await broker.publish(event_class(**plain | {"timestamp": datetime.now(UTC)}), SUBJECT)
    await broker.stop()


# --- POLARIS ---


def middlewares(*, full: bool) -> list[MessageMiddleware]:
    if not full:
        return []
    logger = StructuredLogger("bench", LoggingConfig(level="info"))
    return [LoggingMiddleware(logger), MetricsMiddleware(MetricsCollector())]


def polaris_bus(url: str, *, full: bool) -> PolarisMessageBus:
    return PolarisMessageBus(NATSMessageBroker(NATSConfig(servers=(url,))), middlewares(full=full))


async def polaris_sub(url: str, events: int, *, full: bool, shape: str = "one") -> None:
    meter = Meter(events)
    bus = polaris_bus(url, full=full)
    await bus.start()

    async def handle(event: TelemetryEvent) -> None:
        meter.add()

    async def handle_timed(event: TelemetryEvent) -> None:
        meter.time(event)

    async def handle_many(events: list[TelemetryEvent]) -> None:
        meter.add(len(events))

    async def handle_columns(event: TelemetryBatch) -> None:
        meter.add(len(event.timestamps))

    async def handle_states(event: TelemetryBatch) -> None:
        meter.add(len(list(event.states())))

    handlers: dict[str, Any] = {
        "one": handle,
        "slow": handle_timed,
        "columns": handle_columns,
        "states": handle_states,
    }
    delivery = DeliveryClass.AT_LEAST_ONCE if shape == "stored" else DeliveryClass.AT_MOST_ONCE
    await bus.subscribe(SUBJECT, handlers.get(shape, handle_many), delivery=delivery)
    say(ready=True)
    await meter.report()
    await bus.stop()


async def polaris_pub(url: str, events: int, *, full: bool, shape: str = "one") -> None:
    bus = polaris_bus(url, full=full)
    await bus.start()
    sample = state()
    core = DeliveryClass.AT_MOST_ONCE
    async with Sender():
        if shape == "one":
            for _ in range(events):
                await bus.publish(SUBJECT, TelemetryEvent(sample), delivery=core)
        elif shape == "slow":
            async for _ in at_pace(events, PACE):
                await bus.publish(SUBJECT, TelemetryEvent(sample), delivery=core)
        elif shape in ("columns", "states"):
            for _ in range(events // BATCH):
                await bus.publish(SUBJECT, TelemetryBatch.from_states([sample] * BATCH), delivery=core)
        elif shape == "many":
            for _ in range(events // BATCH):
                await bus.publish_many([TelemetryEvent(sample) for _ in range(BATCH)], delivery=core)
        else:
            await publish_stored(bus, events // BATCH)
    await bus.stop()


async def publish_stored(bus: PolarisMessageBus, messages: int) -> None:
    """A few senders, each waiting for the stream's confirmation before its next message."""
    sample, remaining = state(), iter(range(messages))

    async def send() -> None:
        for _ in remaining:
            await bus.publish_many([TelemetryEvent(sample) for _ in range(BATCH)])

    await asyncio.gather(*(send() for _ in range(STORED_SENDERS)))


async def polaris_memory(events: int) -> tuple[float, float]:
    """Events per second and CPU seconds of publisher and subscriber in one event loop."""
    bus = PolarisMessageBus(InMemoryMessageBroker(), middlewares(full=True), streams=())
    await bus.start()
    meter = Meter(events)

    async def handle(event: TelemetryEvent) -> None:
        meter.add()

    await bus.subscribe(SUBJECT, handle, delivery=DeliveryClass.AT_MOST_ONCE)
    sample = state()
    began, began_cpu = time.perf_counter(), time.process_time()
    for _ in range(events):
        await bus.publish(SUBJECT, TelemetryEvent(sample), delivery=DeliveryClass.AT_MOST_ONCE)
    await meter.done.wait()
    rate, cpu = events / (time.perf_counter() - began), time.process_time() - began_cpu
    await bus.stop()
    return rate, cpu


Role = Callable[[str, int], Awaitable[None]]
SUBSCRIBERS: dict[str, Role] = {
    "raw": raw_sub,
    "hand": hand_sub,
    "faststream": partial(faststream_sub, full=False),
    "faststream-full": partial(faststream_sub, full=True),
    "faststream-slow": partial(faststream_sub, full=True, timed=True),
    "polaris": partial(polaris_sub, full=False),
    **{f"polaris-{shape}": partial(polaris_sub, full=True, shape=shape) for shape in SHAPES},
    "polaris-full": partial(polaris_sub, full=True),
}
PUBLISHERS: dict[str, Role] = {
    "raw": raw_pub,
    "hand": hand_pub,
    "faststream": partial(faststream_pub, full=False),
    "faststream-full": partial(faststream_pub, full=True),
    "faststream-slow": faststream_slow_pub,
    "polaris": partial(polaris_pub, full=False),
    **{f"polaris-{shape}": partial(polaris_pub, full=True, shape=shape) for shape in SHAPES},
    "polaris-full": partial(polaris_pub, full=True),
}
