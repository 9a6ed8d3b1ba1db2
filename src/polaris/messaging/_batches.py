"""From many events to messages of the JSON batch format: sorted by topic, and cut once they are encoded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from polaris.domain import PolarisEvent
from polaris.messaging._subjects import topic_of

BATCH_EVENTS = 512
BATCH_BYTES = 256 * 1024


class Batch(NamedTuple):
    """Events of one topic that travel in one message."""

    events: tuple[PolarisEvent, ...]
    encoded: tuple[bytes, ...]

    @property
    def message_id(self) -> str:
        """Of one event its id; of several a digest of theirs, so that the same batch is stored once."""
        if len(self.events) == 1:
            return self.events[0].event_id
        digest = hashlib.sha256("\n".join([event.event_id for event in self.events]).encode())
        return f"batch-{digest.hexdigest()[:32]}"


def places_by_topic(events: Sequence[PolarisEvent], topic: str | None) -> Mapping[str, Sequence[int]]:
    """Where the events of each topic stand, in order: all of them on `topic`, or each on its natural one."""
    if topic is not None:
        return {topic: range(len(events))} if events else {}
    places: dict[str, list[int]] = {}
    for place, event in enumerate(events):
        places.setdefault(topic_of(event), []).append(place)
    return places


def cut(events: Sequence[PolarisEvent], encoded: Sequence[bytes], *, bytes_max: int) -> Iterator[Batch]:
    """In order; each batch holds at most 512 events and `bytes_max` bytes, or one event that is larger than that."""
    if 0 < len(encoded) <= BATCH_EVENTS and sum(map(len, encoded)) + len(encoded) <= bytes_max - 2:
        yield Batch(tuple(events), tuple(encoded))
        return
    start = size = 0
    for index, payload in enumerate(encoded):
        more = len(payload) + 1
        if index > start and (size + more > bytes_max - 2 or index - start >= BATCH_EVENTS):
            yield Batch(tuple(events[start:index]), tuple(encoded[start:index]))
            start, size = index, 0
        size += more
    if start < len(encoded):
        yield Batch(tuple(events[start:]), tuple(encoded[start:]))
