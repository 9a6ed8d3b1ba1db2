"""A bound on calls per time, with a bounded first-in-first-out queue in front of it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from polaris.exceptions import RateLimitExceededError
from polaris.resilience._deadline import current_deadline, monotonic_s, remaining_s
from polaris.resilience._durations import Duration, count_of, duration_s
from polaris.resilience._signals import Listener, RateLimited, emit
from polaris.resilience._step import Operation, PolicyStep, Step, invoke

T = TypeVar("T")

# A millionth of a call: more than rounding may lose, so that a turn is never waited for twice.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class RateLimiterConfig:
    """The bounds of a rate limiter.

    max_calls, period: on average at most so many calls start in a period (seconds or timedelta, default 1 s).
    burst: calls that may start at the same moment after a quiet time; default: `max_calls`.
    max_queued_calls: callers that may wait for their turn; 0 means that there is no waiting.
    max_wait: the longest wait; None leaves it to the caller's deadline.
    """

    max_calls: int = 100
    period: Duration = 1.0
    burst: int | None = None
    max_queued_calls: int = 0
    max_wait: Duration | None = None

    def __post_init__(self) -> None:
        count_of("max_calls", self.max_calls)
        duration_s("period", self.period)
        if self.burst is not None:
            count_of("burst", self.burst)
        count_of("max_queued_calls", self.max_queued_calls, least=0)
        if self.max_wait is not None:
            duration_s("max_wait", self.max_wait, zero=True)


@dataclass(frozen=True, slots=True)
class RateLimiterStats:
    """A rate limiter at one moment; `rejected_calls` counts from its making."""

    name: str
    available_calls: float
    queued_calls: int
    rejected_calls: int


class RateLimiter:
    """A token bucket: in any time t at most `burst + max_calls * t / period` calls start.

    Turns go to waiters in order of arrival, and newcomers never overtake them. As the turns are known in advance, a
    caller whose turn would come after `max_wait` or after its deadline is rejected at once, with the wait as
    `retry_after`: `RateLimitExceededError`, and nothing was started. A waiter that is cancelled gives its turn to the
    next. A started call is paid for, however it ends.

    Belongs to one event loop, whose time it uses; not thread-safe.
    """

    def __init__(
        self, name: str, config: RateLimiterConfig | None = None, *, listeners: Iterable[Listener] = ()
    ) -> None:
        self.name = name
        self.config = config = config or RateLimiterConfig()
        self._rate_per_s = config.max_calls / duration_s("period", config.period)
        self._burst = float(config.burst or config.max_calls)
        self._wait_max_s = None if config.max_wait is None else duration_s("max_wait", config.max_wait, zero=True)
        self._listeners = tuple(listeners)
        self._tokens = self._burst
        self._filled_s: float | None = None
        self._rejected = 0
        self._waiters: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._run = self.bind(invoke)

    def execute(self, func: Operation[T], operation_name: str = "") -> Coroutine[Any, Any, T]:
        """Run `func` when its turn comes; `RateLimitExceededError` if that takes too long."""
        return self._run(func, operation_name)

    def bind(self, inner: Step, /) -> PolicyStep:
        """This limiter round `inner`; see `Policy`."""

        async def run(func: Callable[[], Awaitable[Any]], operation: str) -> Any:
            self._fill()
            if self._tokens >= 1 - _ROUNDING and not self._waiters:
                self._tokens -= 1
            else:
                self._refuse_if_late(operation)
                await self._wait_for_turn()
            return await inner(func, operation)

        return run

    def get_stats(self) -> RateLimiterStats:
        """The limiter as it is now."""
        self._fill()
        return RateLimiterStats(self.name, max(0.0, self._tokens), len(self._waiters), self._rejected)

    def _fill(self) -> None:
        now_s = monotonic_s()
        if self._filled_s is not None:
            self._tokens = min(self._burst, self._tokens + (now_s - self._filled_s) * self._rate_per_s)
        self._filled_s = now_s

    def _refuse_if_late(self, operation: str) -> None:
        wait_s = (len(self._waiters) + 1 - self._tokens) / self._rate_per_s
        if len(self._waiters) >= self.config.max_queued_calls:
            raise self._rejection(operation, "rate", wait_s)
        if self._wait_max_s is None and current_deadline() is None:
            return
        left_s = remaining_s()
        if (self._wait_max_s is not None and wait_s > self._wait_max_s) or (left_s is not None and wait_s >= left_s):
            raise self._rejection(operation, "wait", wait_s)

    async def _wait_for_turn(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[turn] = None
        self._arm()
        try:
            await turn
        except BaseException:  # boundary: whatever ends the wait, the queue and the turn are put right
            self._waiters.pop(turn, None)
            if turn.done() and not turn.cancelled():
                # Cancelled in the tick in which the turn came: the next in line gets it.
                self._tokens = min(self._burst, self._tokens + 1)
                self._give_turns()
            if not self._waiters and self._timer is not None:
                self._timer.cancel()
                self._timer = None
            raise

    def _arm(self) -> None:
        if self._timer is None and self._waiters:
            delay_s = max(0.0, (1 - self._tokens) / self._rate_per_s)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._give_turns()

    def _give_turns(self) -> None:
        self._fill()
        while self._waiters and self._tokens >= 1 - _ROUNDING:
            turn, _ = self._waiters.popitem(last=False)
            if not turn.done():
                self._tokens -= 1
                turn.set_result(None)
        self._arm()

    def _rejection(self, operation: str, reason: str, wait_s: float) -> RateLimitExceededError:
        self._rejected += 1
        if self._listeners:
            emit(self._listeners, RateLimited(self.name, operation, reason, wait_s))
        return RateLimitExceededError(self.name, retry_after=wait_s, reason=reason)
