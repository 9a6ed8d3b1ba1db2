"""JSON Schema (2020-12) of every event type and version, made from the types that decode them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from polaris.domain._events import CORRELATION_CHARS_MAX, PolarisEvent
from polaris.domain._registry import EVENTS, EventRegistry, EventType
from polaris.domain._states import Id, MetricValue, Quality
from polaris.domain._versions import SCHEMA_PREFIX
from polaris.exceptions import ConfigurationError

DIALECT = "https://json-schema.org/draft/2020-12/schema"
CLOUDEVENT = "cloudevent"
"""The anchor of the whole event in the schema of its data: `<$id>#cloudevent`."""

_ENVELOPE_FIELDS = frozenset(PolarisEvent.__struct_fields__)
_REFERENCE = "#/$defs/{name}"
# What fields of a struct owe each other, which their types cannot tell.
_RULES: Mapping[type[Any], Mapping[str, Any]] = {
    MetricValue: {
        "if": {"properties": {"quality": {"const": Quality.MISSING.value}}, "required": ["quality"]},
        "then": {"properties": {"value": {"type": "null"}}},
    },
}
_PYTHON_WORDS = {"None": "null", "True": "true", "False": "false"}


class EventVersion(NamedTuple):
    """One version of the data of one event type."""

    name: str
    version: int
    data_type: Any
    """The event class of a current version; of an older one what `EventRegistry.upcast` was told."""

    @property
    def uri(self) -> str:
        """Its `dataschema` on the wire, and the `$id` of its schema."""
        return f"{SCHEMA_PREFIX}{self.name}:{self.version}"


def event_versions(registry: EventRegistry = EVENTS) -> Iterator[EventVersion]:
    """Every version that has a schema, type by type, the oldest first.

    Older versions have one when their `data_type` is known. A type that JSON cannot carry has none.
    """
    for entry in registry:
        for step in registry.older_versions(entry.name):
            if step.data_type is not None and step.version < entry.version:
                yield EventVersion(entry.name, step.version, step.data_type)
        current = _current(entry)
        try:
            components([current], _REFERENCE)
        except ConfigurationError:
            continue
        yield current


def event_schema(event: EventType | EventVersion) -> dict[str, Any]:
    """The schema of one version of one event type.

    Its `$id` is the `dataschema` of the event on the wire, and its root describes the `data`, as CloudEvents has it.
    The anchor `cloudevent` describes the whole event in structured mode: validate a message against
    `<$id>#cloudevent`. Raises `ConfigurationError` when JSON cannot carry the type.
    """
    version = _current(event) if isinstance(event, EventType) else event
    (data,), parts = components([version], _REFERENCE)
    optional = not data.get("required")
    whole = {"$anchor": CLOUDEVENT, **cloudevent(version, {"$ref": "#"}, data_optional=optional)}
    # No class can have this name, so nothing is hidden by it.
    return {"$schema": DIALECT, "$id": version.uri, **data, "$defs": {**parts, "cloudevents.structured": whole}}


def event_schemas(registry: EventRegistry = EVENTS) -> dict[str, dict[str, Any]]:
    """The schemas of every type and version that has one, by `$id`."""
    return {version.uri: event_schema(version) for version in event_versions(registry)}


def components(versions: Sequence[EventVersion], reference: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The schemas of the versions' data, and the parts that they refer to by `reference`, which holds `{name}`.

    Raises `ConfigurationError` when JSON cannot carry one of the types.
    """
    types = [version.data_type for version in versions]
    try:
        made = msgspec.json.schema_components([*types, *_RULES], ref_template=reference)
        # Defaults come as they are; there and back makes plain JSON of them.
        found, parts = msgspec.json.decode(msgspec.json.encode(made))
    except (TypeError, NameError, AttributeError, ValueError) as error:
        names = ", ".join(version.name for version in versions)
        raise ConfigurationError(f"no JSON Schema can be made for {names}: {error}") from error
    for rule, ruled in zip(_RULES.values(), found[len(types) :], strict=True):
        parts[_name_in(ruled, reference)] |= rule
    roots = [
        _root(version, schema, parts, reference) for version, schema in zip(versions, found[: len(types)], strict=True)
    ]
    parts = {name: _told(part) for name, part in parts.items()}
    return roots, _reachable(roots, parts, reference)


