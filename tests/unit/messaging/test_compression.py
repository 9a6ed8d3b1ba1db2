"""Compressed messages: who writes them, who reads them, and what becomes of bombs and broken frames."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import zstandard
from tests.unit.messaging.doubles import STORED, eventually, health, number_of, running_bus, telemetry

from polaris.domain import HealthEvent, TelemetryEvent
from polaris.exceptions import InvalidValueError, MessageDecodeError, PayloadTooLargeError
from polaris.messaging import (
    CompressionMiddleware,
    DeadLetterReason,
    EventCodec,
    InMemoryHub,
    MessageContext,
    NextHandler,
    OutgoingMessage,
    PolarisMessageBus,
    RedeliveryPolicy,
)
from polaris.messaging._content_encoding import DECOMPRESSED_BYTES_MAX, unpacked
from polaris.messaging.middleware._compression import ZstdEncoding

TOPIC = "polaris.telemetry.web"
MARK = {"content-encoding": "zstd"}
LONG = "word " * 1_000


@asynccontextmanager
async def watched_bus(
    hub: InMemoryHub, *middlewares: Any, **options: Any
) -> AsyncIterator[tuple[PolarisMessageBus, list[OutgoingMessage]]]:
    """A bus, and what it hands to its broker."""
    sent: list[OutgoingMessage] = []
    async with running_bus(hub, list(middlewares), **options) as bus:
        publish = bus.broker.publish

        async def note(message: OutgoingMessage, **how: Any) -> Any:
            sent.append(message)
            await asyncio.sleep(0.001)
            return await publish(message, **how)

        bus.broker.publish = note  # type: ignore[method-assign]
        yield bus, sent


async def send_marked(bus: PolarisMessageBus, payload: bytes, encoding: str = "zstd") -> None:
    message = OutgoingMessage(TOPIC, payload, None, {"content-encoding": encoding})
    await bus.broker.publish(message, delivery=STORED)


def headers_of(message: OutgoingMessage) -> dict[str, str]:
    return dict(message.headers or {})


# Writing and reading.


async def test_a_large_event_travels_compressed_and_is_read_by_a_bus_without_the_middleware() -> None:
    hub = InMemoryHub()
    received: list[HealthEvent] = []
    contexts: list[MessageContext] = []

    async def handle(event: HealthEvent, context: MessageContext) -> None:
        received.append(event)
        contexts.append(context)

    async with watched_bus(hub, CompressionMiddleware()) as (bus, sent), running_bus(hub) as other:
        await other.subscribe("polaris.health.*", handle)
        event = health(LONG)
        await bus.publish("polaris.health.store", event, headers={"kept": "yes"})
        await eventually(lambda: bool(received))
    assert [one.message for one in received] == [LONG]
    assert received[0].event_id == event.event_id
    assert headers_of(sent[0]) == {**MARK, "kept": "yes"}
    assert len(sent[0].payload) < len(LONG) / 10
    assert contexts[0].headers["content-encoding"] == "zstd"


async def test_a_batch_is_compressed_as_a_whole_and_its_events_arrive_in_order() -> None:
    hub = InMemoryHub()
    received: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        received.append(number_of(event))

    async with watched_bus(hub, CompressionMiddleware()) as (bus, sent):
        await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_many([telemetry(number) for number in range(200)])
        await eventually(lambda: len(received) == 200)
    assert received == [float(number) for number in range(200)]
    (message,) = sent
    assert headers_of(message) == MARK
    content = zstandard.decompress(message.payload)
    assert EventCodec.is_batch(content)
    assert len(message.payload) < len(content) / 5


async def test_gathered_telemetry_is_compressed_too() -> None:
    async with watched_bus(InMemoryHub(), CompressionMiddleware(threshold_bytes=100)) as (bus, sent):
        await asyncio.gather(*(bus.publish_telemetry(telemetry(number)) for number in range(50)))
    assert len(sent) == 2
    assert all(headers_of(message) == MARK for message in sent)


@pytest.mark.parametrize(
    ("middleware", "text", "compressed"),
    [
        (CompressionMiddleware(), "short", False),
        (CompressionMiddleware(threshold_bytes=1), "short" * 40, True),
        (CompressionMiddleware(decompressed_bytes_max=2_000), LONG, False),
    ],
    ids=["under the threshold", "over it", "more than a receiver takes"],
)
async def test_only_what_pays_and_can_be_read_is_compressed(
    middleware: CompressionMiddleware, text: str, compressed: bool
) -> None:
    async with watched_bus(InMemoryHub(), middleware) as (bus, sent):
        await bus.publish("polaris.health.store", health(text, event_id="1"))
    (message,) = sent
    assert headers_of(message) == (MARK if compressed else {})
    assert (message.payload[:1] == b"{") is not compressed


async def test_the_threshold_itself_is_compressed() -> None:
    event = health("a" * 900, correlation_id="c")
    size = len(EventCodec().encode(event))
    for threshold, headers in ((size, MARK), (size + 1, {})):
        async with watched_bus(InMemoryHub(), CompressionMiddleware(threshold_bytes=threshold)) as (bus, sent):
            await bus.publish("polaris.health.store", event)
        assert headers_of(sent[0]) == headers


def test_what_would_not_become_smaller_is_left_alone() -> None:
    encoding = ZstdEncoding(threshold_bytes=1, level=19, bytes_max=1 << 20)
    assert encoding.encode(Random(7).randbytes(10_000)) is None
    assert encoding.encode(b"x") is None
    assert encoding.encode(b"x" * 100) is not None


async def test_requests_are_compressed_only_when_asked_and_replies_never() -> None:
    async def answer(event: HealthEvent) -> HealthEvent:
        return health(event.message)

    for requests in (False, True):
        hub = InMemoryHub()
        async with watched_bus(hub, CompressionMiddleware(requests=requests)) as (bus, sent):
            asked: list[OutgoingMessage] = []
            request = bus.broker.request

            async def note(
                message: OutgoingMessage, *, timeout_s: float, request: Any = request, asked: Any = asked
            ) -> Any:
                asked.append(message)
                return await request(message, timeout_s=timeout_s)

            bus.broker.request = note  # type: ignore[method-assign]
            await bus.subscribe("polaris.health.*", answer)
            reply = await bus.request("polaris.health.store", health(LONG))
        assert isinstance(reply, HealthEvent)
        assert reply.message == LONG
        assert headers_of(asked[0]) == (MARK if requests else {})
        assert [headers_of(message) for message in sent] == [{}]


async def test_a_publish_that_a_middleware_repeats_is_compressed_every_time() -> None:
    async def twice(context: MessageContext, next_handler: NextHandler) -> Any:
        await next_handler(context)
        return await next_handler(context)

    async with watched_bus(InMemoryHub(), CompressionMiddleware(), twice) as (bus, sent):
        await bus.publish_many([telemetry(number, event_id=f"{number}") for number in range(50)])
    assert [headers_of(message) for message in sent] == [MARK, MARK]
    assert sent[0].payload == sent[1].payload


async def test_plain_json_is_read_whatever_the_header_says() -> None:
    """As a bridge leaves it that decompresses and keeps the headers."""
    received: list[str] = []

    async def handle(event: TelemetryEvent) -> None:
        received.append(event.event_id)

    async with running_bus(middlewares=[CompressionMiddleware()]) as bus:
        await bus.subscribe("polaris.telemetry.*", handle)
        await send_marked(bus, EventCodec().encode(telemetry(event_id="1")))
        await bus.publish(TOPIC, telemetry(event_id="2"), headers=MARK)
        await eventually(lambda: received == ["1", "2"])


async def test_a_header_of_the_publishers_own_does_not_mark_bytes_that_are_not_compressed() -> None:
    async with watched_bus(InMemoryHub(), CompressionMiddleware()) as (bus, sent):
        await bus.publish(TOPIC, telemetry(), headers=MARK)
    assert headers_of(sent[0]) == {}


async def test_an_event_over_the_brokers_limit_fits_when_it_is_compressed() -> None:
    long = health("word " * 500_000)
    received: list[HealthEvent] = []

    async def handle(event: HealthEvent) -> None:
        received.append(event)

    async with running_bus() as bus:
        with pytest.raises(PayloadTooLargeError):
            await bus.publish("polaris.health.store", long)
    async with running_bus(middlewares=[CompressionMiddleware()]) as bus:
        await bus.subscribe("polaris.health.*", handle)
        await bus.publish("polaris.health.store", long)
        await eventually(lambda: bool(received))
    assert received[0].message == long.message


# What cannot be read.


def bomb(size: int, *, declared: bool, window_log: int = 19) -> bytes:
    """Zeros that compress to next to nothing."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=window_log)
    if declared:
        return zstandard.ZstdCompressor(compression_params=parameters).compress(bytes(size))
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(bytes(size)) + compressor.flush()


