"""Publishes what transactions left in the outbox: in order, at least once, until the bus has confirmed it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.exceptions import MessageBusError, PolarisException
from polaris.resilience import RetryConfig, RetryPolicy
from polaris.runtime._health import HealthBoard
from polaris.runtime._lease import Always, Turn
from polaris.runtime._supervision import Supervisor

if TYPE_CHECKING:
    from polaris.messaging import PolarisMessageBus
    from polaris.observability import StructuredLogger
    from polaris.storage import OutboxEntry, PolarisDataStore, PolarisUnitOfWork

NAME = "outbox"
UNPUBLISHED = "polaris.unpublished"
"""The collection of documents that keeps what cannot be published, as it was, with the reason."""
LOOK_AGAIN_S = 5.0
ENTRIES_MAX = 100
PUBLISH_TIMEOUT_S = 60.0
DRAIN_S = 2.5
ALWAYS = Always()
UNTIL_CONFIRMED = RetryConfig(
    max_attempts=1_000_000_000, base_delay=0.2, max_delay=5.0, jitter="equal", retryable=(MessageBusError,)
)


class OutboxRelay:
    """The publisher of the outbox, one at a time: `turn`. Events keep their ids, so a repetition is recognised by
    stream and consumers.

    What can never be published (its data cannot be read any more, or the bus refuses it for good) is put aside in the
    collection `polaris.unpublished`, in one transaction with its end in the outbox, so that it holds up nothing and is
    not lost.
    """

    def __init__(
        self,
        store: PolarisDataStore,
        bus: PolarisMessageBus,
        board: HealthBoard,
        logger: StructuredLogger,
        *,
        turn: Turn = ALWAYS,
        drain_s: float = DRAIN_S,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._store = store
        self._outbox = store.outbox
        self._bus = bus
        self._turn = turn
        self._logger = logger
        self._drain_s = drain_s
        self._supervisor = Supervisor(board, logger, clock=clock)
        self._until_confirmed = RetryPolicy(UNTIL_CONFIRMED, clock=clock)

    async def start(self) -> None:
        """Begin with what an earlier run left behind."""
        self._supervisor.run(NAME, self._relay_for_ever)

    async def stop(self) -> None:
        """Publish what is there, as far as the bus takes it within `drain_s`, and end."""
        await self._supervisor.stop()
        try:
            async with asyncio.timeout(self._drain_s):
                await self._turn.while_held(self._relay_pending)
        except TimeoutError:
            self._logger.info("outbox is left for the next start", reason="the bus does not confirm")

    async def _relay_for_ever(self) -> None:
        while True:
            await self._turn.wait()
            await self._turn.while_held(self._relay_while_it_is_our_turn)

    async def _relay_while_it_is_our_turn(self) -> None:
        while True:
            if not await self._relay_pending():
                await self._outbox.wait(timeout_s=LOOK_AGAIN_S)

    async def _relay_pending(self) -> bool:
        """Publish what waits, at most `ENTRIES_MAX`; False when there was nothing."""
        entries = await self._outbox.pending(limit=ENTRIES_MAX)
        for entry in entries:
            await self._relay(entry)
        return bool(entries)

    async def _relay(self, entry: OutboxEntry) -> None:
        try:
            await self._publish(entry)
        except PolarisException as error:
            if error.retryable is not False:
                raise
            await self._put_aside(entry, error)
        else:
            await self._outbox.mark_published([entry.sequence])

    async def _publish(self, entry: OutboxEntry) -> None:
        event = entry.event()
        # Long: what waits inside the bus leaves the moment the broker is back.
        await self._until_confirmed.execute(
            lambda: self._bus.publish(entry.topic, event, timeout_s=PUBLISH_TIMEOUT_S), "publish outbox entry"
        )

    async def _put_aside(self, entry: OutboxEntry, error: PolarisException) -> None:
        document = {
            "topic": entry.topic,
            "event_type": entry.event_type,
            "version": entry.version,
            "event": entry.payload.decode("utf-8", "replace"),
            "created_at": entry.created_at.isoformat(),
            "code": error.code,
            "reason": str(error),
        }

        async def body(work: PolarisUnitOfWork) -> None:
            await work.documents.put_document(UNPUBLISHED, str(entry.sequence), document)
            await work.outbox.mark_published([entry.sequence])

        await self._store.in_unit_of_work(body, engine=self._store.documents.engine)
        self._logger.error(
            "outbox entry cannot be published and is put aside",
            sequence=entry.sequence,
            event_type=entry.event_type,
            collection=UNPUBLISHED,
            code=error.code,
        )
