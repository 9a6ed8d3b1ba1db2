"""The chain, and the middlewares that ship with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.messaging.doubles import eventually, health, number_of, publish_raw, running_bus, telemetry

from polaris._correlation import correlation_scope, current_correlation_id
from polaris.domain import AdaptationAction, AdaptationEvent, PolarisEvent, TelemetryEvent
from polaris.exceptions import InvalidValueError, StoreConnectionError
from polaris.messaging import (
    CorrelationMiddleware,
    DeadLetterReason,
    DeduplicationMiddleware,
    EventCodec,
    LoggingMiddleware,
    MessageContext,
    MessageDirection,
    MessageMiddleware,
    MetricsMiddleware,
    MiddlewareChain,
    NextHandler,
    RedeliveryPolicy,
    TracingMiddleware,
    ValidationMiddleware,
)
from polaris.observability import LoggingConfig, MetricsCollector, StructuredLogger, capture_logs

DELIVER = MessageDirection.DELIVER


def context(event: PolarisEvent | None = None, direction: MessageDirection = DELIVER, **fields: Any) -> MessageContext:
    fields = {"topic": "polaris.health.store", "event_type": "polaris.health", **fields}
    return MessageContext(event=event or health(), direction=direction, **fields)


class Noting(MessageMiddleware):
    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    async def process(self, context: MessageContext, next_handler: NextHandler) -> Any:
        self.notes.append(f"{self.name} in")
        try:
            return await next_handler(context)
        finally:
            self.notes.append(f"{self.name} out")


# The chain.


async def test_the_first_middleware_is_outermost_and_results_come_back() -> None:
    notes: list[str] = []

    async def final(context: MessageContext) -> str:
        notes.append("final")
        return "result"

    chain = MiddlewareChain([Noting("a", notes), Noting("b", notes)])
    assert await chain.process(context(), final) == "result"
    assert notes == ["a in", "b in", "final", "b out", "a out"]


@pytest.mark.parametrize("measure", [None, MetricsCollector()])
async def test_a_middleware_whose_process_was_replaced_is_asked_by_that(measure: MetricsCollector | None) -> None:
    asked: list[str] = []

    class Own(MetricsMiddleware):
        async def process(self, context: MessageContext, next_handler: NextHandler) -> Any:
            asked.append("class")
            return await super().process(context, next_handler)

    async def process(context: MessageContext, next_handler: NextHandler) -> Any:
        asked.append("instance")
        return await next_handler(context)

    async def final(context: MessageContext) -> str:
        return "result"

    collector, replaced = MetricsCollector(), CorrelationMiddleware()
    replaced.process = process  # type: ignore[method-assign]
    assert await MiddlewareChain([replaced, Own(collector)], measure=measure).process(context(), final) == "result"
    assert asked == ["instance", "class"]
    assert collector.message_counter("polaris.health.*", "processed", "polaris.health").get() == 1


@pytest.mark.parametrize("direction", MessageDirection)
@pytest.mark.parametrize(
    "middleware",
    [
        CorrelationMiddleware(),
        LoggingMiddleware(StructuredLogger("t", LoggingConfig(level="critical"))),
        MetricsMiddleware(MetricsCollector()),
        TracingMiddleware(ratio=0.0),
    ],
    ids=lambda middleware: type(middleware).__name__,
)
async def test_a_middleware_does_the_same_alone_and_in_a_chain(
    middleware: MessageMiddleware, direction: MessageDirection
) -> None:
    async def good(context: MessageContext) -> tuple[str | None, str | None]:
        return current_correlation_id(), context.correlation_id

    async def bad(context: MessageContext) -> None:
        raise KeyError("x")

    outcomes = []
    for process in (middleware.process, MiddlewareChain([middleware]).process):
        with correlation_scope("around"):
            outcomes.append(await process(context(direction=direction, correlation_id="given"), good))
            assert current_correlation_id() == "around"
            with pytest.raises(KeyError):
                await process(context(direction=direction, correlation_id="given"), bad)
            assert current_correlation_id() == "around"
    assert outcomes[0] == outcomes[1]


async def test_a_chain_without_middlewares_is_the_handler() -> None:
    async def final(context: MessageContext) -> int:
        return 7

    assert await MiddlewareChain([]).process(context(), final) == 7
    assert MiddlewareChain().bind(final) is final


async def test_errors_travel_outwards_through_all_middlewares() -> None:
    notes: list[str] = []

    async def final(context: MessageContext) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await MiddlewareChain([Noting("a", notes), Noting("b", notes)]).process(context(), final)
    assert notes == ["a in", "b in", "b out", "a out"]


async def test_the_nesting_is_built_once_for_a_handler() -> None:
    class Counting(MiddlewareChain):
        bound = 0

        def bind(self, final_handler: NextHandler) -> NextHandler:
            self.bound += 1
            return super().bind(final_handler)

    async def final(context: MessageContext) -> None: ...
    async def other(context: MessageContext) -> str:
        return "other"

    chain = Counting([Noting("a", [])])
    for _ in range(10):
        await chain.process(context(), final)
    assert chain.bound == 1
    assert await chain.process(context(), other) == "other"


async def test_a_plain_function_is_a_middleware() -> None:
    async def shout(context: MessageContext, next_handler: NextHandler) -> Any:
        return f"{await next_handler(context)}!"

    async def final(context: MessageContext) -> str:
        return "hey"

    assert await MiddlewareChain([shout, shout]).process(context(), final) == "hey!!"


async def test_what_is_no_middleware_is_refused() -> None:
    with pytest.raises(InvalidValueError):
        MiddlewareChain([7])  # type: ignore[list-item]


async def test_one_chain_serves_many_messages_at_once() -> None:
    async def final(context: MessageContext) -> str:
        await asyncio.sleep(0.1)
        return context.event.event_id

    chain = MiddlewareChain([Noting("a", [])])
    contexts = [context() for _ in range(50)]
    results = await asyncio.gather(*(chain.process(one, final) for one in contexts))
    assert results == [one.event.event_id for one in contexts]


async def test_both_directions_go_through_the_chain_of_a_bus() -> None:
    seen: list[tuple[str, str, str, int | None]] = []
    done = asyncio.Event()

    async def note(context: MessageContext, next_handler: NextHandler) -> Any:
        seen.append((context.direction, context.topic, context.event_type, len(context.events)))
        return await next_handler(context)

    async def handle(events: list[TelemetryEvent]) -> None:
        done.set()

    async with running_bus(middlewares=[note]) as bus:
        await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_many([telemetry(1), telemetry(2)])
        await done.wait()
    topic, name = "polaris.telemetry.web", "polaris.telemetry"
    assert seen == [("publish", topic, name, 2), ("deliver", topic, name, 2)]


# Correlation.


@pytest.mark.parametrize("middleware", [CorrelationMiddleware(), LoggingMiddleware(StructuredLogger("test"))])
@pytest.mark.parametrize("direction", MessageDirection)
async def test_an_incoming_correlation_id_is_kept_and_a_missing_one_made(
    middleware: MessageMiddleware, direction: MessageDirection
) -> None:
    async def final(context: MessageContext) -> tuple[str | None, str | None]:
        return context.correlation_id, current_correlation_id()

    chain = MiddlewareChain([middleware])
    given = await chain.process(context(direction=direction, correlation_id="given"), final)
    assert given == ("given", "given")
    made = await chain.process(context(direction=direction), final)
    assert made[0] == made[1]
    assert made[0]
    with correlation_scope("around"):
        assert await chain.process(context(direction=direction), final) == ("around", "around")
        assert await chain.process(context(direction=direction, correlation_id="given"), final) == ("given", "given")
    assert current_correlation_id() is None


# Logging.


async def test_what_goes_well_is_logged_at_debug_and_what_fails_as_a_warning() -> None:
    failing = StoreConnectionError("no store")

    async def good(context: MessageContext) -> None: ...
    async def bad(context: MessageContext) -> None:
        raise failing

    with capture_logs() as logs:
        logger = StructuredLogger("bus", LoggingConfig(level="DEBUG", console_enabled=False))
        chain = MiddlewareChain([LoggingMiddleware(logger)])
        await chain.process(context(correlation_id="c-1", subscription="s", attempt=2), good)
        await chain.process(context(direction=MessageDirection.PUBLISH), good)
        with pytest.raises(StoreConnectionError):
            await chain.process(context(), bad)
    lines: list[Any] = list(logs)
    assert [line["message"] for line in lines] == ["message handled", "message published", "message not handled"]
    assert [line["level"] for line in lines] == ["DEBUG", "DEBUG", "WARNING"]
    assert lines[0]["correlation_id"] == "c-1"
    assert lines[0]["fields"]["subscription"] == "s"
    assert lines[0]["fields"]["attempt"] == 2
    assert "polaris.store.connection" in str(lines[2]) or "no store" in str(lines[2])


async def test_a_logger_that_knows_no_levels_will_do() -> None:
    calls: list[str] = []

    class Plain:
        def debug(self, message: str, **fields: object) -> None:
            calls.append(message)

        warning = debug

    async def final(context: MessageContext) -> None: ...

    await MiddlewareChain([LoggingMiddleware(Plain())]).process(context(), final)  # type: ignore[arg-type]
    assert calls == ["message handled"]


# Metrics.


async def test_messages_are_counted_by_pattern_status_and_type() -> None:
    collector = MetricsCollector()
    policy = RedeliveryPolicy(max_deliveries=2, base_delay_s=0.1)

    async def handle(event: TelemetryEvent) -> None:
        if number_of(event) == 3:
            raise KeyError("x")

    async with running_bus(middlewares=[MetricsMiddleware(collector)], collector=collector, redelivery=policy) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_many([telemetry(1, "a"), telemetry(2, "a"), telemetry(3, "b")])
        await eventually(lambda: subscription.stats.dead_lettered == 1)
        await asyncio.sleep(20)

    def count(status: str) -> float:
        return collector.message_counter("polaris.telemetry.*", status, "polaris.telemetry").get()

    assert (count("published"), count("processed"), count("failed"), count("publish_failed")) == (3, 2, 2, 0)
    assert collector.message_timer("polaris.telemetry.*", "polaris.telemetry").count == 2
    assert collector.instruments.dead_letters("polaris.telemetry.*", "exhausted").get() == 1
    assert collector.instruments.redeliveries("polaris.telemetry.*").get() >= 1
    text = collector.render().decode()
    assert 'topic="polaris.telemetry.*"' in text
    assert "polaris.telemetry.a" not in text


async def test_a_failed_publish_is_counted() -> None:
    middleware = MetricsMiddleware()

    async def bad(context: MessageContext) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await MiddlewareChain([middleware]).process(context(direction=MessageDirection.PUBLISH), bad)
    counter = middleware.collector.message_counter("polaris.health.*", "publish_failed", "polaris.health")
    assert counter.get() == 1


# Deduplication.


async def test_an_event_is_handled_once_per_subscription() -> None:
    seen: list[str] = []
    duplicates = DeduplicationMiddleware()

    async def handle(event: TelemetryEvent) -> None:
        seen.append(event.event_id)

    async with running_bus(middlewares=[duplicates]) as bus:
        first = await bus.subscribe("polaris.telemetry.*", handle)
        second = await bus.subscribe("polaris.telemetry.*", handle)
        payload = EventCodec().encode(telemetry(event_id="same"))
        for _ in range(3):
            await publish_raw(bus, "polaris.telemetry.web", payload)
        await eventually(lambda: first.stats.received == second.stats.received == 3)
        await eventually(lambda: first.in_flight == second.in_flight == 0)
    assert seen == ["same", "same"]
    assert duplicates.skipped == 4


async def test_an_event_whose_handler_failed_is_no_duplicate() -> None:
    calls = 0

    async def handle(event: TelemetryEvent) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyError("x")

    async with running_bus(middlewares=[DeduplicationMiddleware()]) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry())
        await eventually(lambda: subscription.stats.handled == 1)
    assert calls == 2


async def test_a_second_delivery_waits_for_the_outcome_of_the_first() -> None:
    outcomes: list[str] = []
    release = asyncio.Event()
    fail = [True]

    async def final(context: MessageContext) -> None:
        await release.wait()
        if fail:
            fail.clear()
            outcomes.append("failed")
            raise KeyError("x")
        outcomes.append("handled")

    middleware = DeduplicationMiddleware()
    chain = MiddlewareChain([middleware])
    event = health()
    running = [asyncio.create_task(chain.process(context(event), final)) for _ in range(3)]
    await asyncio.sleep(1)
    assert outcomes == []
    release.set()
    results = await asyncio.gather(*running, return_exceptions=True)
    assert outcomes == ["failed", "handled"]
    assert [type(result) for result in results].count(KeyError) == 1
    assert middleware.skipped == 1


async def test_duplicates_within_and_between_batches_are_taken_out() -> None:
    seen: list[list[str]] = []

    async def final(context: MessageContext) -> None:
        seen.append([event.event_id for event in context.events])

    chain = MiddlewareChain([DeduplicationMiddleware()])
    one, two, three = (health(event_id=str(n)) for n in range(3))
    await chain.process(context(one, batch=(one, two, one)), final)
    await chain.process(context(two, batch=(two, three)), final)
    await chain.process(context(one, batch=(one, two, three)), final)
    assert seen == [["0", "1"], ["2"]]


async def test_what_is_remembered_is_bounded() -> None:
    calls = 0

    async def final(context: MessageContext) -> None:
        nonlocal calls
        calls += 1

    middleware = DeduplicationMiddleware(ids_max=10)
    chain = MiddlewareChain([middleware])
    events = [health() for _ in range(50)]
    for event in [*events, events[-1], events[0]]:
        await chain.process(context(event), final)
    assert calls == 51
    assert len(middleware._handled) == 10
    assert middleware._running == {}
    with pytest.raises(InvalidValueError):
        DeduplicationMiddleware(ids_max=0)


async def test_publishing_is_not_deduplicated() -> None:
    calls = 0

    async def final(context: MessageContext) -> None:
        nonlocal calls
        calls += 1

    chain = MiddlewareChain([DeduplicationMiddleware()])
    event = health()
    for _ in range(2):
        await chain.process(context(event, MessageDirection.PUBLISH), final)
    assert calls == 2


# Validation.


async def test_an_event_on_the_topic_of_another_system_is_refused() -> None:
    async def handle(event: PolarisEvent) -> None:
        raise AssertionError("must not be called")

    async with running_bus(middlewares=[ValidationMiddleware()]) as bus:
        subscription = await bus.subscribe("polaris.*.web", handle, delivery=None)
        await subscription.unsubscribe()
        durable = await bus.subscribe("polaris.telemetry.*", handle)
        with pytest.raises(InvalidValueError):
            await bus.publish("polaris.telemetry.other", telemetry())
        with pytest.raises(InvalidValueError):
            await bus.publish("polaris.adaptations.other", AdaptationEvent(AdaptationAction("1", "scale", "web")))
        await bus.publish("polaris.executions.web", health())
        await publish_raw(bus, "polaris.telemetry.other", EventCodec().encode(telemetry()))
        await eventually(lambda: durable.stats.dead_lettered == 1)
        (record,) = await bus.dead_letters.list()
        assert record.entry.reason is DeadLetterReason.REFUSED


async def test_checks_of_the_application_run_on_every_event_of_a_batch() -> None:
    def small(context: MessageContext, event: PolarisEvent) -> None:
        if isinstance(event, TelemetryEvent) and number_of(event) > 5:
            raise InvalidValueError("n", "at most 5", number_of(event))

    async with running_bus(middlewares=[ValidationMiddleware(small)]) as bus:
        await bus.publish_many([telemetry(1), telemetry(5)])
        with pytest.raises(InvalidValueError):
            await bus.publish_many([telemetry(1), telemetry(6)])
