"""What the node does when its API is asked for a change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polaris.api._commands import DeadLetterDetails, DeadLetterView
from polaris.domain import AdaptationAction, AdaptationEvent
from polaris.messaging import DeadLetters, MessageBroker, PolarisMessageBus, adaptation_topic
from polaris.messaging._dead_letters import DeadLetterRecord


class RuntimeCommands:
    """Actions go over the bus like everybody's, so the ledger sees to it that none is carried out twice."""

    def __init__(self, bus: PolarisMessageBus, broker: MessageBroker, *, source: str) -> None:
        self._bus = bus
        self._dead_letters = DeadLetters(broker)
        self._source = source

    async def act(self, action: AdaptationAction) -> None:
        await self._bus.publish(adaptation_topic(action.target_system), AdaptationEvent(action, source=self._source))

    async def dead_letters(self, *, limit: int, before: int | None) -> Sequence[DeadLetterView]:
        page = await self._dead_letters.find(after=before, count_max=limit)
        return [DeadLetterView(**_facts(record)) for record in page.records]

    async def dead_letter(self, sequence: int) -> DeadLetterDetails | None:
        if await self._dead_letters.get(sequence) is None:
            return None
        record = await self._dead_letters.show(sequence)
        headers = DeadLetterDetails.shown_headers(record.entry.headers)
        return DeadLetterDetails(**_facts(record), payload=record.entry.payload, headers=headers)

    async def replay(self, sequence: int) -> bool:
        if await self._dead_letters.get(sequence) is None:
            return False
        await self._dead_letters.replay(sequence)
        return True

    async def drop(self, sequence: int) -> bool:
        return await self._dead_letters.drop(sequence)


def _facts(record: DeadLetterRecord) -> dict[str, Any]:
    entry = record.entry
    return {
        "sequence": record.sequence,
        "stored_at": record.stored_at,
        "topic": entry.topic,
        "subscription": entry.subscription,
        "reason": entry.reason.value,
        "error_code": entry.error_code,
        "error_message": entry.error_message,
        "attempts": entry.attempts,
        "event_id": entry.event_id,
        "correlation_id": entry.correlation_id,
        "first_at": entry.first_at,
        "failed_at": entry.failed_at,
        "payload_bytes": entry.payload_bytes,
    }
