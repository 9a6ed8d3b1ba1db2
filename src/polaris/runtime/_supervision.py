"""Long-running tasks that are never lost: kept, watched, started again when they fail, and ended together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import HealthStatus
from polaris.runtime._health import HealthBoard

if TYPE_CHECKING:
    from polaris.observability import StructuredLogger

RESTART_DELAY_S = 0.5
RESTART_DELAY_S_MAX = 30.0
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
        self._tasks: dict[asyncio.Task[None], str] = {}
        self.restarts_total = 0

    def run(self, name: str, function: Callable[[], Awaitable[object]]) -> None:
        """Keep `function` running in a task called `name` until `stop`."""
        task = asyncio.create_task(self._keep_running(name, function), name=name)
        self._tasks[task] = name
        task.add_done_callback(lambda ended: self._tasks.pop(ended, None))

    def run_once(self, name: str, function: Callable[[], Awaitable[object]]) -> None:
        """Run `function` to its end, starting it again, ever more slowly, while it fails."""
        task = asyncio.create_task(self._keep_running(name, function, once=True), name=name)
        self._tasks[task] = name
        task.add_done_callback(lambda ended: self._tasks.pop(ended, None))

    async def _keep_running(self, name: str, function: Callable[[], Awaitable[object]], *, once: bool = False) -> None:
        delay_s = RESTART_DELAY_S
        while True:
            begun = self._clock.monotonic()
            try:
                await function()
                if once:
                    return
                reason = "ended by itself"
            except Exception as error:  # boundary: a supervised task reports its failure and is started again
                self._logger.exception("supervised task failed", task=name)
                reason = f"{type(error).__name__}: {error}"
            if self._clock.monotonic() - begun >= STEADY_S:
                delay_s = RESTART_DELAY_S
            self.restarts_total += 1
            self._board.report(name, HealthStatus.UNHEALTHY, f"failed, starting again in {delay_s:g} s: {reason}")
            await self._clock.sleep(delay_s)
            delay_s = min(delay_s * 2, RESTART_DELAY_S_MAX)
            self._board.report(name, HealthStatus.WARNING, f"started again after: {reason}")

    async def stop(self) -> None:
        """Cancel all tasks and wait for their end. Idempotent."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
