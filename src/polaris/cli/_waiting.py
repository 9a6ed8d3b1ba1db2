"""What people see while a command works for longer than a second: what it does, and since when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from polaris.cli._dlq import Progress
from polaris.cli._output import duration_text

T = TypeVar("T")

SILENT_S = 1.0
"""What is done sooner says nothing meanwhile."""
TICK_S = 0.25


class Doing:
    """What is being done now, said on a terminal's standard error until it is over."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._progress = Progress()
        self._begun_s = time.monotonic()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of the work, run in an event loop of its own."""
        return asyncio.run(self._shown(work))

    async def _shown(self, work: Coroutine[Any, Any, T]) -> T:
        ticking = asyncio.create_task(self._tick())
        try:
            return await work
        finally:
            ticking.cancel()
            await asyncio.wait([ticking])
            self._progress.clear()

    async def _tick(self) -> None:
        await asyncio.sleep(SILENT_S)
        while True:
            self._progress.tell(f"{self.text} ({duration_text(time.monotonic() - self._begun_s)}) ...")
            await asyncio.sleep(TICK_S)
