"""Signals as log lines, metrics and events of a span: every kind of signal, rendered by every listener."""

from __future__ import annotations

import asyncio
from typing import Any, get_args

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.unit.resilience.doubles import fail

from polaris.exceptions import CircuitBreakerOpenException, ConnectorError
from polaris.observability import LoggingConfig, MetricsCollector, StructuredLogger, capture_logs
from polaris.resilience import (
    BreakerRejected,
    BreakerStateChanged,
    Bulkhead,
    BulkheadConfig,
    BulkheadRejected,
    ChaosInjected,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerState,
    DeadlineExpired,
    FallbackUsed,
    HedgeStarted,
    LimitChanged,
    ProbeLeaseExpired,
    RateLimited,
    RetryGaveUp,
    RetryRecovered,
    RetryScheduled,
    Signal,
    SignalLog,
    SignalMetrics,
    SignalSpans,
)
from polaris.testing import VirtualClock

BOOM = ConnectorError("no answer")
ONE_OF_EACH: list[Signal] = [
    BreakerStateChanged("db", CircuitBreakerState.CLOSED, CircuitBreakerState.OPEN, "5 failures", 30.0),
    BreakerRejected("db", CircuitBreakerState.OPEN, 12.5),
    ProbeLeaseExpired("db"),
    RetryScheduled("read", 1, 0.2, BOOM),
    RetryRecovered("read", 2),
    RetryGaveUp("read", 3, "attempts", BOOM),
    RetryGaveUp("read", 1, "refused", BOOM),
    BulkheadRejected("pool", "read", "full", 10, 0),
    DeadlineExpired("read", 2.0),
    RateLimited("api", "read", "rate", None),
    FallbackUsed("read", BOOM),
    HedgeStarted("read", 2),
    LimitChanged("pool", 20, 18),
    ChaosInjected("read", 0.5, OSError("password=hunter2")),
]


def test_the_list_here_knows_every_kind_of_signal() -> None:
    assert {type(signal) for signal in ONE_OF_EACH} == set(get_args(Signal))


@pytest.mark.parametrize("signal", ONE_OF_EACH, ids=lambda signal: type(signal).__name__)
def test_every_signal_becomes_one_log_line_with_its_fields(signal: Signal) -> None:
    with capture_logs() as logs:
        SignalLog(StructuredLogger("policies", LoggingConfig(level="DEBUG")))(signal)
    [line] = logs
    assert line["logger"] == "policies"
    text = str(line)
    for name in type(signal).__dataclass_fields__:
        assert name in text
    assert "hunter2" not in text


def test_what_an_operator_wants_to_know_is_a_warning_and_a_rejection_is_detail() -> None:
    with capture_logs() as logs:
        log = SignalLog(StructuredLogger("policies", LoggingConfig(level="DEBUG")))
        for signal in ONE_OF_EACH[:2]:
            log(signal)
    assert [line["level"] for line in logs] == ["WARNING", "DEBUG"]


def counted(collector: MetricsCollector, name: str, **labels: str) -> float | None:
    return collector.registry.get_sample_value(name, labels)


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("polaris_circuit_breaker_transitions_total", {"breaker": "db", "state": "open"}, 1),
        ("polaris_circuit_breaker_rejected_total", {"breaker": "db"}, 1),
        ("polaris_circuit_breaker_probes_expired_total", {"breaker": "db"}, 1),
        ("polaris_retries_total", {"operation": "read", "outcome": "retried"}, 1),
        ("polaris_retries_total", {"operation": "read", "outcome": "recovered"}, 1),
        ("polaris_retries_total", {"operation": "read", "outcome": "exhausted"}, 1),
        ("polaris_retries_total", {"operation": "read", "outcome": "refused"}, 1),
        ("polaris_bulkhead_rejected_total", {"bulkhead": "pool"}, 1),
        ("polaris_bulkhead_limit", {"bulkhead": "pool"}, 18),
        ("polaris_deadlines_expired_total", {"operation": "read"}, 1),
        ("polaris_rate_limited_total", {"limiter": "api", "reason": "rate"}, 1),
        ("polaris_fallbacks_total", {"operation": "read"}, 1),
        ("polaris_hedges_total", {"operation": "read"}, 1),
        ("polaris_chaos_injected_total", {"operation": "read"}, 1),
    ],
)
def test_every_signal_is_counted(name: str, labels: dict[str, str], expected: float) -> None:
    collector = MetricsCollector()
    count = SignalMetrics(collector.instruments)
    for signal in ONE_OF_EACH:
        count(signal)
    assert counted(collector, name, **labels) == expected


async def test_the_state_of_a_watched_breaker_is_read_at_each_scrape(clock: VirtualClock) -> None:
    collector = MetricsCollector()
    breaker = CircuitBreaker("db", CircuitBreakerConfig(failure_threshold=1, timeout=30.0), clock=clock)
    SignalMetrics(collector.instruments).watch(breaker)

    def shown() -> list[str]:
        states = [state.value for state in CircuitBreakerState]
        return [
            state
            for state in states
            if counted(collector, "polaris_circuit_breaker_state", breaker="db", state=state) == 1.0
        ]

    assert shown() == ["closed"]
    with pytest.raises(Exception, match="boom"):
        await breaker.call(fail)
    assert shown() == ["open"]
    clock.advance(31.0)
    assert shown() == ["half_open"]
    breaker.isolate()
    assert shown() == ["isolated"]


async def test_the_use_of_a_watched_bulkhead_is_read_at_each_scrape() -> None:
    collector = MetricsCollector()
    bulkhead = Bulkhead("pool", BulkheadConfig(2, max_queued_calls=5))
    SignalMetrics(collector.instruments).watch(bulkhead)
    gate = asyncio.Event()
    calls = [asyncio.create_task(bulkhead.execute(gate.wait)) for _ in range(3)]
    await asyncio.sleep(0)
    names = ("polaris_bulkhead_in_use", "polaris_bulkhead_queued", "polaris_bulkhead_limit")
    assert [counted(collector, name, bulkhead="pool") for name in names] == [2.0, 1.0, 2.0]
    gate.set()
    await asyncio.gather(*calls)
    assert [counted(collector, name, bulkhead="pool") for name in names] == [0.0, 0.0, 2.0]


async def test_signals_are_events_of_the_running_span() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def add_event(name: str, attributes: Any) -> None:
        trace.get_current_span().add_event(name, attributes)

    breaker = CircuitBreaker("db", listeners=(SignalSpans(add_event),))
    with provider.get_tracer("test").start_as_current_span("work"):
        breaker.isolate()
        with pytest.raises(CircuitBreakerOpenException):
            await breaker.call(fail)
        for signal in ONE_OF_EACH:
            SignalSpans(add_event)(signal)
    [span] = exporter.get_finished_spans()
    first, second, *rest = span.events
    assert first.name == "polaris.breaker.state_changed"
    assert dict(first.attributes or {}) == {
        "name": "db",
        "former": "closed",
        "state": "isolated",
        "reason": "isolated by hand",
    }
    assert second.name == "polaris.breaker.rejected"
    assert len({event.name for event in rest}) == len(get_args(Signal))
    assert "hunter2" not in str([dict(event.attributes or {}) for event in rest])
    [scheduled] = [event for event in rest if event.name == "polaris.retry.scheduled"]
    assert (scheduled.attributes or {})["error"] == "polaris.connector"
