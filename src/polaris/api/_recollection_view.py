"""Traces and log records as the API shows them, and what it asks of whoever keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Protocol

import msgspec

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]


class SpanLink(msgspec.Struct, frozen=True):
    """A position in another trace that a span has to do with."""

    trace_id: str
    span_id: str


class SpanView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of a trace. Ids are lower-case hex, as W3C Trace Context has them."""

    span_id: str
    parent_id: str | None = None
    """None, or the id of a span that may have been recorded elsewhere."""
    name: str
    kind: str
    start: Timestamp
    duration_s: float
    status: str = "ok"
    """`ok` or `error`."""
    message: str | None = None
    """Of an error, where it is one of ours."""
    attributes: dict[str, Any] = {}
    links: tuple[SpanLink, ...] = ()
    service: str = ""


class TraceSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a trace is about. Of several nodes of one store each lists what it has recorded of the trace."""

    trace_id: str
    name: str
    """Of the earliest span."""
    start: Timestamp
    duration_s: float
    spans: int
    errors: int
    systems: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    """The ids of the actions in it."""
    correlation_ids: tuple[str, ...] = ()


class TraceView(msgspec.Struct, frozen=True, kw_only=True):
    """A whole trace, as far as this store has it: its spans by their start."""

    trace_id: str
    spans: tuple[SpanView, ...]
    linked: tuple[SpanView, ...] = ()
    """Of other traces that link to this one: of a batch that was handled for several traces at once."""
    spans_left_out: int = 0
    """More than a trace may keep."""


class LogView(msgspec.Struct, frozen=True, kw_only=True):
    """One log record, redacted as it was written. `log_id` orders records by when they were kept."""

    log_id: str
    timestamp: Timestamp
    level: str
    logger: str
    message: str
    correlation_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    fields: dict[str, Any] = {}
    exception: dict[str, Any] | None = None


class TraceKey(msgspec.Struct, frozen=True, array_like=True):
    """The place of a trace in the listing: by its start, then its key, newest first."""

    start_us: int
    key: str


class TraceFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which traces are asked for; what is None does not matter."""

    correlation_id: str | None = None
    system_id: str | None = None
    action_id: str | None = None
    about: str | None = None
    """An id of which is not known what it is of: the trace's own, a correlation or an action."""
    errors_only: bool = False


class LogFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which log records are asked for; what is None does not matter. `level` is the least severe."""

    correlation_id: str | None = None
    trace_id: str | None = None
    about: str | None = None
    """A correlation id or that of a trace."""
    after: str | None = None
    """Only what was kept later than the record with this `log_id`."""
    level: str = "DEBUG"


class Recollections(Protocol):
    """Who keeps the last traces and log records of a node."""

    async def traces(
        self, wanted: TraceFilter, *, limit: int, before: TraceKey | None
    ) -> Sequence[tuple[TraceKey, TraceSummary]]:
        """At most `limit` traces with their keys, newest first, only those before the key if given."""
        ...

    async def trace(self, trace_id: str) -> TraceView | None:
        """One trace, None when it is unknown or too old to be kept."""
        ...

    async def logs(self, wanted: LogFilter, *, limit: int, before: str | None) -> Sequence[LogView]:
        """At most `limit` records, newest first, only those before the `log_id` if given."""
        ...
