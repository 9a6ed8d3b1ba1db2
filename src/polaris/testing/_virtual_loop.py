"""An asyncio event loop whose time jumps to the next timer instead of waiting for it."""

from __future__ import annotations

import asyncio
import contextvars
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

from polaris.testing._virtual_clock import VirtualClock

T = TypeVar("T")

STALL_S_MAX = 10.0


class VirtualTimeDeadlock(RuntimeError):
    """Every task waits, no timer is set and no file or thread has answered: nothing could ever happen again."""


class _JumpingSelector(selectors.DefaultSelector):
    """Asks the files without waiting; when none is ready, moves the clock by the time the loop wanted to wait."""

    def __init__(self, threads_busy: Callable[[], bool], jump: Callable[[], None]) -> None:
        super().__init__()
        self._threads_busy = threads_busy
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None or self._threads_busy():
            # Real work (a thread, a socket) is the only thing that can go on: virtual time stands still meanwhile.
            ready = super().select(STALL_S_MAX)
            if not ready:
                raise VirtualTimeDeadlock("every task waits, and nothing is left that could wake one")
            return ready
        self._jump()
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time: `sleep`, `timeout`, `wait_for` and `call_later` take no real time at all.

    `loop.time()` is `clock.monotonic()`. When nothing is ready the clock jumps to the next timer, so the order of
    events is the one that real time would give, and exactly reproducible. While an executor's thread works, time
    stands still until it has finished. Sockets are polled without waiting, so do not measure real peers in it.
    When nothing can ever happen again, `VirtualTimeDeadlock` is raised after ten real seconds instead of hanging.
    """

    def __init__(self, clock: VirtualClock | None = None) -> None:
        self.clock = clock or VirtualClock()
        self._threads = 0
        super().__init__(_JumpingSelector(lambda: self._threads > 0, self._jump_to_next_timer))

    def time(self) -> float:
        """The virtual monotonic time in seconds."""
        return self.clock.monotonic()

    def run_in_executor(  # type: ignore[override] # the same call, typed loosely
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run in a real thread; virtual time waits for it."""
        future = super().run_in_executor(executor, func, *args)
        self._threads += 1
        future.add_done_callback(self._thread_done, context=contextvars.Context())
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the executor's threads, for real: virtual time stands still meanwhile, so no timeout ends it."""
        self._threads += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._threads -= 1

    def _jump_to_next_timer(self) -> None:
        # To the very float of the timer: adding a difference could round to a moment before it.
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined] # of asyncio.BaseEventLoop
        self.clock.advance_to(scheduled[0].when())

    def _thread_done(self, _: asyncio.Future[Any]) -> None:
        self._threads -= 1


def run_virtual(main: Coroutine[Any, Any, T], *, clock: VirtualClock | None = None, debug: bool | None = None) -> T:
    """Run a coroutine to its end in virtual time, as `asyncio.run` does in real time, and return its result.

    Leftover tasks are cancelled and awaited, asynchronous generators and the default executor shut down. Inside,
    `running_clock()` gives the clock.
    """
    with asyncio.Runner(debug=debug, loop_factory=lambda: VirtualTimeLoop(clock)) as runner:
        return runner.run(main)


def running_clock() -> VirtualClock:
    """The clock of the running `VirtualTimeLoop`; RuntimeError on any other loop."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualTimeLoop):
        raise RuntimeError("the running loop is not in virtual time")  # noqa: TRY004 # a state, not a type of argument
    return loop.clock
