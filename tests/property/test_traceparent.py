"""The reader of `traceparent` against OpenTelemetry's, on well-formed, nearly well-formed and arbitrary headers."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from polaris.observability import TraceContext, parse_traceparent, start_trace

HEX = "0123456789abcdef"
PROPAGATOR = TraceContextTextMapPropagator()


def digits(length: int) -> st.SearchStrategy[str]:
    return st.one_of(st.text(HEX, min_size=length, max_size=length), st.just("0" * length), st.just("f" * length))


WELL_FORMED = st.builds(
    lambda *parts: "-".join(parts[:4]) + parts[4],
    st.one_of(st.just("00"), digits(2)),
    digits(32),
    digits(16),
    digits(2),
    st.sampled_from(["", "-", "-more", "-a-b", ".x"]),
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A well-formed header with one place changed, left out or put in."""
    header: str = draw(WELL_FORMED)
    place: int = draw(st.integers(0, len(header)))
    replacement: str = draw(st.text(st.sampled_from([*HEX, "A", "G", "-", "_", "é", "٣", "\x00"]), max_size=2))
    dropped: int = draw(st.integers(0, 1))
    return header[:place] + replacement + header[place + dropped :]


def of_opentelemetry(header: str) -> tuple[str, str, bool] | None:
    span = get_current_span(PROPAGATOR.extract({"traceparent": header})).get_span_context()
    if not span.is_valid:
        return None
    return f"{span.trace_id:032x}", f"{span.span_id:016x}", bool(span.trace_flags & 1)


def of_polaris(header: str) -> tuple[str, str, bool] | None:
    context = parse_traceparent(header)
    return None if context is None else (context.trace_id, context.span_id, context.sampled)


@settings(max_examples=600)
@given(st.one_of(WELL_FORMED, damaged(), st.text(max_size=80).map(str.strip)))
@example("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
@example("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more")
def test_both_readers_agree(header: str) -> None:
    assert of_polaris(header) == of_opentelemetry(header)


@given(st.text(max_size=120))
def test_any_text_is_read_without_an_error_and_into_a_valid_context(header: str) -> None:
    context = parse_traceparent(header)
    if context is not None:
        assert parse_traceparent(context.traceparent) == context


@given(st.booleans())
def test_what_we_send_is_read_by_both(sampled: bool) -> None:
    context = start_trace(sampled=sampled).child()
    assert parse_traceparent(context.traceparent) == context
    assert of_opentelemetry(context.traceparent) == (context.trace_id, context.span_id, sampled)


@given(digits(32), digits(16), st.integers(0, 3), st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_a_context_comes_back_from_its_header(trace_id: str, span_id: str, flags: int, tracestate: str) -> None:
    context = TraceContext(trace_id, span_id, flags, tracestate[:512])
    if int(trace_id, 16) and int(span_id, 16):
        assert parse_traceparent(context.traceparent, context.tracestate) == context
