"""Makes registrations out of what the user passes, and refuses what can never work."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import replace
from typing import Any

from polaris.di._annotations import meaning_of
from polaris.di._conformance import origin_class, why_not_constructible, why_not_implementation, why_not_instance
from polaris.di._registration import ProviderKind, ServiceLifetime, ServiceRegistration, describe
from polaris.di._signatures import provider_kind, read_dependencies, return_annotation
from polaris.exceptions import DependencyResolutionException, InvalidValueError


def declare_implementation(
    interface: Any,
    implementation: Any,
    lifetime: ServiceLifetime,
    key: Hashable,
    owner: str | None,
    *,
    hosted: bool | None = None,
) -> ServiceRegistration:
    """A class to be built from its constructor's annotations."""
    interface, key = _interface_and_key(interface, key)
    provider = interface if implementation is None else implementation
    cls = origin_class(provider)
    if cls is None:
        hint = "register_factory" if callable(provider) else "register_instance"
        raise InvalidValueError("implementation", f"a class ({hint} takes other things)", provider)
    reason = why_not_constructible(cls) or why_not_implementation(cls, interface)
    if reason:
        raise _refusal(interface, key, reason)
    if hosted and not all(callable(getattr(cls, name, None)) for name in ("start", "stop")):
        raise _refusal(interface, key, f"{cls.__name__} cannot be hosted: it lacks start or stop")
    dependencies = read_dependencies(provider)
    return ServiceRegistration(
        interface, key, lifetime, ProviderKind.CLASS, provider, dependencies, owner=owner, hosted=hosted
    )


def declare_instance(
    interface: Any, instance: Any, key: Hashable, owner: str | None, *, hosted: bool | None = None
) -> ServiceRegistration:
    """An object that is there already."""
    interface, key = _interface_and_key(interface, key)
    reason = why_not_instance(instance, interface)
    if reason:
        raise _refusal(interface, key, reason)
    return ServiceRegistration(
        interface, key, ServiceLifetime.SINGLETON, ProviderKind.INSTANCE, instance, owner=owner, hosted=hosted
    )


def declare_factory(
    interface: Any,
    factory: Any,
    lifetime: ServiceLifetime,
    key: Hashable,
    owner: str | None,
    *,
    hosted: bool | None = None,
) -> ServiceRegistration:
    """A function, async function, generator or async generator that makes the instance."""
    interface, key = _interface_and_key(interface, key)
    if not callable(factory):
        raise InvalidValueError("factory", "a callable (register_instance takes objects)", factory)
    lifetime = _lifetime(lifetime)
    kind = provider_kind(factory)
    if kind is ProviderKind.CLASS:
        return declare_implementation(interface, factory, lifetime, key, owner, hosted=hosted)
    if kind is ProviderKind.FUNCTION:
        _refuse_wrong_return(interface, key, factory)
    dependencies = read_dependencies(factory)
    return ServiceRegistration(interface, key, lifetime, kind, factory, dependencies, owner=owner, hosted=hosted)


def declare_decorator(inner: ServiceRegistration, decorator: Any, owner: str | None) -> ServiceRegistration:
    """A registration that takes the place of `inner` and is given its instance."""
    lifetime = inner.lifetime
    outer = declare_factory(inner.interface, decorator, lifetime, inner.key, owner)
    place = next(
        (index for index, one in enumerate(outer.dependencies) if inner.interface in one.interfaces),
        next((index for index, one in enumerate(outer.dependencies) if one.problem), None),
    )
    if place is None:
        raise _refusal(inner.interface, inner.key, "no parameter of the decorator is annotated with the interface")
    dependencies = list(outer.dependencies)
    dependencies[place] = replace(dependencies[place], target=inner, problem="")
    return replace(outer, dependencies=tuple(dependencies), decorates=inner, sequence=inner.sequence)


def _interface_and_key(interface: Any, key: Hashable) -> tuple[Any, Hashable]:
    """The interface without `Annotated`; refuses what cannot be looked up."""
    meaning = meaning_of(interface)
    if len(meaning.interfaces) == 1 and not meaning.allows_none:
        interface = meaning.interfaces[0]
        key = meaning.key if key is None else key
    if interface is None or isinstance(interface, (str, bytes)):
        raise InvalidValueError("interface", "a type", interface)
    for field, value in (("interface", interface), ("key", key)):
        try:
            hash(value)
        except TypeError as error:
            raise InvalidValueError(field, "something hashable", value, cause=error) from error
    return interface, key


def _lifetime(lifetime: Any) -> ServiceLifetime:
    try:
        return ServiceLifetime(lifetime)
    except ValueError as error:
        raise InvalidValueError("lifetime", "a ServiceLifetime", lifetime, cause=error) from error


def _refuse_wrong_return(interface: Any, key: Hashable, factory: Callable[..., Any]) -> None:
    """A return annotation proves the factory wrong if it is a class unrelated to the interface."""
    returned = origin_class(return_annotation(factory))
    expected = origin_class(interface)
    if returned is None or expected is None or returned in {object, inspect.Parameter.empty}:
        return
    if issubclass(returned, Awaitable):  # a plain function that returns the coroutine of another one
        return
    reason = why_not_implementation(returned, interface)
    if reason and not issubclass(expected, returned):
        raise _refusal(interface, key, f"the factory returns {describe(returned)}, and {reason}")


def _refusal(interface: Any, key: Hashable, reason: str) -> DependencyResolutionException:
    return DependencyResolutionException(f"{describe(interface, key)} cannot be registered so: {reason}")
