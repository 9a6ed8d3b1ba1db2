"""One place per service and scope where an instance is built once, whoever asks for it at the same time.

A slot is an entry of `Store.values`: absent, a `Build` while somebody builds it, then the instance. `dict.setdefault`
decides atomically who builds; everybody else waits for that one build only, threads on a lock and tasks on a future of
their own event loop. A finished instance is read without any lock. When a build fails or is cancelled, its caller gets
the error and the next waiter builds. Before anybody waits, the graph of who waits for whom is searched: a wait that
could never end raises.
"""

from __future__ import annotations

import asyncio
import threading
from asyncio import AbstractEventLoop, Future, Task
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from polaris.di._registration import MISSING, ServiceRegistration
from polaris.di._store import Store, Waiter
from polaris.exceptions import DependencyResolutionException

_STALE_CHECK_S = 1.0
"""How often a waiting thread looks whether the builder's event loop is still alive."""

_ledger = threading.RLock()
"""Guards waiters and the wait graph, of all containers, for moments; no user code runs under it. Reentrant, because a
signal handler may resolve a service too."""
_blocked: dict[int, Build] = {}
"""Threads that stand still, and the build each waits for."""
_ancestry: ContextVar[TaskBuild | None] = ContextVar("polaris_di_build", default=None)
"""The innermost build that the running task works for; tasks started inside a build inherit it."""


class WouldDeadlockError(DependencyResolutionException):
    """Waiting for this service could never end, because its build waits for the caller."""


class Build:
    """Somebody at work on one slot."""

    __slots__ = ("registration", "thread")

    def __init__(self, registration: ServiceRegistration) -> None:
        self.registration = registration
        self.thread = threading.get_ident()


class TaskBuild(Build):
    """A task at work on one slot; it may be suspended meanwhile, and start other tasks."""

    __slots__ = ("parent", "task", "waiting")

    def __init__(self, registration: ServiceRegistration) -> None:
        super().__init__(registration)
        self.task = asyncio.current_task()
        self.parent = _ancestry.get()
        self.waiting: list[Build] = []
        """The builds that this one, or a task it started, waits for."""

    def is_stale(self) -> bool:
        """Whether nobody is left to finish it: its event loop was closed in mid-build."""
        return self.task is not None and self.task.get_loop().is_closed()

    def ancestors(self) -> Iterator[TaskBuild]:
        build: TaskBuild | None = self
        while build is not None:
            yield build
            build = build.parent


class _WaitingThread:
    __slots__ = ("lock",)

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()

    def wake(self) -> bool:
        self.lock.release()
        return True


