"""What every broker promises of storing messages in streams."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from polaris.exceptions import (
    InvalidTopicError,
    InvalidValueError,
    MessageBusError,
    PayloadTooLargeError,
    PublishError,
)
from polaris.ids import new_id
from polaris.messaging import (
    MESSAGE_ID_HEADER,
    DeliveryClass,
    OutgoingMessage,
)
from polaris.testing._broker_scratch import (
    STORED,
    Inbox,
    MakeBroker,
    fetch,
    scratch_stream,
    scratch_subject,
    settle_down,
)


class StreamPromises:
    """What holds for storing."""

    async def test_a_stored_publish_says_stream_and_rising_sequence(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        receipts = [
            await stream.broker.publish(OutgoingMessage(stream.subject(), b"x", f"id-{n}"), delivery=STORED)
            for n in range(3)
        ]
        assert [receipt.sequence for receipt in receipts] == [1, 2, 3]
        assert {receipt.stream for receipt in receipts} == {stream.spec.name}
        assert [receipt.message_id for receipt in receipts] == ["id-0", "id-1", "id-2"]
        assert all(receipt.delivery is STORED and not receipt.duplicate for receipt in receipts)

    async def test_a_stored_publish_that_no_stream_wants_is_refused(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        with pytest.raises(PublishError):
            await broker.publish(OutgoingMessage(scratch_subject(), b"x", new_id()), delivery=STORED, timeout_s=2.0)

    async def test_an_oversized_stored_publish_is_refused(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        payload = b"x" * (stream.broker.capabilities.payload_bytes_max + 1)
        with pytest.raises(PayloadTooLargeError):
            await stream.publish(payload)
        assert await stream.broker.read_stored(stream.spec.name) == []

    async def test_a_message_id_is_stored_once(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        first = await stream.broker.publish(OutgoingMessage(stream.subject(), b"1", "same"), delivery=STORED)
        again = await stream.broker.publish(OutgoingMessage(stream.subject(), b"2", "same"), delivery=STORED)
        assert (first.duplicate, again.duplicate) == (False, True)
        assert again.sequence == first.sequence
        stored = await stream.broker.read_stored(stream.spec.name)
        assert [message.payload for message in stored] == [b"1"]

    async def test_many_publishes_at_once_are_all_stored(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        sequences = await asyncio.gather(*(stream.publish(str(n).encode()) for n in range(300)))
        assert sorted(sequences) == list(range(1, 301))

    async def test_a_core_subscriber_also_sees_what_is_stored(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        inbox = Inbox()
        await stream.broker.subscribe(stream.subject(), inbox)
        await stream.publish(b"x")
        await inbox.wait_for(1)

    async def test_ensuring_a_stream_again_keeps_its_messages(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        await stream.publish(b"x")
        wider = msgspec.structs.replace(stream.spec, subjects=(*stream.spec.subjects, f"{stream.prefix}x.>"))
        await stream.broker.ensure_stream(wider)
        assert [message.payload for message in await stream.broker.read_stored(wider.name)] == [b"x"]
        await stream.broker.publish(OutgoingMessage(f"{stream.prefix}x.y", b"y", new_id()), delivery=STORED)

    async def test_a_subject_belongs_to_one_stream(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        other = msgspec.structs.replace(stream.spec, name=f"{stream.spec.name}_2", subjects=(stream.subject("a"),))
        with pytest.raises(MessageBusError):
            await stream.broker.ensure_stream(other)

    async def test_at_its_bound_a_stream_drops_the_oldest(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker, max_bytes=20_000)
        for n in range(10):
            await stream.publish(bytes([n]) * 5_000)
        stored = await stream.broker.read_stored(stream.spec.name)
        numbers = [message.payload[0] for message in stored]
        assert 1 <= len(numbers) <= 4
        assert numbers == list(range(10 - len(numbers), 10))

    async def test_what_is_stored_can_be_read_in_pages(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        broker, name = stream.broker, stream.spec.name
        message = OutgoingMessage(stream.subject("b"), b"\x00\xff", "id-1", headers={"Polaris-Test": "v"})
        await broker.publish(message, delivery=STORED)
        for n in range(4):
            await stream.publish(str(n).encode())
        page = await broker.read_stored(name, count_max=2)
        assert [stored.sequence for stored in page] == [1, 2]
        assert (page[0].subject, page[0].payload) == (stream.subject("b"), b"\x00\xff")
        assert page[0].headers["Polaris-Test"] == "v"
        assert page[0].stored_at.utcoffset() is not None
        rest = await broker.read_stored(name, from_sequence=3)
        assert [stored.payload for stored in rest] == [b"1", b"2", b"3"]
        assert await broker.read_stored(name, from_sequence=6) == []
        with pytest.raises(MessageBusError):
            await broker.read_stored("SUITE_unknown")

    async def test_an_erased_message_is_gone(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        broker, name = stream.broker, stream.spec.name
        for n in range(3):
            await stream.publish(str(n).encode())
        assert await broker.erase_stored(name, 2) is True
        assert await broker.erase_stored(name, 2) is False
        assert [stored.sequence for stored in await broker.read_stored(name)] == [1, 3]
        consumer = await stream.consumer()
        assert [delivery.payload for delivery in await fetch(consumer, 2)] == [b"0", b"2"]
        await consumer.close()

    async def test_what_cannot_travel_is_refused(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        broker = stream.broker
        for last in ("", "a b", "a..b", "a.", "a.*", "a.>", "a\nb"):
            for delivery in DeliveryClass:
                with pytest.raises(InvalidTopicError):
                    await broker.publish(OutgoingMessage(stream.subject(last), b"x"), delivery=delivery)
        for last in ("", "a b", "a..b", "a.>.b"):
            with pytest.raises(InvalidTopicError):
                await broker.subscribe(stream.subject(last), Inbox())
        for name, value in (("a b", "x"), ("", "x"), ("a", "x\ny"), ("a", " x")):
            with pytest.raises(InvalidValueError):
                await broker.publish(OutgoingMessage(stream.subject(), b"x", None, {name: value}), delivery=STORED)
        assert await broker.read_stored(stream.spec.name) == []

    async def test_a_stored_message_carries_its_id_as_a_header(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        await stream.publish(b"x", message_id="id-1")
        (stored,) = await stream.broker.read_stored(stream.spec.name)
        assert stored.headers[MESSAGE_ID_HEADER] == "id-1"

    async def test_a_core_publish_is_not_deduplicated(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        for _ in range(2):
            await stream.broker.publish(OutgoingMessage(stream.subject(), b"core", "same"))
        await stream.publish(b"stored", message_id="same")
        consumer = await stream.consumer()
        assert [delivery.payload for delivery in await fetch(consumer, 3)] == [b"core", b"core", b"stored"]
        await consumer.close()

    async def test_the_first_settlement_of_a_delivery_counts(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        await stream.publish(b"x")
        consumer = await stream.consumer()
        (delivery,) = await fetch(consumer, 1)
        await delivery.nak(delay_s=0.0)
        await delivery.ack()
        (again,) = await fetch(consumer, 1)
        assert again.attempt == 2
        await again.ack(confirm=True)
        await consumer.close()

    async def test_what_is_erased_while_it_is_out_needs_no_settlement(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        sequence = await stream.publish(b"x")
        consumer = await stream.consumer()
        (delivery,) = await fetch(consumer, 1)
        assert await stream.broker.erase_stored(stream.spec.name, sequence)
        await settle_down()
        assert (await consumer.info()).ack_pending == 0
        await delivery.nak(delay_s=0.0)
        assert await consumer.fetch(1, wait_s=0.2) == []
        await consumer.close()
