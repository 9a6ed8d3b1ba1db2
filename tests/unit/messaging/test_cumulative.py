"""The books of one settlement for many: when everything is here that was handed out, and what may be settled then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from polaris.clock import SYSTEM_CLOCK, utc_now
from polaris.exceptions import BusConnectionError
from polaris.messaging import ConsumerInfo, ConsumerSpec, StreamSpec
from polaris.messaging._cumulative import Cumulative
from polaris.messaging._settlement import Accepted
from polaris.messaging.brokers._memory_deliveries import StreamDelivery
from polaris.messaging.brokers._memory_streams import ConsumerPosition, MemoryStream, Record

STREAM = MemoryStream(StreamSpec(name="S", subjects=("s.>",)), SYSTEM_CLOCK, lambda *_: None)
POSITION = ConsumerPosition(STREAM, ConsumerSpec(stream="S", durable="d", pattern="s.>"), SYSTEM_CLOCK)


def delivery(sequence: int, number: int, attempt: int = 1) -> StreamDelivery:
    record = Record(sequence, "s.a", b"", {}, utc_now(), 0.0, 0)
    return StreamDelivery(lambda: None, POSITION, record, attempt, number)


class Broker:
    """Answers the question of what is handed out and not settled."""

    def __init__(self, *answers: ConsumerInfo | Exception) -> None:
        self.asked = 0
        self._answers = list(answers)
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def info(self) -> ConsumerInfo:
        self.asked += 1
        answer = self._answers.pop(0)
        if self.meanwhile is not None:
            await self.meanwhile()
        if isinstance(answer, Exception):
            raise answer
        return answer


def out(ack_pending: int, *, floor: int = 0, delivered: int = 99) -> ConsumerInfo:
    return ConsumerInfo(pending=0, ack_pending=ack_pending, redelivered=0, ack_floor=floor, delivered=delivered)


def taken(books: Cumulative, *deliveries: StreamDelivery) -> list[Accepted]:
    items = []
    for one in deliveries:
        assert books.enters(one)
        items.append(Accepted(one, 0.0))
    return items


async def test_nothing_is_settled_before_the_broker_has_said_that_all_is_here() -> None:
    broker = Broker(out(3), out(2))
    books = Cumulative(broker.info)
    books.done = taken(books, delivery(1, 1), delivery(2, 2))
    assert await books.last([]) is None
    assert (books.complete, books.elsewhere, broker.asked) == (False, 1, 1)
    assert await books.last([]) is None
    assert broker.asked == 1, "it was asked again though nothing had come"
    assert await books.last([], anew=True) is books.done[1]
    assert (books.complete, books.elsewhere) == (True, 0)


async def test_numbers_without_a_gap_are_not_asked_about() -> None:
    broker = Broker(out(0))
    books = Cumulative(broker.info)
    await books.look()
    taken(books, delivery(4, 9))  # the first one, whatever its number
    assert not books.complete
    broker._answers = [out(1)]
    await books.look()
    books.done = taken(books, delivery(7, 10), delivery(8, 11))
    assert await books.last([]) is books.done[1]
    assert broker.asked == 2


async def test_a_gap_in_the_numbers_holds_settlements_back_until_what_is_missing_has_come() -> None:
    broker = Broker(out(1), out(5), out(5))
    books = Cumulative(broker.info)
    books.done = taken(books, delivery(1, 1))
    assert await books.last([]) is not None
    books.done += taken(books, delivery(4, 4))
    assert (books.complete, books.elsewhere) == (False, 2)
    assert await books.last([]) is None
    (second,) = taken(books, delivery(2, 5, attempt=2))
    assert (books.elsewhere, books.coming) == (2, True)  # of the three that the broker told of
    books.done += [second, *taken(books, delivery(3, 6, attempt=2), delivery(5, 7))]
    last = await books.last([])
    assert last is not None
    assert last.delivery.sequence == 5


async def test_a_number_that_comes_twice_or_goes_back_is_a_gap_too() -> None:
    broker = Broker(out(2))
    books = Cumulative(broker.info)
    taken(books, delivery(1, 1), delivery(2, 2))
    await books.look()
    assert books.complete
    taken(books, delivery(9, 2))
    assert (books.complete, books.elsewhere) == (False, 0)


async def test_what_is_left_out_while_the_broker_is_asked_is_not_overlooked() -> None:
    broker = Broker(out(1), out(2))
    books = Cumulative(broker.info)
    books.done = taken(books, delivery(1, 1))

    async def later_ones_come() -> None:
        await asyncio.sleep(0)
        taken(books, delivery(5, 5))

    broker.meanwhile = later_ones_come
    assert await books.last([]) is None
    assert not books.complete


async def test_what_came_after_the_broker_was_asked_does_not_stand_for_what_is_missing() -> None:
    broker = Broker(out(2))  # the first message, and one that is elsewhere
    books = Cumulative(broker.info)
    books.done = taken(books, delivery(1, 1))

    async def a_later_one_comes() -> None:
        taken(books, delivery(2, 2))

    broker.meanwhile = a_later_one_comes
    assert await books.last([]) is None
    assert (books.complete, books.elsewhere) == (False, 1)


async def test_what_the_broker_does_not_count_does_not_stand_for_what_is_missing() -> None:
    # The first was removed from the stream; the fourth it has forgotten. It counts the second, and one elsewhere.
    broker = Broker(out(2, floor=1, delivered=3))
    books = Cumulative(broker.info)
    books.done = taken(books, delivery(1, 1), delivery(2, 2), delivery(4, 3))
    assert await books.last([]) is None
    assert books.elsewhere == 1


async def test_what_was_handed_back_holds_settlements_back_until_it_is_here_again() -> None:
    broker = Broker(out(2), out(2), out(2))
    books = Cumulative(broker.info)
    first, second = taken(books, delivery(1, 1), delivery(2, 2))
    books.done = [second]
    await books.look()
    books.handed_back(first)
    assert (books.complete, books.elsewhere) == (False, 1)
    assert await books.last([]) is None
    again = taken(books, delivery(1, 3, attempt=2))
    assert await books.last(again) is None, "it is here, but not done with"
    books.done += again
    assert await books.last([]) is second


async def test_what_is_here_does_not_enter_twice_and_may_come_back_when_it_is_settled() -> None:
    books = Cumulative(Broker(out(1)).info)
    books.done = taken(books, delivery(1, 1))
    assert not books.enters(delivery(1, 2, attempt=2))
    last = await books.last([])
    assert last is not None
    books.settled(last)
    assert books.done == []
    assert books.enters(delivery(1, 3, attempt=3))


async def test_a_broker_that_is_away_has_said_nothing() -> None:
    broker = Broker(BusConnectionError("away"), out(1))
    books = Cumulative(broker.info)
    books.done = taken(books, delivery(1, 1))
    assert await books.last([]) is None
    assert await books.last([], anew=True) is books.done[0]
