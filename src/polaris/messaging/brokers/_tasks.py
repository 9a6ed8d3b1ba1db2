"""Ending tasks that may lose a cancellation."""

from __future__ import annotations

import asyncio
from typing import Any


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks until they have ended; one that does not within five seconds is given up.

    Once is not enough: `asyncio.wait_for` of CPython 3.11 loses a cancellation that comes when its wait is just over.
    """
    left = {task for task in tasks if task is not None and not task.done()}
    for _ in range(100):
        if not left:
            return
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=0.05)
