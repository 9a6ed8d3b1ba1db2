"""One call of a provider with its arguments, compiled into a closure of the cheapest possible form.

An error names the service that raised it; keeping track of that costs next to nothing. A leaf class is called directly,
without any closure.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from polaris.di._arity import call_of, scoped_call_of
from polaris.di._blame import blame
from polaris.di._plan import Chain, Plan
from polaris.di._provide import checked, enter, enter_async, settle_async
from polaris.di._registration import MISSING, ProviderKind, ServiceRegistration
from polaris.di._store import Store
from polaris.exceptions import DependencyResolutionException


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument and how to get its value."""

    name: str
    plan: Plan
    by_name: bool


class Call:
    """A provider, and the plans of its arguments in the order of its parameters."""

    def __init__(self, registration: ServiceRegistration, arguments: list[Argument]) -> None:
        self._registration = registration
        self._arguments = arguments
        self._constant_prefix = self._count_constant_prefix()
        self.is_final = registration.is_proven and all(argument.plan.final for argument in arguments)
        self.is_scoped = any(argument.plan.is_scoped for argument in arguments)
        self.is_async = registration.is_async or any(argument.plan.is_async for argument in arguments)

    def _count_constant_prefix(self) -> int:
        for index, argument in enumerate(self._arguments):
            if argument.by_name or argument.plan.constant is MISSING:
                return index
        return len(self._arguments)

    def _bound(self, function: Callable[..., Any]) -> tuple[Callable[..., Any], list[Argument]]:
        """The function with its leading constants and its constants by name bound; and the arguments still to pass."""
        first = self._constant_prefix
        leading = [argument.plan.constant for argument in self._arguments[:first]]
        named, rest = {}, []
        for argument in self._arguments[first:]:
            if argument.by_name and argument.plan.constant is not MISSING:
                named[argument.name] = argument.plan.constant
            else:
                rest.append(argument)
        return (functools.partial(function, *leading, **named) if leading or named else function), rest

    def _function(self) -> Callable[..., Any]:
        if self._registration.kind is ProviderKind.FUNCTION:
            return checked(self._registration)
        provider: Callable[..., Any] = self._registration.provider
        return provider

    def pure(self) -> Callable[[], Any] | None:
        """The call as a function without parameters.

        None if it owes a teardown, has to be awaited, or an argument depends on a scope or has to be awaited.
        """
        if self._registration.is_async or self._registration.has_teardown:
            return None
        chain = self.chain()
        if chain:
            return _CHAINS.get(len(chain), _chain_many)(chain)
        function, rest = self._bound(self._function())
        getters = [_getter(argument.plan) for argument in rest]
        if None in getters:
            return None
        return call_of(function, cast(list[Callable[[], Any]], getters), _names(rest), self._who(rest))

    def _who(self, arguments: list[Argument]) -> tuple[ServiceRegistration, ...]:
        return (*(argument.plan.registration for argument in arguments), self._registration)

    def chain(self) -> Chain:
        """The call as the last link of a chain, if it passes one argument by position; or as the first, if none."""
        function, rest = self._bound(self._function())
        if not rest:
            return ((function, self._registration),)
        if len(rest) > 1 or rest[0].by_name or rest[0].plan.pure is None:
            return ()
        before = rest[0].plan
        links = before.chain or ((rest[0].plan.pure, before.registration),)
        return (*links, (function, self._registration))

    def sync(self) -> Callable[[Store], Any]:
        """The call as a function of the store of the scope that asks."""
        if self._registration.is_async:
            return functools.partial(_needs_await, self._registration)
        pure = self.pure()
        if pure is not None:
            return _ignoring_store(pure, self._registration)
        function, rest = self._bound(self._function())
        call = scoped_call_of(function, [argument.plan.sync for argument in rest], _names(rest), self._who(rest))
        if self._registration.kind is ProviderKind.GENERATOR:
            return functools.partial(_entered, self._registration, call)
        return call

    async def awaitable(self, store: Store) -> Any:
        """The call, from a task: arguments are awaited one after the other."""
        registration = self._registration
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for argument in self._arguments:
            plan = argument.plan
            value = plan.constant
            if value is MISSING:
                try:
                    value = plan.pure() if plan.pure is not None else await plan.awaitable(store)
                except Exception as error:  # boundary: user code; re-raised with the name of its service
                    blame(error, plan.registration)
            if argument.by_name:
                kwargs[argument.name] = value
            else:
                args.append(value)
        try:
            match registration.kind:
                case ProviderKind.CLASS:
                    return registration.provider(*args, **kwargs)
                case ProviderKind.GENERATOR:
                    return enter(registration, registration.provider(*args, **kwargs), store)
                case ProviderKind.ASYNC_GENERATOR:
                    return await enter_async(registration, registration.provider(*args, **kwargs), store)
                case _:
                    return await settle_async(registration, registration.provider(*args, **kwargs))
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            blame(error, registration)


def _getter(plan: Plan) -> Callable[[], Any] | None:
    """What gives the argument without knowing the scope; None if nothing can."""
    return plan.pure if plan.constant is MISSING else functools.partial(_identity, plan.constant)


def _identity(value: Any) -> Any:
    return value


def _names(arguments: list[Argument]) -> list[str]:
    return [argument.name if argument.by_name else "" for argument in arguments]


def _needs_await(registration: ServiceRegistration, _: Store) -> Any:
    reason = f"{registration.name} is built asynchronously: ask for it with `await aresolve(...)`"
    raise DependencyResolutionException(reason, path=[registration.name])


def _ignoring_store(pure: Callable[[], Any], registration: ServiceRegistration) -> Callable[[Store], Any]:
    def call(_: Store) -> Any:
        try:
            return pure()
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            blame(error, registration)

    return call


def _entered(registration: ServiceRegistration, call: Callable[[Store], Any], store: Store) -> Any:
    generator = call(store)
    try:
        return enter(registration, generator, store)
    except Exception as error:  # boundary: user code; re-raised with the name of its service
        blame(error, registration)


def _chain_2(chain: Chain) -> Callable[[], Any]:
    (function_1, _), (function_2, _) = chain

    def call() -> Any:
        at = 0
        try:
            value = function_1()
            at = 1
            return function_2(value)
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            blame(error, chain[at][1])

    return call


def _chain_3(chain: Chain) -> Callable[[], Any]:
    (function_1, _), (function_2, _), (function_3, _) = chain

    def call() -> Any:
        at = 0
        try:
            value = function_1()
            at = 1
            value = function_2(value)
            at = 2
            return function_3(value)
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            blame(error, chain[at][1])

    return call


def _chain_many(chain: Chain) -> Callable[[], Any]:
    first, *rest = [function for function, _ in chain]

    def call() -> Any:
        at = 0
        try:
            value = first()
            for function in rest:
                at += 1
                value = function(value)
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            blame(error, chain[at][1])
        return value

    return call


_CHAINS: dict[int, Callable[[Chain], Callable[[], Any]]] = {1: lambda chain: chain[0][0], 2: _chain_2, 3: _chain_3}
