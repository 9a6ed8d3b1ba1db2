"""What publishing promises: which guarantee, which errors, and no event twice."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.unit.messaging.doubles import STORED, eventually, health, new_bus, running_bus, telemetry

from polaris._correlation import correlation_scope
from polaris.domain import ConfigChangedEvent, ExecutionResult, ExecutionResultEvent, ExecutionStatus, PolarisEvent
from polaris.exceptions import (
    BusConnectionError,
    ConfigurationError,
    InvalidTopicError,
    InvalidValueError,
    MessageBusError,
    PayloadTooLargeError,
    PublishError,
    UnconfirmedPublishError,
    UnknownEventTypeError,
)
from polaris.messaging import (
    MESSAGE_ID_HEADER,
    Capabilities,
    ConnectionState,
    Delivery,
    DeliveryClass,
    InMemoryMessageBroker,
    MessageContext,
    OutgoingMessage,
    PolarisMessageBus,
    Receipt,
    StreamSpec,
)
from polaris.observability import start_trace, trace_scope
from polaris.testing import running_clock


class UnsureBroker(InMemoryMessageBroker):
    """Answers publishes with the outcomes it was given; `None` stands for the truth."""

    def __init__(self, *outcomes: MessageBusError | None, store_first: bool = True) -> None:
        super().__init__(clock=running_clock())
        self.outcomes = list(outcomes)
        self.store_first = store_first
        self.attempts: list[str | None] = []

    async def publish(
        self,
        message: OutgoingMessage,
        *,
        delivery: DeliveryClass = DeliveryClass.AT_MOST_ONCE,
        timeout_s: float = 5.0,
    ) -> Receipt:
        self.attempts.append(message.message_id)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if outcome is None:
            return await super().publish(message, delivery=delivery, timeout_s=timeout_s)
        if isinstance(outcome, UnconfirmedPublishError):
            if self.store_first:
                await super().publish(message, delivery=delivery, timeout_s=timeout_s)
            await asyncio.sleep(timeout_s)
        raise type(outcome)(outcome.message)


async def stored(bus: PolarisMessageBus, stream: str = "POLARIS_TELEMETRY") -> list[Any]:
    return [json.loads(message.payload) for message in await bus.broker.read_stored(stream, count_max=10_000)]


async def test_telemetry_adaptations_and_results_are_stored() -> None:
    async with running_bus() as bus:
        result = ExecutionResultEvent(ExecutionResult("a", ExecutionStatus.SUCCESS))
        receipts = [
            await bus.publish_telemetry(telemetry()),
            await bus.publish("polaris.adaptations.web", health()),
            await bus.publish("polaris.executions.web", result),
        ]
    assert [receipt.stream for receipt in receipts] == [
        "POLARIS_TELEMETRY",
        "POLARIS_ADAPTATIONS",
        "POLARIS_EXECUTIONS",
    ]
    assert all(receipt.delivery is STORED and receipt.sequence == 1 for receipt in receipts)
    assert receipts[2].message_id == result.event_id


async def test_health_and_configuration_are_not_stored_unless_asked() -> None:
    async with running_bus(streams=(StreamSpec(name="ALL", subjects=("polaris.dead_letter.>",)),)) as bus:
        for topic, event in (("polaris.health.x", health()), ("polaris.config.updates", ConfigChangedEvent())):
            receipt = await bus.publish(topic, event)
            assert receipt.delivery is DeliveryClass.AT_MOST_ONCE
        with pytest.raises(PublishError):
            await bus.publish("polaris.health.x", health(), delivery=STORED)


async def test_telemetry_may_go_without_storing() -> None:
    async with running_bus() as bus:
        receipt = await bus.publish("polaris.telemetry.web", telemetry(), delivery=DeliveryClass.AT_MOST_ONCE)
        assert (receipt.delivery, receipt.sequence) == (DeliveryClass.AT_MOST_ONCE, None)


async def test_a_bus_that_does_not_run_refuses() -> None:
    bus = new_bus()
    for _ in range(2):
        with pytest.raises(BusConnectionError):
            await bus.publish_telemetry(telemetry())
        with pytest.raises(BusConnectionError):
            await bus.publish_many([telemetry()])
        with pytest.raises(BusConnectionError):
            await bus.request("polaris.health.x", health())
        await bus.start()
        await bus.stop()
    assert not bus.started


@pytest.mark.parametrize("topic", ["polaris.telemetry.*", "polaris.>", "", "a b", "$SYS.x"])
async def test_an_illegal_topic_is_refused(topic: str) -> None:
    async with running_bus() as bus:
        with pytest.raises(InvalidTopicError):
            await bus.publish(topic, telemetry())
        with pytest.raises(InvalidTopicError):
            await bus.publish_many([telemetry()], topic=topic)


async def test_an_unregistered_event_is_refused() -> None:
    class Stray(PolarisEvent, frozen=True):
        pass

    async with running_bus() as bus:
        with pytest.raises(UnknownEventTypeError):
            await bus.publish("polaris.health.x", Stray())


async def test_an_oversized_event_is_refused_with_size_and_limit() -> None:
    broker = InMemoryMessageBroker(clock=running_clock(), payload_bytes_max=2_000)
    async with PolarisMessageBus(broker, clock=running_clock()) as bus:
        with pytest.raises(PayloadTooLargeError) as caught:
            await bus.publish("polaris.health.x", health("m" * 3_000))
        assert caught.value.payload_bytes_max == 2_000
        assert caught.value.payload_bytes > 3_000


async def test_an_unconfirmed_event_is_sent_again_with_its_id_and_stored_once() -> None:
    broker = UnsureBroker(UnconfirmedPublishError("no answer"), None)
    event = telemetry()
    async with PolarisMessageBus(broker, clock=running_clock()) as bus:
        receipt = await bus.publish_telemetry(event)
        assert receipt.duplicate
        assert broker.attempts == [event.event_id, event.event_id]
        assert [one["id"] for one in await stored(bus)] == [event.event_id]


async def test_what_was_not_sent_is_tried_again_until_the_time_is_up() -> None:
    broker = UnsureBroker(BusConnectionError("away"))
    clock = running_clock()
    async with PolarisMessageBus(broker, clock=clock) as bus:
        began_s = clock.monotonic()
        with pytest.raises(BusConnectionError):
            await bus.publish_telemetry(telemetry(), timeout_s=3.0)
        assert 1.0 <= clock.monotonic() - began_s <= 3.0
        assert 4 <= len(broker.attempts) <= 12


async def test_a_publish_without_answer_ends_in_time() -> None:
    clock = running_clock()
    async with PolarisMessageBus(UnsureBroker(UnconfirmedPublishError("no answer")), clock=clock) as bus:
        began_s = clock.monotonic()
        with pytest.raises(UnconfirmedPublishError):
            await bus.publish_telemetry(telemetry(), timeout_s=2.0)
        assert clock.monotonic() - began_s <= 2.0


@pytest.mark.parametrize("later", [BusConnectionError("away"), PublishError("refused")], ids=["away", "refused"])
async def test_an_attempt_that_may_be_stored_makes_the_outcome_unknown(later: MessageBusError) -> None:
    broker = UnsureBroker(UnconfirmedPublishError("no answer"), later)
    async with PolarisMessageBus(broker, clock=running_clock()) as bus:
        with pytest.raises(UnconfirmedPublishError):
            await bus.publish_telemetry(telemetry(), timeout_s=2.0)


async def test_an_attempt_that_the_deadline_cuts_off_may_have_been_stored() -> None:
    class SilentBroker(UnsureBroker):
        async def publish(self, message: OutgoingMessage, **options: Any) -> Receipt:
            if self.attempts:
                await asyncio.Event().wait()
            return await super().publish(message, **options)

    broker = SilentBroker(BusConnectionError("away"))
    async with PolarisMessageBus(broker, clock=running_clock()) as bus:
        with pytest.raises(UnconfirmedPublishError):
            await bus.publish_telemetry(telemetry(), timeout_s=3.0)


async def test_what_was_never_sent_until_the_time_was_up_is_no_doubt() -> None:
    broker = UnsureBroker(BusConnectionError("away"))
    clock = running_clock()
    async with PolarisMessageBus(broker, clock=clock) as bus:
        began_s = clock.monotonic()
        with pytest.raises(BusConnectionError):
            await bus.publish_telemetry(telemetry(), timeout_s=3.0)
    assert 2.0 < clock.monotonic() - began_s <= 3.0
    assert len(broker.attempts) > 3


async def test_a_refusal_is_tried_a_few_times_only() -> None:
    broker = UnsureBroker(PublishError("no stream"))
    async with PolarisMessageBus(broker, clock=running_clock()) as bus:
        with pytest.raises(PublishError):
            await bus.publish_telemetry(telemetry(), timeout_s=60.0)
        assert len(broker.attempts) == 4


async def test_many_publishes_wait_at_the_same_time() -> None:
    class SlowBroker(InMemoryMessageBroker):
        async def publish(self, message: OutgoingMessage, **options: Any) -> Receipt:
            await asyncio.sleep(0.1)
            return await super().publish(message, **options)

    clock = running_clock()
    async with PolarisMessageBus(SlowBroker(clock=clock), clock=clock) as bus:
        began_s = clock.monotonic()
        topic = "polaris.telemetry.web"
        receipts = await asyncio.gather(*(bus.publish(topic, telemetry(n)) for n in range(200)))
        assert clock.monotonic() - began_s < 0.2
        assert sorted(receipt.sequence or 0 for receipt in receipts) == list(range(1, 201))


async def test_a_cancelled_publish_is_cancelled() -> None:
    async with PolarisMessageBus(UnsureBroker(UnconfirmedPublishError("no answer")), clock=running_clock()) as bus:
        waiting = asyncio.create_task(bus.publish_telemetry(telemetry()))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_an_event_takes_the_correlation_id_of_the_scope() -> None:
    async with running_bus() as bus:
        with correlation_scope("chain-1"):
            await bus.publish_telemetry(telemetry(correlation_id=None))
            await bus.publish_telemetry(telemetry(correlation_id="own"))
            await bus.publish_many([telemetry(correlation_id=None), telemetry(correlation_id="own")])
        await bus.publish_telemetry(telemetry(correlation_id=None))
        first, second, batch, alone = await stored(bus)
    assert [first["correlationid"], second["correlationid"]] == ["chain-1", "own"]
    assert [one["correlationid"] for one in batch] == ["chain-1", "own"]
    assert len(alone["correlationid"]) == 32


async def test_the_running_trace_goes_with_the_event() -> None:
    async with running_bus() as bus:
        with trace_scope(start_trace(sampled=True)) as trace:
            await bus.publish_telemetry(telemetry())
            await bus.publish_many([telemetry(), telemetry()])
        single, batch = await stored(bus)
    assert single["traceparent"] == trace.traceparent
    assert batch[1]["traceparent"] == trace.traceparent


async def test_headers_travel_and_a_middleware_may_add_some() -> None:
    async def add_header(context: MessageContext, next_handler: Any) -> Any:
        context.headers["Polaris-Added"] = "1"
        return await next_handler(context)

    async with running_bus(middlewares=[add_header]) as bus:
        await bus.publish_telemetry(telemetry())
        await bus.publish("polaris.telemetry.web", telemetry(), headers={"Polaris-Given": "2"})
        first, second = await bus.broker.read_stored("POLARIS_TELEMETRY")
    assert set(first.headers) == {"Polaris-Added", MESSAGE_ID_HEADER}
    assert {**second.headers, MESSAGE_ID_HEADER: ""} == {
        "Polaris-Given": "2",
        "Polaris-Added": "1",
        MESSAGE_ID_HEADER: "",
    }


async def test_a_middleware_that_stops_an_event_is_no_silent_loss() -> None:
    async def stop(context: MessageContext, next_handler: Any) -> None:
        return None

    async with running_bus(middlewares=[stop]) as bus:
        with pytest.raises(PublishError, match="middleware"):
            await bus.publish_telemetry(telemetry())
        with pytest.raises(PublishError, match="middleware"):
            await bus.publish_many([telemetry()])
        with pytest.raises(PublishError, match="middleware"):
            await bus.request("polaris.health.x", health())
        assert await stored(bus) == []


async def test_many_events_travel_in_few_messages_and_keep_their_order() -> None:
    events = [telemetry(n) for n in range(1_000)]
    async with running_bus() as bus:
        receipts = await bus.publish_many(events)
        messages = await stored(bus)
    assert len(receipts) == 1_000
    assert len(messages) == 2
    assert [one["id"] for message in messages for one in message] == [event.event_id for event in events]
    assert [receipts[0].sequence, receipts[-1].sequence] == [1, 2]


async def test_events_go_to_their_own_topics_and_receipts_come_in_their_order() -> None:
    events = [telemetry(n, system_id=f"s{n % 3}") for n in range(9)]
    async with running_bus() as bus:
        receipts = await bus.publish_many(events)
        messages = await bus.broker.read_stored("POLARIS_TELEMETRY")
    assert {message.subject for message in messages} == {f"polaris.telemetry.s{n}" for n in range(3)}
    for event, receipt in zip(events, receipts, strict=True):
        message = next(message for message in messages if message.sequence == receipt.sequence)
        assert message.subject == f"polaris.telemetry.{event.system_state.system_id}"
        assert event.event_id in message.payload.decode()


async def test_publishing_the_same_events_again_stores_nothing_twice() -> None:
    events = [telemetry(n) for n in range(20)]
    async with running_bus() as bus:
        await bus.publish_many(events)
        again = await bus.publish_many(events)
        assert all(receipt.duplicate for receipt in again)
        assert len(await stored(bus)) == 1


async def test_messages_of_many_events_stay_under_the_limit() -> None:
    broker = InMemoryMessageBroker(clock=running_clock(), payload_bytes_max=5_000)
    events = [health("m" * 600) for _ in range(50)]
    async with PolarisMessageBus(broker, clock=running_clock()) as bus:
        sizes: list[int] = []

        async def on_delivery(delivery: Delivery) -> None:
            sizes.append(len(delivery.payload))

        await broker.subscribe("polaris.health.*", on_delivery)
        await bus.publish_many(events)
        await eventually(lambda: len(sizes) >= 10)
        with pytest.raises(PayloadTooLargeError):
            await bus.publish_many([health(), health("m" * 6_000)])
    assert max(sizes) <= 5_000


async def test_one_event_alone_is_no_batch() -> None:
    event = telemetry()
    async with running_bus() as bus:
        (receipt,) = await bus.publish_many([event])
        assert receipt.message_id == event.event_id
        assert (await stored(bus))[0]["id"] == event.event_id
        assert await bus.publish_many([]) == []


async def test_a_failing_topic_does_not_keep_others_from_being_published() -> None:
    class PickyBroker(InMemoryMessageBroker):
        async def publish(self, message: OutgoingMessage, **options: Any) -> Receipt:
            if message.subject.endswith(".bad"):
                raise PayloadTooLargeError(message.subject, payload_bytes=2, payload_bytes_max=1)
            return await super().publish(message, **options)

    clock = running_clock()
    async with PolarisMessageBus(PickyBroker(clock=clock), clock=clock) as bus:
        with pytest.raises(PayloadTooLargeError):
            await bus.publish_many([telemetry(1, "bad"), telemetry(2, "good")])
        assert [one["subject"] for one in await stored(bus)] == ["good"]


async def test_an_event_without_a_topic_of_its_own_needs_one() -> None:
    async with running_bus() as bus:
        with pytest.raises(InvalidTopicError):
            await bus.publish_many([ConfigChangedEvent()])
        assert len(await bus.publish_many([ConfigChangedEvent()], topic="polaris.config.updates")) == 1


async def test_a_broker_that_cannot_redeliver_is_refused_at_start() -> None:
    class Forgetful(InMemoryMessageBroker):
        @property
        def capabilities(self) -> Capabilities:
            return Capabilities(
                durable=False, redelivers=False, ordered=True, deduplicates=False, payload_bytes_max=1 << 20
            )

    clock = running_clock()
    bus = PolarisMessageBus(Forgetful(clock=clock), clock=clock)
    with pytest.raises(ConfigurationError):
        await bus.start()
    assert bus.state is ConnectionState.CLOSED
    async with PolarisMessageBus(Forgetful(clock=clock), streams=(), clock=clock) as without:
        receipt = await without.publish_telemetry(telemetry())
        assert receipt.delivery is DeliveryClass.AT_MOST_ONCE


async def test_a_start_that_fails_leaves_nothing_connected() -> None:
    clock = running_clock()
    overlapping = (
        StreamSpec(name="A", subjects=("polaris.>",)),
        StreamSpec(name="B", subjects=("polaris.telemetry.>",)),
    )
    bus = PolarisMessageBus(InMemoryMessageBroker(clock=clock), streams=overlapping, clock=clock)
    with pytest.raises(MessageBusError):
        await bus.start()
    assert not bus.started
    assert bus.state is ConnectionState.CLOSED


async def test_a_bus_may_be_started_twice_and_again() -> None:
    bus = new_bus()
    await bus.start()
    await bus.start()
    assert bus.state is ConnectionState.CONNECTED
    await bus.stop()
    await bus.start()
    assert (await bus.publish_telemetry(telemetry())).sequence == 1
    await bus.stop()


async def test_a_negative_grace_period_is_refused() -> None:
    with pytest.raises(InvalidValueError):
        new_bus(grace_s=-1)
