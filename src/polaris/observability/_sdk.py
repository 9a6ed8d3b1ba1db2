"""The parts of OpenTelemetry's SDK that a recorder needs. Imported when the first span is made, not before."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_NAMESPACE, Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind, Status, StatusCode, get_current_span

from polaris.exceptions import PolarisException
from polaris.observability._conventions import AttributeScalar, SpanKindName, SpanSpec
from polaris.observability._trace import TraceContext
from polaris.observability._tracing import ERROR_TYPE, error_type, span_context

if TYPE_CHECKING:
    from polaris.observability._recorder import SpanSink

KINDS: Mapping[SpanKindName, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
_SCOPE = InstrumentationScope("polaris")


class Fan(SpanProcessor):
    """Hands every span that has ended to every sink."""

    def __init__(self, sinks: Sequence[SpanSink]) -> None:
        self._sinks = tuple(sinks)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing: a span is told of when it has ended."""

    def on_end(self, span: ReadableSpan) -> None:
        for sink in self._sinks:
            sink(span)

    def shutdown(self) -> None:
        """Nothing: the sinks belong to whoever gave them."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


def provider_of(service: str, instance: str, sinks: Sequence[SpanSink]) -> TracerProvider:
    """A provider that records whatever is begun; that something is, is decided before."""
    own: dict[str, str] = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: service}
    if instance:
        own |= {SERVICE_INSTANCE_ID: instance, SERVICE_NAMESPACE: "polaris"}
    provider = TracerProvider(sampler=ALWAYS_ON, resource=Resource.create(own), shutdown_on_exit=False)
    provider.add_span_processor(Fan(sinks))
    return provider


def note(attributes: Mapping[str, AttributeScalar], error: str | None) -> None:
    """Add to the current span what became known while it ran."""
    span = get_current_span()
    span.set_attributes(attributes)
    if error is not None:
        span.set_attribute(ERROR_TYPE, error)
        span.set_status(Status(StatusCode.ERROR))


def told_span(
    provider: TracerProvider,
    spec: SpanSpec,
    position: TraceContext,
    parent: TraceContext | None,
    attributes: Mapping[str, AttributeScalar],
    start_ns: int,
    end_ns: int,
    error: BaseException | None,
) -> ReadableSpan:
    """A span as if it had been recorded while it happened."""
    status = Status(StatusCode.UNSET)
    if error is not None:
        attributes = {**attributes, ERROR_TYPE: error_type(error)}
        status = Status(StatusCode.ERROR, error.message if isinstance(error, PolarisException) else None)
    return ReadableSpan(
        name=spec.name,
        context=span_context(position, is_remote=False),
        parent=None if parent is None else span_context(parent, is_remote=True),
        resource=provider.resource,
        attributes=attributes,
        kind=KINDS[spec.kind],
        status=status,
        start_time=start_ns,
        end_time=end_ns,
        instrumentation_scope=_SCOPE,
    )
