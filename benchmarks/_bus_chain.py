"""What an event costs inside the process: each middleware on each side, and where the rest of the time goes.

Everything runs in one process without a server; what is counted is processor time, and of all rounds the least
disturbed one. A part that cannot be called alone is the difference of two wholes.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from _bus_common import METRICS, SAMPLED, SUBJECT, Meter, sample, tracer
from _bus_polaris import full_chain, in_memory
from _harness import print_table
from _protocol_prototype import PrototypeBroker

from polaris.domain import TelemetryEvent
from polaris.messaging import (
    CircuitBreakerMiddleware,
    CompressionMiddleware,
    CorrelationMiddleware,
    DeduplicationMiddleware,
    DeliveryClass,
    InMemoryMessageBroker,
    LoggingMiddleware,
    MessageContext,
    MessageDirection,
    MessageMiddleware,
    MetricsMiddleware,
    MiddlewareChain,
    OutgoingMessage,
    PolarisMessageBus,
    RateLimitMiddleware,
    Receipt,
    RetryMiddleware,
    TracingMiddleware,
    ValidationMiddleware,
)
from polaris.messaging._batches import Batch, cut
from polaris.messaging._broker import OnDelivery
from polaris.messaging._cloudevents import EventCodec
from polaris.messaging.brokers._nats_delivery import CoreDelivery
from polaris.observability import LoggingConfig, MetricsCollector, StructuredLogger
from polaris.resilience import CircuitBreaker, RateLimiter, RateLimiterConfig, RetryPolicy

CALLS = 4_000
BATCH = 100
CORE = DeliveryClass.AT_MOST_ONCE
CORRELATION_ID = "0123456789abcdef0123456789abcdef"

Work = Callable[[], Awaitable[None]]
"""Does `CALLS` times what is measured."""


class NullBroker(PrototypeBroker):
    """Sends nothing, and notes the first payloads; what it receives is handed to it."""

    def __init__(self) -> None:
        super().__init__("")
        self.on_delivery: OnDelivery | None = None
        self.notes: list[bytes] | None = []

    async def connect(self) -> None:
        pass

    async def disconnect(self) -> None:
        pass

    async def publish(
        self, message: OutgoingMessage, *, delivery: DeliveryClass = CORE, timeout_s: float = 5.0
    ) -> Receipt:
        if self.notes is not None:
            self.notes.append(message.payload)
        return Receipt(delivery=CORE, message_id=message.message_id)

    async def subscribe(self, pattern: str, on_delivery: OnDelivery, *, group: str | None = None) -> Any:
        self.on_delivery = on_delivery
        return self

    async def unsubscribe(self) -> None:
        pass


def nothing() -> None:
    pass


async def least_us(works: Mapping[str, Work], rounds: int, *, renew: Callable[[], None] = nothing) -> dict[str, float]:
    """Microseconds of processor time of one call of each, in the least disturbed round; they take turns."""
    found = dict.fromkeys(works, float("inf"))
    for _ in range(rounds + 1):
        renew()
        for name, work in works.items():
            gc.collect()
            began = time.process_time()
            await work()
            found[name] = min(found[name], (time.process_time() - began) / CALLS * 1e6)
    return found


# --- Each middleware ---


CORRELATION = "correlation (in every bus)"
ALL = "correlation, tracing, logging and metrics"


def middlewares() -> dict[str, list[MessageMiddleware]]:
    """Each as set up in an application, inside the correlation that every bus has."""
    logger = StructuredLogger("bench", LoggingConfig(level="info"))
    limiter = RateLimiter("bench", RateLimiterConfig(max_calls=1_000_000_000))
    alone: dict[str, list[MessageMiddleware]] = {
        "tracing, 1 % of the traces": [TracingMiddleware(tracer(), SAMPLED)],
        "logging, info": [LoggingMiddleware(logger)],
        "metrics": [MetricsMiddleware(MetricsCollector())],
        "deduplication": [DeduplicationMiddleware()],
        "validation": [ValidationMiddleware()],
        "compression (below its threshold)": [CompressionMiddleware()],
        "rate limit": [RateLimitMiddleware(limiter)],
        "circuit breaker": [CircuitBreakerMiddleware(CircuitBreaker("bench"))],
        "retry": [RetryMiddleware(RetryPolicy())],
        ALL: full_chain(),
    }
    within = {name: [CorrelationMiddleware(), *chain] for name, chain in alone.items()}
    return {CORRELATION: [CorrelationMiddleware()], **within}


def through_chain(
    chain: Sequence[MessageMiddleware], direction: MessageDirection, events: Sequence[TelemetryEvent]
) -> Work:
    """Messages through the chain alone. On publish they come without a correlation id, on delivery with one."""
    receipt = Receipt(delivery=CORE, message_id=None)
    publishing = direction is MessageDirection.PUBLISH

    async def final(context: MessageContext) -> Receipt:
        context.result = receipt
        return receipt

    run = MiddlewareChain(chain).bind(final)

    async def work() -> None:
        for event in events:
            correlation_id = None if publishing else CORRELATION_ID
            await run(MessageContext(SUBJECT, event, direction, {}, correlation_id, "polaris.telemetry", delivery=CORE))

    return work


async def chain_rows(rounds: int) -> list[Sequence[str]]:
    added: dict[MessageDirection, dict[str, float]] = {}
    events: list[TelemetryEvent] = []
    state = sample()

    def renew() -> None:
        """Nobody has seen these: what knows an event again passes it over."""
        events[:] = [TelemetryEvent(state) for _ in range(CALLS)]

    for direction in MessageDirection:
        works = {name: through_chain(chain, direction, events) for name, chain in {"": [], **middlewares()}.items()}
        found = await least_us(works, rounds, renew=renew)
        bare, within = found.pop(""), found[CORRELATION]
        added[direction] = {name: us - (bare if name in (CORRELATION, ALL) else within) for name, us in found.items()}
    publish, deliver = added[MessageDirection.PUBLISH], added[MessageDirection.DELIVER]
    return [(name, f"{publish[name]:.2f}", f"{deliver[name]:.2f}") for name in publish]


# --- The whole bus, without a broker ---


class Wholes:
    """A bus on the broker that does nothing, from both sides."""

    def __init__(self, chain: Sequence[MessageMiddleware], *, batch: bool) -> None:
        self._broker = NullBroker()
        self._bus = PolarisMessageBus(self._broker, chain, streams=())
        self._batch = batch
        self._meter = Meter(0)
        self._events = [TelemetryEvent(sample()) for _ in range(CALLS)]
        self._payloads: list[bytes] = []

    async def open(self) -> None:
        await self._bus.start()

        async def handle(event: TelemetryEvent) -> None:
            self._meter.add()

        async def handle_many(events: list[TelemetryEvent]) -> None:
            self._meter.add(len(events))

        await self._bus.subscribe(SUBJECT, handle_many if self._batch else handle, delivery=CORE)
        await self.publish()
        self._payloads, self._broker.notes = self._broker.notes or [], None

    async def close(self) -> None:
        await self._bus.stop()

    async def publish(self) -> None:
        if self._batch:
            for at in range(0, CALLS, BATCH):
                await self._bus.publish_many(self._events[at : at + BATCH], delivery=CORE)
        else:
            for event in self._events:
                await self._bus.publish(SUBJECT, event, delivery=CORE)

    async def deliver(self) -> None:
        self._meter = Meter(CALLS)
        assert self._broker.on_delivery is not None
        for payload in self._payloads:
            await self._broker.on_delivery(CoreDelivery(SUBJECT, payload, None, None))
        await self._meter.done.wait()


# --- The parts ---


class BareMetric(msgspec.Struct, frozen=True, gc=False):
    """A reading that nobody checks."""

    name: str
    value: float | None = None
    unit: str | None = None


class BareState(msgspec.Struct, frozen=True):
    """A state that nobody checks."""

    system_id: str
    timestamp: datetime
    metrics: dict[str, BareMetric]
    health_status: str = ""


class BareData(msgspec.Struct, frozen=True):
    system_state: BareState


class BareEnvelope(msgspec.Struct, frozen=True):
    """The event in its envelope, as quick as msgspec reads it."""

    specversion: str
    type: str
    id: str
    source: str
    time: datetime
    data: BareData
    correlationid: str | None = None


def over(calls: int, call: Callable[[], object]) -> Work:
    """`CALLS` events' worth of a plain function of which each call handles `CALLS / calls` of them."""

    async def work() -> None:
        for _ in range(calls):
            call()

    return work


