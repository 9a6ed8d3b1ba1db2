"""What seeing costs: metrics a message, a log line, a trace that is not recorded, beside what others take for the same.

    python benchmarks/observability.py [--rounds 15] [--calls 20000]

Least and median processor time of a call over the rounds, contenders in turns. Log lines go to a file; a message is one
pass of a context through the middleware, whose innermost function does nothing and is taken off.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import logging.handlers
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from _harness import median, print_table
from _micro import in_turns, in_turns_async
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from prometheus_client import CollectorRegistry, Counter, Histogram

from polaris.clock import utc_now
from polaris.domain import HealthStatus, SystemState, TelemetryEvent
from polaris.messaging import MessageContext, MessageDirection, MetricsMiddleware, MiddlewareChain, TracingMiddleware
from polaris.observability import LoggingConfig, MetricsCollector, SpanRecorder, StructuredLogger
from polaris.observability._conventions import STORE_WRITE

TARGETS_US = {"metrics": 3.0, "log": 10.0, "trace": 1.0}
TOPIC = "polaris.telemetry.web"
EVENT = TelemetryEvent(SystemState("web", utc_now(), {}, HealthStatus.HEALTHY))


async def nothing(context: MessageContext) -> None:
    """The innermost function."""


def passing(*middlewares: Any) -> Callable[[], Any]:
    """One delivered message through a chain."""
    run = MiddlewareChain(middlewares).bind(nothing)
    context = MessageContext(TOPIC, EVENT, MessageDirection.DELIVER, event_type="polaris.telemetry")
    return lambda: run(context)


def prometheus_client_by_hand() -> Callable[[], Any]:
    """What one would write with prometheus_client: a counter and a histogram, found by their labels."""
    registry = CollectorRegistry()
    count = Counter("messages", "Messages.", ["topic", "status", "event_type"], registry=registry)
    seconds = Histogram("seconds", "Seconds.", ["topic", "event_type"], registry=registry)

    async def handle() -> None:
        began = time.perf_counter()
        await nothing(None)  # type: ignore[arg-type]
        count.labels(TOPIC, "processed", "polaris.telemetry").inc()
        seconds.labels(TOPIC, "polaris.telemetry").observe(time.perf_counter() - began)

    return handle


def opentelemetry_by_hand() -> Callable[[], Any]:
    """A span of OpenTelemetry's SDK for each message, none of which is sampled."""
    tracer = TracerProvider(sampler=TraceIdRatioBased(0.0), shutdown_on_exit=False).get_tracer("benchmark")

    async def handle() -> None:
        with tracer.start_as_current_span("process", attributes={"messaging.destination.name": TOPIC}):
            await nothing(None)  # type: ignore[arg-type]

    return handle


def loggers(folder: Path) -> dict[str, Callable[[], Any]]:
    """One line with three fields to a rotating file, as JSON."""
    config = LoggingConfig(console_enabled=False, file_enabled=True, file_path=folder / "polaris.log")
    ours = StructuredLogger("benchmark", config)
    handler = logging.handlers.RotatingFileHandler(folder / "logging.log", maxBytes=10 << 20, backupCount=5)

    class Json(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            fields = {"system_id": record.__dict__["system_id"], "attempt": record.__dict__["attempt"]}
            return json.dumps({"time": self.formatTime(record), "message": record.getMessage(), **fields})

    handler.setFormatter(Json())
    standard = logging.getLogger("benchmark")
    standard.setLevel(logging.INFO)
    standard.propagate = False
    standard.addHandler(handler)
    file = (folder / "structlog.log").open("a", buffering=1)
    theirs = structlog.wrap_logger(
        structlog.WriteLogger(file),
        processors=[structlog.processors.TimeStamper("iso"), structlog.processors.JSONRenderer()],
        wrapper_class=structlog.BoundLogger,
    )
    extra = {"system_id": "web", "attempt": 3}
    return {
        "POLARIS: redacted, rotated, written when it returns": lambda: ours.info("sent", system_id="web", attempt=3),
        "POLARIS, below the level": lambda: ours.debug("sent", system_id="web", attempt=3),
        "logging, RotatingFileHandler, json": lambda: standard.info("sent", extra=extra),
        "structlog, JSONRenderer, no rotation": lambda: theirs.msg("sent", system_id="web", attempt=3),
    }


def show(title: str, times: dict[str, list[float]], bare: str | None, key: str) -> None:
    rows = []
    for name, seconds in times.items():
        less = 0.0 if bare is None else min(times[bare])
        middle = 0.0 if bare is None else median(times[bare])
        rows.append((name, f"{(min(seconds) - less) * 1e6:.2f}", f"{(median(seconds) - middle) * 1e6:.2f}"))
    print_table(f"{title} (target: {TARGETS_US[key]:g} us)", ("", "least, us", "median, us"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=20_000)
    options = parser.parse_args()
    sizes = {"calls": options.calls, "rounds": options.rounds}
    bare = "nothing"
    metrics = {
        bare: passing(),
        "MetricsMiddleware": passing(MetricsMiddleware(MetricsCollector())),
        "prometheus_client by hand": prometheus_client_by_hand(),
    }
    show("Metrics, a message", asyncio.run(in_turns_async(metrics, **sizes)), bare, "metrics")
    noted = TracingMiddleware(ratio=0.0, origin=lambda context: None, on_error=lambda context, error, began_ns: None)
    traces = {
        bare: passing(),
        "TracingMiddleware": passing(TracingMiddleware(ratio=0.0)),
        "TracingMiddleware as in a node: actions and errors always": passing(noted),
        "OpenTelemetry SDK, a span that is not sampled": opentelemetry_by_hand(),
    }
    show("A trace that is not recorded, a message", asyncio.run(in_turns_async(traces, **sizes)), bare, "trace")
    recorder = SpanRecorder("benchmark", 0.0)

    def span() -> None:
        with recorder.span(STORE_WRITE, rows=1):
            pass

    show("A span within it", in_turns({"SpanRecorder.span": span}, **sizes), None, "trace")
    with tempfile.TemporaryDirectory() as folder:
        show("A log line", in_turns(loggers(Path(folder)), **sizes), None, "log")


if __name__ == "__main__":
    main()
