"""The outbox of all engines: arguments are checked here, once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from polaris.domain import EVENTS, EventRegistry, PolarisEvent
from polaris.exceptions import InvalidValueError
from polaris.storage._limits import DOCUMENT_BYTES_MAX, LIMIT_MAX, check_limit, check_name
from polaris.storage._operation import Executor, Operation
from polaris.storage._outbox import Outbox, OutboxEntry
from polaris.storage._ranges import to_micros

if TYPE_CHECKING:
    from polaris.storage.backends.shared._engine import SharedEngine

TOPIC_CHARS_MAX = 3_500
_encode = msgspec.json.Encoder().encode


class OutboxPort(Outbox):
    """Checks arguments and hands programs to its executor: the engine, or a transaction on it."""

    def __init__(self, engine: SharedEngine, executor: Executor) -> None:
        self._engine = engine
        self._executor = executor

    async def add(self, topic: str, event: PolarisEvent, *, registry: EventRegistry = EVENTS) -> None:
        check_name("topic", topic, chars_max=TOPIC_CHARS_MAX)
        if not isinstance(event, PolarisEvent):
            raise InvalidValueError("event", "a PolarisEvent", event)
        known = registry.require(type(event))
        payload = _encode(event)
        if len(payload) > DOCUMENT_BYTES_MAX:
            raise InvalidValueError(
                "event", f"at most {DOCUMENT_BYTES_MAX} bytes as JSON (found {len(payload)})", event
            )
        created_us = to_micros(self._engine.clock.now())
        await self._executor.execute(
            Operation(
                lambda session: session.outbox.add(topic, known.name, known.version, payload, created_us),
                mutates=True,
                known=None,
            )
        )

    async def pending(self, *, limit: int = 100, after: int = 0) -> list[OutboxEntry]:
        count = check_limit(limit)
        if type(after) is not int or not 0 <= after < 1 << 63:
            raise InvalidValueError("after", "a sequence of the outbox, or 0", after)
        rows = await self._executor.execute(
            Operation(lambda session: session.outbox.pending(count, after), mutates=False)
        )
        return [
            OutboxEntry(row.sequence, row.topic, row.event_type, row.payload, row.created_at, row.version)
            for row in rows
        ]

    async def mark_published(self, sequences: Sequence[int]) -> int:
        chosen = tuple(sequences)
        if len(chosen) > LIMIT_MAX or not all(type(sequence) is int for sequence in chosen):
            raise InvalidValueError("sequences", f"at most {LIMIT_MAX} integers", sequences)
        return await self._executor.execute(Operation(lambda session: session.outbox.remove(chosen), mutates=True))

    async def count(self) -> int:
        return await self._executor.execute(Operation(lambda session: session.outbox.count(), mutates=False))

    async def wait(self, *, timeout_s: float) -> bool:
        changed = self._engine.outbox_changed
        if await self.count():
            return True
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    changed.clear()
                    if await self.count():
                        return True
                    await changed.wait()
        except TimeoutError:
            return False
