"""What every broker promises of durable consumers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress

import pytest

from polaris.exceptions import InvalidValueError, SubscriptionError
from polaris.messaging import (
    ConsumerSpec,
    Delivery,
    Start,
    StreamSpec,
)
from polaris.messaging._broker import GIVEN_UP_PREFIX
from polaris.testing._broker_scratch import (
    ACK_WAIT_S,
    PATIENCE_S,
    Inbox,
    MakeBroker,
    Turns,
    fetch,
    scratch_stream,
    scratch_subject,
    settle_down,
)


class ConsumerPromises:
    """What holds for durable consumers."""

    async def test_a_consumer_begins_with_everything_stored_in_order(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        for n in range(20):
            await stream.publish(str(n).encode(), last=f"s{n % 3}")
        consumer = await stream.consumer()
        found = await fetch(consumer, 20)
        assert [delivery.payload for delivery in found] == [str(n).encode() for n in range(20)]
        assert [delivery.sequence for delivery in found] == list(range(1, 21))
        assert {delivery.attempt for delivery in found} == {1}
        assert all(delivery.stored_at is not None and delivery.stored_at.utcoffset() is not None for delivery in found)
        assert found[1].subject == stream.subject("s1")
        assert found[1].reply_to is None
        await consumer.close()

    async def test_a_consumer_of_new_messages_skips_what_is_stored(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        await stream.publish(b"old")
        consumer = await stream.consumer(start=Start.NEW)
        await stream.publish(b"new")
        assert [delivery.payload for delivery in await fetch(consumer, 1)] == [b"new"]
        assert await consumer.fetch(1, wait_s=0.1) == []
        await consumer.close()

    async def test_a_consumer_begins_with_the_message_of_a_sequence(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        for n in range(1, 6):
            await stream.publish(str(n).encode())
        consumer = await stream.consumer(start=Start.at_sequence(4))
        assert [delivery.sequence for delivery in await fetch(consumer, 2)] == [4, 5]
        await consumer.close()

    async def test_a_consumer_begins_with_the_first_message_stored_at_or_after_a_time(
        self, make_broker: MakeBroker
    ) -> None:
        stream = await scratch_stream(make_broker)
        for n in range(1, 5):
            await stream.publish(str(n).encode())
            await asyncio.sleep(0.01)
        third = (await stream.broker.read_stored(stream.spec.name))[2]
        consumer = await stream.consumer(start=Start.at_time(third.stored_at))
        found = await fetch(consumer, 4, wait_s=0.3)
        assert [delivery.sequence for delivery in found] == [3, 4]
        await consumer.close()

    async def test_a_consumer_sees_its_pattern_only(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        for last in ("a.1", "b.1", "a.2", "a.2.x"):
            await stream.publish(last.encode(), last=last)
        consumer = await stream.consumer(pattern=stream.subject("a.*"))
        found = await fetch(consumer, 3, wait_s=0.3)
        assert [delivery.payload for delivery in found] == [b"a.1", b"a.2"]
        await consumer.close()

    async def test_a_consumer_of_an_unknown_stream_is_refused(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        with pytest.raises(SubscriptionError):
            await broker.consumer(ConsumerSpec(stream="SUITE_unknown", durable="d", pattern="x.>"))

    async def test_what_is_no_name_is_refused(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        for name in ("", "a.b", "a b", "*", ">", "a/b", "é", "x" * 256):
            with pytest.raises(InvalidValueError):
                await stream.consumer(name)
            with pytest.raises(InvalidValueError):
                await stream.broker.ensure_stream(StreamSpec(name=name, subjects=(scratch_subject(),)))
            with pytest.raises(InvalidValueError):
                await stream.broker.subscribe(scratch_subject(), Inbox(), group=name)

    async def test_an_acknowledged_message_never_comes_again(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        await stream.publish(b"1")
        await stream.publish(b"2")
        consumer = await stream.consumer()
        first, second = await fetch(consumer, 2)
        await first.ack()
        await second.ack(confirm=True)
        assert await consumer.fetch(1, wait_s=2.5 * ACK_WAIT_S) == []
        await consumer.close()

    async def test_an_unsettled_message_comes_again(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        await stream.publish(b"x")
        consumer = await stream.consumer()
        loop = asyncio.get_running_loop()
        (first,) = await fetch(consumer, 1)
        taken_s = loop.time()
        (again,) = await fetch(consumer, 1)
        assert loop.time() - taken_s >= 0.8 * ACK_WAIT_S
        assert (first.attempt, again.attempt) == (1, 2)
        assert (again.payload, again.sequence) == (b"x", first.sequence)
        await again.ack(confirm=True)
        await consumer.close()

    async def test_a_heartbeat_keeps_a_message_from_coming_again(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        await stream.publish(b"x")
        consumer = await stream.consumer()
        while True:
            (delivery,) = await fetch(consumer, 1)
            async with Turns() as turns:
                for _ in range(6):
                    await asyncio.sleep(ACK_WAIT_S / 3)
                    await delivery.in_progress()
                again = await consumer.fetch(1, wait_s=0.05)
            # On a machine that stood still for longer than the wait it may have come again; that proves nothing.
            if not again or turns.longest_s < ACK_WAIT_S / 3:
                break
            await again[0].nak(delay_s=0.0)
        assert again == []
        await delivery.ack(confirm=True)
        await consumer.close()

    async def test_a_message_handed_back_comes_again_after_its_delay(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        await stream.publish(b"x")
        consumer = await stream.consumer(ack_wait_s=30.0)
        loop = asyncio.get_running_loop()
        (first,) = await fetch(consumer, 1)
        handed_back_s = loop.time()
        async with Turns() as turns:
            await first.nak(delay_s=0.5)
            (again,) = await fetch(consumer, 1)
        assert loop.time() - handed_back_s >= 0.4
        assert turns.seconds <= 3.0
        assert again.attempt == 2
        async with Turns() as turns:
            await again.nak(delay_s=0.0)
            (third,) = await fetch(consumer, 1)
        assert turns.seconds <= 2.0
        assert third.attempt == 3
        await third.ack(confirm=True)
        await consumer.close()

    async def test_a_message_given_up_never_comes_again(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        await stream.publish(b"x")
        consumer = await stream.consumer()
        (delivery,) = await fetch(consumer, 1)
        await delivery.term()
        assert await consumer.fetch(1, wait_s=2.5 * ACK_WAIT_S) == []
        await consumer.close()

    async def test_a_message_delivered_as_often_as_allowed_never_comes_again(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        consumer = await stream.consumer(ack_wait_s=30.0, deliveries_max=2)
        await stream.publish(b"x")
        for attempt in (1, 2):
            (delivery,) = await fetch(consumer, 1)
            assert delivery.attempt == attempt
            await delivery.nak(delay_s=0.0)
        await stream.publish(b"y")
        assert [found.payload for found in await fetch(consumer, 2, wait_s=0.3)] == [b"y"]
        assert (await consumer.info()).ack_pending == 1
        await consumer.close()

    async def test_that_a_message_is_given_up_is_announced_once(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        consumer = await stream.consumer(ack_wait_s=30.0, deliveries_max=1)
        inbox = Inbox()
        await (await make_broker()).subscribe(f"{GIVEN_UP_PREFIX}{stream.spec.name}.reader", inbox)
        for payload in (b"1", b"2"):
            await stream.publish(payload)
        first, second = await fetch(consumer, 2)
        await first.ack(confirm=True)
        await second.nak(delay_s=0.0)
        for _ in range(2):
            assert await consumer.fetch(1, wait_s=0.1) == []
        await inbox.wait_for(1)
        await settle_down()
        told = [json.loads(payload) for payload in inbox.payloads]
        facts = [{name: one[name] for name in ("stream", "consumer", "stream_seq", "deliveries")} for one in told]
        assert facts == [{"stream": stream.spec.name, "consumer": "reader", "stream_seq": 2, "deliveries": 1}]
        await consumer.close()

    async def test_a_consumer_goes_on_where_another_client_left_it(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        for n in range(4):
            await stream.publish(str(n).encode())
        former = await stream.consumer()
        for delivery in await fetch(former, 2):
            await delivery.ack(confirm=True)
        await former.close()
        await former.close()
        later = await stream.consumer(broker=await make_broker())
        assert [delivery.payload for delivery in await fetch(later, 2)] == [b"2", b"3"]
        await later.close()

    async def test_clients_of_one_consumer_share_the_messages(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        readers = [await stream.consumer(broker=await make_broker(), ack_wait_s=30.0) for _ in range(2)]
        for n in range(10):
            await stream.publish(str(n).encode())
        found = [*await fetch(readers[0], 4), *await fetch(readers[1], 6)]
        assert sorted(delivery.payload for delivery in found) == [str(n).encode() for n in range(10)]
        for reader in readers:
            await reader.close()

    async def test_two_consumers_each_get_everything(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        await stream.publish(b"x")
        for durable in ("one", "two"):
            consumer = await stream.consumer(durable)
            (delivery,) = await fetch(consumer, 1)
            await delivery.ack(confirm=True)
            await consumer.close()

    async def test_no_more_than_in_flight_max_are_unsettled(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        for n in range(5):
            await stream.publish(str(n).encode())
        consumer = await stream.consumer(in_flight_max=2, ack_wait_s=30.0)
        held = await fetch(consumer, 2)
        assert await consumer.fetch(5, wait_s=0.2) == []
        await held[0].ack(confirm=True)
        assert [delivery.payload for delivery in await consumer.fetch(5, wait_s=PATIENCE_S)] == [b"2"]
        await consumer.close()

    async def test_a_fetch_gives_no_more_than_asked_for(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        for n in range(5):
            await stream.publish(str(n).encode())
        consumer = await stream.consumer()
        assert 1 <= len(await consumer.fetch(3, wait_s=PATIENCE_S)) <= 3
        await consumer.close()

    async def test_an_empty_fetch_ends_after_its_wait(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        consumer = await stream.consumer()
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        async with Turns() as turns:
            assert await consumer.fetch(10, wait_s=0.4) == []
        assert loop.time() - started_s >= 0.3
        assert turns.seconds <= 2.0
        await consumer.close()

    async def test_a_waiting_fetch_gets_what_is_published_meanwhile(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        consumer = await stream.consumer()
        async with Turns() as turns:
            waiting = asyncio.create_task(consumer.fetch(10, wait_s=PATIENCE_S))
            await asyncio.sleep(0.1)
            await stream.publish(b"x")
            assert [delivery.payload for delivery in await waiting] == [b"x"]
        assert turns.seconds < 0.3 * PATIENCE_S
        await consumer.close()

    async def test_a_cancelled_fetch_loses_nothing(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        consumer = await stream.consumer()
        waiting = asyncio.create_task(consumer.fetch(1, wait_s=PATIENCE_S))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        await stream.publish(b"x")
        found: Sequence[Delivery] = await fetch(consumer, 1)
        assert [delivery.payload for delivery in found] == [b"x"]
        await consumer.close()

    async def test_what_is_handed_back_after_closing_goes_to_others_at_once(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        for n in range(3):
            await stream.publish(str(n).encode())
        closing = await stream.consumer(ack_wait_s=30.0)
        held = await fetch(closing, 3)
        waiting = asyncio.create_task(closing.fetch(10, wait_s=PATIENCE_S))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        await closing.close()
        for delivery in held:
            await delivery.nak(delay_s=0.0)
        other = await stream.consumer(broker=await make_broker(), ack_wait_s=30.0)
        assert sorted(delivery.payload for delivery in await fetch(other, 3)) == [b"0", b"1", b"2"]
        await other.close()

    async def test_what_came_for_a_cancelled_fetch_goes_to_others_when_it_is_closed(
        self, make_broker: MakeBroker
    ) -> None:
        stream = await scratch_stream(make_broker)
        closing = await stream.consumer(ack_wait_s=30.0)
        waiting = asyncio.create_task(closing.fetch(10, wait_s=PATIENCE_S))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        await stream.publish(b"x")
        await settle_down()
        await closing.close()
        other = await stream.consumer(broker=await make_broker(), ack_wait_s=30.0)
        assert [delivery.payload for delivery in await fetch(other, 1)] == [b"x"]
        await other.close()

    async def test_a_consumer_says_what_waits(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        for n in range(5):
            await stream.publish(str(n).encode())
        consumer = await stream.consumer(ack_wait_s=30.0)
        first, *_ = await fetch(consumer, 2)
        await first.ack(confirm=True)
        info = await consumer.info()
        assert (info.pending, info.ack_pending, info.redelivered) == (3, 1, 0)
        await consumer.close()

    async def test_a_position_is_forgotten_when_nobody_attends_to_it(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        await stream.publish(b"x")
        consumer = await stream.consumer(inactive_s=0.4)
        (delivery,) = await fetch(consumer, 1)
        await delivery.ack(confirm=True)
        await consumer.close()
        await asyncio.sleep(2.0)
        anew = await stream.consumer(inactive_s=0.4)
        assert [found.payload for found in await fetch(anew, 1)] == [b"x"]
        await anew.close()
