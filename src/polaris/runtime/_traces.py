"""One closed loop, one trace: what connects the sample, the decision, the action and its result.

A sample of which no trace was recorded carries none, so it costs nothing. Its trace is recorded after all when it has
led to an action: its ids follow from the id of its event (`trace_of`), so the spans of what happened before can be told
afterwards. The correlation id, which controllers in any language hand on, says which sample it was.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from polaris.domain import AdaptationEvent, ExecutionResultEvent, TelemetryEvent
from polaris.messaging import MessageDirection
from polaris.observability import SpanRecorder, TraceContext, current_trace, trace_of
from polaris.observability import _conventions as conventions
from polaris.observability._trace import new_span_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from polaris.domain import PolarisEvent
    from polaris.messaging import MessageContext

CAUSES_MAX = 10_000
ENDS_MAX = 1_000
LOAD_AFTER_S = 0.5
ERRORS_PER_S = 10
"""Failures of unrecorded traces that are recorded in a second: an outage must not push everything else out."""
_SAMPLED = 1


@dataclass(slots=True)
class Cause:
    """A sample that may lead to an action. `position` is where its trace stands when that is recorded already."""

    event_id: str
    system_id: str
    sampled_ns: int
    noted_ns: int
    position: TraceContext | None = None


class Traces:
    """Knows where the trace of a sample or an action goes on: of the last 10 000 samples and 1 000 actions."""

    def __init__(self, recorder: SpanRecorder | None = None, *, on_dropped: Callable[[], None] = lambda: None) -> None:
        self.enabled = recorder is not None
        self.recorder = recorder or SpanRecorder("polaris", 0.0)
        self._causes: OrderedDict[str, Cause] = OrderedDict()
        self._told: dict[str, None] = {}
        self._ends: OrderedDict[str, TraceContext] = OrderedDict()
        self._errors_in = (0, 0)
        self._on_dropped = on_dropped
        self._loading: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Have what recording needs loaded soon, in a thread, so that no action waits for it; not during the start."""
        if self.enabled:
            self._loading = asyncio.get_running_loop().call_later(LOAD_AFTER_S, self.recorder.load_soon)

    async def stop(self) -> None:
        """Load nothing any more."""
        if self._loading is not None:
            self._loading.cancel()

    def note_sample(self, event: PolarisEvent, position: TraceContext | None = None) -> None:
        """Remember a sample that is about to be published or stored; the first note of a sample stays."""
        if not self.enabled or not isinstance(event, TelemetryEvent) or event.correlation_id is None:
            return
        if event.correlation_id in self._causes:
            return
        state = event.system_state
        self._causes[event.correlation_id] = Cause(
            event.event_id, state.system_id, nanoseconds(state.timestamp), nanoseconds(event.timestamp), position
        )
        while len(self._causes) > CAUSES_MAX:
            self._causes.popitem(last=False)

    def note_end(self, action_id: str) -> None:
        """Remember where the trace of an action stands now, for the announcement of its result."""
        position = current_trace()
        if position is not None and position.sampled:
            self._ends[action_id] = position
            while len(self._ends) > ENDS_MAX:
                self._ends.popitem(last=False)

    def origin(self, context: MessageContext) -> TraceContext | None:
        """For `TracingMiddleware`: every action and every result belongs to a recorded trace."""
        event = context.event
        if type(event) is AdaptationEvent and context.direction is MessageDirection.DELIVER:
            return self._decided(event, context)
        if type(event) is ExecutionResultEvent and context.direction is MessageDirection.PUBLISH:
            return self._ends.get(event.result.action_id)
        return None

    def _decided(self, event: AdaptationEvent, context: MessageContext) -> TraceContext | None:
        trace = context.trace
        first = context.attempt == 1
        cause = self._causes.get(event.correlation_id or "")
        if trace is not None and trace.sampled:
            # A controller that records nothing has handed the trace on: its place in it is told here.
            recorded = trace.recorded_span_id
            if recorded is not None and recorded != trace.span_id and first:
                self._tell_decision(event, trace, TraceContext(trace.trace_id, recorded, trace.flags), cause)
            return None
        if trace is not None:
            return TraceContext(trace.trace_id, trace.span_id, trace.flags | _SAMPLED, trace.tracestate)
        parent = None if cause is None else self._position_of(cause, event.correlation_id)
        own = trace_of(event.event_id)
        position = own if parent is None else TraceContext(parent.trace_id, own.span_id, _SAMPLED)
        if first:
            self._tell_decision(event, position, parent, cause)
        return position

    def _position_of(self, cause: Cause, correlation_id: str | None) -> TraceContext:
        if cause.position is None:
            cause.position = trace_of(cause.event_id)
            self.recorder.tell(
                conventions.COLLECT,
                cause.position,
                None,
                start_ns=min(cause.sampled_ns, cause.noted_ns),
                end_ns=cause.noted_ns,
                system_id=cause.system_id,
                event_id=cause.event_id,
                correlation_id=correlation_id,
                derived=True,
            )
        return cause.position

    def _tell_decision(
        self, event: AdaptationEvent, position: TraceContext, parent: TraceContext | None, cause: Cause | None
    ) -> None:
        # Several subscriptions may see the same action.
        if event.event_id in self._told:
            return
        self._told[event.event_id] = None
        if len(self._told) > ENDS_MAX:
            del self._told[next(iter(self._told))]
        end_ns = nanoseconds(event.timestamp)
        self.recorder.tell(
            conventions.DECIDE,
            position,
            parent,
            start_ns=end_ns if cause is None else min(cause.noted_ns, end_ns),
            end_ns=end_ns,
            system_id=event.action.target_system,
            action_id=event.action.action_id,
            action_type=event.action.action_type,
            source=event.source,
            correlation_id=event.correlation_id,
            derived=True,
        )

    def on_error(self, context: MessageContext, error: Exception, began_ns: int) -> None:
        """For `TracingMiddleware`: a message that failed is recorded, up to ten in a second."""
        publishing = context.direction is MessageDirection.PUBLISH
        spec = conventions.PUBLISH_FAILED if publishing else conventions.HANDLING_FAILED
        self.failed(
            spec,
            context.event.event_id,
            error,
            began_ns,
            topic=context.topic,
            event_id=context.event.event_id,
            correlation_id=context.correlation_id,
        )

    def failed(
        self, spec: conventions.SpanSpec, of: str, error: Exception, began_ns: int, **values: str | None
    ) -> None:
        """Record something that failed outside of any recorded trace; `of` is an id of its own."""
        if not self.enabled:
            return
        now_ns = time.time_ns()
        second, count = self._errors_in
        count = count + 1 if second == now_ns // 1_000_000_000 else 1
        self._errors_in = now_ns // 1_000_000_000, count
        if count > ERRORS_PER_S:
            self._on_dropped()
            return
        # What is tried again fails again: one trace, each time a span of its own.
        position = TraceContext(trace_of(of).trace_id, new_span_id(), _SAMPLED)
        self.recorder.tell(spec, position, None, start_ns=began_ns, end_ns=now_ns, error=error, **values)


def nanoseconds(moment: datetime) -> int:
    """Since 1970, exact to the microsecond."""
    return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1_000
