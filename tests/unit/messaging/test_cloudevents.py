"""Events as CloudEvents: what goes over the wire, what comes back, and what bad bytes lead to."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from polaris.domain import (
    EVENTS,
    AdaptationAction,
    AdaptationEvent,
    ConfigChangedEvent,
    EventRegistry,
    ExecutionResult,
    ExecutionResultEvent,
    ExecutionStatus,
    HealthEvent,
    HealthStatus,
    MetricValue,
    PolarisEvent,
    Quality,
    SystemState,
    TelemetryBatch,
    TelemetryEvent,
    event_type,
)
from polaris.exceptions import ConfigurationError, InvalidValueError, MessageDecodeError, UnknownEventTypeError
from polaris.messaging import EventCodec, Undecodable, WireFormat

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def telemetry(**envelope: Any) -> TelemetryEvent:
    metrics = {
        "cpu": MetricValue("cpu", 0.5, "1"),
        "lost": MetricValue("lost"),
        "disk": MetricValue("disk", 7, "By", NOW, {"device": "sda"}, Quality.STALE),
    }
    state = SystemState("web.1", NOW, metrics, HealthStatus.WARNING, {"zone": "a", "n": [1, 2.5, None]})
    return TelemetryEvent(state, timestamp=NOW, **envelope)


EVERY_EVENT: list[PolarisEvent] = [
    telemetry(correlation_id="c-1", source="/test"),
    TelemetryBatch("s", (NOW, NOW), {"cpu": (1.0, None)}, {"cpu": "1"}, HealthStatus.HEALTHY),
    AdaptationEvent(AdaptationAction("a-1", "scale", "s", {"by": 1}, 5, 2.5, NOW)),
    ExecutionResultEvent(ExecutionResult("a-1", ExecutionStatus.SUCCESS, {"workers": 3}, None, NOW, NOW)),
    HealthEvent("store", HealthStatus.CRITICAL, "no space"),
    ConfigChangedEvent({"a.b": 1}),
    ConfigChangedEvent(),
]


@pytest.mark.parametrize("event", EVERY_EVENT, ids=lambda event: type(event).__name__)
def test_every_event_comes_back_equal(event: PolarisEvent) -> None:
    codec = EventCodec()
    assert codec.decode(codec.encode(event)).event == event


def test_the_envelope_is_a_structured_cloudevent() -> None:
    event = telemetry(correlation_id="c-1", event_id="e-1")
    wire = json.loads(EventCodec().encode(event, traceparent="00-a-b-01", tracestate="v=1"))
    state = wire.pop("data")
    assert wire == {
        "specversion": "1.0",
        "type": "polaris.telemetry",
        "id": "e-1",
        "source": "polaris",
        "time": "2026-03-01T12:00:00.123456Z",
        "subject": "web.1",
        "dataschema": "urn:polaris:schema:polaris.telemetry:1",
        "datacontenttype": "application/json",
        "correlationid": "c-1",
        "traceparent": "00-a-b-01",
        "tracestate": "v=1",
    }
    assert set(state) == {"system_state"}
    assert state["system_state"]["metrics"]["cpu"] == {"name": "cpu", "value": 0.5, "unit": "1"}


def test_optional_attributes_are_left_out() -> None:
    wire = json.loads(EventCodec().encode(ConfigChangedEvent({"a": 1})))
    assert not {"subject", "correlationid", "traceparent", "tracestate"} & set(wire)


def test_a_correlation_id_given_goes_before_the_events_own() -> None:
    codec = EventCodec()
    event = codec.decode(codec.encode(telemetry(correlation_id="own"), correlation_id="given")).event
    assert event.correlation_id == "given"


def foreign(**changes: Any) -> dict[str, Any]:
    envelope = {
        "specversion": "1.0",
        "type": "polaris.health",
        "id": "1",
        "source": "/node",
        "data": {"component": "c", "status": "healthy"},
    }
    return {**envelope, **changes}


def encoded(**changes: Any) -> bytes:
    return json.dumps(foreign(**changes)).encode()


def test_a_foreign_event_with_the_required_attributes_alone_is_read() -> None:
    found = EventCodec().decode(encoded(), received_at=NOW)
    assert found.event == HealthEvent(
        "c", HealthStatus.HEALTHY, event_id="1", source="/node", timestamp=NOW, correlation_id=None
    )
    assert (found.event_type, found.traceparent, found.tracestate) == ("polaris.health", None, None)


def test_unknown_attributes_and_fields_are_read_over() -> None:
    data = {"component": "c", "status": "healthy", "newer": {"deep": [1]}}
    found = EventCodec().decode(encoded(data=data, dataschema="urn:polaris:schema:polaris.health:9", other=1))
    assert isinstance(found.event, HealthEvent)


def test_null_attributes_count_as_absent() -> None:
    found = EventCodec().decode(encoded(time=None, correlationid=None, traceparent=None), received_at=NOW)
    assert (found.event.timestamp, found.event.correlation_id, found.traceparent) == (NOW, None, None)


def test_attributes_may_come_in_any_order_and_with_space() -> None:
    text = json.dumps(dict(reversed(foreign().items())), indent=2)
    assert isinstance(EventCodec().decode(f" \n{text}\n".encode()).event, HealthEvent)


def test_times_of_other_zones_are_kept_as_utc() -> None:
    stamp = datetime(2026, 3, 1, 17, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    found = EventCodec().decode(encoded(time=stamp.isoformat()))
    assert found.event.timestamp == stamp
    assert found.event.timestamp.tzinfo is UTC


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "a space": b" ",
    "noise": b"\x00\xff\xfe\x01",
    "truncated": encoded()[:-10],
    "trailing": encoded() + b"x",
    "a number": b"7",
    "null": b"null",
    "a string": b'"text"',
    "an array": b"[]",
    "not utf-8": encoded().replace(b'"c"', b'"\xff"'),
    "a lone surrogate": encoded().replace(b'"c"', b'"\\ud800"'),
    "NaN": encoded().replace(b'"1"', b"NaN", 1),
    "Infinity": encoded().replace(b'"c"', b"Infinity"),
    "a byte order mark": b"\xef\xbb\xbf" + encoded(),
    "5000 deep": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "200000 deep": b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    "200000 open": b'{"type":"polaris.health","data":' + b"[" * 200_000,
    "deep data": encoded(type="polaris.config.changed", data={"changes": {"a": 1}}).replace(
        b"1}}", b"[" * 3_000 + b"]" * 3_000 + b"}}"
    ),
    "a huge number": encoded(type="polaris.config.changed", data={"changes": {"a": 1}}).replace(
        b"1}}", b"9" * 5_000 + b"}}"
    ),
    "an overflowing number": encoded(type="polaris.config.changed", data={"changes": {"a": 1}}).replace(
        b"1}}", b"1e999}}"
    ),
    "no specversion": json.dumps({k: v for k, v in foreign().items() if k != "specversion"}).encode(),
    "no type": json.dumps({k: v for k, v in foreign().items() if k != "type"}).encode(),
    "no id": json.dumps({k: v for k, v in foreign().items() if k != "id"}).encode(),
    "no source": json.dumps({k: v for k, v in foreign().items() if k != "source"}).encode(),
    "no data": json.dumps({k: v for k, v in foreign().items() if k != "data"}).encode(),
    "specversion 0.3": encoded(specversion="0.3"),
    "specversion number": encoded(specversion=1.0),
    "type number": encoded(type=5),
    "id empty": encoded(id=""),
    "id long": encoded(id="x" * 10_000),
    "id with control characters": encoded(id="a\nb"),
    "a naive time": encoded(time="2026-03-01T12:00:00"),
    "no time at all": encoded(time="yesterday"),
    "a numeric time": encoded(time=1),
    "a long correlation id": encoded(correlationid="x" * 1_000),
    "data of a wrong type": encoded(data={"component": 5, "status": "healthy"}),
    "data as text": encoded(data="component"),
    "data null": encoded(data=None),
    "an unknown status": encoded(data={"component": "c", "status": "splendid"}),
    "binary data": json.dumps({**{k: v for k, v in foreign().items() if k != "data"}, "data_base64": "AA=="}).encode(),
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE.keys())
def test_bad_bytes_lead_to_a_decode_error_of_bounded_size(payload: bytes) -> None:
    with pytest.raises(MessageDecodeError) as caught:
        EventCodec().decode(payload)
    assert not isinstance(caught.value, UnknownEventTypeError)
    assert len(str(caught.value)) < 400
    assert caught.value.retryable is False


def test_a_codec_survives_hostile_bytes() -> None:
    codec = EventCodec()
    for payload in HOSTILE.values():
        with pytest.raises(MessageDecodeError):
            codec.decode(payload)
    assert isinstance(codec.decode(encoded()).event, HealthEvent)


@pytest.mark.parametrize("name", ["acme.unknown", "polaris.telemetry.v9", "", "x" * 100_000])
def test_an_unregistered_type_is_told_apart(name: str) -> None:
    with pytest.raises(UnknownEventTypeError) as caught:
        EventCodec().decode(encoded(type=name))
    assert len(str(caught.value)) < 400


def test_a_batch_is_told_by_its_first_byte() -> None:
    codec = EventCodec()
    one = codec.encode(telemetry())
    assert codec.is_batch(codec.join([one]))
    assert codec.is_batch(b" \n[" + one + b"]")
    assert not codec.is_batch(one)
    assert not codec.is_batch(b" " + one)
    assert not codec.is_batch(b"")


def test_a_batch_comes_back_in_order() -> None:
    codec = EventCodec()
    payload = codec.join([codec.encode(event, traceparent="t") for event in EVERY_EVENT])
    found = codec.decode_batch(payload)
    assert [member.event for member in found if not isinstance(member, Undecodable)] == EVERY_EVENT
    assert json.loads(payload)[0]["type"] == "polaris.telemetry"


def test_one_bad_member_does_not_harm_the_rest_of_a_batch() -> None:
    codec = EventCodec()
    bad = [b'{"type":"polaris.health"}', b"7", encoded(type="acme.unknown")]
    payload = codec.join([encoded(id="1"), bad[0], encoded(id="2"), bad[1], bad[2], encoded(id="3")])
    found = codec.decode_batch(payload, received_at=NOW)
    good = [member.event.event_id for member in found if not isinstance(member, Undecodable)]
    assert good == ["1", "2", "3"]
    refused = [member for member in found if isinstance(member, Undecodable)]
    assert [member.payload for member in refused] == bad
    assert [type(member.error) for member in refused] == [MessageDecodeError, MessageDecodeError, UnknownEventTypeError]


@pytest.mark.parametrize("payload", [b"[", b"[1,", b"{}", b"", b"[" * 200_000, b"[" + b"1," * 10_001 + b"1]", b"\xff"])
def test_what_is_no_batch_is_refused_as_a_whole(payload: bytes) -> None:
    with pytest.raises(MessageDecodeError):
        EventCodec().decode_batch(payload)


def test_an_empty_batch_is_empty() -> None:
    assert EventCodec().decode_batch(b"[]") == []


def test_a_type_registered_later_is_taken_up() -> None:
    registry = EventRegistry(parent=EVENTS)
    codec = EventCodec(registry)
    assert isinstance(codec.decode(encoded()).event, HealthEvent)

    @event_type("acme.order.shipped", version=2, registry=registry)
    class OrderShipped(PolarisEvent, frozen=True):
        order: str
        weight_kg: float = 0.0

    late = json.dumps(foreign(type="acme.order.shipped", data={"order": "o-1"})).encode()
    assert isinstance(EventCodec(registry).decode(late).event, OrderShipped)
    assert codec.decode(late).event.event_id == "1"
    assert codec.decode_batch(codec.join([late, encoded()]))[0].event.order == "o-1"  # type: ignore[union-attr]
    shipped = OrderShipped("o-2", 1.5)
    assert json.loads(codec.encode(shipped))["dataschema"] == "urn:polaris:schema:acme.order.shipped:2"
    assert codec.decode(codec.encode(shipped)).event == shipped


def test_keyword_only_and_renamed_fields_travel() -> None:
    registry = EventRegistry()

    @event_type("acme.odd.fields", registry=registry)
    class Odd(PolarisEvent, frozen=True, kw_only=True, rename="camel"):
        first_name: str
        last_seen: datetime | None = None

    codec = EventCodec(registry)
    event = Odd(first_name="a", last_seen=NOW)
    payload = codec.encode(event)
    assert json.loads(payload)["data"] == {"firstName": "a", "lastSeen": "2026-03-01T12:00:00.123456Z"}
    assert codec.decode(payload).event == event


def test_an_event_class_that_json_cannot_carry_is_refused_and_harms_no_other() -> None:
    registry = EventRegistry(parent=EVENTS)

    @event_type("acme.impossible.event", registry=registry)
    class Impossible(PolarisEvent, frozen=True):
        either: dict[str, int] | HealthStatus | list[int] | set[str]

    codec = EventCodec(registry)
    with pytest.raises(ConfigurationError):
        codec.require(Impossible)
    assert isinstance(codec.decode(encoded()).event, HealthEvent)
    with pytest.raises(MessageDecodeError):
        codec.decode(encoded(type="acme.impossible.event"))


def test_validation_code_that_breaks_is_a_decode_error() -> None:
    registry = EventRegistry()

    @event_type("acme.breaking.event", registry=registry)
    class Breaking(PolarisEvent, frozen=True):
        divisor: int

        def __post_init__(self) -> None:
            PolarisEvent.__post_init__(self)
            _ = 1 / self.divisor

    codec = EventCodec(registry)
    assert codec.decode(encoded(type="acme.breaking.event", data={"divisor": 1})).event.event_id == "1"
    with pytest.raises(MessageDecodeError):
        codec.decode(encoded(type="acme.breaking.event", data={"divisor": 0}))


def test_an_unregistered_event_cannot_be_sent() -> None:
    class Stray(PolarisEvent, frozen=True):
        pass

    with pytest.raises(UnknownEventTypeError):
        EventCodec().encode(Stray())


def test_a_value_that_json_cannot_carry_cannot_be_sent() -> None:
    registry = EventRegistry()

    @event_type("acme.any.value", registry=registry)
    class AnyValue(PolarisEvent, frozen=True):
        value: Any

    codec = EventCodec(registry)
    for value in (object(), {1: object()}, "\ud800", float("nan")):
        with pytest.raises(InvalidValueError) as alone:
            codec.encode(AnyValue(value))
        with pytest.raises(InvalidValueError) as among:
            codec.encode_each([AnyValue(1), AnyValue(value), AnyValue(2)], ["1", "2", "3"], correlation_id="c")
        assert str(among.value) == str(alone.value)


def test_an_event_without_the_value_that_names_its_subject_cannot_be_sent() -> None:
    codec = EventCodec()
    nothing: Any = None
    for event in (TelemetryEvent(nothing), AdaptationEvent(nothing), ExecutionResultEvent(nothing)):
        with pytest.raises(InvalidValueError, match=type(event).__name__):
            codec.encode(event)
        with pytest.raises(InvalidValueError, match=type(event).__name__):
            codec.encode_each([EVERY_EVENT[0], event], ["1", "2"], correlation_id="c")


@pytest.mark.parametrize("wire_format", WireFormat)
def test_many_are_encoded_as_each_alone(wire_format: WireFormat) -> None:
    codec = EventCodec(wire_format=wire_format)
    events = [EVERY_EVENT[number] for number in (0, 0, 5, 1, 3, 2, 6, 4, 0, 1, 1)]
    numbers = [None if number % 3 else f"{number}" for number in range(len(events))]
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}
    for marks in ({}, trace):
        assert codec.encode_each(events, numbers, correlation_id="all", **marks) == [
            codec.encode(event, correlation_id=event.correlation_id or "all", sequence=number, **marks)
            for event, number in zip(events, numbers, strict=True)
        ]
