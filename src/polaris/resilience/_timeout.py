"""A time limit for each call, as a policy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from polaris.resilience._deadline import DeadlineLane, DeadlineScope
from polaris.resilience._durations import Duration, duration_s
from polaris.resilience._signals import Listener
from polaris.resilience._step import Operation, PolicyStep, Step, invoke

T = TypeVar("T")


class Timeout:
    """Cancels a call that takes longer than `timeout` (seconds or timedelta) and raises `DeadlineExceededError`.

    Each call gets its own limit, or what is left of a surrounding deadline when that is less (see `deadline_scope`; the
    error then comes from there). The outcome of a cancelled call is unknown: it may have taken effect. A cancellation
    from elsewhere passes through unchanged. A function that blocks its thread or swallows cancellation cannot be
    interrupted. Without state; may be shared by tasks and loops.
    """

    def __init__(self, timeout: Duration, *, name: str = "", listeners: Iterable[Listener] = ()) -> None:
        self.name = name
        self.timeout_s = duration_s("timeout", timeout)
        self._listeners = tuple(listeners)
        self._run = self.bind(invoke)

    def execute(self, func: Operation[T], operation_name: str = "") -> Coroutine[Any, Any, T]:
        """Run `func` within the limit."""
        return self._run(func, operation_name)

    def bind(self, inner: Step, /) -> PolicyStep:
        """This limit round `inner`; see `Policy`."""
        timeout_s, listeners, name = self.timeout_s, self._listeners, self.name
        lane: DeadlineLane | None = None

        async def run(func: Callable[[], Awaitable[Any]], operation: str) -> Any:
            nonlocal lane
            loop = asyncio.get_running_loop()
            mine = lane  # read once: another thread's loop may replace it meanwhile
            if mine is None or mine.loop is not loop:
                # The lane of another loop lives on until its calls have ended; they hold it.
                mine = lane = DeadlineLane(loop)
            with DeadlineScope(timeout_s, operation=operation or name, listeners=listeners, lane=mine):
                return await inner(func, operation)

        return run
