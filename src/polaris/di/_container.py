"""The container: registers services, resolves them, and runs their lives."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.di import _lifecycle, _resolver
from polaris.di._deadline import shielded, within
from polaris.di._declare import declare_decorator, declare_factory, declare_implementation, declare_instance
from polaris.di._diagram import draw_mermaid
from polaris.di._override import Override
from polaris.di._plugins import load_entry_points
from polaris.di._registration import MISSING, ServiceLifetime, ServiceRegistration
from polaris.di._registry import Registry
from polaris.di._scope import Scope, Wired
from polaris.di._store import Store
from polaris.di._teardown import run_finalizers
from polaris.di._validation import find_problems
from polaris.di._wiring import OverrideLayer, Wiring
from polaris.exceptions import DependencyInjectionError, InvalidValueError

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")

HOOK_TIMEOUT_S = 30.0
TEARDOWN_TIMEOUT_S = 10.0
START_TOTAL_TIMEOUT_S = 300.0

_owner: ContextVar[str | None] = ContextVar("polaris_di_owner", default=None)


class DIContainer(Wired):
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
        self.clock = clock
        self.teardown_timeout_s = teardown_timeout_s
        self.built_ins = {DIContainer: lambda _: self, Scope: lambda store: store.scope}
        self._registry = Registry()
        self._layers: tuple[OverrideLayer, ...] = ()
        self._lock = threading.RLock()
        self._turn = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lifecycle = _lifecycle.Lifecycle(clock, start_timeout_s, stop_timeout_s)
        self._root = Store()
        self._rewire()

    # ------------------------------------------------------------------------------------------------ registration

    def register_singleton(
        self,
        interface: TypeForm[T],
        implementation: type[T] | None = None,
        *,
        key: Hashable = None,
        hosted: bool | None = None,
    ) -> ServiceRegistration:
        """Build `implementation` (the interface itself by default) once, for everybody.

        `hosted` says whether `start()` and `stop()` of the container call those of the instance; by default they do if
        its class has both. Raises DependencyResolutionException, registering nothing, if the implementation is abstract
        or does not fit the interface.
        """
        return self._register(interface, implementation, ServiceLifetime.SINGLETON, key, hosted)

    def register_scoped(
        self, interface: TypeForm[T], implementation: type[T] | None = None, *, key: Hashable = None
    ) -> ServiceRegistration:
        """Build `implementation` once for each `scope()`. Refuses like `register_singleton`."""
        return self._register(interface, implementation, ServiceLifetime.SCOPED, key)

    def register_transient(
        self, interface: TypeForm[T], implementation: type[T] | None = None, *, key: Hashable = None
    ) -> ServiceRegistration:
        """Build `implementation` for each request. Refuses like `register_singleton`."""
        return self._register(interface, implementation, ServiceLifetime.TRANSIENT, key)

    def _register(
        self,
        interface: Any,
        implementation: Any,
        lifetime: ServiceLifetime,
        key: Hashable,
        hosted: bool | None = None,
    ) -> ServiceRegistration:
        owner = _owner.get()
        return self._add(declare_implementation(interface, implementation, lifetime, key, owner, hosted=hosted))

    def register_instance(
        self, interface: TypeForm[T], instance: T, *, key: Hashable = None, hosted: bool | None = None
    ) -> ServiceRegistration:
        """Hand out this very object. It is hosted like a singleton, but never torn down: it belongs to the caller.

        Raises DependencyResolutionException, registering nothing, if it is no instance of the interface.
        """
        return self._add(declare_instance(interface, instance, key, _owner.get(), hosted=hosted))

    def register_factory(
        self,
        interface: TypeForm[T],
        factory: Callable[..., Any],
        *,
        lifetime: ServiceLifetime = ServiceLifetime.TRANSIENT,
        key: Hashable = None,
        hosted: bool | None = None,
    ) -> ServiceRegistration:
        """Call `factory` for an instance, its parameters injected by their annotations.

        A function, an async function, or a generator or async generator that yields the instance once and then tears
        it down when its scope closes (for singletons and what the container itself resolves: at `stop`). What the
        factory gives must be an instance of the interface, or the request raises DependencyResolutionException.
        """
        return self._add(declare_factory(interface, factory, lifetime, key, _owner.get(), hosted=hosted))

    def decorate(
        self, interface: TypeForm[T], decorator: Callable[..., Any], *, key: Hashable = None
    ) -> ServiceRegistration:
        """Put `decorator` round the service registered last: whoever asks gets the decorator's product instead.

        It is a class or factory of any kind; the parameter annotated with the interface receives the original, the
        others are injected. It has the lifetime of the original, which is built and torn down as before.
        Raises ServiceNotRegisteredException if there is nothing to decorate.
        """
        with self._lock:
            inner = _resolver.find_required(self.wiring, interface, key)
            outer = declare_decorator(inner, decorator, _owner.get())
            self._registry.replace(inner, outer)
            self._rewire()
        return outer

    def load_plugins(self, group: str) -> list[str]:
        """Let every installed plugin register its services; returns the plugins' names.

        A plugin is an entry point of the group that names a callable; it is called with the container. Its
        registrations carry its name as owner (see `unload`). If plugins fail, the registrations of those are undone,
        the others stay, and an ExceptionGroup holds an error for each.
        """
        return load_entry_points(self, group)

    @contextmanager
    def owned_by(self, owner: str) -> Iterator[None]:
        """Mark what is registered in the body, by this task or thread, as belonging to `owner`."""
        token = _owner.set(owner)
        try:
            yield
        finally:
            _owner.reset(token)

    def discard(self, owner: str) -> None:
        """Forget the registrations of an owner, as long as none of them has been built; see `unload` for the rest."""
        with self._lock:
            for one in [each for each in self._registry if each.owner == owner]:
                self._registry.replace(one, one.decorates)
            self._rewire()

    async def unload(self, owner: str) -> None:
        """Stop, tear down and forget everything that `owner` registered.

        Nothing happens, and DependencyInjectionError lists the problems, if a service of somebody else would lose a
        dependency. What an owner decorated is as before afterwards. Errors of hooks and finalizers come out together
        as an ExceptionGroup, after the last one.
        """
        async with self._taking_turns():
            mine = [one for one in self._registry if one.owner == owner]
            self._refuse_unload(owner, mine)
            errors = await shielded(self._unload(owner, mine))
        if errors:
            raise ExceptionGroup(f"unloading {owner} failed in part", errors)

    def _refuse_unload(self, owner: str, mine: list[ServiceRegistration]) -> None:
        doomed = [one for one in mine if one.decorates is None]
        others = [one for one in self.wiring.registrations() if one.owner != owner]
        for one in others:
            lost = [need for need in self.wiring.needs(one) if need in doomed]
            if lost:
                raise DependencyInjectionError(f"{owner} cannot be unloaded: {one.name} depends on {lost[0].name}")

    async def _unload(self, owner: str, mine: list[ServiceRegistration]) -> list[Exception]:
        errors = await self._lifecycle.stop_only(owner)
        self.discard(owner)
        errors += await run_finalizers(self._root.teardown.take(owner), self.clock, self.teardown_timeout_s)
        for one in mine:
            self._root.values.pop(one, None)
        return errors

    def _add(self, registration: ServiceRegistration) -> ServiceRegistration:
        with self._lock:
            self._registry.add(registration)
            self._rewire()
        return registration

    def _rewire(self) -> None:
        """Start a new wiring after a change: what was compiled is forgotten, what was built stays."""
        wiring = Wiring(
            self._registry, self._root, self._layers, frozenset({DIContainer}), scoped_built_ins=frozenset({Scope})
        )
        self.wiring = wiring
        self._live = wiring.live
        self._pure = wiring.pure

    # -------------------------------------------------------------------------------------------------- resolution

    def resolve(self, interface: TypeForm[T], *, key: Hashable = None) -> T:
        """The service registered for an interface, built if need be.

        Never awaits: what is built asynchronously must be alive already, or `aresolve` is needed. It waits for another
        thread that is building the same singleton. Nothing is built if anything is missing, cyclic or captive.
        Raises ServiceNotRegisteredException or DependencyResolutionException with the dependency path drawn; an error
        of a constructor or factory is the `__cause__`. A service that failed to build may be asked for again.
        """
        place = interface if key is None else (interface, key)
        try:
            value = self._live.get(place, MISSING)
            if value is not MISSING:
                return cast(T, value)
            pure = self._pure.get(place)
            if pure is not None:
                return cast(T, pure())
        except Exception as error:  # boundary: user code; it comes out typed, with the path drawn
            wiring = self.wiring
            raise _resolver.explained(wiring, wiring.find(interface, key), error) from _resolver.cause_of(error)
        self.require_open()
        return cast(T, _resolver.resolve(self.wiring, self.built_ins, self._root, interface, key))

    async def aresolve(self, interface: TypeForm[T], *, key: Hashable = None) -> T:
        """As `resolve`, awaiting what is built asynchronously; it never blocks the event loop on another's build.

        Cancelling a caller that waits leaves the build alone; cancelling the one that builds hands the build over to
        the next caller.
        """
        place = interface if key is None else (interface, key)
        try:
            value = self._live.get(place, MISSING)
            if value is not MISSING:
                return cast(T, value)
            pure = self._pure.get(place)
            if pure is not None:
                return cast(T, pure())
        except Exception as error:  # boundary: user code; it comes out typed, with the path drawn
            wiring = self.wiring
            raise _resolver.explained(wiring, wiring.find(interface, key), error) from _resolver.cause_of(error)
        self.require_open()
        return cast(T, await _resolver.resolve_async(self.wiring, self.built_ins, self._root, interface, key))

    def resolve_all(self, interface: TypeForm[T]) -> list[T]:
        """One instance of every registration of the interface, under any key, in order of registration; maybe none."""
        self.require_open()
        wiring = self.wiring
        return [
            _resolver.resolve_registration(wiring, self.built_ins, self._root, one)[0]
            for one in wiring.find_all(interface)
        ]

    async def aresolve_all(self, interface: TypeForm[T]) -> list[T]:
        """As `resolve_all`, awaiting what is built asynchronously."""
        self.require_open()
        wiring = self.wiring
        return [
            (await _resolver.resolve_registration_async(wiring, self.built_ins, self._root, one))[0]
            for one in wiring.find_all(interface)
        ]

    def scope(self) -> Scope:
        """A new scope, to be closed by the caller: `async with container.scope() as scope: ...`."""
        return Scope(self)

    def require_open(self) -> None:
        """Raise DependencyInjectionError if the container was stopped and not started again."""
        if self._root.teardown.closed:
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

    def registrations(self) -> list[ServiceRegistration]:
        """Everything registered, in order."""
        return list(self._registry)

    def override(self, interface: TypeForm[T], replacement: Any, *, key: Hashable = None) -> Override:
        """Replace a service in the body of a `with` or `async with` statement, for tests.

        The replacement is an object, or a class or function to build it, with the lifetime of what it replaces. All
        that depends on it is built anew for the body and torn down at its end; then the former singletons are back,
        untouched. It is in force for every thread and task; open scopes keep what they have built. Overrides end in the
        reverse order of their beginning. Services are neither started nor stopped.
        """
        return Override(self, interface, replacement, key)

    def push_layer(self, layer: OverrideLayer) -> None:
        """Put an override in force."""
        with self._lock:
            self._layers = (*self._layers, layer)
            self._rewire()

    def pop_layer(self, layer: OverrideLayer) -> None:
        """End the innermost override; raises DependencyInjectionError, ending nothing, if that is another one."""
        with self._lock:
            if not self._layers or self._layers[-1] is not layer:
                raise DependencyInjectionError("overrides must end in the reverse order of their beginning")
            self._layers = self._layers[:-1]
            self._rewire()

    # -------------------------------------------------------------------------------------------------- start, stop

    async def start(self, *, timeout_s: float = START_TOTAL_TIMEOUT_S) -> None:
        """Validate, build every singleton, and start the hosted ones in dependency order.

        Services that do not depend on each other start side by side, each within its own deadline and all within
        `timeout_s` seconds. If one fails, or the caller is cancelled, what had begun is stopped in reverse order,
        everything built is torn down, and an ExceptionGroup (or the cancellation) comes out: the container is then
        stopped, and may be started again. Concurrent calls take turns; a second start begins only what was registered
        since the first.
        """
        async with self._taking_turns():
            if self._root.teardown.closed:
                self._reopen()
            self.validate()
            try:
                await within(self.clock, timeout_s, self._start_all(), "starting the container")
            except BaseException as error:  # boundary: also a cancellation must roll back; the error is raised on
                errors = await shielded(self._shut_down())
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

    async def _shut_down(self) -> list[Exception]:
        errors = await self._lifecycle.stop()
        root = self._root
        errors += await root.teardown.aclose(self.clock, self.teardown_timeout_s)
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
        needs_loop = self._root.teardown.first_async()
        if needs_loop is not None:
            raise DependencyInjectionError(f"{needs_loop.registration.name} has an asynchronous teardown: use `stop()`")
        errors = self._root.teardown.close()
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
