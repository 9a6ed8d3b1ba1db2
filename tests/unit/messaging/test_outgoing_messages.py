"""What leaves a bus: by which id a stream knows it again and for how long, and how large it is."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tests.unit.messaging.doubles import STORED, health

from polaris.exceptions import PayloadTooLargeError
from polaris.messaging import (
    Capabilities,
    CompressionMiddleware,
    EventCodec,
    InMemoryMessageBroker,
    MessageContext,
    OutgoingMessage,
    PolarisMessageBus,
    Receipt,
    StreamSpec,
)
from polaris.messaging._batches import Batch, cut
from polaris.messaging._context import PayloadEncoding
from polaris.testing import running_clock


def batch(*ids: str) -> Batch:
    events = tuple(health(event_id=event_id) for event_id in ids)
    return Batch(events, (b"{}",) * len(events))


def test_the_id_of_a_batch_follows_from_all_of_its_events_and_nothing_else() -> None:
    assert batch("1", "2").message_id == batch("1", "2").message_id
    different = [batch("1", "2"), batch("1", "3"), batch("2", "1"), batch("1", "2", "3"), batch("1"), batch("12")]
    assert len({one.message_id for one in different}) == len(different)
    assert batch("1").message_id == "1"


def test_a_batch_holds_512_events_however_small_they_are() -> None:
    events = [health(event_id=str(number)) for number in range(1_025)]
    batches = list(cut(events, [b"{}"] * len(events), bytes_max=1 << 20))
    assert [len(one.events) for one in batches] == [512, 512, 1]


def test_events_that_just_fit_travel_in_one_message_and_a_byte_more_makes_it_two() -> None:
    codec, events = EventCodec(), [health(event_id=str(number)) for number in range(10)]
    encoded = [codec.encode(event) for event in events]
    size = len(codec.join(encoded))
    # A comma is reckoned for the last one too.
    assert [len(one.events) for one in cut(events, encoded, bytes_max=size + 1)] == [10]
    assert [len(one.events) for one in cut(events, encoded, bytes_max=size)] == [9, 1]
    assert [len(one.events) for one in cut(events[:1], encoded[:1], bytes_max=1)] == [1]
    assert list(cut([], [], bytes_max=size)) == []


async def test_a_message_id_is_forgotten_when_its_window_is_over() -> None:
    broker = InMemoryMessageBroker(clock=running_clock())
    await broker.connect()
    await broker.ensure_stream(StreamSpec(name="S", subjects=("s",), duplicate_window_s=100.0))

    async def publish() -> bool:
        return (await broker.publish(OutgoingMessage("s", b"x", "id"), delivery=STORED)).duplicate

    assert not await publish()
    await asyncio.sleep(90)
    assert await publish()
    await asyncio.sleep(11)
    assert not await publish(), "the window is counted from the first use"
    await asyncio.sleep(99)
    assert await publish()
    await broker.disconnect()


class Counting(InMemoryMessageBroker):
    """Counts what reaches it, and may change the limit that it tells, as a server of another configuration does."""

    sent = 0
    told_bytes_max = 1_000

    @property
    def capabilities(self) -> Capabilities:
        return msgspec.structs.replace(super().capabilities, payload_bytes_max=self.told_bytes_max)

    async def publish(self, message: OutgoingMessage, **options: Any) -> Receipt:
        self.sent += 1
        return await super().publish(message, **options)


async def test_an_oversized_event_does_not_reach_the_broker() -> None:
    clock = running_clock()
    broker = Counting(clock=clock, payload_bytes_max=1_000)
    async with PolarisMessageBus(broker, clock=clock) as bus:
        with pytest.raises(PayloadTooLargeError):
            await bus.publish("polaris.health.x", health("m" * 2_000))
        with pytest.raises(PayloadTooLargeError):
            await bus.publish_many([health("m" * 2_000)])
        assert broker.sent == 0
        await bus.publish("polaris.health.x", health("m"))
        assert broker.sent == 1


async def test_the_limit_is_that_of_the_server_that_is_connected_now() -> None:
    clock = running_clock()
    broker = Counting(clock=clock)
    bus = PolarisMessageBus(broker, clock=clock)
    async with bus:
        await bus.publish("polaris.health.x", health("m" * 400))
    broker.told_bytes_max = 500
    async with bus:
        with pytest.raises(PayloadTooLargeError) as refusal:
            await bus.publish("polaris.health.x", health("m" * 400))
        assert refusal.value.context["payload_bytes_max"] == 500
        assert broker.sent == 1
        broker.told_bytes_max = 1_000
        await bus.publish("polaris.health.x", health("m" * 400))
        assert broker.sent == 2


async def test_a_message_is_compressed_from_1_kib_on() -> None:
    encodings: list[PayloadEncoding | None] = []

    async def keep(context: MessageContext) -> None:
        encodings.append(context.encoding)

    await CompressionMiddleware().process(MessageContext("polaris.health.x", health()), keep)
    (encoding,) = encodings
    assert encoding is not None
    assert encoding.encode(b"a" * 1_023) is None
    assert encoding.encode(b"a" * 1_024) is not None
