"""One place per service and scope where an instance is built once, whoever asks for it at the same time.

A slot is an entry of `Store.values`: absent, a `Build` while somebody builds it, then the instance. `dict.setdefault`
decides atomically who builds; everybody else waits for that one build only, threads on a lock and tasks on a future of
their own event loop. A finished instance is read without any lock. When a build fails or is cancelled, its caller gets
the error and all who wait look again: the first to come builds. Before anybody waits, the graph of who waits for whom
is searched: a wait that could never end raises.
"""

from __future__ import annotations

import asyncio
import threading
from asyncio import AbstractEventLoop, Future, Task
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from threading import get_ident
from typing import Any, Protocol

from polaris.di._registration import MISSING, ServiceRegistration
from polaris.di._store import Store
from polaris.exceptions import DependencyResolutionException

_STALE_CHECK_S = 1.0
"""How often one who waits for a build of another event loop looks whether that loop is still alive."""

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

    def wake(self) -> None:
        """Let it look at the slot again."""
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

Wait = tuple[Store, ServiceRegistration, Build]
"""A slot that somebody waits for, and the build that it waits for."""


class TaskBuild(Build):
    """A task at work on one slot; it may be suspended meanwhile, and start other tasks."""

    __slots__ = ("parent", "task", "waiting")

    def __init__(self) -> None:
        super().__init__()
        self.task = asyncio.current_task()
        self.parent = _ancestry.get()
        self.waiting: list[Wait] = []
        """What this one waits for, or a build inside it, or a task that one of them started."""

    def is_stale(self) -> bool:
        """Whether nobody is left to finish it: its event loop was closed in mid-build."""
        return self.task is not None and self.task.get_loop().is_closed()


class _WaitingThread:
    __slots__ = ("lock",)

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()

    def wake(self) -> None:
        self.lock.release()


class _WaitingTask:
    __slots__ = ("future", "loop")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self.future: Future[None] = loop.create_future()

    def wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self._resolve)

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
    # Not the next one alone: it may be a task whose thread stands still for another of those who wait here. And whoever
    # still waited for this build, instead of for the one that takes over, would hide a cycle.
    if _waiters:
        _wake_all(store, registration)


def _wait_as_thread(store: Store, registration: ServiceRegistration, held: Build) -> None:
    me = get_ident()
    wait = (store, registration, held)
    waiter = _WaitingThread()
    frame = _ancestry.get()
    with _ledger:
        if _discard_stale(store, registration, held):
            return
        _refuse_deadlock(wait, lambda build: build.thread == me or _is_ancestor(build, frame))
        if not _enqueue(store, registration, held, waiter):
            return
        _blocked[me] = wait
        for ancestor in _ancestors(frame):
            ancestor.waiting.append(wait)
    with _leaving(wait, waiter, frame, me):
        while not waiter.lock.acquire(timeout=_STALE_CHECK_S):
            if isinstance(held, TaskBuild) and held.is_stale():
                return


async def _wait_as_task(store: Store, registration: ServiceRegistration, held: Build) -> None:
    task = asyncio.current_task()
    wait = (store, registration, held)
    waiter = _WaitingTask(asyncio.get_running_loop())
    frame = _ancestry.get()
    with _ledger:
        if _discard_stale(store, registration, held):
            return
        _refuse_deadlock(wait, lambda build: _is_of_task(build, task) or _is_ancestor(build, frame))
        if not _enqueue(store, registration, held, waiter):
            return
        for ancestor in _ancestors(frame):
            ancestor.waiting.append(wait)
    with _leaving(wait, waiter, frame, None):
        if not isinstance(held, TaskBuild) or held.task is None or held.task.get_loop() is waiter.loop:
            await waiter.future
            return
        while not waiter.future.done():
            await asyncio.wait({waiter.future}, timeout=_STALE_CHECK_S)
            if held.is_stale():
                return


def _enqueue(store: Store, registration: ServiceRegistration, held: Build, waiter: Waiter) -> bool:
    """Add the waiter; False if there is nothing to wait for any more."""
    _waiters.setdefault((store, registration), {})[waiter] = None
    if store.values.get(registration) is held:
        return True
    _dequeue(store, registration, waiter)
    return False


def _dequeue(store: Store, registration: ServiceRegistration, waiter: Waiter) -> None:
    queue = _waiters.get((store, registration), {})
    queue.pop(waiter, None)
    if not queue:
        _waiters.pop((store, registration), None)


def _discard_stale(store: Store, registration: ServiceRegistration, held: Build) -> bool:
    """Free the slot of a build that nobody is left to finish."""
    if not isinstance(held, TaskBuild) or not held.is_stale():
        return False
    if store.values.get(registration) is held:
        del store.values[registration]
    return True


@contextmanager
def _leaving(wait: Wait, waiter: Waiter, frame: TaskBuild | None, thread: int | None) -> Iterator[None]:
    """Take the waiter out of all books afterwards."""
    store, registration, _ = wait
    try:
        yield
    finally:
        with _ledger:
            _dequeue(store, registration, waiter)
            if thread is not None:
                _blocked.pop(thread, None)
            for ancestor in _ancestors(frame):
                ancestor.waiting.remove(wait)


def _is_of_task(build: Build, task: Task[Any] | None) -> bool:
    return isinstance(build, TaskBuild) and build.task is task is not None


def _ancestors(frame: TaskBuild | None) -> Iterator[TaskBuild]:
    """The build that the running task works for, and those that it was begun in."""
    while frame is not None:
        yield frame
        frame = frame.parent


def _is_ancestor(build: Build, frame: TaskBuild | None) -> bool:
    return any(build is ancestor for ancestor in _ancestors(frame))


def _refuse_deadlock(target: Wait, is_mine: Callable[[Build], bool]) -> None:
    """Search the wait graph from `target`; raise if it leads back to the caller."""
    routes: list[list[Wait]] = [[target]]
    seen: set[int] = set()
    for route in routes:
        store, registration, build = route[-1]
        # A build that is over holds up nobody: who waited for it has been woken, to look again.
        if id(build) in seen or store.values.get(registration) is not build:
            continue
        seen.add(id(build))
        if is_mine(build):
            names = [step.name for _, step, _ in route]
            message = f"{names[0]} is asked for while it is being built, by its own construction or what that waits for"
            raise WouldDeadlockError(message, path=[*names, names[0]])
        routes += [[*route, successor] for successor in _waits_for(build)]


def _waits_for(build: Build) -> Iterator[Wait]:
    if isinstance(build, TaskBuild):
        yield from build.waiting
    blocked_on = _blocked.get(build.thread)
    if blocked_on is not None:
        yield blocked_on