class _WaitingTask:
    __slots__ = ("future", "loop")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self.future: Future[None] = loop.create_future()

    def wake(self) -> bool:
        try:
            self.loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:  # the loop is closed
            return False
        return self.loop.is_running()

    def _resolve(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


def obtain(store: Store, registration: ServiceRegistration, make: Callable[[Store], Any]) -> Any:
    """The instance in the slot, built by `make` if there is none; waits if another thread builds it.

    Raises WouldDeadlockError instead of waiting for a build that waits for this thread.
    """
    build = Build(registration)
    while (held := store.values.setdefault(registration, build)) is not build:
        if not isinstance(held, Build):
            return held
        _wait_as_thread(store, held)
    try:
        value = make(store)
    except BaseException:  # boundary: user code; however it ends, the slot must be free again
        _abandon(store, build)
        raise
    store.values[registration] = value
    if store.waiters:
        _wake_all(store, registration)
    return value


async def obtain_async(store: Store, registration: ServiceRegistration, make: Callable[[Store], Awaitable[Any]]) -> Any:
    """As `obtain`, for a task: it never blocks its event loop. Cancelling a waiter leaves the build alone."""
    build = TaskBuild(registration)
    while (held := store.values.setdefault(registration, build)) is not build:
        if not isinstance(held, Build):
            return held
        await _wait_as_task(store, held)
    _ancestry.set(build)
    try:
        value = await make(store)
    except BaseException:  # boundary: user code; however it ends, the slot must be free again
        _abandon(store, build)
        raise
    finally:
        # Not by a token: an abandoned coroutine is closed by the collector, in whatever context that runs.
        if _ancestry.get() is build:
            _ancestry.set(build.parent)
    store.values[registration] = value
    if store.waiters:
        _wake_all(store, registration)
    return value


def finished(store: Store, registration: ServiceRegistration) -> Any:
    """The instance in the slot, MISSING if there is none or it is still being built."""
    value = store.values.get(registration, MISSING)
    return MISSING if isinstance(value, Build) else value


def _wake_all(store: Store, registration: ServiceRegistration) -> None:
    # A waiter adds itself before it looks at the slot a last time, so that it sees the instance or is seen here.
    with _ledger:
        for waiter in store.waiters.pop(registration, ()):
            waiter.wake()


def _abandon(store: Store, build: Build) -> None:
    if store.values.get(build.registration) is build:
        del store.values[build.registration]
    if build.registration in store.waiters:
        with _ledger:
            _wake_next(store, build.registration)


def _wake_next(store: Store, registration: ServiceRegistration) -> None:
    waiters = store.waiters.get(registration, {})
    while waiters:
        waiter = next(iter(waiters))
        del waiters[waiter]
        if waiter.wake():
            break
    if not waiters:
        store.waiters.pop(registration, None)


def _wait_as_thread(store: Store, held: Build) -> None:
    me = threading.get_ident()
    waiter = _WaitingThread()
    frame = _ancestry.get()
    with _ledger:
        if _discard_stale(store, held):
            return
        _refuse_deadlock(held, lambda build: build.thread == me or _is_ancestor(build, frame))
        if not _enqueue(store, held, waiter):
            return
        _blocked[me] = held
        if frame is not None:
            frame.waiting.append(held)
    with _leaving(store, held, waiter, frame, me):
        while not waiter.lock.acquire(timeout=_STALE_CHECK_S):
            if isinstance(held, TaskBuild) and held.is_stale():
                return


async def _wait_as_task(store: Store, held: Build) -> None:
    task = asyncio.current_task()
    waiter = _WaitingTask(asyncio.get_running_loop())
    frame = _ancestry.get()
    with _ledger:
        if _discard_stale(store, held):
            return
        _refuse_deadlock(held, lambda build: _is_of_task(build, task) or _is_ancestor(build, frame))
        if not _enqueue(store, held, waiter):
            return
        if frame is not None:
            frame.waiting.append(held)
    with _leaving(store, held, waiter, frame, None):
        await waiter.future


def _enqueue(store: Store, held: Build, waiter: Waiter) -> bool:
    """Add the waiter; False if there is nothing to wait for any more."""
    registration = held.registration
    store.waiters.setdefault(registration, {})[waiter] = None
    if store.values.get(registration) is held:
        return True
    _dequeue(store, registration, waiter)
    return False


def _dequeue(store: Store, registration: ServiceRegistration, waiter: Waiter) -> bool:
    """Remove the waiter; False if it was woken already."""
    queue = store.waiters.get(registration, {})
    was_waiting = waiter in queue
    if was_waiting:
        del queue[waiter]
    if not queue:
        store.waiters.pop(registration, None)
    return was_waiting


def _discard_stale(store: Store, held: Build) -> bool:
    """Free the slot of a build that nobody is left to finish."""
    if not isinstance(held, TaskBuild) or not held.is_stale():
        return False
    if store.values.get(held.registration) is held:
        del store.values[held.registration]
    return True


@contextmanager
def _leaving(store: Store, held: Build, waiter: Waiter, frame: TaskBuild | None, thread: int | None) -> Iterator[None]:
    """Take the waiter out of all books afterwards; a wake-up that comes too late for it goes to the next one."""
    registration = held.registration
    try:
        yield
    except BaseException:  # boundary: a wait may end by cancellation or interrupt; the turn must go on to somebody
        with _ledger:
            if not _dequeue(store, registration, waiter) and registration not in store.values:
                _wake_next(store, registration)
        raise
    finally:
        with _ledger:
            _dequeue(store, registration, waiter)
            if thread is not None:
                _blocked.pop(thread, None)
            if frame is not None:
                frame.waiting.remove(held)


def _is_of_task(build: Build, task: Task[Any] | None) -> bool:
    return isinstance(build, TaskBuild) and build.task is task is not None


def _is_ancestor(build: Build, frame: TaskBuild | None) -> bool:
    return frame is not None and any(build is ancestor for ancestor in frame.ancestors())


def _refuse_deadlock(target: Build, is_mine: Callable[[Build], bool]) -> None:
    """Search the wait graph from `target`; raise if it leads back to the caller."""
    routes: list[list[Build]] = [[target]]
    seen = {id(target)}
    for route in routes:
        build = route[-1]
        if is_mine(build):
            names = [step.registration.name for step in route]
            path = [*names, names[0]] if len(names) > 1 else [names[0], names[0]]
            message = f"{names[0]} is asked for while it is being built, by its own construction or what that waits for"
            raise WouldDeadlockError(message, path=path)
        for successor in _waits_for(build):
            if id(successor) not in seen:
                seen.add(id(successor))
                routes.append([*route, successor])


def _waits_for(build: Build) -> Iterator[Build]:
    if isinstance(build, TaskBuild):
        yield from build.waiting
    blocked_on = _blocked.get(build.thread)
    if blocked_on is not None:
        yield blocked_on
