"""Blocking reads of the operating system, away from the event loop, one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from polaris.exceptions import ConnectorError

T = TypeVar("T")

BUSY_S_MAX = 5.0


class BlockingReads:
    """Runs calls in a thread of their own, in order, never two at once.

    A call that hangs (a dead network filesystem) cannot be stopped by anybody. It costs one daemon thread, which holds
    up neither the loop nor the end of the process, and later calls are refused after waiting five seconds for it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._running: asyncio.Future[None] | None = None

    async def run(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises. When cancelled, the call goes on unobserved and the next waits for it.

        Raises `ConnectorError` when an earlier call has not come back within five seconds; `call` was not begun then.
        """
        loop = asyncio.get_running_loop()
        await self._wait_for_earlier(loop)
        outcome: asyncio.Future[T] = loop.create_future()
        ended: asyncio.Future[None] = loop.create_future()
        self._running = ended

        def settle(result: T | None, error: BaseException | None) -> None:
            ended.set_result(None)
            if outcome.done():
                return
            if error is None:
                outcome.set_result(result)  # type: ignore[arg-type] # without an error there is a result
            else:
                outcome.set_exception(error)

        def work() -> None:
            result, failure = None, None
            try:
                result = call()
            except BaseException as error:  # boundary: handed to the caller, in another thread
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                loop.call_soon_threadsafe(settle, result, failure)

        threading.Thread(target=work, name=self._name, daemon=True).start()
        return await outcome

    async def _wait_for_earlier(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            async with asyncio.timeout(BUSY_S_MAX):
                while self._running is not None and not self._running.done():
                    if self._running.get_loop() is not loop:
                        raise ConnectorError(f"{self._name}: used from two event loops")
                    await asyncio.shield(self._running)
        except TimeoutError as error:
            message = f"{self._name}: an earlier reading has not come back within {BUSY_S_MAX:g} s"
            raise ConnectorError(message) from error
