"""Spans as they are kept: what one node has recorded of one trace, as one document."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from polaris.api._recollection_view import SpanLink, SpanView, TraceSummary
from polaris.observability._conventions import ATTRIBUTES

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

SPANS_MAX = 200
NAMES_MAX = 16
"""Systems, actions and correlation ids by which a trace is found, each."""
LINKS_MAX = 128
LINKED_MAX = 512
"""Traces that the spans link to."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SYSTEM, _ACTION = ATTRIBUTES["system_id"], ATTRIBUTES["action_id"]
_CORRELATION = ATTRIBUTES["correlation_id"]


def span_of(span: ReadableSpan) -> SpanView:
    """A span of OpenTelemetry as it is kept."""
    context = span.get_span_context()
    assert context is not None  # noqa: S101 - a span that has ended has a position
    began_ns = span.start_time or 0
    return SpanView(
        span_id=f"{context.span_id:016x}",
        parent_id=None if span.parent is None else f"{span.parent.span_id:016x}",
        name=span.name,
        kind=span.kind.name.lower(),
        start=_EPOCH + timedelta(microseconds=began_ns // 1_000),
        duration_s=((span.end_time or began_ns) - began_ns) / 1e9,
        status="error" if span.status.status_code.name == "ERROR" else "ok",
        message=span.status.description,
        attributes={key: list(value) if isinstance(value, tuple) else value for key, value in _attributes(span)},
        links=tuple(
            SpanLink(f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") for link in span.links[:LINKS_MAX]
        ),
        service=str(span.resource.attributes.get("service.name", "")),
    )


def _attributes(span: ReadableSpan) -> list[tuple[str, Any]]:
    return list((span.attributes or {}).items())


class Fragment:
    """What one node has recorded of one trace: at most 200 spans, the later ones are left out and counted."""

    __slots__ = ("left_out", "spans", "trace_id")

    def __init__(self, trace_id: str, spans: tuple[SpanView, ...] = (), left_out: int = 0) -> None:
        self.trace_id = trace_id
        self.spans = spans
        self.left_out = left_out

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Fragment:
        """The fragment in a document of the store."""
        return cls(
            document["trace_id"],
            msgspec.json.decode(document["spans"], type=tuple[SpanView, ...]),
            document["left_out"],
        )

    def copy(self) -> Fragment:
        """One that can grow without this one."""
        return Fragment(self.trace_id, self.spans, self.left_out)

    def add(self, span: SpanView) -> bool:
        """Take a span in, in place of one with its id; False when there is no room."""
        others = tuple(other for other in self.spans if other.span_id != span.span_id)
        if len(others) >= SPANS_MAX:
            self.left_out += 1
            return False
        self.spans = (*others, span)
        return True

    def document(self) -> dict[str, Any]:
        """What the store keeps; the plain keys beside the spans are for finding and ordering."""
        summary = self.summary()
        return {
            "trace_id": self.trace_id,
            "start_us": (summary.start - _EPOCH) // _MICROSECOND,
            "errors": summary.errors,
            "systems": list(summary.systems),
            "actions": list(summary.actions),
            "correlation_ids": list(summary.correlation_ids),
            "linked": list(dict.fromkeys(link.trace_id for span in self.spans for link in span.links))[:LINKED_MAX],
            "left_out": self.left_out,
            "spans": msgspec.json.encode(self.spans).decode(),
        }

    def summary(self) -> TraceSummary:
        """What the trace is about."""
        first = min(self.spans, key=lambda span: span.start)
        end = max(span.start + timedelta(seconds=span.duration_s) for span in self.spans)
        return TraceSummary(
            trace_id=self.trace_id,
            name=first.name,
            start=first.start,
            duration_s=(end - first.start).total_seconds(),
            spans=len(self.spans) + self.left_out,
            errors=sum(span.status == "error" for span in self.spans),
            systems=self._named(_SYSTEM),
            actions=self._named(_ACTION),
            correlation_ids=self._named(_CORRELATION),
        )

    def _named(self, key: str) -> tuple[str, ...]:
        found = dict.fromkeys(str(span.attributes[key]) for span in self.spans if key in span.attributes)
        return tuple(found)[:NAMES_MAX]
