"""The books of one settlement for many: when everything is here that was handed out, and what may be settled then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from polaris.clock import SYSTEM_CLOCK
from polaris.exceptions import BusConnectionError
from polaris.messaging import ConsumerInfo, ConsumerSpec, StreamSpec
from polaris.messaging._accepted import Accepted
from polaris.messaging._cumulative import Cumulative
from polaris.messaging.brokers._memory_deliveries import StreamDelivery
from polaris.messaging.brokers._memory_streams import ConsumerPosition, MemoryStream, Record

STREAM = MemoryStream(StreamSpec(name="S", subjects=("s.>",)), SYSTEM_CLOCK, lambda *_: None)
POSITION = ConsumerPosition(STREAM, ConsumerSpec(stream="S", durable="d", pattern="s.>"), SYSTEM_CLOCK)
BEGAN_AT = datetime(2026, 1, 1, tzinfo=UTC)


def delivery(sequence: int, number: int, attempt: int = 1, *, stored_s: float | None = None) -> StreamDelivery:
    stored_at = BEGAN_AT + timedelta(seconds=sequence if stored_s is None else stored_s)
    record = Record(sequence, "s.a", b"", {}, stored_at, 0.0, 0)
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
    items = [Accepted(one, 0.0) for one in deliveries]
    for item in items:
        assert books.enter(item)
    return items


def done(books: Cumulative, *deliveries: StreamDelivery) -> list[Accepted]:
    items = taken(books, *deliveries)
    for item in items:
        assert books.finished(item)
    return items


def again(books: Cumulative, one: StreamDelivery) -> None:
    """The message is here already."""
    assert not books.enter(Accepted(one, 0.0))


async def test_nothing_is_settled_before_the_broker_has_said_that_all_is_here() -> None:
    broker = Broker(out(3), out(2))
    books = Cumulative(broker.info)
    _, second = done(books, delivery(1, 1), delivery(2, 2))
    assert await books.last() is None
    assert (books.complete, books.elsewhere, broker.asked) == (False, 1, 1)
    assert await books.last() is None
    assert broker.asked == 1, "it was asked again though nothing had come"
    assert await books.last(anew=True) is second
    assert (books.complete, books.elsewhere) == (True, 0)


async def test_numbers_without_a_gap_are_not_asked_about() -> None:
    broker = Broker(out(0), out(1))
    books = Cumulative(broker.info)
    await books.look()
    done(books, delivery(4, 9))  # the first one, whatever its number
    assert not books.complete
    await books.look()
    _, last = done(books, delivery(7, 10), delivery(8, 11))
    assert await books.last() is last
    assert broker.asked == 2


async def test_a_gap_in_the_numbers_holds_settlements_back_until_what_is_missing_has_come() -> None:
    broker = Broker(out(1), out(5), out(5))
    books = Cumulative(broker.info)
    done(books, delivery(1, 1))
    assert await books.last() is not None
    done(books, delivery(4, 4))
    assert (books.complete, books.elsewhere) == (False, 2)
    assert await books.last() is None
    done(books, delivery(2, 5, attempt=2))
    assert (books.elsewhere, books.coming) == (2, True)  # of the three that the broker told of
    *_, fifth = done(books, delivery(3, 6, attempt=2), delivery(5, 7))
    assert await books.last() is fifth


async def test_what_comes_late_but_was_left_out_before_is_a_gap_and_no_more() -> None:
    broker = Broker(out(2), out(4))
    books = Cumulative(broker.info)
    done(books, delivery(1, 1), delivery(2, 2))
    await books.look()
    fourth, _ = done(books, delivery(4, 4), delivery(3, 3))
    assert (books.complete, books.elsewhere, books.to_come_again) == (False, 0, 0)
    assert await books.last() is fourth


async def test_of_many_that_come_out_of_order_the_settlement_is_sent_that_leaves_none_with_a_lower_number() -> None:
    books = Cumulative(Broker(out(5)).info)
    first, _ = done(books, delivery(1, 1), delivery(2, 6, attempt=2))
    third, fourth, fifth = taken(books, delivery(3, 3), delivery(4, 4), delivery(5, 5))
    assert await books.last() is first, "beyond the number of the second, the others could not be settled any more"
    books.finished(fourth)
    assert await books.last() is first
    books.finished(third)
    assert await books.last() is fourth
    books.settled(fourth)
    assert books.done == 0
    books.finished(fifth)
    assert await books.last() is fifth


async def test_deliveries_with_numbers_from_before_they_went_back_settle_nothing() -> None:
    broker = Broker(out(2, floor=300), out(1, floor=300, delivered=301), out(2, floor=300, delivered=302))
    books = Cumulative(broker.info)
    first, second = done(books, delivery(301, 301), delivery(302, 302))
    await books.look()
    again(books, delivery(301, 1))
    assert (books.complete, books.to_come_again, books.done) == (False, 1, 2)
    assert (books.may_settle(first), books.may_settle(second)) == (True, False)
    assert await books.last() is first
    assert first.delivery.number == 1, "it was to be settled by the delivery of the former consumer"
    again(books, delivery(302, 2))
    assert await books.last() is second
    assert second.delivery.number == 2


async def test_what_is_not_done_with_and_must_come_again_is_not_covered() -> None:
    books = Cumulative(Broker(out(2, delivered=3)).info)
    taken(books, delivery(1, 11))
    done(books, delivery(3, 12))
    again(books, delivery(3, 1))
    done(books, delivery(2, 2))
    await books.look()
    assert books.complete
    assert await books.last() is None


async def test_a_message_that_comes_again_as_if_it_never_had_comes_from_another_consumer() -> None:
    books = Cumulative(Broker(out(2, delivered=2)).info)
    first, second = done(books, delivery(1, 1), delivery(2, 2))
    again(books, delivery(2, 9))  # the deliveries before it got lost
    assert not books.may_settle(first)
    assert books.may_settle(second)
    assert second.delivery.number == 9


async def test_what_another_consumer_has_not_handed_out_yet_must_come_again() -> None:
    books = Cumulative(Broker(out(3, delivered=3)).info)
    (old,) = done(books, delivery(500, 15))  # the numbers after it could as well be late ones of those before
    *_, last = done(books, delivery(1, 12, stored_s=600), delivery(2, 13, stored_s=601), delivery(3, 14, stored_s=602))
    assert await books.last() is last
    assert not books.may_settle(old)


async def test_what_must_come_again_and_is_settled_already_leaves_the_books() -> None:
    books = Cumulative(Broker(out(2), out(1, floor=2, delivered=3)).info)
    done(books, delivery(1, 1), delivery(2, 2))
    await books.look()
    done(books, delivery(3, 1))
    assert (books.to_come_again, books.done) == (2, 3)
    await books.look()
    assert (books.to_come_again, books.done) == (0, 1)


async def test_another_message_in_the_place_of_one_that_is_here_is_taken_and_the_old_ones_leave() -> None:
    broker = Broker(out(3), out(1, delivered=1), out(2, delivered=2))
    books = Cumulative(broker.info)
    old = taken(books, delivery(1, 1), delivery(2, 2), delivery(3, 3))
    books.finished(old[2])
    await books.look()
    (new,) = taken(books, delivery(1, 1, stored_s=60))
    assert (books.done, books.to_come_again, books.complete) == (0, 0, False)
    assert not any(books.finished(item) for item in old[:2])
    assert not any(books.handed_back(item) for item in old)
    assert await books.last() is None
    books.finished(new)
    assert await books.last() is new
    books.settled(new)
    (second,) = done(books, delivery(2, 2, stored_s=61))
    assert await books.last() is second


async def test_what_is_older_than_what_now_stands_before_it_leaves_the_books_too() -> None:
    books = Cumulative(Broker().info)
    (old,) = done(books, delivery(500, 500))
    taken(books, delivery(1, 1, stored_s=900))
    assert (books.done, books.to_come_again) == (0, 0)
    assert not books.handed_back(old)


async def test_what_is_left_out_while_the_broker_is_asked_is_not_overlooked() -> None:
    broker = Broker(out(1), out(2))
    books = Cumulative(broker.info)
    done(books, delivery(1, 1))

    async def later_ones_come() -> None:
        await asyncio.sleep(0)
        taken(books, delivery(5, 5))

    broker.meanwhile = later_ones_come
    assert await books.last() is None
    assert not books.complete


async def test_what_came_after_the_broker_was_asked_does_not_stand_for_what_is_missing() -> None:
    broker = Broker(out(2))  # the first message, and one that is elsewhere
    books = Cumulative(broker.info)
    done(books, delivery(1, 1))

    async def a_later_one_comes() -> None:
        taken(books, delivery(2, 2))

    broker.meanwhile = a_later_one_comes
    assert await books.last() is None
    assert (books.complete, books.elsewhere) == (False, 1)


async def test_what_the_broker_does_not_count_does_not_stand_for_what_is_missing() -> None:
    # The first was removed from the stream; the fourth it has forgotten. It counts the second, and one elsewhere.
    broker = Broker(out(2, floor=1, delivered=3))
    books = Cumulative(broker.info)
    done(books, delivery(1, 1), delivery(2, 2), delivery(4, 3))
    assert await books.last() is None
    assert books.elsewhere == 1


async def test_what_was_handed_back_holds_settlements_back_until_it_is_here_again() -> None:
    broker = Broker(out(2), out(2), out(2))
    books = Cumulative(broker.info)
    (first,) = taken(books, delivery(1, 1))
    (second,) = done(books, delivery(2, 2))
    await books.look()
    assert books.handed_back(first)
    assert (books.complete, books.elsewhere) == (False, 1)
    assert await books.last() is None
    (first,) = taken(books, delivery(1, 3, attempt=2))
    assert await books.last() is None, "it is here, but not done with"
    assert books.finished(first)
    assert await books.last() is second


async def test_what_is_here_does_not_enter_twice_and_may_come_back_when_it_is_settled() -> None:
    books = Cumulative(Broker(out(1)).info)
    (first,) = done(books, delivery(1, 1))
    again(books, delivery(1, 2, attempt=2))
    assert await books.last() is first
    books.settled(first)
    assert books.done == 0
    taken(books, delivery(1, 3, attempt=3))


async def test_a_broker_that_is_away_has_said_nothing() -> None:
    broker = Broker(BusConnectionError("away"), out(1))
    books = Cumulative(broker.info)
    (first,) = done(books, delivery(1, 1))
    assert await books.last() is None
    assert await books.last(anew=True) is first
