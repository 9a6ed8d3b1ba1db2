"""The facts that everything else talks about, and the events that carry them."""

from polaris.domain._actions import AdaptationAction, ExecutionResult, ExecutionStatus, LearnedPattern, SystemDependency
from polaris.domain._events import (
    AdaptationEvent,
    ConfigChangedEvent,
    ExecutionResultEvent,
    HealthEvent,
    PolarisEvent,
    TelemetryBatch,
    TelemetryEvent,
)
from polaris.domain._frozen import FrozenDict
from polaris.domain._registry import EVENTS, EventKind, EventRegistry, EventType, event_type
from polaris.domain._schemas import event_schema, event_schemas
from polaris.domain._states import HealthStatus, MetricScalar, MetricValue, Quality, SystemState
from polaris.domain._versions import Upcaster

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
    "EventKind",
    "EventRegistry",
    "EventType",
    "EVENTS",
    "event_type",
    "Upcaster",
    "event_schema",
    "event_schemas",
    "FrozenDict",
]
