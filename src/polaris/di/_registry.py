"""Which services are registered: by interface and key, the last one first asked."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Hashable, Iterator
from dataclasses import replace
from typing import Any, get_args, get_origin

from polaris.di._annotations import substitute, type_arguments
from polaris.di._registration import Dependency, Learned, ServiceRegistration, describe

_SUGGESTIONS_MAX = 3


def ident(interface: Any, key: Hashable) -> Any:
    """The dictionary key of an interface and key."""
    return interface if key is None else (interface, key)


def beneath(registration: ServiceRegistration, owner: str) -> ServiceRegistration | None:
    """What is left of a registration without the decorators, or the whole, that `owner` put there."""
    left: ServiceRegistration | None = registration
    while left is not None and left.owner == owner:
        left = left.decorates
    return left


class Registry:
    """All registrations, in order. Reading needs no lock: every change replaces a tuple."""

    def __init__(self) -> None:
        self._by_ident: dict[Any, tuple[ServiceRegistration, ...]] = {}
        self._by_interface: dict[Any, tuple[ServiceRegistration, ...]] = {}
        self._closed: dict[tuple[ServiceRegistration, Any], ServiceRegistration] = {}
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[ServiceRegistration]:
        every = [one for group in list(self._by_interface.values()) for one in group]
        return iter(sorted(every, key=lambda registration: registration.sequence))

    def add(self, registration: ServiceRegistration) -> None:
        """The last registration of an interface and key is the one that `find` answers with."""
        with self._lock:
            place = ident(registration.interface, registration.key)
            self._by_ident[place] = (*self._by_ident.get(place, ()), registration)
            interface = registration.interface
            self._by_interface[interface] = (*self._by_interface.get(interface, ()), registration)

    def replace(self, old: ServiceRegistration, new: ServiceRegistration | None) -> None:
        """Put `new` in the place of `old`, or remove `old`."""
        with self._lock:
            for table, place in (
                (self._by_ident, ident(old.interface, old.key)),
                (self._by_interface, old.interface),
            ):
                group = tuple(
                    one for one in (new if each is old else each for each in table.get(place, ())) if one is not None
                )
                if group:
                    table[place] = group
                else:
                    table.pop(place, None)
            self._closed = {pair: made for pair, made in self._closed.items() if pair[0] is not old}

    def without(self, owner: str) -> Registry:
        """A copy that lacks what `owner` registered; what it decorated is as it was before."""
        copy = Registry()
        for one in self:
            kept = beneath(one, owner)
            if kept is not None:
                copy.add(kept)
        return copy

    def find(self, interface: Any, key: Hashable = None) -> ServiceRegistration | None:
        """The registration that counts, None if there is none. `G[X]` falls back on an open generic `G`."""
        group = self._by_ident.get(ident(interface, key))
        if group:
            return group[-1]
        origin = get_origin(interface)
        if origin is None:
            return None
        group = self._by_ident.get(ident(origin, key))
        if not group or not getattr(origin, "__parameters__", ()):
            return None
        return self._close(group[-1], interface)

    def find_all(self, interface: Any) -> tuple[ServiceRegistration, ...]:
        """Every registration of an interface under any key, in order of registration."""
        return self._by_interface.get(interface, ())

    def closed_generics(self) -> tuple[ServiceRegistration, ...]:
        """The registrations made from open generics so far."""
        return tuple(self._closed.values())

    def similar(self, interface: Any, key: Hashable = None) -> list[str]:
        """Names of registered services that look like the one asked for; other keys of the same interface first."""
        others = [one.name for one in self.find_all(interface)]
        names = {one.name for group in list(self._by_interface.values()) for one in group}
        wanted = describe(interface, key)
        folded = {name.casefold(): name for name in sorted(names)}
        close = difflib.get_close_matches(wanted.casefold(), folded, n=_SUGGESTIONS_MAX, cutoff=0.6)
        return list(dict.fromkeys([*others, *(folded[name] for name in close)]))[:_SUGGESTIONS_MAX]

    def named(self, name: str) -> list[Any]:
        """The registered interfaces of a simple name: what an annotation means whose text led nowhere else."""
        return [interface for interface in list(self._by_interface) if describe(interface) == name]

    def _close(self, registration: ServiceRegistration, interface: Any) -> ServiceRegistration:
        """The registration of an open generic for one choice of type arguments; each choice has its own instances."""
        with self._lock:
            made = self._closed.get((registration, interface))
            if made is None:
                arguments = _arguments(registration, interface)
                made = replace(
                    registration,
                    interface=interface,
                    learned=Learned(),
                    dependencies=tuple(_closed_dependency(one, arguments) for one in registration.dependencies),
                )
                self._closed[registration, interface] = made
            return made


def _arguments(registration: ServiceRegistration, interface: Any) -> dict[Any, Any]:
    """What the type variables of the interface stand for, and those of the provider that take their place."""
    given = dict(zip(get_origin(interface).__parameters__, get_args(interface), strict=False))
    own = type_arguments(registration.provider) if isinstance(registration.provider, type) else {}
    return {**{own.get(variable, variable): argument for variable, argument in given.items()}, **given}


def _closed_dependency(dependency: Dependency, arguments: dict[Any, Any]) -> Dependency:
    interfaces = tuple(substitute(interface, arguments) for interface in dependency.interfaces)
    return replace(dependency, interfaces=interfaces)
