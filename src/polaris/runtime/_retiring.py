"""Has old telemetry retired where the engine does not do so by itself, and expired documents removed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.runtime._health import HealthBoard
from polaris.runtime._supervision import Supervisor
from polaris.storage._capabilities import CAPABILITIES

if TYPE_CHECKING:
    from polaris.observability import StructuredLogger
    from polaris.storage import PolarisDataStore

NAME = "retention"
INTERVAL_S = 600.0
"""Between two looks, of which a quarter is drawn: several nodes on one database do not come in step."""


class Retiring:
    """Applies the retention policies of a store and removes its expired documents, now and then.

    In short transactions; several nodes may do so at once.
    """

    def __init__(
        self,
        store: PolarisDataStore,
        board: HealthBoard,
        logger: StructuredLogger,
        *,
        interval_s: float = INTERVAL_S,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._store = store
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
        series = self._store.time_series
        known = CAPABILITIES.get(series.engine.name)
        by_itself = known is not None and known.retires_by_itself
        while True:
            for collection in [] if by_itself else await series.list_collections():
                self.points_retired += await series.apply_retention(collection)
            self.documents_expired += await self._store.documents.purge_expired()
            await self._clock.sleep(self._interval_s * self._draw.uniform(0.75, 1.0))
