"""Signals as log lines, as metrics and as events of a span: three listeners, each of use alone.

    breaker = CircuitBreaker("db", listeners=(SignalLog(logger), SignalMetrics(collector.instruments)))

They render all signals there are, and know of loggers, metrics and tracers only what they call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from polaris.exceptions import PolarisException
from polaris.resilience._breaker_config import CircuitBreakerState
from polaris.resilience._signals import (
    BreakerRejected,
    BreakerStateChanged,
    BulkheadRejected,
    ChaosInjected,
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
)

if TYPE_CHECKING:
    from polaris.observability import Instruments
    from polaris.resilience._breaker import CircuitBreaker
    from polaris.resilience._bulkhead import Bulkhead

AttributeValue = str | int | float | bool
"""What an attribute of a span may be."""


class SignalLogger(Protocol):
    """What `SignalLog` needs of a logger; `StructuredLogger` is one."""

    def debug(self, message: object, /, **fields: object) -> None: ...
    def info(self, message: object, /, **fields: object) -> None: ...
    def warning(self, message: object, /, **fields: object) -> None: ...


class _Form(NamedTuple):
    event: str
    level: Literal["debug", "info", "warning"]
    message: str


# What comes once for each rejected call is detail: under overload it would be all that the log holds.
FORMS: Mapping[type, _Form] = {
    BreakerStateChanged: _Form("polaris.breaker.state_changed", "warning", "circuit breaker changed state"),
    BreakerRejected: _Form("polaris.breaker.rejected", "debug", "circuit breaker rejected a call"),
    ProbeLeaseExpired: _Form("polaris.breaker.probe_lease_expired", "warning", "a probe held its permit too long"),
    RetryScheduled: _Form("polaris.retry.scheduled", "debug", "an attempt failed, another one follows"),
    RetryRecovered: _Form("polaris.retry.recovered", "info", "an operation succeeded after some attempts"),
    RetryGaveUp: _Form("polaris.retry.gave_up", "warning", "an operation is not tried again"),
    BulkheadRejected: _Form("polaris.bulkhead.rejected", "debug", "bulkhead rejected a call"),
    DeadlineExpired: _Form("polaris.deadline.expired", "warning", "an operation was cancelled at its deadline"),
    RateLimited: _Form("polaris.rate_limit.rejected", "debug", "rate limiter rejected a call"),
    FallbackUsed: _Form("polaris.fallback.used", "warning", "an operation failed and its fallback answered"),
    HedgeStarted: _Form("polaris.hedge.started", "debug", "an operation is slow, another call was started"),
    LimitChanged: _Form("polaris.bulkhead.limit_changed", "debug", "the adaptive limit of a bulkhead moved"),
    ChaosInjected: _Form("polaris.chaos.injected", "warning", "chaos interfered with an operation"),
}


class SignalLog:
    """Writes every signal as a log line: what an operator wants to know as warnings, the rest as info and debug."""

    def __init__(self, logger: SignalLogger) -> None:
        self._write = {"debug": logger.debug, "info": logger.info, "warning": logger.warning}

    def __call__(self, signal: Signal) -> None:
        """Write one line."""
        form = FORMS[type(signal)]
        self._write[form.level](form.message, **_fields(signal))


class SignalSpans:
    """Adds every signal as an event to the running span.

    `add_event(name, attributes)` finds that span, so any tracer will do; with OpenTelemetry:
    `SignalSpans(lambda name, attributes: trace.get_current_span().add_event(name, attributes))`.
    """

    def __init__(self, add_event: Callable[[str, Mapping[str, AttributeValue]], object]) -> None:
        self._add_event = add_event

    def __call__(self, signal: Signal) -> None:
        """Add one event; fields that are None have no attribute."""
        attributes = {name: _attribute(value) for name, value in _fields(signal).items() if value is not None}
        self._add_event(FORMS[type(signal)].event, attributes)


class SignalMetrics:
    """Counts every signal; `watch` shows the present state of breakers and bulkheads too."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments

    def __call__(self, signal: Signal) -> None:
        """Count one signal."""
        instruments = self._instruments
        match signal:
            case BreakerStateChanged():
                instruments.breaker_transitions(signal.name, signal.state.value).inc()
            case BreakerRejected():
                instruments.breaker_rejected(signal.name).inc()
            case ProbeLeaseExpired():
                instruments.breaker_probes_expired(signal.name).inc()
            case RetryScheduled():
                instruments.retries(signal.operation, "retried").inc()
            case RetryRecovered():
                instruments.retries(signal.operation, "recovered").inc()
            case RetryGaveUp():
                instruments.retries(signal.operation, "refused" if signal.reason == "refused" else "exhausted").inc()
            case BulkheadRejected():
                instruments.bulkhead_rejected(signal.name).inc()
            case LimitChanged():
                instruments.bulkhead_limit(signal.name).set(signal.limit)
            case DeadlineExpired():
                instruments.deadlines_expired(signal.operation).inc()
            case RateLimited():
                instruments.rate_limited(signal.name, signal.reason).inc()
            case FallbackUsed():
                instruments.fallbacks(signal.operation).inc()
            case HedgeStarted():
                instruments.hedges(signal.operation).inc()
            case ChaosInjected():
                instruments.chaos_injected(signal.operation).inc()

    def watch(self, *policies: CircuitBreaker | Bulkhead) -> None:
        """Show the state of these breakers and the use of these bulkheads, read at each scrape."""
        from polaris.resilience._breaker import CircuitBreaker

        for policy in policies:
            if isinstance(policy, CircuitBreaker):
                self._watch_breaker(policy)
            else:
                self._watch_bulkhead(policy)

    def _watch_breaker(self, breaker: CircuitBreaker) -> None:
        for state in CircuitBreakerState:
            gauge = self._instruments.breaker_state(breaker.name, state.value)
            gauge.set_function(lambda state=state: float(breaker.state is state))  # type: ignore[misc]

    def _watch_bulkhead(self, bulkhead: Bulkhead) -> None:
        instruments, name = self._instruments, bulkhead.name
        instruments.bulkhead_in_use(name).set_function(lambda: bulkhead.get_stats().active_calls)
        instruments.bulkhead_queued(name).set_function(lambda: bulkhead.get_stats().queued_calls)
        instruments.bulkhead_limit(name).set_function(lambda: bulkhead.get_stats().max_concurrent_calls)


def _fields(signal: Signal) -> dict[str, object]:
    values = {field.name: getattr(signal, field.name) for field in dataclasses.fields(signal)}
    return {name: value.value if isinstance(value, Enum) else value for name, value in values.items()}


def _attribute(value: object) -> AttributeValue:
    if isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, PolarisException):
        return value.code
    return type(value).__name__  # the text of a foreign error may hold anything
