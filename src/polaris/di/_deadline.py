"""Deadlines and shields for user code that runs while the container starts and stops."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from polaris.clock import Clock
from polaris.exceptions import DeadlineExceededError

T = TypeVar("T")

CANCEL_GRACE_S = 1.0
"""How long a cancelled piece of work may take to end before it is left behind."""

_left_behind: set[asyncio.Task[Any]] = set()
"""Work that ignores its cancellation: referenced until it ends, so that it is not collected in mid-flight."""


async def within(clock: Clock, timeout_s: float, work: Coroutine[Any, Any, T], operation: str) -> T:
    """The result of `work`, which runs as a task of its own and is cancelled after `timeout_s` seconds.

    Raises DeadlineExceededError when the time is over; work that does not end within a second of its cancellation is
    left behind. Cancelling the caller, once or again, cancels the work and waits for its end in the same way.
    """
    task = asyncio.ensure_future(work)
    try:
        in_time = await _ends_within(clock, timeout_s, task)
    except asyncio.CancelledError:
        await shielded(_cancel(clock, task))
        raise
    if in_time:
        return _result_of(task, operation)
    await shielded(_cancel(clock, task))
    raise DeadlineExceededError(operation, timeout_s=timeout_s)


async def _ends_within(clock: Clock, timeout_s: float, task: asyncio.Task[Any]) -> bool:
    timer = asyncio.ensure_future(clock.sleep(timeout_s))
    try:
        await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
        await asyncio.gather(timer, return_exceptions=True)
    return task.done()


async def _cancel(clock: Clock, task: asyncio.Task[Any]) -> None:
    task.cancel()
    _left_behind.add(task)
    task.add_done_callback(_forget)
    await _ends_within(clock, CANCEL_GRACE_S, task)


def _forget(task: asyncio.Task[Any]) -> None:
    _left_behind.discard(task)
    if not task.cancelled():
        task.exception()  # the deadline has been reported; this marks a late error as seen


def _result_of(task: asyncio.Task[T], operation: str) -> T:
    if task.cancelled():
        # Work that cancels itself must not look like a cancellation of the caller.
        raise asyncio.InvalidStateError(f"{operation} cancelled itself")
    return task.result()


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, run to its end even if the caller is cancelled meanwhile.

    A cancellation is delivered when the work is over; an error of the work is then its `__cause__`.
    """
    task = asyncio.ensure_future(work)
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is None:
        return task.result()
    raise cancellation from (None if task.cancelled() else task.exception())
