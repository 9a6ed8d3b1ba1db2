"""What is going on: correlation, structured logs, metrics, trace context and spans.

Every name is loaded at its first use, so that a program which needs only correlation does not pay for structlog,
prometheus_client or OpenTelemetry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polaris._lazy import lazy_names

if TYPE_CHECKING:
    from polaris._correlation import correlation_scope, current_correlation_id
    from polaris.observability._capture import CapturedLogs, capture_logs
    from polaris.observability._catalogue import CATALOGUE, MetricSpec
    from polaris.observability._instruments import Instruments
    from polaris.observability._logger import StructuredLogger
    from polaris.observability._logging_config import LoggingConfig, LogLevel
    from polaris.observability._logging_setup import configure_logging, reset_logging
    from polaris.observability._metrics import MetricsCollector
    from polaris.observability._recorder import SpanRecorder, SpanSink
    from polaris.observability._series import (
        Counter,
        Gauge,
        Histogram,
        SlotCounter,
        SlotGauge,
        SlotHistogram,
    )
    from polaris.observability._sinks import log_lines_dropped
    from polaris.observability._stdlib import JsonFormatter
    from polaris.observability._trace import (
        RatioSampler,
        TraceContext,
        current_trace,
        parse_traceparent,
        start_trace,
        trace_of,
        trace_scope,
    )
    from polaris.observability._tracing import record_span, span_context, trace_context

__all__ = [
    "correlation_scope",
    "current_correlation_id",
    "StructuredLogger",
    "LoggingConfig",
    "LogLevel",
    "JsonFormatter",
    "configure_logging",
    "reset_logging",
    "capture_logs",
    "CapturedLogs",
    "log_lines_dropped",
    "MetricsCollector",
    "Instruments",
    "MetricSpec",
    "CATALOGUE",
    "Counter",
    "Gauge",
    "Histogram",
    "SlotCounter",
    "SlotGauge",
    "SlotHistogram",
    "TraceContext",
    "RatioSampler",
    "current_trace",
    "parse_traceparent",
    "start_trace",
    "trace_of",
    "trace_scope",
    "SpanRecorder",
    "SpanSink",
    "record_span",
    "span_context",
    "trace_context",
]

_ROOM = "polaris.observability"
_HOMES = {
    "correlation_scope": "polaris._correlation",
    "current_correlation_id": "polaris._correlation",
    "StructuredLogger": f"{_ROOM}._logger",
    "LoggingConfig": f"{_ROOM}._logging_config",
    "LogLevel": f"{_ROOM}._logging_config",
    "JsonFormatter": f"{_ROOM}._stdlib",
    "configure_logging": f"{_ROOM}._logging_setup",
    "reset_logging": f"{_ROOM}._logging_setup",
    "capture_logs": f"{_ROOM}._capture",
    "CapturedLogs": f"{_ROOM}._capture",
    "log_lines_dropped": f"{_ROOM}._sinks",
    "MetricsCollector": f"{_ROOM}._metrics",
    "Instruments": f"{_ROOM}._instruments",
    "MetricSpec": f"{_ROOM}._catalogue",
    "CATALOGUE": f"{_ROOM}._catalogue",
    "Counter": f"{_ROOM}._series",
    "Gauge": f"{_ROOM}._series",
    "Histogram": f"{_ROOM}._series",
    "SlotCounter": f"{_ROOM}._series",
    "SlotGauge": f"{_ROOM}._series",
    "SlotHistogram": f"{_ROOM}._series",
    "TraceContext": f"{_ROOM}._trace",
    "RatioSampler": f"{_ROOM}._trace",
    "current_trace": f"{_ROOM}._trace",
    "parse_traceparent": f"{_ROOM}._trace",
    "start_trace": f"{_ROOM}._trace",
    "trace_of": f"{_ROOM}._trace",
    "trace_scope": f"{_ROOM}._trace",
    "SpanRecorder": f"{_ROOM}._recorder",
    "SpanSink": f"{_ROOM}._recorder",
    "record_span": f"{_ROOM}._tracing",
    "span_context": f"{_ROOM}._tracing",
    "trace_context": f"{_ROOM}._tracing",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
