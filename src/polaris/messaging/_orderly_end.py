"""The end of a subscription's parts: each gets its time, and then is cancelled and left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from polaris.messaging._sources import Source

if TYPE_CHECKING:
    from polaris.observability import StructuredLogger

CANCEL_WAIT_S = 5.0


class OrderlyEnd:
    """Ends what a subscription consists of, within a grace period, and logs what does not end by itself."""

    def __init__(self, name: str, *, grace_s: float, logger: StructuredLogger) -> None:
        self._name = name
        self._grace_s = grace_s
        self._logger = logger

    async def of_source(self, source: Source) -> None:
        """Let go of the source, even if that fails."""
        for step in (source.halt, source.close):
            task = asyncio.ensure_future(step())
            _, late = await asyncio.wait([task], timeout=self._grace_s)
            if late:
                await cancel_all([task])
            elif (error := task.exception()) is not None:
                self._logger.error("the subscription did not end cleanly", subscription=self._name, error=error)

    async def of_workers(self, workers: Collection[asyncio.Task[None]]) -> None:
        """Wait for the workers, which know that it is the end; handlers that run for too long are cancelled."""
        if not workers:
            return
        _, late = await asyncio.wait(workers, timeout=self._grace_s)
        if not late:
            return
        self._logger.warning("handlers ran over the grace period", subscription=self._name, handlers=len(late))
        for worker in late:
            worker.cancel()
        _, stuck = await asyncio.wait(late, timeout=CANCEL_WAIT_S)
        if stuck:
            self._logger.error("handlers ignore their cancellation", subscription=self._name, handlers=len(stuck))


async def cancel_all(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel them and wait until they have ended."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