def single_parts() -> dict[str, Work]:
    codec, state = EventCodec(), sample()
    event = TelemetryEvent(state)
    payload = codec.encode(event, correlation_id=CORRELATION_ID)
    codec.decode(payload)
    bare = msgspec.json.Decoder(BareEnvelope)
    return {
        "make": over(CALLS, lambda: TelemetryEvent(state)),
        "encode": over(CALLS, lambda: codec.encode(event, correlation_id=CORRELATION_ID)),
        "decode": over(CALLS, lambda: codec.decode(payload)),
        "decode unchecked": over(CALLS, lambda: bare.decode(payload)),
    }


def batch_parts() -> dict[str, Work]:
    codec = EventCodec()
    events = [TelemetryEvent(sample()) for _ in range(BATCH)]
    encoded = [codec.encode(event, correlation_id=CORRELATION_ID) for event in events]
    payload = codec.join(encoded)
    codec.decode_batch(payload)
    bare = msgspec.json.Decoder(list[BareEnvelope])

    def cut_and_join() -> None:
        for batch in cut(events, encoded, bytes_max=1 << 18):
            codec.join(batch.encoded)
            _ = Batch(batch.events, batch.encoded).message_id

    def encode() -> None:
        for event in events:
            codec.encode(event, correlation_id=CORRELATION_ID)

    return {
        "encode": over(CALLS // BATCH, encode),
        "cut": over(CALLS // BATCH, cut_and_join),
        "decode": over(CALLS // BATCH, lambda: codec.decode_batch(payload)),
        "decode unchecked": over(CALLS // BATCH, lambda: bare.decode(payload)),
    }


async def broker_alone() -> tuple[InMemoryMessageBroker, Work]:
    """The in-memory broker from publish to a callback that does nothing."""
    broker, meter = InMemoryMessageBroker(), Meter(0)
    payload = EventCodec().encode(TelemetryEvent(sample()), correlation_id=CORRELATION_ID)
    await broker.connect()

    async def on_delivery(_: object) -> None:
        meter.add()

    await broker.subscribe(SUBJECT, on_delivery)

    async def work() -> None:
        meter.count, meter.wanted = 0, CALLS
        meter.done.clear()
        for _ in range(CALLS):
            await broker.publish(OutgoingMessage(SUBJECT, payload, "id"))
        await meter.done.wait()

    return broker, work


async def single_rows(rounds: int) -> list[Sequence[str]]:
    """From making an event to its handler in one process over the in-memory broker, part by part."""
    bare, full = Wholes([], batch=False), Wholes(full_chain(), batch=False)
    broker, alone = await broker_alone()
    await bare.open()
    await full.open()

    works: dict[str, Work] = {
        **single_parts(),
        "broker": alone,
        "publish": full.publish,
        "publish bare": bare.publish,
        "deliver": full.deliver,
        "deliver bare": bare.deliver,
    }
    us = await least_us(works, rounds)
    us["whole"] = min([(await in_memory(CALLS))[1] for _ in range(rounds + 1)]) / CALLS * 1e6
    for one in (bare, full, broker):
        await (one.close() if isinstance(one, Wholes) else one.disconnect())
    chain_out, chain_in = us["publish"] - us["publish bare"], us["deliver"] - us["deliver bare"]
    parts = {
        "making the event": us["make"],
        "publish: encoding": us["encode"],
        "publish: tracing, logging, metrics": chain_out,
        "publish: correlation, context, receipt, the rest of the bus": us["publish"] - us["encode"] - chain_out,
        "the in-memory broker, both sides": us["broker"],
        "delivery: decoding": us["decode unchecked"],
        "delivery: checks of names, values and times, FrozenDict, event": us["decode"] - us["decode unchecked"],
        "delivery: tracing, logging, metrics": chain_in,
        "delivery: queue, worker, correlation, context, settlement": us["deliver"] - us["decode"] - chain_in,
    }
    rows: list[Sequence[str]] = [(name, f"{each:.2f}", f"{each / us['whole']:.0%}") for name, each in parts.items()]
    rows.append(("sum of the parts", f"{sum(parts.values()):.2f}", f"{sum(parts.values()) / us['whole']:.0%}"))
    rows.append(("measured as a whole", f"{us['whole']:.2f}", "100%"))
    return rows


async def batch_rows(rounds: int) -> list[Sequence[str]]:
    """An event of those that travel 100 a message, on each side."""
    full = Wholes(full_chain(), batch=True)
    await full.open()
    us = await least_us({**batch_parts(), "publish": full.publish, "deliver": full.deliver}, rounds)
    make = (await least_us({"make": single_parts()["make"]}, rounds))["make"]
    await full.close()
    checks = us["decode"] - us["decode unchecked"]
    return [
        ("publisher: making the event", f"{make:.2f}"),
        ("publisher: encoding", f"{us['encode']:.2f}"),
        ("publisher: cutting, joining, the message's id", f"{us['cut']:.2f}"),
        ("publisher: the rest of publish_many", f"{us['publish'] - us['encode'] - us['cut']:.2f}"),
        ("publisher, all", f"{make + us['publish']:.2f}"),
        ("subscriber: decoding", f"{us['decode unchecked']:.2f}"),
        (f"subscriber: checks of {len(METRICS)} readings, state and event", f"{checks:.2f}"),
        ("subscriber: the rest", f"{us['deliver'] - us['decode']:.2f}"),
        ("subscriber, all", f"{us['deliver']:.2f}"),
    ]


def print_tables(*, rounds: int) -> None:
    title = f"What a middleware adds to a message, us of processor time (least of {rounds} rounds of {CALLS:,})"
    print_table(title, ("middleware", "publish", "delivery"), asyncio.run(chain_rows(rounds)))
    title = f"Where a single event's time goes, in one process (least of {rounds} rounds of {CALLS:,})"
    print_table(title, ("part", "us", "share"), asyncio.run(single_rows(rounds)))
    title = f"Where the time of an event goes that travels with 99 others (least of {rounds} rounds of {CALLS:,})"
    print_table(title, ("part", "us"), asyncio.run(batch_rows(rounds)))
