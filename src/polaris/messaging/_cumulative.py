"""What may be settled when a settlement covers everything before it: nothing past what is not done with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from polaris.exceptions import MessageBusError
from polaris.messaging._broker import ConsumerInfo, Delivery

if TYPE_CHECKING:
    from polaris.messaging._accepted import Accepted

SKIPPED_MAX = 256
"""So many numbers that were left out may come late without being taken for those of another consumer."""

AskConsumer = Callable[[], Awaitable[ConsumerInfo | None]]


class Cumulative:
    """The books of a position with `AckPolicy.ALL`: what is here, what of it is done with, and what may be settled.

    A message that the broker has handed out is not always here: a former process died with it, or it was lost with a
    connection. It comes again, but only after `ack_wait_s`, while later ones come at once, and settling one of those
    would lose it. So whenever the numbers of the deliveries leave something out, and at first, nothing is settled until
    everything that the broker counts as handed out and not settled is here.

    A message that comes again while it is here is not handled a second time: its first delivery settles it. The broker
    ignores settlements that are behind the last one by the number of the delivery, so none is sent by a number that is
    beyond that of anything behind the message.

    Numbers that go back are those of another consumer, made anew under the name. Deliveries of the former one settle
    nothing any more: by their numbers the new one would ignore all that follows. What came with them stays, to be known
    when it comes again, and is settled by its new delivery. When another message comes under a known sequence, the
    stream was made anew, and what is here of the former one leaves the books.
    """

    def __init__(self, ask: AskConsumer) -> None:
        self.complete = False
        """Whether everything is here that was handed out and not settled."""
        self.elsewhere = 0
        """About how many are not; they count against the bound of the broker, which gives no more until they come."""
        self.coming = False
        """Whether they come just now."""
        self._ask = ask
        # By sequence: what may be settled by its delivery, what must come again for it, and what of both is done with.
        self._here: dict[int, Accepted] = {}
        self._former: dict[int, Accepted] = {}
        self._done: dict[int, Accepted] = {}
        self._expected: int | None = None
        self._skipped: set[int] = set()
        self._gaps = 0
        self._news = True

    @property
    def done(self) -> int:
        """How many are done with and not settled."""
        return len(self._done)

    @property
    def to_come_again(self) -> int:
        """How many are here, but must come again before they can be settled."""
        return len(self._former)

    @property
    def settleable(self) -> Sequence[Accepted]:
        """What its delivery may settle, done with or not: what the broker must hear of in time."""
        return tuple(self._here.values())

    def may_settle(self, item: Accepted) -> bool:
        """Whether its delivery may be used."""
        return self._here.get(_sequence(item)) is item

    def enter(self, item: Accepted) -> bool:
        """Take note of what was delivered; False if the message is here already."""
        delivery, sequence = item.delivery, _sequence(item)
        known = self._here.get(sequence) or self._former.get(sequence)
        if known is not None and known.delivery.stored_at != delivery.stored_at:
            self._forget_stream(known)
            known = None
        self._count(delivery, known)
        self.coming = delivery.attempt > 1
        if known is None:
            self.elsewhere = max(0, self.elsewhere - self.coming)
            self._here[sequence] = item
        elif self._former.pop(sequence, None) is not None:
            self.elsewhere = max(0, self.elsewhere - self.coming)
            known.delivery = delivery
            self._here[sequence] = known
        return known is None

    def finished(self, item: Accepted) -> bool:
        """The message is done with; False if it is none of these books any more, and nothing can settle it."""
        sequence = _sequence(item)
        if not self.may_settle(item) and self._former.get(sequence) is not item:
            return False
        self._done[sequence] = item
        return True

    def handed_back(self, item: Accepted) -> bool:
        """The message comes again, so nothing after it may be settled before; False if its delivery cannot say so."""
        usable = self.may_settle(item)
        if usable or self._former.get(_sequence(item)) is item:
            self._strike(_sequence(item))
            self._left_out(usable)
        return usable

    def give_up(self) -> Sequence[Accepted]:
        """Everything that is done with and was not settled leaves the books."""
        done = tuple(self._done.values())
        for item in done:
            self._strike(_sequence(item))
        return done

    async def look(self, *, anew: bool = False) -> None:
        """Ask the broker whether everything is here, if that is not known; if anything came since, or `anew`."""
        if self.complete or not (self._news or anew):
            return
        self._news = False
        gaps, here = self._gaps, dict(self._here)
        try:
            info = await self._ask()
        except MessageBusError:
            return
        if info is None or gaps != self._gaps:
            return
        # What was removed from the stream is behind the floor. What a broker that was killed has forgotten to have
        # handed out, or another consumer under this name has not handed out yet, is after `delivered`, and comes once
        # more. Neither is among what the broker counts.
        counted = sum(info.ack_floor < sequence <= info.delivered for sequence in here)
        for sequence, item in here.items():
            if sequence > info.delivered and self.may_settle(item):
                self._former[sequence] = self._here.pop(sequence)
        for sequence in [sequence for sequence in self._former if sequence <= info.ack_floor]:
            self._strike(sequence)
        self.elsewhere = max(0, info.ack_pending - counted)
        self.complete = not self.elsewhere

    async def last(self, *, anew: bool = False) -> Accepted | None:
        """The message whose settlement covers what is done with, and nothing else; None if there is none.

        See `look` for `anew`.
        """
        if self._done:
            await self.look(anew=anew)
        if not self._done or not self.complete:
            return None
        waiting = (sequence for held in (self._here, self._former) for sequence in held if sequence not in self._done)
        first_waiting = min(waiting, default=None)
        least: int | None = None
        for sequence in sorted(self._here, reverse=True):
            number = self._here[sequence].delivery.number or 0
            if least is None or number <= least:
                least = number
                if sequence in self._done and (first_waiting is None or sequence < first_waiting):
                    return self._here[sequence]
        return None

    def settled(self, last: Accepted) -> None:
        """Strike out what the settlement of that message has covered."""
        for sequence in [sequence for sequence in self._done if sequence <= _sequence(last)]:
            self._strike(sequence)

    def _count(self, delivery: Delivery, known: Accepted | None) -> None:
        """Compare the number with those before: does it leave something out, or is it another consumer's?"""
        number, expected = delivery.number, self._expected
        self._news = True
        if number is None:
            self._expected = None
            self._left_out(0)
        elif expected is None:
            self._skip(number - SKIPPED_MAX, number)
            self._expected = number + 1
            self._left_out(0)
        elif known is not None and self.may_settle(known) and number == known.delivery.number:
            self._left_out(0)  # the same delivery twice
        elif (number < expected and number not in self._skipped) or self._begins_anew(delivery, known):
            self._forget_numbers(delivery)
            self._expected = number + 1
        elif number < expected:
            self._skipped.discard(number)
            self.elsewhere = max(0, self.elsewhere - 1)
            self._left_out(0)
        else:
            self._expected = number + 1
            if number > expected:
                self._skip(expected, number)
                self._left_out(number - expected)

    def _begins_anew(self, delivery: Delivery, known: Accepted | None) -> bool:
        """Whether a message comes again that by the count of attempts does not: to another consumer it is new."""
        return known is not None and self.may_settle(known) and delivery.attempt <= known.delivery.attempt

    def _skip(self, first: int, end: int) -> None:
        self._skipped.update(range(max(1, first, end - SKIPPED_MAX), end))
        if len(self._skipped) > SKIPPED_MAX:
            self._skipped = set(sorted(self._skipped)[-SKIPPED_MAX:])

    def _forget_numbers(self, delivery: Delivery) -> None:
        """Another consumer counts: what is here must come again, unless by its place and age it cannot."""
        self._former |= self._here
        self._here.clear()
        self._skipped.clear()
        sequence, stored_at = delivery.sequence or 0, delivery.stored_at
        for later, item in list(self._former.items()):
            stored_before_at = item.delivery.stored_at
            older = stored_at is not None and stored_before_at is not None and stored_before_at < stored_at
            if later > sequence and older:
                self._strike(later)
        self.elsewhere = 0
        self._left_out(0)

    def _forget_stream(self, known: Accepted) -> None:
        """Another message stands in the place of this one, so whatever came with it, or before, is gone."""
        gone = list(self._former)
        if self.may_settle(known):
            gone += self._here
        for sequence in gone:
            self._strike(sequence)
        self.elsewhere = 0
        self._left_out(0)

    def _strike(self, sequence: int) -> None:
        for held in (self._here, self._former, self._done):
            held.pop(sequence, None)

    def _left_out(self, count: int) -> None:
        self.complete = False
        self.elsewhere += max(0, count)
        self._gaps += 1
        self._news = True


def _sequence(item: Accepted) -> int:
    return item.delivery.sequence or 0
