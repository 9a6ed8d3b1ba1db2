"""Two connections as one broker keep every promise of the port, in memory and on a real server, and its own lanes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.conftest import ConnectNATS

from polaris.exceptions import BusConnectionError, InvalidValueError
from polaris.messaging import ConnectionState, DeliveryClass, OutgoingMessage, StreamSpec
from polaris.messaging._broker import MessageBroker
from polaris.messaging.brokers._embedded import EmbeddedNATSServer
from polaris.messaging.brokers._lanes import LanedMessageBroker
from polaris.messaging.brokers._memory import InMemoryMessageBroker
from polaris.messaging.brokers._memory_hub import InMemoryHub
from polaris.messaging.brokers._nats import NATSMessageBroker
from polaris.testing import run_virtual, running_clock
from polaris.testing.broker_suite import BrokerSuite, MakeBroker

PROMISES = sorted(name for name, _ in inspect.getmembers(BrokerSuite, inspect.isfunction) if name.startswith("test_"))
MIXED = ("*.s1", "*.a.>", "*.x")
"""So that the subjects of the suite, all below a token of their own, are spread over both lanes."""


@pytest.mark.parametrize("promise", PROMISES)
def test_in_memory(promise: str) -> None:
    async def check() -> None:
        hub = InMemoryHub(clock=running_clock())
        brokers: list[LanedMessageBroker] = []

        async def make() -> MessageBroker:
            lanes = LanedMessageBroker(InMemoryMessageBroker(hub), InMemoryMessageBroker(hub), bulk_patterns=MIXED)
            await lanes.connect()
            brokers.append(lanes)
            return lanes

        test: Callable[[Any], Awaitable[None]] = getattr(BrokerSuite(), promise)
        try:
            await test(make)
        finally:
            for broker in brokers:
                await broker.disconnect()

    run_virtual(check())


class TestOnNATS(BrokerSuite):
    @pytest.fixture
    async def make_broker(self, nats_server: EmbeddedNATSServer) -> AsyncIterator[MakeBroker]:
        brokers: list[LanedMessageBroker] = []

        async def make() -> MessageBroker:
            lanes = LanedMessageBroker(
                NATSMessageBroker(nats_server.client_config(f"control-{len(brokers)}")),
                NATSMessageBroker(nats_server.client_config(f"bulk-{len(brokers)}")),
                bulk_patterns=MIXED,
            )
            await lanes.connect()
            brokers.append(lanes)
            return lanes

        yield make
        for broker in brokers:
            await broker.disconnect()


STREAM = StreamSpec(name="LANES", subjects=("lanes.bulk.>", "lanes.control.>"))


async def published_while_bulk_waits(broker: MessageBroker) -> int:
    """How many of 3,000 bulk publishes still wait when a control message, published behind them, is confirmed."""
    await broker.ensure_stream(STREAM)

    async def publish(subject: str) -> None:
        message = OutgoingMessage(subject, b"x" * 2_000)
        await broker.publish(message, delivery=DeliveryClass.AT_LEAST_ONCE, timeout_s=60.0)

    bulk = [asyncio.create_task(publish(f"lanes.bulk.{number}")) for number in range(3_000)]
    await asyncio.sleep(0)
    await publish("lanes.control.stop")
    waiting = sum(not task.done() for task in bulk)
    await asyncio.gather(*bulk)
    return waiting


async def test_control_traffic_does_not_wait_behind_bulk(
    make_nats_server: Callable[..., Awaitable[EmbeddedNATSServer]], connect_nats: ConnectNATS
) -> None:
    server = await make_nats_server()
    control, bulk = [await connect_nats(server, publish_in_flight_max=16) for _ in range(2)]
    assert await published_while_bulk_waits(control) == 0  # as it is with one connection
    lanes = LanedMessageBroker(control, bulk, bulk_patterns=("lanes.bulk.>",))
    assert await published_while_bulk_waits(lanes) > 1_500


class Unreachable(InMemoryMessageBroker):
    async def connect(self) -> None:
        raise BusConnectionError("nobody there")


def test_when_one_lane_cannot_connect_none_is_left_connected() -> None:
    async def main() -> None:
        control = InMemoryMessageBroker(clock=running_clock())
        lanes = LanedMessageBroker(control, Unreachable(clock=running_clock()))
        with pytest.raises(BusConnectionError):
            await lanes.connect()
        assert control.state is not ConnectionState.CONNECTED

    run_virtual(main())


def test_the_state_is_the_worse_one_and_told_once() -> None:
    async def main() -> None:
        hub = InMemoryHub(clock=running_clock())
        control, bulk = InMemoryMessageBroker(hub), InMemoryMessageBroker(hub)
        lanes = LanedMessageBroker(control, bulk)
        told: list[ConnectionState] = []

        def failing(state: ConnectionState) -> None:
            raise RuntimeError(state)

        lanes.on_state(failing)
        lanes.on_state(told.append)
        await lanes.connect()
        await bulk.disconnect()
        assert lanes.state is bulk.state
        await lanes.disconnect()
        assert told[0] is ConnectionState.CONNECTED
        assert told[1] is not ConnectionState.CONNECTED
        assert len(told) == 2

    run_virtual(main())


def test_one_connection_is_no_two_lanes() -> None:
    async def main() -> None:
        broker = InMemoryMessageBroker(clock=running_clock())
        with pytest.raises(InvalidValueError, match="bulk"):
            LanedMessageBroker(broker, broker)

    run_virtual(main())
