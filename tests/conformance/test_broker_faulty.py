"""A faulty broker whose plan does nothing keeps every promise of the port."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from polaris.messaging import InMemoryHub, InMemoryMessageBroker, MessageBroker
from polaris.testing import FaultPlan, FaultyBroker, run_virtual, running_clock
from polaris.testing.broker_suite import BrokerSuite

PROMISES = sorted(name for name, _ in inspect.getmembers(BrokerSuite, inspect.isfunction) if name.startswith("test_"))


async def check(promise: str, plan: FaultPlan) -> None:
    clock = running_clock()
    hub = InMemoryHub(clock=clock)
    brokers: list[FaultyBroker] = []

    async def make() -> MessageBroker:
        broker = FaultyBroker(InMemoryMessageBroker(hub), plan, seed=len(brokers), clock=clock)
        await broker.connect()
        brokers.append(broker)
        return broker

    test: Callable[[Any], Awaitable[None]] = getattr(BrokerSuite(), promise)
    try:
        await test(make)
    finally:
        for broker in brokers:
            await broker.disconnect()
    assert all(not broker.injections for broker in brokers)


@pytest.mark.parametrize("promise", PROMISES)
def test_a_plan_of_nothing_breaks_no_promise(promise: str) -> None:
    run_virtual(check(promise, FaultPlan()))


def test_there_are_promises() -> None:
    assert len(PROMISES) > 40
