"""Who taps the bus sees what passes, bounded and redacted, and changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from polaris.api import TappedEvent
from polaris.domain import MetricValue, SystemState, TelemetryEvent
from polaris.exceptions import BulkheadRejectedException, BusConnectionError
from polaris.messaging import (
    TELEMETRY_STREAM,
    CompressionMiddleware,
    ConnectionState,
    ConsumerSpec,
    DeliveryClass,
    EventCodec,
    InMemoryMessageBroker,
    MiddlewareChain,
    OutgoingMessage,
    PolarisMessageBus,
    WireFormat,
)
from polaris.messaging._broker import OnDelivery
from polaris.messaging._event_wire import DecodedEvent
from polaris.messaging.brokers._memory_deliveries import MemoryCoreSubscription
from polaris.runtime._tapped import EVENT_BYTES_MAX, EVENT_READ_BYTES_MAX, MESSAGE_READ_BYTES_MAX, Tapped
from polaris.runtime._taps import BYTES_MAX, EVENTS_AT_ONCE, MESSAGES_MAX, READ_BYTES_AT_ONCE, BusTap, Taps

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TOPIC = "polaris.telemetry.web"


def sample(value: float = 1.0, **metadata: Any) -> TelemetryEvent:
    return TelemetryEvent(SystemState("web", NOW, {"rps": MetricValue("rps", value)}, metadata=metadata))


def document(**changes: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "e-1", "source": "test", "type": "org.example.done", "data": {}, **changes}


@pytest.fixture
async def broker() -> AsyncIterator[InMemoryMessageBroker]:
    made = InMemoryMessageBroker()
    await made.connect()
    yield made
    await made.disconnect()


@pytest.fixture
async def taps(broker: InMemoryMessageBroker) -> AsyncIterator[Taps]:
    made = Taps(broker, taps_max=2)
    yield made
    await made.stop()


async def put(broker: InMemoryMessageBroker, payload: bytes, topic: str = TOPIC) -> None:
    await broker.publish(OutgoingMessage(topic, payload))
    await asyncio.sleep(0)


async def seen(tap: BusTap, count: int) -> list[TappedEvent]:
    found: list[TappedEvent] = []
    while len(found) < count:
        found += await tap.next_events()
    return found


def read(payload: bytes) -> Sequence[TappedEvent]:
    return list(Tapped().events(TOPIC, payload, {}, NOW))


async def test_an_event_is_seen_with_topic_id_type_time_and_its_data(taps: Taps, broker: InMemoryMessageBroker) -> None:
    tap = await taps.open("polaris.telemetry.*")
    event = sample(41.5)
    await put(broker, EventCodec().encode(event))
    await put(broker, b"elsewhere", "polaris.executions.web")
    (told,) = await tap.next_events()
    assert (told.topic, told.id, told.type, told.problem, told.hex) == (
        TOPIC,
        event.event_id,
        "polaris.telemetry",
        None,
        None,
    )
    assert told.time is not None
    assert told.event is not None
    assert told.event["data"]["system_state"]["metrics"]["rps"]["value"] == 41.5


async def test_looking_on_takes_nothing_from_anybody(taps: Taps, broker: InMemoryMessageBroker) -> None:
    await broker.ensure_stream(TELEMETRY_STREAM)
    consumer = await broker.consumer(ConsumerSpec(stream=TELEMETRY_STREAM.name, durable="reader", pattern=TOPIC))
    before = (await broker.survey(streams_max=9, consumers_max=9)).streams[0].consumers
    tap = await taps.open("polaris.>")
    await broker.publish(OutgoingMessage(TOPIC, b"no event"), delivery=DeliveryClass.AT_LEAST_ONCE)
    assert len(await seen(tap, 1)) == 1
    await tap.close()
    survey = await broker.survey(streams_max=9, consumers_max=9)
    assert [stream.name for stream in survey.streams] == [TELEMETRY_STREAM.name], "nothing was put aside or made"
    assert [consumer.name for consumer in survey.streams[0].consumers] == [consumer.name for consumer in before]
    assert len(await consumer.fetch(9, wait_s=1)) == 1
    assert broker.hub.idle


async def test_what_the_bus_packs_and_batches_is_seen_event_by_event(taps: Taps, broker: InMemoryMessageBroker) -> None:
    tap = await taps.open("polaris.>")
    codec = EventCodec(wire_format=WireFormat.MSGPACK)
    await put(broker, codec.join([codec.encode(sample(value)) for value in (1.0, 2.0, 3.0)]))
    bus = PolarisMessageBus(broker, MiddlewareChain([CompressionMiddleware()]))
    await bus.start()
    await bus.publish_telemetry(sample(4.0, text="x" * 5000))
    told = await seen(tap, 4)
    await bus.stop()
    values = [one.event["data"]["system_state"]["metrics"]["rps"]["value"] for one in told if one.event]
    assert values == [1.0, 2.0, 3.0, 4.0]


def test_a_message_that_is_no_event_is_shown_with_the_reason_and_its_first_bytes() -> None:
    (told,) = read(b"\x00\xff no event")
    assert (told.event, told.hex, told.bytes) == (None, "00ff206e6f206576656e74", 11)
    assert told.problem
    (packed,) = read(msgspec.msgpack.encode({"a": 1})[:-1])
    assert packed.hex == "", "of what cannot be told apart nothing is shown"
    (cut,) = read(b"\xc1" * 1000)
    assert (cut.hex, cut.bytes) == ("c1" * 256, 1000)


def test_an_event_of_an_unknown_type_is_shown_and_so_is_one_that_is_wrong() -> None:
    (unknown,) = read(msgspec.json.encode(document(data={"a": 1})))
    assert unknown.event is not None
    assert (unknown.type, unknown.event["data"], unknown.problem) == (
        "org.example.done",
        {"a": 1},
        "unknown event type 'org.example.done'",
    )
    (wrong,) = read(msgspec.json.encode(document(type="polaris.telemetry", data={"system_state": 7})))
    assert wrong.problem is not None
    assert wrong.problem.startswith("not a valid event")


def test_secrets_are_taken_out_of_events_reasons_topics_and_bytes() -> None:
    secret = "hunter2Pl4nted"
    payloads = [
        msgspec.json.encode(document(data={"password": secret, "url": f"nats://user:{secret}@host", "deep": [
            {"note": f"token={secret}"}]}, authorization=f"Bearer {secret}")),
        f"password={secret} \xff".encode("latin-1"),
        b"\x00\x01" + f'{{"api_key": "{secret}"'.encode(),
        msgspec.msgpack.encode(document(data={"password": secret})) + b"\x01",
        msgspec.msgpack.encode(document(data={"password": secret, "f": float("nan")})),
        b"\x00" + msgspec.msgpack.encode({"password": secret}),
        msgspec.json.encode({"password": secret}).decode().encode("utf-16"),
        *(msgspec.json.encode({key: secret, "a": 1})[:-1] for key in ("cookie", "authorization", "dsn", "db_pass")),
        msgspec.json.encode({"secrets": {"a": {"b": 1}, "c": secret}})[:-1],
        EventCodec().encode(sample(api_token=secret)),
    ]  # fmt: skip
    for payload in payloads:
        for told in read(payload):
            shown = msgspec.json.encode(told) + bytes.fromhex(told.hex or "")
            assert secret.encode() not in shown, shown


def test_an_event_too_large_to_be_shown_keeps_its_name() -> None:
    (told,) = read(msgspec.json.encode(document(data={str(number): "x" * 2000 for number in range(60)})))
    assert told.event is not None
    assert told.id == "e-1"
    assert "too large to be shown" in told.event["data"]
    assert len(msgspec.json.encode(told)) < EVENT_BYTES_MAX


def test_of_what_takes_too_long_to_read_only_size_and_beginning_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    large = msgspec.json.encode(document(data="x" * EVENT_READ_BYTES_MAX))
    small = msgspec.json.encode(document())
    decoded: list[int] = []
    decode = EventCodec.decode

    def counted(codec: EventCodec, payload: bytes) -> DecodedEvent:
        decoded.append(len(payload))
        return decode(codec, payload)

    monkeypatch.setattr(EventCodec, "decode", counted)
    for payload in (large, b"[" + small + b"," + large + b"]"):
        told = read(payload)[-1]
        assert (told.event, told.bytes) == (None, len(large))
        assert told.problem == f"{len(large)} bytes, too large to be read here"
        assert bytes.fromhex(told.hex or "").startswith(b'{"specversion"')
    assert decoded == [len(small)]
    (whole,) = read(b"[" + b",".join([small] * (MESSAGE_READ_BYTES_MAX // len(small) + 1)) + b"]")
    assert whole.event is None
    packed = zstandard.compress(b"[" + b" " * MESSAGE_READ_BYTES_MAX + b"]")
    (bomb,) = Tapped().events(TOPIC, packed, {"content-encoding": "zstd"}, NOW)
    assert bomb.problem is not None


@given(st.binary(max_size=400) | st.lists(st.binary(max_size=20)).map(lambda parts: b"[" + b",".join(parts) + b"]"))
def test_whatever_passes_is_shown_and_bounded(payload: bytes) -> None:
    for told in read(payload):
        assert len(msgspec.json.encode(told)) < 8_192
        assert (told.event is None) is (told.hex is not None)


async def test_a_batch_of_thousands_comes_in_portions(taps: Taps, broker: InMemoryMessageBroker) -> None:
    tap = await taps.open("polaris.>")
    member = msgspec.json.encode(document())
    await put(broker, b"[" + b",".join([member] * 5000) + b"]")
    assert len(await tap.next_events()) == EVENTS_AT_ONCE
    assert len(await tap.next_events()) == EVENTS_AT_ONCE


async def test_who_is_too_slow_sees_the_newest_and_how_many_were_dropped(
    taps: Taps, broker: InMemoryMessageBroker
) -> None:
    tap = await taps.open("polaris.>")
    for number in range(MESSAGES_MAX + 7):
        await put(broker, msgspec.json.encode(document(id=str(number))))
    assert (tap.dropped, tap.dropped) == (7, 0)
    assert (await tap.next_events())[0].id == "7"


async def test_large_messages_are_bounded_by_their_bytes(taps: Taps, broker: InMemoryMessageBroker) -> None:
    tap = await taps.open("polaris.>")
    for _ in range(20):
        await put(broker, b"x" * 1_000_000)
    assert tap.dropped == 20 - BYTES_MAX // 1_000_000
    assert len(await seen(tap, 8)) == 8


async def test_a_frame_is_bounded_by_the_bytes_that_are_read_for_it(taps: Taps, broker: InMemoryMessageBroker) -> None:
    tap = await taps.open("polaris.>")
    payload = msgspec.json.encode(document(data="x" * (READ_BYTES_AT_ONCE // 4)))
    for _ in range(10):
        await put(broker, payload)
    assert [len(await tap.next_events()) for _ in range(3)] == [4, 4, 2]


class Counted(InMemoryMessageBroker):
    """Notes what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def connect(self) -> None:
        if self.state is not ConnectionState.CONNECTED:
            self.asked.append("connect")
        await super().connect()

    async def disconnect(self) -> None:
        self.asked.append("disconnect")
        await super().disconnect()

    async def subscribe(
        self, pattern: str, on_delivery: OnDelivery, *, group: str | None = None
    ) -> MemoryCoreSubscription:
        self.asked.append(pattern)
        return await super().subscribe(pattern, on_delivery, group=group)


