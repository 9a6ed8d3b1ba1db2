"""Spans of messages: one trace from the first publish to the last handler, whichever buses it passes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import timeit
from collections.abc import Awaitable
from contextlib import nullcontext
from typing import Any

import pytest
from msgspec.structs import replace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode, Tracer, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from tests.unit.messaging.doubles import eventually, health, number_of, publish_raw, running_bus, telemetry

from polaris.domain import AdaptationAction, AdaptationEvent, HealthEvent, TelemetryEvent
from polaris.exceptions import InvalidValueError, PublishError, StoreConnectionError
from polaris.messaging import (
    Capabilities,
    CompressionMiddleware,
    EventCodec,
    InMemoryHub,
    InMemoryMessageBroker,
    LoggingMiddleware,
    MessageContext,
    MessageDirection,
    MiddlewareChain,
    NextHandler,
    PolarisMessageBus,
    RedeliveryPolicy,
    TracingMiddleware,
)
from polaris.messaging._sequences import Numbering
from polaris.observability import (
    LoggingConfig,
    RatioSampler,
    StructuredLogger,
    TraceContext,
    capture_logs,
    current_trace,
    start_trace,
    trace_scope,
)

TOPIC = "polaris.telemetry.web"


class Recorder:
    """A tracer, and the spans it has ended."""

    def __init__(self, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False, **options)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer: Tracer = provider.get_tracer("test")

    @property
    def spans(self) -> list[ReadableSpan]:
        """In the order of their beginning."""
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]


def position(span: ReadableSpan) -> tuple[str, str]:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def header(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    assert context.trace_flags.sampled
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def parent(span: ReadableSpan) -> tuple[str, str] | None:
    if span.parent is None:
        return None
    return f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}"


def linked(span: ReadableSpan) -> list[tuple[str, str]]:
    return [(f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") for link in span.links]


def always(recorder: Recorder, **options: Any) -> TracingMiddleware:
    return TracingMiddleware(recorder.tracer, 1.0, **options)


def no_draw() -> float:
    raise AssertionError("nothing is drawn here")


NO_DRAW = RatioSampler(0.5, draw=no_draw)


# One trace.


async def test_a_control_loop_over_two_buses_is_one_trace_with_the_right_parents() -> None:
    recorder, hub = Recorder(), InMemoryHub()
    acted: list[str] = []

    async with (
        running_bus(hub, [always(recorder)]) as controller,
        running_bus(hub, [TracingMiddleware(recorder.tracer, NO_DRAW)]) as system,
    ):

        async def decide(event: TelemetryEvent) -> None:
            action = AdaptationEvent(AdaptationAction("a-1", "scale", event.system_state.system_id))
            await controller.publish("polaris.adaptations.web", action)

        async def act(event: AdaptationEvent) -> None:
            acted.append(event.action.action_id)

        await controller.subscribe("polaris.telemetry.*", decide)
        await system.subscribe("polaris.adaptations.*", act)
        await controller.publish_telemetry(telemetry())
        await eventually(lambda: bool(acted))
    first, deciding, second, acting = recorder.spans
    assert [span.name for span in recorder.spans] == [
        "publish polaris.telemetry.*",
        "process polaris.telemetry.*",
        "publish polaris.adaptations.*",
        "process polaris.adaptations.*",
    ]
    assert [span.kind for span in recorder.spans] == [SpanKind.PRODUCER, SpanKind.CONSUMER] * 2
    assert [parent(span) for span in recorder.spans] == [None, position(first), position(deciding), position(second)]
    assert {position(span)[0] for span in recorder.spans} == {position(acting)[0]}


async def test_the_ids_of_the_publishing_span_are_those_that_travel() -> None:
    recorder, hub = Recorder(), InMemoryHub()
    carried: list[str | None] = []

    async def handle(event: HealthEvent) -> None: ...

    async def note(context: MessageContext, next_handler: NextHandler) -> Any:
        if context.direction is MessageDirection.DELIVER:
            assert context.trace is not None
            carried.append(context.trace.traceparent)
        return await next_handler(context)

    async with running_bus(hub, [always(recorder)]) as bus, running_bus(hub, [note]) as other:
        await other.subscribe("polaris.health.*", handle)
        await other.subscribe("polaris.telemetry.*", handle, event_type=TelemetryEvent)
        await bus.publish("polaris.health.store", health())
        await bus.publish_telemetry(telemetry())
        await bus.publish_many([telemetry(1), telemetry(2)])
        await eventually(lambda: len(carried) == 4)
    single, gathered, many = recorder.spans
    assert carried == [header(span) for span in (single, gathered, many, many)]


async def test_what_a_handler_logs_and_starts_belongs_to_its_span() -> None:
    recorder = Recorder()
    seen: list[TraceContext | None] = []

    async def handle(event: HealthEvent) -> None:
        seen.append(current_trace())
        with recorder.tracer.start_as_current_span("of the application"):
            pass

    with capture_logs() as logs:
        logger = StructuredLogger("bus", LoggingConfig(level="DEBUG", console_enabled=False))
        async with running_bus(middlewares=[always(recorder), LoggingMiddleware(logger)]) as bus:
            await bus.subscribe("polaris.health.*", handle)
            await bus.publish("polaris.health.store", health())
            await eventually(lambda: len(recorder.spans) == 3)
    publishing, processing, inner = recorder.spans
    assert parent(inner) == position(processing)
    assert seen[0] is not None
    assert (seen[0].trace_id, seen[0].span_id) == position(processing)
    lines: list[Any] = [line for line in logs if line["logger"] == "bus"]
    assert [(line["trace_id"], line["span_id"]) for line in lines] == [position(publishing), position(processing)]
    assert current_trace() is None
    assert not get_current_span().get_span_context().is_valid


async def test_a_publish_inside_a_span_of_the_application_is_its_child() -> None:
    recorder, hub = Recorder(), InMemoryHub()

    async def handle(event: TelemetryEvent) -> None:
        with recorder.tracer.start_as_current_span("of the application"):
            await bus.publish("polaris.health.store", health())

    async with running_bus(hub, [always(recorder)]) as bus:
        await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish(TOPIC, telemetry())
        await eventually(lambda: len(recorder.spans) == 4)
    assert parent(recorder.named("publish polaris.health.*")[0]) == position(recorder.named("of the application")[0])


async def test_the_trace_of_the_publishers_scope_goes_on() -> None:
    recorder = Recorder()
    async with running_bus(middlewares=[TracingMiddleware(recorder.tracer, NO_DRAW)]) as bus:
        with trace_scope(start_trace(sampled=True)) as scope:
            await bus.publish("polaris.health.store", health())
            await bus.publish_telemetry(telemetry())
            await bus.publish_many([telemetry(1), telemetry(2)])
    assert [parent(span) for span in recorder.spans] == [(scope.trace_id, scope.span_id)] * 3


async def test_a_publish_that_a_middleware_outside_repeats_has_two_spans_side_by_side() -> None:
    recorder = Recorder()

    async def twice(context: MessageContext, next_handler: NextHandler) -> Any:
        await next_handler(context)
        return await next_handler(context)

    async with running_bus(middlewares=[twice, TracingMiddleware(recorder.tracer, NO_DRAW)]) as bus:
        with trace_scope(start_trace(sampled=True)) as scope:
            await bus.publish_telemetry(telemetry())
    assert [parent(span) for span in recorder.spans] == [(scope.trace_id, scope.span_id)] * 2


async def test_vendor_state_is_carried_along() -> None:
    recorder, hub = Recorder(), InMemoryHub()
    states: list[str] = []

    async def handle(event: TelemetryEvent, context: MessageContext) -> None:
        assert context.trace is not None
        states.append(context.trace.tracestate)

    async with running_bus(hub, [always(recorder)]) as bus:
        await bus.subscribe("polaris.telemetry.*", handle)
        with trace_scope(TraceContext("1" * 32, "2" * 16, 1, "vendor=a,other=b")):
            await bus.publish(TOPIC, telemetry())
            await bus.publish_telemetry(telemetry())
        await eventually(lambda: len(states) == 2)
    assert [state.partition(",")[2] for state in states] == ["vendor=a,other=b"] * 2
    assert all(state.startswith("polaris=") for state in states)


# Sampling.


async def test_what_is_not_sampled_makes_no_span_and_its_consequences_neither() -> None:
    recorder, hub = Recorder(), InMemoryHub()
    draws: list[float] = []
    handled: list[str] = []

    def draw() -> float:
        draws.append(0.9)
        return 0.9

    async with (
        running_bus(hub, [TracingMiddleware(recorder.tracer, RatioSampler(0.5, draw=draw))]) as bus,
        running_bus(hub, [TracingMiddleware(recorder.tracer, NO_DRAW)]) as other,
    ):

        async def relay(event: TelemetryEvent) -> None:
            await other.publish("polaris.health.store", health())
            await other.publish_telemetry(telemetry(system_id="db"))
            await other.publish_many([telemetry(system_id="db")])

        async def handle(event: HealthEvent, context: MessageContext) -> None:
            assert context.trace is None
            handled.append(event.event_id)

        await other.subscribe(TOPIC, relay)
        await bus.subscribe("polaris.health.*", handle)
        await bus.publish_telemetry(telemetry())
        await eventually(lambda: bool(handled))
        await asyncio.sleep(1)
    assert recorder.spans == []
    assert len(draws) == 1


async def test_a_message_passed_over_decides_nothing_for_what_follows_in_the_same_task() -> None:
    recorder = Recorder()
    chain = MiddlewareChain([always(recorder)])

    async def final(context: MessageContext) -> None: ...

    await chain.process(MessageContext(TOPIC, telemetry(), MessageDirection.DELIVER), final)
    assert recorder.spans == []
    await chain.process(MessageContext(TOPIC, telemetry(), MessageDirection.PUBLISH), final)
    assert len(recorder.spans) == 1


async def test_who_replays_what_carries_no_trace_may_begin_one_afterwards() -> None:
    recorder = Recorder()
    handled: list[str] = []

    async def handle(event: TelemetryEvent) -> None:
        handled.append(event.event_id)
        await bus.publish("polaris.health.store", health())

    async with running_bus(middlewares=[always(recorder)]) as bus:
        await publish_raw(bus, TOPIC, EventCodec().encode(telemetry()))
        await bus.replay("polaris.telemetry.*", handle)
        assert handled
        assert recorder.spans == []
        await bus.publish("polaris.health.store", health())
    assert len(recorder.spans) == 1


@pytest.mark.parametrize("flags", [0, 2])
async def test_a_trace_that_arrives_unsampled_stays_so(flags: int) -> None:
    recorder = Recorder()
    carried: list[TraceContext | None] = []
    came = TraceContext("1" * 32, "2" * 16, flags)

    async def relay(event: TelemetryEvent) -> None:
        await bus.publish("polaris.health.store", health())

    async def handle(event: HealthEvent, context: MessageContext) -> None:
        carried.append(context.trace)

    async with running_bus(middlewares=[TracingMiddleware(recorder.tracer, NO_DRAW)]) as bus:
        await bus.subscribe("polaris.telemetry.*", relay)
        await bus.subscribe("polaris.health.*", handle)
        await publish_raw(bus, TOPIC, EventCodec().encode(telemetry(), traceparent=came.traceparent))
        with trace_scope(came):
            await bus.publish_telemetry(telemetry())
        await eventually(lambda: len(carried) == 2)
    assert carried == [came, came]
    assert recorder.spans == []


async def test_a_share_of_the_traces_is_recorded_and_each_as_a_whole() -> None:
    recorder, hub = Recorder(), InMemoryHub()
    draws = iter([0.1, 0.3, 0.2, 0.25, 0.0])
    handled: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        handled.append(number_of(event))

    sampler = RatioSampler(0.25, draw=lambda: next(draws))
    async with running_bus(hub, [TracingMiddleware(recorder.tracer, sampler)]) as bus:
        await bus.subscribe("polaris.telemetry.*", handle)
        for number in range(5):
            await bus.publish(TOPIC, telemetry(number))
        await eventually(lambda: len(handled) == 5)
    assert len(recorder.named("publish polaris.telemetry.*")) == 3
    assert len(recorder.named("process polaris.telemetry.*")) == 3


async def test_a_delivery_begins_a_trace_only_when_asked() -> None:
    async def handle(event: TelemetryEvent) -> None: ...

    for asked in (False, True):
        recorder = Recorder()
        async with running_bus(middlewares=[always(recorder, begin_on_delivery=asked)]) as bus:
            subscription = await bus.subscribe("polaris.telemetry.*", handle)
            await publish_raw(bus, TOPIC, EventCodec().encode(telemetry()))
            await eventually(lambda subscription=subscription: subscription.stats.handled == 1)  # type: ignore[misc]
        assert [(span.name, span.parent) for span in recorder.spans] == (
            [("process polaris.telemetry.*", None)] if asked else []
        )


async def test_a_provider_that_does_not_record_is_believed() -> None:
    recorder, hub = Recorder(sampler=ALWAYS_OFF), InMemoryHub()
    carried: list[TraceContext | None] = []

    async def handle(event: HealthEvent, context: MessageContext) -> None:
        carried.append(context.trace)

    async with running_bus(hub, [always(recorder)]) as bus:
        await bus.subscribe("polaris.health.*", handle)
        await bus.publish("polaris.health.store", health())
        await eventually(lambda: bool(carried))
    assert recorder.spans == []
    assert carried[0] is not None
    assert not carried[0].sampled


async def test_without_an_sdk_everything_goes_on_as_without_tracing() -> None:
    """The interface of OpenTelemetry alone gives spans that are none."""
    from opentelemetry.trace import NoOpTracer

    carried: list[TraceContext | None] = []

    async def handle(event: HealthEvent, context: MessageContext) -> None:
        carried.append(context.trace)

    async with running_bus(middlewares=[TracingMiddleware(NoOpTracer(), 1.0)]) as bus:
        await bus.subscribe("polaris.health.*", handle)
        await bus.publish("polaris.health.store", health())
        came = TraceContext("1" * 32, "2" * 16, 1)
        with trace_scope(came):
            await bus.publish("polaris.health.store", health())
        await eventually(lambda: len(carried) == 2)
    assert carried == [None, came]


# Batches.


async def test_events_of_several_traces_that_gather_keep_them_and_the_message_links_to_them() -> None:
    recorder, hub = Recorder(), InMemoryHub()
    carried: dict[float, str | None] = {}

    async def handle(event: TelemetryEvent, context: MessageContext) -> None:
        carried[number_of(event)] = None if context.trace is None else context.trace.traceparent

    traces = [start_trace(sampled=True), start_trace(sampled=True), start_trace(sampled=False)]
    async with running_bus(hub, [TracingMiddleware(recorder.tracer, NO_DRAW)]) as bus, running_bus(hub) as other:
        await other.subscribe("polaris.telemetry.*", handle)
        publish = bus.broker.publish

        async def slowly(*arguments: Any, **options: Any) -> Any:
            await asyncio.sleep(1)
            return await publish(*arguments, **options)

        bus.broker.publish = slowly  # type: ignore[method-assign]

        async def publish_under(number: int, trace: TraceContext | None) -> None:
            if trace is None:
                await bus.publish_telemetry(telemetry(number))
            else:
                with trace_scope(trace):
                    await bus.publish_telemetry(telemetry(number))

        leader = start_trace(sampled=True)
        await asyncio.gather(*(publish_under(n, one) for n, one in enumerate([leader, *traces, traces[0], None])))
        await eventually(lambda: len(carried) == 6)
    alone, together = recorder.spans
    assert parent(alone) == (leader.trace_id, leader.span_id)
    assert parent(together) is None
    assert linked(together) == [(one.trace_id, one.span_id) for one in traces[:2]]
    assert together.attributes is not None
    assert together.attributes["messaging.batch.message_count"] == 5
    own = [one.traceparent for one in traces]
    assert [carried[number] for number in range(1, 6)] == [*own, own[0], header(together)]
    assert bus._outbound._traces == {}


async def test_a_batch_handler_has_one_span_with_links_to_several_traces() -> None:
    recorder = Recorder()
    batches: list[int] = []

    async def handle(events: list[TelemetryEvent]) -> None:
        batches.append(len(events))

    traces = [start_trace(sampled=True), start_trace(sampled=False), start_trace(sampled=True)]
    async with running_bus(middlewares=[TracingMiddleware(recorder.tracer, NO_DRAW)]) as bus:
        await bus.subscribe("polaris.telemetry.*", handle)
        encode = EventCodec().encode
        members = [encode(telemetry(n), traceparent=one.traceparent) for n, one in enumerate([*traces, traces[0]])]
        await publish_raw(bus, TOPIC, EventCodec().join([*members, encode(telemetry())]))
        await eventually(lambda: bool(batches))
    (span,) = recorder.spans
    assert parent(span) is None
    assert linked(span) == [(one.trace_id, one.span_id) for one in (traces[0], traces[2])]
    assert span.attributes is not None
    assert span.attributes["messaging.batch.message_count"] == 5
    assert "messaging.message.id" not in span.attributes


async def test_a_batch_of_one_trace_is_a_child_of_it() -> None:
    recorder = Recorder()
    batches: list[int] = []

    async def handle(events: list[TelemetryEvent]) -> None:
        batches.append(len(events))

    async with running_bus(middlewares=[always(recorder)]) as bus:
        await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_many([telemetry(number) for number in range(20)])
        await eventually(lambda: bool(batches))
    publishing, processing = recorder.spans
    assert parent(processing) == position(publishing)
    assert processing.links == ()


async def test_a_batch_keeps_its_events_whole_when_it_comes_under_its_span() -> None:
    recorder = Recorder()
    received: list[TelemetryEvent] = []

    async def handle(event: TelemetryEvent) -> None:
        received.append(event)

    events = [telemetry(number, correlation_id=f"c-{number}") for number in range(30)]
    async with running_bus(middlewares=[always(recorder), CompressionMiddleware()]) as bus:
        await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_many(events)
        await eventually(lambda: len(received) == 30)
    assert received == events


async def test_a_batch_that_its_span_would_make_too_large_goes_as_it_is() -> None:
    recorder, hub = Recorder(), InMemoryHub()
    received: list[str] = []

    async def handle(event: TelemetryEvent, context: MessageContext) -> None:
        assert context.trace is None
        received.append(event.event_id)

    number = Numbering(0.0).next("polaris.telemetry.web", "e")
    size = len(EventCodec().encode(telemetry(event_id="e", correlation_id="c"), sequence=number))

    class Tight(InMemoryMessageBroker):
        @property
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities, payload_bytes_max=size)

    async with PolarisMessageBus(Tight(hub), [always(recorder)]) as bus:
        await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry(event_id="e", correlation_id="c"))
        await eventually(lambda: bool(received))
    assert len(recorder.named("publish polaris.telemetry.*")) == 1


# What a span says.


async def test_spans_follow_the_messaging_conventions() -> None:
    recorder = Recorder()

    async def handle(event: TelemetryEvent) -> None: ...

    async with running_bus(middlewares=[always(recorder)]) as bus:
        await bus.subscribe("polaris.telemetry.*", handle, durable="store")
        await bus.publish(TOPIC, telemetry(event_id="e-1", correlation_id="c-1"))
        await eventually(lambda: len(recorder.spans) == 2)
    shared = {
        "messaging.system": "nats",
        "messaging.destination.name": TOPIC,
        "messaging.destination.template": "polaris.telemetry.*",
        "messaging.message.id": "e-1",
        "messaging.message.conversation_id": "c-1",
        "cloudevents.event_type": "polaris.telemetry",
    }
    publishing, processing = (dict(span.attributes or {}) for span in recorder.spans)
    assert publishing == {**shared, "messaging.operation.name": "publish", "messaging.operation.type": "send"}
    assert processing == {
        **shared,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": "store",
    }
    assert all(span.status.status_code is StatusCode.UNSET for span in recorder.spans)


async def test_the_names_are_those_of_the_published_conventions() -> None:
    from opentelemetry.semconv._incubating.attributes import messaging_attributes as names
    from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE

    from polaris.messaging.middleware._tracing import _attributes
    from polaris.observability._tracing import ERROR_TYPE as OURS

    known = {value for name, value in vars(names).items() if name.startswith("MESSAGING_") and isinstance(value, str)}
    context = MessageContext(TOPIC, telemetry(), MessageDirection.DELIVER, subscription="s", correlation_id="c")
    many = MessageContext(TOPIC, telemetry(), batch=(telemetry(), telemetry()))
    used = {*_attributes(context, "process"), *_attributes(many, "publish")}
    assert {name for name in used if name.startswith("messaging.")} <= known
    assert ERROR_TYPE == OURS


async def test_a_failure_shows_its_code_or_class_and_no_foreign_text() -> None:
    recorder = Recorder()
    calls = 0

    async def handle(event: TelemetryEvent) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise StoreConnectionError("no store")
        if calls == 2:
            raise KeyError("secret")

    async with running_bus(middlewares=[always(recorder)], redelivery=RedeliveryPolicy(base_delay_s=0.1)) as bus:
        await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish(TOPIC, telemetry())
        await eventually(lambda: len(recorder.spans) == 4)
    _, first, second, third = recorder.spans
    assert [(span.attributes or {}).get("error.type") for span in (first, second, third)] == [
        "polaris.store.connection",
        "KeyError",
        None,
    ]
    assert [span.status.status_code for span in (first, second, third)] == [StatusCode.ERROR] * 2 + [StatusCode.UNSET]
    assert (first.status.description, second.status.description) == ("no store", None)
    assert [(span.attributes or {}).get("polaris.message.attempt") for span in (first, second, third)] == [None, 2, 3]
    assert "secret" not in "".join(span.to_json() for span in recorder.spans)


async def test_a_publish_that_fails_has_a_failed_span_and_a_request_one_of_its_own() -> None:
    recorder = Recorder()

    async def stop(context: MessageContext, next_handler: NextHandler) -> Any:
        raise PublishError("refused")

    async with running_bus(middlewares=[always(recorder), stop]) as bus:
        with pytest.raises(PublishError):
            await bus.publish("polaris.health.store", health())
        with pytest.raises(PublishError):
            await bus.request("polaris.health.store", health())
    assert [span.name for span in recorder.spans] == ["publish polaris.health.*", "request polaris.health.*"]
    assert [(span.attributes or {})["error.type"] for span in recorder.spans] == ["polaris.bus.publish"] * 2


async def test_a_cancelled_handler_ends_its_span() -> None:
    recorder = Recorder()

    async def handle(event: HealthEvent) -> None:
        await asyncio.sleep(1_000)

    async with running_bus(middlewares=[always(recorder)]) as bus:
        await bus.subscribe("polaris.health.*", handle, handler_timeout_s=1.0)
        await bus.publish("polaris.health.store", health())
        await eventually(lambda: len(recorder.spans) == 2)
    assert (recorder.spans[1].attributes or {})["error.type"] == "asyncio.exceptions.CancelledError"


# Agreement with OpenTelemetry.

CORPUS = [
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff",
    "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes-later",
    "cc-12345678901234567890123456789012-1234567890123456-01",
    "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
    "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
    "words",
]


@pytest.mark.parametrize("received", CORPUS)
@pytest.mark.parametrize("state", ["", "vendor=1", "a=1,b=2"])
async def test_spans_have_the_parents_that_opentelemetrys_propagator_reads(received: str, state: str) -> None:
    propagator = TraceContextTextMapPropagator()
    expected = get_current_span(propagator.extract({"traceparent": received, "tracestate": state})).get_span_context()
    recorder = Recorder()
    carried: list[TraceContext | None] = []
    injected: list[dict[str, str]] = []

    async def handle(event: TelemetryEvent) -> None:
        carrier: dict[str, str] = {}
        propagator.inject(carrier)
        injected.append(carrier)
        carried.append(current_trace())

    async with running_bus(middlewares=[always(recorder)]) as bus:
        await bus.subscribe("polaris.telemetry.*", handle)
        await publish_raw(bus, TOPIC, EventCodec().encode(telemetry(), traceparent=received, tracestate=state))
        await eventually(lambda: bool(carried))
    if not expected.is_valid or not expected.trace_flags.sampled:
        assert recorder.spans == []
        return
    (span,) = recorder.spans
    assert span.parent is not None
    assert (span.parent.trace_id, span.parent.span_id) == (expected.trace_id, expected.span_id)
    assert span.parent.trace_state.to_header() == expected.trace_state.to_header() == state
    assert span.parent.is_remote
    assert carried[0] is not None
    assert injected[0]["traceparent"] == carried[0].traceparent
    assert injected[0].get("tracestate", "") == carried[0].tracestate == state


# What it costs, and construction.


def test_opentelemetry_is_imported_for_the_first_span_and_not_before() -> None:
    code = (
        "import asyncio, sys\n"
        "from polaris.domain import HealthEvent, HealthStatus\n"
        "from polaris.messaging import InMemoryMessageBroker, PolarisMessageBus, TracingMiddleware\n"
        "async def run(ratio):\n"
        "    async with PolarisMessageBus(InMemoryMessageBroker(), [TracingMiddleware(ratio=ratio)]) as bus:\n"
        "        await bus.publish('polaris.health.store', HealthEvent('store', HealthStatus.HEALTHY, ''))\n"
        "    return 'opentelemetry' in sys.modules\n"
        "assert not asyncio.run(run(0.0))\n"
        "assert asyncio.run(run(1.0))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def run_to_its_end(awaitable: Awaitable[Any]) -> None:
    try:
        awaitable.__await__().send(None)
    except StopIteration:
        return
    raise AssertionError("it waited")


@pytest.mark.parametrize("direction", MessageDirection)
def test_a_message_that_is_not_sampled_costs_little(direction: MessageDirection) -> None:
    """Less than 20 us on any machine; what it is on ours is in the documentation of benchmarks."""
    middleware = TracingMiddleware(ratio=0.0)
    context = MessageContext(TOPIC, telemetry(), direction)

    async def final(context: MessageContext) -> None: ...

    took_s = min(timeit.repeat(lambda: run_to_its_end(middleware.process(context, final)), number=1_000, repeat=5))
    assert took_s / 1_000 < 20e-6


@pytest.mark.parametrize("ratio", [-0.1, 1.1, "half", True, None])
def test_a_ratio_that_is_none_is_refused(ratio: Any) -> None:
    with pytest.raises(InvalidValueError):
        TracingMiddleware(ratio=ratio)


# What is recorded although nobody had decided so.


async def test_an_origin_has_a_message_recorded_that_came_without_a_trace_and_what_it_causes_too() -> None:
    recorder, hub = Recorder(), InMemoryHub()
    given = TraceContext("a" * 32, "b" * 16, 1)
    delivered = MessageDirection.DELIVER

    def origin(context: MessageContext) -> TraceContext | None:
        return given if context.direction is delivered and context.topic.startswith("polaris.health.") else None

    tracing = TracingMiddleware(lambda: recorder.tracer, 0.0, origin=origin)
    seen: list[TraceContext | None] = []
    async with running_bus(hub, [tracing]) as bus:

        async def handle(event: HealthEvent, context: MessageContext) -> None:
            seen.append(current_trace())
            await bus.publish("polaris.config.updates", health())

        await bus.subscribe("polaris.health.*", handle)
        await bus.publish("polaris.health.store", health())
        await eventually(lambda: bool(recorder.named("publish polaris.config.updates")))
    (process,) = recorder.named("process polaris.health.*")
    assert parent(process) == (given.trace_id, given.span_id)
    (caused,) = recorder.named("publish polaris.config.updates")
    assert parent(caused) == position(process)
    assert recorder.named("publish polaris.health.*") == [], "the publish itself had no origin"
    assert seen[0] is not None
    assert seen[0].span_id == position(process)[1]


@pytest.mark.parametrize("carried", [None, TraceContext("1" * 32, "2" * 16, 0)])
async def test_what_fails_unrecorded_is_told_and_passes_on(carried: TraceContext | None) -> None:
    told: list[tuple[str, str, bool]] = []

    def on_error(context: MessageContext, error: Exception, began_ns: int) -> None:
        told.append((context.direction.value, type(error).__name__, 0 < began_ns <= time.time_ns()))

    recorder, hub = Recorder(), InMemoryHub()
    tracing = TracingMiddleware(recorder.tracer, 0.0, on_error=on_error)
    async with running_bus(hub, [tracing]) as bus:

        async def handle(event: HealthEvent) -> None:
            raise ValueError("no")

        await bus.subscribe("polaris.health.*", handle)
        with nullcontext() if carried is None else trace_scope(carried):
            await bus.publish("polaris.health.store", health())
        await eventually(lambda: bool(told))
    assert told[0] == ("deliver", "ValueError", True)
    assert recorder.spans == []
