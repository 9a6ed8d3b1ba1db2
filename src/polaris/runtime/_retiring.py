"""Has old telemetry retired where the engine does not do so by itself."""

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
    """Applies the retention policies of a store now and then in short transactions; several nodes may do so at once."""

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

    async def start(self) -> None:
        engine = self._store.time_series.engine
        known = CAPABILITIES.get(engine.name)
        if known is not None and not known.retires_by_itself:
            self._supervisor.run(NAME, self._for_ever)

    async def stop(self) -> None:
        await self._supervisor.stop()

    async def _for_ever(self) -> None:
        while True:
            for collection in await self._store.time_series.list_collections():
                self.points_retired += await self._store.time_series.apply_retention(collection)
            await self._clock.sleep(self._interval_s * self._draw.uniform(0.75, 1.0))
