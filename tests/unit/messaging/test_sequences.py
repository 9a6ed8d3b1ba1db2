"""The numbers of telemetry events, and what a subscriber learns from those that do not come."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.messaging.doubles import STORED, eventually, health, publish_raw, running_bus, telemetry

from polaris.domain import TelemetryEvent
from polaris.exceptions import InvalidValueError, MessageBusError, SubscriptionError
from polaris.messaging import (
    Delivery,
    InMemoryHub,
    InMemoryMessageBroker,
    MessageContext,
    OutgoingMessage,
    PolarisMessageBus,
    Receipt,
    SubscriptionStats,
    _sequences,
)
from polaris.messaging._sequences import EPOCHS_MAX, HOLES_IN_ALL_MAX, HOLES_MAX, GapDetector, Numbering
from polaris.observability import MetricsCollector
from polaris.testing import running_clock

TOPIC = "polaris.telemetry.web"


async def stored(bus: PolarisMessageBus) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for message in await bus.broker.read_stored("POLARIS_TELEMETRY", count_max=10_000):
        content = json.loads(message.payload)
        found += content if isinstance(content, list) else [content]
    return found


def counts(events: list[dict[str, Any]]) -> list[int]:
    return [int(event["sequence"].rpartition("-")[2]) for event in events]


# Numbers.


async def test_the_telemetry_of_a_topic_is_numbered_from_one_however_it_is_published() -> None:
    async with running_bus() as bus:
        await bus.publish_telemetry(telemetry(1))
        await bus.publish(TOPIC, telemetry(2))
        await bus.publish_many([telemetry(3), telemetry(4)])
        await asyncio.gather(*(bus.publish_telemetry(telemetry(n)) for n in range(5, 9)))
        await bus.publish_telemetry(telemetry(1, system_id="db"))
        found = await stored(bus)
    web = [event for event in found if event["subject"] == "web"]
    assert counts(web) == list(range(1, 9))
    assert counts([event for event in found if event["subject"] == "db"]) == [1]
    assert len({event["sequence"].partition("-")[0] for event in found}) == 1


async def test_numbers_order_as_texts_also_over_a_restart() -> None:
    hub = InMemoryHub()
    for _ in range(2):
        async with running_bus(hub) as bus:
            await bus.publish_many([telemetry(n) for n in range(12)])
            await asyncio.sleep(0.01)
            found = await stored(bus)
    numbers = [event["sequence"] for event in found]
    assert len(set(numbers)) == 24
    assert numbers == sorted(numbers)


async def test_control_events_are_not_numbered() -> None:
    async with running_bus() as bus:
        await bus.publish("polaris.adaptations.web", health(), delivery=STORED)
        (message,) = await bus.broker.read_stored("POLARIS_ADAPTATIONS")
    assert "sequence" not in json.loads(message.payload)


class Failing(InMemoryMessageBroker):
    """Refuses for good what is published while it is told to."""

    refuses = False

    async def publish(self, message: OutgoingMessage, **options: Any) -> Receipt:
        if self.refuses:
            raise MessageBusError("refused")
        return await super().publish(message, **options)


@pytest.mark.parametrize("way", ["publish", "publish_telemetry", "publish_many"])
async def test_an_event_that_failed_keeps_its_number_when_it_is_published_again(way: str) -> None:
    broker = Failing(clock=running_clock())
    event = telemetry(1)

    async def publish() -> None:
        if way == "publish":
            await bus.publish(TOPIC, event)
        elif way == "publish_telemetry":
            await bus.publish_telemetry(event)
        else:
            await bus.publish_many([event])

    async with PolarisMessageBus(broker, clock=running_clock()) as bus:
        broker.refuses = True
        for _ in range(3):
            with pytest.raises(MessageBusError):
                await publish()
        broker.refuses = False
        await publish()
        await bus.publish_telemetry(telemetry(2))
        assert counts(await stored(bus)) == [1, 2]


async def test_a_middleware_sees_the_number_and_one_that_refuses_costs_none() -> None:
    seen: list[str | None] = []
    refuses = True

    async def doorkeeper(context: MessageContext, next_handler: Any) -> Any:
        seen.append(context.sequence)
        if refuses:
            raise InvalidValueError("event", "another day", context.event)
        return await next_handler(context)

    event = telemetry(1)
    async with running_bus(middlewares=[doorkeeper]) as bus:
        with pytest.raises(InvalidValueError):
            await bus.publish(TOPIC, event)
        refuses = False
        await bus.publish(TOPIC, event)
        (found,) = await stored(bus)
    assert seen == [found["sequence"]] * 2


async def publish_as(bus: PolarisMessageBus, way: str, *events: TelemetryEvent) -> None:
    if way == "publish_many":
        await bus.publish_many(events)
    else:
        for event in events:
            await (bus.publish(TOPIC, event) if way == "publish" else bus.publish_telemetry(event))


@pytest.mark.parametrize("way", ["publish", "publish_telemetry", "publish_many"])
async def test_an_event_that_was_confirmed_keeps_its_number_when_it_is_published_again(way: str) -> None:
    event = telemetry(1)
    async with running_bus(streams=()) as bus:
        numbers: list[str] = []

        async def note(delivery: Delivery) -> None:
            numbers.extend(numbers_in(delivery.payload))

        await bus.broker.subscribe("polaris.telemetry.>", note)
        await publish_as(bus, way, event)
        await publish_as(bus, way, event, telemetry(2))
        await eventually(lambda: len(numbers) == 3)
    assert [number[-1] for number in numbers] == ["1", "1", "2"]


@pytest.mark.parametrize("way", ["publish", "publish_telemetry", "publish_many"])
async def test_two_who_publish_one_event_at_once_give_it_one_number(way: str) -> None:
    event = telemetry(1)
    async with running_bus() as bus:
        await asyncio.gather(publish_as(bus, way, event), publish_as(bus, way, event))
        await bus.publish_telemetry(telemetry(2))
        assert sorted(set(counts(await stored(bus)))) == [1, 2]


def test_the_numbers_that_are_known_are_bounded_and_those_of_what_failed_last_longer() -> None:
    numbering = Numbering(1.0)
    first, second = numbering.next(TOPIC, "first"), numbering.next(TOPIC, "second")
    numbering.not_confirmed(TOPIC, "second", second)
    for number in range(3 * _sequences.NUMBERS_MAX):
        numbering.next(TOPIC, f"{number}")
    assert len(numbering._numbers) + len(numbering._older_numbers) <= _sequences.NUMBERS_MAX
    assert numbering.next(TOPIC, "second") == second
    assert numbering.next(TOPIC, "first") > first


def test_an_event_is_known_over_the_half_of_all_that_are_remembered() -> None:
    numbering = Numbering(1.0)
    first = numbering.next(TOPIC, "first")
    for number in range(_sequences.NUMBERS_MAX // 2):
        numbering.next(TOPIC, f"{number}")
    assert numbering.next(TOPIC, "first") == first


def test_numbers_go_on_over_thousands() -> None:
    numbering = Numbering(1.0)
    numbers = [numbering.next(TOPIC, f"{number}") for number in range(2_100)]
    assert numbers == [f"{numbering.epoch}-{number:012d}" for number in range(1, 2_101)]
    assert [numbering.next(TOPIC, f"{number}") for number in (998, 999, 1_999, 2_000)] == [
        f"{numbering.epoch}-{number:012d}" for number in (999, 1_000, 2_000, 2_001)
    ]


def test_an_event_of_an_older_epoch_keeps_its_number_whether_it_was_confirmed_or_not() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sequences, "TOPICS_MAX", 4)
        numbering = Numbering(1.0)
        confirmed, failed = numbering.next(TOPIC, "confirmed"), numbering.next(TOPIC, "failed")
        numbering.not_confirmed(TOPIC, "failed", failed)
        epoch = numbering.epoch
        for number in range(20):
            last = numbering.next(f"t{number}", "x")
        assert numbering.epoch > epoch
        numbering.not_confirmed("t19", "x", last)
        for number in range(3 * _sequences.NUMBERS_MAX // 4):
            numbering.next("t19", f"{number}")
        assert numbering.next(TOPIC, "failed") == failed
        assert numbering.next("t19", "x") == last
        numbering.next(TOPIC, "confirmed")
        assert numbering.next(TOPIC, "new") > confirmed


@given(st.lists(st.integers(0, 12), max_size=120))
def test_no_number_comes_twice_and_all_order_as_texts_however_many_topics_are_forgotten(topics: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sequences, "TOPICS_MAX", 6)
        numbering = Numbering(1.0)
        last: dict[int, str] = {}
        for number, topic in enumerate(topics):
            text = numbering.next(f"t{topic}", f"{number}")
            assert text > last.get(topic, "")
            last[topic] = text
            assert len(numbering._counts) + len(numbering._older_counts) <= 6


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.booleans()), max_size=80))
def test_an_event_has_one_number_on_a_topic_in_whatever_order_ids_come(published: list[tuple[int, int, bool]]) -> None:
    numbering = Numbering(1.0)
    model: dict[tuple[int, int], str] = {}
    counts = [0, 0, 0]
    for topic, event, fails in published:
        if (topic, event) not in model:
            counts[topic] += 1
            model[topic, event] = f"{numbering.epoch}-{counts[topic]:012d}"
        number = numbering.next(f"t{topic}", f"{event:03}")
        assert number == model[topic, event]
        if fails:
            numbering.not_confirmed(f"t{topic}", f"{event:03}", number)


def test_a_topic_that_is_published_on_again_and_again_is_never_forgotten() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sequences, "TOPICS_MAX", 6)
        numbering = Numbering(1.0)
        epoch = numbering.epoch
        numbers = []
        for number in range(40):
            numbers.append(numbering.next(TOPIC, f"a{number}"))
            numbering.next(f"t{number}", "x")
    assert numbers == [f"{epoch}-{number:012d}" for number in range(1, 41)]
    assert numbering.epoch > epoch


# Gaps.


def numbers_in(payload: bytes) -> list[str]:
    content = json.loads(payload)
    return [event["sequence"] for event in (content if isinstance(content, list) else [content])]


def detect(numbers: list[int], *, epoch: str = "0" * 16) -> SubscriptionStats:
    stats = SubscriptionStats()
    detector = GapDetector(stats)
    for number in numbers:
        detector.observe(TOPIC, f"{epoch}-{number:012d}")
    return stats


@given(st.lists(st.integers(1, 60), max_size=80))
def test_missed_and_late_agree_with_the_numbers_that_came(numbers: list[int]) -> None:
    stats = detect(numbers)
    if not numbers:
        assert (stats.missed, stats.late) == (0, 0)
        return
    came = {number for number in numbers if number >= numbers[0]}
    assert stats.missed - stats.late == max(numbers) - numbers[0] + 1 - len(came) if came else 0
    assert 0 <= stats.late <= stats.missed


def test_every_publisher_and_every_topic_has_a_row_of_its_own() -> None:
    stats = SubscriptionStats()
    detector = GapDetector(stats)
    first, second = Numbering(1.0), Numbering(1.0)
    for topic in ("a", "b"):
        for numbering in (first, second):
            detector.observe(topic, numbering.next(topic, "x"))
    assert stats.missed == 0
    first.next("a", "lost")
    detector.observe("a", first.next("a", "y"))
    assert stats.missed == 1


@pytest.mark.parametrize("sequence", [None, 7, "", "7", "x" * 16 + "-000000000001", {"a": 1}, "0" * 16 + "-1"])
def test_numbers_of_another_form_say_nothing(sequence: object) -> None:
    stats = SubscriptionStats()
    GapDetector(stats).observe(TOPIC, sequence)
    assert stats.missed == 0


def test_a_wide_gap_is_counted_in_full_and_remembered_in_part() -> None:
    stats = detect([1, 1_000_000, 2, 999_999])
    assert stats.missed == 999_998
    assert stats.late == 1
    assert HOLES_MAX < 999_998


def test_what_is_late_is_known_up_to_a_bound_for_all_topics_and_then_stays_missing() -> None:
    stats = SubscriptionStats()
    detector = GapDetector(stats)
    topics = 2 * HOLES_IN_ALL_MAX // HOLES_MAX

    def observe(topic: int, number: int) -> None:
        detector.observe(f"t{topic}", "0" * 16 + f"-{number:012d}")

    for topic in range(topics):
        observe(topic, 1)
        observe(topic, HOLES_MAX + 2)
    assert sum(len(row.holes or ()) for row in detector._rows.values()) <= HOLES_IN_ALL_MAX
    assert stats.missed == topics * HOLES_MAX
    observe(0, 2)
    assert stats.late == 0
    observe(topics - 1, 2)
    assert stats.late == 1


def test_what_was_missing_and_came_makes_room_again() -> None:
    detector = GapDetector(SubscriptionStats())
    for number in (1, 500, *range(2, 500), 501, 503):
        detector.observe(TOPIC, "0" * 16 + f"-{number:012d}")
    assert detector._room == 1


def test_a_topic_with_many_epochs_drives_out_no_other() -> None:
    stats = SubscriptionStats()
    detector = GapDetector(stats)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sequences, "ROWS_MAX", 100)
        detector.observe("quiet", "0" * 16 + "-000000000001")
        for epoch in range(1_000):
            detector.observe("noisy", f"{epoch:016x}-000000000001")
            detector.observe("noisy", f"{epoch:016x}-000000000003")
        assert len(detector._topics["noisy"]) == EPOCHS_MAX
        assert len(detector._rows) == EPOCHS_MAX + 1
        assert detector._room == EPOCHS_MAX
    assert stats.missed == 1_000
    detector.observe("quiet", "0" * 16 + "-000000000003")
    assert stats.missed == 1_001


def test_the_rows_are_bounded_and_those_heard_of_last_are_kept() -> None:
    stats = SubscriptionStats()
    detector = GapDetector(stats)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sequences, "ROWS_MAX", 3)
        for topic, number in (("a", 1), ("b", 1), ("c", 1), ("a", 2), ("d", 1), ("b", 9), ("a", 4)):
            detector.observe(topic, "0" * 16 + f"-{number:012d}")
        assert len(detector._rows) == len(detector._topics) == 3
    # The gap of b is not seen, because b had been forgotten; that of a is.
    assert stats.missed == 1


async def test_a_subscriber_is_told_of_what_was_lost_and_of_what_came_late() -> None:
    collector = MetricsCollector()
    handled: list[str] = []

    async def handle(event: TelemetryEvent) -> None:
        handled.append(event.event_id)

    async with running_bus(collector=collector) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, durable="watch", detect_gaps=True)
        await bus.publish_many([telemetry(n, event_id=f"e{n}") for n in range(3)])
        await eventually(lambda: len(handled) == 3)
        envelope = {
            "specversion": "1.0",
            "type": "polaris.telemetry",
            "source": "x",
            "data": {"system_state": {"system_id": "web", "timestamp": "2026-03-01T00:00:00Z"}},
        }
        epoch = json.loads((await bus.broker.read_stored("POLARIS_TELEMETRY"))[0].payload)[0]["sequence"][:16]
        for number in (6, 5):
            event = {**envelope, "id": f"raw{number}", "sequence": f"{epoch}-{number:012d}"}
            await publish_raw(bus, TOPIC, json.dumps(event).encode())
        await eventually(lambda: len(handled) == 5)
        assert (subscription.stats.missed, subscription.stats.late) == (2, 1)
    text = collector.render().decode()
    assert 'polaris_sequence_missed_total{subscription="watch"} 2.0' in text
    assert 'polaris_sequence_late_total{subscription="watch"} 1.0' in text


async def test_what_comes_again_after_a_failure_is_no_gap() -> None:
    failed: set[str] = set()

    async def handle(event: TelemetryEvent) -> None:
        if event.event_id not in failed:
            failed.add(event.event_id)
            raise RuntimeError("not today")

    async with running_bus() as bus:
        subscription = await bus.subscribe(
            "polaris.telemetry.*", handle, durable="watch", detect_gaps=True, concurrency=3
        )
        for n in range(20):
            await bus.publish_telemetry(telemetry(n))
        await eventually(lambda: subscription.stats.handled == 20)
        assert subscription.stats.missed == 0


async def test_gaps_are_refused_to_those_who_see_a_part_only() -> None:
    async def handle(event: TelemetryEvent) -> None: ...

    async with running_bus() as bus:
        with pytest.raises(SubscriptionError, match="group"):
            await bus.subscribe("polaris.telemetry.*", handle, group="g", detect_gaps=True)
        for passing_over in ({"conflate": True}, {"stale_after_s": 1.0}):
            with pytest.raises(InvalidValueError, match="detect_gaps"):
                await bus.subscribe("polaris.telemetry.*", handle, detect_gaps=True, **passing_over)
