"""Single events that the broker takes at once: out without a turn of the event loop, and nobody is passed over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Coroutine
from typing import Any

import pytest
from tests.unit.messaging.doubles import STORED, health, telemetry

from polaris._correlation import correlation_scope, current_correlation_id
from polaris.domain import EventKind
from polaris.exceptions import (
    BusConnectionError,
    InvalidTopicError,
    InvalidValueError,
    PayloadTooLargeError,
    PublishError,
)
from polaris.messaging import (
    DeliveryClass,
    InMemoryMessageBroker,
    LoggingMiddleware,
    MessageContext,
    MessageMiddleware,
    MetricsMiddleware,
    MiddlewareChain,
    NextHandler,
    OutgoingMessage,
    PolarisMessageBus,
    Receipt,
    TracingMiddleware,
)
from polaris.messaging._chain import Send
from polaris.messaging.brokers import _memory
from polaris.observability import LoggingConfig, MetricsCollector, StructuredLogger, capture_logs
from polaris.testing import running_clock

TOPIC = "polaris.telemetry.web"
CORE = DeliveryClass.AT_MOST_ONCE


class Prompt(InMemoryMessageBroker):
    """Notes what comes by which way; `answer` is what it says to an offer instead of taking it."""

    def __init__(self) -> None:
        super().__init__(clock=running_clock())
        self.offered: list[OutgoingMessage] = []
        self.published: list[OutgoingMessage] = []
        self.ids: list[str | None] = []
        self.answer: Exception | bool = True

    async def publish(self, message: OutgoingMessage, **options: Any) -> Receipt:
        self.published.append(message)
        return await super().publish(message, **options)

    def offer(self, message: OutgoingMessage) -> Receipt | None:
        self.offered.append(message)
        self.ids.append(current_correlation_id())
        if isinstance(self.answer, Exception):
            raise self.answer
        return super().offer(message) if self.answer else None


def at_once(publish: Coroutine[Any, Any, Receipt]) -> Receipt:
    """The outcome of a coroutine that may not wait."""
    try:
        publish.send(None)
    except StopIteration as end:
        receipt: Receipt = end.value
        return receipt
    publish.close()
    raise AssertionError("it waited")


def full_chain(collector: MetricsCollector, *, level: str = "INFO", on_error: Any = None) -> list[MessageMiddleware]:
    logger = StructuredLogger("bus", LoggingConfig(level=level, console_enabled=False))
    return [TracingMiddleware(ratio=0.0, on_error=on_error), LoggingMiddleware(logger), MetricsMiddleware(collector)]


def messages(collector: MetricsCollector, status: str) -> float:
    return collector.message_counter("polaris.telemetry.*", status, "polaris.telemetry").get()


def bus_on(broker: InMemoryMessageBroker, middlewares: Any = None) -> PolarisMessageBus:
    return PolarisMessageBus(broker, middlewares, streams=(), clock=running_clock())


async def test_an_event_that_the_broker_takes_is_out_without_a_turn_of_the_event_loop() -> None:
    broker, collector = Prompt(), MetricsCollector()
    async with bus_on(broker, full_chain(collector)) as bus:
        receipts = [at_once(bus.publish(TOPIC, telemetry(number), delivery=CORE)) for number in range(3)]
        account = bus.published[EventKind.TELEMETRY]
    contents = [json.loads(message.payload) for message in broker.offered]
    assert [receipt.message_id for receipt in receipts] == [content["id"] for content in contents]
    assert [content["sequence"][-1] for content in contents] == ["1", "2", "3"]
    assert [content["correlationid"] for content in contents] == broker.ids
    assert len(set(broker.ids)) == 3
    assert current_correlation_id() is None
    assert broker.published == []
    assert (account.published, account.confirmed, account.waiting) == (3, 3, 0)
    assert messages(collector, "published") == 3


@pytest.mark.parametrize("answer", [False, BusConnectionError("gone"), PublishError("not now")])
async def test_what_the_broker_does_not_take_at_once_goes_the_way_that_waits(answer: Exception | bool) -> None:
    broker, collector = Prompt(), MetricsCollector()
    broker.answer = answer
    async with bus_on(broker, full_chain(collector, on_error=pytest.fail)) as bus:
        with correlation_scope("around"):
            receipt = await bus.publish(TOPIC, telemetry(), delivery=CORE)
        account = bus.published[EventKind.TELEMETRY]
    assert broker.offered == broker.published
    assert receipt.message_id == broker.published[0].message_id
    assert (account.published, account.confirmed, account.dropped) == (1, 1, {})
    assert messages(collector, "published") == 1


async def test_what_must_be_stored_what_is_too_large_and_what_has_no_time_is_not_offered() -> None:
    broker = Prompt()
    async with PolarisMessageBus(broker, clock=running_clock()) as bus:
        assert (await bus.publish(TOPIC, telemetry())).delivery is STORED
        with pytest.raises(PayloadTooLargeError):
            await bus.publish("polaris.health.store", health("x" * (1 << 20)))
        with pytest.raises(InvalidValueError):
            await bus.publish("polaris.health.store", health(), timeout_s=-1)
        assert broker.offered == []


async def test_others_get_a_turn_now_and_then() -> None:
    broker = Prompt()
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with bus_on(broker) as bus:
        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0)
        before = turns
        for number in range(10 * _memory.YIELD_EVERY):
            await bus.publish(TOPIC, telemetry(number))
        assert turns - before == 10
        ticking.cancel()
    assert len(broker.published) == 10


async def test_a_refusal_reaches_the_publisher_and_everybody_who_counts() -> None:
    broker, collector, told = Prompt(), MetricsCollector(), []
    broker.answer = refusal = InvalidTopicError("no")
    with capture_logs() as logs:
        chain = full_chain(collector, on_error=lambda context, error, began_ns: told.append(error))
        async with bus_on(broker, chain) as bus:
            event = telemetry()
            with pytest.raises(InvalidTopicError):
                await bus.publish(TOPIC, event)
            broker.answer = True
            await bus.publish(TOPIC, event)
            account = bus.published[EventKind.TELEMETRY]
    assert told == [refusal]
    assert [line["message"] for line in logs] == ["message not published"]
    assert logs[0]["correlation_id"] == broker.ids[0]
    assert current_correlation_id() is None
    assert broker.published == []
    assert account.dropped == {"rejected": 1}
    assert (account.published, account.confirmed) == (2, 1)
    assert (messages(collector, "publish_failed"), messages(collector, "published")) == (1, 1)
    first, second = (json.loads(message.payload)["sequence"] for message in broker.offered)
    assert first == second


async def test_what_went_well_at_once_is_logged_for_those_who_want_to_know() -> None:
    with capture_logs() as logs:
        async with bus_on(Prompt(), full_chain(MetricsCollector(), level="DEBUG")) as bus:
            at_once(bus.publish(TOPIC, telemetry()))
    assert [line["message"] for line in logs] == ["message published"]


async def test_the_logging_middleware_makes_an_id_current_where_nobody_else_has() -> None:
    seen: list[tuple[str | None, str | None]] = []

    def send(context: MessageContext) -> Receipt:
        seen.append((context.correlation_id, current_correlation_id()))
        return Receipt(delivery=CORE, message_id=None)

    logger = StructuredLogger("bus", LoggingConfig(console_enabled=False))
    sent = MiddlewareChain([LoggingMiddleware(logger)]).bind_outward(send)(MessageContext(TOPIC, telemetry()))
    assert not isinstance(sent, Receipt)
    await sent
    ((mine, current),) = seen
    assert mine is not None
    assert mine == current


class Watching(MessageMiddleware):
    """Notes what passes, and waits a moment with it."""

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes

    async def process(self, context: MessageContext, next_handler: NextHandler) -> Any:
        self._notes.append("in")
        await asyncio.sleep(0)
        result = await next_handler(context)
        assert result is context.result
        self._notes.append("out")
        return result


@pytest.mark.parametrize("place", range(4))
async def test_a_middleware_of_ones_own_stands_where_it_was_put(place: int) -> None:
    notes: list[str] = []
    broker, collector = Prompt(), MetricsCollector()
    chain = full_chain(collector)
    chain.insert(place, Watching(notes))
    async with bus_on(broker, chain) as bus:
        receipt = await bus.publish(TOPIC, telemetry())
    assert notes == ["in", "out"]
    assert [message.message_id for message in broker.offered] == [receipt.message_id]
    assert broker.published == []
    assert messages(collector, "published") == 1


async def test_a_middleware_that_stops_an_event_is_no_silent_loss_where_nothing_waits() -> None:
    async def stop(context: MessageContext, next_handler: NextHandler) -> None:
        return None

    broker = Prompt()
    async with bus_on(broker, [stop]) as bus:
        with pytest.raises(PublishError, match="a middleware stopped the event"):
            await bus.publish(TOPIC, telemetry())
    assert broker.offered == []


async def test_a_chain_that_is_measured_knows_how_long_each_took() -> None:
    collector, measure = MetricsCollector(), MetricsCollector()
    async with bus_on(Prompt(), MiddlewareChain(full_chain(collector), measure=measure)) as bus:
        await bus.publish(TOPIC, telemetry())
    timers = [measure.operation_timer("middleware", name).count for name in ("tracing", "logging", "metrics")]
    assert timers == [1, 1, 1]
    assert messages(collector, "published") == 1


async def test_a_part_that_was_replaced_is_asked_by_its_own() -> None:
    asked: list[str] = []

    class OwnAround(MetricsMiddleware):
        def around(self, next_handler: NextHandler) -> NextHandler:
            inner = super().around(next_handler)

            async def run(context: MessageContext) -> Any:
                asked.append("around")
                return await inner(context)

            return run

    class OwnOutward(OwnAround):
        def around(self, next_handler: NextHandler) -> NextHandler:
            return super().around(next_handler)

        def outward(self, send: Send) -> Send:
            inner = super().outward(send)

            def run(context: MessageContext) -> Receipt | Awaitable[Any]:
                asked.append("outward")
                return inner(context)

            return run

    class OwnProcess(MetricsMiddleware):
        async def process(self, context: MessageContext, next_handler: NextHandler) -> Any:
            asked.append("process")
            return await super().process(context, next_handler)

    for own in (OwnAround, OwnOutward, OwnProcess):
        asked.clear()
        collector = MetricsCollector()
        async with bus_on(Prompt(), [own(collector)]) as bus:
            await bus.publish(TOPIC, telemetry())
        assert asked == [own.__name__.removeprefix("Own").lower()]
        assert messages(collector, "published") == 1


async def test_a_broker_whose_publish_was_replaced_is_asked_by_that() -> None:
    sent: list[OutgoingMessage] = []

    class Own(InMemoryMessageBroker):
        async def publish(self, message: OutgoingMessage, **options: Any) -> Receipt:
            sent.append(message)
            return await super().publish(message, **options)

    replaced = InMemoryMessageBroker(clock=running_clock())
    original = replaced.publish

    async def publish(message: OutgoingMessage, **options: Any) -> Receipt:
        sent.append(message)
        return await original(message, **options)

    for broker in (Own(clock=running_clock()), replaced):
        sent.clear()
        async with bus_on(broker) as bus:
            # At any time.
            replaced.publish = publish  # type: ignore[method-assign]
            receipt = await bus.publish(TOPIC, telemetry())
        assert [message.message_id for message in sent] == [receipt.message_id]
