"""A second call beside a slow one; the first success wins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from polaris.resilience._durations import Duration, count_of, duration_s
from polaris.resilience._retry_budget import RetryBudget
from polaris.resilience._signals import HedgeStarted, Listener, emit
from polaris.resilience._step import Operation, PolicyStep, Step, invoke

T = TypeVar("T")


class Hedge:
    """Starts another call when there is no result after `delay`, up to `hedges_max` more, and takes the first success.

    Only for operations that may run twice at the same time. A failure while other calls run is kept back, in case one
    of them succeeds; when all have failed, the last failure is raised, and repeating is left to a retry policy. The
    losers are cancelled and awaited before the result is returned, so nothing runs on; a cancellation of the caller
    does the same. `budget` bounds the share of hedged calls ("The Tail at Scale", Dean and Barroso 2013: hedge after
    the 95th percentile, for some 5 % more load). Without state but for the budget.
    """

    def __init__(
        self,
        delay: Duration,
        *,
        hedges_max: int = 1,
        budget: RetryBudget | None = None,
        listeners: Iterable[Listener] = (),
    ) -> None:
        self.delay_s = duration_s("delay", delay, zero=True)
        self.hedges_max = count_of("hedges_max", hedges_max)
        self.budget = budget
        self._listeners = tuple(listeners)
        self._run = self.bind(invoke)

    def execute(self, func: Operation[T], operation_name: str = "") -> Coroutine[Any, Any, T]:
        """Run `func`, again if it is slow, and return the first result."""
        return self._run(func, operation_name)

    def bind(self, inner: Step, /) -> PolicyStep:
        """This hedge round `inner`; see `Policy`."""

        async def one_call(func: Callable[[], Awaitable[Any]], operation: str) -> Any:
            return await inner(func, operation)

        async def run(func: Callable[[], Awaitable[Any]], operation: str) -> Any:
            if self.budget is not None:
                self.budget.record_call()
            calls = {asyncio.create_task(one_call(func, operation))}
            try:
                return await self._first_success(calls, lambda: one_call(func, operation), operation)
            finally:
                await _end(calls)

        return run

    async def _first_success(
        self, calls: set[asyncio.Task[Any]], again: Callable[[], Coroutine[Any, Any, Any]], operation: str
    ) -> Any:
        """Add to `calls` and take from it until one succeeds; what is left in it at the end is still running."""
        started, may_start = 1, True
        while True:
            may_start = may_start and started <= self.hedges_max
            done, _ = await asyncio.wait(
                calls, timeout=self.delay_s if may_start else None, return_when=asyncio.FIRST_COMPLETED
            )
            calls -= done
            # All that are done are looked at, so that the loop reports none of them as lost.
            winners = [call for call in done if not call.cancelled() and call.exception() is None]
            if winners:
                return winners[0].result()
            if not calls:
                return done.pop().result()  # raises what the last call raised
            if not done:
                may_start = self.budget is None or self.budget.try_spend()
                if may_start:
                    started += 1
                    calls.add(asyncio.create_task(again()))
                    if self._listeners:
                        emit(self._listeners, HedgeStarted(operation, started))


async def _end(calls: set[asyncio.Task[Any]]) -> None:
    """Cancel and await; a cancellation of the caller meanwhile is raised after all have ended."""
    for call in calls:
        call.cancel()
    interrupted: asyncio.CancelledError | None = None
    while calls:
        try:
            done, _ = await asyncio.wait(calls)
        except asyncio.CancelledError as error:
            interrupted = error
            continue
        calls -= done
        for call in done:
            if not call.cancelled():
                call.exception()  # looked at, so that the loop does not report it as lost
    if interrupted is not None:
        raise interrupted
