"""A bound on concurrent calls, with a bounded first-in-first-out queue in front of it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from polaris.exceptions import BulkheadRejectedException
from polaris.resilience._adaptive_limit import ConcurrencyLimit
from polaris.resilience._deadline import monotonic_s
from polaris.resilience._durations import Duration, count_of, duration_s
from polaris.resilience._signals import BulkheadRejected, LimitChanged, Listener, emit
from polaris.resilience._step import Operation, PolicyStep, Step, invoke

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BulkheadConfig:
    """The bounds of a bulkhead.

    max_concurrent_calls: calls running at the same time, at least 1; with an adaptive limit, its upper bound.
    max_queued_calls: callers that may wait for a permit; 0 means that a full bulkhead rejects at once.
    max_wait: the longest wait for a permit, in seconds or as timedelta; None leaves it to the caller's deadline.
    """

    max_concurrent_calls: int = 10
    max_queued_calls: int = 0
    max_wait: Duration | None = None

    def __post_init__(self) -> None:
        count_of("max_concurrent_calls", self.max_concurrent_calls)
        count_of("max_queued_calls", self.max_queued_calls, least=0)
        if self.max_wait is not None:
            duration_s("max_wait", self.max_wait, zero=True)


@dataclass(frozen=True, slots=True)
class BulkheadStats:
    """A bulkhead at one moment. The `_calls` that are not current (`rejected`, `finished`) count from its making."""

    name: str
    max_concurrent_calls: int
    active_calls: int
    available_permits: int
    max_queued_calls: int
    queued_calls: int
    rejected_calls: int
    finished_calls: int
    max_wait: timedelta | None


class Bulkhead:
    """Lets at most `max_concurrent_calls` run; further callers wait in order of arrival or are rejected.

    Law: permits go to waiters in order of arrival and newcomers never overtake them. A caller that is cancelled or
    times out while waiting leaves the queue at once; one that is cancelled in the very tick in which it was given a
    permit passes it on. Every permit comes back exactly once, whatever the call raises. A rejected call (full queue,
    or waited `max_wait`) was not started: `BulkheadRejectedException`.

    With `limit`, the number of permits follows what the calls tell about the load (see `ConcurrencyLimit`), never
    above `max_concurrent_calls`. When it falls, running calls go on, and permits that come back are not given out
    again until fewer run than the new limit. Calls that succeed or time out are observed; other errors and
    cancellation say nothing.

    Belongs to one event loop; not thread-safe.
    """

    def __init__(
        self,
        name: str,
        config: BulkheadConfig | None = None,
        *,
        limit: ConcurrencyLimit | None = None,
        listeners: Iterable[Listener] = (),
    ) -> None:
        self.name = name
        self.config = config or BulkheadConfig()
        self._adaptive = limit
        self._limit = self.config.max_concurrent_calls
        if limit is not None:
            self._limit = min(self._limit, limit.limit)
        self._wait_s = None if self.config.max_wait is None else duration_s("max_wait", self.config.max_wait, zero=True)
        self._listeners = tuple(listeners)
        self._active = 0
        self._rejected = 0
        self._finished = 0
        # True: permit granted, False: waited too long. Ordered, so that leaving from the middle costs nothing.
        self._waiters: OrderedDict[asyncio.Future[bool], None] = OrderedDict()
        self._run = self.bind(invoke)

    def execute(self, func: Operation[T], operation_name: str = "") -> Coroutine[Any, Any, T]:
        """Run `func` once a permit is free and return its result; `BulkheadRejectedException` if none can be had."""
        return self._run(func, operation_name)

    def bind(self, inner: Step, /) -> PolicyStep:
        """This bulkhead round `inner`; see `Policy`."""
        if self._adaptive is not None:
            inner = self._observed(self._adaptive, inner)

        async def run(func: Callable[[], Awaitable[Any]], operation: str) -> Any:
            # Waiters exist only while no permit is free, so a free permit belongs to nobody else.
            if self._active < self._limit:
                self._active += 1
            else:
                self._refuse_if_full(operation)
                await self._wait_for_permit(operation)
            try:
                return await inner(func, operation)
            finally:
                self._active -= 1
                self._finished += 1
                if self._waiters:
                    self._grant()

        return run

    def get_stats(self) -> BulkheadStats:
        """The bulkhead as it is now."""
        return BulkheadStats(
            name=self.name,
            max_concurrent_calls=self._limit,
            active_calls=self._active,
            available_permits=max(0, self._limit - self._active),
            max_queued_calls=self.config.max_queued_calls,
            queued_calls=len(self._waiters),
            rejected_calls=self._rejected,
            finished_calls=self._finished,
            max_wait=None if self._wait_s is None else timedelta(seconds=self._wait_s),
        )

    def _observed(self, adaptive: ConcurrencyLimit, inner: Step) -> Step:
        """`inner`, telling the adaptive limit about each call. It runs inside the permit, before that is given back."""

        async def run(func: Callable[[], Awaitable[Any]], operation: str) -> Any:
            in_flight, started_s = self._active, monotonic_s()
            try:
                result = await inner(func, operation)
            except TimeoutError:
                self._observe(adaptive, monotonic_s() - started_s, in_flight, True)
                raise
            self._observe(adaptive, monotonic_s() - started_s, in_flight, False)
            return result

        return run

    def _observe(self, adaptive: ConcurrencyLimit, duration_s: float, in_flight: int, dropped: bool) -> None:
        adaptive.observe(duration_s, in_flight, dropped)
        former = self._limit
        self._limit = max(1, min(self.config.max_concurrent_calls, adaptive.limit))
        if self._limit != former:
            if self._listeners:
                emit(self._listeners, LimitChanged(self.name, former, self._limit))
            self._grant()

    def _grant(self) -> None:
        """Hand free permits to the first waiters. The permit is theirs from now on, before they have even woken."""
        while self._waiters and self._active < self._limit:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.done():
                self._active += 1
                waiter.set_result(True)

    def _refuse_if_full(self, operation: str) -> None:
        if len(self._waiters) >= self.config.max_queued_calls or self._wait_s == 0:
            raise self._rejection(operation, "full")

    async def _wait_for_permit(self, operation: str) -> None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiters[waiter] = None
        timer = None if self._wait_s is None else loop.call_later(self._wait_s, self._give_up, waiter)
        try:
            granted = await waiter
        except BaseException:  # boundary: whatever ends the wait, the queue and the permit are put right
            self._waiters.pop(waiter, None)
            if waiter.done() and not waiter.cancelled() and waiter.result():
                # Cancelled in the tick in which the permit was granted: the next in line gets it.
                self._active -= 1
                self._grant()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if not granted:
            raise self._rejection(operation, "waited too long")

    def _give_up(self, waiter: asyncio.Future[bool]) -> None:
        if not waiter.done():
            self._waiters.pop(waiter, None)
            waiter.set_result(False)

    def _rejection(self, operation: str, reason: str) -> BulkheadRejectedException:
        self._rejected += 1
        active, queued = self._active, len(self._waiters)
        if self._listeners:
            emit(self._listeners, BulkheadRejected(self.name, operation, reason, active, queued))
        return BulkheadRejectedException(self.name, active=active, queued=queued, reason=reason)
