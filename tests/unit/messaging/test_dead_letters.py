"""What an operator can do with messages that were put aside."""

from __future__ import annotations

import asyncio
import os

import pytest
from tests.unit.messaging.doubles import eventually, number_of, publish_raw, running_bus, telemetry

from polaris.domain import TelemetryEvent
from polaris.exceptions import ConflictError, MessageBusError
from polaris.messaging import (
    DEAD_LETTER_STREAM,
    DeadLetter,
    DeadLetterReason,
    EventCodec,
    InMemoryMessageBroker,
    PolarisMessageBus,
    RedeliveryPolicy,
    Subscription,
)
from polaris.observability import capture_logs
from polaris.testing import running_clock

TOPIC = "polaris.telemetry.web"


async def refuse(event: TelemetryEvent) -> None:
    raise ConflictError("no")


async def put_aside(bus: PolarisMessageBus, count: int) -> Subscription:
    subscription = await bus.subscribe("polaris.telemetry.*", refuse, durable="refusing")
    for n in range(count):
        await bus.publish_telemetry(telemetry(n))
    await eventually(lambda: subscription.stats.dead_lettered == count and subscription.in_flight == 0)
    return subscription


async def test_entries_are_listed_in_order_and_in_pages() -> None:
    async with running_bus() as bus:
        await put_aside(bus, 250)
        everything = await bus.dead_letters.list(count_max=1_000)
        page = await bus.dead_letters.list(from_sequence=everything[100].sequence, count_max=20)
        assert await bus.dead_letters.list(count_max=0) == []
        assert await bus.dead_letters.count() == 250
    assert [record.entry.sequence for record in everything] == list(range(1, 251))
    assert page == everything[100:120]


async def test_an_entry_is_shown_with_its_bytes() -> None:
    async with running_bus() as bus:
        await publish_raw(bus, TOPIC, b"\x00\xff", Origin="x")
        await put_aside(bus, 0)
        await eventually_listed(bus, 1)
        (record,) = await bus.dead_letters.list()
        shown = await bus.dead_letters.show(record.sequence)
        assert (shown.entry.payload, shown.entry.headers) == (b"\x00\xff", {"Origin": "x"})
        for missing in (0, record.sequence + 1, 10_000):
            with pytest.raises(MessageBusError):
                await bus.dead_letters.show(missing)


async def eventually_listed(bus: PolarisMessageBus, count: int) -> None:
    async with asyncio.timeout(60):
        while len(await bus.dead_letters.list()) < count:
            await asyncio.sleep(0.1)


async def test_a_replayed_entry_is_handled_and_gone() -> None:
    seen: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    async with running_bus() as bus:
        subscription = await put_aside(bus, 1)
        await subscription.unsubscribe()
        (record,) = await bus.dead_letters.list()
        await bus.subscribe("polaris.telemetry.*", handle)
        receipt = await bus.dead_letters.replay(record.sequence)
        assert (receipt.stream, receipt.duplicate) == ("POLARIS_TELEMETRY", False)
        await eventually(lambda: seen == [0.0])
        assert await bus.dead_letters.list() == []
        with pytest.raises(MessageBusError):
            await bus.dead_letters.replay(record.sequence)


async def test_replaying_a_kept_entry_twice_stores_it_once() -> None:
    async with running_bus() as bus:
        subscription = await put_aside(bus, 1)
        await subscription.unsubscribe()
        (record,) = await bus.dead_letters.list()
        first = await bus.dead_letters.replay(record.sequence, keep=True)
        again = await bus.dead_letters.replay(record.sequence, keep=True)
        assert (first.duplicate, again.duplicate) == (False, True)
        assert len(await bus.dead_letters.list()) == 1


async def test_a_replayed_entry_that_fails_again_becomes_a_new_entry() -> None:
    async with running_bus() as bus:
        await put_aside(bus, 1)
        (record,) = await bus.dead_letters.list()
        await bus.dead_letters.replay(record.sequence)
        await eventually_listed(bus, 1)
        (again,) = await bus.dead_letters.list()
        assert again.sequence > record.sequence
        assert again.entry.payload == record.entry.payload


async def test_a_dropped_entry_is_gone() -> None:
    async with running_bus() as bus:
        await put_aside(bus, 3)
        records = await bus.dead_letters.list()
        assert await bus.dead_letters.drop(records[1].sequence) is True
        assert await bus.dead_letters.drop(records[1].sequence) is False
        assert await bus.dead_letters.list() == [records[0], records[2]]


async def test_bytes_too_large_for_an_entry_are_kept_apart_and_come_back() -> None:
    broker = InMemoryMessageBroker(clock=running_clock(), payload_bytes_max=10_000)
    payload = os.urandom(9_990)
    async with PolarisMessageBus(broker, clock=running_clock()) as bus:
        await put_aside(bus, 0)
        await publish_raw(bus, TOPIC, payload)
        await eventually_listed(bus, 1)
        (record,) = await bus.dead_letters.list()
        assert (record.entry.payload, record.entry.payload_bytes) == (b"", 9_990)
        assert record.entry.payload_sequence is not None
        assert (await bus.dead_letters.show(record.sequence)).entry.payload == payload
        receipt = await bus.dead_letters.replay(record.sequence, keep=True)
        stored = await broker.read_stored("POLARIS_TELEMETRY", from_sequence=receipt.sequence or 0)
        assert stored[0].payload == payload
        assert await bus.dead_letters.drop(record.sequence)
        await eventually_listed(bus, 1)