def lying(frame: bytes, size: int) -> bytes:
    """The frame with another content size in its header, where it takes 8 bytes."""
    params = zstandard.get_frame_parameters(frame)
    assert params.content_size > 0xFFFF_FFFF or frame[4] >> 6 == 2, "a field of 4 bytes"
    single = frame[4] >> 5 & 1
    start = 5 + (0 if single else 1)
    return frame[:start] + size.to_bytes(4, "little") + frame[start + 4 :]


GOOD = zstandard.ZstdCompressor(level=1).compress(EventCodec().encode(health(LONG)))
_streaming = zstandard.ZstdCompressor(level=1).compressobj()
STREAMED = _streaming.compress(EventCodec().encode(health(LONG))) + _streaming.flush()
BROKEN = {
    "a bomb that says how large it is": bomb(64 << 20, declared=True),
    "a bomb that does not": bomb(64 << 20, declared=False),
    "a bomb that lies": lying(bomb(64 << 20, declared=True), 1_000),
    "a window of 128 MiB": bomb(10_000, declared=False, window_log=27),
    "cut off": GOOD[:-3],
    "cut off in the header": GOOD[:5],
    "a frame with something behind it": GOOD + b"{}",
    "two frames": GOOD + GOOD,
    "a frame of unknown size with something behind it": STREAMED + b"{}",
    "two frames of unknown size": STREAMED * 2,
    "one bit wrong": GOOD[:40] + bytes([GOOD[40] ^ 0x10]) + GOOD[41:],
    "no frame at all": b"words",
    "nothing": b"",
    "zeros within bounds": bomb(10_000, declared=True),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_bomb_or_broken_frame_is_put_aside_with_its_bytes_and_harms_nobody(name: str) -> None:
    received: list[str] = []

    async def handle(event: HealthEvent) -> None:
        received.append(event.message)

    async with running_bus(redelivery=RedeliveryPolicy(max_deliveries=3)) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await send_marked(bus, BROKEN[name])
        await send_marked(bus, GOOD)
        await send_marked(bus, STREAMED)
        await eventually(lambda: subscription.stats.dead_lettered == 1 and len(received) == 2)
        (record,) = await bus.dead_letters.list()
    assert received == [LONG, LONG]
    assert record.entry.reason is DeadLetterReason.UNDECODABLE
    assert record.entry.error_code == "polaris.bus.decode"
    assert record.entry.payload == BROKEN[name]
    assert record.entry.headers["content-encoding"] == "zstd"
    assert subscription.stats.retried == 0


@pytest.mark.parametrize("name", ["gzip", "br", "zstd, gzip", "ZSTD", "x" * 500])
async def test_another_encoding_is_put_aside_and_named(name: str) -> None:
    async def handle(event: HealthEvent) -> None: ...

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await send_marked(bus, b"\x1f\x8b\x08", name)
        await eventually(lambda: subscription.stats.dead_lettered == 1)
        (record,) = await bus.dead_letters.list()
    assert name[:64] in record.entry.error_message
    assert len(record.entry.error_message) < 200


@pytest.mark.parametrize("name", [name for name in BROKEN if "bomb" in name or "window" in name])
def test_no_room_is_made_for_a_bomb(name: str) -> None:
    with pytest.raises(MessageDecodeError):
        unpacked(b"(", MARK)  # whatever is made once is made now
    tracemalloc.start()
    try:
        with pytest.raises(MessageDecodeError):
            unpacked(BROKEN[name], MARK, bytes_max=1 << 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < (1 << 20) + 100_000


def test_the_bound_is_exact_for_both_kinds_of_frame() -> None:
    for declared in (True, False):
        frame = bomb(5_000, declared=declared)
        assert unpacked(frame, MARK, bytes_max=5_000) == bytes(5_000)
        with pytest.raises(MessageDecodeError):
            unpacked(frame, MARK, bytes_max=4_999)
    assert DECOMPRESSED_BYTES_MAX == 8 << 20


async def test_a_bus_with_the_middleware_holds_to_its_own_bound() -> None:
    async def handle(event: HealthEvent) -> None: ...

    async with running_bus(middlewares=[CompressionMiddleware(decompressed_bytes_max=4_096)]) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await send_marked(bus, GOOD)
        await eventually(lambda: subscription.stats.dead_lettered == 1)


async def test_a_compressed_message_comes_back_from_the_dead_letters() -> None:
    received: list[str] = []
    broken = True

    async def handle(event: TelemetryEvent) -> None:
        if broken:
            raise KeyError("x")
        received.append(event.event_id)

    policy = RedeliveryPolicy(max_deliveries=1)
    async with running_bus(middlewares=[CompressionMiddleware(threshold_bytes=1)], redelivery=policy) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        events = [telemetry(number, event_id=f"e{number}") for number in range(30)]
        await bus.publish(TOPIC, events[0])
        await bus.publish_many(events[1:])
        await eventually(lambda: subscription.stats.dead_lettered == 30)
        broken = False
        for record in await bus.dead_letters.list():
            await bus.dead_letters.replay(record.sequence)
        await eventually(lambda: len(received) == 30)
    assert sorted(received) == sorted(event.event_id for event in events)


# Construction.


@pytest.mark.parametrize(
    "options",
    [
        {"threshold_bytes": 0},
        {"threshold_bytes": 1.5},
        {"threshold_bytes": True},
        {"level": 0},
        {"level": 20},
        {"level": "fast"},
        {"decompressed_bytes_max": 1_023},
        {"decompressed_bytes_max": None},
    ],
)
def test_nonsense_is_refused_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        CompressionMiddleware(**options)
