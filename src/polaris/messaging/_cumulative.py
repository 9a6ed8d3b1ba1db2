"""What may be settled when a settlement covers everything before it: nothing past what is not done with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING

from polaris.exceptions import MessageBusError
from polaris.messaging._broker import ConsumerInfo, Delivery

if TYPE_CHECKING:
    from polaris.messaging._settlement import Accepted

AskConsumer = Callable[[], Awaitable[ConsumerInfo | None]]


class Cumulative:
    """The books of a position with `AckPolicy.ALL`: what is done with and not settled yet, and whether it may be.

    A message that the broker has handed out is not always here: a former process died with it, or it was lost with a
    connection. It comes again, but only after `ack_wait_s`, while later ones come at once, and settling one of those
    would lose it. So whenever the numbers of the deliveries leave something out, and at first, nothing is settled until
    everything that the broker counts as handed out and not settled is here.

    A message that comes again while it is here is not handled a second time: its first delivery settles it. (The
    broker ignores settlements that are behind the last one by the number of the delivery.)
    """

    def __init__(self, ask: AskConsumer) -> None:
        self.done: list[Accepted] = []
        self.complete = False
        """Whether everything is here that was handed out and not settled."""
        self.elsewhere = 0
        """About how many are not; they count against the bound of the broker, which gives no more until they come."""
        self.coming = False
        """Whether they come just now."""
        self._ask = ask
        self._here: set[int] = set()
        self._expected: int | None = None
        self._gaps = 0
        self._news = True

    def enters(self, delivery: Delivery) -> bool:
        """Take note of a delivery; False if the message is here already."""
        number, sequence = delivery.number, delivery.sequence or 0
        if number is None or number != self._expected:
            self._left_out(0 if number is None or self._expected is None else number - self._expected)
        self._expected = None if number is None else number + 1
        self._news = True
        if sequence in self._here:
            return False
        self._here.add(sequence)
        self.coming = delivery.attempt > 1
        self.elsewhere = max(0, self.elsewhere - self.coming)
        return True

    def handed_back(self, item: Accepted) -> None:
        """The message comes again, so nothing after it may be settled before it is here."""
        self._here.discard(_sequence(item))
        self._left_out(1)

    async def look(self, *, anew: bool = False) -> None:
        """Ask the broker whether everything is here, if that is not known; if anything came since, or `anew`."""
        if self.complete or not (self._news or anew):
            return
        self._news = False
        gaps, here = self._gaps, tuple(self._here)
        try:
            info = await self._ask()
        except MessageBusError:
            return
        if info is None or gaps != self._gaps:
            return
        # What was removed from the stream is behind the floor. What a broker that was killed has forgotten to have
        # handed out is after `delivered`, and comes once more. Neither is among what the broker counts.
        counted = sum(info.ack_floor < sequence <= info.delivered for sequence in here)
        self.elsewhere = max(0, info.ack_pending - counted)
        self.complete = not self.elsewhere

    async def last(self, waiting: Collection[Accepted], *, anew: bool = False) -> Accepted | None:
        """The message whose settlement covers everything that is done with, and nothing else; None if there is none.

        `waiting` are those that are here and not done with. See `look` for `anew`.
        """
        if self.done:
            await self.look(anew=anew)
        if not self.done or not self.complete:
            return None
        last = max(self.done, key=_sequence)
        if any(_sequence(item) < _sequence(last) for item in waiting):
            return None
        return last

    def settled(self, last: Accepted) -> None:
        """Strike out what the settlement of that message has covered."""
        covered = [item for item in self.done if _sequence(item) <= _sequence(last)]
        self._here.difference_update(map(_sequence, covered))
        self.done = [item for item in self.done if _sequence(item) > _sequence(last)]

    def _left_out(self, count: int) -> None:
        self.complete = False
        self.elsewhere += max(0, count)
        self._gaps += 1
        self._news = True


def _sequence(item: Accepted) -> int:
    return item.delivery.sequence or 0
