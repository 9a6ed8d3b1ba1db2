"""What resilience policies report, as metrics and log lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polaris.resilience import (
    BreakerRejected,
    BreakerStateChanged,
    BulkheadRejected,
    RetryGaveUp,
    RetryRecovered,
    RetryScheduled,
    Signal,
)

if TYPE_CHECKING:
    from polaris.observability import Instruments, StructuredLogger


class PolicySignals:
    """A listener for policies: counts every signal, and logs those that an operator wants to know of."""

    def __init__(self, instruments: Instruments, logger: StructuredLogger) -> None:
        self._instruments = instruments
        self._logger = logger

    def __call__(self, signal: Signal) -> None:
        match signal:
            case BreakerStateChanged():
                self._instruments.breaker_state(signal.name).set(signal.state.value)
                self._instruments.breaker_transitions(signal.name, signal.state.value).inc()
                self._logger.warning(
                    "circuit breaker changed state",
                    breaker=signal.name,
                    former=signal.former.value,
                    state=signal.state.value,
                    reason=signal.reason,
                )
            case BreakerRejected():
                self._instruments.breaker_rejected(signal.name).inc()
            case BulkheadRejected():
                self._instruments.bulkhead_rejected(signal.name).inc()
            case RetryScheduled():
                self._instruments.retries(signal.operation, "retried").inc()
            case RetryRecovered():
                self._instruments.retries(signal.operation, "recovered").inc()
            case RetryGaveUp():
                self._instruments.retries(signal.operation, "exhausted").inc()
            case _:
                pass
