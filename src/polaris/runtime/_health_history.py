"""What was not well, from when to when, kept in the store: a fault that is over can still be looked at."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from polaris._redaction import redact_text
from polaris.api._history_view import HealthPeriod, PeriodFilter, PeriodKey
from polaris.api._view import ComponentView, reasons_of
from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import HealthStatus, SystemState
from polaris.exceptions import PolarisException
from polaris.ids import new_id
from polaris.runtime._health import WELL_STATUSES, HealthBoard
from polaris.runtime._health_periods import (
    LASTING_US,
    PERIODS,
    document_of,
    find_periods,
    microseconds,
    period_of,
    subject_of,
)
from polaris.runtime._ingest import CLOCK_AHEAD_KEY
from polaris.runtime._lease import Always, Turn
from polaris.runtime._remedies import CONNECTOR, OF_SILENCE, OF_SYSTEMS
from polaris.runtime._supervision import Supervisor

if TYPE_CHECKING:
    from polaris.observability import StructuredLogger
    from polaris.storage import PolarisDataStore

NAME = "health history"
FLUSH_EVERY_S = 1.0
PRUNE_EVERY = 60
"""Flushes, between two looks whether there is too much."""
LASTING_MAX = 10_000
"""Held in memory, and as many that wait for the store."""
OF_ONE_MAX = 500
"""Of one component or system: what comes and goes for ever must not push out all others."""
OF_ONE_LOOK = 50
"""Periods of one, between two looks whether these are too many."""
MESSAGE_CHARS_MAX = 1_000
ALWAYS = Always()

OnPeriod = Callable[[HealthPeriod], None]


class HealthHistory:
    """Notes what begins not to be well and what is over, and stores it once a second.

    A *period* is a time in which a component or a managed system had one status that is not well; health itself leaves
    no trace. Of the periods that are over, at most `kept_max` are kept, and each for so many days; those that last
    stay. While the store is away they wait, so that its own trouble is told afterwards. What was lasting when a node
    stopped is *cut off*: for components it ends with the node, or after a kill when it starts again; a system goes on.

    Of several nodes on one store each notes its own components, and the one that has the `turn` the systems.
    """

    def __init__(
        self,
        store: PolarisDataStore,
        board: HealthBoard,
        logger: StructuredLogger,
        *,
        node: str,
        kept_max: int,
        kept_days: float,
        is_alone: bool = True,
        turn: Turn = ALWAYS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._documents = store.documents
        self._board = board
        self._supervisor = Supervisor(board, logger, clock=clock)
        self._logger = logger
        self._node = node
        self._kept_max, self._kept = kept_max, timedelta(days=kept_days)
        self._is_alone = is_alone
        self._turn = turn
        self._clock = clock
        self._listeners: list[OnPeriod] = []
        # By the name of the component, and by the id of the system.
        self._of_components: dict[str, HealthPeriod] = {}
        self._of_systems: dict[str, HealthPeriod] = {}
        self._knows_systems = self._stopped = self._failing = self._is_full = False
        self._waiting: dict[str, HealthPeriod] = {}
        self._begun: Counter[str] = Counter()
        self._crowded: set[str] = set()
        self._flushing = asyncio.Lock()

    def on_period(self, listener: OnPeriod) -> None:
        """Call `listener` with every period that begins or is over."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Take over what lasted when the node stopped, then note what the board and others tell."""
        for field in ("since_us", "until_us"):
            await self._documents.create_index(PERIODS, [field])
        await self._take_over_components()
        await self._follow_turn()
        for view in self._board.components():
            self.note_component(view)
        self._board.on_change(self.note_component)
        self._supervisor.run(NAME, self._flush_for_ever)

    async def stop(self) -> None:
        """Cut off what lasts of the node, store what waits, if the store takes it, and end."""
        self._stopped = True
        await self._supervisor.stop()
        for name in list(self._of_components):
            self._end(self._of_components, name, self._clock.now(), cut_off=True)
        await self.flush()

    def note_component(self, view: ComponentView) -> None:
        """How a part of the node does now."""
        if self._stopped:
            return
        status = None if view.status in WELL_STATUSES else view.status
        lasting = self._of_components.get(view.name)
        if lasting is not None and lasting.status is status:
            if view.message and not lasting.message:
                self._of_components[view.name] = self._told(_with_words(lasting, view.message))
            return
        at = view.since or self._clock.now()
        self._end(self._of_components, view.name, at)
        if status is not None:
            system_id = view.name.removeprefix(CONNECTOR) if view.name.startswith(CONNECTOR) else None
            facts = {"component": view.name, "system_id": system_id, "remedy": view.remedy}
            self._begin(self._of_components, view.name, status, at, view.message, facts)

    def note_state(self, state: SystemState) -> None:
        """The newest state of a managed system."""
        status = None if state.health_status in WELL_STATUSES else state.health_status
        lasting = self._of_systems.get(state.system_id)
        if (None if lasting is None else lasting.status) is status or not self._takes_systems():
            return
        was_silent = lasting is not None and lasting.status is HealthStatus.UNKNOWN
        # What was kept back somewhere comes with the times at which it was taken: until now nobody knew of it.
        at = self._clock.now() if was_silent or CLOCK_AHEAD_KEY in state.metadata else state.timestamp
        self._end(self._of_systems, state.system_id, at)
        if status is not None:
            facts = {"system_id": state.system_id, "remedy": OF_SYSTEMS}
            self._begin(self._of_systems, state.system_id, status, at, reasons_of(state), facts)

    def note_silence(self, system_id: str, since: datetime | None, message: str = "") -> None:
        """A managed system of which nothing has come since then; None when it was heard of lately."""
        lasting = self._of_systems.get(system_id)
        is_silent = lasting is not None and lasting.status is HealthStatus.UNKNOWN
        if is_silent is (since is not None) or not self._takes_systems():
            return
        self._end(self._of_systems, system_id, since or self._clock.now())
        if since is not None:
            facts = {"system_id": system_id, "remedy": OF_SILENCE}
            self._begin(self._of_systems, system_id, HealthStatus.UNKNOWN, since, message, facts)

    def _takes_systems(self) -> bool:
        return self._knows_systems and self._turn.is_held and not self._stopped

    def _begin(
        self,
        lasting: dict[str, HealthPeriod],
        name: str,
        status: HealthStatus,
        at: datetime,
        message: str,
        facts: Mapping[str, Any],
    ) -> None:
        if len(lasting) >= LASTING_MAX or len(self._waiting) >= LASTING_MAX:
            if not self._is_full:
                self._logger.warning("what begins not to be well is not noted: too much lasts", most=LASTING_MAX)
            self._is_full = True
            return
        self._is_full = False
        begun = HealthPeriod(period_id=new_id(), node=self._node, status=status, since=at, **facts)
        lasting[name] = self._told(_with_words(begun, message))
        subject = subject_of(begun)
        self._begun[subject] += 1
        if self._begun[subject] >= OF_ONE_LOOK:
            del self._begun[subject]
            self._crowded.add(subject)

    def _end(self, lasting: dict[str, HealthPeriod], name: str, at: datetime, *, cut_off: bool = False) -> None:
        period = lasting.pop(name, None)
        if period is not None:
            self._told(msgspec.structs.replace(period, until=max(at, period.since), cut_off=cut_off))

    def _told(self, period: HealthPeriod) -> HealthPeriod:
        self._waiting[period.period_id] = period
        for listener in self._listeners:
            listener(period)
        return period

    async def _flush_for_ever(self) -> None:
        flushes = 0
        while True:
            await self._clock.sleep(FLUSH_EVERY_S)
            await self._follow_turn()
            await self.flush()
            flushes += 1
            if not self._failing and (flushes % PRUNE_EVERY == 0 or self._crowded):
                await self.prune()

    async def flush(self) -> None:
        """Store what waits now; when the store does not take it, it goes on waiting. Raises nothing of the store."""
        async with self._flushing:
            waiting = dict(self._waiting)
            if not waiting:
                return
            try:
                # Put, not inserted: whether the write before was done may be unknown.
                await self._documents.put_documents(PERIODS, [document_of(one) for one in waiting.values()])
            except PolarisException as error:
                if not self._failing:
                    self._logger.warning("changes of health are not kept for now", exc_info=error)
                self._failing = True
                return
            self._failing = False
            for period_id, period in waiting.items():
                if self._waiting.get(period_id) is period:
                    del self._waiting[period_id]

    async def prune(self) -> None:
        """Delete what is too old, and the oldest of what is too much; nothing that lasts."""
        old = {"until_us": {"$lt": microseconds(self._clock.now() - self._kept)}}
        await self._documents.delete_documents(PERIODS, old)
        while self._crowded:
            await self._thin_out({"subject": self._crowded.pop()}, OF_ONE_MAX)
        await self._thin_out({}, self._kept_max)

    async def _thin_out(self, query: Mapping[str, Any], most: int) -> None:
        over = {**query, "until_us": {"$lt": LASTING_US}}
        excess = await self._documents.count(PERIODS, over) - most
        if excess > 0:
            oldest = await self._documents.find_documents(
                PERIODS, over, min(excess, 1_000), sort="since_us", fields=["since_us"]
            )
            await self._documents.delete_documents(PERIODS, {"_id": {"$in": [one["_id"] for one in oldest]}})

    async def _take_over_components(self) -> None:
        now = self._clock.now()
        query = {"until_us": LASTING_US, "component": {"$ne": None}}
        for one in await self._documents.find_documents(PERIODS, query, LASTING_MAX):
            period = period_of(one)
            if self._is_alone or period.node == self._node:
                self._told(msgspec.structs.replace(period, until=max(now, period.since), cut_off=True))

    async def _follow_turn(self) -> None:
        """Begin with the systems when it is this node's turn, from what the one before has noted."""
        if self._turn.is_held is self._knows_systems:
            return
        self._of_systems.clear()
        self._knows_systems = False
        if not self._turn.is_held:
            return
        query = {"until_us": LASTING_US, "component": None}
        for one in await self._documents.find_documents(PERIODS, query, LASTING_MAX, sort="since_us"):
            period = period_of(one)
            self._end(self._of_systems, period.system_id or "", period.since)
            self._of_systems[period.system_id or ""] = period
        self._knows_systems = True

    async def periods(
        self, wanted: PeriodFilter, *, limit: int, before: PeriodKey | None
    ) -> Sequence[tuple[PeriodKey, HealthPeriod]]:
        return await find_periods(self._documents, wanted, limit=limit, before=before)


def _with_words(period: HealthPeriod, message: str) -> HealthPeriod:
    return msgspec.structs.replace(period, message=redact_text(message)[:MESSAGE_CHARS_MAX])
