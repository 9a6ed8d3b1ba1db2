"""Work in a thread whose end is always waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T], *, stop: Callable[[], None] | None = None) -> T:
    """The result of the work, done in a thread.

    Cancelled, `stop` is called and the end of the work awaited, so that whatever it uses may be closed afterwards.
    """
    future = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait([future])
        raise
