"""Retry: repeats what failed, if repeating may help, within bounds of number, time and share."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import timedelta
from random import Random
from typing import Any, TypeVar

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.exceptions import InvalidValueError, RetryExhaustedError
from polaris.resilience._backoff import Backoff
from polaris.resilience._deadline import DeadlineScope, note_failure, remaining_s
from polaris.resilience._durations import duration_s
from polaris.resilience._retry_budget import RetryBudget
from polaris.resilience._retry_config import RetryConfig
from polaris.resilience._signals import Listener, RetryGaveUp, RetryRecovered, RetryScheduled, Signal, emit
from polaris.resilience._step import Operation, PolicyStep, Step, invoke
from polaris.resilience._timeout import Timeout
from polaris.resilience._verdict import RetryVerdict

T = TypeVar("T")


class RetryPolicy:
    """Calls an operation until it succeeds, must not be repeated, or a bound is reached; see `RetryConfig`.

    Which errors: a `PolarisException` whose `retryable` is True or False decides itself. For others the most specific
    type named in `retryable` or `non_retryable` decides (a type in both is retried); unnamed errors are retried unless
    `retryable` was given. Cancellation is never caught, during an attempt or a wait.

    Law: an error that must not be retried is raised as it is. When a bound ends the retries, `RetryExhaustedError` is
    raised with the last error as `__cause__` and the bound as `reason`: "attempts", "budget", "deadline" (the next
    attempt would start too late) or "retry_after". There is no wait after the last attempt. A deadline
    (`total_timeout`, `deadline`, or the surrounding scope) also interrupts an attempt that hangs:
    `DeadlineExceededError`, caused by the last failure if there was one. An error with `retry_after` (seconds) is
    waited for at least that long. Retry only what may be done twice: an attempt that timed out may have taken effect.

    Without state but for the budget; may be shared by tasks, threads and loops.
    """

    def __init__(
        self,
        config: RetryConfig | None = None,
        *,
        budget: RetryBudget | None = None,
        clock: Clock = SYSTEM_CLOCK,
        random: Random | None = None,
        listeners: Iterable[Listener] = (),
    ) -> None:
        self.config = config = config or RetryConfig()
        self.budget = budget
        self._clock = clock
        self._listeners = tuple(listeners)
        self._may_retry = RetryVerdict(config.retryable, config.non_retryable)
        self._backoff = Backoff(
            config.base_delay, config.max_delay, multiplier=config.multiplier, jitter=config.jitter, random=random
        )
        longest = config.max_delay if config.retry_after_max is None else config.retry_after_max
        self._retry_after_max_s = duration_s("retry_after_max", longest, zero=True)
        self._total_s = None if config.total_timeout is None else duration_s("total_timeout", config.total_timeout)
        self._run = self.bind(invoke)

    def execute(
        self, func: Operation[T], operation_name: str = "", *, deadline: float | timedelta | None = None
    ) -> Coroutine[Any, Any, T]:
        """Run `func` under this policy and return its result.

        `deadline` ends the whole like `total_timeout`: an absolute time as from `current_deadline()`, or a timedelta
        from now. The earliest of all deadlines holds.
        """
        if deadline is None:
            return self._run(func, operation_name)
        return self._within(deadline, func, operation_name)

    def execute_sync(
        self, func: Callable[[], T], operation_name: str = "", *, sleep: Callable[[float], None] = time.sleep
    ) -> T:
        """As `execute`, for a function that blocks; `sleep` waits between attempts. Not for an event loop's thread.

        A blocking call cannot be interrupted: deadlines are looked at between attempts, and a policy with
        `attempt_timeout` is refused.
        """
        if self.config.attempt_timeout is not None:
            raise InvalidValueError("attempt_timeout", "None, as a blocking call cannot be interrupted", self)
        with DeadlineScope(self._total_s, operation=operation_name):
            if self.budget is not None:
                self.budget.record_call()
            attempt, delay_s = 1, 0.0
            while True:
                try:
                    result = func()
                except Exception as error:  # boundary: judged in one place, raised again if not retried
                    wait_s = self._judge(error, attempt, delay_s, operation_name)
                    if wait_s is None:
                        raise
                    delay_s = wait_s
                else:
                    if attempt > 1:
                        self._report(RetryRecovered(operation_name, attempt))
                    return result
                sleep(delay_s)
                attempt += 1

    def bind(self, inner: Step, /) -> PolicyStep:
        """This policy round `inner`; see `Policy`."""
        if self.config.attempt_timeout is not None:
            inner = Timeout(self.config.attempt_timeout, listeners=self._listeners).bind(inner)
        budget, sleep = self.budget, self._clock.sleep

        async def run(func: Callable[[], Awaitable[Any]], operation: str) -> Any:
            if budget is not None:
                budget.record_call()
            attempt, delay_s = 1, 0.0
            while True:
                try:
                    result = await inner(func, operation)
                except Exception as error:  # boundary: judged in one place, raised again if not retried
                    wait_s = self._judge(error, attempt, delay_s, operation)
                    if wait_s is None:
                        raise
                    delay_s = wait_s
                else:
                    if attempt > 1:
                        self._report(RetryRecovered(operation, attempt))
                    return result
                # Outside the handler, so that the errors of later attempts do not chain to this one.
                await sleep(delay_s)
                attempt += 1

        if self._total_s is None:
            return run
        return Timeout(self._total_s, listeners=self._listeners).bind(run)

    def delay_s(self, attempt: int, *, former_s: float = 0.0) -> float:
        """A wait as it might be drawn after attempt number `attempt` (from 1); `former_s` is the wait before it."""
        return self._backoff.delay_s(attempt, former_s=former_s)

    async def _within(self, deadline: float | timedelta, func: Operation[T], operation: str) -> T:
        if isinstance(deadline, timedelta):
            scope = DeadlineScope(deadline.total_seconds(), operation=operation, listeners=self._listeners)
        elif isinstance(deadline, (int, float)) and not isinstance(deadline, bool) and math.isfinite(deadline):
            scope = DeadlineScope(None, when=deadline, operation=operation, listeners=self._listeners)
        else:
            raise InvalidValueError("deadline", "a finite absolute time in seconds, a timedelta or None", deadline)
        with scope:
            result: T = await self._run(func, operation)
            return result

    def _judge(self, error: Exception, attempt: int, former_s: float, operation: str) -> float | None:
        """The wait before the next attempt, or None for an error that must not be retried.

        Raises what ends the retries when a bound forbids the next attempt.
        """
        if not self._may_retry(error):
            self._report(RetryGaveUp(operation, attempt, "refused", error))
            return None
        note_failure(error)
        delay_s, reason = self._plan(error, attempt, former_s)
        if reason is None:
            self._report(RetryScheduled(operation, attempt, delay_s, error))
            return delay_s
        self._report(RetryGaveUp(operation, attempt, reason, error))
        raise RetryExhaustedError(operation, attempts=attempt, reason=reason, cause=error) from error

    def _plan(self, error: Exception, attempt: int, former_s: float) -> tuple[float, str | None]:
        """The next wait and None, or anything and the bound that forbids it. The budget is asked last."""
        if attempt >= self.config.max_attempts:
            return 0.0, "attempts"
        delay_s = self.delay_s(attempt, former_s=former_s)
        asked_s = _retry_after_s(error)
        if asked_s is not None:
            if asked_s > self._retry_after_max_s:
                return 0.0, "retry_after"
            if asked_s > delay_s:
                # A little later than asked, else all who were turned away together would come back together.
                delay_s = asked_s + self._backoff.spread_s()
        left_s = remaining_s()
        if left_s is not None and delay_s >= left_s:
            return 0.0, "deadline"
        if self.budget is not None and not self.budget.try_spend():
            return 0.0, "budget"
        return delay_s, None

    def _report(self, signal: Signal) -> None:
        if self._listeners:
            emit(self._listeners, signal)


def _retry_after_s(error: Exception) -> float | None:
    """How long the other side asked to be left alone, if the error carries a usable `retry_after`."""
    asked: object = getattr(error, "retry_after", None)
    if isinstance(asked, timedelta):
        asked = asked.total_seconds()
    if isinstance(asked, (int, float)) and not isinstance(asked, bool) and 0 <= asked < math.inf:
        return float(asked)
    return None
