"""Has old telemetry retired where the engine does not do so by itself, and expired documents removed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.runtime._health import HealthBoard
from polaris.runtime._lease import Always, Turn
from polaris.runtime._supervision import Supervisor
from polaris.storage._capabilities import CAPABILITIES

if TYPE_CHECKING:
    from polaris.observability import StructuredLogger
    from polaris.storage import PolarisDataStore

NAME = "retention"
INTERVAL_S = 600.0
"""Between two looks, of which a quarter is drawn: the nodes of several databases do not come in step."""
ALWAYS = Always()


class Retiring:
    """Applies the retention policies of a store and removes its expired documents, now and then.

    In short transactions, by one node of a store at a time: `turn`.
    """

    def __init__(
        self,
        store: PolarisDataStore,
        board: HealthBoard,
        logger: StructuredLogger,
        *,
        turn: Turn = ALWAYS,
        interval_s: float = INTERVAL_S,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._store = store
        self._turn = turn
        self._interval_s = interval_s
        self._clock = clock
        self._supervisor = Supervisor(board, logger, clock=clock)
        self._draw = random.Random()  # noqa: S311 # spreads load, guards nothing
        self.points_retired = 0
        self.documents_expired = 0

    async def start(self) -> None:
        self._supervisor.run(NAME, self._for_ever)

    async def stop(self) -> None:
        await self._supervisor.stop()

    async def _for_ever(self) -> None:
        while True:
            await self._turn.wait()
            if await self._turn.while_held(self._look):
                await self._clock.sleep(self._interval_s * self._draw.uniform(0.75, 1.0))

    async def _look(self) -> None:
        series = self._store.time_series
        known = CAPABILITIES.get(series.engine.name)
        by_itself = known is not None and known.retires_by_itself
        for collection in [] if by_itself else await series.list_collections():
            self.points_retired += await series.apply_retention(collection)
        self.documents_expired += await self._store.documents.purge_expired()
