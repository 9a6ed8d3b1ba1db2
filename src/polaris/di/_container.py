"""The container: registers services, resolves them, and runs their lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.di import _lifecycle, _resolver
from polaris.di._deadline import shielded, within
from polaris.di._diagram import draw_mermaid
from polaris.di._override import Override
from polaris.di._plugins import load_entry_points
from polaris.di._registrar import Registrar
from polaris.di._registration import MISSING
from polaris.di._scope import Scope
from polaris.di._store import Store
from polaris.di._teardown import run_finalizers
from polaris.di._unloading import refuse_unload
from polaris.di._validation import find_problems
from polaris.exceptions import DependencyInjectionError, InvalidValueError

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")

HOOK_TIMEOUT_S = 30.0
TEARDOWN_TIMEOUT_S = 10.0
START_TOTAL_TIMEOUT_S = 300.0


class DIContainer(Registrar):
    """Builds services from their constructors' annotations, shares them by lifetime, starts and stops them in order.

    Register first, `validate()` or `start()` to have the whole graph proved, then `resolve`. The container is safe to
    use from any number of threads, tasks and event loops; a singleton is built once whoever asks, and asking for a
    finished one takes no lock. There is no global container, and nothing is written onto registered classes.

    The last registration of an interface and key is the one resolved; the earlier ones stay in `resolve_all`.
    Registering after the first `resolve` is allowed and leaves live singletons alive. A parameter annotated
    `DIContainer` receives the container, one annotated `Scope` the scope that asks.

    Filling a parameter: the registered service; with none registered its default, else None for `T | None`, else it is
    missing. Of a union the first member registered is taken. `Annotated[T, Key(k)]` asks for a key; `list[T]`,
    `tuple[T, ...]` and `Sequence[T]` for all of them; `dict[str, T]` for all that have a key.

    Args:
        clock: what measures the deadlines.
        start_timeout_s, stop_timeout_s: seconds for each hosted service to start or stop, 30 each.
        teardown_timeout_s: seconds for each asynchronous finalizer, 10.
    """

    def __init__(
        self,
        *,
        clock: Clock = SYSTEM_CLOCK,
        start_timeout_s: float = HOOK_TIMEOUT_S,
        stop_timeout_s: float = HOOK_TIMEOUT_S,
        teardown_timeout_s: float = TEARDOWN_TIMEOUT_S,
    ) -> None:
        for name, value in (
            ("start_timeout_s", start_timeout_s),
            ("stop_timeout_s", stop_timeout_s),
            ("teardown_timeout_s", teardown_timeout_s),
        ):
            if not value > 0:
                raise InvalidValueError(name, "a positive number of seconds", value)
        super().__init__({DIContainer: lambda _: self, Scope: lambda store: store}, frozenset({Scope}))
        self.clock = clock
        self.teardown_timeout_s = teardown_timeout_s
        self._turn = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lifecycle = _lifecycle.Lifecycle(clock, start_timeout_s, stop_timeout_s)

    # -------------------------------------------------------------------------------------------------- resolution

    def resolve(self, interface: TypeForm[T], key: Hashable = None) -> T:
        """The service registered for an interface, built if need be.

        Never awaits: what is built asynchronously must be alive already, or `aresolve` is needed. It waits for another
        thread that is building the same singleton. Nothing is built if anything is missing, cyclic or captive.
        Raises ServiceNotRegisteredException or DependencyResolutionException with the dependency path drawn; an error
        of a constructor or factory is the `__cause__`. A service that failed to build may be asked for again.
        """
        place = interface if key is None else (interface, key)
        try:
            found: T = self._live[place]
            if found is not MISSING:
                return found
            pure: Callable[[], T] = self._pure[place]
            if pure is not MISSING:
                return pure()
        except Exception as error:  # boundary: user code; it comes out typed, with the path drawn
            raise _resolver.explained_to(self.wiring, interface, key, error) from _resolver.cause_of(error)
        self.require_open()
        return cast(T, _resolver.resolve(self.wiring, self.built_ins, self._root, interface, key))

    async def aresolve(self, interface: TypeForm[T], key: Hashable = None) -> T:
        """As `resolve`, awaiting what is built asynchronously; it never blocks the event loop on another's build.

        Cancelling a caller that waits leaves the build alone; cancelling the one that builds hands the build over to
        the next caller.
        """
        place = interface if key is None else (interface, key)
        try:
            found: T = self._live[place]
            if found is not MISSING:
                return found
            pure: Callable[[], T] = self._pure[place]
            if pure is not MISSING:
                return pure()
        except Exception as error:  # boundary: user code; it comes out typed, with the path drawn
            raise _resolver.explained_to(self.wiring, interface, key, error) from _resolver.cause_of(error)
        self.require_open()
        return cast(T, await _resolver.resolve_async(self.wiring, self.built_ins, self._root, interface, key))

    def resolve_all(self, interface: TypeForm[T]) -> list[T]:
        """One instance of every registration of the interface, under any key, in order of registration; maybe none."""
        self.require_open()
        return _resolver.resolve_all(self.wiring, self.built_ins, self._root, interface)

    async def aresolve_all(self, interface: TypeForm[T]) -> list[T]:
        """As `resolve_all`, awaiting what is built asynchronously."""
        self.require_open()
        return await _resolver.resolve_all_async(self.wiring, self.built_ins, self._root, interface)

    def scope(self) -> Scope:
        """A new scope, to be closed by the caller: `async with container.scope() as scope: ...`."""
        return Scope(self)

    def require_open(self) -> None:
        """Raise DependencyInjectionError if the container was stopped and not started again."""
        if self._root.closed:
            raise DependencyInjectionError("the container is stopped")

    # ---------------------------------------------------------------------------------------------------- the graph

    def validate(self) -> None:
        """Prove the graph without building anything.

        Raises one ExceptionGroup with every missing dependency, every cycle (each dependency that lies on a cycle is in
        a drawing), and every singleton that would keep something beyond its life: a scoped service, or a transient with
        a teardown.
        """
        problems = find_problems(self.wiring)
        if problems:
            raise ExceptionGroup(f"the services cannot be wired: {len(problems)} problems", problems)

    def graph(self) -> str:
        """The services and their dependencies as a mermaid flowchart: shapes by lifetime, missing ones dashed."""
        return draw_mermaid(self.wiring)

    def override(self, interface: TypeForm[T], replacement: Any, *, key: Hashable = None) -> Override:
        """Replace a service in the body of a `with` or `async with` statement, for tests.

        The replacement is an object, or a class or function to build it, with the lifetime of what it replaces. All
        that depends on it is built anew for the body and torn down at its end; then the former singletons are back,
        untouched. It is in force for every thread and task; open scopes keep what they have built. Overrides end in the
        reverse order of their beginning. Services are neither started nor stopped.
        """
        return Override(self, interface, replacement, key)

    # -------------------------------------------------------------------------------------------------- plugins

    def load_plugins(self, group: str) -> list[str]:
        """Let every installed plugin register its services; returns the plugins' names.

        A plugin is an entry point of the group that names a callable; it is called with the container. Its
        registrations carry its name as owner (see `unload`). If plugins fail, the registrations of those are undone,
        the others stay, and an ExceptionGroup holds an error for each.
        """
        return load_entry_points(self, group)

    async def unload(self, owner: str) -> None:
        """Stop, tear down and forget everything that `owner` registered.

        Nothing happens, and DependencyInjectionError says why, if a live singleton of somebody else holds one of its
        services, or a service of somebody else would lose a dependency. What the owner decorated is as before
        afterwards. Errors of hooks and finalizers come out together as an ExceptionGroup, after the last one.
        """
        async with self._taking_turns():
            refuse_unload(self.wiring, self._registry, owner)
            errors = await shielded(self._unload(owner))
        if errors:
            raise ExceptionGroup(f"unloading {owner} failed in part", errors)

    async def _unload(self, owner: str) -> list[Exception]:
        mine = [one for one in self.wiring.registrations() if one.owner == owner]
        errors = await self._lifecycle.stop_only(owner)
        self.discard(owner)
        errors += await run_finalizers(self._root.take(owner), self.clock, self.teardown_timeout_s)
        for one in mine:
            self._root.values.pop(one, None)
        return errors

    # -------------------------------------------------------------------------------------------------- start, stop

    async def start(self, *, timeout_s: float = START_TOTAL_TIMEOUT_S) -> None:
        """Validate, build every singleton, and start the hosted ones in dependency order.

        The order comes from the parameters: what a factory fetches from the container in its body is not seen.
        Services that do not depend on each other start side by side, each within its own deadline and all within
        `timeout_s` seconds. If one fails, or the caller is cancelled, what had begun is stopped in reverse order,
        everything built is torn down, and an ExceptionGroup (or the cancellation) comes out: the container is then
        stopped, and may be started again. Concurrent calls take turns. A second start begins only what was registered
        since the first, and its failure stops only that.
        """
        async with self._taking_turns():
            if self._root.closed:
                self._reopen()
            self.validate()
            running = self._lifecycle.levels_begun
            try:
                await within(self.clock, timeout_s, self._start_all(), "starting the container")
            except BaseException as error:  # boundary: also a cancellation must roll back; the error is raised on
                errors = await shielded(self._roll_back(running))
                if errors and isinstance(error, Exception):
                    group = error if isinstance(error, ExceptionGroup) else ExceptionGroup("start failed", [error])
                    raise ExceptionGroup("services failed to start", [*group.exceptions, *errors]) from None
                if not isinstance(error, Exception) or isinstance(error, ExceptionGroup):
                    raise
                raise ExceptionGroup("services failed to start", [error]) from None

    async def _start_all(self) -> None:
        wiring = self.wiring
        for one in _lifecycle.singletons_in_order(wiring):
            await _resolver.resolve_registration_async(wiring, self.built_ins, self._root, one)
        await self._lifecycle.start(_lifecycle.hosted_levels(wiring))

    async def stop(self) -> None:
        """Stop what was started, in reverse order, then tear down everything that the container built, newest first.

        Every hook and finalizer runs once, within its deadline, even if others fail or the caller is cancelled; a
        cancellation is delivered after the last one. Errors come out together as an ExceptionGroup. Stopping twice
        does nothing. A stopped container resolves nothing until it is started again; open scopes belong to those who
        opened them.
        """
        async with self._taking_turns():
            errors = await shielded(self._shut_down())
        if errors:
            raise ExceptionGroup("services failed to stop", errors)

    async def _roll_back(self, running: int) -> list[Exception]:
        if running == 0:
            return await self._shut_down()
        return await self._lifecycle.stop(down_to=running)

    async def _shut_down(self) -> list[Exception]:
        errors = await self._lifecycle.stop()
        root = self._root
        errors += await root.tear_down_async(self.clock, self.teardown_timeout_s)
        with self._lock:
            self._rewire()
        return errors

    def _reopen(self) -> None:
        with self._lock:
            self._root = Store()
            self._rewire()

    def _taking_turns(self) -> asyncio.Lock:
        """The lock that lets starts and stops of one event loop take turns."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._loop is not loop:
                if self._turn.locked() and self._loop is not None and not self._loop.is_closed():
                    raise DependencyInjectionError("the container is being started or stopped by another event loop")
                self._loop, self._turn = loop, asyncio.Lock()
            return self._turn

    def close(self) -> None:
        """Tear down synchronously what the container built, for programs without an event loop.

        Raises DependencyInjectionError, with nothing torn down, if a finalizer is asynchronous: `stop` is then the way.
        """
        needs_loop = self._root.first_async()
        if needs_loop is not None:
            raise DependencyInjectionError(f"{needs_loop.registration.name} has an asynchronous teardown: use `stop()`")
        errors = self._root.tear_down()
        with self._lock:
            self._rewire()
        if errors:
            raise ExceptionGroup("teardown failed", errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        await self.stop()
