"""Handlers: async functions or objects, and what their annotations say about the events they want."""

from __future__ import annotations

import contextlib
import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from polaris.domain import EVENTS, EventRegistry, PolarisEvent
from polaris.exceptions import SubscriptionError


@runtime_checkable
class EventHandler(Protocol):
    """An object that handles events. It may also have `can_handle(event) -> bool`: what it declines is passed over."""

    async def handle(self, event: Any) -> Any:
        """Handle one event; returning settles it, raising hands it back or puts it aside."""
        ...


HandlerFunction: TypeAlias = Callable[[Any], Awaitable[Any]] | Callable[[Any, Any], Awaitable[Any]]
Handler: TypeAlias = EventHandler | HandlerFunction
EventTypes: TypeAlias = type[PolarisEvent] | Sequence[type[PolarisEvent]]


class BoundHandler(NamedTuple):
    """A handler, ready to be called."""

    name: str
    call: Callable[..., Any]
    types: tuple[type[PolarisEvent], ...]
    takes_batch: bool
    can_handle: Callable[[Any], bool] | None
    takes_context: bool = False
    """It is called with the event or events and the `MessageContext`."""


def bind_handler(handler: Handler, event_type: EventTypes | None, registry: EventRegistry = EVENTS) -> BoundHandler:
    """Find out how to call a handler and which events it takes.

    The events are those of `event_type`, else those of the annotation of the first parameter: an event class, a union
    of them, or a `list` or `Sequence` of them (a batch handler). Without an annotation, all events. Annotations may be
    strings; a name that cannot be resolved where the handler was defined is looked up among the registered classes.
    A second parameter without a default is given the `MessageContext`: topic, attempt, headers and more.

    Raises `SubscriptionError` when it is no handler or wants something that is no event.
    """
    method = getattr(handler, "handle", None)
    call = method if callable(method) else handler
    name = _name_of(handler)
    if not callable(call):
        raise SubscriptionError(f"{name} is no handler: neither callable nor with a handle(event) method")
    target = call if inspect.isroutine(call) else getattr(call, "func", None) or type(call).__call__
    if inspect.isfunction(target) and not inspect.iscoroutinefunction(target) and target.__name__ != "<lambda>":
        returns = target.__annotations__.get("return")
        if returns is None or "Awaitable" not in str(returns):
            raise SubscriptionError(f"{name} is not async: a handler must not block the event loop")
    annotated, takes_batch = _annotated_types(call, name, registry)
    wanted = annotated if event_type is None else _classes(event_type, name)
    can_handle = getattr(handler, "can_handle", None) if call is not handler else None
    return BoundHandler(name, call, wanted, takes_batch, can_handle, _takes_context(call))


def _name_of(handler: object) -> str:
    inner = getattr(handler, "func", handler)
    named = inner if hasattr(inner, "__qualname__") else type(inner)
    return f"{named.__module__}.{named.__qualname__}"


def _takes_context(call: Any) -> bool:
    try:
        parameters = list(inspect.signature(call).parameters.values())
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    second = parameters[1:2]
    return any(one.kind in positional and one.default is inspect.Parameter.empty for one in second)


def _annotated_types(call: Any, name: str, registry: EventRegistry) -> tuple[tuple[type[PolarisEvent], ...], bool]:
    try:
        parameters = list(inspect.signature(call).parameters.values())
    except (TypeError, ValueError):
        return (PolarisEvent,), False
    if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise SubscriptionError(f"{name} takes no event")
    annotation = parameters[0].annotation
    if annotation is inspect.Parameter.empty:
        return (PolarisEvent,), False
    if isinstance(annotation, str):
        annotation = _resolve(annotation, call, name, registry)
    origin = typing.get_origin(annotation)
    if origin in (list, Sequence):
        (inner,) = typing.get_args(annotation)
        if isinstance(inner, typing.ForwardRef):
            inner = inner.__forward_arg__
        if isinstance(inner, str):
            inner = _resolve(inner, call, name, registry)
        return _classes(_members(inner), name), True
    return _classes(_members(annotation), name), False


def _resolve(text: str, call: Any, name: str, registry: EventRegistry) -> Any:
    function = inspect.unwrap(getattr(call, "func", call))
    if not inspect.isroutine(function):
        function = type(function).__call__
    function = getattr(function, "__func__", function)
    names = {entry.event_class.__name__: entry.event_class for entry in registry}
    names["PolarisEvent"] = PolarisEvent
    known = {**names, **getattr(function, "__globals__", {})}
    holder = types.SimpleNamespace(__annotations__={"event": text})
    try:
        return typing.get_type_hints(holder, {**typing.__dict__, **known}, _closure(function))["event"]
    except (NameError, SyntaxError, TypeError, AttributeError) as error:
        raise SubscriptionError(
            f"{name}: cannot resolve the annotation {text!r}; give event_type=... instead", {"annotation": text}
        ) from error


def _closure(function: Any) -> dict[str, Any]:
    """The names that a function takes from those around it; not those that are bound only later."""
    cells = (
        dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        if inspect.isfunction(function)
        else {}
    )
    found = {}
    for name, cell in cells.items():
        with contextlib.suppress(ValueError):  # the cell is empty
            found[name] = cell.cell_contents
    return found


def _members(annotation: Any) -> Sequence[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (PolarisEvent if annotation is Any or annotation is object else annotation,)


def _classes(wanted: Any, name: str) -> tuple[type[PolarisEvent], ...]:
    classes = (wanted,) if isinstance(wanted, type) else tuple(wanted)
    for one in classes:
        if not isinstance(one, type) or not issubclass(one, PolarisEvent):
            raise SubscriptionError(f"{name} wants {one!r}, which is no event", {"handler": name})
    if not classes:
        raise SubscriptionError(f"{name} wants no events at all", {"handler": name})
    return classes
