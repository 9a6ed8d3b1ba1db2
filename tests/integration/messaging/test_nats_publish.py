"""Stored publishes on a real server: pipelined, cancelled, bounded, and honest about what happened."""

from __future__ import annotations

import asyncio

import pytest
from tests.awake import until
from tests.conftest import ConnectNATS

from polaris.exceptions import BusConnectionError, InvalidTopicError, PublishError, UnconfirmedPublishError
from polaris.ids import new_id
from polaris.messaging._broker import Delivery, DeliveryClass, OutgoingMessage, Receipt, StreamSpec
from polaris.messaging.brokers._embedded import EmbeddedNATSServer
from polaris.messaging.brokers._nats import YIELD_EVERY, NATSMessageBroker

STORED = DeliveryClass.AT_LEAST_ONCE


async def stream_of(broker: NATSMessageBroker, **bounds: int) -> str:
    name = f"publish{new_id()}"
    await broker.ensure_stream(StreamSpec(name=name, subjects=(f"{name}.>",), **bounds))
    return name


async def test_pipelined_publishes_are_stored_in_the_order_they_were_sent(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(nats_server)
    name = await stream_of(broker)
    receipts = await asyncio.gather(
        *(
            broker.publish(OutgoingMessage(f"{name}.a", str(n).encode(), f"{name}-{n}"), delivery=STORED)
            for n in range(2000)
        )
    )
    assert [receipt.sequence for receipt in receipts] == list(range(1, 2001))


async def test_more_publishes_than_may_be_in_flight_wait_for_a_place(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(nats_server, publish_in_flight_max=4)
    name = await stream_of(broker)
    receipts = await asyncio.gather(
        *(broker.publish(OutgoingMessage(f"{name}.a", b"x"), delivery=STORED) for _ in range(100))
    )
    assert sorted(receipt.sequence or 0 for receipt in receipts) == list(range(1, 101))


async def test_cancelled_publishes_give_their_places_back(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(nats_server, publish_in_flight_max=2)
    subject = f"silent{new_id()}"
    await broker.subscribe(subject, lambda _: asyncio.sleep(0))
    message = OutgoingMessage(subject, b"x")
    for _ in range(3):
        waiting = [asyncio.create_task(broker.publish(message, delivery=STORED, timeout_s=60.0)) for _ in range(5)]
        await asyncio.sleep(0.02)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert all(task.cancelled() for task in waiting)
    name = await stream_of(broker)
    assert (await broker.publish(OutgoingMessage(f"{name}.a", b"x"), delivery=STORED)).sequence == 1


async def test_without_a_place_in_time_nothing_is_sent(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(nats_server, publish_in_flight_max=1)
    subject, seen = f"silent{new_id()}", []

    async def silent(delivery: Delivery) -> None:
        seen.append(delivery.payload)

    await broker.subscribe(subject, silent)
    first = asyncio.create_task(broker.publish(OutgoingMessage(subject, b"1"), delivery=STORED, timeout_s=1.5))
    await until(lambda: bool(seen), "the first has the only place")
    with pytest.raises(BusConnectionError):
        await broker.publish(OutgoingMessage(subject, b"2"), delivery=STORED, timeout_s=0.1)
    with pytest.raises(UnconfirmedPublishError):
        await first
    assert seen == [b"1"]


async def test_an_answer_that_is_not_of_a_stream_confirms_nothing(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker, other = await connect_nats(nats_server), await connect_nats(nats_server)
    subject = f"service{new_id()}"
    answers = iter([b"not json", b"{}", b'{"stream": 7}', b"[]"])

    async def answer(delivery: Delivery) -> None:
        assert delivery.reply_to is not None
        await other.publish(OutgoingMessage(delivery.reply_to, next(answers)))

    await other.subscribe(subject, answer)
    for _ in range(4):
        with pytest.raises(UnconfirmedPublishError):
            await broker.publish(OutgoingMessage(subject, b"x", "id-1"), delivery=STORED)


async def test_what_the_stream_refuses_was_not_stored(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(nats_server)
    name = await stream_of(broker)
    headers = {"Nats-Expected-Last-Sequence": "99"}
    with pytest.raises(PublishError, match="wrong last sequence"):
        await broker.publish(OutgoingMessage(f"{name}.a", b"x", headers=headers), delivery=STORED)
    assert await broker.read_stored(name) == []


async def test_late_answers_belong_to_nobody(nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS) -> None:
    broker = await connect_nats(nats_server)
    subject = f"late{new_id()}"

    async def late(delivery: Delivery) -> None:
        assert delivery.reply_to is not None
        await asyncio.sleep(0.15)
        await broker.publish(OutgoingMessage(delivery.reply_to, delivery.payload))

    await broker.subscribe(subject, late)
    with pytest.raises(TimeoutError):
        await broker.request(OutgoingMessage(subject, b"1"), timeout_s=0.05)
    assert (await broker.request(OutgoingMessage(subject, b"2"), timeout_s=5.0)).payload == b"2"


async def test_a_publisher_that_never_waits_lets_others_run(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(nats_server)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    for _ in range(2000):
        await broker.publish(OutgoingMessage("flood.a", b"x"))
    ticking.cancel()
    await asyncio.wait([ticking])
    assert ticks >= 20


async def test_what_is_offered_arrives_in_order_with_what_is_published(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(nats_server)
    subject, seen = f"offer{new_id()}", []

    async def take(delivery: Delivery) -> None:
        seen.append(delivery.payload)

    subscription = await broker.subscribe(f"{subject}.*", take)
    refused = 0
    for number in range(1_000):
        message = OutgoingMessage(f"{subject}.{number % 3}", str(number).encode(), f"{number}")
        receipt = broker.offer(message)
        if receipt is None:
            refused += 1
            receipt = await broker.publish(message)
        assert receipt == Receipt(delivery=DeliveryClass.AT_MOST_ONCE, message_id=f"{number}")
    await until(lambda: len(seen) == 1_000, "all have come")
    await subscription.drain()
    assert seen == [str(number).encode() for number in range(1_000)]
    # The others had their turns.
    assert refused == 1_000 // YIELD_EVERY


async def test_what_cannot_be_sent_at_once_is_not_taken(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(nats_server)
    assert broker.offer(OutgoingMessage("offer.a", b"x", None, {"a": "b"})) is None
    assert broker.offer(OutgoingMessage("offer.a", b"x" * (broker.capabilities.payload_bytes_max + 1))) is None
    assert broker.offer(OutgoingMessage("offer.a", b"x" * broker.capabilities.payload_bytes_max)) is not None
    for subject in ("offer.*", "", "offer a", "offer.\r\nPUB b  0\r\n"):
        with pytest.raises(InvalidTopicError):
            broker.offer(OutgoingMessage(subject, b"x"))
    await broker.disconnect()
    with pytest.raises(BusConnectionError):
        broker.offer(OutgoingMessage("offer.a", b"x"))


async def test_a_slow_subscriber_drops_the_newest_and_counts_them(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(nats_server, pending_messages_max=10)
    subject, release, handling, seen = f"slow{new_id()}", asyncio.Event(), asyncio.Event(), []

    async def slow(delivery: Delivery) -> None:
        handling.set()
        await release.wait()
        seen.append(delivery.payload)

    subscription = await broker.subscribe(subject, slow)
    await broker.publish(OutgoingMessage(subject, b"first"))
    await until(handling.is_set, "the first is in the handler")
    for n in range(30):
        await broker.publish(OutgoingMessage(subject, str(n).encode()))
    await until(lambda: broker.dropped == 20, "what has no room is dropped")
    release.set()
    await subscription.drain()
    assert seen == [b"first", *(str(n).encode() for n in range(10))]
    assert broker.dropped == 20
