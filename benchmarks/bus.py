"""The bus beside its peers: one publisher process, one subscriber process, a real server, loopback.

    python benchmarks/bus.py [--events 20000] [--rounds 3]

Every contender moves the same telemetry event (about 450 bytes as JSON) through core NATS and hands it, decoded and
validated, to a handler. Rates are events received per second, from the first to the last. Rounds are interleaved, the
median of each contender is taken, and the ratios are the result: absolute figures depend on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from _harness import median, nats_server, print_table, read_line, say, start

SUBJECT = "polaris.telemetry.bench"
LABELS = {
    "raw": "nats-py raw bytes",
    "hand": "nats-py, typed by hand (msgspec)",
    "faststream": "FastStream typed (pydantic)",
    "faststream-full": "FastStream typed + Prometheus + OpenTelemetry",
    "polaris": "POLARIS typed, no middleware",
    "polaris-full": "POLARIS typed, full chain",
    "polaris-many": "POLARIS typed, full chain, 100 events a message, batch handler",
    "polaris-columns": "POLARIS typed, full chain, 100 samples a TelemetryBatch",
}
PUBLISH_WINDOW = 256
BATCH = 100
BATCHED = ("polaris-many", "polaris-columns")


def state() -> Any:
    from polaris.domain import HealthStatus, MetricValue, SystemState

    names = ("cpu", "memory", "response_time", "request_rate", "workers")
    metrics = {name: MetricValue(name, 0.25 + index, "s") for index, name in enumerate(names)}
    return SystemState("bench", datetime.now(UTC), metrics, HealthStatus.HEALTHY)


class Meter:
    """Counts what arrives and reports once everything has."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.count = 0
        self.begun = 0.0
        self.done = asyncio.Event()

    def add(self, number: int = 1) -> None:
        if self.count == 0:
            self.begun = time.perf_counter()
        self.count += number
        if self.count >= self.wanted:
            self.done.set()

    async def report(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.done.wait(), 60)
        seconds = time.perf_counter() - self.begun if self.count else 0.0
        say(received=self.count, seconds=seconds)


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
    say(ready=True)
    for number in range(events):
        await connection.publish(SUBJECT, encode())
        if number % PUBLISH_WINDOW == 0:
            await connection.flush()
    await connection.flush()
    await connection.close()


async def raw_sub(url: str, events: int) -> None:
    await subscribe_nats(url, events, len)


async def raw_pub(url: str, events: int) -> None:
    import msgspec

    payload = msgspec.json.encode({"system_state": state()})
    await publish_nats(url, events, lambda: payload)


async def hand_sub(url: str, events: int) -> None:
    import msgspec

    from polaris.domain import TelemetryEvent

    await subscribe_nats(url, events, msgspec.json.Decoder(TelemetryEvent).decode)


async def hand_pub(url: str, events: int) -> None:
    import msgspec

    from polaris.domain import TelemetryEvent

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


async def faststream_sub(url: str, events: int, *, full: bool) -> None:
    meter = Meter(events)
    broker = faststream_broker(url, full=full)
    event_class = pydantic_event()

    async def handle(event: Any) -> None:
        meter.add()

    handle.__annotations__["event"] = event_class
    broker.subscriber(SUBJECT, pending_msgs_limit=-1, pending_bytes_limit=-1)(handle)
    await broker.start()
    say(ready=True)
    await meter.report()
    await broker.stop()


async def faststream_pub(url: str, events: int, *, full: bool) -> None:
    import msgspec

    from polaris.domain import TelemetryEvent

    broker = faststream_broker(url, full=full)
    event_class = pydantic_event()
    await broker.start()
    say(ready=True)
    event = event_class.model_validate_json(msgspec.json.encode(TelemetryEvent(state())))
    for _ in range(events):
        await broker.publish(event, SUBJECT)
    await broker.stop()


# --- POLARIS ---


def polaris_bus(url: str, *, full: bool) -> Any:
    from polaris.messaging import (
        LoggingMiddleware,
        MetricsMiddleware,
        MiddlewareChain,
        NATSConfig,
        NATSMessageBroker,
        PolarisMessageBus,
    )
    from polaris.observability import LoggingConfig, MetricsCollector, StructuredLogger

    middlewares: list[Any] = []
    if full:
        logger = StructuredLogger("bench", LoggingConfig(level="info"))
        middlewares = [LoggingMiddleware(logger), MetricsMiddleware(MetricsCollector())]
    return PolarisMessageBus(NATSMessageBroker(NATSConfig(servers=[url])), MiddlewareChain(middlewares))


