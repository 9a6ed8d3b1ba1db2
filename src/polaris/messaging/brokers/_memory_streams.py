"""Streams and consumer positions in memory, with the rules of JetStream: bounds, deduplication, redelivery."""

from __future__ import annotations

import heapq
import itertools
from asyncio import Future
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec

from polaris.clock import Clock
from polaris.exceptions import SubscriptionError
from polaris.ids import new_id
from polaris.messaging._broker import (
    GIVEN_UP_PREFIX,
    MESSAGE_ID_HEADER,
    AckPolicy,
    ConsumerInfo,
    ConsumerSpec,
    OutgoingMessage,
    Start,
    StoredMessage,
    StreamSpec,
)
from polaris.messaging._patterns import matches

NO_HEADERS: Mapping[str, str] = {}
Announce = Callable[[str, bytes], None]
"""Publishes what the server says by itself: subject and payload."""
# In Python 3.11 a member of an enumeration costs as much as a call when it is looked up in its class.
_ALL, _NONE = AckPolicy.ALL, AckPolicy.NONE
RECORD_BYTES = 30
"""What the file store of nats-server adds to a message on disk, and with headers four bytes more."""


class Record(NamedTuple):
    """One stored message."""

    sequence: int
    subject: str
    payload: bytes
    headers: Mapping[str, str]
    stored_at: datetime
    stored_s: float
    size_bytes: int
    """What counts against the bound of the stream: the message as nats-server keeps it on disk."""


Taken = tuple[Record, int, int]
"""What is handed out: the record, its attempt, and the number of the delivery."""


