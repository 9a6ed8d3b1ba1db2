"""Spans of OpenTelemetry at positions of our own trace context. Imported when the first span is made, not before."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from polaris.exceptions import PolarisException
from polaris.observability._trace import TRACESTATE_CHARS_MAX, TraceContext, trace_scope

ERROR_TYPE = "error.type"
# What `TraceContext.marked` writes where nobody else has written anything.
_MARK_ALONE = re.compile(r"polaris=([0-9a-f]{16})")


def span_context(trace: TraceContext, *, is_remote: bool) -> SpanContext:
    """The position as OpenTelemetry has it."""
    state = _trace_state(trace.tracestate) if trace.tracestate else None
    return SpanContext(int(trace.trace_id, 16), int(trace.span_id, 16), is_remote, TraceFlags(trace.flags), state)


def _trace_state(header: str) -> TraceState:
    mark = _MARK_ALONE.fullmatch(header)
    return TraceState.from_header([header]) if mark is None else TraceState([("polaris", mark[1])])


def trace_context(span: SpanContext) -> TraceContext | None:
    """The position of a span; None where there is none, as when no SDK is set up."""
    if not span.is_valid:
        return None
    state = span.trace_state.to_header() if span.trace_state else ""
    if len(state) > TRACESTATE_CHARS_MAX:
        state = ""
    return TraceContext(f"{span.trace_id:032x}", f"{span.span_id:016x}", span.trace_flags & 0xFF, state)


@contextmanager
def record_span(
    tracer: Tracer,
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: TraceContext | None = None,
    is_remote: bool = False,
    links: Collection[TraceContext] = (),
    attributes: Mapping[str, AttributeValue] | None = None,
) -> Iterator[TraceContext | None]:
    """Run the body in a new span; gives the position of the span, which is current meanwhile, for OpenTelemetry too.

    The span is a child of `parent`, or begins a trace. A span of OpenTelemetry that is current and of the same trace is
    put between the two, unless the parent `is_remote`: what came from elsewhere has nothing to do with what happens to
    be current here.

    An error of the body passes through; the span shows its code or class as `error.type`, and no text of a foreign
    error, which may hold anything. Nothing is recorded, and None given, when no SDK is set up.
    """
    span = tracer.start_span(
        name,
        context=_context_of(parent, is_remote=is_remote),
        kind=kind,
        attributes=attributes,
        links=[Link(span_context(link, is_remote=True)) for link in links] if links else None,
    )
    position = trace_context(span.get_span_context())
    # `use_span`, written out: one generator round the body is enough.
    token = attach(set_span_in_context(span))
    try:
        if position is None:
            yield None
        else:
            with trace_scope(position):
                yield position
    except BaseException as error:  # boundary: whatever it was is noted, and raised again
        span.set_attribute(ERROR_TYPE, error_type(error))
        span.set_status(Status(StatusCode.ERROR, error.message if isinstance(error, PolarisException) else None))
        raise
    finally:
        detach(token)
        span.end()


def error_type(error: BaseException) -> str:
    """The stable code of an error of POLARIS, the full name of any other class."""
    if isinstance(error, PolarisException):
        return error.code
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _context_of(parent: TraceContext | None, *, is_remote: bool) -> Context | None:
    if parent is None:
        return Context()
    if not is_remote and get_current_span().get_span_context().trace_id == int(parent.trace_id, 16):
        return None  # the current one
    return set_span_in_context(NonRecordingSpan(span_context(parent, is_remote=is_remote)), Context())
