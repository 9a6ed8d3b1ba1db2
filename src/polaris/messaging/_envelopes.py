"""The structs that describe the whole envelope of one event type, so that one pass of msgspec reads or writes it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, Union

import msgspec
from msgspec import UNSET, UnsetType, inspect

from polaris.domain import (
    AdaptationAction,
    ConfigChangedEvent,
    EventType,
    ExecutionResult,
    MetricValue,
    PolarisEvent,
    SystemState,
    TelemetryBatch,
)
from polaris.domain._states import Id, Timestamp
from polaris.exceptions import ConfigurationError

_OPTIONAL_TEXT = Union[str, None, UnsetType]  # noqa: UP007 # an expression for msgspec, not an annotation
_OPTIONAL_TIME = Union[Timestamp, None, UnsetType]  # noqa: UP007
# They refuse NaN and infinities, or keep them as missing, when they are made.
_CHECKED: frozenset[type[Any]] = frozenset(
    {AdaptationAction, ConfigChangedEvent, ExecutionResult, MetricValue, SystemState, TelemetryBatch}
)


def data_class(event_class: type[PolarisEvent], fields: Sequence[Any]) -> type[Any]:
    members: list[Any] = []
    for field in fields:
        if field.default_factory is not msgspec.NODEFAULT:
            members.append(
                (field.name, field.type, msgspec.field(name=field.encode_name, default_factory=field.default_factory))
            )
        elif field.default is not msgspec.NODEFAULT:
            members.append((field.name, field.type, msgspec.field(name=field.encode_name, default=field.default)))
        else:
            members.append((field.name, field.type, msgspec.field(name=field.encode_name)))
    # Fields with and without defaults may stand in any order, so the struct is made to take them by position anyway.
    required = [member for member in members if _is_required(member)]
    optional = [member for member in members if not _is_required(member)]
    if [*required, *optional] != members:
        raise ConfigurationError(
            f"{event_class.__qualname__}: fields without a default come first", {"class": event_class.__qualname__}
        )
    return msgspec.defstruct(
        f"{event_class.__name__}Data", members, module=event_class.__module__, omit_defaults=True, frozen=True, gc=False
    )


def _is_required(member: Any) -> bool:
    field = member[2]
    return field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT


def outgoing_class(entry: EventType, data: type[Any]) -> type[Any]:
    return msgspec.defstruct(
        f"{entry.event_class.__name__}Outgoing",
        [
            ("id", str),
            ("source", str),
            ("time", datetime),
            ("data", data),
            ("subject", Any, UNSET),
            ("correlationid", Any, UNSET),
            ("traceparent", Any, UNSET),
            ("tracestate", Any, UNSET),
            ("sequence", Any, UNSET),
            ("specversion", str, "1.0"),
            ("dataschema", str, entry.schema_uri),
            ("datacontenttype", str, "application/json"),
        ],
        tag_field="type",
        tag=entry.name,
        gc=False,
    )


def incoming_class(entry: EventType, data: type[Any]) -> type[Any]:
    data_optional = all(not field.required for field in msgspec.structs.fields(data))
    return msgspec.defstruct(
        f"{entry.event_class.__name__}Incoming",
        [
            ("specversion", Literal["1.0"]),
            ("id", Id),
            ("source", Id),
            ("data", data, msgspec.field(default_factory=data)) if data_optional else ("data", data),
            ("time", _OPTIONAL_TIME, UNSET),
            ("dataschema", _OPTIONAL_TEXT, UNSET),
            ("correlationid", _OPTIONAL_TEXT, UNSET),
            ("traceparent", _OPTIONAL_TEXT, UNSET),
            ("tracestate", _OPTIONAL_TEXT, UNSET),
            # Foreign publishers number as they like; a form that is not ours says nothing and harms nothing.
            ("sequence", Any, UNSET),
        ],
        tag_field="type",
        tag=entry.name,
        kw_only=True,
        gc=False,
    )


def holds_floats(event_class: type[PolarisEvent], data: type[Any]) -> bool:
    """Whether the data of the class may hold a float that is not finite, because no check of a type refuses it."""
    return event_class not in _CHECKED and _holds_floats(inspect.type_info(data), set())


def _holds_floats(of: object, seen: set[int]) -> bool:
    if isinstance(of, (inspect.FloatType, inspect.AnyType, inspect.CustomType, inspect.ExtType)):
        return True
    if isinstance(of, inspect.EnumType):
        return any(isinstance(member.value, float) for member in of.cls)
    # Types that refer to themselves come again as the same description.
    if id(of) in seen or getattr(of, "cls", None) in _CHECKED:
        return False
    seen.add(id(of))
    # Whatever a type is made of stands in its fields: other types, or tuples of types and of described fields.
    if not isinstance(of, (inspect.Type, inspect.Field)):
        return False
    for name in of.__struct_fields__:
        inner = getattr(of, name)
        for one in inner if isinstance(inner, tuple) else (inner,):
            if isinstance(one, (inspect.Type, inspect.Field)) and _holds_floats(one, seen):
                return True
    return False
