"""Numbers for the events of a topic, and what a subscriber learns from those that do not come.

Source: the CloudEvents sequence extension, whose value orders the events of a source lexicographically. Here it is
`<epoch>-<number>`: the epoch is of one run of one publisher, begins with the time of its start and never comes again;
the number counts the events of that epoch on one topic from 1, in 12 digits.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

TOPICS_MAX = 200_000
HOLES_MAX = 1_024
UNSENT_MAX = 65_536

_FORM = re.compile(r"([0-9a-f]{16})-([0-9]{12})")


class Numbering:
    """Numbers the events of each topic in the order in which they are published by one bus.

    What was not confirmed keeps its number, so that an event that is published again is no gap and not another one.
    """

    def __init__(self, now_s: float) -> None:
        self.epoch = f"{int(now_s * 1000):011x}"[-11:] + secrets.token_hex(3)[:5]
        self._counts: dict[str, int] = {}
        self._unsent: OrderedDict[tuple[str, str], str] = OrderedDict()

    def next(self, topic: str, event_id: str) -> str:
        """The number of an event on its way out."""
        if self._unsent:
            known = self._unsent.pop((topic, event_id), None)
            if known is not None:
                return known
        count = self._counts.get(topic, 0) + 1
        self._counts[topic] = count
        return f"{self.epoch}-" + str(count).zfill(12)

    def not_confirmed(self, topic: str, event_id: str, number: str) -> None:
        """Publishing it failed; it may be published again."""
        self._unsent[topic, event_id] = number
        if len(self._unsent) > UNSENT_MAX:
            self._unsent.popitem(last=False)


Count = Callable[[int], None]


def _nobody(_: int) -> None:
    """Nobody wants to know."""


class GapStats(Protocol):
    """Where what is found is counted."""

    missed: int
    late: int


class _Row:
    """What is known of one epoch on one topic."""

    __slots__ = ("holes", "key", "last", "prefix")

    def __init__(self, key: tuple[str, str], number: int) -> None:
        self.key = key
        self.prefix = f"{key[1]}-"
        self.last = number
        self.holes: set[int] = set()


class GapDetector:
    """Reads the numbers of what a subscription receives and counts those that were passed over.

    `missed` counts numbers that were not there when a later one came; `late` those of them that came after all. So
    `missed - late` events are missing now. Repetitions count as nothing. A row begins with the first number that is
    seen of it, so neither what was published before nor the last events of a publisher that has ended are missed. It
    remembers the 200 000 topics that were heard of last, and 1 024 missing numbers a topic: older ones stay missing.
    """

    def __init__(self, stats: GapStats, *, on_missed: Count = _nobody, on_late: Count = _nobody) -> None:
        self._stats = stats
        self._on_missed = on_missed
        self._on_late = on_late
        self._rows: OrderedDict[tuple[str, str], _Row] = OrderedDict()
        # Of each topic the row that was heard of last: nearly always the next number of it comes next.
        self._latest: dict[str, _Row] = {}

    def observe(self, topic: str, sequence: object) -> None:
        """Take note of an event; a `sequence` of another form says nothing."""
        row = self._latest.get(topic)
        if row is not None and sequence == row.prefix + str(row.last + 1).zfill(12):
            row.last += 1
            self._rows.move_to_end(row.key)
            return
        found = _FORM.fullmatch(sequence) if isinstance(sequence, str) else None
        if found is None:
            return
        key, number = (topic, found[1]), int(found[2])
        row = self._rows.get(key)
        if row is None:
            self._rows[key] = self._latest[topic] = _Row(key, number)
            if len(self._rows) > TOPICS_MAX:
                (old_topic, _), gone = self._rows.popitem(last=False)
                if self._latest.get(old_topic) is gone:
                    del self._latest[old_topic]
            return
        self._rows.move_to_end(key)
        self._latest[topic] = row
        if number == row.last + 1:
            row.last = number
        elif number > row.last:
            missed = number - row.last - 1
            self._stats.missed += missed
            self._on_missed(missed)
            row.holes.update(range(max(row.last + 1, number - HOLES_MAX), number))
            row.last = number
            if len(row.holes) > HOLES_MAX:
                row.holes = set(sorted(row.holes)[-HOLES_MAX:])
        elif number in row.holes:
            row.holes.remove(number)
            self._stats.late += 1
            self._on_late(1)
