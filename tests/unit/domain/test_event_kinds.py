from __future__ import annotations

import pytest

from polaris.domain import (
    EVENTS,
    AdaptationEvent,
    EventKind,
    EventRegistry,
    ExecutionResultEvent,
    HealthEvent,
    PolarisEvent,
    TelemetryBatch,
    TelemetryEvent,
    event_type,
)
from polaris.exceptions import ConfigurationError


@pytest.mark.parametrize("event_class", [TelemetryEvent, TelemetryBatch])
def test_readings_are_telemetry(event_class: type[PolarisEvent]) -> None:
    assert EVENTS.require(event_class).kind is EventKind.TELEMETRY


@pytest.mark.parametrize("event_class", [AdaptationEvent, ExecutionResultEvent, HealthEvent])
def test_what_decides_or_answers_is_control(event_class: type[PolarisEvent]) -> None:
    assert EVENTS.require(event_class).kind is EventKind.CONTROL


def test_an_event_of_ones_own_is_control_unless_it_says_otherwise() -> None:
    registry = EventRegistry(parent=EVENTS)

    @event_type("acme.order.shipped", registry=registry)
    class Shipped(PolarisEvent, frozen=True):
        order: str

    @event_type("acme.queue.length", kind=EventKind.TELEMETRY, registry=registry)
    class QueueLength(PolarisEvent, frozen=True):
        length: int

    assert registry.require(Shipped).kind is EventKind.CONTROL
    assert registry.require(QueueLength).kind is EventKind.TELEMETRY


def test_a_type_cannot_be_of_two_kinds() -> None:
    registry = EventRegistry()
    registry.register(HealthEvent, "acme.health")

    with pytest.raises(ConfigurationError):
        registry.register(HealthEvent, "acme.health", kind=EventKind.TELEMETRY)
