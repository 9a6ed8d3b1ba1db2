"""MessagePack beside JSON: the same events, told apart by the first byte, named by the content type."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.messaging.doubles import NOW, eventually, health, publish_raw, running_bus, telemetry

from polaris.domain import EVENTS, EventRegistry, HealthEvent, PolarisEvent, TelemetryBatch, TelemetryEvent
from polaris.exceptions import MessageDecodeError, UnknownEventTypeError
from polaris.messaging import (
    CompressionMiddleware,
    DeadLetterReason,
    EventCodec,
    InMemoryHub,
    Undecodable,
    WireFormat,
)
from polaris.messaging._asyncapi_examples import EXAMPLES
from polaris.messaging._wire_format import array_head, is_msgpack, is_msgpack_array

PACKED = EventCodec(wire_format=WireFormat.MSGPACK)
PLAIN = EventCodec()


@pytest.mark.parametrize("event_class", list(EXAMPLES), ids=lambda event_class: event_class.__name__)
def test_every_event_is_the_same_in_both_forms(event_class: type[PolarisEvent]) -> None:
    event = EXAMPLES[event_class]()
    packed = PACKED.encode(event, traceparent="00-a-b-01", sequence="7")
    assert is_msgpack(packed)
    for reader in (PACKED, PLAIN):
        found = reader.decode(packed)
        assert found.event == event
        assert (found.traceparent, found.sequence) == ("00-a-b-01", "7")
    assert not is_msgpack(PLAIN.encode(event))
    assert PACKED.decode(PLAIN.encode(event)).event == event


@pytest.mark.parametrize("count", [1, 2, 15, 16, 300, 70_000])
def test_the_head_of_an_array_is_that_of_the_format(count: int) -> None:
    packed = array_head(count) + b"\x00" * count
    assert is_msgpack_array(packed)
    assert msgspec.msgpack.decode(packed) == [0] * count


@pytest.mark.parametrize("count", [1, 2, 15, 16, 500])
def test_a_batch_holds_its_members_in_order(count: int) -> None:
    events = [telemetry(n, event_id=f"e{n}") for n in range(count)]
    payload = PACKED.join([PACKED.encode(event) for event in events])
    assert PLAIN.is_batch(payload)
    found = PLAIN.decode_batch(payload)
    assert [one.event for one in found if not isinstance(one, Undecodable)] == events


def test_a_bad_member_of_a_batch_harms_no_other_and_keeps_its_bytes() -> None:
    good, bad = PACKED.encode(telemetry(1)), msgspec.msgpack.encode({"type": "nobody.knows", "specversion": "1.0"})
    first, second, third = PLAIN.decode_batch(PACKED.join([good, bad, good]))
    assert not isinstance(first, Undecodable)
    assert not isinstance(third, Undecodable)
    assert isinstance(second, Undecodable)
    assert second.payload == bad
    assert isinstance(second.error, UnknownEventTypeError)


def test_data_of_an_older_version_are_lifted_in_this_form_too() -> None:
    registry = EventRegistry(parent=EVENTS)

    class Oven(PolarisEvent, frozen=True):
        celsius: float

    registry.register(Oven, "acme.oven", version=2)
    registry.upcast("acme.oven", 1, lambda data: {"celsius": (data["fahrenheit"] - 32) / 1.8})
    old = {
        "specversion": "1.0",
        "type": "acme.oven",
        "id": "1",
        "source": "x",
        "time": NOW,
        "dataschema": "urn:polaris:schema:acme.oven:1",
        "data": {"fahrenheit": 392.0},
    }
    event = EventCodec(registry).decode(msgspec.msgpack.encode(old)).event
    assert isinstance(event, Oven)
    assert event.celsius == pytest.approx(200.0)


HOSTILE = [
    b"\x80",
    b"\x81",
    b"\xff",
    b"\xc1",
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\x91" * 5_000,
    b"\x81\xa1a" * 5_000,
    msgspec.msgpack.encode({"specversion": "1.0", "type": "polaris.health"}),
    msgspec.msgpack.encode({1: 2}),
    msgspec.msgpack.encode({"specversion": "1.0", "type": "polaris.health", "id": b"\x00\xff"}),
]


@pytest.mark.parametrize("payload", HOSTILE, ids=range(len(HOSTILE)))
def test_bytes_that_are_no_event_raise_nothing_else(payload: bytes) -> None:
    with pytest.raises(MessageDecodeError):
        PLAIN.decode(payload)


@given(st.binary(min_size=1, max_size=200).map(lambda rest: bytes((rest[0] | 0x80,)) + rest[1:]))
def test_random_bytes_of_this_form_raise_nothing_else(payload: bytes) -> None:
    for read in (PLAIN.decode, PLAIN.decode_batch):
        try:
            read(payload)
        except MessageDecodeError:
            continue


@given(st.dictionaries(st.text(max_size=8), st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()))
def test_values_that_json_cannot_carry_are_refused_on_the_way_in_too(changes: dict[str, Any]) -> None:
    envelope = {
        "specversion": "1.0",
        "type": "polaris.config.changed",
        "id": "1",
        "source": "x",
        "data": {"changes": changes},
    }
    try:
        event = PLAIN.decode(msgspec.msgpack.encode(envelope)).event
    except MessageDecodeError:
        return
    json.loads(PLAIN.encode(event))


async def test_a_bus_that_writes_msgpack_is_understood_by_one_that_writes_json() -> None:
    hub = InMemoryHub()
    seen: list[PolarisEvent] = []
    headers: list[str | None] = []

    async def note(event: PolarisEvent) -> None:
        seen.append(event)

    async with running_bus(hub) as reader, running_bus(hub, wire_format=WireFormat.MSGPACK) as writer:
        await reader.subscribe("polaris.telemetry.*", note, event_type=TelemetryEvent, durable="all")
        events = [telemetry(n) for n in range(3)]
        await writer.publish("polaris.telemetry.web", events[0])
        await writer.publish_many(events[1:])
        await eventually(lambda: len(seen) >= 3)
        for message in await reader.broker.read_stored("POLARIS_TELEMETRY"):
            headers.append(message.headers.get("content-type"))
            assert is_msgpack(message.payload)
    assert headers == ["application/cloudevents+msgpack", "application/cloudevents-batch+msgpack"]
    assert {event.event_id for event in events} == {event.event_id for event in seen}


async def test_requests_are_answered_in_the_form_of_the_answering_bus() -> None:
    hub = InMemoryHub()

    async def answer(event: HealthEvent) -> HealthEvent:
        return health("answered")

    async with running_bus(hub) as asking, running_bus(hub, wire_format=WireFormat.MSGPACK) as answering:
        await answering.subscribe("acme.ask", answer)
        await asking.subscribe("acme.ask2", answer)
        for one, topic in ((asking, "acme.ask"), (answering, "acme.ask2")):
            reply = await one.request(topic, health("?"))
            assert isinstance(reply, HealthEvent)
            assert reply.message == "answered"


async def test_it_can_be_compressed() -> None:
    hub = InMemoryHub()
    seen: list[HealthEvent] = []

    async def note(event: HealthEvent) -> None:
        seen.append(event)

    compression = [CompressionMiddleware(threshold_bytes=100)]
    async with running_bus(hub, compression, wire_format=WireFormat.MSGPACK) as bus:
        await bus.subscribe("polaris.adaptations.web", note, durable="n")
        await bus.publish("polaris.adaptations.web", health("x" * 900))
        await eventually(lambda: bool(seen))
        (message,) = await bus.broker.read_stored("POLARIS_ADAPTATIONS")
    assert len(message.payload) < 500
    assert message.headers["content-encoding"] == "zstd"
    assert message.headers["content-type"] == "application/cloudevents+msgpack"


async def test_a_broken_message_becomes_a_dead_letter_with_its_bytes() -> None:
    async def note(event: TelemetryEvent) -> None: ...

    async with running_bus(wire_format=WireFormat.MSGPACK) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", note, durable="n")
        await publish_raw(bus, "polaris.telemetry.web", HOSTILE[0])
        await eventually(lambda: subscription.stats.dead_lettered == 1)
        (letter,) = await bus.dead_letters.list()
    assert letter.entry.payload == HOSTILE[0]
    assert letter.entry.reason is DeadLetterReason.UNDECODABLE


def test_msgpack_is_smaller() -> None:
    events: list[PolarisEvent] = [
        telemetry(1),
        TelemetryBatch.from_states([telemetry(n).system_state for n in range(9)]),
    ]
    for event in events:
        assert len(PACKED.encode(event)) < len(PLAIN.encode(event))
