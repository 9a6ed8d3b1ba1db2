"""Carries actions out on one managed system behind the resilience policies, and says what came of them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import msgspec

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.connectors import RecallsActions
from polaris.domain import AdaptationAction, ExecutionResult, ExecutionStatus
from polaris.exceptions import (
    ActionNotSupportedError,
    BulkheadRejectedException,
    CircuitBreakerOpenException,
    ConnectorError,
    DeadlineExceededError,
    RetryExhaustedError,
)
from polaris.observability import SpanRecorder
from polaris.observability._conventions import ATTEMPT, EXECUTE
from polaris.resilience import (
    Bulkhead,
    BulkheadConfig,
    CircuitBreaker,
    CircuitBreakerConfig,
    Listener,
    Pipeline,
    RetryConfig,
    RetryPolicy,
    Timeout,
)
from polaris.runtime._connection import Connection
from polaris.runtime._settings import ActionSettings

if TYPE_CHECKING:
    from polaris.observability import StructuredLogger

RECALL_TIMEOUT_S = 10.0
ERROR_CHARS_MAX = 2000
RESULT_BYTES_MAX = 32_768
"""Of `result_data` as JSON; it must fit into the store's outbox and through any bus."""

# Errors that, by the law of the connector port and of the policies, mean that nothing was done to the system.
NOTHING_DONE = (ConnectorError, CircuitBreakerOpenException, BulkheadRejectedException)


class ActionExecution:
    """The way of actions to one managed system. Every outcome is a result; only cancellation gets through.

    Attempts are repeated only after errors that mean that nothing was done; what may have had an effect is never
    repeated. An execution that runs out of time is `timeout`, one that breaks off in an unforeseen way is `unknown`,
    unless the connector can recall by the action's id what came of it.
    """

    def __init__(
        self,
        connection: Connection,
        settings: ActionSettings,
        logger: StructuredLogger,
        *,
        listeners: tuple[Listener, ...] = (),
        recorder: SpanRecorder | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._connection = connection
        self.system_id = connection.connector.system_id
        self._settings = settings
        self._logger = logger.bind(system_id=self.system_id)
        self._clock = clock
        self._recorder = recorder or SpanRecorder("polaris", 0.0)
        name = f"actions:{self.system_id}"
        self.breaker = CircuitBreaker(
            name,
            CircuitBreakerConfig(failure_threshold=settings.breaker_failures, timeout=settings.breaker_open_s),
            clock=clock,
            listeners=listeners,
        )
        self.bulkhead = Bulkhead(
            name,
            BulkheadConfig(max_concurrent_calls=settings.concurrent_max, max_queued_calls=1000),
            listeners=listeners,
        )
        self._pipeline = Pipeline(
            name=name,
            retry=RetryPolicy(
                RetryConfig(max_attempts=settings.attempts_max, base_delay=0.2, max_delay=5.0, retryable=NOTHING_DONE),
                clock=clock,
                listeners=listeners,
            ),
            breaker=self.breaker,
            bulkhead=self.bulkhead,
        )

    async def execute(self, action: AdaptationAction) -> ExecutionResult:
        """The final result of the action, with the times of its execution."""
        started_at = self._clock.now()
        named: dict[str, Any] = {
            "system_id": self.system_id,
            "action_id": action.action_id,
            "action_type": action.action_type,
        }
        with self._recorder.span(EXECUTE, **named):
            result = await self._outcome(action, named)
            error = None if result.status is ExecutionStatus.SUCCESS else f"polaris.action.{result.status.value}"
            self._recorder.note(EXECUTE, error=error, status=result.status.value)
        if not result.status.is_final:
            result = _result(
                action, ExecutionStatus.UNKNOWN, f"the connector returned the status {result.status.value}"
            )
        return msgspec.structs.replace(
            result,
            action_id=action.action_id,
            result_data=_bounded(result.result_data),
            error_message=result.error_message and result.error_message[:ERROR_CHARS_MAX],
            started_at=result.started_at or started_at,
            completed_at=result.completed_at or self._clock.now(),
        )

    async def _outcome(self, action: AdaptationAction, named: dict[str, Any]) -> ExecutionResult:
        limit = Timeout(action.timeout_seconds or self._settings.timeout_s)
        number = 0

        async def attempt() -> ExecutionResult:
            nonlocal number
            number += 1
            execute = self._connection.connector.execute_action
            # Connecting is not yet executing: what goes wrong there, or takes too long, has done nothing.
            with self._recorder.span(ATTEMPT, None, attempt=number, **named):
                async with self._connection.for_action():
                    return await limit.execute(functools.partial(execute, action), action.action_type)

        try:
            return await self._pipeline.execute(attempt, action.action_type)
        except ActionNotSupportedError as error:
            return _result(action, ExecutionStatus.REJECTED, error.message)
        except DeadlineExceededError as error:
            return await self._cut_off(action, ExecutionStatus.TIMEOUT, error.message)
        except (RetryExhaustedError, *NOTHING_DONE) as error:
            return _result(action, ExecutionStatus.FAILED, f"nothing was done: {error.message}")
        except Exception as error:  # boundary: a connector may be anybody's code, and its failure is an outcome
            self._logger.exception("connector failed in mid-execution", action_id=action.action_id)
            return await self._cut_off(
                action, ExecutionStatus.UNKNOWN, f"broken off by {type(error).__name__}: {error}"
            )

    async def _cut_off(self, action: AdaptationAction, status: ExecutionStatus, reason: str) -> ExecutionResult:
        """What became of an execution that did not end by itself: what the connector recalls, else `status`."""
        recalled = await self.recalled(action)
        if recalled is None:
            return _result(action, status, f"{reason}; the system may have been changed")
        if not recalled.status.is_final:
            return _result(action, ExecutionStatus.FAILED, f"nothing was done: {reason}")
        return recalled

    async def recalled(self, action: AdaptationAction) -> ExecutionResult | None:
        """What the connector knows of an action that was cut off: final, `pending` (not begun), None (cannot tell)."""
        connector = self._connection.connector
        if not isinstance(connector, RecallsActions):
            return None
        recall = functools.partial(connector.recall_action, action.action_id)
        try:
            return await Timeout(RECALL_TIMEOUT_S).execute(recall, "recall action")
        except Exception:  # boundary: a connector may be anybody's code; what it cannot recall is not known
            self._logger.exception("connector could not recall the action", action_id=action.action_id)
            return None


def _bounded(result_data: dict[str, Any]) -> dict[str, Any]:
    count = len(msgspec.json.encode(result_data))
    if count <= RESULT_BYTES_MAX:
        return result_data
    return {"left_out": f"{count} bytes of result data, the limit is {RESULT_BYTES_MAX}"}


def _result(action: AdaptationAction, status: ExecutionStatus, message: str) -> ExecutionResult:
    return ExecutionResult(action.action_id, status, error_message=message[:ERROR_CHARS_MAX])


def rejection(action: AdaptationAction, message: str, clock: Clock) -> ExecutionResult:
    """The result of an action that was refused before anything was done."""
    now = clock.now()
    return ExecutionResult(
        action.action_id,
        ExecutionStatus.REJECTED,
        error_message=message[:ERROR_CHARS_MAX],
        started_at=now,
        completed_at=now,
    )