async def test_bytes_kept_apart_and_lost_are_reported() -> None:
    broker = InMemoryMessageBroker(clock=running_clock(), payload_bytes_max=10_000)
    async with PolarisMessageBus(broker, clock=running_clock()) as bus:
        await put_aside(bus, 0)
        await publish_raw(bus, TOPIC, os.urandom(9_990))
        await eventually_listed(bus, 1)
        (record,) = await bus.dead_letters.list()
        await broker.erase_stored(DEAD_LETTER_STREAM.name, record.entry.payload_sequence or 0)
        with pytest.raises(MessageBusError, match="gone"):
            await bus.dead_letters.show(record.sequence)


async def test_what_others_put_into_the_stream_is_passed_over() -> None:
    async with running_bus() as bus:
        await publish_raw(bus, "polaris.dead_letter.x", b"noise")
        await put_aside(bus, 1)
        assert len(await bus.dead_letters.list()) == 1
        assert await bus.dead_letters.drop(1) is False


async def test_dead_letters_can_be_subscribed_to_and_never_breed() -> None:
    seen: list[DeadLetter] = []

    async def watch(event: DeadLetter) -> None:
        seen.append(event)
        raise ConflictError("the watcher fails as well")

    async with running_bus(redelivery=RedeliveryPolicy(base_delay_s=0.1, max_deliveries=2)) as bus:
        watching = await bus.subscribe("polaris.dead_letter.>", watch)
        await publish_raw(bus, "polaris.dead_letter.x", b"noise")
        await put_aside(bus, 2)
        await eventually(lambda: watching.stats.received == 3 and watching.in_flight == 0)
        await asyncio.sleep(60)
        assert len(await bus.dead_letters.list()) == 2
    assert [event.reason for event in seen] == [DeadLetterReason.REFUSED] * 2
    assert watching.stats.lost == 3


async def test_without_a_stream_for_them_failures_are_counted_and_do_not_block() -> None:
    seen: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        if number_of(event) == 0:
            raise ConflictError("no")
        seen.append(number_of(event))

    from polaris.messaging import TELEMETRY_STREAM

    async with running_bus(streams=(TELEMETRY_STREAM,)) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await publish_raw(bus, TOPIC, b"noise")
        for n in range(3):
            await bus.publish_telemetry(telemetry(n))
        await eventually(lambda: seen == [1.0, 2.0])
        assert (subscription.stats.lost, subscription.in_flight) == (2, 0)


async def test_secrets_in_errors_do_not_reach_an_entry() -> None:
    async def leak(event: TelemetryEvent) -> None:
        raise ConnectionError("postgres://user:hunter2@host/db refused")

    async with running_bus(redelivery=RedeliveryPolicy(max_deliveries=1)) as bus:
        await bus.subscribe("polaris.telemetry.*", leak)
        await bus.publish_telemetry(telemetry())
        await eventually_listed(bus, 1)
        (record,) = await bus.dead_letters.list()
    assert "hunter2" not in record.entry.error_message
    assert record.entry.error_code == "ConnectionError"


async def test_what_is_put_aside_by_the_hundred_is_logged_once_and_counted() -> None:
    with capture_logs() as logs:
        async with running_bus() as bus:
            subscription = await bus.subscribe("polaris.telemetry.*", _ignore)
            for _ in range(300):
                await publish_raw(bus, "polaris.telemetry.web", b"noise")
            await eventually(lambda: subscription.stats.dead_lettered == 300)
    lines = [line["fields"] for line in logs if line["message"] == "a message is put aside"]
    assert len(lines) <= 3
    assert sum(1 + (line.get("kept_back") or 0) if "topic" in line else line["kept_back"] for line in lines) == 300


async def _ignore(event: TelemetryEvent) -> None: ...


async def test_a_bad_member_is_put_aside_once_however_often_the_others_fail() -> None:
    failures = 0

    async def handle(events: list[TelemetryEvent]) -> None:
        nonlocal failures
        failures += 1
        if failures < 4:
            raise ConnectionError("not today")

    codec = EventCodec()
    policy = RedeliveryPolicy(base_delay_s=200.0, max_delay_s=200.0)
    async with running_bus(redelivery=policy) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="d")
        members = [
            codec.encode(telemetry(1)),
            b'{"specversion":"1.0","type":"nobody.knows"}',
            codec.encode(telemetry(2)),
        ]
        await publish_raw(bus, "polaris.telemetry.web", codec.join(members))
        await eventually(lambda: subscription.stats.handled == 2, timeout_s=3_600.0)
        assert subscription.stats.dead_lettered == 1
        assert len(await bus.dead_letters.list()) == 1
