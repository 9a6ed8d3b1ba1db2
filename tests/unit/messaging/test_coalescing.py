"""Telemetry that gathers while a message is on its way."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.unit.messaging.doubles import NOW, eventually, telemetry

from polaris.domain import SystemState, TelemetryEvent
from polaris.exceptions import (
    BusConnectionError,
    InvalidValueError,
    PayloadTooLargeError,
    PublishError,
    UnconfirmedPublishError,
)
from polaris.messaging import (
    InMemoryMessageBroker,
    MessageContext,
    MetricsMiddleware,
    OutgoingMessage,
    PolarisMessageBus,
    Receipt,
)
from polaris.testing import running_clock


class SlowBroker(InMemoryMessageBroker):
    """Takes a while to confirm, and may fail first."""

    def __init__(self, delay_s: float = 0.1, **options: Any) -> None:
        super().__init__(clock=running_clock(), **options)
        self.delay_s = delay_s
        self.failures: list[Exception] = []
        self.sent: list[OutgoingMessage] = []

    async def publish(self, message: OutgoingMessage, **options: Any) -> Receipt:
        await asyncio.sleep(self.delay_s)
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append(message)
        return await super().publish(message, **options)

    @property
    def sizes(self) -> list[int]:
        loaded = [json.loads(message.payload) for message in self.sent]
        return [len(one) if isinstance(one, list) else 1 for one in loaded]


def new_bus(broker: SlowBroker, *middlewares: Any) -> PolarisMessageBus:
    return PolarisMessageBus(broker, middlewares, clock=running_clock())


async def test_an_event_on_an_idle_topic_leaves_at_once_and_alone() -> None:
    broker = SlowBroker()
    clock = running_clock()
    async with new_bus(broker) as bus:
        began_s = clock.monotonic()
        event = telemetry()
        receipt = await bus.publish_telemetry(event)
        assert clock.monotonic() - began_s < 0.11
        assert receipt.message_id == event.event_id
        await bus.publish_telemetry(telemetry())
    assert broker.sizes == [1, 1]


async def test_events_that_gather_leave_together_in_order() -> None:
    broker = SlowBroker()
    events = [telemetry(n) for n in range(1_200)]
    async with new_bus(broker) as bus:
        receipts = await asyncio.gather(*(bus.publish_telemetry(event) for event in events))
    assert broker.sizes == [1, 512, 512, 175]
    sent = [one["id"] for message in broker.sent[1:] for one in json.loads(message.payload)]
    assert sent == [event.event_id for event in events[1:]]
    assert [receipt.sequence for receipt in receipts] == [1] + [2] * 512 + [3] * 512 + [4] * 175


async def test_systems_do_not_wait_for_each_other() -> None:
    broker = SlowBroker()
    clock = running_clock()
    async with new_bus(broker) as bus:
        began_s = clock.monotonic()
        await asyncio.gather(*(bus.publish_telemetry(telemetry(n, f"s{n}")) for n in range(50)))
        assert clock.monotonic() - began_s < 0.15
    assert broker.sizes == [1] * 50


async def test_a_failed_message_fails_those_who_wait_for_it_and_no_others() -> None:
    broker = SlowBroker()
    broker.failures = [PayloadTooLargeError("t", payload_bytes=2, payload_bytes_max=1)] * 2
    async with new_bus(broker) as bus:
        first = asyncio.create_task(bus.publish_telemetry(telemetry(0)))
        await asyncio.sleep(0.01)
        second = [asyncio.create_task(bus.publish_telemetry(telemetry(n))) for n in range(3)]
        await asyncio.sleep(0.15)
        third = [asyncio.create_task(bus.publish_telemetry(telemetry(n))) for n in range(3)]
        outcomes = await asyncio.gather(first, *second, *third, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [PayloadTooLargeError] * 4 + [Receipt] * 3
    assert len({id(outcome) for outcome in outcomes[1:4]}) == 3
    assert broker.sizes == [3]


async def test_an_event_too_large_fails_alone() -> None:
    broker = SlowBroker(payload_bytes_max=4_000)
    async with new_bus(broker) as bus:
        huge = TelemetryEvent(SystemState("web", NOW, metadata={"text": "x" * 5_000}))
        events = [*(telemetry(n) for n in range(4)), huge]
        outcomes = await asyncio.gather(*(bus.publish_telemetry(event) for event in events), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Receipt] * 4 + [PayloadTooLargeError]


async def test_a_cancelled_publisher_takes_its_event_back_and_harms_no_other() -> None:
    broker = SlowBroker()
    async with new_bus(broker) as bus:
        tasks = [asyncio.create_task(bus.publish_telemetry(telemetry(n, event_id=str(n)))) for n in range(4)]
        await asyncio.sleep(0.05)
        tasks[2].cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Receipt, Receipt, asyncio.CancelledError, Receipt]
    assert [one["id"] for one in json.loads(broker.sent[1].payload)] == ["1", "3"]


async def test_cancelling_the_first_publisher_lets_the_others_go_on() -> None:
    broker = SlowBroker()
    async with new_bus(broker) as bus:
        tasks = [asyncio.create_task(bus.publish_telemetry(telemetry(n))) for n in range(4)]
        await asyncio.sleep(0.05)
        tasks[0].cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] + [Receipt] * 3
        assert (await bus.publish_telemetry(telemetry())).sequence is not None


async def test_a_publisher_waits_no_longer_than_it_said() -> None:
    broker = SlowBroker(delay_s=2.0)
    clock = running_clock()
    async with new_bus(broker) as bus:
        first = asyncio.create_task(bus.publish_telemetry(telemetry(0)))
        await asyncio.sleep(0.01)
        began_s = clock.monotonic()
        # It has not left: nothing is in doubt.
        with pytest.raises(BusConnectionError):
            await bus.publish_telemetry(telemetry(1), timeout_s=0.5)
        assert clock.monotonic() - began_s == pytest.approx(0.5)
        await first
    assert broker.sizes == [1]


async def test_an_error_of_a_middleware_reaches_all_who_wait() -> None:
    async def refuse(context: MessageContext, next_handler: Any) -> Any:
        if len(context.events) > 1:
            raise KeyError("no batches")
        return await next_handler(context)

    async def stop(context: MessageContext, next_handler: Any) -> None: ...

    async with new_bus(SlowBroker(), refuse) as bus:
        outcomes = await asyncio.gather(
            *(bus.publish_telemetry(telemetry(n)) for n in range(3)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [Receipt, KeyError, KeyError]
    async with new_bus(SlowBroker(), stop) as bus:
        outcomes = await asyncio.gather(
            *(bus.publish_telemetry(telemetry(n)) for n in range(3)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [PublishError] * 3


async def test_every_event_counts_in_the_metrics() -> None:
    metrics = MetricsMiddleware()
    async with new_bus(SlowBroker(), metrics) as bus:
        await asyncio.gather(*(bus.publish_telemetry(telemetry(n)) for n in range(30)))
    counter = metrics.collector.message_counter("polaris.telemetry.*", "published", "polaris.telemetry")
    assert counter.get() == 30


async def test_the_end_of_the_bus_sends_what_gathered() -> None:
    broker = SlowBroker()
    bus = new_bus(broker)
    await bus.start()
    tasks = [asyncio.create_task(bus.publish_telemetry(telemetry(n))) for n in range(10)]
    await asyncio.sleep(0.15)
    await bus.stop()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Receipt] * 10


async def test_a_bus_whose_broker_is_gone_fails_what_gathered_and_ends() -> None:
    broker = SlowBroker()
    bus = new_bus(broker)
    await bus.start()
    tasks = [asyncio.create_task(bus.publish_telemetry(telemetry(n), timeout_s=3.0)) for n in range(10)]
    await asyncio.sleep(0.05)
    await broker.disconnect()
    await bus.stop()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {BusConnectionError, UnconfirmedPublishError}
    await eventually(lambda: not bus._outbound._coalescer._gathering)


# The latency budget.


async def publishing(bus: PolarisMessageBus, tasks: int, events: int) -> None:
    async def one_after_the_other(first: int) -> None:
        for number in range(events):
            await bus.publish_telemetry(telemetry(first * events + number))

    await asyncio.gather(*(one_after_the_other(first) for first in range(tasks)))


async def test_those_who_come_again_and_again_share_one_message() -> None:
    broker = SlowBroker()
    async with new_bus(broker) as bus:
        await publishing(bus, 64, 5)
    # Without waiting for company, every other message would hold one event.
    assert broker.sizes == [1, 64, 64, 64, 64, 63]


async def test_the_wait_for_company_is_no_longer_than_it_may_be() -> None:
    broker, clock = SlowBroker(), running_clock()
    async with PolarisMessageBus(broker, clock=clock, telemetry_linger_s=0.02) as bus:
        await publishing(bus, 32, 2)
        # Fewer come now than before: the first of them leaves when the budget is used up.
        began_s = clock.monotonic()
        await publishing(bus, 2, 1)
        assert clock.monotonic() - began_s < 0.1 + 0.02 + 0.01


async def test_without_a_budget_nothing_waits_for_company() -> None:
    broker = SlowBroker()
    async with PolarisMessageBus(broker, clock=running_clock(), telemetry_linger_s=0.0) as bus:
        await publishing(bus, 64, 3)
    assert broker.sizes == [1, 64, 1, 64, 1, 61]


@pytest.mark.parametrize("linger_s", [-0.001, 1.5, float("nan")])
async def test_a_budget_that_cannot_be_meant_is_refused(linger_s: float) -> None:
    with pytest.raises(InvalidValueError, match="telemetry_linger_s"):
        PolarisMessageBus(InMemoryMessageBroker(), telemetry_linger_s=linger_s)
