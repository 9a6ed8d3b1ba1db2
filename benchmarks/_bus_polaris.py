"""POLARIS as a contender: typed, with its full chain, in batches, stored, in memory, and on the prototype."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from _bus_common import PACE, SAMPLED, SUBJECT, Meter, Role, Sender, at_pace, sample, tracer
from _harness import await_release, say
from _protocol_prototype import PrototypeBroker

from polaris.domain import TelemetryBatch, TelemetryEvent
from polaris.messaging import (
    STANDARD_STREAMS,
    DeliveryClass,
    InMemoryMessageBroker,
    LoggingMiddleware,
    MessageBroker,
    MessageMiddleware,
    MetricsMiddleware,
    NATSConfig,
    NATSMessageBroker,
    PolarisMessageBus,
    Start,
    Subscription,
    TracingMiddleware,
)
from polaris.observability import LoggingConfig, MetricsCollector, StructuredLogger

STORED_SENDERS = 16
WARM_UP = 500
SETTLED_S_MAX = 5.0
CORE = DeliveryClass.AT_MOST_ONCE
STORED = DeliveryClass.AT_LEAST_ONCE

MakeBroker = Callable[[str], MessageBroker]


def full_chain() -> list[MessageMiddleware]:
    """What stands beside the correlation that the bus brings itself: 1 % of the traces, logging at info, metrics."""
    logger = StructuredLogger("bench", LoggingConfig(level="info"))
    return [TracingMiddleware(tracer(), SAMPLED), LoggingMiddleware(logger), MetricsMiddleware(MetricsCollector())]


def nats_broker(url: str) -> MessageBroker:
    return NATSMessageBroker(NATSConfig(servers=(url,)))


def prototype_broker(url: str) -> MessageBroker:
    return PrototypeBroker(url)


def bus_of(url: str, *, full: bool = True, stored: bool = True, broker: MakeBroker = nats_broker) -> PolarisMessageBus:
    """A bus; unless something is stored, without streams: the server would keep what goes over core NATS too."""
    chain = full_chain() if full else []
    return PolarisMessageBus(broker(url), chain, streams=STANDARD_STREAMS if stored else ())


# --- Core NATS ---


async def sub(
    url: str, events: int, *, full: bool = True, shape: str = "one", broker: MakeBroker = nats_broker
) -> None:
    meter = Meter(events)
    stored = shape in ("stored", "stored-paced")

    async def handle(event: TelemetryEvent) -> None:
        meter.add()

    async def note_age(event: TelemetryEvent) -> None:
        meter.time(event.timestamp.timestamp())

    async def handle_many(events: list[TelemetryEvent]) -> None:
        meter.add(len(events))

    async def handle_columns(event: TelemetryBatch) -> None:
        meter.add(len(event.timestamps))

    async def handle_states(event: TelemetryBatch) -> None:
        meter.add(len(list(event.states())))

    handlers: dict[str, Any] = {
        "one": handle,
        "paced": note_age,
        "stored-paced": note_age,
        "columns": handle_columns,
        "states": handle_states,
    }
    async with bus_of(url, full=full, stored=stored, broker=broker) as bus:
        await bus.subscribe(SUBJECT, handlers.get(shape, handle_many), delivery=STORED if stored else CORE)
        say(ready=True)
        await meter.report()


async def pub(
    url: str, events: int, *, full: bool = True, shape: str = "one", batch: int = 100, broker: MakeBroker = nats_broker
) -> None:
    state = sample()
    stored = shape == "stored-paced"
    async with bus_of(url, full=full, stored=stored, broker=broker) as bus, Sender(events):
        if shape == "one":
            for _ in range(events):
                await bus.publish(SUBJECT, TelemetryEvent(state), delivery=CORE)
        elif shape == "paced":
            async for _ in at_pace(events, PACE):
                await bus.publish(SUBJECT, TelemetryEvent(state), delivery=CORE)
        elif shape == "stored-paced":
            async for _ in at_pace(events, PACE):
                await bus.publish_telemetry(TelemetryEvent(state))
        elif shape == "columns":
            for _ in range(events // batch):
                await bus.publish(SUBJECT, TelemetryBatch.from_states([state] * batch), delivery=CORE)
        else:
            for _ in range(events // batch):
                await bus.publish_many([TelemetryEvent(state) for _ in range(batch)], delivery=CORE)


# --- JetStream ---


async def store_many(url: str, events: int, *, batch: int = 100) -> None:
    """A few senders, each waiting for the stream's confirmation before its next message."""
    state, remaining = sample(), iter(range(events // batch))
    async with bus_of(url) as bus:

        async def send() -> None:
            for _ in remaining:
                await bus.publish_many([TelemetryEvent(state) for _ in range(batch)])

        async with Sender(events):
            await asyncio.gather(*(send() for _ in range(STORED_SENDERS)))


async def store_columns(url: str, events: int, *, batch: int = 100) -> None:
    """As `store_many`, the samples in columns."""
    states, remaining = [sample()] * batch, iter(range(events // batch))
    async with bus_of(url) as bus:

        async def send() -> None:
            for _ in remaining:
                await bus.publish(SUBJECT, TelemetryBatch.from_states(states))

        async with Sender(events):
            await asyncio.gather(*(send() for _ in range(STORED_SENDERS)))


async def store_telemetry(url: str, events: int, *, tasks: int, systems: int = 1) -> None:
    """`publish_telemetry` from many tasks, of one system or each of its own."""
    states = [sample() for _ in range(systems)]
    if systems > 1:
        import msgspec

        states = [msgspec.structs.replace(state, system_id=f"bench-{n}") for n, state in enumerate(states)]
    remaining = iter(range(events))
    async with bus_of(url) as bus:

        async def send(number: int) -> None:
            state = states[number % systems]
            for _ in remaining:
                await bus.publish_telemetry(TelemetryEvent(state))

        async with Sender(events):
            await asyncio.gather(*(send(number) for number in range(tasks)))


async def store_single(url: str, events: int) -> None:
    """Events one a message, for consumers to read."""
    state, remaining = sample(), iter(range(events))
    async with bus_of(url, full=False) as bus:

        async def send() -> None:
            for _ in remaining:
                await bus.publish(SUBJECT, TelemetryEvent(state))

        async with Sender(events):
            await asyncio.gather(*(send() for _ in range(256)))


async def consume(url: str, events: int, *, many: bool, durable: str) -> None:
    """Handle what the stream holds, acknowledging each message after its handler."""
    meter = Meter(events)

    async def handle(event: TelemetryEvent) -> None:
        meter.add()

    async def handle_many(events: list[TelemetryEvent]) -> None:
        meter.add(len(events))

    async with bus_of(url) as bus:
        say(ready=True)
        await asyncio.to_thread(await_release)
        meter.begin()
        await bus.subscribe(SUBJECT, handle_many if many else handle, durable=durable)
        await meter.report()


async def consume_columns(url: str, events: int, *, durable: str, filled: bool) -> None:
    """Handle every batch once on a durable position, and see all of them acknowledged.

    `filled`: the stream holds them already. Otherwise they are published meanwhile, and time counts from the first.
    """
    meter, seen, repeated = Meter(events), set[str](), 0

    async def handle(event: TelemetryBatch) -> None:
        nonlocal repeated
        if event.event_id in seen:
            repeated += len(event.timestamps)
            return
        seen.add(event.event_id)
        meter.add(len(event.timestamps))

    async with bus_of(url) as bus:
        if filled:
            say(ready=True)
            await asyncio.to_thread(await_release)
            meter.begin()
            subscription = await bus.subscribe(SUBJECT, handle, durable=durable)
        else:
            # What was published before for others is none of its own.
            subscription = await bus.subscribe(SUBJECT, handle, durable=durable, start=Start.NEW)
            say(ready=True)
        found = await meter.measure()
        say(**found, repeated=repeated, unsettled=await unsettled(subscription))


async def unsettled(subscription: Subscription) -> int:
    """How many messages the server still waits to be acknowledged, or to hand out, after a while."""
    until_s = time.monotonic() + SETTLED_S_MAX
    while True:
        info = await subscription.info()
        left = 0 if info is None else info.pending + info.ack_pending
        if not left or time.monotonic() >= until_s:
            return left
        await asyncio.sleep(0.02)


# --- In memory ---


async def in_memory(events: int, *, full: bool = True, batch: int = 1) -> tuple[float, float]:
    """Events a second and CPU seconds of publisher and subscriber in one event loop, which is warm."""
    state, meter = sample(), Meter(WARM_UP)

    async def handle(event: TelemetryEvent) -> None:
        meter.add()

    async def handle_many(events: list[TelemetryEvent]) -> None:
        meter.add(len(events))

    async with PolarisMessageBus(InMemoryMessageBroker(), full_chain() if full else [], streams=()) as bus:

        async def move(number: int) -> None:
            nonlocal meter
            meter = Meter(number)
            for _ in range(number // batch):
                if batch == 1:
                    await bus.publish(SUBJECT, TelemetryEvent(state), delivery=CORE)
                else:
                    await bus.publish_many([TelemetryEvent(state) for _ in range(batch)], delivery=CORE)
            await meter.done.wait()

        await bus.subscribe(SUBJECT, handle if batch == 1 else handle_many, delivery=CORE)
        await move(WARM_UP)
        began, began_cpu = time.perf_counter(), time.process_time()
        await move(events)
        return events / (time.perf_counter() - began), time.process_time() - began_cpu


IN_MEMORY: dict[str, Callable[[int], Any]] = {
    "polaris": in_memory,
    "polaris-typed": partial(in_memory, full=False),
    "polaris-lists": partial(in_memory, batch=100),
}
RECEIVERS: dict[str, Role] = {
    "polaris": partial(sub, full=False),
    "polaris-full": sub,
    "polaris-many-100": partial(sub, shape="many"),
    "polaris-many-512": partial(sub, shape="many"),
    "polaris-columns": partial(sub, shape="columns"),
    "polaris-states": partial(sub, shape="states"),
    "polaris-prototype": partial(sub, broker=prototype_broker),
    "polaris-paced": partial(sub, shape="paced"),
    "polaris-stored-paced": partial(sub, shape="stored-paced"),
    "polaris-stored": partial(sub, shape="stored"),
    "polaris-single": partial(consume, many=False, durable="single"),
    "polaris-batch": partial(consume, many=True, durable="batch"),
    "polaris-batches": partial(consume, many=True, durable="batches"),
    "polaris-consumed-columns": partial(consume_columns, durable="columns", filled=True),
    "polaris-stored-columns": partial(consume_columns, durable="columns", filled=False),
}
SENDERS: dict[str, Role] = {
    "polaris": partial(pub, full=False),
    "polaris-full": pub,
    "polaris-many-100": partial(pub, shape="many"),
    "polaris-many-512": partial(pub, shape="many", batch=512),
    "polaris-columns": partial(pub, shape="columns"),
    "polaris-states": partial(pub, shape="columns"),
    "polaris-prototype": partial(pub, broker=prototype_broker),
    "polaris-paced": partial(pub, shape="paced"),
    "polaris-stored-paced": partial(pub, shape="stored-paced"),
    "polaris-stored": store_many,
    "polaris-stored-columns": store_columns,
    "polaris-many": store_many,
    "polaris-store-columns": store_columns,
    "polaris-telemetry-64": partial(store_telemetry, tasks=64),
    "polaris-telemetry-256": partial(store_telemetry, tasks=256),
    "polaris-telemetry-256x256": partial(store_telemetry, tasks=256, systems=256),
    "fill-single": store_single,
    "fill-batches": store_many,
    "fill-columns": store_columns,
}
