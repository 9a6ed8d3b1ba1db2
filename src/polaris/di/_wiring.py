"""Which registration fills which parameter: one immutable view of the registry, replaced as a whole by every change."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from polaris.di._registration import (
    MISSING,
    Dependency,
    ProviderKind,
    ServiceLifetime,
    ServiceRegistration,
    Unresolved,
    describe,
)
from polaris.di._registry import Registry, ident
from polaris.di._slots import finished
from polaris.di._store import Store
from polaris.exceptions import DependencyResolutionException

_SEQUENCES: dict[Any, Callable[[list[Any]], Any]] = {
    list: list, Sequence: tuple, Collection: tuple, Iterable: tuple, tuple: tuple,
}  # fmt: skip
_MAPPINGS: frozenset[Any] = frozenset({dict, Mapping})


@dataclass(frozen=True, slots=True, eq=False)
class Filling:
    """What fills one parameter: exactly one of the fields below `dependency`; with none it is missing."""

    dependency: Dependency
    registration: ServiceRegistration | None = None
    members: tuple[ServiceRegistration, ...] = ()
    gather: Callable[[list[Any]], Any] | None = None
    """Turns the instances of `members` into the collection asked for."""
    built_in: Any = None
    """The container or the scope itself."""
    constant: Any = MISSING
    omitted: bool = False
    """The parameter's own default is used."""

    @property
    def registrations(self) -> tuple[ServiceRegistration, ...]:
        return self.members if self.registration is None else (self.registration,)

    @property
    def is_missing(self) -> bool:
        found = self.registration is not None or self.gather is not None or self.built_in is not None
        return not found and self.constant is MISSING and not self.omitted


class _Known(dict[Any, Any]):
    """A table that answers MISSING for what it does not hold: the usual way is one look-up, without a call."""

    def __missing__(self, _: Any) -> Any:
        return MISSING


class OverrideLayer:
    """Replacements that are in force for a while, with slots of their own for all that depends on them."""

    def __init__(self, registration: ServiceRegistration, store: Store) -> None:
        self.place = ident(registration.interface, registration.key)
        self.registration = registration
        self.store = store


