"""Reads what a provider needs, once, when it is registered."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_origin

from polaris.di._annotations import Meaning, meaning_of, namespaces_of, read_annotation, substitute, type_arguments
from polaris.di._registration import MISSING, Dependency, ProviderKind
from polaris.exceptions import DependencyResolutionException

_VARIADIC = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def provider_kind(provider: Any) -> ProviderKind:
    """How `provider` must be called; looks through `functools.partial` and callable objects."""
    if isinstance(get_origin(provider) or provider, type):
        return ProviderKind.CLASS
    function = provider
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    if inspect.isasyncgenfunction(function):
        return ProviderKind.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(function):
        return ProviderKind.GENERATOR
    if inspect.iscoroutinefunction(function):
        return ProviderKind.COROUTINE
    return ProviderKind.FUNCTION


def constructor_of(cls: type) -> Any:
    """The function that takes a class's arguments, None when it takes none."""
    for name in ("__init__", "__new__"):
        found = getattr(cls, name)
        if found is not getattr(object, name):
            return found
    return None


def read_dependencies(provider: Any) -> tuple[Dependency, ...]:
    """The parameters of a class or function in their order.

    `*args` and `**kwargs` are left empty. A parameter without annotation can be filled by its default only.
    Raises DependencyResolutionException if the signature cannot be read at all (some classes written in C).
    """
    target = get_origin(provider) or provider
    function = _function_of(target)
    if function is None:
        return ()
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError) as error:
        name = getattr(target, "__qualname__", repr(target))
        message = f"the parameters of {name} cannot be read: register a factory that calls it"
        raise DependencyResolutionException(message, cause=error) from error
    namespaces: list[Any] = []
    arguments = type_arguments(provider) if isinstance(target, type) else {}
    found = []
    for parameter in signature.parameters.values():
        if parameter.kind in _VARIADIC:
            continue
        if not namespaces:
            namespaces = namespaces_of(target, function)
        annotation = substitute(read_annotation(parameter.annotation, namespaces), arguments)
        found.append(_dependency(parameter, annotation))
    return tuple(found)


def return_annotation(provider: Any) -> Any:
    """The type that a factory is annotated to return, `inspect.Parameter.empty` if unknown."""
    function = _function_of(provider)
    annotation = getattr(inspect.unwrap(function), "__annotations__", {}).get("return", inspect.Parameter.empty)
    return read_annotation(annotation, namespaces_of(provider, function))


def _function_of(target: Any) -> Any:
    if isinstance(target, type):
        return constructor_of(target)
    function: Any = target
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) else _bound_call(function)


def _bound_call(target: Callable[..., Any]) -> Any:
    return type(target).__call__


def _dependency(parameter: inspect.Parameter, annotation: Any) -> Dependency:
    has_default = parameter.default is not inspect.Parameter.empty
    by_name = parameter.kind is inspect.Parameter.KEYWORD_ONLY
    problem = ""
    if annotation is inspect.Parameter.empty:
        problem = "" if has_default else f"parameter {parameter.name!r} has no annotation"
        meaning = Meaning(())
    else:
        meaning = meaning_of(annotation)
    return Dependency(
        parameter.name,
        meaning.interfaces,
        key=meaning.key,
        allows_none=meaning.allows_none,
        has_default=has_default,
        default=parameter.default if has_default and parameter.kind is inspect.Parameter.POSITIONAL_ONLY else MISSING,
        by_name=by_name,
        problem=problem,
    )
