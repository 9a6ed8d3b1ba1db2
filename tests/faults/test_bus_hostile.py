"""Messages that nobody should have sent, one for each good one: the good are handled in order, the bad put aside."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import NamedTuple

import pytest
import zstandard
from tests.conftest import MakeNATSServer
from tests.faults.sizes import size

from polaris.clock import utc_now
from polaris.domain import SystemState, TelemetryEvent
from polaris.messaging import (
    CompressionMiddleware,
    DeadLetterReason,
    DeadLetterRecord,
    DeliveryClass,
    EventCodec,
    NATSMessageBroker,
    OutgoingMessage,
    PolarisMessageBus,
)

GOOD = size(1_000, 20_000)
"""As many hostile ones go between them."""
IN_FLIGHT = 128
TOPIC = "polaris.telemetry.web"
PATIENCE_S = size(60, 1_200)
SEED = 20_270_301
UNDECODABLE = DeadLetterReason.UNDECODABLE
ZSTD = {"content-encoding": "zstd"}


class Hostile(NamedTuple):
    """What is sent, and why it must be put aside."""

    payload: bytes
    headers: Mapping[str, str] | None = None
    reason: DeadLetterReason = UNDECODABLE


def envelope(**changes: object) -> bytes:
    """A good event whose envelope was changed; None leaves an attribute out."""
    event = json.loads(EventCodec().encode(TelemetryEvent(SystemState("web", utc_now()))))
    return json.dumps({name: value for name, value in {**event, **changes}.items() if value is not None}).encode()


def bomb(megabytes: int, *, declared: bool) -> bytes:
    """A frame of a few KiB that holds so much; one that does not say how much when not `declared`."""
    content = bytes(megabytes << 20)
    if declared:
        return zstandard.ZstdCompressor().compress(content)
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(content) + packer.flush()


BOMBS = [bomb(64, declared=True), bomb(64, declared=False), bomb(9, declared=True), bomb(9, declared=False)]
DEEP = 3_000
"""Beyond what Python nests; no more, since the dead letters would outgrow their stream."""

KINDS: dict[str, Callable[[random.Random], Hostile]] = {
    "random bytes": lambda draw: Hostile(draw.randbytes(draw.randint(1, 400))),
    "nothing": lambda _: Hostile(b""),
    "a frame cut short": lambda draw: Hostile(envelope()[: draw.randint(1, 200)]),
    "a compressed frame cut short": lambda draw: Hostile(zstandard.compress(envelope())[: draw.randint(1, 100)], ZSTD),
    "random bytes said to be compressed": lambda draw: Hostile(b"\x28\xb5\x2f\xfd" + draw.randbytes(200), ZSTD),
    "a bomb": lambda draw: Hostile(draw.choice(BOMBS), ZSTD),
    "bytes behind the compressed ones": lambda draw: Hostile(zstandard.compress(envelope()) + draw.randbytes(9), ZSTD),
    "an encoding that nobody knows": lambda draw: Hostile(draw.randbytes(50), {"content-encoding": "br"}),
    "arrays without end": lambda _: Hostile(b"[" * DEEP),
    "objects nested deeply": lambda _: Hostile(b'{"a":' * DEEP + b"1" + b"}" * DEEP),
    "deep data in a good envelope": lambda _: Hostile(
        envelope(data="DATA").replace(b'"DATA"', b'{"a":' * DEEP + b"1" + b"}" * DEEP)
    ),
    "an envelope of another version": lambda _: Hostile(envelope(specversion="0.3")),
    "a version that is none": lambda draw: Hostile(
        envelope(dataschema=f"urn:polaris:schema:polaris.telemetry:{draw.choice(['0', '-1', 'v1', '1e3', ''])}")
    ),
    "the schema of another type": lambda _: Hostile(envelope(dataschema="urn:polaris:schema:polaris.health:1")),
    "a type that nobody knows": lambda draw: Hostile(
        envelope(type=f"some.type{draw.random()}"), None, DeadLetterReason.UNKNOWN_TYPE
    ),
    "an event without its data": lambda _: Hostile(envelope(data=None)),
    "another encoding of characters": lambda _: Hostile(envelope().decode().encode("utf-16")),
    "broken UTF-8": lambda draw: Hostile(envelope(source="S").replace(b'"S"', b'"\xff\xfe' + draw.randbytes(3) + b'"')),
    "a lone surrogate": lambda _: Hostile(envelope(source="S").replace(b'"S"', b'"\\ud800"')),
    "a number beyond all bounds": lambda _: Hostile(
        envelope(data="DATA").replace(b'"DATA"', b'{"system_state":1e999999}')
    ),
}


@pytest.fixture
async def bus(make_nats_server: MakeNATSServer) -> AsyncIterator[PolarisMessageBus]:
    server = await make_nats_server()
    async with PolarisMessageBus(NATSMessageBroker(server.client_config()), [CompressionMiddleware()]) as bus:
        yield bus


async def send(bus: PolarisMessageBus, hostile: Hostile, message_id: str) -> None:
    """Past the bus, as a stranger would."""
    message = OutgoingMessage(TOPIC, hostile.payload, message_id, hostile.headers)
    await bus.broker.publish(message, delivery=DeliveryClass.AT_LEAST_ONCE)


@pytest.mark.parametrize("ordered", [False, True], ids=["one worker", "in order by topic"])
async def test_every_good_event_is_handled_in_order_and_every_hostile_message_put_aside_with_its_bytes(
    bus: PolarisMessageBus, ordered: bool
) -> None:
    draw = random.Random(SEED)
    kinds = list(KINDS)
    hostile = [KINDS[kinds[n % len(kinds)]](draw) for n in range(GOOD)]
    handled: list[str] = []

    async def handle(event: TelemetryEvent) -> None:
        handled.append(event.event_id)

    sent: list[str] = []
    for number, bad in enumerate(hostile):
        event = TelemetryEvent(SystemState("web", utc_now(), metadata={"long": "x" * 2_000} if number % 2 else {}))
        sent.append(event.event_id)
        await asyncio.gather(bus.publish(TOPIC, event), send(bus, bad, f"hostile-{number}"))
    subscription = await bus.subscribe(
        "polaris.telemetry.*",
        handle,
        durable="worker",
        in_flight_max=IN_FLIGHT,
        concurrency=4 if ordered else 1,
        ordered_by="topic" if ordered else None,
    )
    async with asyncio.timeout(PATIENCE_S):
        while (info := await subscription.info()) is None or info.pending or info.ack_pending or subscription.in_flight:
            await asyncio.sleep(0.05)
    assert handled == sent
    found = [await bus.dead_letters.show(letter.sequence) for letter in await all_letters(bus)]
    wanted = Counter((bad.payload, bad.reason, dict(bad.headers or {}).get("content-encoding")) for bad in hostile)
    assert wanted == Counter(
        (letter.entry.payload, letter.entry.reason, letter.entry.headers.get("content-encoding")) for letter in found
    )
    stats = subscription.stats
    assert (stats.handled, stats.dead_lettered, stats.failed, stats.redelivered) == (GOOD, GOOD, 0, 0)


async def all_letters(bus: PolarisMessageBus) -> list[DeadLetterRecord]:
    return await bus.dead_letters.list(count_max=10 * GOOD)
