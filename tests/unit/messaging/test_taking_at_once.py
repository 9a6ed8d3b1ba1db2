"""Pushed messages: taken as they come where nothing waits, one after the other where something does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.messaging.doubles import eventually, number_of, running_bus, telemetry

from polaris.domain import TelemetryEvent
from polaris.messaging import DeliveryClass
from polaris.messaging._broker import Delivery
from polaris.messaging.brokers._memory_core import MemorySubscription
from polaris.messaging.brokers._memory_deliveries import CoreDelivery
from polaris.messaging.brokers._nats_subscription import NATSSubscription

Offer = Callable[[bytes], None]
CORE = DeliveryClass.AT_MOST_ONCE


class Taker:
    """Takes what comes at once, unless it is `shut`; then it waits until it is not."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.opened = asyncio.Event()
        self.opened.set()
        self.waiting = 0
        self.broken = False

    def shut(self) -> None:
        self.opened.clear()

    def at_once(self, delivery: Delivery) -> bool:
        if self.broken:
            raise ValueError("broken")
        if not self.opened.is_set():
            return False
        self.taken.append(delivery.payload)
        return True

    async def __call__(self, delivery: Delivery) -> None:
        self.waiting += 1
        await self.opened.wait()
        self.waiting -= 1
        self.taken.append(delivery.payload)


def in_memory(on_delivery: Any) -> tuple[Offer, Any]:
    subscription = MemorySubscription("a.b", on_delivery, None)
    return lambda payload: subscription.offer(CoreDelivery("a.b", payload, {}, None)), subscription.cancel


def on_nats(on_delivery: Any) -> tuple[Offer, Any]:
    client: Any = None
    subscription = NATSSubscription(
        client, "a.b", on_delivery, messages_max=10, bytes_max=1_000, on_end=lambda ended: None
    )
    return lambda payload: subscription._offer("a.b", "", payload, None), subscription.cancel


BROKERS = pytest.mark.parametrize("listen", [in_memory, on_nats], ids=["memory", "nats"])


@BROKERS
async def test_what_need_not_wait_is_taken_as_it_comes(listen: Callable[[Any], tuple[Offer, Any]]) -> None:
    taker = Taker()
    offer, cancel = listen(taker)
    offer(b"1")
    assert taker.taken == [b"1"]
    await asyncio.sleep(0)
    offer(b"2")
    assert taker.taken == [b"1", b"2"]
    await cancel()


@BROKERS
async def test_nothing_overtakes_what_waits(listen: Callable[[Any], tuple[Offer, Any]]) -> None:
    taker = Taker()
    offer, cancel = listen(taker)
    taker.shut()
    offer(b"1")
    await eventually(lambda: taker.waiting == 1)
    taker.opened.set()
    # The first has been taken out of the queue and does not know yet that it may go on.
    offer(b"2")
    assert taker.taken == []
    await eventually(lambda: len(taker.taken) == 2)
    assert taker.taken == [b"1", b"2"]
    offer(b"3")
    assert taker.taken == [b"1", b"2", b"3"]
    await cancel()


async def test_a_callback_that_fails_at_once_fails_no_publisher(caplog: pytest.LogCaptureFixture) -> None:
    taker = Taker()
    offer, cancel = in_memory(taker)
    taker.broken = True
    with caplog.at_level(logging.ERROR):
        offer(b"1")
    assert "the callback of subscription a.b failed" in caplog.text
    taker.broken = False
    offer(b"2")
    assert taker.taken == [b"2"]
    await cancel()


@pytest.mark.parametrize("in_flight_max", [1, 3])
async def test_a_subscription_gets_all_in_order_though_it_is_full_most_of_the_time(in_flight_max: int) -> None:
    seen: list[float] = []
    most = 0

    async def handle(event: TelemetryEvent) -> None:
        nonlocal most
        most = max(most, subscription.in_flight)
        await asyncio.sleep(0.01)
        seen.append(number_of(event))

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, delivery=CORE, in_flight_max=in_flight_max)
        for n in range(20):
            await bus.publish("polaris.telemetry.web", telemetry(n), delivery=CORE)
            if n == 10:
                await asyncio.sleep(1)
        await eventually(lambda: len(seen) == 20)
    assert seen == list(range(20))
    assert most == in_flight_max
