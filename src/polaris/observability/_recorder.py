"""Where the spans of one program are made and handed to its sinks; OpenTelemetry is loaded with the first of them."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING

from polaris.observability._conventions import AttributeScalar, SpanSpec, attributes_of
from polaris.observability._trace import SAMPLED, RatioSampler, TraceContext, current_trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.trace import Tracer

SpanSink = Callable[["ReadableSpan"], None]
"""Takes a span that has ended, at once and in any thread; keeps no caller waiting and raises nothing."""

SCOPE = "polaris"
WAITING_MAX = 256
"""Spans told of afterwards that wait for OpenTelemetry to be loaded; the oldest go first."""
_NOTHING: AbstractContextManager[None] = nullcontext()


class SpanRecorder:
    """Makes spans where a trace is recorded, and does next to nothing where it is not. Safe from any thread.

    The provider is its own, not the global one of the process, so several recorders live side by side. Resource and
    limits come from the standard variables (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SPAN_...`);
    `OTEL_SDK_DISABLED=true` turns all of it off. Which traces are recorded is decided by whoever begins one: by
    `sampler` as a rule.
    """

    def __init__(self, service: str, ratio: float, sinks: Sequence[SpanSink] = (), *, instance: str = "") -> None:
        self.sampler = RatioSampler(ratio)
        self._service = service
        self._instance = instance
        self._sinks = tuple(sinks)
        self._lock = threading.Lock()
        self._provider: TracerProvider | None = None
        self._tracer: Tracer | None = None
        self._waiting: deque[Callable[[], None]] = deque(maxlen=WAITING_MAX)
        self._loading = False

    def tracer(self) -> Tracer:
        """The tracer; the first call loads OpenTelemetry, a tenth of a second: in a thread where an event loop runs."""
        with self._lock:
            if self._tracer is None:
                self._load()
            assert self._tracer is not None  # noqa: S101 - for the type checker
            tracer = self._tracer
        with suppress(IndexError):
            while True:
                self._waiting.popleft()()
        return tracer

    async def prepare(self) -> None:
        """Load what recording needs without making the event loop wait for it."""
        if self._tracer is None:
            await asyncio.to_thread(self.tracer)

    def _load(self) -> None:
        from polaris.observability import _sdk

        self._provider = _sdk.provider_of(self._service, self._instance, self._sinks)
        self._tracer = self._provider.get_tracer(SCOPE)

    def span(
        self, spec: SpanSpec, parent: TraceContext | None = None, **values: AttributeScalar | None
    ) -> AbstractContextManager[TraceContext | None]:
        """Run the body in a span of its own when the trace, `parent` or else the current one, is recorded.

        Gives the position of the span, None when nothing is recorded. An error of the body passes through and is noted.
        """
        trace = parent if parent is not None else current_trace()
        if trace is None or not trace.flags & SAMPLED or self._tracer is None:
            return _NOTHING
        return self._span(spec, trace, values)

    def root_span(
        self, spec: SpanSpec, **values: AttributeScalar | None
    ) -> AbstractContextManager[TraceContext | None]:
        """Run the body in the first span of a new, recorded trace; `prepare` comes first."""
        return _NOTHING if self._tracer is None else self._span(spec, None, values)

    def _span(
        self, spec: SpanSpec, parent: TraceContext | None, values: dict[str, AttributeScalar | None]
    ) -> AbstractContextManager[TraceContext | None]:
        from polaris.observability import _sdk
        from polaris.observability._tracing import record_span

        assert self._tracer is not None  # noqa: S101 - the callers have looked
        attributes = attributes_of(spec, values)
        return record_span(self._tracer, spec.name, kind=_sdk.KINDS[spec.kind], parent=parent, attributes=attributes)

    def note(self, spec: SpanSpec, *, error: str | None = None, **values: AttributeScalar | None) -> None:
        """Add values to the span that is current, if one is recorded; with `error`, a stable code, it has failed."""
        trace = current_trace()
        if trace is None or not trace.flags & SAMPLED or self._tracer is None:
            return
        from polaris.observability import _sdk

        _sdk.note(attributes_of(spec, values), error)

    def tell(
        self,
        spec: SpanSpec,
        position: TraceContext,
        parent: TraceContext | None,
        *,
        start_ns: int,
        end_ns: int,
        error: BaseException | None = None,
        **values: AttributeScalar | None,
    ) -> None:
        """Record a span at this position after the fact; times are nanoseconds since 1970. Returns at once."""
        attributes = attributes_of(spec, values)

        def hand_over() -> None:
            from polaris.observability import _sdk

            if self._provider is not None:
                span = _sdk.told_span(
                    self._provider, spec, position, parent, attributes, start_ns, max(start_ns, end_ns), error
                )
                for sink in self._sinks:
                    sink(span)

        self._waiting.append(hand_over)
        if self._tracer is not None:
            self.tracer()  # which hands over what waits
        else:
            self.load_soon()

    def load_soon(self) -> None:
        """Load what recording needs in a thread, if that is not done or being done. Returns at once."""
        if self._tracer is None and not self._loading:
            self._loading = True
            threading.Thread(target=self.tracer, name="load OpenTelemetry", daemon=True).start()
