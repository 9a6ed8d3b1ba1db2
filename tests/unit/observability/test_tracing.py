"""Spans at positions of our own trace context."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    NoOpTracer,
    SpanContext,
    SpanKind,
    StatusCode,
    Tracer,
    TraceState,
    get_current_span,
)

from polaris.exceptions import ConflictError
from polaris.observability import TraceContext, current_trace, record_span, span_context, start_trace, trace_context

POSITION = TraceContext("1" * 32, "2" * 16, 3, "vendor=a,other=b")


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Tracer:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test")


def test_a_position_comes_back_from_a_span_context() -> None:
    there = span_context(POSITION, is_remote=True)
    assert there.is_valid
    assert there.is_remote
    assert (f"{there.trace_id:032x}", f"{there.span_id:016x}") == (POSITION.trace_id, POSITION.span_id)
    assert trace_context(there) == POSITION
    plain = start_trace(sampled=False)
    assert trace_context(span_context(plain, is_remote=False)) == plain


def test_no_span_is_no_position_and_vendor_state_beyond_the_bound_is_dropped() -> None:
    assert trace_context(INVALID_SPAN_CONTEXT) is None
    long = TraceState([(f"k{number}", "v" * 200) for number in range(5)])
    there = SpanContext(1, 2, is_remote=False, trace_state=long)
    assert trace_context(there) == TraceContext(f"{1:032x}", f"{2:016x}")


def test_a_span_begins_a_trace_and_is_current_for_both_while_it_runs(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    with record_span(tracer, "store", kind=SpanKind.CLIENT, attributes={"db.system.name": "sqlite"}) as position:
        assert current_trace() == position
        assert position == trace_context(get_current_span().get_span_context())
    assert current_trace() is None
    assert not get_current_span().get_span_context().is_valid
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.kind, span.parent) == ("store", SpanKind.CLIENT, None)
    assert span.attributes == {"db.system.name": "sqlite"}
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("is_remote", [True, False])
def test_a_span_is_a_child_of_its_parent_and_carries_vendor_state(
    tracer: Tracer, exporter: InMemorySpanExporter, is_remote: bool
) -> None:
    with record_span(tracer, "s", parent=POSITION, is_remote=is_remote, links=[start_trace(sampled=True)]) as position:
        assert position is not None
        assert position.trace_id == POSITION.trace_id
        assert position.tracestate == POSITION.tracestate
    (span,) = exporter.get_finished_spans()
    assert span.parent is not None
    assert trace_context(span.parent) == POSITION
    assert span.parent.is_remote is is_remote
    assert len(span.links) == 1


def test_the_current_span_of_the_same_trace_stands_between_but_not_of_another(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    with record_span(tracer, "outer") as outer:
        with tracer.start_as_current_span("between") as between:
            with record_span(tracer, "inner", parent=outer):
                pass
            with record_span(tracer, "remote", parent=outer, is_remote=True):
                pass
            with record_span(tracer, "other", parent=POSITION):
                pass
            with record_span(tracer, "root"):
                pass
        assert current_trace() == outer
    spans = {span.name: span for span in exporter.get_finished_spans()}
    parents = {name: None if span.parent is None else trace_context(span.parent) for name, span in spans.items()}
    assert parents["inner"] == trace_context(between.get_span_context())
    assert parents["remote"] == outer
    assert parents["other"] == POSITION
    assert parents["root"] is None


@pytest.mark.parametrize(
    ("error", "kind", "description"),
    [
        (ConflictError("version 2"), "polaris.store.conflict", "version 2"),
        (KeyError("secret"), "KeyError", None),
        (KeyboardInterrupt(), "KeyboardInterrupt", None),
    ],
)
def test_an_error_passes_through_and_is_noted_without_foreign_text(
    tracer: Tracer, exporter: InMemorySpanExporter, error: BaseException, kind: str, description: str | None
) -> None:
    with pytest.raises(type(error)) as caught, record_span(tracer, "s"):
        raise error
    assert caught.value is error
    (span,) = exporter.get_finished_spans()
    assert (span.attributes or {})["error.type"] == kind
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, description)
    assert span.events == ()
    assert current_trace() is None


def test_without_an_sdk_there_is_no_position_or_that_of_the_parent() -> None:
    with record_span(NoOpTracer(), "s") as position:
        assert position is None
        assert current_trace() is None
    with record_span(NoOpTracer(), "s", parent=POSITION) as position:
        assert position == POSITION
