"""Events published because a transaction was committed: written with it, published afterwards, at least once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from polaris.domain import EVENTS, EventRegistry, EventType, PolarisEvent
from polaris.exceptions import MessageDecodeError, UnknownEventTypeError


class OutboxEntry(msgspec.Struct, frozen=True):
    """An event that waits for its publication. `sequence` grows in the order of the commits."""

    sequence: int
    topic: str
    event_type: str
    payload: bytes
    """The event as JSON."""
    created_at: datetime
    version: int = 1
    """Of the event's data, as it was when they were written."""

    def event(self, *, registry: EventRegistry = EVENTS) -> PolarisEvent:
        """The event itself; data of an older version are brought up to the current one (`EventRegistry.upcast`).

        Raises `UnknownEventTypeError` when the type or a step from its version is not registered, `MessageDecodeError`
        when the data do not fit.
        """
        known = registry.find(self.event_type)
        if known is None:
            raise UnknownEventTypeError(f"no event type {self.event_type!r} is registered")
        try:
            payload = self.payload if self.version >= known.version else self._lifted(registry, known)
            return msgspec.json.decode(payload, type=known.event_class)
        except (msgspec.MsgspecError, ValueError) as error:
            raise MessageDecodeError(f"outbox entry {self.sequence} is no {self.event_type}") from error

    def _lifted(self, registry: EventRegistry, known: EventType) -> bytes:
        content = msgspec.json.decode(self.payload, type=dict[str, Any])
        envelope = {name: content.pop(name) for name in PolarisEvent.__struct_encode_fields__ if name in content}
        data: Mapping[str, Any] = content
        for step in registry.path(known, self.version):
            data = step.lift(data)
        return msgspec.json.encode({**data, **envelope})


class Outbox(ABC):
    """The outbox of an engine, or of a transaction on it.

    One publisher does: read `pending`, publish each entry in order, `mark_published`. Cut off in between, it does some
    again: at least once, the event's id is the key of deduplication. Several publishers would only repeat each other.
    """

    @abstractmethod
    async def add(self, topic: str, event: PolarisEvent, *, registry: EventRegistry = EVENTS) -> None:
        """Publish the event after the commit. Topics have 1 to 3 500 characters, an event at most 1 MiB as JSON."""

    @abstractmethod
    async def pending(self, *, limit: int = 100, after: int = 0) -> list[OutboxEntry]:
        """The oldest entries that are not published, in order, behind the sequence `after`.

        Raises `QueryError` for a limit that is none, and `InvalidValueError` for an `after` that is no sequence.
        """

    @abstractmethod
    async def mark_published(self, sequences: Sequence[int]) -> int:
        """Forget entries for good; gives how many were there. Idempotent."""

    @abstractmethod
    async def count(self) -> int:
        """How many entries wait."""

    @abstractmethod
    async def wait(self, *, timeout_s: float) -> bool:
        """True as soon as an entry waits, be it old or committed by this process meanwhile; False after `timeout_s`."""
