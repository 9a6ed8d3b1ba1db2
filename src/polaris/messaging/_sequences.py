"""Numbers for the events of a topic, and what a subscriber learns from those that do not come.

Source: the CloudEvents sequence extension, whose value orders the events of a source lexicographically. Here it is
`<epoch>-<number>`: the epoch is of one publisher, begins with the time of its start and never comes again; the number
counts the events of that epoch on one topic from 1, in 12 digits.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

TOPICS_MAX = 200_000
NUMBERS_MAX = 65_536
_NUMBERS_HALF = NUMBERS_MAX // 2
UNSENT_MAX = 65_536
ROWS_MAX = 200_000
EPOCHS_MAX = 16
HOLES_MAX = 1_024
HOLES_IN_ALL_MAX = 100_000

_LAST = tuple(f"{number:03}" for number in range(1_000))
"""The last digits of a number: putting two texts together costs a third of writing a number."""

# 12 digits.
_NUMBER_BITS = 40
_NUMBER_MASK = (1 << _NUMBER_BITS) - 1
_EPOCH_DIGITS = 11
_FORM = re.compile(r"([0-9a-f]{16})-([0-9]{12})")


class _Counter:
    """How many events of one epoch one topic had. `base` is the epoch, above the bits that hold a number."""

    __slots__ = ("_epoch", "base", "count", "head")

    def __init__(self, epoch: str, base: int) -> None:
        self._epoch = epoch
        self.base = base
        self.count = 0
        self.head = f"{epoch}-000000000"
        """What the present number begins with, up to its last three digits."""

    def turn(self) -> None:
        """Another thousand begins."""
        self.head = f"{self._epoch}-{self.count // 1_000:09}"


class Numbering:
    """Numbers the events of each topic in the order in which they are published by one bus.

    An event that is published again keeps its number, so that it is no gap and not another one. Known are the numbers
    of the last events, at least 32 768 and at most 65 536, and of as many again that were not confirmed. An event is
    known by the hash of topic and id, 64 bits of a keyed function, and its number as an integer, which takes a third of
    the memory of the texts; that two of so many events have the same hash happens once in 10^9 times, and then the
    later one counts as a repetition of the other.

    Counted are at most 200 000 topics, at least the 100 000 that were published on last. When others are forgotten, a
    new epoch begins for all topics that are counted from then on, so no number comes twice.
    """

    def __init__(self, now_s: float) -> None:
        self._began_ms = int(now_s * 1000)
        self._owner = secrets.token_hex(3)[:5]
        self._epochs = 0
        # In halves, the older of which is forgotten whole: that costs less than an order of all.
        self._counts: dict[str, _Counter] = {}
        self._older_counts: dict[str, _Counter] = {}
        self._numbers: dict[int, int] = {}
        self._older_numbers: dict[int, int] = {}
        self._unsent: OrderedDict[int, int] = OrderedDict()
        self._newest = ""
        """The greatest id that ever had a number: ids rise with time as a rule, and a greater one is not known."""

    @property
    def epoch(self) -> str:
        """That of the topics which are counted from now on."""
        return self._epoch(self._epochs)

    def next(self, topic: str, event_id: str) -> str:
        """The number of an event on its way out."""
        numbers, key = self._numbers, hash((topic, event_id))
        if event_id > self._newest:
            self._newest = event_id
        else:
            known = numbers.get(key)
            if known is None:
                known = self._older_numbers.pop(key, None) or self._unsent.pop(key, None)
                if known is not None:
                    self._remember(key, known)
            if known is not None:
                return f"{self._epoch(known >> _NUMBER_BITS)}-{known & _NUMBER_MASK:012}"
        counter = self._counts.get(topic) or self._counter(topic)
        count = counter.count = counter.count + 1
        if len(numbers) < _NUMBERS_HALF:
            numbers[key] = counter.base + count
        else:
            self._remember(key, counter.base + count)
        last = count % 1_000
        if not last:
            counter.turn()
        return counter.head + _LAST[last]

    def not_confirmed(self, topic: str, event_id: str, number: str) -> None:
        """Publishing it failed; it may be published again, however many others are published before."""
        epoch, _, count = number.partition("-")
        base = (int(epoch[:_EPOCH_DIGITS], 16) - self._began_ms) << _NUMBER_BITS
        self._unsent[hash((topic, event_id))] = base + int(count)
        if len(self._unsent) > UNSENT_MAX:
            self._unsent.popitem(last=False)

    def _remember(self, key: int, number: int) -> None:
        if len(self._numbers) >= _NUMBERS_HALF:
            self._older_numbers, self._numbers = self._numbers, {}
        self._numbers[key] = number

    def _counter(self, topic: str) -> _Counter:
        counter = self._older_counts.pop(topic, None)
        if len(self._counts) >= TOPICS_MAX // 2:
            forgotten, self._older_counts, self._counts = self._older_counts, self._counts, {}
            if forgotten:
                # One of them may come back, and this topic may be it.
                self._epochs += 1
        if counter is None:
            counter = _Counter(self.epoch, self._epochs << _NUMBER_BITS)
        self._counts[topic] = counter
        return counter

    def _epoch(self, which: int) -> str:
        return f"{self._began_ms + which:0{_EPOCH_DIGITS}x}{self._owner}"


Count = Callable[[int], None]


def _nobody(_: int) -> None:
    """Nobody wants to know."""


class GapStats(Protocol):
    """Where what is found is counted."""

    missed: int
    late: int


class _Row:
    """What is known of one epoch on one topic."""

    __slots__ = ("holes", "key", "last", "prefix", "room")

    def __init__(self, key: tuple[str, str], number: int) -> None:
        self.key = key
        self.prefix = f"{key[1]}-"
        self.last = number
        self.holes: set[int] | None = None
        self.room = 0
        """How many holes there were at once: a set keeps the room for them while it is not empty."""


class GapDetector:
    """Reads the numbers of what a subscription receives and counts those that were passed over.

    `missed` counts numbers that were not there when a later one came; `late` those of them that came after all. So
    `missed - late` events are missing now. Repetitions count as nothing. A row begins with the first number that is
    seen of it, so neither what was published before nor the last events of a publisher that has ended are missed.
    What came but could not be decoded has no number that could be read: it counts as missed.

    A row is of one epoch on one topic. At most 200 000 rows are remembered, those that were heard of last, 16 of a
    topic. Missing numbers are remembered so that they can be late: the highest 1 024 of a row at least, and room for
    100 000 in all, for which those of the rows whose last gap is the longest ago are forgotten: they stay missing. That
    makes less than 1 KB a row, and some 10 MB for what is missing in all of them.
    """

    def __init__(self, stats: GapStats, *, on_missed: Count = _nobody, on_late: Count = _nobody) -> None:
        self._stats = stats
        self._on_missed = on_missed
        self._on_late = on_late
        self._rows: OrderedDict[tuple[str, str], _Row] = OrderedDict()
        # The rows of each topic, the one that was heard of last at the end: nearly always its next number comes next.
        self._topics: dict[str, list[_Row]] = {}
        # The rows that have holes, by the time of the last gap.
        self._torn: OrderedDict[tuple[str, str], _Row] = OrderedDict()
        self._room = 0

    def observe(self, topic: str, sequence: object) -> None:
        """Take note of an event; a `sequence` of another form says nothing."""
        rows = self._topics.get(topic)
        if rows is not None:
            row = rows[-1]
            if sequence == row.prefix + str(row.last + 1).zfill(12):
                row.last += 1
                self._rows.move_to_end(row.key)
                return
        found = _FORM.fullmatch(sequence) if isinstance(sequence, str) else None
        if found is None:
            return
        key, number = (topic, found[1]), int(found[2])
        known = self._rows.get(key)
        if known is None:
            self._begin(_Row(key, number))
            return
        self._rows.move_to_end(key)
        rows = self._topics[topic]
        if rows[-1] is not known:
            rows.remove(known)
            rows.append(known)
        if number > known.last:
            missed = number - known.last - 1
            if missed:
                self._stats.missed += missed
                self._on_missed(missed)
                self._tear(known, number)
            known.last = number
        elif known.holes is not None and number in known.holes:
            known.holes.remove(number)
            if not known.holes:
                self._mend(known)
            self._stats.late += 1
            self._on_late(1)

    def _begin(self, row: _Row) -> None:
        rows = self._topics.setdefault(row.key[0], [])
        rows.append(row)
        self._rows[row.key] = row
        if len(rows) > EPOCHS_MAX:
            self._forget(rows[0])
        elif len(self._rows) > ROWS_MAX:
            self._forget(next(iter(self._rows.values())))

    def _forget(self, row: _Row) -> None:
        self._mend(row)
        del self._rows[row.key]
        rows = self._topics[row.key[0]]
        rows.remove(row)
        if not rows:
            del self._topics[row.key[0]]

    def _tear(self, row: _Row, number: int) -> None:
        """Remember what is missing between the last number and this one, within the bounds."""
        if row.holes is None:
            row.holes = set()
        row.holes.update(range(max(row.last + 1, number - HOLES_MAX), number))
        if len(row.holes) > 2 * HOLES_MAX:
            row.holes = set(sorted(row.holes)[-HOLES_MAX:])
        more = max(0, len(row.holes) - row.room)
        row.room += more
        self._room += more
        self._torn[row.key] = row
        self._torn.move_to_end(row.key)
        while self._room > HOLES_IN_ALL_MAX:
            self._mend(next(iter(self._torn.values())))

    def _mend(self, row: _Row) -> None:
        """Nothing is missing in the row any more, or that is forgotten."""
        if row.holes is not None:
            del self._torn[row.key]
            self._room -= row.room
            row.holes, row.room = None, 0
