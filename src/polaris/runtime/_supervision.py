"""Long-running tasks that are never lost: kept, watched, started again when they fail, and ended together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import HealthStatus
from polaris.resilience import Backoff
from polaris.runtime._health import HealthBoard

if TYPE_CHECKING:
    from polaris.observability import StructuredLogger

RESTARTS = Backoff(0.5, 30.0, jitter="none")
STEADY_S = 60.0
"""A task that ran this long had recovered: its next failure starts with the short delay again."""


class Supervisor:
    """Runs functions that should never return, and starts them again, ever more slowly, when they do.

    A failure is logged, and shown on the board until the function has run again for a minute. `stop` cancels everything
    and waits until it has ended; nothing is left behind.
    """

    def __init__(self, board: HealthBoard, logger: StructuredLogger, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._board = board
        self._logger = logger
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self.restarts_total = 0

    def run(self, name: str, function: Callable[[], Awaitable[object]]) -> None:
        """Keep `function` running in a task called `name` until `stop`."""
        self._board.count_restart(name, 0)
        self._keep(name, self._keep_running(name, function, name))

    def run_once(self, name: str, function: Callable[[], Awaitable[object]], *, kind: str) -> None:
        """Run `function` to its end, starting it again, ever more slowly, while it fails.

        Restarts are counted under `kind`, of which there are few, while names may be of one task alone.
        """
        self._board.count_restart(kind, 0)
        self._keep(name, self._keep_running(name, function, kind, once=True))

    def _keep(self, name: str, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _keep_running(
        self, name: str, function: Callable[[], Awaitable[object]], kind: str, *, once: bool = False
    ) -> None:
        failures = 0
        recovery: asyncio.Task[None] | None = None
        while True:
            begun = self._clock.monotonic()
            try:
                await function()
                if once:
                    if recovery is not None:
                        self._board.report(name, HealthStatus.HEALTHY)
                    return
                reason = "ended by itself"
            except Exception as error:  # boundary: a supervised task reports its failure and is started again
                self._logger.exception("supervised task failed", task=name)
                reason = f"{type(error).__name__}: {error}"
            finally:
                if recovery is not None:
                    recovery.cancel()
            if _is_being_cancelled():
                return  # `stop` asked for the end, and the function answered with an error or a return of its own.
            if self._clock.monotonic() - begun >= STEADY_S:
                failures = 0
            failures += 1
            delay_s = RESTARTS.delay_s(failures)
            self.restarts_total += 1
            self._board.count_restart(kind)
            self._board.report(name, HealthStatus.UNHEALTHY, f"failed, starting again in {delay_s:g} s: {reason}")
            await self._clock.sleep(delay_s)
            message = f"started again after: {reason}"
            self._board.report(name, HealthStatus.WARNING, message)
            recovery = self._keep(f"recovery of {name}", self._show_recovery(name, message))

    async def _show_recovery(self, name: str, message: str) -> None:
        await self._clock.sleep(STEADY_S)
        shown = self._board.get(name)
        # What the function itself has reported meanwhile is the better knowledge.
        if shown is not None and shown.message == message:
            self._board.report(name, HealthStatus.HEALTHY)

    async def stop(self) -> None:
        """Cancel all tasks and wait for their end. Idempotent."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
