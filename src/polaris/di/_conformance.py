"""Says why a class or an object cannot stand in for an interface; an empty answer means that it can."""

from __future__ import annotations

import inspect
from typing import Any, get_origin

_NOT_MEMBERS = frozenset(
    {
        "__abstractmethods__", "__annotate__", "__annotate_func__", "__annotations__", "__annotations_cache__",
        "__callable_proto_members_only__", "__class_getitem__", "__conditional_annotations__", "__dict__", "__doc__",
        "__firstlineno__", "__init__", "__init_subclass__", "__match_args__", "__module__", "__new__",
        "__non_callable_proto_members__", "__orig_bases__", "__parameters__", "__protocol_attrs__", "__slots__",
        "__static_attributes__", "__subclasshook__", "__type_params__", "__weakref__", "_abc_impl", "_is_protocol",
        "_is_runtime_protocol",
    }
)  # fmt: skip


def origin_class(form: Any) -> type | None:
    """The class behind an interface: `Repository` for `Repository[User]`; None for forms that are no class."""
    origin = get_origin(form) or form
    # Any is a class since Python 3.11, but not one that anything could be checked against.
    return origin if isinstance(origin, type) and origin is not Any else None


def is_protocol(cls: type) -> bool:
    """Whether `cls` is itself a Protocol, not a class that implements one."""
    return bool(getattr(cls, "_is_protocol", False))


def why_not_constructible(cls: type) -> str:
    """Why no instance of `cls` can be made."""
    if is_protocol(cls):
        return f"{cls.__name__} is a Protocol"
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        return f"{cls.__name__} is abstract (it lacks {missing})"
    return ""


def why_not_implementation(cls: type, interface: Any) -> str:
    """Why instances of `cls` cannot stand in for `interface`.

    A class needs to be a subclass, registered ABC subclasses included. A Protocol needs its methods, as something
    callable; its plain attributes may be set in a constructor, so their absence on the class proves nothing.
    """
    expected = origin_class(interface)
    if expected is None:
        return ""
    if not is_protocol(expected):
        return "" if issubclass(cls, expected) else f"{cls.__name__} is not a subclass of {expected.__name__}"
    if expected in cls.__mro__:
        return ""
    lacking = sorted(name for name in _protocol_methods(expected) if not callable(getattr(cls, name, None)))
    return f"{cls.__name__} lacks {', '.join(lacking)} of the Protocol {expected.__name__}" if lacking else ""


def why_not_instance(value: object, interface: Any) -> str:
    """Why `value` cannot stand in for `interface`."""
    expected = origin_class(interface)
    if expected is None:
        return ""
    if not is_protocol(expected):
        return "" if isinstance(value, expected) else f"{_kind_of(value)} is no instance of {expected.__name__}"
    if expected in type(value).__mro__:
        return ""
    methods = (name for name in _protocol_methods(expected) if not callable(getattr(value, name, None)))
    attributes = (name for name in _protocol_attributes(expected) if not hasattr(value, name))
    lacking = sorted({*methods, *attributes})
    return f"{_kind_of(value)} lacks {', '.join(lacking)} of the Protocol {expected.__name__}" if lacking else ""


def _kind_of(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"an object of type {type(value).__name__}"


def _protocol_parts(protocol: type) -> list[type]:
    return [part for part in protocol.__mro__ if is_protocol(part) and part.__module__ != "typing"]


def _protocol_methods(protocol: type) -> set[str]:
    return {
        name
        for part in _protocol_parts(protocol)
        for name, member in vars(part).items()
        if name not in _NOT_MEMBERS and callable(member)
    }


def _protocol_attributes(protocol: type) -> set[str]:
    names: set[str] = set()
    for part in _protocol_parts(protocol):
        names.update(vars(part).get("__annotations__", {}))
        names.update(name for name in vars(part) if name not in _NOT_MEMBERS)
    return names - _protocol_methods(protocol)
