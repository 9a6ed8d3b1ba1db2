"""One call of a provider with its arguments, compiled into a closure of the cheapest possible form.

The closures keep count of how far they came, so that an error names the service that raised it; the count costs nothing
measurable, and a leaf class is called directly, without any closure.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from polaris.di._plan import Chain, Plan
from polaris.di._provide import checked, enter, enter_async, settle_async
from polaris.di._registration import MISSING, ProviderKind, ServiceRegistration
from polaris.di._store import Store
from polaris.exceptions import DependencyInjectionError, DependencyResolutionException


class ProviderFailedError(Exception):
    """Carries the registration whose provider raised up to `resolve`, which draws the path; never seen outside."""

    def __init__(self, registration: ServiceRegistration) -> None:
        super().__init__(registration.name)
        self.registration = registration


def blame(error: Exception, registration: ServiceRegistration) -> NoReturn:
    """Raise `error` on, marked with the service that it came from unless it is marked already."""
    if isinstance(error, (ProviderFailedError, DependencyInjectionError)):
        raise error
    raise ProviderFailedError(registration) from error


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
        """The call as a function without parameters; None if an argument depends on a scope or has to be awaited."""
        chain = self.chain()
        if chain:
            return _CHAINS.get(len(chain), _chain_many)(chain)
        function, rest = self._bound(self._function())
        getters: list[Callable[[], Any]] = []
        for argument in rest:
            constant = argument.plan.constant
            get = argument.plan.pure if constant is MISSING else functools.partial(_identity, constant)
            if get is None:
                return None
            getters.append(get)
        who = (*(argument.plan.registration for argument in rest), self._registration)
        if any(argument.by_name for argument in rest):
            return _pure_named(function, getters, [argument.name if argument.by_name else "" for argument in rest], who)
        return _PURE.get(len(getters), _pure_many)(function, getters, who)

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
        kind = self._registration.kind
        if self._registration.is_async:
            return functools.partial(_needs_await, self._registration)
        pure = self.pure() if kind in {ProviderKind.CLASS, ProviderKind.FUNCTION} else None
        if pure is not None:
            return _ignoring_store(pure, self._registration)
        function, rest = self._bound(self._function())
        getters = [argument.plan.sync for argument in rest]
        names = [argument.name if argument.by_name else "" for argument in rest]
        who = (*(argument.plan.registration for argument in rest), self._registration)
        if any(names):
            call = _sync_named(function, getters, names, who)
        else:
            call = _SYNC.get(len(getters), _sync_many)(function, getters, who)
        if kind is ProviderKind.GENERATOR:
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


def _identity(value: Any) -> Any:
    return value


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


_Who = tuple[ServiceRegistration, ...]
_Function = Callable[..., Any]
_Pures = list[Callable[[], Any]]
_Syncs = list[Callable[[Store], Any]]


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


def _pure_2(function: _Function, getters: _Pures, who: _Who) -> Callable[[], Any]:
    get_1, get_2 = getters

    def call() -> Any:
        at = 0
        try:
            first = get_1()
            at = 1
            second = get_2()
            at = 2
            return function(first, second)
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            blame(error, who[at])

    return call


def _pure_3(function: _Function, getters: _Pures, who: _Who) -> Callable[[], Any]:
    get_1, get_2, get_3 = getters

    def call() -> Any:
        at = 0
        try:
            first = get_1()
            at = 1
            second = get_2()
            at = 2
            third = get_3()
            at = 3
            return function(first, second, third)
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            blame(error, who[at])

    return call


def _pure_many(function: _Function, getters: _Pures, who: _Who) -> Callable[[], Any]:
    def call() -> Any:
        args: list[Any] = []
        try:
            for get in getters:
                args.append(get())  # noqa: PERF401 - the length of the list tells who raised
            return function(*args)
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            blame(error, who[len(args)])

    return call


def _pure_named(function: _Function, getters: _Pures, names: list[str], who: _Who) -> Callable[[], Any]:
    def call() -> Any:
        args: list[Any] = []
        try:
            for get in getters:
                args.append(get())  # noqa: PERF401 - the length of the list tells who raised
            return function(*_positional(args, names), **_named(args, names))
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            blame(error, who[len(args)])

    return call


def _sync_1(function: _Function, getters: _Syncs, who: _Who) -> Callable[[Store], Any]:
    (get_1,) = getters

    def call(store: Store) -> Any:
        at = 0
        try:
            first = get_1(store)
            at = 1
            return function(first)
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            blame(error, who[at])

    return call


def _sync_2(function: _Function, getters: _Syncs, who: _Who) -> Callable[[Store], Any]:
    get_1, get_2 = getters

    def call(store: Store) -> Any:
        at = 0
        try:
            first = get_1(store)
            at = 1
            second = get_2(store)
            at = 2
            return function(first, second)
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            blame(error, who[at])

    return call


def _sync_many(function: _Function, getters: _Syncs, who: _Who) -> Callable[[Store], Any]:
    def call(store: Store) -> Any:
        args: list[Any] = []
        try:
            for get in getters:
                args.append(get(store))  # noqa: PERF401 - the length of the list tells who raised
            return function(*args)
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            blame(error, who[len(args)])

    return call


def _sync_named(function: _Function, getters: _Syncs, names: list[str], who: _Who) -> Callable[[Store], Any]:
    def call(store: Store) -> Any:
        args: list[Any] = []
        try:
            for get in getters:
                args.append(get(store))  # noqa: PERF401 - the length of the list tells who raised
            return function(*_positional(args, names), **_named(args, names))
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            blame(error, who[len(args)])

    return call


def _positional(values: list[Any], names: list[str]) -> list[Any]:
    return [value for value, name in zip(values, names, strict=True) if not name]


def _named(values: list[Any], names: list[str]) -> dict[str, Any]:
    return {name: value for value, name in zip(values, names, strict=True) if name}


_PURE: dict[int, Callable[[_Function, _Pures, _Who], Callable[[], Any]]] = {
    2: _pure_2, 3: _pure_3,
}  # fmt: skip
_CHAINS: dict[int, Callable[[Chain], Callable[[], Any]]] = {1: lambda chain: chain[0][0], 2: _chain_2, 3: _chain_3}
_SYNC: dict[int, Callable[[_Function, _Syncs, _Who], Callable[[Store], Any]]] = {1: _sync_1, 2: _sync_2}
