"""What a client has received of a position and what of it is not settled, to go on when the server has forgotten it."""

from __future__ import annotations

from polaris.messaging._broker import AckPolicy
from polaris.messaging.brokers._nats_delivery import StoredDelivery

LEFT_OUT_MAX = 256
"""So many gaps in what was received are known apart; beyond it the two lowest become one."""


class TrackedDelivery(StoredDelivery):
    """A delivery that tells the progress of its consumer how it ended."""

    __slots__ = ("progress",)

    progress: Progress

    async def ack(self, *, confirm: bool = False) -> None:
        if self._settled:
            return
        try:
            await super().ack(confirm=confirm)
        finally:
            self._ended(settled=self._settled)

    async def nak(self, *, delay_s: float) -> None:
        if self._settled:
            return
        try:
            await super().nak(delay_s=delay_s)
        finally:
            self._ended(settled=False)

    async def term(self) -> None:
        if self._settled:
            return
        try:
            await super().term()
        finally:
            self._ended(settled=self._settled)

    def settle_as(self, newer: StoredDelivery) -> bool:
        """Be settled from now on as the newer delivery of the message; False if that is of another message."""
        if newer.stored_at != self.stored_at:
            return False
        self._ack_subject = newer.ack_subject
        return True

    def _ended(self, *, settled: bool) -> None:
        if settled:
            self.progress.settled(self)
        else:
            self.progress.let_go(self)


class Progress:
    """The books of a position that the server forgets when nobody asks for its messages for a while.

    A position made anew begins with the lowest message that is not settled, or behind everything received. What it then
    delivers is told apart: a message that is still here keeps its first delivery, which settles the new one; one that
    was settled is settled once more; what was handed back, or never came, is handed out. With `AckPolicy.ALL` the owner
    tells these apart, and with `AckPolicy.NONE` nothing comes twice.

    What the server handed out and what got lost on the way is known by the numbers of the deliveries, and found again
    when the server says up to where everything is settled, see `note_floor`.
    """

    def __init__(self, ack: AckPolicy, *, stream_created: str, floor: int, number: int) -> None:
        self.ack = ack
        self.stream_created = stream_created
        """When the stream was made, in the server's words: another one under the name is told by it."""
        self.resumptions = 0
        """How often the position was made anew to begin where it was left."""
        self.repeated: list[TrackedDelivery] = []
        """New deliveries of what was settled: to be settled once more."""
        self._highest = floor
        self._expected = number + 1
        # By sequence what was received and is not settled; None when its owner has handed it back.
        self._unsettled: dict[int, TrackedDelivery | None] = {}
        self._left_out: list[range] = []
        self._known_up_to = 0

    @property
    def next_sequence(self) -> int:
        """Where a position must begin for nothing to be left out."""
        return min([*self._unsettled, *(gap.start for gap in self._left_out)], default=self._highest + 1)

    def resume(self, last_sequence: int) -> int:
        """Be ready for a position made anew in a stream that ends there; returns where it is to begin.

        A stream that ends before what was received has lost its end with its server, and gives those numbers again.
        """
        if last_sequence < self._highest:
            self._highest = last_sequence
            self._left_out = [gap for gap in self._left_out if gap.start <= last_sequence]
            for sequence in [sequence for sequence in self._unsettled if sequence > last_sequence]:
                del self._unsettled[sequence]
        self._known_up_to = self._highest
        return self.next_sequence

    def resumed(self) -> None:
        """The position was made anew, and counts its deliveries from 1."""
        self.resumptions += 1
        self._expected = 1

    def enter(self, delivery: TrackedDelivery) -> bool:
        """Take note of what was delivered; False if it is not to be handed out."""
        sequence, number = delivery.sequence or 0, delivery.number or 0
        if self.ack is AckPolicy.NONE:
            self._highest = max(self._highest, sequence)
            return True
        anew = self.ack is AckPolicy.EACH and sequence <= self._known_up_to and delivery.attempt == 1
        if anew and sequence not in self._unsettled and not any(sequence in gap for gap in self._left_out):
            self._expected = number + 1
            self.repeated.append(delivery)
            return False
        self._count(sequence, number)
        held = self._unsettled.get(sequence)
        if anew and held is not None and held.settle_as(delivery):
            return False
        self._unsettled[sequence] = delivery
        return True

    def settled(self, delivery: TrackedDelivery) -> None:
        """The server was told that the message, with `AckPolicy.ALL` also everything before it, is done with."""
        sequence = delivery.sequence or 0
        if self.ack is AckPolicy.ALL:
            self.note_floor(sequence)
        else:
            self._unsettled.pop(sequence, None)

    def let_go(self, delivery: TrackedDelivery) -> None:
        """The message must come again: nobody here has this delivery any more."""
        sequence = delivery.sequence or 0
        if self._unsettled.get(sequence) is delivery:
            self._unsettled[sequence] = None

    def note_floor(self, sequence: int) -> None:
        """Everything up to there is settled."""
        for known in [known for known in self._unsettled if known <= sequence]:
            del self._unsettled[known]
        self._left_out = [gap for gap in self._left_out if gap[-1] > sequence]

    def _count(self, sequence: int, number: int) -> None:
        if sequence > self._highest:
            if number > self._expected and sequence > self._highest + 1:
                self._leave_out(range(self._highest + 1, sequence))
            self._highest = sequence
        else:
            self._came_late(sequence)
        self._expected = number + 1

    def _leave_out(self, gap: range) -> None:
        self._left_out.append(gap)
        if len(self._left_out) > LEFT_OUT_MAX:
            first, second, *others = self._left_out
            self._left_out = [range(first.start, second.stop), *others]

    def _came_late(self, sequence: int) -> None:
        for place, gap in enumerate(self._left_out):
            if sequence in gap:
                parts = (range(gap.start, sequence), range(sequence + 1, gap.stop))
                self._left_out[place : place + 1] = [part for part in parts if part]
                return
