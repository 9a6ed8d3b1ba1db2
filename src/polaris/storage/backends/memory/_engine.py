"""The engine in memory: one session, an undo journal, no threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import HealthStatus
from polaris.exceptions import StoreConnectionError
from polaris.storage._backend import StoreHealth
from polaris.storage._operation import Operation
from polaris.storage._series_limits import SeriesLimits
from polaris.storage.backends.memory._documents import MemoryDocuments
from polaris.storage.backends.memory._graph import MemoryGraph, WalkInTurns
from polaris.storage.backends.memory._journal import Journal
from polaris.storage.backends.memory._outbox import MemoryOutbox
from polaris.storage.backends.memory._timeseries import MemoryTimeSeries
from polaris.storage.backends.shared import RecordingEngine, Step, replay

T = TypeVar("T")


class MemorySession:
    """All models of one engine, sharing one journal."""

    def __init__(self, series_limits: SeriesLimits | None = None) -> None:
        self.journal = Journal()
        self.time_series = MemoryTimeSeries(self.journal, series_limits)
        self.documents = MemoryDocuments(self.journal)
        self.graph = MemoryGraph(self.journal)
        self.outbox = MemoryOutbox(self.journal)


class InMemoryEngine(RecordingEngine):
    """Keeps everything in memory until it is thrown away; disconnecting keeps the content.

    Every operation yields to the event loop once and then runs to its end without interruption, so transactions are
    serial. Large queries hold the event loop for their duration, but for walks over the graph: these give others their
    turn, and whoever wants to write waits until they are done. `series_limits`: how many time series there may be.
    """

    name = "memory"

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK, series_limits: SeriesLimits | None = None) -> None:
        super().__init__(clock=clock)
        self.session = MemorySession(series_limits)
        self._connected = False
        self._commits = 0
        self._walking = asyncio.Lock()
        """Held by a walk over the graph, which gives others their turn on its way, and by whoever changes something."""

    @property
    def is_connected(self) -> bool:
        return self._connected

    async def connect(self) -> None:
        self._connected = True

    async def disconnect(self) -> None:
        self._connected = False

    async def health(self) -> StoreHealth:
        status = HealthStatus.HEALTHY if self._connected else HealthStatus.UNKNOWN
        return StoreHealth(status, self.name, "" if self._connected else "not connected", dict(await self.stats()))

    async def stats(self) -> dict[str, int | float]:
        return {
            "commits": self._commits,
            "series": self.session.time_series.series_count,
            "points": self.session.time_series.points_count,
            "documents": self.session.documents.documents_count,
            "nodes": self.session.graph.nodes_count,
            "outbox": self.session.outbox.count(),
        }

    async def execute(self, operation: Operation[T]) -> T:
        await asyncio.sleep(0)
        if operation.mutates:
            async with self._walking:
                return self._run(lambda: operation.run(self.session), keep=True)
        with self.session.graph.walking_in_turns():
            result = self._run(lambda: operation.run(self.session), keep=False)
        if not isinstance(result, WalkInTurns):
            return result
        async with self._walking:
            walked: T = await result.drive()
            return walked

    async def rehearse(self, steps: Sequence[Step]) -> Any:
        await asyncio.sleep(0)
        return self._run(lambda: replay(self.session, steps), keep=False)

    async def apply(self, steps: Sequence[Step], on_commit: Callable[[], None]) -> None:
        await asyncio.sleep(0)
        async with self._walking:
            self._run(lambda: replay(self.session, steps), keep=True)
            on_commit()

    def _run(self, work: Callable[[], T], *, keep: bool) -> T:
        if not self._connected:
            raise StoreConnectionError("the store is not connected")
        journal = self.session.journal
        waiting = self.session.outbox.added
        try:
            result = work()
        except BaseException:  # boundary: undone, then raised again
            journal.undo()
            raise
        if not keep:
            journal.undo()
            self.session.outbox.added = waiting
            return result
        journal.forget()
        self._commits += 1
        if self.session.outbox.added:
            self.session.outbox.added = False
            self.outbox_changed.set()
        return result