def cloudevent(version: EventVersion, data: Mapping[str, Any], *, data_optional: bool) -> dict[str, Any]:
    """The schema of a whole event in structured JSON mode (CloudEvents 1.0.2, JSON format 3), around that of its data.

    An attribute that is not set may be left out or null; attributes that are not named here are allowed.
    """
    identity = msgspec.json.schema(Id)
    text = {"type": ["string", "null"]}
    return {
        "title": f"{version.name} as CloudEvent",
        "type": "object",
        "properties": {
            "specversion": {"const": "1.0"},
            "type": {"const": version.name},
            "id": {**identity, "description": "Unique for ever: the key of deduplication."},
            "source": {**identity, "format": "uri-reference", "description": "Who made the event."},
            "time": {**text, "format": "date-time", "description": "With its offset from UTC."},
            "subject": {**text, "description": "The system, component or action that the event is about."},
            "datacontenttype": {**text, "examples": ["application/json"]},
            "dataschema": {**text, "format": "uri", "examples": [version.uri]},
            "correlationid": {
                **text,
                "maxLength": CORRELATION_CHARS_MAX,
                "description": "Ties the events of one causal chain together.",
            },
            "traceparent": {**text, "description": "W3C Trace Context 3.2."},
            "tracestate": {**text, "description": "W3C Trace Context 3.3."},
            "sequence": {
                **text,
                "description": "Orders the events of a publisher on a topic; POLARIS numbers telemetry.",
            },
            "data": dict(data),
        },
        "required": ["specversion", "type", "id", "source", *(() if data_optional else ("data",))],
    }


def _current(entry: EventType) -> EventVersion:
    return EventVersion(entry.name, entry.version, entry.event_class)


def _root(version: EventVersion, schema: dict[str, Any], parts: Mapping[str, Any], reference: str) -> dict[str, Any]:
    """The schema of the data, spelled out: of an event class without the envelope's fields."""
    root = dict(parts[_name_in(schema, reference)]) if "$ref" in schema else dict(schema)
    data_type = version.data_type
    if isinstance(data_type, type) and issubclass(data_type, PolarisEvent):
        fields = msgspec.structs.fields(data_type)
        envelope = {field.encode_name for field in fields if field.name in _ENVELOPE_FIELDS}
        root["properties"] = {name: of for name, of in root["properties"].items() if name not in envelope}
        root["required"] = [name for name in root["required"] if name not in envelope]
    return _told({**root, "title": version.name})


def _told(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with what its class says of itself cut down to the first paragraph, in the words of JSON."""
    words = schema.get("description")
    if words is None:
        return dict(schema)
    first = " ".join(re.split(r"\n\s*\n", words.strip())[0].split())
    return {**schema, "description": re.sub(r"\b(None|True|False)\b", lambda found: _PYTHON_WORDS[found[0]], first)}


def _name_in(schema: Mapping[str, Any], reference: str) -> str:
    head, _, tail = reference.partition("{name}")
    name: str = schema["$ref"]
    return name.removeprefix(head).removesuffix(tail)


def _reachable(roots: Sequence[Mapping[str, Any]], parts: Mapping[str, Any], reference: str) -> dict[str, Any]:
    """Those parts that the roots refer to, directly or through others, in the order of `parts`."""
    wanted: set[str] = set()
    waiting: list[Any] = list(roots)
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            if isinstance(node.get("$ref"), str) and (name := _name_in(node, reference)) not in wanted:
                wanted.add(name)
                waiting.append(parts[name])
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
    return {name: part for name, part in parts.items() if name in wanted}
