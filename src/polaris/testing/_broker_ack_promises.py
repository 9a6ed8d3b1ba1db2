"""What every broker promises of the settlements of durable consumers, by ack policy."""

from __future__ import annotations

import pytest

from polaris.exceptions import SubscriptionError
from polaris.messaging import AckPolicy
from polaris.testing._broker_scratch import ACK_WAIT_S, PATIENCE_S, MakeBroker, fetch, scratch_stream, settle_down


class AckPromises:
    """What holds for the ack policies, and for the numbers that those who settle many at a time count on."""

    async def test_with_ack_all_a_settlement_covers_everything_before_it(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        for n in range(7):
            await stream.publish(str(n).encode())
        consumer = await stream.consumer(ack=AckPolicy.ALL)
        held = await fetch(consumer, 6)
        await held[2].ack(confirm=True)
        info = await consumer.info()
        assert (info.ack_pending, info.ack_floor, info.delivered) == (3, 3, 6)
        await held[1].ack(confirm=True)
        assert (await consumer.info()).ack_floor == 3, "a settlement behind the last one does nothing"
        await consumer.close()

    async def test_with_ack_all_what_is_handed_back_comes_again_and_settles_nothing(
        self, make_broker: MakeBroker
    ) -> None:
        stream = await scratch_stream(make_broker)
        for n in range(4):
            await stream.publish(str(n).encode())
        consumer = await stream.consumer(ack=AckPolicy.ALL, ack_wait_s=30.0)
        held = await fetch(consumer, 4)
        await held[2].nak(delay_s=0.0)
        await held[3].in_progress()
        (again,) = await fetch(consumer, 1)
        assert (again.payload, again.attempt, again.number) == (b"2", 2, 5)
        info = await consumer.info()
        assert (info.ack_pending, info.redelivered, info.ack_floor) == (4, 1, 0)
        await consumer.close()

    async def test_with_ack_none_delivered_is_settled(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        for n in range(6):
            await stream.publish(str(n).encode())
        consumer = await stream.consumer(ack=AckPolicy.NONE, in_flight_max=2)
        held = await consumer.fetch(4, wait_s=PATIENCE_S)
        assert [delivery.payload for delivery in held] == [b"0", b"1", b"2", b"3"]
        await held[0].nak(delay_s=0.0)
        await held[1].in_progress()
        await held[2].term()
        await held[3].ack(confirm=True)
        info = await consumer.info()
        assert (info.ack_pending, info.ack_floor) == (0, 4)
        other = await stream.consumer(ack=AckPolicy.NONE, broker=await make_broker())
        assert [delivery.payload for delivery in await fetch(other, 2)] == [b"4", b"5"]
        assert await consumer.fetch(1, wait_s=2.5 * ACK_WAIT_S) == []
        await other.close()
        await consumer.close()

    async def test_a_position_keeps_its_ack_policy(self, make_broker: MakeBroker) -> None:
        for had, wanted in ((AckPolicy.EACH, AckPolicy.ALL), (AckPolicy.ALL, AckPolicy.EACH)):
            stream = await scratch_stream(make_broker)
            consumer = await stream.consumer(ack=had)
            with pytest.raises(SubscriptionError, match=f"'{had.value}'.*'{wanted.value}'"):
                await stream.consumer(ack=wanted)
            again = await stream.consumer(ack=had)
            await again.close()
            await consumer.close()

    async def test_deliveries_are_numbered_over_all_clients_without_a_gap(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        for n in range(3):
            await stream.publish(str(n).encode())
        first = await stream.consumer(ack_wait_s=30.0)
        one, two = await fetch(first, 2)
        second = await stream.consumer(ack_wait_s=30.0, broker=await make_broker())
        await one.nak(delay_s=0.0)
        await settle_down()
        again = await fetch(second, 2)
        assert (one.number, two.number) == (1, 2)
        assert [(delivery.payload, delivery.number) for delivery in again] == [(b"0", 3), (b"2", 4)]
        await first.close()
        await second.close()
