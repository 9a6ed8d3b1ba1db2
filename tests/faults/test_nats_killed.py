"""The server is killed in mid-stream: nothing that was confirmed is lost, nothing is stored twice, all carry on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
from tests.awake import until, within
from tests.conftest import ConnectNATS, MakeNATSServer
from tests.faults.longest import ALLOWANCE_S, Longest
from tests.faults.sizes import size

from polaris.exceptions import BusConnectionError, PublishError, UnconfirmedPublishError
from polaris.messaging._broker import (
    MESSAGE_ID_HEADER,
    ConnectionState,
    ConsumerSpec,
    DeliveryClass,
    OutgoingMessage,
    Start,
    StreamSpec,
)
from polaris.messaging.brokers._embedded import EmbeddedNATSServer
from polaris.messaging.brokers._nats import NATSMessageBroker

MESSAGES = size(10_000, 100_000)
KILLS = 3
PUBLISHERS = 256
TIMEOUT_S = 3.0
STREAM = StreamSpec(name="FAULTS", subjects=("faults.>",))
START = {True: Start.NEW, False: Start.ALL}


async def kill(server: EmbeddedNATSServer) -> None:
    """kill -9 the server, and see it end."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    end = await server.wait()
    assert (end.code, end.expected) == (128 + signal.SIGKILL, False)


async def published(
    broker: NATSMessageBroker, message_id: str, act: Callable[[], AbstractContextManager[None]] = nullcontext
) -> int:
    """Publish until there is a receipt, always with the same id; returns the sequence. `act` stands round each try."""
    message = OutgoingMessage("faults.a", message_id.encode(), message_id)
    while True:
        try:
            with act():
                receipt = await broker.publish(message, delivery=DeliveryClass.AT_LEAST_ONCE, timeout_s=TIMEOUT_S)
        except (BusConnectionError, UnconfirmedPublishError, PublishError):
            await asyncio.sleep(0.01)
        else:
            assert receipt.sequence is not None
            return receipt.sequence


@pytest.fixture
async def server(make_nats_server: MakeNATSServer) -> EmbeddedNATSServer:
    return await make_nats_server()


async def test_what_was_confirmed_survives_three_kills_of_the_server_exactly_once(
    server: EmbeddedNATSServer, connect_nats: ConnectNATS, record_property: Callable[[str, object], None]
) -> None:
    publisher, reader = await connect_nats(server), await connect_nats(server)
    await publisher.ensure_stream(STREAM)
    consumer = await reader.consumer(
        ConsumerSpec(stream="FAULTS", durable="reader", pattern="faults.>", ack_wait_s=5.0)
    )
    confirmed: dict[str, int] = {}
    received: Counter[str] = Counter()
    ids = iter(f"id-{n}" for n in range(MESSAGES))

    async def publish() -> None:
        for message_id in ids:
            confirmed[message_id] = await published(publisher, message_id, longest.act)

    async def read() -> None:
        while len(received) < MESSAGES:
            try:
                deliveries = await consumer.fetch(256, wait_s=1.0)
                for delivery in deliveries:
                    received[delivery.headers[MESSAGE_ID_HEADER]] += 1
                    await delivery.ack()
            except BusConnectionError:
                await asyncio.sleep(0.01)

    async def disturb() -> list[float]:
        resumed_s = []
        for number in range(1, KILLS + 1):
            while len(confirmed) < number * MESSAGES // (KILLS + 1):
                await asyncio.sleep(0.001)
            await kill(server)
            await server.start()
            before = len(confirmed)
            resumed_s.append(await until(lambda: len(confirmed) > before, "publishers go on"))  # noqa: B023
        return resumed_s

    async with within(size(90.0, 600.0)) as clock, asyncio.TaskGroup() as tasks:
        longest = Longest(clock)
        disturbance = tasks.create_task(disturb())
        reading = tasks.create_task(read())
        for _ in range(PUBLISHERS):
            tasks.create_task(publish())
    await reading

    stored: dict[str, int] = {}
    for n in range(0, MESSAGES + 1, 1000):
        for message in await publisher.read_stored("FAULTS", from_sequence=n + 1, count_max=1000):
            if message.sequence <= n + 1000:
                assert message.headers[MESSAGE_ID_HEADER] not in stored, "stored twice"
                stored[message.headers[MESSAGE_ID_HEADER]] = message.sequence
    assert stored == confirmed
    assert set(received) == set(confirmed)
    assert publisher.reconnects == KILLS
    # How soon they go on after a kill is measured by benchmarks/bus.py.
    record_property("resumed_s", disturbance.result())
    record_property("longest_s", longest.seconds)
    assert longest.seconds <= TIMEOUT_S + ALLOWANCE_S


async def test_a_consumer_waiting_during_a_kill_says_so_and_then_goes_on(
    server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(server)
    await broker.ensure_stream(STREAM)
    consumer = await broker.consumer(ConsumerSpec(stream="FAULTS", durable="reader", pattern="faults.>"))
    waiting = asyncio.create_task(consumer.fetch(10, wait_s=30.0))
    await asyncio.sleep(0.1)
    await kill(server)
    async with within(10.0):
        with pytest.raises(BusConnectionError):
            await waiting
    with pytest.raises(BusConnectionError):
        await consumer.fetch(10, wait_s=30.0)
    await server.start()
    async with within(15.0):
        while broker.state is not ConnectionState.CONNECTED:
            await asyncio.sleep(0.005)
        await published(broker, "after")
        (delivery,) = await consumer.fetch(10, wait_s=5.0)
    assert delivery.payload == b"after"
    await delivery.ack(confirm=True)


async def test_a_consumer_comes_back_on_a_server_with_a_new_store(
    server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(server)
    await broker.ensure_stream(STREAM)
    consumers = [
        await broker.consumer(
            ConsumerSpec(stream="FAULTS", durable=f"reader-{new}", pattern="faults.>", start=START[new])
        )
        for new in (False, True)
    ]
    await published(broker, "before")
    await kill(server)
    store = server.config.data_dir / "store"
    store.rename(store.with_name("lost"))
    await server.start()
    async with within(10.0):
        while broker.state is not ConnectionState.CONNECTED:
            await asyncio.sleep(0.005)
        found = [asyncio.create_task(consumer.fetch(10, wait_s=8.0)) for consumer in consumers]
        await published(broker, "after")
        for fetch in found:
            assert [delivery.payload for delivery in await fetch] == [b"after"]