class Wiring:
    """Answers what depends on what. Answers are kept; a change of the registry makes a new wiring."""

    def __init__(
        self,
        registry: Registry,
        root: Store,
        layers: tuple[OverrideLayer, ...] = (),
        built_ins: frozenset[Any] = frozenset(),
        scoped_built_ins: frozenset[Any] = frozenset(),
    ) -> None:
        self.registry = registry
        self.root = root
        self.layers = layers
        self.built_ins = built_ins | scoped_built_ins
        """What the container supplies without a registration; the scoped ones only inside a scope."""
        self.scoped_built_ins = scoped_built_ins
        # These three answer MISSING for what they do not hold.
        self.live: dict[Any, Any] = _Known()
        """Finished singletons by ident: the first thing that `resolve` looks at."""
        self.pure: dict[Any, Callable[[], Any]] = _Known()
        """Compiled closures of what needs no scope."""
        self.instant: dict[Any, Callable[[Store], Any]] = _Known()
        """Compiled closures of what never has to be awaited."""
        self.plans: dict[ServiceRegistration, Any] = {}
        """Compiled plans whose singletons are all built."""
        self._fillings: dict[ServiceRegistration, tuple[Filling, ...]] = {}
        self._stores: dict[ServiceRegistration, Store] = {}

    def find(self, interface: Any, key: Hashable = None) -> ServiceRegistration | None:
        """The registration in force for an interface and key."""
        place = ident(interface, key)
        for layer in reversed(self.layers):
            if layer.place == place:
                return layer.registration
        return self.registry.find(interface, key)

    def find_all(self, interface: Any) -> tuple[ServiceRegistration, ...]:
        """Every registration of an interface; an override stands for all those of its key."""
        found = list(self.registry.find_all(interface))
        for layer in self.layers:
            substitute = layer.registration
            if substitute.interface == interface:
                found = [one for one in found if one.key != substitute.key] + [substitute]
        return tuple(found)

    def registrations(self) -> list[ServiceRegistration]:
        """Everything that can be asked for, directly or through a decorator, in order of registration."""
        overridden = {layer.place for layer in self.layers}
        found: dict[ServiceRegistration, None] = {}
        for one in self.registry:
            if ident(one.interface, one.key) not in overridden:
                found[one] = None
        for layer in self.layers:
            found[layer.registration] = None
        for one in self.registry.closed_generics():
            found[one] = None
        for one in list(found):
            for filling in self.fillings(one):
                for other in filling.registrations:
                    found.setdefault(other)
            inner = one.decorates
            while inner is not None:
                found.setdefault(inner)
                inner = inner.decorates
        return list(found)

    def fillings(self, registration: ServiceRegistration) -> tuple[Filling, ...]:
        """What fills each parameter of the registration's provider."""
        found = self._fillings.get(registration)
        if found is None:
            found = tuple(self._fill(dependency) for dependency in registration.dependencies)
            self._fillings[registration] = found
        return found

    def needs(self, registration: ServiceRegistration) -> Iterator[ServiceRegistration]:
        """The registrations that it depends on directly."""
        for filling in self.fillings(registration):
            yield from filling.registrations

    def _fill(self, dependency: Dependency) -> Filling:
        if dependency.target is not None:
            return Filling(dependency, registration=dependency.target)
        for interface in dependency.interfaces:
            found = self._look_up(dependency, interface)
            if found is not None:
                return found
        if dependency.default is not MISSING:
            return Filling(dependency, constant=dependency.default)
        if dependency.has_default:
            return Filling(dependency, omitted=True)
        if dependency.allows_none:
            return Filling(dependency, constant=None)
        return Filling(dependency)

    def _look_up(self, dependency: Dependency, interface: Any) -> Filling | None:
        if isinstance(interface, Unresolved):
            named = self.registry.named(interface.text)
            if len(named) != 1:
                return None
            interface = named[0]
        try:
            registration = self.find(interface, dependency.key)
        except TypeError:  # an unhashable annotation can be no registered interface
            return None
        if registration is not None:
            return Filling(dependency, registration=registration)
        if interface in self.built_ins and dependency.key is None:
            return Filling(dependency, built_in=interface)
        return self._look_up_collection(dependency, interface)

    def _look_up_collection(self, dependency: Dependency, interface: Any) -> Filling | None:
        origin, arguments = get_origin(interface), get_args(interface)
        if origin in _SEQUENCES and (len(arguments) == 1 or (origin is tuple and arguments[1:] == (...,))):
            members = self.find_all(arguments[0])
            if members:
                return Filling(dependency, members=members, gather=_SEQUENCES[origin])
        if origin in _MAPPINGS and len(arguments) == 2:
            by_key = {one.key: one for one in self.find_all(arguments[1]) if one.key is not None}
            if by_key:
                return Filling(dependency, members=tuple(by_key.values()), gather=_mapping_with(tuple(by_key)))
        return None

    def store_of(self, registration: ServiceRegistration) -> Store:
        """Where the singleton's instance lives: with the innermost override that it depends on, else in the root."""
        if not self.layers:
            return self.root
        if registration not in self._stores:
            for one in self.creation_order(registration):
                self._stores.setdefault(one, self._innermost_store(one))
        return self._stores[registration]

    def _innermost_store(self, registration: ServiceRegistration) -> Store:
        ranked: list[Store] = [self.root, *(layer.store for layer in self.layers)]
        candidates = [self._stores[need] for need in self.needs(registration)]
        candidates += [layer.store for layer in self.layers if layer.registration is registration]
        return max(candidates, key=ranked.index, default=self.root)

    def held(self, registration: ServiceRegistration) -> Any:
        """The finished instance of a singleton, MISSING if there is none yet."""
        if registration.kind is ProviderKind.INSTANCE:
            return registration.provider
        if registration.lifetime is not ServiceLifetime.SINGLETON:
            return MISSING
        return finished(self.store_of(registration), registration)

    def creation_order(
        self, *roots: ServiceRegistration, until: Callable[[ServiceRegistration], bool] = lambda _: False
    ) -> list[ServiceRegistration]:
        """All that the roots depend on and the roots, dependencies first; does not look behind what `until` accepts.

        Raises DependencyResolutionException with the path drawn if they depend on each other in a cycle.
        """
        order: dict[ServiceRegistration, None] = {}
        for root in roots:
            if root in order:
                continue
            route: dict[ServiceRegistration, Iterator[ServiceRegistration]] = {root: self._needs_until(root, until)}
            while route:
                current, needs = next(reversed(route.items()))
                need = next((one for one in needs if one not in order), None)
                if need is None:
                    order[current] = None
                    del route[current]
                elif need in route:
                    names = [one.name for one in route]
                    start = list(route).index(need)
                    raise DependencyResolutionException("cyclic dependency", path=[*names[start:], need.name])
                else:
                    route[need] = self._needs_until(need, until)
        return list(order)

    def _needs_until(
        self, registration: ServiceRegistration, until: Callable[[ServiceRegistration], bool]
    ) -> Iterator[ServiceRegistration]:
        return iter(()) if until(registration) else self.needs(registration)

    def needs_scope(self, registration: ServiceRegistration) -> bool:
        """Whether it can, by itself, only live inside a scope."""
        if registration.lifetime is ServiceLifetime.SCOPED:
            return True
        return any(filling.built_in in self.scoped_built_ins for filling in self.fillings(registration))

    def path_to(
        self,
        start: ServiceRegistration,
        is_goal: Callable[[ServiceRegistration], bool],
        through: Callable[[ServiceRegistration], bool] = lambda _: True,
    ) -> list[ServiceRegistration]:
        """The shortest chain of dependencies from `start` to a goal; `[start]` if there is none.

        Only what `through` accepts, and the start, may stand in the middle.
        """
        came_from: dict[ServiceRegistration, ServiceRegistration | None] = {start: None}
        queue = deque([start])
        while queue:
            current = queue.popleft()
            if is_goal(current):
                chain: list[ServiceRegistration] = []
                step: ServiceRegistration | None = current
                while step is not None:
                    chain.append(step)
                    step = came_from[step]
                return chain[::-1]
            if current is not start and not through(current):
                continue
            for need in self.needs(current):
                if need not in came_from:
                    came_from[need] = current
                    queue.append(need)
        return [start]


def _mapping_with(keys: tuple[Hashable, ...]) -> Callable[[list[Any]], Any]:
    def gather(instances: list[Any]) -> Any:
        return dict(zip(keys, instances, strict=True))

    return gather


def missing_name(dependency: Dependency) -> str:
    """What to call a missing dependency: its interface, or the union it may be one of."""
    names = [describe(interface, dependency.key) for interface in dependency.interfaces]
    return " | ".join(names) or f"parameter {dependency.name!r}"
