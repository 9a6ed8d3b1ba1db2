"""The published schemas and the codec agree: what is sent fits, and what the schema refuses is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from tests.event_schemas import Schemas

from polaris.domain import (
    EVENTS,
    AdaptationAction,
    AdaptationEvent,
    ConfigChangedEvent,
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
from polaris.exceptions import MessageDecodeError
from polaris.messaging import DeadLetter, DeadLetterReason, EventCodec, RequestFailure

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
CODEC = EventCodec()
SCHEMAS = Schemas(event_schemas())

STATE = SystemState(
    "web.1",
    NOW,
    {
        "cpu": MetricValue("cpu", 0.5, "1"),
        "lost": MetricValue("lost"),
        "nan": MetricValue("nan", float("nan"), "s"),
        "up": MetricValue("up", True),
        "mode": MetricValue("mode", "eco"),
        "disk": MetricValue("disk", 2**62, "By", NOW, {"device": "sda"}, Quality.STALE),
    },
    HealthStatus.WARNING,
    {"zone": "a", "n": [1, 2.5, None, {"deep": True}]},
)
EVERY_EVENT: list[PolarisEvent] = [
    TelemetryEvent(STATE, correlation_id="c-1", source="/test"),
    TelemetryEvent(SystemState("empty", NOW)),
    TelemetryBatch("s", (NOW, NOW), {"cpu": (1.0, None)}, {"cpu": "1"}, HealthStatus.HEALTHY),
    AdaptationEvent(AdaptationAction("a-1", "scale", "s", {"by": 1}, 5, 2.5, NOW)),
    AdaptationEvent(AdaptationAction("a-2", "scale", "s")),
    ExecutionResultEvent(ExecutionResult("a-1", ExecutionStatus.SUCCESS, {"workers": 3}, None, NOW, NOW)),
    ExecutionResultEvent(ExecutionResult("a-1", ExecutionStatus.UNKNOWN, {}, "cut off")),
    HealthEvent("store", HealthStatus.CRITICAL, "no space"),
    ConfigChangedEvent({"a.b": 1}),
    ConfigChangedEvent(),
    DeadLetter("t", "s", DeadLetterReason.UNDECODABLE, "code", "words", 1, NOW, NOW, b"\x00\xff", 2, None, {"a": "b"}),
    RequestFailure("polaris.error", "An error", None),
]


def whole(event: PolarisEvent) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(CODEC.encode(event, traceparent="00-a-b-01", tracestate="v=1"))
    return message


@pytest.mark.parametrize("event", EVERY_EVENT, ids=lambda event: type(event).__name__)
def test_every_event_that_is_sent_fits_its_schema(event: PolarisEvent) -> None:
    assert SCHEMAS.problems(CODEC.encode(event, traceparent="00-a-b-01", tracestate="v=1")) == []
    assert SCHEMAS.problems(CODEC.encode(event)) == []


def test_no_event_type_is_left_out_above() -> None:
    assert {type(event) for event in EVERY_EVENT} == {entry.event_class for entry in EVENTS if is_ours(entry.name)}


def is_ours(name: str) -> bool:
    return name.startswith("polaris.")


def test_a_missing_reading_is_sent_as_missing_and_never_as_zero() -> None:
    metrics = whole(TelemetryEvent(STATE))["data"]["system_state"]["metrics"]
    for name in ("lost", "nan"):
        assert metrics[name].get("value") is None
        assert metrics[name]["quality"] == "missing"


@pytest.mark.parametrize(
    "reading", [{}, {"value": None}, {"quality": "missing"}, {"value": None, "quality": "missing"}]
)
def test_a_missing_reading_may_be_told_in_several_ways(reading: dict[str, Any]) -> None:
    message = whole(TelemetryEvent(STATE))
    message["data"]["system_state"]["metrics"] = {"flow": {"name": "flow", **reading}}
    payload = json.dumps(message).encode()
    assert SCHEMAS.problems(payload) == []
    event = CODEC.decode(payload).event
    assert isinstance(event, TelemetryEvent)
    flow = event.system_state.metrics["flow"]
    assert (flow.value, flow.quality) == (None, Quality.MISSING)


TOLERATED: dict[str, dict[str, Any]] = {
    "unknown attributes": {"acmepriority": 7},
    "null for what is not set": {"time": None, "correlationid": None, "traceparent": None, "dataschema": None},
    "a foreign schema": {"dataschema": "https://acme.example/telemetry.json"},
    "another zone": {"time": "2026-03-01T17:30:00+05:30"},
}


@pytest.mark.parametrize("changes", TOLERATED.values(), ids=TOLERATED.keys())
def test_what_the_codec_reads_fits_the_schema_too(changes: dict[str, Any]) -> None:
    payload = json.dumps({**whole(TelemetryEvent(STATE)), **changes}).encode()
    assert SCHEMAS.problems(payload, "urn:polaris:schema:polaris.telemetry:1") == []
    assert CODEC.decode(payload).event.event_id


def test_unknown_fields_of_a_newer_version_fit() -> None:
    message = whole(TelemetryEvent(STATE))
    message["data"] |= {"newer": [1]}
    message["data"]["system_state"] |= {"newer": {}}
    message["data"]["system_state"]["metrics"]["cpu"] |= {"newer": None}
    payload = json.dumps(message).encode()
    assert SCHEMAS.problems(payload) == []
    event = CODEC.decode(payload).event
    assert isinstance(event, TelemetryEvent)
    assert event.system_state == STATE


ABSENT = object()
CHANGES: dict[str, dict[str, list[Any]]] = {
    "polaris.telemetry": {
        "specversion": [ABSENT, "0.3", 1.0],
        "type": [ABSENT, "polaris.unknown"],
        "id": [ABSENT, "", "x" * 257, 7, "a\nb", "a\n", None],
        "source": [ABSENT, "", None],
        "time": ["2026-03-01T12:00:00", "yesterday", 1],
        "correlationid": ["x" * 257, 1],
        "traceparent": [1],
        "dataschema": [1],
        "data": [ABSENT, None, "text", []],
        "data.system_state": [ABSENT, None],
        "data.system_state.system_id": [ABSENT, "", "x" * 257, "\x85"],
        "data.system_state.timestamp": [ABSENT, "2026-03-01T12:00:00", 1_772_000_000],
        "data.system_state.health_status": ["splendid", None],
        "data.system_state.metadata": [[], None],
        "data.system_state.metrics": [[], {f"m{n}": {"name": f"m{n}"} for n in range(10_001)}],
        "data.system_state.metrics.cpu": [None, 0.5],
        "data.system_state.metrics.cpu.name": [ABSENT, ""],
        "data.system_state.metrics.cpu.value": [[0.5], {"v": 1}, "x" * 8_193],
        "data.system_state.metrics.cpu.quality": ["good", "missing"],
        "data.system_state.metrics.cpu.unit": [5, "x" * 65],
        "data.system_state.metrics.cpu.tags": [{"a": 1}, {"a": "x" * 257}, {str(n): "" for n in range(65)}],
    },
    "polaris.telemetry.batch": {
        "data.timestamps": [ABSENT, ["2026-03-01T12:00:00"], ["2026-03-01T12:00:00Z"] * 10_001],
        "data.metrics": [ABSENT, {"cpu": [True]}, {"cpu": ["high"]}, {"cpu": 1.0}],
        "data.units": [{"cpu": 5}, {"cpu": "x" * 65}],
    },
    "polaris.adaptation": {
        "data.action": [ABSENT],
        "data.action.action_id": [ABSENT, ""],
        "data.action.parameters": [[]],
        "data.action.priority": [-1, 1_001, 1.5, "1"],
        "data.action.timeout_seconds": [0, -1, 86_401, "1"],
    },
    "polaris.execution": {
        "data.result.status": [ABSENT, "done"],
        "data.result.error_message": ["x" * 8_193],
        "data.result.started_at": ["2026-03-01"],
    },
    "polaris.health": {"data.component": [ABSENT, 5], "data.status": [ABSENT]},
    "polaris.config.changed": {"data.changes": [[], None]},
}
BROKEN: list[tuple[str, str, Any]] = [
    (name, path, value) for name, changes in CHANGES.items() for path, values in changes.items() for value in values
]


@pytest.mark.parametrize(
    ("name", "path", "value"),
    BROKEN,
    ids=[f"{name}-{path}-{'absent' if value is ABSENT else str(value)[:24]!r}" for name, path, value in BROKEN],
)
def test_what_is_broken_is_refused_by_the_schema_and_by_the_codec(name: str, path: str, value: Any) -> None:
    entry = EVENTS.find(name)
    assert entry is not None
    message = whole(next(event for event in EVERY_EVENT if type(event) is entry.event_class))
    *parents, last = path.split(".")
    place = message
    for parent in parents:
        place = place[parent]
    if value is ABSENT:
        del place[last]
    else:
        place[last] = value
    payload = msgspec.json.encode(message)
    assert SCHEMAS.problems(payload, entry.schema_uri) != []
    with pytest.raises(MessageDecodeError):
        CODEC.decode(payload)
