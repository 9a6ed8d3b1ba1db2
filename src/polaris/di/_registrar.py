"""Takes registrations in, and starts a new wiring after each change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from polaris.di import _resolver
from polaris.di._declare import declare_decorator, declare_factory, declare_implementation, declare_instance
from polaris.di._registration import ServiceLifetime, ServiceRegistration
from polaris.di._registry import Registry, beneath
from polaris.di._store import Store
from polaris.di._wiring import OverrideLayer, Wiring
from polaris.exceptions import DependencyInjectionError

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")

_owner: ContextVar[str | None] = ContextVar("polaris_di_owner", default=None)


class Registrar:
    """The half of the container that services are registered with. Safe from any thread.

    `built_ins` are what can be asked for without a registration; the scoped ones only inside a scope.
    """

    def __init__(self, built_ins: _resolver.BuiltIns, scoped_built_ins: frozenset[Any] = frozenset()) -> None:
        self.built_ins = built_ins
        self._scoped_built_ins = scoped_built_ins
        self._registry = Registry()
        self._layers: tuple[OverrideLayer, ...] = ()
        self._lock = threading.RLock()
        self._root = Store()
        self._rewire()

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
                self._registry.replace(one, beneath(one, owner))
            self._rewire()

    def _add(self, registration: ServiceRegistration) -> ServiceRegistration:
        with self._lock:
            self._registry.add(registration)
            self._rewire()
        return registration

    def registrations(self) -> list[ServiceRegistration]:
        """Everything registered, in order."""
        return list(self._registry)

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

    def _rewire(self) -> None:
        """Start a new wiring after a change: what was compiled is forgotten, what was built stays."""
        always = frozenset(self.built_ins) - self._scoped_built_ins
        wiring = Wiring(self._registry, self._root, self._layers, always, self._scoped_built_ins)
        self.wiring = wiring
        self._live = wiring.live
        self._pure = wiring.pure
