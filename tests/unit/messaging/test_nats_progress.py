"""Where a position that the server forgot must begin, and what of its deliveries is known already."""

from __future__ import annotations

import pytest

from polaris.exceptions import BusConnectionError
from polaris.messaging import AckPolicy
from polaris.messaging.brokers._nats_progress import LEFT_OUT_MAX, Progress, TrackedDelivery


class Line:
    """Takes settlements, unless it is down."""

    def __init__(self) -> None:
        self.down = False
        self.told: list[tuple[str, bytes]] = []

    async def tell(self, subject: str, payload: bytes) -> None:
        if self.down:
            raise BusConnectionError("down")
        self.told.append((subject, payload))

    async def confirm(self, subject: str, payload: bytes) -> None:
        await self.tell(subject, payload)


class Books:
    """The progress of a consumer that began behind message 10, and a way to deliver to it."""

    def __init__(self, ack: AckPolicy = AckPolicy.EACH) -> None:
        self.line = Line()
        self.progress = Progress(ack, stream_created="then", floor=10, number=0)
        self.handed_out = True

    def deliver(self, sequence: int, number: int, *, attempt: int = 1, stored_ns: int = 0) -> TrackedDelivery:
        subject = f"$JS.ACK.S.c.{attempt}.{sequence}.{number}.{stored_ns or sequence * 10**9}.0"
        delivery = TrackedDelivery(self.line, "a", subject, b"", None)
        delivery.progress = self.progress
        self.handed_out = self.progress.enter(delivery)
        return delivery

    def forget(self, last_sequence: int = 100) -> int:
        begin = self.progress.resume(last_sequence)
        self.progress.resumed()
        return begin


@pytest.fixture
def books() -> Books:
    return Books()


async def test_nothing_received_begins_behind_what_was_there(books: Books) -> None:
    assert books.forget() == 11


async def test_all_settled_begins_behind_what_was_received(books: Books) -> None:
    for number in (1, 2, 3):
        await books.deliver(10 + number, number).ack()
    assert books.forget() == 14


async def test_the_lowest_that_is_not_settled_is_the_beginning(books: Books) -> None:
    first, second, third = (books.deliver(10 + number, number) for number in (1, 2, 3))
    await first.ack()
    await third.term()
    assert books.forget() == 12
    await second.ack()
    assert books.forget() == 14


async def test_what_is_here_keeps_its_delivery_and_is_settled_as_the_new_one(books: Books) -> None:
    held = books.deliver(11, 1, attempt=3)
    books.forget()
    books.deliver(11, 1)
    assert not books.handed_out
    await held.ack()
    assert books.line.told == [("$JS.ACK.S.c.1.11.1.11000000000.0", b"+ACK")]
    assert held.attempt == 3
    assert books.forget() == 12


async def test_what_was_settled_is_settled_once_more(books: Books) -> None:
    held = books.deliver(11, 1)
    await books.deliver(12, 2).ack()
    books.forget()
    books.deliver(11, 1)
    again = books.deliver(12, 2)
    assert (books.handed_out, books.progress.repeated) == (False, [again])
    await held.ack()
    assert books.forget() == 13


@pytest.mark.parametrize("failing", [False, True], ids=["handed back", "not acknowledged"])
async def test_what_must_come_again_is_handed_out(books: Books, failing: bool) -> None:
    delivery = books.deliver(11, 1)
    if failing:
        books.line.down = True
        with pytest.raises(BusConnectionError):
            await delivery.ack()
    else:
        await delivery.nak(delay_s=1.0)
    assert books.forget() == 11
    books.deliver(11, 1)
    assert books.handed_out


async def test_a_redelivery_of_the_same_position_is_handed_out(books: Books) -> None:
    books.deliver(11, 1)
    books.forget()
    books.deliver(11, 1)
    books.deliver(11, 2, attempt=2)
    assert books.handed_out


async def test_what_got_lost_on_the_way_is_the_beginning_until_it_has_come(books: Books) -> None:
    await books.deliver(11, 1).ack()
    # Number 2 is missing. Between 15 and 20 nothing is, whatever the sequences say.
    await books.deliver(15, 3).ack()
    await books.deliver(20, 4).ack()
    assert books.forget() == 12
    late = books.deliver(13, 1)
    assert books.handed_out
    await late.ack()
    books.deliver(15, 2)
    assert not books.handed_out
    books.progress.note_floor(13)
    assert books.progress.next_sequence == 14
    books.progress.note_floor(20)
    assert books.forget() == 21


async def test_the_first_delivery_of_all_may_get_lost(books: Books) -> None:
    await books.deliver(12, 2).ack()
    assert books.forget() == 11
    books.progress.note_floor(12)
    books.forget()
    await books.deliver(15, 2).ack()
    assert books.forget() == 13


async def test_gaps_are_bounded_and_none_is_forgotten(books: Books) -> None:
    for step in range(LEFT_OUT_MAX + 10):
        await books.deliver(12 + 2 * step, 2 + 2 * step).ack()
    assert books.forget(10**6) == 11
    assert len(books.progress._left_out) == LEFT_OUT_MAX


async def test_a_stream_that_lost_its_end_gives_its_numbers_again(books: Books) -> None:
    books.deliver(11, 1)
    await books.deliver(12, 2).ack()
    books.deliver(13, 3)
    assert books.forget(last_sequence=11) == 11
    books.deliver(12, 2)
    assert books.handed_out
    books.deliver(11, 1, stored_ns=5)
    assert books.handed_out, "another message has the number"


async def test_one_settlement_for_all_moves_the_beginning_behind_it() -> None:
    books = Books(AckPolicy.ALL)
    deliveries = [books.deliver(10 + number, number) for number in (1, 2, 3)]
    await deliveries[1].ack()
    assert books.forget() == 13
    books.deliver(13, 1)
    assert books.handed_out, "the owner tells apart what is here already"


async def test_what_comes_once_is_never_given_again() -> None:
    books = Books(AckPolicy.NONE)
    books.deliver(11, 1)
    books.deliver(15, 4)
    assert books.forget() == 16
