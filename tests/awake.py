"""Limits in time that count only while the event loop runs: a machine that stands still stops everybody's clock alike.

A limit of this kind is as sharp as one by the clock on a machine that is quiet, and no machine is too busy for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

STEP_S = 0.005
PATIENCE_S = 30.0
"""For what has no limit of its own: long enough to be sure that it does not come any more."""


class Awake:
    """How long the loop has run, in steps: each is worth STEP_S, however long it took."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.longest_pause_s = 0.0
        """By the clock, of one step."""

    async def count(self, limit_s: float = float("inf")) -> None:
        loop = asyncio.get_running_loop()
        while self.seconds < limit_s:
            began_s = loop.time()
            await asyncio.sleep(STEP_S)
            self.seconds += STEP_S
            self.longest_pause_s = max(self.longest_pause_s, loop.time() - began_s)


@contextlib.asynccontextmanager
async def awake() -> AsyncIterator[Awake]:
    """Counts during the block."""
    counted = Awake()
    counting = asyncio.create_task(counted.count(), name="awake")
    try:
        yield counted
    finally:
        counting.cancel()
        await asyncio.wait([counting])


@contextlib.asynccontextmanager
async def within(limit_s: float) -> AsyncIterator[Awake]:
    """TimeoutError when the block takes longer, as with `asyncio.timeout`."""
    counted = Awake()

    async def count(limit: asyncio.Timeout) -> None:
        await counted.count(limit_s)
        limit.reschedule(asyncio.get_running_loop().time())

    async with asyncio.timeout(None) as limit:
        counting = asyncio.create_task(count(limit), name="awake")
        try:
            yield counted
        finally:
            counting.cancel()
            await asyncio.wait([counting])


async def until(holds: Callable[[], bool], what: str, *, within_s: float = PATIENCE_S) -> float:
    """Wait for it, and return how long that took; AssertionError when it does not come within so much time."""
    steps = 0
    while not holds():
        assert steps * STEP_S < within_s, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(STEP_S)
        steps += 1
    return steps * STEP_S
