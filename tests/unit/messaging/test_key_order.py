"""Order per key: one after the other within a key, beside each other otherwise, through failures and to the end."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.messaging.doubles import eventually, health, new_bus, number_of, running_bus, telemetry

from polaris.domain import HealthEvent, TelemetryEvent
from polaris.exceptions import InvalidValueError, SubscriptionError
from polaris.messaging import InMemoryHub, MessageContext, RedeliveryPolicy
from polaris.messaging._key_order import KeyOrder
from polaris.observability import capture_logs
from polaris.testing import run_virtual, running_clock

POLICY = RedeliveryPolicy(max_deliveries=4, base_delay_s=1.0, max_delay_s=8.0)


class Recorder:
    """A handler that takes a second, and remembers what ran when; the n-th call for a number may fail."""

    def __init__(self, **failing: int) -> None:
        self.failing = {float(name[1:]): count for name, count in failing.items()}
        self.seen: list[tuple[str, float, int]] = []
        self.running: set[str] = set()
        self.most_at_once = 0

    async def __call__(self, event: TelemetryEvent, context: MessageContext) -> None:
        system_id, number = event.system_state.system_id, number_of(event)
        assert system_id not in self.running, "two of one key at once"
        self.running.add(system_id)
        self.most_at_once = max(self.most_at_once, len(self.running))
        await asyncio.sleep(1.0)
        self.running.remove(system_id)
        self.seen.append((system_id, number, context.attempt))
        if self.failing.get(number, 0) > 0:
            self.failing[number] -= 1
            raise ConnectionError("not now")

    def of(self, system_id: str) -> list[tuple[float, int]]:
        return [(number, attempt) for system, number, attempt in self.seen if system == system_id]


def system_of(event: TelemetryEvent) -> str:
    return event.system_state.system_id


@pytest.mark.parametrize("key", ["topic", system_of])
async def test_one_key_is_in_order_and_others_run_beside_it(key: Any) -> None:
    record = Recorder()
    async with running_bus() as bus:
        await bus.subscribe("polaris.telemetry.*", record, concurrency=4, ordered_by=key)
        for number in range(1, 7):
            for system_id in ("a", "b", "c"):
                await bus.publish_telemetry(telemetry(number, system_id))
        await eventually(lambda: len(record.seen) == 18)
    for system_id in ("a", "b", "c"):
        assert record.of(system_id) == [(float(number), 1) for number in range(1, 7)]
    assert record.most_at_once == 3


async def test_without_a_key_nothing_is_ordered() -> None:
    record = Recorder()
    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", record, concurrency=4)
        with capture_logs():
            for number in range(1, 5):
                await bus.publish_telemetry(telemetry(number, "a"))
            await eventually(lambda: subscription.stats.failed > 0)


async def test_what_failed_is_tried_again_before_what_comes_after_it() -> None:
    record = Recorder(n2=2)
    async with running_bus(redelivery=POLICY) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", record, concurrency=4, ordered_by="topic")
        for number in range(1, 5):
            await bus.publish_telemetry(telemetry(number, "a"))
            await bus.publish_telemetry(telemetry(number + 10, "b"))
        await eventually(lambda: subscription.in_flight == 0 and len(record.seen) == 10)
    assert record.of("a") == [(1.0, 1), (2.0, 1), (2.0, 2), (2.0, 3), (3.0, 1), (4.0, 1)]
    assert record.of("b") == [(11.0, 1), (12.0, 1), (13.0, 1), (14.0, 1)]
    # The other system was through before the failing message of the first one was.
    assert record.seen.index(("b", 14.0, 1)) < record.seen.index(("a", 2.0, 3))
    assert (subscription.stats.received, subscription.stats.retried, subscription.stats.failed) == (8, 2, 2)


async def test_what_is_put_aside_lets_the_next_one_begin() -> None:
    record = Recorder(n2=9)
    async with running_bus(redelivery=POLICY) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", record, concurrency=4, ordered_by="topic")
        for number in range(1, 4):
            await bus.publish_telemetry(telemetry(number, "a"))
        await eventually(lambda: subscription.in_flight == 0 and subscription.stats.dead_lettered == 1)
        (letter,) = await bus.dead_letters.list()
    assert [number for number, _ in record.of("a")] == [1.0, 2.0, 2.0, 2.0, 2.0, 3.0]
    assert letter.entry.attempts == POLICY.max_deliveries


async def test_the_keys_of_all_events_of_a_message_count() -> None:
    order: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        await asyncio.sleep(1.0 if number_of(event) < 10 else 0.0)
        order.append(number_of(event))

    async with running_bus() as bus:
        await bus.subscribe("polaris.telemetry.*", handle, concurrency=4, ordered_by=system_of)
        topic = "polaris.telemetry.several"
        await bus.publish_many([telemetry(1, "a"), telemetry(2, "b")], topic=topic)
        await bus.publish_many([telemetry(30, "b"), telemetry(31, "c")], topic=topic)
        await bus.publish_many([telemetry(40, "d")], topic=topic)
        await eventually(lambda: len(order) == 5)
    assert order == [40.0, 1.0, 2.0, 30.0, 31.0]


async def test_events_whose_key_cannot_be_told_are_in_order_among_themselves() -> None:
    record = Recorder()

    def key(event: TelemetryEvent) -> str:
        if event.system_state.system_id == "a":
            raise KeyError("rack")
        return event.system_state.system_id

    with capture_logs() as logs:
        async with running_bus() as bus:
            await bus.subscribe("polaris.telemetry.*", record, concurrency=4, ordered_by=key)
            for number in range(1, 4):
                await bus.publish_telemetry(telemetry(number, "a"))
                await bus.publish_telemetry(telemetry(number, "b"))
            await eventually(lambda: len(record.seen) == 6)
    assert record.of("a") == record.of("b") == [(1.0, 1), (2.0, 1), (3.0, 1)]
    assert [line["message"] for line in logs].count("the order key of an event could not be told") == 3


async def test_a_stop_hands_back_what_is_lined_up_and_the_next_one_goes_on_in_order() -> None:
    hub = InMemoryHub(clock=running_clock())
    first, second = Recorder(n2=1), Recorder()
    bus = new_bus(hub, redelivery=POLICY)
    await bus.start()
    await bus.subscribe("polaris.telemetry.*", first, durable="d", concurrency=4, ordered_by="topic")
    for number in range(1, 6):
        await bus.publish_telemetry(telemetry(number, "a"))
    await eventually(lambda: len(first.seen) == 2)
    await bus.stop()
    assert first.of("a") == [(1.0, 1), (2.0, 1)]
    async with running_bus(hub, redelivery=POLICY) as again:
        await again.subscribe("polaris.telemetry.*", second, durable="d", concurrency=4, ordered_by="topic")
        await eventually(lambda: len(second.seen) == 4)
    assert [number for number, _ in second.of("a")] == [2.0, 3.0, 4.0, 5.0]


async def test_a_drain_handles_everything_that_is_lined_up() -> None:
    record = Recorder()
    bus = new_bus(grace_s=60.0)
    await bus.start()
    await bus.subscribe("polaris.telemetry.*", record, durable="d", concurrency=2, ordered_by="topic")
    for number in range(1, 9):
        await bus.publish_telemetry(telemetry(number, "a"))
    await eventually(lambda: len(record.seen) == 1)
    await bus.drain()
    assert [number for number, _ in record.of("a")] == [float(number) for number in range(1, 9)]


async def test_a_failure_during_a_drain_hands_back_what_stands_behind_it() -> None:
    record = Recorder(n3=1)
    bus = new_bus(grace_s=60.0, redelivery=POLICY)
    await bus.start()
    subscription = await bus.subscribe("polaris.telemetry.*", record, durable="d", concurrency=2, ordered_by="topic")
    for number in range(1, 9):
        await bus.publish_telemetry(telemetry(number, "a"))
    await eventually(lambda: len(record.seen) == 1)
    await bus.drain()
    assert [number for number, _ in record.of("a")] == [1.0, 2.0, 3.0]
    assert subscription.in_flight == 0


async def test_a_core_subscription_is_ordered_too_and_loses_only_what_failed() -> None:
    seen: list[str] = []

    async def handle(event: HealthEvent) -> None:
        await asyncio.sleep(0.5)
        seen.append(event.message)
        if event.message == "2":
            raise ConnectionError

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.health.*", handle, concurrency=4, ordered_by="topic")
        for number in range(1, 5):
            await bus.publish("polaris.health.store", health(str(number)))
        await eventually(lambda: len(seen) == 4)
    assert seen == ["1", "2", "3", "4"]
    assert subscription.stats.lost == 1


async def test_a_senseless_key_and_a_batch_handler_are_refused() -> None:
    async def one(event: TelemetryEvent) -> None: ...

    async def many(events: list[TelemetryEvent]) -> None: ...

    async with running_bus() as bus:
        with pytest.raises(InvalidValueError, match="ordered_by"):
            await bus.subscribe("polaris.telemetry.*", one, ordered_by="system")  # type: ignore[arg-type]
        with pytest.raises(SubscriptionError, match="takes batches"):
            await bus.subscribe("polaris.telemetry.*", many, ordered_by="topic")


ITEMS = st.lists(
    st.tuples(
        st.sets(st.integers(1, 4), max_size=3),  # keys
        st.integers(0, 3),  # how long it takes
        st.integers(0, 2),  # how often it is repeated
    ),
    max_size=25,
)


@given(ITEMS, st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_no_item_begins_before_one_that_shares_a_key_and_came_before_it(items: Any, workers: int) -> None:
    async def main() -> None:
        ready: asyncio.Queue[int] = asyncio.Queue()
        order: KeyOrder[int] = KeyOrder(ready.put_nowait)
        ended: set[int] = set()
        numbers = list(range(1_000, 1_000 + len(items)))  # one object each: an item is known by its identity
        repeats: dict[int, int] = defaultdict(int)

        async def work() -> None:
            while True:
                number = await ready.get()
                keys, takes_s, repeated = items[number - 1_000]
                for before in range(1_000, number):
                    assert before in ended or not keys & items[before - 1_000][0]
                await asyncio.sleep(takes_s)
                assert order.repeats(number) == repeats[number]
                if repeats[number] < repeated:
                    repeats[number] += 1
                    order.repeat_later(number, 1.0)
                    continue
                ended.add(number)
                order.leave(number)

        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        for number in numbers:
            order.enter(number, items[number - 1_000][0])
        await order.emptied()
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        assert ended == set(numbers)
        assert order._rows == {}

    run_virtual(main())
