"""How one event type looks on the wire: its envelope, from an event and back to one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import UNSET

from polaris.clock import utc_now
from polaris.domain import (
    AdaptationEvent,
    EventType,
    ExecutionResultEvent,
    HealthEvent,
    PolarisEvent,
    TelemetryBatch,
    TelemetryEvent,
)
from polaris.messaging._envelopes import data_class, holds_floats, incoming_class, outgoing_class
from polaris.messaging._upcasting import check_version

_ENVELOPE_FIELDS = frozenset(PolarisEvent.__struct_fields__)

_CE_SUBJECT: Mapping[type[PolarisEvent], Callable[[Any], object]] = {
    TelemetryEvent: attrgetter("system_state.system_id"),
    TelemetryBatch: attrgetter("system_id"),
    AdaptationEvent: attrgetter("action.target_system"),
    ExecutionResultEvent: attrgetter("result.action_id"),
    HealthEvent: attrgetter("component"),
}


class DecodedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event and what its envelope says beyond the event's own fields."""

    event: PolarisEvent
    event_type: str
    traceparent: str | None = None
    tracestate: str | None = None
    sequence: object = None
    """As it came: of telemetry from POLARIS its number, see `Numbering`."""


class EventWire:
    """How one event type looks on the wire: built once, used for every event of the type."""

    def __init__(self, entry: EventType) -> None:
        self.entry = entry
        self._name, self._schema_uri = entry.name, entry.schema_uri
        self._make: Any
        event_class = self._make = entry.event_class
        fields = [field for field in msgspec.structs.fields(event_class) if field.name not in _ENVELOPE_FIELDS]
        self._names = tuple(field.name for field in fields)
        self._get = attrgetter(*self._names) if fields else None
        self._single = len(fields) == 1
        self._positional = event_class.__match_args__[: len(fields)] == self._names
        self._get_only = self._get if self._positional and self._single else None
        self.data = data_class(event_class, fields)
        self.holds_floats = holds_floats(event_class, self.data)
        self.outgoing = outgoing_class(entry, self.data)
        self.incoming = incoming_class(entry, self.data)
        self.envelope = self._envelope_maker()
        """The envelope of an event: with it, its correlation id, traceparent, tracestate and number, each if any."""

    def _envelope_maker(self) -> Callable[[Any, str | None, str | None, str | None, str | None], Any]:
        # Variables of a function are found quicker than attributes: this runs for every event that is published.
        outgoing, data, get, body = self.outgoing, self.data, self._get if self._single else None, self._body
        subject_of = _CE_SUBJECT.get(self.entry.event_class, _nobody)

        def envelope(
            event: Any,
            correlation_id: str | None,
            traceparent: str | None,
            tracestate: str | None,
            sequence: str | None,
        ) -> Any:
            return outgoing(
                event.event_id,
                event.source,
                event.timestamp,
                body(event) if get is None else data(get(event)),
                subject_of(event),
                correlation_id or UNSET,
                traceparent or UNSET,
                tracestate or UNSET,
                sequence or UNSET,
            )

        return envelope

    def _body(self, event: PolarisEvent) -> Any:
        """The data of an event, unless they are one field."""
        return self.data() if self._get is None else self.data(*self._get(event))

    def event(self, found: Any, received_at: datetime | None) -> DecodedEvent:
        """The event of a decoded envelope.

        Raises `InvalidValueError` when a value is out of its bounds, `OfOtherVersion` when the data must be upcast.
        """
        if found.dataschema != self._schema_uri and found.dataschema:
            check_version(self.entry, found.dataschema)
        stamp = found.time or received_at or utc_now()
        correlation_id = found.correlationid or None
        make, get_only = self._make, self._get_only
        if get_only is not None:
            event = make(
                get_only(found.data),
                event_id=found.id,
                timestamp=stamp,
                correlation_id=correlation_id,
                source=found.source,
            )
            return DecodedEvent(event, self._name, found.traceparent or None, found.tracestate or None, found.sequence)
        if self._get is None:
            values: tuple[Any, ...] = ()
        else:
            values = (self._get(found.data),) if self._single else self._get(found.data)
        if self._positional:
            event = make(
                *values, event_id=found.id, timestamp=stamp, correlation_id=correlation_id, source=found.source
            )
        else:
            event = make(
                event_id=found.id,
                timestamp=stamp,
                correlation_id=correlation_id,
                source=found.source,
                **dict(zip(self._names, values, strict=True)),
            )
        return DecodedEvent(event, self._name, found.traceparent or None, found.tracestate or None, found.sequence)


def _nobody(_: object) -> msgspec.UnsetType:
    """Whom an event is about that is about nobody in particular."""
    return UNSET
