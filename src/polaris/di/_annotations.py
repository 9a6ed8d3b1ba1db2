"""Turns annotations, also those written as strings, into types."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from polaris.di._registration import Key, Unresolved


class _Annotated:
    """Carries one annotation to `typing.get_type_hints`, the one place that may evaluate its text."""

    def __init__(self, annotation: object) -> None:
        self.__annotations__ = {"it": annotation}


def read_annotation(annotation: object, namespaces: list[Mapping[str, Any]]) -> Any:
    """The type an annotation stands for, names being looked up in each namespace in turn; `Unresolved` if in none."""
    if annotation is inspect.Parameter.empty:
        return annotation
    if not isinstance(annotation, (str, typing.ForwardRef)) and not _has_text(annotation):
        return annotation
    for namespace in namespaces:
        try:
            hints = typing.get_type_hints(
                _Annotated(annotation), globalns=dict(namespace), localns=None, include_extras=True
            )
        except (NameError, AttributeError, SyntaxError, TypeError):
            continue
        return hints["it"]
    return Unresolved(annotation if isinstance(annotation, str) else str(annotation))


def _has_text(annotation: object) -> bool:
    return any(
        isinstance(argument, (str, typing.ForwardRef)) or _has_text(argument) for argument in get_args(annotation)
    )


def namespaces_of(provider: object, function: object) -> list[Mapping[str, Any]]:
    """Where the names in the annotations of `function` may be defined, most likely first.

    Its module, the modules of the classes it may be inherited from (a dataclass inherits fields from other modules),
    and last the frame that registers it, so that classes defined inside a function are found too.
    """
    globals_of_function = getattr(inspect.unwrap(typing.cast(Callable[..., Any], function)), "__globals__", {})
    found: list[Mapping[str, Any]] = [globals_of_function]
    for owner in getattr(provider, "__mro__", ()):
        module = sys.modules.get(owner.__module__)
        if module is not None and vars(module) is not globals_of_function and owner is not object:
            found.append(vars(module))
    found.append({**globals_of_function, **_locals_of_caller()})
    return found


def _locals_of_caller() -> Mapping[str, Any]:
    """The local names of the first frame outside this package."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("polaris.di."):
        frame = frame.f_back
    return {} if frame is None else frame.f_locals


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an annotation asks for: one of these interfaces under this key, or None where that is allowed."""

    interfaces: tuple[Any, ...]
    key: Hashable = None
    allows_none: bool = False


def meaning_of(annotation: Any) -> Meaning:
    """Take an annotation apart: `Annotated[..., Key(k)]`, unions, `None`."""
    if get_origin(annotation) is Annotated:
        inner = meaning_of(annotation.__origin__)
        keys = [extra.value for extra in annotation.__metadata__ if isinstance(extra, Key)]
        return Meaning(inner.interfaces, keys[-1] if keys else inner.key, inner.allows_none)
    if get_origin(annotation) in {Union, types.UnionType}:
        members = [meaning_of(member) for member in get_args(annotation)]
        interfaces = tuple(interface for member in members for interface in member.interfaces)
        keys = [member.key for member in members if member.key is not None]
        return Meaning(interfaces, keys[-1] if keys else None, any(member.allows_none for member in members))
    if isinstance(annotation, Unresolved) and "|" in annotation.text and "[" not in annotation.text:
        names = [name.strip() for name in annotation.text.split("|")]
        return Meaning(tuple(Unresolved(name) for name in names if name != "None"), allows_none="None" in names)
    if annotation is None or annotation is type(None):
        return Meaning((), allows_none=True)
    return Meaning((annotation,))


def type_arguments(form: Any) -> dict[Any, Any]:
    """What each type variable of a class and of its generic ancestors stands for in `form`."""
    found: dict[Any, Any] = {}
    _collect_arguments(form, found)
    return found


def _collect_arguments(form: Any, found: dict[Any, Any]) -> None:
    origin = get_origin(form) or form
    parameters = getattr(origin, "__parameters__", ())
    found.update(zip(parameters, get_args(form), strict=False))
    for ancestor in getattr(origin, "__orig_bases__", ()):
        if get_origin(ancestor) not in {None, typing.Generic, typing.Protocol}:
            inner: dict[Any, Any] = {}
            _collect_arguments(ancestor, inner)
            for variable, argument in inner.items():
                found.setdefault(variable, substitute(argument, found))


def substitute(annotation: Any, arguments: Mapping[Any, Any]) -> Any:
    """The annotation with its type variables replaced by what they stand for."""
    if isinstance(annotation, TypeVar):
        return arguments.get(annotation, annotation)
    parameters = getattr(annotation, "__parameters__", ())
    if not parameters or isinstance(annotation, type):
        return annotation
    return annotation[tuple(arguments.get(parameter, parameter) for parameter in parameters)]
