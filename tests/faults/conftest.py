"""No test of this folder leaves a task or a thread behind, whatever it did to a server, a store or a process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest

ENDING_S_MAX = 5.0
"""What a thread may take that is about to end: one that was told so, or that waits for a process which has ended."""
OF_THE_LOOP = "asyncio_"
"""The workers of the loop's own executor, which end with the loop."""


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    until_s = time.monotonic() + ENDING_S_MAX
    new = [one for one in set(threading.enumerate()) - before if not one.name.startswith(OF_THE_LOOP)]
    for one in new:
        one.join(max(0.0, until_s - time.monotonic()))
    left = [one.name for one in new if one.is_alive()]
    assert not left, f"threads left behind: {left}"


@pytest.fixture(autouse=True)
async def no_task_is_left_behind(no_thread_is_left_behind: None) -> AsyncIterator[None]:
    """Of those in the loop of the test, which its fixtures share; what a test runs with `asyncio.run` ends there."""
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks left behind: {sorted(task.get_name() for task in left)}"
