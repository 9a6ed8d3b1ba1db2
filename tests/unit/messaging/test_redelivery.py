"""What becomes of a message whose handler fails, hangs or never sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from tests.unit.messaging.doubles import eventually, health, number_of, publish_raw, running_bus, telemetry

from polaris.domain import TelemetryEvent
from polaris.exceptions import (
    BusConnectionError,
    CircuitBreakerOpenException,
    ConflictError,
    InvalidValueError,
    PublishError,
    StoreConnectionError,
)
from polaris.messaging import (
    ConsumerInfo,
    ConsumerSpec,
    DeadLetterReason,
    Delivery,
    DeliveryClass,
    EventCodec,
    InMemoryHub,
    InMemoryMessageBroker,
    OutgoingMessage,
    PolarisMessageBus,
    PullConsumer,
    Receipt,
    RedeliveryPolicy,
)
from polaris.messaging._streams import ADVISORY_STREAM
from polaris.messaging.brokers._memory_deliveries import StreamDelivery
from polaris.testing import running_clock

TOPIC = "polaris.telemetry.web"
POLICY = RedeliveryPolicy(max_deliveries=4, base_delay_s=1.0, max_delay_s=8.0, jitter=0.5)


async def test_a_failed_message_comes_again_with_growing_delays_and_is_then_put_aside() -> None:
    clock = running_clock()
    when: list[float] = []
    event = telemetry()

    async def handle(event: TelemetryEvent) -> None:
        when.append(clock.monotonic())
        raise StoreConnectionError("no store")

    async with running_bus(redelivery=POLICY) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="writer")
        await bus.publish_telemetry(event)
        await eventually(lambda: subscription.stats.dead_lettered == 1)
        (record,) = await bus.dead_letters.list()
        assert subscription.in_flight == 0
    gaps = [later - earlier for earlier, later in pairwise(when)]
    assert len(gaps) == 3
    for gap, ceiling_s in zip(gaps, (1.0, 2.0, 4.0), strict=True):
        assert 0.5 * ceiling_s <= gap <= ceiling_s + 0.1
    entry = record.entry
    assert (entry.reason, entry.error_code, entry.attempts) == (
        DeadLetterReason.EXHAUSTED,
        "polaris.store.connection",
        4,
    )
    assert (entry.topic, entry.subscription, entry.stream, entry.sequence) == (TOPIC, "writer", "POLARIS_TELEMETRY", 1)
    assert EventCodec().decode(entry.payload).event.event_id == event.event_id
    assert entry.first_at < entry.failed_at


async def test_an_error_that_repeating_cannot_help_puts_aside_at_once() -> None:
    calls = 0

    async def handle(event: TelemetryEvent) -> None:
        nonlocal calls
        calls += 1
        raise ConflictError("exists")

    async with running_bus(redelivery=POLICY) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry())
        await eventually(lambda: subscription.stats.dead_lettered == 1)
        await asyncio.sleep(100)
        (record,) = await bus.dead_letters.list()
    assert calls == 1
    assert (record.entry.reason, record.entry.error_code) == (DeadLetterReason.REFUSED, "polaris.store.conflict")


async def test_an_error_of_user_code_is_tried_again() -> None:
    calls = 0

    async def handle(event: TelemetryEvent) -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise KeyError("x")

    async with running_bus(redelivery=POLICY) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry())
        await eventually(lambda: subscription.stats.handled == 1)
    stats = subscription.stats
    assert (stats.received, stats.redelivered, stats.failed, stats.retried, stats.dead_lettered) == (3, 2, 2, 2, 0)


async def test_retry_after_of_the_error_is_honoured() -> None:
    clock = running_clock()
    when: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        when.append(clock.monotonic())
        if len(when) == 1:
            raise CircuitBreakerOpenException("store", retry_after=40.0)

    async with running_bus(redelivery=POLICY) as bus:
        await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry())
        await eventually(lambda: len(when) == 2)
    assert when[1] - when[0] >= 40.0


HOSTILE = [
    (b"\x00\xff noise", DeadLetterReason.UNDECODABLE),
    (b"", DeadLetterReason.UNDECODABLE),
    (b'{"specversion":"1.0"', DeadLetterReason.UNDECODABLE),
    (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, DeadLetterReason.UNDECODABLE),
    (b"[" * 200_000, DeadLetterReason.UNDECODABLE),
    (b'{"specversion":"1.0","type":"acme.x","id":"1","source":"s"}', DeadLetterReason.UNKNOWN_TYPE),
    (b'{"specversion":"0.3","type":"polaris.telemetry","id":"1","source":"s"}', DeadLetterReason.UNDECODABLE),
]


@pytest.mark.parametrize(("payload", "reason"), HOSTILE)
async def test_bytes_that_are_no_event_are_put_aside_at_once_with_their_headers(
    payload: bytes, reason: DeadLetterReason
) -> None:
    async def handle(event: TelemetryEvent) -> None:
        raise AssertionError("must not be called")

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await publish_raw(bus, TOPIC, payload, Origin="test")
        await eventually(lambda: subscription.stats.dead_lettered == 1)
        await eventually(lambda: subscription.in_flight == 0)
        (record,) = await bus.dead_letters.list()
    entry = record.entry
    assert (entry.reason, entry.payload, entry.attempts, entry.headers) == (reason, payload, 1, {"Origin": "test"})


async def test_hostile_messages_between_good_ones_harm_none_of_them() -> None:
    seen: list[float] = []
    bad = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        for n in range(100):
            await bus.publish_telemetry(telemetry(n))
            payload, _ = HOSTILE[n % len(HOSTILE)]
            bad.append(payload)
            await publish_raw(bus, TOPIC, payload)
        await eventually(lambda: subscription.stats.received == 200 and subscription.in_flight == 0)
        records = await bus.dead_letters.list(count_max=1_000)
    assert seen == [float(n) for n in range(100)]
    assert [record.entry.payload for record in records] == bad


async def test_a_failing_or_stuck_handler_holds_up_nobody_else() -> None:
    seen: list[float] = []
    release = asyncio.Event()

    async def good(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    async def failing(event: TelemetryEvent) -> None:
        raise ValueError("no")

    async def stuck(event: TelemetryEvent) -> None:
        await release.wait()

    clock = running_clock()
    async with running_bus(grace_s=1.0) as bus:
        for handler in (failing, stuck, good):
            await bus.subscribe("polaris.telemetry.*", handler)
        began_s = clock.monotonic()
        for n in range(50):
            await bus.publish_telemetry(telemetry(n))
        await eventually(lambda: len(seen) == 50)
        assert clock.monotonic() - began_s < 1.0
        release.set()


async def test_a_message_is_given_up_only_after_its_dead_letter_is_stored() -> None:
    class Reluctant(InMemoryMessageBroker):
        """Does not take dead letters until told so."""

        willing = False

        async def publish(self, message: OutgoingMessage, **options: Any) -> Receipt:
            if message.subject.startswith("polaris.dead_letter.") and not self.willing:
                raise PublishError("not now")
            return await super().publish(message, **options)

    async def handle(event: TelemetryEvent) -> None: ...

    clock = running_clock()
    broker = Reluctant(clock=clock)
    async with PolarisMessageBus(broker, redelivery=POLICY, clock=clock) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await publish_raw(bus, TOPIC, b"noise")
        await asyncio.sleep(200)
        assert subscription.stats.retried > POLICY.max_deliveries
        assert await bus.dead_letters.list() == []
        broker.willing = True
        await eventually(lambda: subscription.stats.dead_lettered == 1)
        await asyncio.sleep(200)
        (record,) = await bus.dead_letters.list()
        assert record.entry.payload == b"noise"
        assert record.entry.reason is DeadLetterReason.UNDECODABLE


async def test_a_message_that_nobody_survives_is_put_aside_unseen() -> None:
    calls = 0

    async def handle(event: TelemetryEvent) -> None:
        nonlocal calls
        calls += 1

    async with running_bus(redelivery=POLICY) as bus:
        await bus.publish_telemetry(telemetry())
        spec = ConsumerSpec(stream="POLARIS_TELEMETRY", durable="fatal", pattern="polaris.telemetry.*", ack_wait_s=1.0)
        consumer = await bus.broker.consumer(spec)
        for _ in range(POLICY.deliveries_max):
            await consumer.fetch(1, wait_s=10.0)
        await consumer.close()
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="fatal")
        await eventually(lambda: subscription.stats.dead_lettered == 1)
        (record,) = await bus.dead_letters.list()
    assert calls == 0
    assert (record.entry.reason, record.entry.attempts) == (DeadLetterReason.ABANDONED, POLICY.deliveries_max + 1)


async def test_deliveries_that_ended_otherwise_are_not_held_against_a_message() -> None:
    hub = InMemoryHub(clock=running_clock())
    calls = 0
    trouble = True

    async def handle(event: TelemetryEvent) -> None:
        nonlocal calls
        if trouble:
            await asyncio.sleep(100)
        calls += 1
        if calls < POLICY.max_deliveries:
            raise KeyError("x")

    for _ in range(POLICY.max_deliveries + 2):
        async with running_bus(hub, redelivery=POLICY, grace_s=0.1) as bus:
            if not hub.streams["POLARIS_TELEMETRY"].last_sequence:
                await bus.publish_telemetry(telemetry())
            await bus.subscribe("polaris.telemetry.*", handle, durable="w")
            await asyncio.sleep(1)
    trouble = False
    async with running_bus(hub, redelivery=POLICY) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="w")
        await eventually(lambda: subscription.stats.handled == 1)
        assert await bus.dead_letters.list() == []
    assert calls == POLICY.max_deliveries


async def test_what_is_known_of_failures_is_bounded_and_forgotten_with_the_message() -> None:
    async def handle(event: TelemetryEvent) -> None:
        if number_of(event) % 2:
            raise KeyError("x")

    async with running_bus(redelivery=POLICY) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        for n in range(20):
            await bus.publish("polaris.telemetry.web", telemetry(n))
        await eventually(lambda: subscription.stats.dead_lettered == 10 and subscription.in_flight == 0)
        assert subscription._route._settlement._failures == {}  # type: ignore[attr-defined]


async def test_a_handler_that_hangs_is_cancelled_and_its_message_comes_again() -> None:
    calls = 0
    cancelled = 0

    async def handle(event: TelemetryEvent) -> None:
        nonlocal calls, cancelled
        calls += 1
        if calls == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                raise

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, handler_timeout_s=5.0)
        await bus.publish_telemetry(telemetry())
        await eventually(lambda: subscription.stats.handled == 1)
    assert (calls, cancelled, subscription.stats.failed) == (2, 1, 1)


async def test_a_timeout_of_the_handlers_own_is_an_error_like_any_other() -> None:
    calls = 0

    async def handle(event: TelemetryEvent) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise TimeoutError("of the handler")

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry())
        await eventually(lambda: subscription.stats.handled == 1)
    assert calls == 2


@pytest.mark.parametrize("batches", [False, True])
async def test_a_cancellation_that_escapes_a_handler_ends_neither_worker_nor_message(batches: bool) -> None:
    calls = 0

    async def fail_once() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise asyncio.CancelledError

    async def one(event: TelemetryEvent) -> None:
        await fail_once()

    async def many(events: list[TelemetryEvent]) -> None:
        await fail_once()

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", many if batches else one)
        await bus.publish_telemetry(telemetry())
        await eventually(lambda: subscription.stats.handled == 1)
    assert calls == 2


async def test_a_long_handler_keeps_its_message_by_heartbeats() -> None:
    calls = 0

    async def handle(event: TelemetryEvent) -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(120)

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, ack_wait_s=6.0)
        await bus.publish_telemetry(telemetry(1))
        await bus.publish_telemetry(telemetry(2))
        await eventually(lambda: subscription.stats.handled == 2)
    assert (calls, subscription.stats.redelivered) == (2, 0)


async def test_a_message_is_acknowledged_after_its_handler_returned_not_before() -> None:
    release = asyncio.Event()

    async def handle(event: TelemetryEvent) -> None:
        await release.wait()

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry())
        await asyncio.sleep(1)
        info = await subscription.info()
        assert info is not None
        assert info.ack_pending == 1
        release.set()
        await asyncio.sleep(1)
        info = await subscription.info()
        assert info is not None
        assert info.ack_pending == 0


async def test_core_deliveries_that_fail_are_counted_as_lost() -> None:
    calls = 0

    async def handle(event: Any) -> None:
        nonlocal calls
        calls += 1
        raise ValueError("no")

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.health.*", handle)
        await bus.publish("polaris.health.store", health())
        await publish_raw(bus, "polaris.health.store", b"noise", delivery=DeliveryClass.AT_MOST_ONCE)
        await eventually(lambda: subscription.stats.received == 2 and subscription.in_flight == 0)
        (record,) = await bus.dead_letters.list()
    assert (calls, subscription.stats.lost, subscription.stats.dead_lettered) == (1, 1, 1)
    assert (record.entry.payload, record.entry.stream) == (b"noise", None)


# Batches.


async def test_what_succeeded_of_a_batch_message_is_not_repeated() -> None:
    seen: list[float] = []
    failures = 2

    async def handle(event: TelemetryEvent) -> None:
        nonlocal failures
        if number_of(event) == 2 and failures:
            failures -= 1
            raise KeyError("later")
        seen.append(number_of(event))

    async with running_bus(redelivery=POLICY) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_many([telemetry(n) for n in range(5)])
        await eventually(lambda: subscription.stats.handled == 5)
    assert seen == [0.0, 1.0, 3.0, 4.0, 2.0]


async def test_a_member_of_a_batch_message_is_put_aside_alone() -> None:
    seen: list[float] = []
    codec = EventCodec()
    bad = telemetry(2)

    async def handle(event: TelemetryEvent) -> None:
        if number_of(event) == 2:
            raise InvalidValueError("n", "another number", 2)
        seen.append(number_of(event))

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        payload = codec.join([codec.encode(telemetry(1)), codec.encode(bad), b'{"type":7}', codec.encode(telemetry(3))])
        await publish_raw(bus, TOPIC, payload)
        await eventually(lambda: subscription.stats.dead_lettered == 2 and subscription.in_flight == 0)
        records = await bus.dead_letters.list()
    assert seen == [1.0, 3.0]
    assert [record.entry.reason for record in records] == [DeadLetterReason.REFUSED, DeadLetterReason.UNDECODABLE]
    assert records[0].entry.payload == codec.encode(bad)
    assert records[1].entry.payload == b'{"type":7}'


async def test_a_poisonous_event_does_not_take_its_batch_with_it() -> None:
    handled: list[float] = []

    async def handle(events: Sequence[TelemetryEvent]) -> None:
        numbers = [number_of(event) for event in events]
        if 7.0 in numbers:
            raise InvalidValueError("n", "another number", 7)
        handled.extend(numbers)

    async with running_bus() as bus:
        for n in range(20):
            await bus.publish_telemetry(telemetry(n))
        await publish_raw(bus, TOPIC, b"noise")
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="writer")
        await eventually(lambda: subscription.stats.received == 21 and subscription.in_flight == 0)
        records = await bus.dead_letters.list()
    assert sorted(handled) == [float(n) for n in range(20) if n != 7]
    assert sorted(record.entry.reason for record in records) == [DeadLetterReason.REFUSED, DeadLetterReason.UNDECODABLE]


async def test_a_batch_that_fails_for_a_while_comes_again_as_a_whole() -> None:
    handled: list[float] = []
    failures = 2

    async def handle(events: list[TelemetryEvent]) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreConnectionError("no store")
        handled.extend(number_of(event) for event in events)

    async with running_bus(redelivery=POLICY) as bus:
        for n in range(20):
            await bus.publish_telemetry(telemetry(n))
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="writer")
        await eventually(lambda: subscription.stats.handled == 20)
    assert sorted(handled) == [float(n) for n in range(20)]
    assert subscription.stats.dead_lettered == 0


# A broker in trouble.


class TroubledBroker(InMemoryMessageBroker):
    """The consumers of its subscriptions go through `trouble` before they fetch."""

    fetches = 0
    attached = 0

    async def trouble(self) -> bool:
        return False

    async def consumer(self, spec: ConsumerSpec) -> PullConsumer:  # type: ignore[override] # wrapped
        if spec.stream == ADVISORY_STREAM.name:
            return await super().consumer(spec)
        self.attached += 1
        broker, consumer = self, await super().consumer(spec)

        class Troubled:
            async def fetch(self, count_max: int, *, wait_s: float) -> Sequence[Delivery]:
                broker.fetches += 1
                if await broker.trouble():
                    await asyncio.sleep(wait_s)
                    return []
                return await consumer.fetch(count_max, wait_s=wait_s)

            async def info(self) -> ConsumerInfo:
                return await consumer.info()

            async def close(self) -> None:
                await consumer.close()

        return Troubled()


@pytest.mark.parametrize(
    "error", [BusConnectionError("away"), RuntimeError("defect of the driver")], ids=["away", "defect"]
)
async def test_a_broker_that_is_away_is_asked_again_without_haste(error: Exception) -> None:
    class Away(TroubledBroker):
        away = True

        async def trouble(self) -> bool:
            if self.away:
                raise error
            return False

    seen: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    clock = running_clock()
    broker = Away(clock=clock)
    async with PolarisMessageBus(broker, clock=clock) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry(1))
        await asyncio.sleep(60)
        assert 10 <= broker.fetches <= 50
        broker.away = False
        await asyncio.sleep(6)
        assert seen == [1.0]
        assert subscription.stats.redelivered == 0


async def test_a_consumer_that_goes_deaf_is_attached_anew() -> None:
    class Deaf(TroubledBroker):
        async def trouble(self) -> bool:
            return self.attached == 1

    seen: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    clock = running_clock()
    broker = Deaf(clock=clock)
    async with PolarisMessageBus(broker, clock=clock) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry(1))
        await asyncio.sleep(60)
        assert seen == [1.0]
        assert subscription.stats.reattached == 1


async def test_a_fetch_that_never_returns_is_given_up() -> None:
    class Stuck(TroubledBroker):
        async def trouble(self) -> bool:
            if self.attached == 1:
                await asyncio.Event().wait()
            return False

    seen: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    clock = running_clock()
    async with PolarisMessageBus(Stuck(clock=clock), clock=clock) as bus:
        await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry(1))
        await asyncio.sleep(60)
    assert seen == [1.0]


async def test_an_idle_consumer_is_not_attached_anew() -> None:
    async def handle(event: TelemetryEvent) -> None: ...

    clock = running_clock()
    broker = TroubledBroker(clock=clock)
    async with PolarisMessageBus(broker, clock=clock) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await asyncio.sleep(600)
        assert (broker.attached, subscription.stats.reattached) == (1, 0)


async def test_a_cancellation_that_the_driver_leaks_ends_nothing() -> None:
    class Leaking(TroubledBroker):
        leaks = 3

        async def trouble(self) -> bool:
            if self.leaks:
                self.leaks -= 1
                raise asyncio.CancelledError
            return False

    seen: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    clock = running_clock()
    async with PolarisMessageBus(Leaking(clock=clock), clock=clock) as bus:
        await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry(1))
        await asyncio.sleep(60)
    assert seen == [1.0]


@pytest.mark.parametrize("leak", [asyncio.CancelledError(), RuntimeError("defect")], ids=["cancelled", "defect"])
async def test_an_acknowledgement_that_fails_oddly_ends_no_worker(
    leak: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    original = StreamDelivery.ack

    async def ack(self: StreamDelivery, *, confirm: bool = False) -> None:
        if len(seen) == 1:
            raise leak
        await original(self, confirm=confirm)

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    monkeypatch.setattr(StreamDelivery, "ack", ack)
    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        for n in range(3):
            await bus.publish_telemetry(telemetry(n))
        await eventually(lambda: len(seen) == 3)
        assert (subscription.in_flight, subscription.stats.unsettled) == (0, 1)


async def test_a_settlement_that_cannot_be_sent_is_counted() -> None:
    async with running_bus() as bus:

        async def handle(event: TelemetryEvent) -> None:
            await bus.broker.disconnect()

        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry())
        await eventually(lambda: subscription.stats.unsettled == 1)
        assert subscription.in_flight == 0


# The policy alone.


async def test_the_spread_of_delays_does_not_vanish_at_the_cap() -> None:
    policy = RedeliveryPolicy(base_delay_s=1.0, max_delay_s=10.0, jitter=0.5)
    delays = [policy.delay_s(60) for _ in range(200)]
    assert min(delays) >= 5.0
    assert max(delays) <= 10.0
    assert max(delays) - min(delays) > 2.0


@pytest.mark.parametrize(
    "settings",
    [
        {"max_deliveries": 0},
        {"base_delay_s": -1},
        {"base_delay_s": 10, "max_delay_s": 1},
        {"max_delay_s": float("inf")},
        {"multiplier": 0.5},
        {"jitter": 1.5},
    ],
)
async def test_a_senseless_policy_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        RedeliveryPolicy(**settings)


# The time limit of handlers.


async def test_one_overdue_call_among_many_quick_ones_is_cancelled_in_time() -> None:
    clock = running_clock()
    took: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        began_s = clock.monotonic()
        try:
            await asyncio.sleep(100 if number_of(event) == 30 else 0.7)
        finally:
            took.append(clock.monotonic() - began_s)

    async with running_bus(redelivery=RedeliveryPolicy(max_deliveries=1)) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, handler_timeout_s=5.0)
        for n in range(60):
            await bus.publish("polaris.telemetry.web", telemetry(n))
        await eventually(lambda: subscription.stats.received == 60 and subscription.in_flight == 0)
        (record,) = await bus.dead_letters.list()
    assert record.entry.error_code == "polaris.deadline_exceeded"
    assert max(took) == pytest.approx(5.0)
    assert subscription.stats.handled == 59


async def test_a_handler_that_survives_its_deadline_has_handled_its_event() -> None:
    seen: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            seen.append(number_of(event))

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, handler_timeout_s=5.0)
        for n in range(3):
            await bus.publish("polaris.telemetry.web", telemetry(n))
        await eventually(lambda: subscription.stats.handled == 3 and subscription.in_flight == 0)
    assert seen == [0.0, 1.0, 2.0]
    assert subscription.stats.redelivered == 0


async def test_each_of_several_workers_has_a_deadline_of_its_own() -> None:
    clock = running_clock()
    ends: dict[float, float] = {}

    async def handle(event: TelemetryEvent) -> None:
        await asyncio.sleep(number_of(event))
        try:
            await asyncio.sleep(100)
        finally:
            ends[number_of(event)] = clock.monotonic()

    async with running_bus(redelivery=RedeliveryPolicy(max_deliveries=1)) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, handler_timeout_s=10.0, concurrency=3)
        began_s = clock.monotonic()
        for n in range(3):
            await bus.publish("polaris.telemetry.web", telemetry(n))
        await eventually(lambda: subscription.stats.dead_lettered == 3)
    assert [end_s - began_s for end_s in ends.values()] == pytest.approx([10.0] * 3, abs=0.1)


async def test_of_a_message_for_a_batch_handler_only_the_bad_events_are_put_aside() -> None:
    seen: list[float] = []

    async def handle(events: list[TelemetryEvent]) -> None:
        numbers = [number_of(event) for event in events]
        if 2.0 in numbers:
            raise ConflictError("the second one")
        seen.extend(numbers)

    events = [telemetry(1), telemetry(2), telemetry(3)]
    async with running_bus(redelivery=POLICY) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_many(events, topic="polaris.telemetry.web")
        await eventually(lambda: subscription.stats.dead_lettered == 1 and subscription.in_flight == 0)
        (letter,) = await bus.dead_letters.list()
    assert seen == [1.0, 3.0]
    assert EventCodec().decode(letter.entry.payload).event.event_id == events[1].event_id
    assert subscription.stats.handled == 2


async def test_a_rejection_on_this_side_is_no_failure_of_the_message() -> None:
    calls = 0

    async def handle(event: TelemetryEvent) -> None:
        nonlocal calls
        calls += 1
        if calls <= 3 * POLICY.max_deliveries:
            raise CircuitBreakerOpenException("store", retry_after=30.0)

    async with running_bus(redelivery=POLICY) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry())
        await eventually(lambda: subscription.stats.handled == 1)
    assert subscription.stats.dead_lettered == 0


async def test_rejections_without_end_are_bounded_by_the_deliveries() -> None:
    async def handle(event: TelemetryEvent) -> None:
        raise CircuitBreakerOpenException("store")

    async with running_bus(redelivery=POLICY) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry())
        await eventually(lambda: subscription.stats.dead_lettered == 1)
    assert subscription.stats.received == POLICY.deliveries_max


async def test_a_foreign_error_that_calls_itself_not_retryable_is_tried_again() -> None:
    class Foreign(Exception):
        retryable = False

    async def handle(event: TelemetryEvent) -> None:
        raise Foreign

    async with running_bus(redelivery=POLICY) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry())
        await eventually(lambda: subscription.stats.dead_lettered == 1)
        (letter,) = await bus.dead_letters.list()
    assert (letter.entry.reason, letter.entry.attempts) == (DeadLetterReason.EXHAUSTED, POLICY.max_deliveries)
