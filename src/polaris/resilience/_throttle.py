"""Client-side throttling: a client that is mostly refused stops asking before it is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from random import Random
from typing import Any, TypeVar

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.exceptions import InvalidValueError, RateLimitExceededError
from polaris.resilience._breaker_windows import TimeWindow
from polaris.resilience._durations import Duration, duration_s
from polaris.resilience._signals import Listener, RateLimited, emit
from polaris.resilience._step import Operation, PolicyStep, Step, invoke
from polaris.resilience._verdict import blames_dependency

T = TypeVar("T")


class AdaptiveThrottle:
    """Rejects calls with the probability `max(0, (requests - k * accepts) / (requests + 1))` over a sliding window.

    Requests are all calls, the rejected ones included; accepts are those that returned a result. So about `k` calls
    are let through for each that is accepted ("Handling Overload", Site Reliability Engineering, 2016). Softer than a
    breaker: some calls always go on. A rejected call was not started: `RateLimitExceededError`. Cancelled calls,
    rejections by other local policies and errors of the caller's own making count as neither. Not thread-safe.
    """

    def __init__(
        self,
        name: str,
        *,
        k: float = 2.0,
        window: Duration = 120.0,
        clock: Clock = SYSTEM_CLOCK,
        random: Random | None = None,
        listeners: Iterable[Listener] = (),
    ) -> None:
        if not 1 <= k < float("inf"):
            raise InvalidValueError("k", "a finite number >= 1", k)
        self.name = name
        self.k = k
        self._window = TimeWindow(duration_s("window", window))
        self._now = clock.monotonic
        self._random = random or Random()  # noqa: S311 # spreads load, guards nothing
        self._listeners = tuple(listeners)
        self._run = self.bind(invoke)

    @property
    def rejection_probability(self) -> float:
        """The probability that the next call is rejected."""
        window = self._window
        window.expire(self._now())
        accepts = window.calls - window.failed
        return max(0.0, (window.calls - self.k * accepts) / (window.calls + 1))

    def execute(self, func: Operation[T], operation_name: str = "") -> Coroutine[Any, Any, T]:
        """Run `func`, or reject it for the dependency's sake."""
        return self._run(func, operation_name)

    def bind(self, inner: Step, /) -> PolicyStep:
        """This throttle round `inner`; see `Policy`."""

        async def run(func: Callable[[], Awaitable[Any]], operation: str) -> Any:
            if self._random.random() < self.rejection_probability:
                self._window.record(True, False, self._now())
                if self._listeners:
                    emit(self._listeners, RateLimited(self.name, operation, "throttled", None))
                raise RateLimitExceededError(self.name, reason="throttled")
            try:
                result = await inner(func, operation)
            except Exception as error:  # boundary: counted, then raised again
                if blames_dependency(error, ()):
                    self._window.record(True, False, self._now())
                raise
            self._window.record(False, False, self._now())
            return result

        return run
