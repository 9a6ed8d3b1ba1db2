"""Events and their registry."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
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
from polaris.exceptions import ConfigurationError, InvalidValueError, UnknownEventTypeError
from polaris.observability import correlation_scope

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def numeric_state(index: int, **metrics: float | None) -> SystemState:
    readings = {name: MetricValue(name, value, "s") for name, value in metrics.items()}
    return SystemState("web", NOW + timedelta(seconds=index), readings, HealthStatus.HEALTHY)


EVENT_SAMPLES: list[PolarisEvent] = [
    TelemetryEvent(numeric_state(0, cpu=1.0)),
    TelemetryBatch.from_states([numeric_state(0, cpu=1.0), numeric_state(1, cpu=None)]),
    AdaptationEvent(AdaptationAction("a", "t", "web")),
    ExecutionResultEvent(ExecutionResult("a", ExecutionStatus.UNKNOWN)),
    HealthEvent("bus", HealthStatus.WARNING, "slow"),
    ConfigChangedEvent({"http.port": 1}),
]


@pytest.mark.parametrize("event", EVENT_SAMPLES, ids=lambda event: type(event).__name__)
def test_events_survive_json_unchanged(event: PolarisEvent) -> None:
    assert msgspec.json.decode(msgspec.json.encode(event), type=type(event)) == event


@pytest.mark.parametrize("event", EVENT_SAMPLES, ids=lambda event: type(event).__name__)
def test_every_event_of_the_specification_is_registered(event: PolarisEvent) -> None:
    entry = EVENTS.require(type(event))
    assert EVENTS.find(entry.name) == entry
    assert entry.schema_uri == f"urn:polaris:schema:{entry.name}:1"


def test_events_take_the_correlation_of_their_scope_and_an_id_of_their_own() -> None:
    with correlation_scope("c1"):
        first, second = (TelemetryEvent(numeric_state(0)) for _ in range(2))
    assert first.correlation_id == second.correlation_id == "c1"
    assert first.event_id != second.event_id
    assert TelemetryEvent(numeric_state(0)).correlation_id is None


@pytest.mark.parametrize(
    ("field", "envelope"),
    [
        ("event_id", {"event_id": ""}),
        ("event_id", {"event_id": "x" * 257}),
        ("timestamp", {"timestamp": datetime(2026, 1, 1)}),  # noqa: DTZ001
        ("correlation_id", {"correlation_id": "x" * 257}),
        ("source", {"source": ""}),
    ],
)
def test_a_bad_envelope_is_refused(field: str, envelope: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        HealthEvent("bus", HealthStatus.HEALTHY, **envelope)
    assert caught.value.field == field


def test_users_register_their_own_event_types() -> None:
    registry = EventRegistry(parent=EVENTS)

    @event_type("acme.order.shipped", version=2, registry=registry)
    class OrderShipped(PolarisEvent, frozen=True):
        order: str

    entry = registry.require(OrderShipped)
    assert (entry.name, entry.version) == ("acme.order.shipped", 2)
    assert registry.find("polaris.telemetry") is not None
    assert EVENTS.find("acme.order.shipped") is None
    assert registry.register(OrderShipped, "acme.order.shipped", version=2) == entry
    assert [found.name for found in registry][-1] == "acme.order.shipped"


def test_a_clash_of_names_is_refused_and_changes_nothing() -> None:
    registry = EventRegistry(parent=EVENTS)

    class Impostor(PolarisEvent, frozen=True):
        pass

    with pytest.raises(ConfigurationError, match=r"polaris\.telemetry"):
        registry.register(Impostor, "polaris.telemetry")
    with pytest.raises(UnknownEventTypeError):
        registry.require(Impostor)


@pytest.mark.parametrize("name", ["", "Upper.Case", "noDots", "a b.c", "a..b", "x." + "y" * 200])
def test_a_bad_type_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidValueError):
        EventRegistry().register(HealthEvent, name)


def test_a_batch_gives_back_the_states_it_was_made_of() -> None:
    states = [numeric_state(0, cpu=1.0, rt=0.5), numeric_state(1, cpu=None, rt=0.25)]
    assert list(TelemetryBatch.from_states(states).states()) == states


def test_a_gap_in_a_column_is_missing_and_not_zero() -> None:
    batch = TelemetryBatch.from_states([numeric_state(0, cpu=1.0), numeric_state(1, rt=2.0)])
    second = list(batch.states())[1]
    assert second.metrics["cpu"].quality is Quality.MISSING
    assert second.value("cpu") is None


@pytest.mark.parametrize(
    "states",
    [
        [],
        [SystemState("web", NOW, {"a": MetricValue("a", "text")})],
        [SystemState("web", NOW, {"a": MetricValue("a", 1.0, tags={"x": "y"})})],
        [SystemState("web", NOW), SystemState("db", NOW)],
        [SystemState("web", NOW, metadata={"a": 1})],
    ],
)
def test_what_columns_cannot_express_is_refused(states: list[SystemState]) -> None:
    with pytest.raises(InvalidValueError):
        TelemetryBatch.from_states(states)


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"metrics\.cpu"):
        TelemetryBatch("web", (NOW,), {"cpu": (1.0, 2.0)})


@pytest.mark.parametrize(
    ("field", "columns", "units"),
    [
        ("metrics", {"": (1.0,)}, {}),
        ("metrics", {"a\nb": (1.0,)}, {}),
        ("metrics.cpu", {"cpu": ("high",)}, {}),
        ("metrics.cpu", {"cpu": (True,)}, {}),
        ("units.cpu", {"cpu": (1.0,)}, {"cpu": "x" * 65}),
        ("units.cpu", {"cpu": (1.0,)}, {"cpu": 5}),
    ],
)
def test_a_column_that_no_reading_could_have_is_refused_at_once(field: str, columns: Any, units: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        TelemetryBatch("web", (NOW,), columns, units)
    assert caught.value.field == field


def test_whole_numbers_in_a_column_become_floats() -> None:
    batch = TelemetryBatch("web", (NOW, NOW), {"cpu": (1, None)})
    assert batch.metrics["cpu"] == (1.0, None)
    assert type(batch.metrics["cpu"][0]) is float


def test_unknown_fields_of_a_newer_version_are_tolerated() -> None:
    raw = b'{"component":"bus","status":"healthy","colour":"blue","event_id":"e1"}'
    assert msgspec.json.decode(raw, type=HealthEvent).component == "bus"
