"""Spans of a recorder: made where a trace is recorded, told afterwards where it was not, named by one table."""

from __future__ import annotations

import asyncio
import threading

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.semconv._incubating.attributes import db_attributes, error_attributes, messaging_attributes

from polaris.exceptions import ConnectorError
from polaris.observability import SpanRecorder, TraceContext, current_trace, start_trace, trace_of, trace_scope
from polaris.observability import _conventions as conventions
from polaris.observability._conventions import ATTRIBUTES, SPANS, attributes_of

KNOWN = {
    value
    for module in (db_attributes, error_attributes, messaging_attributes)
    for value in vars(module).values()
    if isinstance(value, str)
}


def recorder_of(spans: list[ReadableSpan]) -> SpanRecorder:
    recorder = SpanRecorder("test", 1.0, [spans.append])
    recorder.tracer()
    return recorder


def test_every_key_is_one_of_opentelemetry_or_our_own() -> None:
    assert {key for key in ATTRIBUTES.values() if not key.startswith("polaris.")} <= KNOWN
    assert {value for spec in SPANS for value in spec.values} <= set(ATTRIBUTES)
    assert len({spec.name for spec in SPANS}) == len(SPANS)


def test_attributes_are_redacted_bounded_and_only_those_of_the_table() -> None:
    found = attributes_of(
        conventions.DECIDE, {"source": "nats://u:s3cret@host", "action_id": "x" * 999, "system_id": None}
    )
    assert "s3cret" not in str(found)
    assert len(str(found["polaris.action.id"])) <= conventions.TEXT_CHARS_MAX
    assert "polaris.system.id" not in found
    with pytest.raises(KeyError, match="colour"):
        attributes_of(conventions.DECIDE, {"colour": "red"})


def test_nothing_is_made_outside_a_recorded_trace() -> None:
    spans: list[ReadableSpan] = []
    recorder = recorder_of(spans)
    with recorder.span(conventions.STORE_WRITE, rows=1) as position:
        assert position is None
    with trace_scope(start_trace(sampled=False)), recorder.span(conventions.STORE_WRITE, rows=1) as position:
        assert position is None
    assert spans == []


def test_a_span_within_a_recorded_trace_is_its_child_and_notes_what_became_known() -> None:
    spans: list[ReadableSpan] = []
    recorder = recorder_of(spans)
    with recorder.root_span(conventions.COLLECT, system_id="web") as root:
        assert current_trace() == root
        with recorder.span(conventions.EXECUTE, action_id="a"):
            recorder.note(conventions.EXECUTE, error="polaris.action.failed", status="failed")
    inner, outer = spans
    assert inner.parent is not None
    assert outer.context is not None
    assert inner.parent.span_id == outer.context.span_id
    assert dict(inner.attributes or {}) == {
        "polaris.action.id": "a",
        "polaris.action.status": "failed",
        "error.type": "polaris.action.failed",
    }
    assert inner.status.status_code.name == "ERROR"


def test_a_span_told_afterwards_has_the_position_and_times_it_was_told_with() -> None:
    spans: list[ReadableSpan] = []
    recorder = recorder_of(spans)
    position = trace_of("0190b6a8-1111-7222-8333-444455556666")
    recorder.tell(
        conventions.COLLECT, position, None, start_ns=5, end_ns=9, error=ConnectorError("gone"), system_id="w"
    )
    (span,) = spans
    assert span.context is not None
    assert (f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}") == (position.trace_id, position.span_id)
    assert (span.start_time, span.end_time, span.parent) == (5, 9, None)
    assert (span.status.description, (span.attributes or {})["error.type"]) == ("gone", ConnectorError.code)


def test_what_is_told_before_the_library_is_loaded_is_not_lost() -> None:
    arrived = threading.Event()
    recorder = SpanRecorder("test", 0.0, [lambda span: arrived.set()])
    recorder.tell(conventions.COLLECT, trace_of("x"), None, start_ns=1, end_ns=2)
    assert arrived.wait(30)


async def test_preparing_does_not_hold_up_the_event_loop() -> None:
    recorder = SpanRecorder("test", 1.0)
    await asyncio.wait_for(recorder.prepare(), 30)
    with recorder.root_span(conventions.COLLECT) as position:
        assert position is not None


@pytest.mark.parametrize(
    ("event_id", "trace_id"),
    [
        ("0190b6a8-1111-7222-8333-444455556666", "0190b6a8111172228333444455556666"),
        ("0190B6A8111172228333444455556666", "0190b6a8111172228333444455556666"),
    ],
)
def test_the_trace_of_an_event_has_the_digits_of_its_uuid(event_id: str, trace_id: str) -> None:
    assert trace_of(event_id) == TraceContext(trace_id, trace_id[16:], 1)


@pytest.mark.parametrize("event_id", ["", "x", "0" * 32, "1" * 16 + "0" * 16, "\ud800", "z" * 256])
def test_any_other_event_has_a_valid_trace_of_its_own(event_id: str) -> None:
    found = trace_of(event_id)
    assert found == trace_of(event_id) != trace_of(event_id + "x")
    assert int(found.trace_id, 16)
    assert int(found.span_id, 16)
    assert (len(found.trace_id), len(found.span_id), found.sampled) == (32, 16, True)


def test_a_position_says_whether_its_span_is_recorded() -> None:
    plain = TraceContext("1" * 32, "2" * 16, 1, "vendor=a")
    assert plain.recorded_span_id is None
    marked = plain.marked()
    assert marked.tracestate == f"polaris={'2' * 16},vendor=a"
    assert marked.recorded_span_id == marked.span_id
    child = marked.child()
    assert child.recorded_span_id == marked.span_id != child.span_id, "handed on, and nothing recorded"
    assert child.marked().recorded_span_id == child.span_id
    crowded = TraceContext("1" * 32, "2" * 16, 1, ",".join(f"k{number}=v" for number in range(32)))
    assert crowded.marked().tracestate.count(",") == 31


@pytest.mark.parametrize(
    ("tracestate", "recorded"),
    [
        (f"xpolaris=garbage,polaris={'2' * 16}", "2" * 16),
        (f"v=1 , polaris={'2' * 16} ,w=2", "2" * 16),
        ("polaris=garbage", None),
        (f"polaris={'0' * 16}", None),
        (f"polaris={'2' * 17}", None),
        (f"xpolaris={'2' * 16}", None),
        ("polaris=", None),
    ],
)
def test_only_a_well_formed_note_of_its_own_is_believed(tracestate: str, recorded: str | None) -> None:
    assert TraceContext("1" * 32, "3" * 16, 1, tracestate).recorded_span_id == recorded
