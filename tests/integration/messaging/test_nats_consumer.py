"""Pull consumers on a real server: shared, cancelled, deleted behind their back, and never deaf."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace
from tests.awake import PATIENCE_S, within
from tests.conftest import ConnectNATS

from polaris.exceptions import InvalidValueError, SubscriptionError
from polaris.ids import new_id
from polaris.messaging._broker import AckPolicy, ConsumerSpec, DeliveryClass, OutgoingMessage, PullConsumer, StreamSpec
from polaris.messaging.brokers._embedded import EmbeddedNATSServer
from polaris.messaging.brokers._nats import NATSMessageBroker

STORED = DeliveryClass.AT_LEAST_ONCE


class Case:
    """A broker with a stream of its own."""

    def __init__(self, broker: NATSMessageBroker) -> None:
        self.broker = broker
        self.name = f"case{new_id()}"
        self.stream = StreamSpec(name=self.name, subjects=(f"{self.name}.>",))

    def spec(self, durable: str = "reader", ack_wait_s: float = 30.0) -> ConsumerSpec:
        return ConsumerSpec(stream=self.name, durable=durable, pattern=f"{self.name}.>", ack_wait_s=ack_wait_s)

    async def publish(self, count: int, *, first: int = 0) -> list[bytes]:
        payloads = [str(n).encode() for n in range(first, first + count)]
        for payload in payloads:
            await self.broker.publish(OutgoingMessage(f"{self.name}.a", payload), delivery=STORED)
        return payloads

    async def administer(self, endpoint: str, body: object = None) -> None:
        payload = b"" if body is None else json.dumps(body).encode()
        answer = await self.broker.request(OutgoingMessage(f"$JS.API.{endpoint}", payload), timeout_s=5.0)
        assert b'"error"' not in answer.payload


@pytest.fixture
async def case(nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS) -> AsyncIterator[Case]:
    case = Case(await connect_nats(nats_server))
    await case.broker.ensure_stream(case.stream)
    yield case
    await case.administer(f"STREAM.DELETE.{case.name}")


async def payloads_of(consumer: PullConsumer, count: int, *, batch: int = 64) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        deliveries = await consumer.fetch(batch, wait_s=5.0)
        if not deliveries:
            break
        for delivery in deliveries:
            found.append(delivery.payload)
            await delivery.ack()
    return found


async def test_a_consumer_that_was_deleted_while_it_waits_is_made_again(case: Case) -> None:
    consumer = await case.broker.consumer(case.spec())
    sent = await case.publish(3)
    assert await payloads_of(consumer, 3) == sent
    waiting = asyncio.create_task(consumer.fetch(10, wait_s=30.0))
    await asyncio.sleep(0.1)
    await case.administer(f"CONSUMER.DELETE.{case.name}.reader")
    await case.administer(f"STREAM.PURGE.{case.name}")
    await case.publish(1, first=3)
    # The server does not always tell a waiting pull: then the missing heartbeats do.
    async with within(10.0):
        assert [delivery.payload for delivery in await waiting] == [b"3"]


async def test_a_fetch_from_a_deleted_consumer_makes_it_again(case: Case) -> None:
    consumer = await case.broker.consumer(case.spec())
    await case.administer(f"CONSUMER.DELETE.{case.name}.reader")
    sent = await case.publish(3)
    async with within(10.0):
        assert await payloads_of(consumer, 3) == sent


async def test_a_stream_that_is_nobodys_business_is_not_made_again(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS, case: Case
) -> None:
    stranger = await connect_nats(nats_server)
    consumer = await stranger.consumer(case.spec())
    await case.administer(f"STREAM.DELETE.{case.name}")
    async with within(10.0):
        with pytest.raises(SubscriptionError, match="cannot be made again"):
            await consumer.fetch(1, wait_s=8.0)
    await case.broker.ensure_stream(case.stream)


async def test_many_fetches_at_once_share_the_messages(case: Case) -> None:
    consumer = await case.broker.consumer(case.spec())
    fetches = [asyncio.create_task(consumer.fetch(10, wait_s=2.0)) for _ in range(5)]
    await asyncio.sleep(0.05)
    sent = await case.publish(50)
    found = [delivery.payload for fetch in fetches for delivery in await fetch]
    found += await payloads_of(consumer, 50 - len(found))
    assert sorted(found) == sorted(sent)


async def test_a_fetch_waits_for_its_turn_no_longer_than_it_may(case: Case) -> None:
    consumer = await case.broker.consumer(case.spec())
    long = asyncio.create_task(consumer.fetch(1, wait_s=60.0))
    await asyncio.sleep(0.05)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    async with within(10.0):
        assert await consumer.fetch(1, wait_s=0.2) == []
    assert loop.time() - began_s >= 0.15
    long.cancel()
    await asyncio.wait([long])
    assert long.cancelled()


async def test_processes_that_wait_for_the_same_consumer_all_wait_and_none_starves(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS, case: Case
) -> None:
    consumers = [await (await connect_nats(nats_server)).consumer(case.spec()) for _ in range(4)]
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    assert await asyncio.gather(*(consumer.fetch(10, wait_s=0.5) for consumer in consumers)) == [[]] * 4
    assert loop.time() - began_s >= 0.45
    found: list[bytes] = []

    async def read(consumer: PullConsumer) -> int:
        mine = 0
        while len(found) < 400:
            for delivery in await consumer.fetch(10, wait_s=0.5):
                mine += 1
                found.append(delivery.payload)
                await delivery.ack()
                await asyncio.sleep(0)
        return mine

    reading = [asyncio.create_task(read(consumer)) for consumer in consumers]
    sent = await case.publish(400)
    shares = await asyncio.wait_for(asyncio.gather(*reading), PATIENCE_S)
    assert sorted(found) == sorted(sent)
    assert min(shares) > 0


async def test_cancelled_fetches_hand_their_messages_to_the_next_one(case: Case) -> None:
    consumer = await case.broker.consumer(case.spec())
    sent: list[bytes] = []
    found: list[bytes] = []
    for turn in range(30):
        waiting = asyncio.create_task(consumer.fetch(5, wait_s=5.0))
        await asyncio.sleep(0)
        publishing = asyncio.create_task(case.publish(1, first=turn))
        for _ in range(turn % 10):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        if not waiting.cancelled():
            found += [delivery.payload for delivery in waiting.result()]
        sent += await publishing
    # Within the ack wait, and without a second delivery of any.
    async with within(10.0):
        while len(found) < len(sent):
            deliveries = await consumer.fetch(5, wait_s=1.0)
            assert all(delivery.attempt == 1 for delivery in deliveries)
            found += [delivery.payload for delivery in deliveries]
    assert sorted(found) == sorted(sent)


async def test_what_was_left_over_for_too_long_is_not_handed_out_twice(case: Case) -> None:
    consumer = await case.broker.consumer(case.spec(ack_wait_s=0.6))
    waiting = asyncio.create_task(consumer.fetch(5, wait_s=5.0))
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.wait([waiting])
    await case.publish(1)
    await asyncio.sleep(0.5)
    async with within(5.0):
        (delivery,) = await consumer.fetch(5, wait_s=3.0)
    await delivery.ack(confirm=True)
    assert delivery.attempt == 2
    assert await consumer.fetch(5, wait_s=0.8) == []


async def test_what_was_left_over_and_comes_only_once_is_handed_out_however_long_it_lay(case: Case) -> None:
    consumer = await case.broker.consumer(replace(case.spec(ack_wait_s=0.2), ack=AckPolicy.NONE))
    waiting = asyncio.create_task(consumer.fetch(5, wait_s=5.0))
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.wait([waiting])
    sent = await case.publish(1)
    async with within(5.0):
        while not (await consumer.info()).delivered:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    assert [delivery.payload for delivery in await consumer.fetch(5, wait_s=0.5)] == sent


async def test_closing_a_consumer_ends_its_waiting_fetch(case: Case) -> None:
    consumer = await case.broker.consumer(case.spec())
    waiting = asyncio.create_task(consumer.fetch(1, wait_s=60.0))
    await asyncio.sleep(0.05)
    await consumer.close()
    with pytest.raises(SubscriptionError, match="closed"):
        async with within(10.0):
            await waiting
    with pytest.raises(SubscriptionError, match="closed"):
        await consumer.fetch(1, wait_s=1.0)
    with pytest.raises(SubscriptionError, match="closed"):
        await consumer.info()


async def test_a_settled_delivery_is_settled_once(case: Case) -> None:
    consumer = await case.broker.consumer(case.spec(ack_wait_s=0.5))
    await case.publish(1)
    (delivery,) = await consumer.fetch(1, wait_s=5.0)
    await delivery.ack(confirm=True)
    await delivery.ack(confirm=True)
    await delivery.nak(delay_s=0.0)
    await delivery.in_progress()
    await delivery.term()
    assert await consumer.fetch(1, wait_s=0.8) == []


async def test_a_consumer_is_brought_up_to_its_specification(case: Case) -> None:
    await case.publish(3)
    former = await case.broker.consumer(case.spec(ack_wait_s=60.0))
    await payloads_of(former, 2, batch=2)
    later = await case.broker.consumer(case.spec(ack_wait_s=0.5))
    (first,) = await later.fetch(1, wait_s=5.0)
    (again,) = await later.fetch(1, wait_s=5.0)
    assert (first.payload, again.payload, again.attempt) == (b"2", b"2", 2)


@pytest.mark.parametrize("count", [0, -1])
async def test_a_fetch_of_nothing_is_refused(case: Case, count: int) -> None:
    consumer = await case.broker.consumer(case.spec())
    with pytest.raises(InvalidValueError, match="count_max"):
        await consumer.fetch(count, wait_s=1.0)


async def test_a_stream_is_brought_up_to_its_specification(case: Case) -> None:
    await case.publish(5)
    tighter = StreamSpec(name=case.name, subjects=case.stream.subjects, max_bytes=1 << 20, max_age_s=60.0)
    await case.broker.ensure_stream(tighter)
    await case.broker.ensure_stream(tighter)
    assert len(await case.broker.read_stored(case.name)) == 5
