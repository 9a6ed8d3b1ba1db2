"""The in-memory broker keeps every promise of the port, in virtual time; and the suite notices each broken one."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.conformance.broken_memory_broker import BREAKS

from polaris.messaging._broker import MessageBroker, StreamSpec
from polaris.messaging.brokers._memory import InMemoryMessageBroker
from polaris.messaging.brokers._memory_hub import InMemoryHub
from polaris.testing import run_virtual, running_clock
from polaris.testing.broker_suite import BrokerSuite

PROMISES = sorted(name for name, _ in inspect.getmembers(BrokerSuite, inspect.isfunction) if name.startswith("test_"))


async def check(promise: str) -> None:
    """Run one test of the suite against brokers that share a hub."""
    hub = InMemoryHub(clock=running_clock())
    brokers: list[InMemoryMessageBroker] = []

    async def make() -> MessageBroker:
        broker = InMemoryMessageBroker(hub)
        await broker.connect()
        brokers.append(broker)
        return broker

    test: Callable[[Any], Awaitable[None]] = getattr(BrokerSuite(), promise)
    try:
        await test(make)
    finally:
        for broker in brokers:
            await broker.disconnect()


@pytest.mark.parametrize("promise", PROMISES)
def test_the_memory_broker_keeps_its_promise(promise: str) -> None:
    run_virtual(check(promise))


@pytest.mark.parametrize("promise", sorted(BREAKS))
def test_the_suite_notices_a_broken_promise_and_nothing_else(promise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BREAKS[promise](monkeypatch)
    broken = []
    for other in PROMISES:
        try:
            run_virtual(check(other))
        except (Exception, pytest.fail.Exception):
            broken.append(other)
    assert broken == [promise]


def test_a_small_server_has_room_for_what_the_whole_suite_leaves_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, int] = {}
    ensure = InMemoryHub.ensure_stream

    def note(self: InMemoryHub, spec: StreamSpec) -> None:
        asked[spec.name] = max(asked.get(spec.name, 0), spec.max_bytes or 0)
        ensure(self, spec)

    monkeypatch.setattr(InMemoryHub, "ensure_stream", note)
    for promise in PROMISES:
        run_virtual(check(promise))
    assert len(asked) > 20
    assert max(asked.values()) <= 1 << 24
    assert sum(asked.values()) < 1 << 30


def test_every_break_names_a_promise() -> None:
    assert set(BREAKS) <= set(PROMISES)
