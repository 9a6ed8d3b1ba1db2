"""What people see while a command works for longer than a second: what it does, and since when."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from polaris.cli._output import duration_text
from polaris.cli._progress import Progress

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

    @contextmanager
    def during(self) -> Iterator[None]:
        """Says it during the block, which may hold up everything else in its thread, as questions over HTTP do."""
        over = threading.Event()

        def tick() -> None:
            over.wait(SILENT_S)
            while not over.is_set():
                self._tell()
                over.wait(TICK_S)

        ticking = threading.Thread(target=tick, daemon=True)
        ticking.start()
        try:
            yield
        finally:
            over.set()
            ticking.join()
            self._progress.clear()

    def _tell(self) -> None:
        self._progress.tell(f"{self.text} ({duration_text(time.monotonic() - self._begun_s)}) ...")

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
            self._tell()
            await asyncio.sleep(TICK_S)
