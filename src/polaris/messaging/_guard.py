"""Calls of a handler under a circuit breaker: while it is open, messages wait here instead of failing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from polaris.clock import Clock
from polaris.exceptions import CircuitBreakerOpenException
from polaris.resilience import CircuitBreaker

WAIT_S_MAX = 1.0
"""How long to wait at the most before the breaker is asked again: somebody may have closed it by hand."""


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

        Raises what the function raises, and the breaker's rejection once the subscription ends.
        """
        while True:
            begun = False

            async def begin() -> Any:
                nonlocal begun
                begun = True
                return await function()

            try:
                return await self._breaker.execute(begin, name)
            except CircuitBreakerOpenException as rejection:
                # The function may have met an open breaker of its own.
                if begun or self._ended.is_set():
                    raise
                wait_s = WAIT_S_MAX if rejection.retry_after is None else min(WAIT_S_MAX, rejection.retry_after)
            await self._wait(wait_s)

    async def _wait(self, wait_s: float) -> None:
        waiting = {asyncio.ensure_future(self._clock.sleep(wait_s)), asyncio.ensure_future(self._ended.wait())}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
