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
from threading import get_ident
from typing import Any, Protocol

from polaris.di._registration import MISSING, ServiceRegistration
from polaris.di._store import Store
from polaris.exceptions import DependencyResolutionException

_STALE_CHECK_S = 1.0
"""How often a waiting thread looks whether the builder's event loop is still alive."""

_ledger = threading.RLock()
"""Guards waiters and the wait graph, of all containers, for moments; no user code runs under it. Reentrant, because a
signal handler may resolve a service too."""
_waiters: dict[tuple[Store, ServiceRegistration], dict[Waiter, None]] = {}
"""Who waits for which slot, in order. Of all stores together: nearly always empty, and then nobody has to be woken."""
_blocked: dict[int, Wait] = {}
"""Threads that stand still, and what each waits for."""
_ancestry: ContextVar[TaskBuild | None] = ContextVar("polaris_di_build", default=None)
"""The innermost build that the running task works for; tasks started inside a build inherit it."""


class Waiter(Protocol):
    """Somebody waiting for a slot."""

    def wake(self) -> bool:
        """Let it look at the slot again; False if it is not sure to come round to it."""
        ...


class WouldDeadlockError(DependencyResolutionException):
    """Waiting for this service could never end, because its build waits for the caller."""


class Build:
    """Stands in a slot while its thread is at work on it. One serves all that the thread builds."""

    __slots__ = ("thread",)

    def __init__(self) -> None:
        self.thread = get_ident()


class _Here(threading.local):
    """What belongs to the running thread."""

    def __init__(self) -> None:
        self.build = Build()


_here = _Here()

Wait = tuple[ServiceRegistration, Build]
"""A service that somebody waits for, and the build that it waits for."""


class TaskBuild(Build):
    """A task at work on one slot; it may be suspended meanwhile, and start other tasks."""

    __slots__ = ("parent", "task", "waiting")

    def __init__(self) -> None:
        super().__init__()
        self.task = asyncio.current_task()
        self.parent = _ancestry.get()
        self.waiting: list[Wait] = []
        """What this one, or a task it started, waits for."""

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
    values, build = store.values, _here.build
    # Not by `setdefault` alone: what this thread is building already would look as if it were free.
    while (held := values.get(registration, MISSING)) is not MISSING or (
        held := values.setdefault(registration, build)
    ) is not build:
        if not isinstance(held, Build):
            return held
        _wait_as_thread(store, registration, held)
    try:
        value = make(store)
    except BaseException:  # boundary: user code; however it ends, the slot must be free again
        _abandon(store, registration, build)
        raise
    values[registration] = value
    if _waiters:
        _wake_all(store, registration)
    return value


def getter_of(
    registration: ServiceRegistration, make: Callable[[Store], Any], pure: Callable[[], Any] | None
) -> Callable[[Store], Any]:
    """A function of the store that gives the instance as `obtain` does, at little cost while nobody else is building.

    `pure` is `make` for callers without a store, if it needs none.
    """

    def get(store: Store) -> Any:
        values = store.values
        value = values.get(registration, MISSING)
        if value is not MISSING:
            return obtain(store, registration, make) if isinstance(value, Build) else value
        build = _here.build
        if values.setdefault(registration, build) is not build:
            return obtain(store, registration, make)
        try:
            value = make(store) if pure is None else pure()
        except BaseException:  # boundary: user code; however it ends, the slot must be free again
            _abandon(store, registration, build)
            raise
        values[registration] = value
        if _waiters:
            _wake_all(store, registration)
        return value

    return get


async def obtain_async(store: Store, registration: ServiceRegistration, make: Callable[[Store], Awaitable[Any]]) -> Any:
    """As `obtain`, for a task: it never blocks its event loop. Cancelling a waiter leaves the build alone."""
    build = TaskBuild()
    while (held := store.values.setdefault(registration, build)) is not build:
        if not isinstance(held, Build):
            return held
        await _wait_as_task(store, registration, held)
    _ancestry.set(build)
    try:
        value = await make(store)
    except BaseException:  # boundary: user code; however it ends, the slot must be free again
        _abandon(store, registration, build)
        raise
    finally:
        # Not by a token: an abandoned coroutine is closed by the collector, in whatever context that runs.
        if _ancestry.get() is build:
            _ancestry.set(build.parent)
    store.values[registration] = value
    if _waiters:
        _wake_all(store, registration)
    return value


def finished(store: Store, registration: ServiceRegistration) -> Any:
    """The instance in the slot, MISSING if there is none or it is still being built."""
    value = store.values.get(registration, MISSING)
    return MISSING if isinstance(value, Build) else value


