"""What was written of a system while it is being copied: marks, made in the transaction of the write itself.

A mark names a window of time of a collection, or a document. Making it again changes its version, so whoever copies the
window can tell whether it was written meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, cast

import msgspec

from polaris.storage._backend import StorageTransaction
from polaris.storage._documents import ID_KEY, VERSION_KEY, Document
from polaris.storage._placement import MARKS
from polaris.storage._ranges import TIME_MAX, TIME_MIN, to_micros

WINDOW_US = 300_000_000
WINDOWS_MAX = 100
"""Windows that one write marks; one that touches more marks all of time."""

Span = tuple[int, int]
ALL_TIME: Span = (to_micros(TIME_MIN), to_micros(TIME_MAX))


class Mark(msgspec.Struct, frozen=True):
    """A window of points, from `start_us` up to `end_us`, or the document `document_id`, of one system."""

    system_id: str
    collection: str
    start_us: int = 0
    end_us: int = 0
    document_id: str = ""

    @property
    def mark_id(self) -> str:
        """The id of its document: the same for the same window or document."""
        place = (self.system_id, self.collection, str(self.start_us), str(self.end_us), self.document_id)
        return blake2b("\x1f".join(place).encode(), digest_size=20).hexdigest()

    def document(self) -> Document:
        """The document that keeps it."""
        return {**cast(Document, msgspec.to_builtins(self)), ID_KEY: self.mark_id}


def mark_of(document: Mapping[str, Any]) -> tuple[Mark, int]:
    """A mark that was read, and its version."""
    return msgspec.convert(document, Mark), document[VERSION_KEY]


def windows_of(times_us: Iterable[int]) -> list[Span]:
    """The windows that hold these times; all of time when they are too many."""
    starts = {time_us - time_us % WINDOW_US for time_us in times_us}
    if len(starts) > WINDOWS_MAX:
        return [ALL_TIME]
    return [(start, start + WINDOW_US) for start in sorted(starts)]


def windows_over(span: Span) -> list[Span]:
    """The windows that a range touches; all of time when they are too many."""
    first = span[0] - span[0] % WINDOW_US
    if span[1] <= span[0]:
        return []
    if span[1] - first > WINDOWS_MAX * WINDOW_US:
        return [ALL_TIME]
    return [(start, start + WINDOW_US) for start in range(first, span[1], WINDOW_US)]


async def make_marks(work: StorageTransaction, marks: Sequence[Mark]) -> None:
    """Make marks, or make them again, in the transaction of the write that they are for."""
    for mark in marks:
        await work.documents.put_document(MARKS, mark.mark_id, mark.document())
