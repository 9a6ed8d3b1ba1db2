"""Calls of a handler under a circuit breaker: while it is open, messages wait here instead of failing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from polaris.clock import Clock
from polaris.exceptions import CircuitBreakerOpenException
from polaris.resilience import CircuitBreaker, CircuitBreakerState
from polaris.resilience._verdict import blames_dependency

WAIT_S_MAX = 1.0
"""How long to wait at the most before the breaker is asked again: somebody may have closed it by hand."""
HALF_OPEN_WAIT_S = 0.1
"""How long to wait while others probe: nobody can tell when they end, and then there is much to do."""
PROBES_MAX = 100
"""After this many failed probes of one message the failure is its own: it may be what keeps the breaker open.

Where order is kept, nothing else could ever show that the dependency is back. With the usual break of 30 s an outage of
most of an hour uses nothing up.
"""


class ProbeFailed(Exception):
    """A call that was to show whether the dependency is back has failed with `error`, and the breaker is not closed.

    Nothing was learnt about its message: it waits on, and none of its tries is used up, `PROBES_MAX` times.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Guard:
    """Lets a subscription's calls through a breaker, and makes those that it rejects wait until it admits them.

    A message that waits is kept, so none is delivered again and again while a dependency is down; when as many wait as
    may be in flight, nothing more is taken from the broker. Half-open, the breaker's probes are the first to go.
    """

    def __init__(self, breaker: CircuitBreaker, clock: Clock) -> None:
        self._breaker = breaker
        self._clock = clock
        self._ended = asyncio.Event()

    def end(self) -> None:
        """The subscription ends: who waits gets the rejection now, and no call waits any more."""
        self._ended.set()

    async def call(self, function: Callable[[], Awaitable[Any]], name: str) -> Any:
        """Call the function under the breaker, as soon as that admits it.

        Raises what the function raises, `ProbeFailed` around it if the call was a probe and its error is one that the
        breaker counts, unless the breaker has closed since; and the breaker's rejection once the subscription ends.
        """
        while True:
            begun = probes = False

            async def begin() -> Any:
                nonlocal begun, probes
                begun, probes = True, self._breaker.state is not CircuitBreakerState.CLOSED
                return await function()

            try:
                return await self._breaker.execute(begin, name)
            except CircuitBreakerOpenException as rejection:
                # Begun, the function has met an open breaker of its own.
                if begun or self._ended.is_set():
                    raise
                wait_s = self._wait_s(rejection)
            except Exception as error:  # boundary: what handlers raise, told apart and raised again
                if probes and self._still_fails(error):
                    raise ProbeFailed(error) from error
                raise
            await self._wait(wait_s)

    def _still_fails(self, error: Exception) -> bool:
        """Whether a probe's error says that the dependency is away, and no other probe has shown that it is not.

        The breaker may be open, or half-open by now: a probe that hangs for longer than a break ends when others probe.
        """
        counts = blames_dependency(error, self._breaker.config.ignored_exceptions)
        return counts and self._breaker.state is not CircuitBreakerState.CLOSED

    def _wait_s(self, rejection: CircuitBreakerOpenException) -> float:
        if rejection.retry_after is not None:
            return min(WAIT_S_MAX, rejection.retry_after)
        return HALF_OPEN_WAIT_S if self._breaker.state is CircuitBreakerState.HALF_OPEN else WAIT_S_MAX

    async def _wait(self, wait_s: float) -> None:
        waiting = {asyncio.ensure_future(self._clock.sleep(wait_s)), asyncio.ensure_future(self._ended.wait())}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
