"""One event of each kind that travels between systems, as the AsyncAPI document shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from polaris.domain import (
    AdaptationAction,
    AdaptationEvent,
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

_NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def _fixed(number: int) -> dict[str, Any]:
    return {"event_id": f"example-{number}", "timestamp": _NOON, "correlation_id": "loop-1", "source": "example"}


EXAMPLES: Mapping[type[Any], Callable[[], PolarisEvent]] = {
    TelemetryEvent: lambda: TelemetryEvent(
        SystemState(
            "boiler",
            _NOON,
            {
                "temperature": MetricValue("temperature", 71.5, "Cel"),
                # Missing is not zero.
                "flow": MetricValue("flow", None, "l/min"),
            },
            HealthStatus.HEALTHY,
        ),
        **_fixed(1),
    ),
    TelemetryBatch: lambda: TelemetryBatch(
        "boiler",
        (_NOON, _NOON + timedelta(seconds=1)),
        {"temperature": (71.5, None)},
        {"temperature": "Cel"},
        HealthStatus.HEALTHY,
        **_fixed(2),
    ),
    AdaptationEvent: lambda: AdaptationEvent(
        AdaptationAction("heat-42", "set_target", "boiler", {"target": 72.0}, 10, 20.0, _NOON), **_fixed(3)
    ),
    ExecutionResultEvent: lambda: ExecutionResultEvent(
        ExecutionResult("heat-42", ExecutionStatus.SUCCESS, {"target": 72.0}, None, _NOON, _NOON), **_fixed(4)
    ),
    HealthEvent: lambda: HealthEvent("store", HealthStatus.WARNING, "the disk is nearly full", **_fixed(5)),
}
