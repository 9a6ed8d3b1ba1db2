"""The server freezes (SIGSTOP) and thaws: it is noticed within two ping intervals, nothing hangs, all comes back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace
from tests import awake, frozen
from tests.conftest import ConnectNATS, MakeNATSServer
from tests.faults.longest import Longest
from tests.faults.sizes import size

from polaris.exceptions import BusConnectionError, UnconfirmedPublishError
from polaris.messaging._broker import (
    ConnectionState,
    ConsumerSpec,
    Delivery,
    DeliveryClass,
    OutgoingMessage,
    StreamSpec,
)
from polaris.messaging.brokers._embedded import EmbeddedNATSServer
from polaris.messaging.brokers._nats import NATSMessageBroker

PING_S = 0.8
SLACK_S = 0.4
"""Less than an interval: it would be noticed too late otherwise, and the tests would not."""
FROZEN_S = 25.0
STORED = DeliveryClass.AT_LEAST_ONCE


@pytest.fixture
async def server(make_nats_server: MakeNATSServer) -> AsyncIterator[EmbeddedNATSServer]:
    server = await make_nats_server()
    pid = server.pid
    assert pid is not None
    yield server
    if server.running:
        os.kill(pid, signal.SIGCONT)


def freeze(server: EmbeddedNATSServer) -> None:
    assert server.pid is not None
    frozen.freeze(server.pid)


def thaw(server: EmbeddedNATSServer) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGCONT)


async def until(broker: NATSMessageBroker, state: ConnectionState, *, within_s: float) -> None:
    await awake.until(lambda: broker.state is state, f"the broker is {state}", within_s=within_s)


async def test_a_frozen_server_is_noticed_within_two_ping_intervals_and_taken_up_again(
    server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(server, ping_interval_s=PING_S)
    states: list[ConnectionState] = []
    broker.on_state(states.append)
    await broker.ensure_stream(StreamSpec(name="FROZEN", subjects=("frozen.>",)))
    consumer = await broker.consumer(ConsumerSpec(stream="FROZEN", durable="reader", pattern="frozen.>"))
    received: list[bytes] = []

    async def on_delivery(delivery: Delivery) -> None:
        received.append(delivery.payload)

    await broker.subscribe("core.>", on_delivery)
    fetching = asyncio.create_task(consumer.fetch(1, wait_s=60.0))
    # In the begin of an interval, when it takes longest: the ping at its end finds the server frozen, the next one is
    # the last that there may be.
    freeze(server)
    publishing = asyncio.create_task(
        broker.publish(OutgoingMessage("frozen.a", b"unconfirmed", "id-1"), delivery=STORED, timeout_s=60.0)
    )
    await until(broker, ConnectionState.RECONNECTING, within_s=2 * PING_S + SLACK_S)
    async with awake.within(0.1):
        with pytest.raises(UnconfirmedPublishError):
            await publishing
        with pytest.raises(BusConnectionError):
            await fetching
    with pytest.raises(BusConnectionError):
        await broker.publish(OutgoingMessage("frozen.a", b"x"))
    await asyncio.sleep(size(2 * PING_S, FROZEN_S))
    assert broker.state is ConnectionState.RECONNECTING
    thaw(server)
    await until(broker, ConnectionState.CONNECTED, within_s=15.0)
    receipt = await broker.publish(OutgoingMessage("frozen.a", b"unconfirmed", "id-1"), delivery=STORED)
    (stored,) = await broker.read_stored("FROZEN")
    assert (stored.sequence, stored.payload) == (receipt.sequence, b"unconfirmed")
    (delivery,) = await consumer.fetch(1, wait_s=5.0)
    await delivery.ack(confirm=True)
    await broker.publish(OutgoingMessage("core.a", b"core"))
    await awake.until(lambda: bool(received), "the subscription is there again")
    assert states == [ConnectionState.RECONNECTING, ConnectionState.CONNECTED]


async def test_a_server_that_stops_reading_holds_publishers_up_and_hangs_nobody(
    server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(server, ping_interval_s=PING_S, send_buffer_bytes_max=256 * 1024)
    freeze(server)
    sent, payload = 0, b"x" * 100_000

    async with awake.within(2 * PING_S + SLACK_S + 2.0) as clock:
        longest = Longest(clock)

        async def flood() -> None:
            nonlocal sent
            while True:
                with longest.act():
                    await broker.publish(OutgoingMessage("core.a", payload), timeout_s=0.2)
                sent += 1

        with pytest.raises(BusConnectionError):
            await flood()
    assert longest.seconds < 0.5
    # Far less than memory: the socket's buffers and the bound of our own.
    assert sent * len(payload) < 32 << 20
    # A full socket does not delay giving the connection up.
    await until(broker, ConnectionState.RECONNECTING, within_s=2 * PING_S + SLACK_S)
    thaw(server)
    await until(broker, ConnectionState.CONNECTED, within_s=15.0)


async def test_waits_end_in_time_while_the_server_is_frozen(
    server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(server, ping_interval_s=60.0)
    await broker.ensure_stream(StreamSpec(name="FROZEN", subjects=("frozen.>",)))
    consumer = await broker.consumer(ConsumerSpec(stream="FROZEN", durable="reader", pattern="frozen.>"))
    await broker.publish(OutgoingMessage("frozen.a", b"1", "id-1"), delivery=STORED)
    (delivery,) = await consumer.fetch(1, wait_s=5.0)
    # So impatient only from here on: what was done before may take its time.
    broker.config = broker._connection.config = replace(broker.config, api_timeout_s=0.5)
    freeze(server)
    async with awake.within(3.0) as clock:
        longest = Longest(clock)
        with longest.act(), pytest.raises(UnconfirmedPublishError):
            await broker.publish(OutgoingMessage("frozen.a", b"2", "id-2"), delivery=STORED, timeout_s=0.2)
        assert longest.seconds < 0.5
        with pytest.raises(BusConnectionError):
            await broker.ensure_stream(StreamSpec(name="OTHER", subjects=("other.>",)))
        with pytest.raises(BusConnectionError):
            await broker.subscribe("core.a", lambda _: asyncio.sleep(0))
        with pytest.raises(BusConnectionError):
            await consumer.info()
        with pytest.raises(BusConnectionError):
            await delivery.ack(confirm=True)
    # A fetch without heartbeats waits a little longer for the last word, then asks whether the consumer is there.
    async with awake.within(5.0):
        with pytest.raises(BusConnectionError):
            await consumer.fetch(1, wait_s=0.2)
    # Cancelled and timed-out flushes have late answers: they must not hurt the connection.
    thaw(server)
    await asyncio.sleep(0.2)
    receipt = await broker.publish(OutgoingMessage("frozen.a", b"3", "id-3"), delivery=STORED)
    assert receipt.sequence == 3  # the second was not confirmed, and is stored
    assert broker.reconnects == 0


async def test_a_frozen_server_is_disconnected_from_in_time(
    server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(server, drain_timeout_s=0.3)
    freeze(server)
    async with awake.within(3.0):
        await broker.disconnect()
    assert broker.state is ConnectionState.CLOSED


async def test_a_server_that_does_not_read_is_disconnected_from_in_time(
    server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(server, drain_timeout_s=0.3, send_buffer_bytes_max=256 * 1024)
    freeze(server)
    async with awake.awake() as clock:
        longest = Longest(clock)

        async def flood() -> None:
            while True:
                with longest.act():
                    await broker.publish(OutgoingMessage("core.a", b"x" * 100_000), timeout_s=0.1)

        with pytest.raises(BusConnectionError, match="takes no more data"):
            await flood()
    assert longest.seconds < 0.4
    async with awake.within(3.0):
        await broker.disconnect()
    assert broker.state is ConnectionState.CLOSED


async def test_a_frozen_server_is_killed_when_it_does_not_stop(make_nats_server: MakeNATSServer) -> None:
    server = await make_nats_server(stop_grace_s=0.5)
    freeze(server)
    async with awake.within(10.0):
        await server.stop()
    assert not server.running
