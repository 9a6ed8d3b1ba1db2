"""What `polaris publish` takes for an event, and what `polaris tail` shows of one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from polaris.cli import _lines
from polaris.cli._publish import guarantee_of, read_event
from polaris.cli._tail import facts_of
from polaris.domain import (
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
    SystemState,
    TelemetryBatch,
    TelemetryEvent,
)
from polaris.exceptions import MessageDecodeError, UnknownEventTypeError
from polaris.messaging import DeliveryClass, Receipt

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
HEALTH = b'{"component": "a", "status": "healthy"}'


@pytest.mark.parametrize(
    ("topic", "fields", "event_class"),
    [
        (
            "polaris.telemetry.web",
            {"system_state": {"system_id": "web", "timestamp": "2026-01-31T12:00:00Z"}},
            TelemetryEvent,
        ),
        (
            "polaris.adaptations.web",
            {"action": {"action_id": "a", "action_type": "t", "target_system": "web"}},
            AdaptationEvent,
        ),
        ("polaris.executions.web", {"result": {"action_id": "a", "status": "success"}}, ExecutionResultEvent),
        ("polaris.health.a", {"component": "a", "status": "healthy"}, HealthEvent),
        ("polaris.config.updates", {"changes": {"a.b": 1}}, ConfigChangedEvent),
    ],
)
def test_the_topic_tells_the_type(topic: str, fields: dict[str, Any], event_class: type[PolarisEvent]) -> None:
    event = read_event(json.dumps(fields).encode(), topic, None)
    assert type(event) is event_class


def test_a_named_type_goes_before_the_topic() -> None:
    assert type(read_event(HEALTH, "polaris.telemetry.a", "polaris.health")) is HealthEvent
    assert type(read_event(HEALTH, "plant.a", "polaris.health")) is HealthEvent


def test_a_cloud_event_keeps_its_envelope() -> None:
    document = {"specversion": "1.0", "id": "e1", "source": "me", "type": "polaris.health", "data": json.loads(HEALTH)}
    event = read_event(json.dumps(document).encode(), "plant.a", None)
    assert isinstance(event, HealthEvent)
    assert (event.event_id, event.source) == ("e1", "me")


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 5000, "not valid JSON"),
        (b"[1]", "not a JSON object, but a list"),
        (b"null", "not a JSON object, but a NoneType"),
        (b'{"component": 3}', "not a polaris.health: "),
        (b'{"component": "a", "status": "splendid"}', "not a polaris.health: "),
        (b'{"component": "", "status": "healthy"}', "not a polaris.health: "),
        (b'{"specversion": "1.0"}', "not a valid event"),
    ],
)
def test_what_is_no_event_is_refused_with_the_reason(raw: bytes, complaint: str) -> None:
    with pytest.raises(MessageDecodeError, match=complaint):
        read_event(raw, "polaris.health.a", None)


def test_an_unknown_type_is_refused_with_near_ones() -> None:
    with pytest.raises(UnknownEventTypeError, match="name it with --type"):
        read_event(HEALTH, "plant.a", None)
    with pytest.raises(UnknownEventTypeError, match=r"did you mean polaris\.health"):
        read_event(HEALTH, "plant.a", "polaris.healht")


def test_a_receipt_is_told_in_words() -> None:
    stored = Receipt(delivery=DeliveryClass.AT_LEAST_ONCE, message_id="e", stream="S", sequence=7, duplicate=True)
    assert guarantee_of(stored) == "stored as S #7, was there already (at least once)"
    sent = Receipt(delivery=DeliveryClass.AT_MOST_ONCE, message_id="e")
    assert guarantee_of(sent) == "sent to whoever listens now (at most once)"


READINGS = {name: MetricValue(name, 1024.0, "By") for name in ("a", "b", "c", "d", "e", "f", "g", "h")}


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            TelemetryEvent(SystemState("web", NOON, READINGS, HealthStatus.HEALTHY), timestamp=NOON),
            "12:00:00.000Z  telemetry   web  healthy  a=1 KiB, b=1 KiB, c=1 KiB, d=1 KiB, e=1 KiB, f=1 KiB  and 2 more",
        ),
        (
            TelemetryBatch("web", (NOON,), {"a": (1.0,)}, timestamp=NOON),
            "12:00:00.000Z  telemetry   web  1 samples",
        ),
        (
            AdaptationEvent(AdaptationAction("a1", "scale", "web"), timestamp=NOON),
            "12:00:00.000Z  action      web  scale  a1",
        ),
        (
            ExecutionResultEvent(ExecutionResult("a1", ExecutionStatus.FAILED, error_message="no"), timestamp=NOON),
            "12:00:00.000Z  result      a1  failed  no",
        ),
        (
            HealthEvent("store", HealthStatus.WARNING, "full", timestamp=NOON),
            "12:00:00.000Z  health      store  warning  full",
        ),
        (
            ConfigChangedEvent({"a": 1}, event_id="e1", timestamp=NOON),
            "12:00:00.000Z  polaris.config.changed  e1",
        ),
    ],
)
def test_an_event_is_one_line(event: PolarisEvent, line: str) -> None:
    assert _lines.line_of(event) == line
    assert facts_of(event)["type"].startswith("polaris.")


def test_what_only_others_know_is_shown_all_the_same_and_cut_short() -> None:
    shown = _lines.foreign_line("shop.orders", {"type": "shop.order", "data": {"text": "x\n" * 500}})
    assert "shop.order  on shop.orders  {" in shown
    assert "\n" not in shown
    assert len(shown) < 300
    assert "3 bytes, why" in _lines.undecodable_line("shop.orders", 3, "why")
