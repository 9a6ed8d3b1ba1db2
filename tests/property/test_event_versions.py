"""What holds for all data of all versions: upcast data are today's, and what is sent fits the published schema."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.event_schemas import Schemas

from polaris.domain import (
    AdaptationAction,
    AdaptationEvent,
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
    event_schemas,
)
from polaris.exceptions import MessageDecodeError, PolarisException
from polaris.messaging import EventCodec

NAME = "acme.oven.measured"
JSON_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | JSON_TEXT,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(JSON_TEXT, children, max_size=3),
    max_leaves=8,
)
TREES = st.dictionaries(JSON_TEXT, JSON, max_size=3)


class FirstOven(PolarisEvent, frozen=True):
    """Version 1: a name and tenths of a degree in one list."""

    reading: tuple[str, int]


class SecondOven(PolarisEvent, frozen=True):
    """Version 2: they have names."""

    oven: str
    tenths: int


class ThirdOven(PolarisEvent, frozen=True):
    """Version 3: degrees."""

    oven: str
    celsius: float
    notes: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies it


def second_of(data: dict[str, Any]) -> Mapping[str, Any]:
    oven, tenths = data.pop("reading")
    return {**data, "oven": oven, "tenths": tenths}


def third_of(data: dict[str, Any]) -> Mapping[str, Any]:
    return {**data, "celsius": data.pop("tenths") / 10}


def codec_of(event_class: type[PolarisEvent], version: int) -> EventCodec:
    registry = EventRegistry()
    registry.register(event_class, NAME, version=version)
    for step, function in [(1, second_of), (2, third_of)][: version - 1]:
        registry.upcast(NAME, step, function)
    return EventCodec(registry)


FIRST, SECOND, THIRD = codec_of(FirstOven, 1), codec_of(SecondOven, 2), codec_of(ThirdOven, 3)


def with_more(payload: bytes, data: dict[str, Any], attributes: dict[str, Any]) -> bytes:
    message = msgspec.json.decode(payload)
    message = {**{f"x{name}": value for name, value in attributes.items()}, **message}
    message["data"] = {**{f"x{name}": value for name, value in data.items()}, **message["data"]}
    return msgspec.json.encode(message)


@given(JSON_TEXT, st.integers(-(2**53), 2**53), TREES, TREES)
def test_an_event_of_version_1_arrives_as_that_of_version_3(
    oven: str, tenths: int, more: dict[str, Any], attributes: dict[str, Any]
) -> None:
    sent = FirstOven((oven, tenths), correlation_id="c", source="/oven")
    payload = with_more(FIRST.encode(sent, traceparent="t"), more, attributes)
    expected = ThirdOven(
        oven, tenths / 10, event_id=sent.event_id, timestamp=sent.timestamp, correlation_id="c", source="/oven"
    )
    found = THIRD.decode(payload)
    assert (found.event, found.traceparent) == (expected, "t")
    assert THIRD.decode_batch(THIRD.join([payload, THIRD.encode(expected)])) == [
        found,
        THIRD.decode(THIRD.encode(expected)),
    ]
    middle = SECOND.decode(payload).event
    assert middle == SecondOven(
        oven, tenths, event_id=sent.event_id, timestamp=sent.timestamp, correlation_id="c", source="/oven"
    )
    assert THIRD.decode(SECOND.encode(middle)).event == expected


@given(JSON_TEXT, st.floats(allow_nan=False, allow_infinity=False), TREES, TREES, st.integers(3, 999_999))
def test_unknown_fields_of_a_newer_version_are_read_over(
    oven: str, celsius: float, more: dict[str, Any], attributes: dict[str, Any], version: int
) -> None:
    sent = ThirdOven(oven, celsius, {"a": [None, 0]})
    payload = with_more(THIRD.encode(sent), more, attributes)
    payload = payload.replace(f":{NAME}:3".encode(), f":{NAME}:{version}".encode())
    assert THIRD.decode(payload).event == sent


@given(JSON, st.integers(1, 4), st.sampled_from([None, TypeError, KeyError, AttributeError, RecursionError]))
def test_data_of_any_shape_become_an_event_or_a_decode_error(
    data: Any, version: int, raised: type[Exception] | None
) -> None:
    def third(given: dict[str, Any]) -> Mapping[str, Any]:
        if raised is not None:
            raise raised
        return third_of(given)

    registry = EventRegistry()
    registry.register(ThirdOven, NAME, version=3)
    registry.upcast(NAME, 1, second_of)
    registry.upcast(NAME, 2, third)
    codec = EventCodec(registry)
    payload = msgspec.json.encode(
        {"specversion": "1.0", "id": "1", "source": "s", "type": NAME, "data": data,
         "dataschema": f"urn:polaris:schema:{NAME}:{version}"}
    )  # fmt: skip
    try:
        assert isinstance(codec.decode(payload).event, ThirdOven)
        assert version >= 3 or raised is None
    except MessageDecodeError as error:
        assert len(str(error)) < 500


IDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
INSTANTS = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | JSON_TEXT
READINGS = st.builds(
    MetricValue,
    IDS,
    SCALARS,
    st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=64),
    st.none() | INSTANTS,
    st.dictionaries(IDS, JSON_TEXT, max_size=2),
    st.sampled_from([Quality.OK, Quality.STALE]),
)
STATES = st.builds(
    SystemState, IDS, INSTANTS, st.dictionaries(IDS, READINGS, max_size=3), st.sampled_from(HealthStatus), TREES
)
ENVELOPES = {
    "event_id": IDS,
    "timestamp": INSTANTS,
    "correlation_id": st.none() | IDS,
    "source": IDS.filter(lambda text: text.isascii()),
}
COLUMNS = st.integers(0, 4).flatmap(
    lambda count: st.tuples(
        st.lists(INSTANTS, min_size=count, max_size=count).map(tuple),
        st.dictionaries(
            IDS,
            st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=count, max_size=count).map(
                tuple
            ),
            max_size=3,
        ),
    )
)
ACTIONS = st.builds(
    AdaptationAction,
    IDS,
    IDS,
    IDS,
    TREES,
    st.integers(0, 1_000),
    st.none() | st.floats(0, 86_400, exclude_min=True),
    INSTANTS,
)
RESULTS = st.builds(
    ExecutionResult,
    IDS,
    st.sampled_from(ExecutionStatus),
    TREES,
    st.none() | JSON_TEXT,
    st.none() | INSTANTS,
    st.none() | INSTANTS,
)
EVENTS_OF_ALL_KINDS = st.one_of(
    st.builds(TelemetryEvent, STATES, **ENVELOPES),
    st.tuples(COLUMNS, IDS).map(lambda one: TelemetryBatch(one[1], *one[0])),
    st.builds(AdaptationEvent, ACTIONS, **ENVELOPES),
    st.builds(ExecutionResultEvent, RESULTS, **ENVELOPES),
    st.builds(HealthEvent, IDS, st.sampled_from(HealthStatus), JSON_TEXT, **ENVELOPES),
)
CODEC = EventCodec()
SCHEMAS = Schemas(event_schemas())


@given(EVENTS_OF_ALL_KINDS)
def test_whatever_is_sent_fits_the_schema_that_it_names(event: PolarisEvent) -> None:
    payload = CODEC.encode(event)
    assert SCHEMAS.problems(payload) == []
    assert CODEC.decode(payload).event == event


# Attributes that nothing is made of: what they hold harms nobody.
UNREAD = ("subject", "datacontenttype")


@given(EVENTS_OF_ALL_KINDS, st.data())
def test_what_the_schema_refuses_never_becomes_an_event(event: PolarisEvent, data: st.DataObject) -> None:
    message = msgspec.json.decode(CODEC.encode(event))
    place: Any = message
    while True:
        keys = list(range(len(place))) if isinstance(place, list) else [key for key in place if key not in UNREAD]
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON)
    payload = msgspec.json.encode(message)
    uri = f"urn:polaris:schema:{CODEC.require(type(event)).name}:1"
    try:
        CODEC.decode(payload)
    except PolarisException:
        return
    assert [problem for problem in SCHEMAS.problems(payload, uri) if "is not a 'date-time'" not in problem] == []
