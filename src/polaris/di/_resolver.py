"""Answers `resolve` for a container or a scope: compiles what is asked for the first time, and explains failures."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from polaris.di._annotations import meaning_of
from polaris.di._blame import ProviderFailedError
from polaris.di._plan import Plan
from polaris.di._planner import Planner
from polaris.di._registration import MISSING, ServiceLifetime, ServiceRegistration, describe
from polaris.di._registry import ident
from polaris.di._store import Store
from polaris.di._wiring import Wiring
from polaris.exceptions import (
    DependencyInjectionError,
    DependencyResolutionException,
    InvalidValueError,
    PolarisException,
    ServiceNotRegisteredException,
)

BuiltIns = Mapping[Any, Callable[[Store], Any]]


def find_required(wiring: Wiring, interface: Any, key: Hashable) -> ServiceRegistration:
    """The registration that counts; raises ServiceNotRegisteredException with near names if there is none."""
    try:
        registration = wiring.find(interface, key)
        if registration is None:
            meaning = meaning_of(interface)
            if len(meaning.interfaces) == 1:
                registration = wiring.find(meaning.interfaces[0], key if meaning.key is None else meaning.key)
    except TypeError as error:
        raise InvalidValueError("interface", "a type and a hashable key", interface, cause=error) from error
    if registration is not None:
        return registration
    suggestions = wiring.registry.similar(interface, key)
    raise ServiceNotRegisteredException(describe(interface, key), suggestions=suggestions)


def resolve(wiring: Wiring, built_ins: BuiltIns, store: Store, interface: Any, key: Hashable) -> Any:
    """Find, compile and build, and remember the compiled form."""
    if interface in wiring.built_ins and wiring.find(interface, key) is None:
        return built_ins[interface](store)
    registration = find_required(wiring, interface, key)
    value, plan = resolve_registration(wiring, built_ins, store, registration)
    _remember(wiring, ident(interface, key), plan, value)
    return value


async def resolve_async(wiring: Wiring, built_ins: BuiltIns, store: Store, interface: Any, key: Hashable) -> Any:
    """As `resolve`, awaiting what is built asynchronously."""
    if interface in wiring.built_ins and wiring.find(interface, key) is None:
        return built_ins[interface](store)
    registration = find_required(wiring, interface, key)
    value, plan = await resolve_registration_async(wiring, built_ins, store, registration)
    _remember(wiring, ident(interface, key), plan, value)
    return value


def resolve_registration(
    wiring: Wiring, built_ins: BuiltIns, store: Store, registration: ServiceRegistration
) -> tuple[Any, Plan]:
    """The instance of one registration and the plan that gave it."""
    plans = Planner(wiring, built_ins).plans_for(registration)
    plan = plans[-1]
    _refuse_out_of_scope(wiring, store, plan)
    try:
        # Singletons first, dependencies before dependents: a chain of any length then needs no deep recursion.
        for one in plans:
            if _is_pending_singleton(one) and one is not plan:
                one.sync(store)
        return (plan.sync(store) if plan.constant is MISSING else plan.constant), plan
    except Exception as error:  # boundary: user code; it comes out typed, with the path drawn
        raise explained(wiring, registration, error) from cause_of(error)


async def resolve_registration_async(
    wiring: Wiring, built_ins: BuiltIns, store: Store, registration: ServiceRegistration
) -> tuple[Any, Plan]:
    """As `resolve_registration`, awaiting what is built asynchronously."""
    plans = Planner(wiring, built_ins).plans_for(registration)
    plan = plans[-1]
    _refuse_out_of_scope(wiring, store, plan)
    try:
        for one in plans:
            if _is_pending_singleton(one) and one is not plan:
                await one.awaitable(store)
        return (await plan.awaitable(store) if plan.constant is MISSING else plan.constant), plan
    except Exception as error:  # boundary: user code; it comes out typed, with the path drawn
        raise explained(wiring, registration, error) from cause_of(error)


def resolve_all(wiring: Wiring, built_ins: BuiltIns, store: Store, interface: Any) -> list[Any]:
    """One instance of every registration of the interface."""
    return [resolve_registration(wiring, built_ins, store, one)[0] for one in wiring.find_all(interface)]


async def resolve_all_async(wiring: Wiring, built_ins: BuiltIns, store: Store, interface: Any) -> list[Any]:
    """As `resolve_all`, awaiting what is built asynchronously."""
    return [(await resolve_registration_async(wiring, built_ins, store, one))[0] for one in wiring.find_all(interface)]


def _is_pending_singleton(plan: Plan) -> bool:
    return plan.constant is MISSING and plan.registration.lifetime is ServiceLifetime.SINGLETON


def _remember(wiring: Wiring, place: Any, plan: Plan, value: Any) -> None:
    if plan.registration.lifetime is ServiceLifetime.SINGLETON:
        wiring.live[place] = value
        wiring.instant[place] = lambda _: value
    elif plan.final:
        if plan.pure is not None:
            wiring.live[place] = MISSING
            wiring.pure[place] = plan.pure
        if not plan.is_async:
            wiring.instant[place] = plan.sync


def _refuse_out_of_scope(wiring: Wiring, store: Store, plan: Plan) -> None:
    if plan.is_scoped and store.is_root:
        names = [one.name for one in wiring.path_to(plan.registration, wiring.needs_scope)]
        reason = f"{names[-1]} needs a scope: open one with `container.scope()` and ask that"
        raise DependencyResolutionException(reason, path=names)


def cause_of(error: Exception) -> BaseException | None:
    """The user's own error behind one that `resolve` is about to raise."""
    return error.__cause__ if isinstance(error, (ProviderFailedError, DependencyInjectionError)) else error


def explained_to(wiring: Wiring, interface: Any, key: Hashable, error: Exception) -> PolarisException:
    """As `explained`, for whoever asked for an interface and key."""
    try:
        asked = find_required(wiring, interface, key)
    except (InvalidValueError, ServiceNotRegisteredException) as refusal:  # unhashable, or unregistered meanwhile
        return refusal
    return explained(wiring, asked, error)


def explained(wiring: Wiring, asked: ServiceRegistration, error: Exception) -> DependencyInjectionError:
    """The error to raise for whatever came out of a build; one of the container's own stays as it is."""
    if isinstance(error, DependencyInjectionError):
        return error
    failed = error.registration if isinstance(error, ProviderFailedError) else asked
    cause = cause_of(error)
    chain = wiring.path_to(asked, lambda one: one is failed)
    reason = f"{failed.name} could not be built: {type(cause).__name__}: {cause}"
    return DependencyResolutionException(reason, path=[one.name for one in chain], cause=cause)