class Waiters:
    """Those who wait for something to happen; `wake` lets all of them look again."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: set[Future[None]] = set()

    def add(self, waiter: Future[None]) -> None:
        self._waiting.add(waiter)

    def discard(self, waiter: Future[None]) -> None:
        self._waiting.discard(waiter)

    def wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)


class MemoryStream:
    """An append-only log of messages, bounded by age and bytes, and the consumers that read it."""

    def __init__(self, spec: StreamSpec, clock: Clock, announce: Announce) -> None:
        self.spec = spec
        self.records: dict[int, Record] = {}
        self.last_sequence = 0
        self.positions: dict[str, ConsumerPosition] = {}
        self.waiters = Waiters()
        self.announce = announce
        self._clock = clock
        self._bytes = 0
        self._seen: dict[str, tuple[int, float]] = {}

    def captures(self, subject: str) -> bool:
        """Whether the stream stores messages of this subject."""
        return any(matches(pattern, subject) for pattern in self.spec.subjects)

    def store(self, message: OutgoingMessage, headers: Mapping[str, str], wire_bytes: int) -> tuple[int, bool]:
        """Append and wake the readers; returns the sequence and whether it was a duplicate (nothing appended).

        The id of the message is what stands in `headers`, kept as they are; `wire_bytes` counts headers and payload.
        """
        now_s = self._clock.monotonic()
        self._forget_ids(now_s)
        message_id = headers.get(MESSAGE_ID_HEADER)
        if message_id is not None:
            known = self._seen.get(message_id)
            if known is not None:
                return known[0], True
        self.last_sequence += 1
        size_bytes = RECORD_BYTES + len(message.subject) + wire_bytes + (4 if headers else 0)
        record = Record(
            self.last_sequence, message.subject, bytes(message.payload), headers, self._clock.now(), now_s, size_bytes
        )
        self.records[record.sequence] = record
        self._bytes += record.size_bytes
        if message_id is not None:
            self._seen[message_id] = (record.sequence, now_s)
        self.enforce_bounds()
        self.waiters.wake()
        return record.sequence, False

    def read(self, from_sequence: int, count_max: int) -> list[StoredMessage]:
        """At most `count_max` records from a sequence on."""
        self.enforce_bounds()
        found: list[StoredMessage] = []
        sequence = max(from_sequence, next(iter(self.records), 1))
        while sequence <= self.last_sequence and len(found) < count_max:
            record = self.records.get(sequence)
            if record is not None:
                found.append(
                    StoredMessage(
                        sequence=sequence,
                        subject=record.subject,
                        payload=record.payload,
                        headers=record.headers,
                        stored_at=record.stored_at,
                    )
                )
            sequence += 1
        return found

    def erase(self, sequence: int) -> bool:
        """Remove one record; False when it is not there. Whoever had it has nothing to settle any more."""
        record = self.records.pop(sequence, None)
        if record is None:
            return False
        self._bytes -= record.size_bytes
        for position in self.positions.values():
            position.settle(sequence)
        return True

    def enforce_bounds(self) -> None:
        """Remove the oldest records until the stream is within its bounds.

        A message larger than the bound alone is stored, confirmed and removed with all others, as JetStream does.
        """
        spec, records = self.spec, self.records
        oldest_s = None if spec.max_age_s is None else self._clock.monotonic() - spec.max_age_s
        while records:
            first = records[next(iter(records))]
            too_old = oldest_s is not None and first.stored_s < oldest_s
            too_big = spec.max_bytes is not None and self._bytes > spec.max_bytes
            if not too_old and not too_big:
                return
            self.erase(first.sequence)

    def first_of(self, start: Start) -> int:
        """The sequence with which a position begins that is made now."""
        if start.sequence is not None:
            return start.sequence
        behind_all = self.last_sequence + 1
        if start.time is not None:
            later = (record.sequence for record in self.records.values() if record.stored_at >= start.time)
            return next(later, behind_all)
        return behind_all if start.new else 1

    def position(self, spec: ConsumerSpec) -> ConsumerPosition:
        """The durable position of that name, made or updated to `spec`; its ack policy cannot be changed."""
        self._forget_positions()
        known = self.positions.get(spec.durable)
        if known is not None and known.spec.ack is not spec.ack:
            raise SubscriptionError(
                f"no consumer {spec.durable!r}: the position has the ack policy {known.spec.ack.value!r}, which cannot "
                f"be changed to {spec.ack.value!r}: take another name, or delete the consumer",
                {"stream": spec.stream, "durable": spec.durable},
            )
        if known is None:
            known = self.positions[spec.durable] = ConsumerPosition(self, spec, self._clock)
        known.spec = spec
        return known

    def _forget_ids(self, now_s: float) -> None:
        window_s, max_age_s = self.spec.duplicate_window_s, self.spec.max_age_s
        limit_s = now_s - (window_s if max_age_s is None else min(window_s, max_age_s))
        while self._seen:
            oldest = next(iter(self._seen))
            if self._seen[oldest][1] > limit_s:
                return
            del self._seen[oldest]

    def _forget_positions(self) -> None:
        now_s = self._clock.monotonic()
        for name, position in list(self.positions.items()):
            inactive_s = position.spec.inactive_s
            if inactive_s is not None and not position.attached and now_s - position.left_s > inactive_s:
                del self.positions[name]


class _Unsettled:
    """A message that was handed out and not settled; `number` is that of its first delivery."""

    __slots__ = ("attempt", "due_s", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.attempt = 1
        self.due_s = 0.0


class ConsumerPosition:
    """What one durable consumer has been given and has settled; shared by all who attach to it."""

    def __init__(self, stream: MemoryStream, spec: ConsumerSpec, clock: Clock) -> None:
        self.stream = stream
        self.spec = spec
        self.attached = 0
        self.left_s = clock.monotonic()
        self._clock = clock
        self._next_sequence = stream.first_of(spec.start)
        self._delivered = 0
        # Everything up to these is settled: the number of a delivery, and a sequence of the stream.
        self._floor = (0, self._next_sequence - 1)
        self._unsettled: dict[int, _Unsettled] = {}
        self._due: list[tuple[float, int]] = []
        self._given_up: set[int] = set()

    def attach(self) -> None:
        self.attached += 1

    def detach(self) -> None:
        self.attached -= 1
        self.left_s = self._clock.monotonic()

    def take(self, count_max: int) -> list[Taken]:
        """At most `count_max` records, each with attempt and number: first what is due again, then what is new."""
        self.stream.enforce_bounds()
        taken = self._take_due(count_max)
        room = count_max - len(taken)
        if self.spec.ack is not _NONE:
            room = min(room, self.spec.in_flight_max - len(self._unsettled))
        if room > 0:
            taken.extend(self._take_new(room))
        return taken

    def next_due_s(self) -> float | None:
        """When the next redelivery is due, in monotonic seconds; None when nothing is unsettled."""
        while self._due:
            due_s, sequence = self._due[0]
            unsettled = self._unsettled.get(sequence)
            if unsettled is not None and unsettled.due_s == due_s:
                return due_s
            heapq.heappop(self._due)
        return None

    def settle(self, sequence: int, number: int | None = None) -> None:
        """Settle what the delivery of that number covers; without one, the message is gone from the stream."""
        unsettled = self._unsettled.get(sequence)
        if number is None and unsettled is not None:
            number = unsettled.number
        if number is not None and self.spec.ack is _ALL:
            self._settle_up_to(number, sequence)
            return
        self._given_up.discard(sequence)
        if unsettled is None:
            return
        del self._unsettled[sequence]
        self.stream.waiters.wake()
        number = unsettled.number
        if not self._unsettled:
            self._floor = (self._delivered, self._next_sequence - 1)
        elif number == self._floor[0] + 1:
            later = next((known for known in self._unsettled if known > sequence), None)
            self._floor = (number, sequence) if later is None else (self._unsettled[later].number - 1, later - 1)

    def _settle_up_to(self, number: int, sequence: int) -> None:
        """Settle the message and all before it, unless the floor has passed the delivery or the message."""
        if number <= self._floor[0] or sequence <= self._floor[1]:
            return
        self._floor = (number, sequence)
        for covered in list(itertools.takewhile(lambda known: known <= sequence, self._unsettled)):
            del self._unsettled[covered]
        self._given_up = {known for known in self._given_up if known > sequence}
        self.stream.waiters.wake()

    def hand_back(self, sequence: int, number: int | None, delay_s: float) -> None:
        """As `postpone`; of a delivery that the floor has passed nothing comes."""
        if number is None or number > self._floor[0]:
            self.postpone(sequence, delay_s)

    def postpone(self, sequence: int, delay_s: float) -> None:
        """Let the message come again after `delay_s`; of a settled one nothing comes, what is due already stays due."""
        unsettled = self._unsettled.get(sequence)
        if unsettled is not None and unsettled.due_s > self._clock.monotonic():
            self._schedule(sequence, unsettled, delay_s)
            self.stream.waiters.wake()

    def info(self) -> ConsumerInfo:
        self.stream.enforce_bounds()
        records, pattern = self.stream.records, self.spec.pattern
        pending = sum(
            1
            for sequence, record in records.items()
            if sequence >= self._next_sequence and matches(pattern, record.subject)
        )
        redelivered = len(self._given_up) + sum(unsettled.attempt > 1 for unsettled in self._unsettled.values())
        return ConsumerInfo(
            pending=pending,
            ack_pending=len(self._unsettled),
            redelivered=redelivered,
            ack_floor=self._floor[1],
            delivered=self._next_sequence - 1,
        )

    def _take_due(self, count_max: int) -> list[Taken]:
        taken: list[Taken] = []
        now_s = self._clock.monotonic()
        while len(taken) < count_max:
            due_s = self.next_due_s()
            if due_s is None or due_s > now_s:
                break
            _, sequence = heapq.heappop(self._due)
            unsettled = self._unsettled[sequence]
            if self.spec.deliveries_max is not None and unsettled.attempt >= self.spec.deliveries_max:
                self._give_up(sequence, unsettled.attempt)
                continue
            self._schedule(sequence, unsettled, self.spec.ack_wait_s)
            record = self.stream.records.get(sequence)
            if record is None:
                continue  # erased, which settles, unless the floor had passed its first delivery
            unsettled.attempt += 1
            self._delivered += 1
            taken.append((record, unsettled.attempt, self._delivered))
        return taken

    def _take_new(self, count_max: int) -> list[Taken]:
        taken: list[Taken] = []
        records, last = self.stream.records, self.stream.last_sequence
        if records:
            self._next_sequence = max(self._next_sequence, next(iter(records)))
        while self._next_sequence <= last and len(taken) < count_max:
            record = records.get(self._next_sequence)
            self._next_sequence += 1
            if record is None or not matches(self.spec.pattern, record.subject):
                continue
            self._delivered += 1
            taken.append((record, 1, self._delivered))
            if self.spec.ack is _NONE:
                self._floor = (self._delivered, record.sequence)
                continue
            unsettled = self._unsettled[record.sequence] = _Unsettled(self._delivered)
            self._schedule(record.sequence, unsettled, self.spec.ack_wait_s)
        return taken

    def _give_up(self, sequence: int, deliveries: int) -> None:
        """As nats-server does it: when somebody pulls, and not when the last delivery failed."""
        del self._unsettled[sequence]
        self._given_up.add(sequence)
        stream, consumer = self.stream.spec.name, self.spec.durable
        advisory = {
            "type": "io.nats.jetstream.advisory.v1.max_deliver",
            "id": new_id(),
            "timestamp": self._clock.now(),
            "stream": stream,
            "consumer": consumer,
            "stream_seq": sequence,
            "deliveries": deliveries,
        }
        self.stream.announce(f"{GIVEN_UP_PREFIX}{stream}.{consumer}", msgspec.json.encode(advisory))

    def _schedule(self, sequence: int, unsettled: _Unsettled, delay_s: float) -> None:
        unsettled.due_s = self._clock.monotonic() + max(0.0, delay_s)
        heapq.heappush(self._due, (unsettled.due_s, sequence))
