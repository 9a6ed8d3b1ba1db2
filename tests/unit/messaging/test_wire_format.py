"""MessagePack beside JSON: the same events, told apart by the first byte, named by the content type."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.messaging.doubles import NOW, STORED, eventually, health, publish_raw, running_bus, telemetry

from polaris.domain import EVENTS, EventRegistry, HealthEvent, PolarisEvent, TelemetryBatch, TelemetryEvent
from polaris.exceptions import InvalidValueError, MessageDecodeError, UnknownEventTypeError
from polaris.messaging import (
    CompressionMiddleware,
    DeadLetterReason,
    EventCodec,
    InMemoryHub,
    OutgoingMessage,
    RedeliveryPolicy,
    Undecodable,
    WireFormat,
)
from polaris.messaging._asyncapi_examples import EXAMPLES
from polaris.messaging._wire_format import array_count, array_head, has_more_members, is_msgpack, is_msgpack_array

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
    assert array_count(packed) == count


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


class Inner(msgspec.Struct, frozen=True):
    weights: tuple[float, ...] = ()
    deeper: Inner | None = None


class Oven(PolarisEvent, frozen=True):
    celsius: float | None = None
    tree: dict[str, Any] = msgspec.field(default_factory=dict)
    by_name: dict[str, list[float | None]] = msgspec.field(default_factory=dict)
    inner: Inner | None = None
    note: str = ""


OVENS = EventRegistry(parent=EVENTS)
OVENS.register(Oven, "acme.oven")
ANY_FLOAT = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf])
FORMS = {form: EventCodec(OVENS, wire_format=form) for form in WireFormat}
TREES = st.recursive(
    st.none() | st.booleans() | ANY_FLOAT | st.sampled_from(["null", "nan", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
OVEN = st.builds(
    Oven,
    celsius=ANY_FLOAT | st.none(),
    tree=st.dictionaries(st.text(max_size=3), TREES, max_size=3),
    by_name=st.dictionaries(st.text(max_size=3), st.lists(ANY_FLOAT | st.none(), max_size=3), max_size=2),
    inner=st.none() | st.builds(Inner, st.tuples(ANY_FLOAT), st.none() | st.builds(Inner, st.tuples(ANY_FLOAT))),
    note=st.sampled_from(["", "null", "\u02bf"]),
    timestamp=st.just(NOW),
)


def finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, msgspec.Struct):
        return all(finite(getattr(value, name)) for name in value.__struct_fields__)
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    return not isinstance(value, list | tuple) or all(map(finite, value))


@given(OVEN, st.sampled_from(list(WireFormat)))
def test_an_event_is_written_if_and_only_if_all_its_numbers_are_finite_and_comes_back_the_same(
    event: Oven, form: WireFormat
) -> None:
    try:
        written = FORMS[form].encode(event)
    except InvalidValueError:
        assert not finite(event)
        return
    assert finite(event)
    assert FORMS[form].decode(written).event == event


@given(OVEN)
def test_numbers_that_are_not_finite_are_refused_when_they_come_as_msgpack(event: Oven) -> None:
    data = {name: getattr(event, name) for name in ("celsius", "tree", "by_name", "inner", "note")}
    packed = msgspec.msgpack.encode(
        {"specversion": "1.0", "type": "acme.oven", "id": "1", "source": "x", "time": NOW, "data": data}
    )
    codec = FORMS[WireFormat.JSON]
    good = FORMS[WireFormat.MSGPACK].encode(Oven(1.0))
    first, second = codec.decode_batch(array_head(2) + packed + good)
    assert not isinstance(second, Undecodable)
    if finite(event):
        assert codec.decode(packed).event.tree == event.tree  # type: ignore[attr-defined]
        assert not isinstance(first, Undecodable)
    else:
        with pytest.raises(MessageDecodeError):
            codec.decode(packed)
        assert isinstance(first, Undecodable)


@pytest.mark.parametrize("version", [1, 2])
def test_a_number_that_is_not_finite_is_refused_whatever_version_its_data_are_of(version: int) -> None:
    registry = EventRegistry(parent=EVENTS)

    class Kiln(PolarisEvent, frozen=True):
        celsius: float | None

    registry.register(Kiln, "acme.kiln", version=2)
    registry.upcast("acme.kiln", 1, lambda data: data)
    message = {
        "specversion": "1.0",
        "type": "acme.kiln",
        "id": "1",
        "source": "x",
        "dataschema": f"urn:polaris:schema:acme.kiln:{version}",
        "data": {"celsius": math.nan},
    }
    with pytest.raises(MessageDecodeError, match="finite"):
        EventCodec(registry).decode(msgspec.msgpack.encode(message))


def test_an_unknown_type_is_told_apart_though_its_numbers_are_not_finite() -> None:
    message = {"specversion": "1.0", "type": "nobody.knows", "id": "1", "source": "x", "data": {"n": math.inf}}
    with pytest.raises(UnknownEventTypeError):
        PLAIN.decode(msgspec.msgpack.encode(message))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
@pytest.mark.parametrize("others", [(), (None,), (1, 2.0)])
def test_a_column_of_telemetry_holds_finite_numbers_only(value: float, others: tuple[float | None, ...]) -> None:
    column = (*others, value)
    with pytest.raises(InvalidValueError, match=r"metrics\.load"):
        TelemetryBatch("web", (NOW,) * len(column), {"load": column})


def test_a_column_of_huge_numbers_is_taken_though_no_float_can_hold_their_sum() -> None:
    assert TelemetryBatch("web", (NOW, NOW), {"load": (1.7e308, 1.7e308)}).metrics["load"] == (1.7e308, 1.7e308)


MEMBERS = {
    "msgpack": b"\xdd" + (4 << 20).to_bytes(4, "big") + b"\x00" * (4 << 20),
    "json": b"[" + b"0," * ((2 << 20) - 1) + b"0]",
    "json of lists": b"[" + b"[],\n" * ((1 << 20) - 1) + b"{}]",
}


@pytest.mark.parametrize("payload", MEMBERS.values(), ids=list(MEMBERS))
def test_a_batch_of_millions_is_refused_before_room_is_made_for_its_members(payload: bytes) -> None:
    with pytest.raises(MessageDecodeError):
        PLAIN.decode_batch(payload)  # what is built once is built now
    tracemalloc.start()
    try:
        with pytest.raises(MessageDecodeError, match="more than 10000 events"):
            PLAIN.decode_batch(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(payload)


@given(st.lists(st.sampled_from([b"0", b"null", b'"],["', b"[0, 1]", b'{"a": [1, 2]}']), max_size=6), st.integers(0, 7))
def test_the_members_of_an_array_are_counted_whatever_they_are(members: list[bytes], count: int) -> None:
    assert has_more_members(b" [" + b" ,\n".join(members) + b"] ", count) == (len(members) > count)


@pytest.mark.parametrize("payload", [b"{}", b"", b"[", b"[1,", b"[" * 5_000, b"1"])
def test_what_is_no_array_has_no_members(payload: bytes) -> None:
    assert not has_more_members(payload, 1)


def test_a_long_batch_of_as_many_events_as_are_allowed_is_read() -> None:
    member = PLAIN.encode(health("x" * 60))
    payload = PLAIN.join([member] * 10_000)
    assert len(PLAIN.decode_batch(payload)) == 10_000
    with pytest.raises(MessageDecodeError, match="more than 10000 events"):
        PLAIN.decode_batch(PLAIN.join([member] * 10_001))


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


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
async def test_a_dead_letter_of_one_member_is_kept_under_the_content_type_of_its_bytes(compressed: bool) -> None:
    async def refuse(event: TelemetryEvent) -> None:
        raise ValueError("not today")

    chain = [CompressionMiddleware(threshold_bytes=10)] if compressed else []
    once = RedeliveryPolicy(max_deliveries=1)
    async with running_bus(None, chain, wire_format=WireFormat.MSGPACK, redelivery=once) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", refuse, durable="d")
        await bus.publish_many([telemetry(n) for n in range(3)])
        await eventually(lambda: subscription.stats.dead_lettered == 3)
        letters = await bus.dead_letters.list()
        for letter in letters:
            form = WireFormat.MSGPACK if is_msgpack(letter.entry.payload) else WireFormat.JSON
            assert letter.entry.headers["content-type"] == f"application/cloudevents+{form}"
            assert "content-encoding" not in letter.entry.headers
        await bus.dead_letters.replay(letters[0].sequence)
        again = (await bus.broker.read_stored("POLARIS_TELEMETRY"))[-1]
    assert again.payload == letters[0].entry.payload
    assert again.headers["content-type"] == letters[0].entry.headers["content-type"]
    assert "content-encoding" not in again.headers
    assert isinstance(PLAIN.decode(again.payload).event, TelemetryEvent)


@pytest.mark.parametrize("form", list(WireFormat))
async def test_a_member_that_is_no_event_is_kept_as_it_came_under_the_content_type_of_one(form: WireFormat) -> None:
    async def note(event: TelemetryEvent) -> None: ...

    codec, encode = (PLAIN, msgspec.json.encode) if form is WireFormat.JSON else (PACKED, msgspec.msgpack.encode)
    bad = encode({"type": "nobody.knows", "specversion": "1.0"})
    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", note, durable="d")
        headers = {"Content-Type": f"application/cloudevents-batch+{form}", "acme": "1"}
        payload = codec.join([codec.encode(telemetry(1)), bad])
        await bus.broker.publish(OutgoingMessage("polaris.telemetry.web", payload, None, headers), delivery=STORED)
        await eventually(lambda: subscription.stats.dead_lettered == 1)
        (letter,) = await bus.dead_letters.list()
    assert letter.entry.payload == bad
    assert letter.entry.headers == {"content-type": f"application/cloudevents+{form}", "acme": "1"}


async def test_a_dead_letter_of_a_whole_message_keeps_its_headers() -> None:
    async def note(event: TelemetryEvent) -> None: ...

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", note, durable="n")
        headers = {"content-type": "application/x-other", "content-encoding": "zstd"}
        message = OutgoingMessage("polaris.telemetry.web", b"\x28nothing", None, headers)
        await bus.broker.publish(message, delivery=STORED)
        await eventually(lambda: subscription.stats.dead_lettered == 1)
        (letter,) = await bus.dead_letters.list()
    assert letter.entry.headers == headers


def test_msgpack_is_smaller() -> None:
    events: list[PolarisEvent] = [
        telemetry(1),
        TelemetryBatch.from_states([telemetry(n).system_state for n in range(9)]),
    ]
    for event in events:
        assert len(PACKED.encode(event)) < len(PLAIN.encode(event))