async def test_taps_of_one_pattern_share_a_subscription_and_the_connection_is_there_while_somebody_looks_on() -> None:
    broker = Counted()
    taps = Taps(broker, own_broker=True)
    first, second, other = [await taps.open(pattern) for pattern in ("polaris.>", "polaris.>", TOPIC)]
    assert broker.asked == ["connect", "polaris.>", TOPIC]
    await put(broker, msgspec.json.encode(document()))
    assert [len(await seen(tap, 1)) for tap in (first, second, other)] == [1, 1, 1]
    await first.close()
    await put(broker, msgspec.json.encode(document(id="e-2")))
    assert (await second.next_events())[0].id == "e-2"
    await second.close()
    assert broker.state is ConnectionState.CONNECTED
    await other.close()
    assert broker.asked == ["connect", "polaris.>", TOPIC, "disconnect"]
    again = await taps.open(TOPIC)
    await put(broker, msgspec.json.encode(document(id="e-3")))
    assert (await again.next_events())[0].id == "e-3"
    await taps.stop()
    assert (broker.state, taps.count) == (ConnectionState.CLOSED, 0)


async def test_a_connection_that_ended_by_itself_is_made_anew_for_the_next_who_looks_on() -> None:
    broker = Counted()
    taps = Taps(broker, own_broker=True)
    first = await taps.open(TOPIC)
    await broker.disconnect()
    second = await taps.open(TOPIC)
    await put(broker, msgspec.json.encode(document()))
    assert [len(await seen(tap, 1)) for tap in (first, second)] == [1, 1]
    await taps.stop()


async def test_a_borrowed_broker_stays_connected(taps: Taps, broker: InMemoryMessageBroker) -> None:
    tap = await taps.open(TOPIC)
    await tap.close()
    assert broker.state is ConnectionState.CONNECTED


async def test_only_so_many_look_on_at_once_and_who_goes_makes_room(taps: Taps, broker: InMemoryMessageBroker) -> None:
    first, _ = await taps.open("polaris.>"), await taps.open("polaris.>")
    with pytest.raises(BulkheadRejectedException):
        await taps.open("polaris.>")
    await first.close()
    await first.close()
    await taps.open("polaris.>")


async def test_a_bus_that_is_away_is_an_error_and_takes_no_place() -> None:
    taps = Taps(InMemoryMessageBroker(), taps_max=1)
    for _ in range(2):
        with pytest.raises(BusConnectionError):
            await taps.open("polaris.>")


async def test_who_waits_is_let_go_when_the_tap_ends(taps: Taps) -> None:
    tap = await taps.open("polaris.>")
    waiting = asyncio.create_task(tap.next_events())
    await asyncio.sleep(0)
    tap.end()
    assert list(await waiting) == []
