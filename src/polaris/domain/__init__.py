"""The facts that everything else talks about, and the events that carry them."""

from polaris.domain._actions import AdaptationAction, ExecutionResult, ExecutionStatus, LearnedPattern, SystemDependency
from polaris.domain._events import (
    EVENTS,
    AdaptationEvent,
    ConfigChangedEvent,
    EventRegistry,
    EventType,
    ExecutionResultEvent,
    HealthEvent,
    PolarisEvent,
    TelemetryBatch,
    TelemetryEvent,
    event_type,
)
from polaris.domain._frozen import FrozenDict
from polaris.domain._states import HealthStatus, MetricScalar, MetricValue, Quality, SystemState

__all__ = [
    "MetricValue",
    "MetricScalar",
    "Quality",
    "HealthStatus",
    "SystemState",
    "AdaptationAction",
    "ExecutionStatus",
    "ExecutionResult",
    "SystemDependency",
    "LearnedPattern",
    "PolarisEvent",
    "TelemetryEvent",
    "TelemetryBatch",
    "AdaptationEvent",
    "ExecutionResultEvent",
    "HealthEvent",
    "ConfigChangedEvent",
    "EventRegistry",
    "EventType",
    "EVENTS",
    "event_type",
    "FrozenDict",
]
