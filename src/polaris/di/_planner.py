"""Compiles a registration into closures that build it: the parameters are looked up once, not at each request.

Singletons that are alive become constants inside the closures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from polaris.di._call import Argument, Call
from polaris.di._plan import Plan
from polaris.di._registration import MISSING, ProviderKind, ServiceLifetime, ServiceRegistration
from polaris.di._slots import getter_of, obtain, obtain_async
from polaris.di._store import Store
from polaris.di._wiring import Filling, Wiring, missing_name
from polaris.exceptions import DependencyResolutionException, ServiceNotRegisteredException


class Planner:
    """Compiles the plans of one wiring."""

    def __init__(self, wiring: Wiring, built_ins: Mapping[Any, Callable[[Store], Any]]) -> None:
        self._wiring = wiring
        self._built_ins = built_ins
        self._plans: dict[ServiceRegistration, Plan] = {}

    def plans_for(self, registration: ServiceRegistration) -> list[Plan]:
        """The plans of everything that the service depends on, dependencies first; the last one is its own.

        Nothing is built. Raises ServiceNotRegisteredException or DependencyResolutionException, with the path drawn,
        for anything missing, cyclic or captive behind it.
        """
        wiring = self._wiring
        known = wiring.plans
        try:
            order = wiring.creation_order(
                registration, until=lambda one: one in known or wiring.held(one) is not MISSING
            )
        except DependencyResolutionException as error:
            raise self._with_route(registration, error) from None
        for one in order:
            plan = known.get(one)
            if plan is None:
                plan = self._compile(registration, one)
                if plan.final:
                    known[one] = plan
            self._plans[one] = plan
        return [self._plans[one] for one in order]

    def _with_route(
        self, registration: ServiceRegistration, error: DependencyResolutionException
    ) -> DependencyResolutionException:
        route = self._wiring.path_to(registration, lambda one: one.name == error.path[0])
        names = [one.name for one in route[:-1]]
        return DependencyResolutionException(error.reason, path=[*names, *error.path])

    def _compile(self, root: ServiceRegistration, registration: ServiceRegistration) -> Plan:
        held = self._wiring.held(registration)
        if held is not MISSING:
            return _constant_plan(registration, held)
        fillings = self._wiring.fillings(registration)
        for filling in fillings:
            if filling.is_missing:
                raise self._missing(root, registration, filling)
        first_gap = _first_gap(fillings)
        arguments = [
            Argument(filling.dependency.name, self._argument(registration, filling), index >= first_gap)
            for index, filling in enumerate(fillings)
            if not filling.omitted
        ]
        call = Call(registration, arguments)
        if registration.lifetime is ServiceLifetime.TRANSIENT:
            return _transient_plan(registration, call)
        if registration.lifetime is ServiceLifetime.SCOPED:
            return _scoped_plan(registration, call)
        captive = next((argument.plan for argument in arguments if argument.plan.is_scoped), None)
        if captive is not None:
            raise captive_scoped(self._wiring, registration)
        return _singleton_plan(registration, call, self._wiring.store_of(registration))

    def _argument(self, registration: ServiceRegistration, filling: Filling) -> Plan:
        if filling.registration is not None:
            return self._plans[filling.registration]
        if filling.gather is not None:
            return _collection_plan(registration, [self._plans[one] for one in filling.members], filling.gather)
        if filling.built_in is not None:
            return self.built_in_plan(registration, filling.built_in)
        return _constant_plan(registration, filling.constant)

    def built_in_plan(self, registration: ServiceRegistration, built_in: Any) -> Plan:
        """The container itself, or the scope that asks."""
        get = self._built_ins[built_in]

        async def get_async(store: Store) -> Any:
            return get(store)

        return Plan(registration, get, get_async, is_scoped=built_in in self._wiring.scoped_built_ins)

    def _missing(
        self, root: ServiceRegistration, registration: ServiceRegistration, filling: Filling
    ) -> ServiceNotRegisteredException:
        path = [one.name for one in self._wiring.path_to(root, lambda one: one is registration)]
        return missing_dependency(self._wiring, path, filling)


def missing_dependency(wiring: Wiring, path: list[str], filling: Filling) -> ServiceNotRegisteredException:
    """The error for a parameter that nothing can fill; `path` ends with the service whose parameter it is."""
    dependency = filling.dependency
    interface = dependency.interfaces[0] if dependency.interfaces else None
    suggestions = wiring.registry.similar(interface, dependency.key) if dependency.interfaces else []
    hint = dependency.problem or f"parameter {dependency.name!r} of {path[-1]}"
    return ServiceNotRegisteredException(missing_name(dependency), path=path, suggestions=suggestions, hint=hint)


def captive_scoped(wiring: Wiring, registration: ServiceRegistration) -> DependencyResolutionException:
    """The error for a singleton that would keep a scoped service beyond its scope."""
    chain = path_to_scoped(wiring, registration)
    names = [one.name for one in chain]
    if chain[-1].lifetime is not ServiceLifetime.SCOPED:
        names.append("Scope")
    reason = f"captive dependency: the singleton {registration.name} would keep {names[-1]} beyond its scope"
    return DependencyResolutionException(reason, path=names)


def path_to_scoped(wiring: Wiring, registration: ServiceRegistration) -> list[ServiceRegistration]:
    """The chain from a singleton, through transients, to what needs a scope; the singleton alone if there is none."""

    def ends_it(one: ServiceRegistration) -> bool:
        return (one is registration or one.lifetime is not ServiceLifetime.SINGLETON) and wiring.needs_scope(one)

    return wiring.path_to(registration, ends_it, through=is_transient)


def is_transient(registration: ServiceRegistration) -> bool:
    """Whether an instance of it lives only as long as what holds it."""
    return registration.lifetime is ServiceLifetime.TRANSIENT


def _first_gap(fillings: tuple[Filling, ...]) -> int:
    """How many leading arguments can be passed by position: up to the first omitted or keyword-only parameter."""
    for index, filling in enumerate(fillings):
        if filling.omitted or filling.dependency.by_name:
            return index
    return len(fillings)


def _constant_plan(registration: ServiceRegistration, value: Any) -> Plan:
    async def get_async(_: Store) -> Any:
        return value

    return Plan(registration, lambda _: value, get_async, constant=value)


def _collection_plan(registration: ServiceRegistration, plans: list[Plan], gather: Callable[[list[Any]], Any]) -> Plan:
    async def get_async(store: Store) -> Any:
        return gather([await plan.awaitable(store) for plan in plans])

    return Plan(
        registration,
        lambda store: gather([plan.sync(store) for plan in plans]),
        get_async,
        final=all(plan.final for plan in plans),
        is_scoped=any(plan.is_scoped for plan in plans),
        is_async=any(plan.is_async for plan in plans),
    )


def _transient_plan(registration: ServiceRegistration, call: Call) -> Plan:
    is_plain = registration.kind in {ProviderKind.CLASS, ProviderKind.FUNCTION}
    pure = call.pure() if is_plain and registration.is_proven and not registration.is_async else None
    return Plan(
        registration,
        call.sync(),
        call.awaitable,
        pure=pure,
        final=call.is_final,
        is_scoped=call.is_scoped,
        is_async=call.is_async,
        chain=call.chain() if pure is not None else (),
    )


def _scoped_plan(registration: ServiceRegistration, call: Call) -> Plan:
    get = getter_of(registration, call.sync(), call.pure() if registration.is_proven else None)

    async def get_async(store: Store) -> Any:
        return await obtain_async(store, registration, call.awaitable)

    return Plan(registration, get, get_async, final=call.is_final, is_scoped=True, is_async=call.is_async)


def _singleton_plan(registration: ServiceRegistration, call: Call, home: Store) -> Plan:
    make = call.sync()

    def get(_: Store) -> Any:
        return obtain(home, registration, make)

    async def get_async(_: Store) -> Any:
        return await obtain_async(home, registration, call.awaitable)

    return Plan(registration, get, get_async, final=False, is_async=call.is_async)
