"""One line for people about what passed on the bus."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from polaris.cli._output import coloured, status_text, value_text
from polaris.domain import (
    EVENTS,
    AdaptationEvent,
    ExecutionResultEvent,
    HealthEvent,
    PolarisEvent,
    SystemState,
    TelemetryBatch,
    TelemetryEvent,
)

METRICS_SHOWN_MAX = 6
DATA_CHARS_MAX = 160


def line_of(event: PolarisEvent) -> str:
    """When, what kind of event, and what it says. Times are UTC."""
    kind, text = _content(event)
    return f"{_moment(event.timestamp)}  {kind:10}  {text}".rstrip()


def foreign_line(topic: str, document: Mapping[str, Any]) -> str:
    """An event of a type that only others know: its topic, type and data."""
    data = msgspec.json.encode(document.get("data")).decode()
    return f"{_moment(datetime.now(UTC))}  {document.get('type')}  on {topic}  {_shortened(data)}"


def undecodable_line(topic: str, payload_bytes: int, reason: str) -> str:
    """A message that is no event."""
    kind = coloured("unreadable", "red")
    return f"{_moment(datetime.now(UTC))}  {kind}  on {topic}  {payload_bytes} bytes, {_shortened(reason)}"


def _moment(moment: datetime) -> str:
    return coloured(moment.strftime("%H:%M:%S.%f")[:-3] + "Z", "dim")


def _shortened(text: str) -> str:
    line = text.replace("\n", " ")
    return line if len(line) <= DATA_CHARS_MAX else line[: DATA_CHARS_MAX - 3] + "..."


def _content(event: PolarisEvent) -> tuple[str, str]:
    match event:
        case TelemetryEvent():
            return "telemetry", _state_text(event.system_state)
        case TelemetryBatch():
            return "telemetry", f"{event.system_id}  {len(event.timestamps)} samples"
        case AdaptationEvent():
            action = event.action
            return "action", f"{action.target_system}  {action.action_type}  {action.action_id}"
        case ExecutionResultEvent():
            result = event.result
            return "result", f"{result.action_id}  {status_text(result.status)}  {result.error_message or ''}"
        case HealthEvent():
            return "health", f"{event.component}  {status_text(event.status)}  {event.message}"
        case _:
            return EVENTS.require(type(event)).name, event.event_id


def _state_text(state: SystemState) -> str:
    shown = [f"{name}={value_text(metric.value, metric.unit)}" for name, metric in state.metrics.items()]
    more = f"  and {len(shown) - METRICS_SHOWN_MAX} more" if len(shown) > METRICS_SHOWN_MAX else ""
    return f"{state.system_id}  {status_text(state.health_status)}  {', '.join(shown[:METRICS_SHOWN_MAX])}{more}"