async def polaris_sub(url: str, events: int, *, full: bool, shape: str = "one") -> None:
    from polaris.domain import TelemetryBatch, TelemetryEvent
    from polaris.messaging import DeliveryClass

    meter = Meter(events)
    bus = polaris_bus(url, full=full)
    await bus.start()

    async def handle(event: TelemetryEvent) -> None:
        meter.add()

    async def handle_many(events: list[TelemetryEvent]) -> None:
        meter.add(len(events))

    async def handle_columns(event: TelemetryBatch) -> None:
        meter.add(len(list(event.states())))

    handler: Any = {"one": handle, "many": handle_many, "columns": handle_columns}[shape]
    await bus.subscribe(SUBJECT, handler, delivery=DeliveryClass.AT_MOST_ONCE)
    say(ready=True)
    await meter.report()
    await bus.stop()


async def polaris_pub(url: str, events: int, *, full: bool, shape: str = "one") -> None:
    from polaris.domain import TelemetryBatch, TelemetryEvent
    from polaris.messaging import DeliveryClass

    bus = polaris_bus(url, full=full)
    await bus.start()
    say(ready=True)
    sample = state()
    core = DeliveryClass.AT_MOST_ONCE
    if shape == "one":
        for _ in range(events):
            await bus.publish(SUBJECT, TelemetryEvent(sample), delivery=core)
    elif shape == "many":
        for _ in range(events // BATCH):
            await bus.publish_many([TelemetryEvent(sample) for _ in range(BATCH)], delivery=core)
    else:
        states = [sample] * BATCH
        for _ in range(events // BATCH):
            await bus.publish(SUBJECT, TelemetryBatch.from_states(states), delivery=core)
    await bus.stop()


Role = Callable[[str, int], Awaitable[None]]
SUBSCRIBERS: dict[str, Role] = {
    "raw": raw_sub,
    "hand": hand_sub,
    "faststream": lambda url, events: faststream_sub(url, events, full=False),
    "faststream-full": lambda url, events: faststream_sub(url, events, full=True),
    "polaris": lambda url, events: polaris_sub(url, events, full=False),
    "polaris-full": lambda url, events: polaris_sub(url, events, full=True),
    "polaris-many": lambda url, events: polaris_sub(url, events, full=True, shape="many"),
    "polaris-columns": lambda url, events: polaris_sub(url, events, full=True, shape="columns"),
}
PUBLISHERS: dict[str, Role] = {
    "raw": raw_pub,
    "hand": hand_pub,
    "faststream": lambda url, events: faststream_pub(url, events, full=False),
    "faststream-full": lambda url, events: faststream_pub(url, events, full=True),
    "polaris": lambda url, events: polaris_pub(url, events, full=False),
    "polaris-full": lambda url, events: polaris_pub(url, events, full=True),
    "polaris-many": lambda url, events: polaris_pub(url, events, full=True, shape="many"),
    "polaris-columns": lambda url, events: polaris_pub(url, events, full=True, shape="columns"),
}


def measure(url: str, contender: str, events: int) -> float:
    """Events received per second in one round; stops the whole run when something was lost."""
    subscriber = start(__file__, "--role", f"sub:{contender}", "--url", url, "--events", str(events))
    read_line(subscriber)
    publisher = start(__file__, "--role", f"pub:{contender}", "--url", url, "--events", str(events))
    read_line(publisher)
    result = read_line(subscriber)
    publisher.wait(60)
    subscriber.wait(60)
    if result["received"] != events:
        print(f"{contender}: received {result['received']} of {events}", file=sys.stderr)
    return float(result["received"] / result["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(LABELS))
    parser.add_argument("--json", action="store_true", help="print the medians as JSON as well")
    parser.add_argument("--role")
    parser.add_argument("--url", default="")
    options = parser.parse_args()
    if options.role:
        side, contender = options.role.split(":")
        roles = SUBSCRIBERS if side == "sub" else PUBLISHERS
        asyncio.run(roles[contender](options.url, options.events))  # type: ignore[arg-type]
        return
    contenders = options.only.split(",")
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    with nats_server() as url:
        for _ in range(options.rounds):
            for name in contenders:
                rates[name].append(measure(url, name, options.events * (10 if name in BATCHED else 1)))
    medians = {name: median(values) for name, values in rates.items()}
    peer, raw = medians.get("faststream-full"), medians.get("raw")
    print_table(
        f"Events received per second (median of {options.rounds} interleaved rounds of {options.events})",
        ("contender", "events/s", "x FastStream full", "x raw nats-py"),
        [
            (
                LABELS[name],
                f"{rate:,.0f}",
                f"{rate / peer:.2f}" if peer else "-",
                f"{rate / raw:.2f}" if raw else "-",
            )
            for name, rate in medians.items()
        ],
    )
    if options.json:
        print(json.dumps(medians))


if __name__ == "__main__":
    main()