def _wake_all(store: Store, registration: ServiceRegistration) -> None:
    # A waiter adds itself before it looks at the slot a last time, so that it sees the instance or is seen here.
    with _ledger:
        for waiter in _waiters.pop((store, registration), ()):
            waiter.wake()


def _abandon(store: Store, registration: ServiceRegistration, build: Build) -> None:
    if store.values.get(registration) is build:
        del store.values[registration]
    if (store, registration) in _waiters:
        with _ledger:
            _wake_next(store, registration)


def _wake_next(store: Store, registration: ServiceRegistration) -> None:
    waiters = _waiters.get((store, registration), {})
    while waiters:
        waiter = next(iter(waiters))
        del waiters[waiter]
        if waiter.wake():
            break
    if not waiters:
        _waiters.pop((store, registration), None)


def _wait_as_thread(store: Store, registration: ServiceRegistration, held: Build) -> None:
    me = get_ident()
    waiter = _WaitingThread()
    frame = _ancestry.get()
    with _ledger:
        if _discard_stale(store, registration, held):
            return
        _refuse_deadlock((registration, held), lambda build: build.thread == me or _is_ancestor(build, frame))
        if not _enqueue(store, registration, held, waiter):
            return
        _blocked[me] = (registration, held)
        if frame is not None:
            frame.waiting.append((registration, held))
    with _leaving(store, (registration, held), waiter, frame, me):
        while not waiter.lock.acquire(timeout=_STALE_CHECK_S):
            if isinstance(held, TaskBuild) and held.is_stale():
                return


async def _wait_as_task(store: Store, registration: ServiceRegistration, held: Build) -> None:
    task = asyncio.current_task()
    waiter = _WaitingTask(asyncio.get_running_loop())
    frame = _ancestry.get()
    with _ledger:
        if _discard_stale(store, registration, held):
            return
        _refuse_deadlock((registration, held), lambda build: _is_of_task(build, task) or _is_ancestor(build, frame))
        if not _enqueue(store, registration, held, waiter):
            return
        if frame is not None:
            frame.waiting.append((registration, held))
    with _leaving(store, (registration, held), waiter, frame, None):
        await waiter.future


def _enqueue(store: Store, registration: ServiceRegistration, held: Build, waiter: Waiter) -> bool:
    """Add the waiter; False if there is nothing to wait for any more."""
    _waiters.setdefault((store, registration), {})[waiter] = None
    if store.values.get(registration) is held:
        return True
    _dequeue(store, registration, waiter)
    return False


def _dequeue(store: Store, registration: ServiceRegistration, waiter: Waiter) -> bool:
    """Remove the waiter; False if it was woken already."""
    queue = _waiters.get((store, registration), {})
    was_waiting = waiter in queue
    if was_waiting:
        del queue[waiter]
    if not queue:
        _waiters.pop((store, registration), None)
    return was_waiting


def _discard_stale(store: Store, registration: ServiceRegistration, held: Build) -> bool:
    """Free the slot of a build that nobody is left to finish."""
    if not isinstance(held, TaskBuild) or not held.is_stale():
        return False
    if store.values.get(registration) is held:
        del store.values[registration]
    return True


@contextmanager
def _leaving(store: Store, wait: Wait, waiter: Waiter, frame: TaskBuild | None, thread: int | None) -> Iterator[None]:
    """Take the waiter out of all books afterwards; a wake-up that comes too late for it goes to the next one."""
    registration, _ = wait
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
                frame.waiting.remove(wait)


def _is_of_task(build: Build, task: Task[Any] | None) -> bool:
    return isinstance(build, TaskBuild) and build.task is task is not None


def _is_ancestor(build: Build, frame: TaskBuild | None) -> bool:
    return frame is not None and any(build is ancestor for ancestor in frame.ancestors())


def _refuse_deadlock(target: Wait, is_mine: Callable[[Build], bool]) -> None:
    """Search the wait graph from `target`; raise if it leads back to the caller."""
    routes: list[list[Wait]] = [[target]]
    seen = {id(target[1])}
    for route in routes:
        _, build = route[-1]
        if is_mine(build):
            names = [registration.name for registration, _ in route]
            message = f"{names[0]} is asked for while it is being built, by its own construction or what that waits for"
            raise WouldDeadlockError(message, path=[*names, names[0]])
        for successor in _waits_for(build):
            if id(successor[1]) not in seen:
                seen.add(id(successor[1]))
                routes.append([*route, successor])


def _waits_for(build: Build) -> Iterator[Wait]:
    if isinstance(build, TaskBuild):
        yield from build.waiting
    blocked_on = _blocked.get(build.thread)
    if blocked_on is not None:
        yield blocked_on
