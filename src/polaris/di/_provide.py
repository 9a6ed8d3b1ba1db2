"""Gets an instance out of each kind of factory, checks it, and keeps its teardown for the end of the scope."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from polaris.di._conformance import why_not_instance
from polaris.di._registration import ServiceRegistration
from polaris.di._store import Store
from polaris.di._teardown import Finalizer
from polaris.exceptions import DependencyResolutionException


def checked(registration: ServiceRegistration) -> Callable[..., Any]:
    """The factory function, refusing to hand out what is no instance of the interface (None above all)."""
    function = registration.provider
    accepted = registration.learned.products

    def call(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        if type(value) not in accepted:
            verify(registration, value)
            accepted.add(type(value))
        return value

    return call


def verify(registration: ServiceRegistration, value: Any) -> None:
    """Raise DependencyResolutionException if a factory's product is no instance of the interface."""
    reason = why_not_instance(value, registration.interface)
    if not reason:
        return
    if inspect.iscoroutine(value):
        value.close()
        reason = "it returned a coroutine: ask for it with `await aresolve(...)`"
    raise DependencyResolutionException(f"the factory of {registration.name}: {reason}", path=[registration.name])


async def settle_async(registration: ServiceRegistration, product: Any) -> Any:
    """The checked product of a function or coroutine function."""
    if inspect.iscoroutine(product) or (
        inspect.isawaitable(product) and why_not_instance(product, registration.interface)
    ):
        registration.learned.returns_awaitable = True
        product = await product
    verify(registration, product)
    registration.learned.products.add(type(product))
    return product


def enter(registration: ServiceRegistration, generator: Generator[Any, None, None], store: Store) -> Any:
    """The first value of a generator; the rest of it runs when the store is torn down."""
    try:
        value = next(generator)
    except StopIteration:
        raise _did_not_yield(registration) from None
    finalizer = Finalizer(registration, generator)
    refusal = store.push(finalizer)
    if refusal:
        finalizer.run()
        raise _not_kept(registration, refusal)
    verify(registration, value)
    return value


async def enter_async(registration: ServiceRegistration, generator: AsyncGenerator[Any, None], store: Store) -> Any:
    """As `enter`, for an async generator."""
    if store.refuses_async:
        reason = f"{registration.name} has an asynchronous teardown: open its scope with `async with`"
        raise DependencyResolutionException(reason, path=[registration.name])
    try:
        value = await anext(generator)
    except StopAsyncIteration:
        raise _did_not_yield(registration) from None
    finalizer = Finalizer(registration, generator)
    refusal = store.push(finalizer)
    if refusal:
        await finalizer.run_async()
        raise _not_kept(registration, refusal)
    verify(registration, value)
    return value


def _not_kept(registration: ServiceRegistration, refusal: str) -> DependencyResolutionException:
    name = registration.name
    return DependencyResolutionException(f"{name} was torn down again: {refusal}", path=[name])


def _did_not_yield(registration: ServiceRegistration) -> DependencyResolutionException:
    reason = f"the generator factory of {registration.name} ended without a yield"
    return DependencyResolutionException(reason, path=[registration.name])
