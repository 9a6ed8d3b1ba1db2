"""What spans are called and which attributes they have: one table, after OpenTelemetry's semantic conventions.

Keys that OpenTelemetry knows are its own (messaging, database, error); the rest begin with `polaris.`. The spans of
messages are made by `TracingMiddleware`; of the others each is one row here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from polaris._redaction import redact_text

SpanKindName = Literal["internal", "client", "producer", "consumer"]
AttributeScalar = str | int | float | bool

TEXT_CHARS_MAX = 256
"""Of a text in an attribute."""

ATTRIBUTES: Mapping[str, str] = {
    "system_id": "polaris.system.id",
    "connector": "polaris.connector",
    "action_id": "polaris.action.id",
    "action_type": "polaris.action.type",
    "status": "polaris.action.status",
    "attempt": "polaris.action.attempt",
    "event_id": "messaging.message.id",
    "topic": "messaging.destination.name",
    "correlation_id": "messaging.message.conversation_id",
    "source": "polaris.source",
    "engine": "db.system.name",
    "operation": "db.operation.name",
    "collection": "db.collection.name",
    "rows": "db.operation.batch.size",
    "derived": "polaris.span.derived",
}
"""What a value is called in code, and the key of its attribute."""


@dataclass(frozen=True, slots=True)
class SpanSpec:
    """One kind of span: its name, which is the same whatever it is about, its kind, and the values it may have."""

    name: str
    kind: SpanKindName
    values: tuple[str, ...]


_CAUSE = ("system_id", "correlation_id", "derived")
COLLECT = SpanSpec("collect telemetry", "internal", (*_CAUSE, "connector", "event_id"))
DECIDE = SpanSpec("decide", "internal", (*_CAUSE, "action_id", "action_type", "source"))
EXECUTE = SpanSpec("execute action", "internal", ("system_id", "action_id", "action_type", "status", "correlation_id"))
ATTEMPT = SpanSpec("attempt action", "client", ("system_id", "action_id", "action_type", "attempt"))
STORE_WRITE = SpanSpec("store write", "client", ("engine", "operation", "collection", "rows"))
HANDLING_FAILED = SpanSpec("process failed", "consumer", ("topic", "event_id", "correlation_id"))
PUBLISH_FAILED = SpanSpec("publish failed", "producer", ("topic", "event_id", "correlation_id"))

SPANS: tuple[SpanSpec, ...] = tuple(value for value in list(globals().values()) if isinstance(value, SpanSpec))
"""All of the above."""


def attributes_of(spec: SpanSpec, values: Mapping[str, AttributeScalar | None]) -> dict[str, AttributeScalar]:
    """The attributes of a span, those that have a value; texts are redacted and bounded. KeyError for a strange one."""
    attributes: dict[str, AttributeScalar] = {}
    for name, value in values.items():
        if name not in spec.values:
            raise KeyError(name)
        if value is not None:
            attributes[ATTRIBUTES[name]] = redact_text(value, chars_max=TEXT_CHARS_MAX) if type(value) is str else value
    return attributes
