"""What was not well, from when to when, kept in the store: a fault that is over can still be looked at."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
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
from polaris.runtime._health_courses import Courses, OnPeriod
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
MESSAGE_CHARS_MAX = 1_000
LASTING_MAX = 10_000
"""Held in memory, and as many that wait for the store."""
OF_ONE_MAX = 500
"""Of one component or system: what comes and goes for ever must not push out all others."""
OF_ONE_LOOK = 50
"""Periods of one, between two looks whether these are too many."""
ALWAYS = Always()


class HealthHistory:
    """Notes what begins not to be well and what is over, and stores it once a second.

    A *period* is a time in which a component or a managed system was not well; its status and reason are the worst of
    it, and what comes back within 30 s goes on. Health itself leaves no trace. Of the periods that are over, at most
    `kept_max` are kept, and each for so many days; those that last stay. While the store is away they wait, so that its
    own trouble is told afterwards. What lasts when a node stops is *cut off*: for components it ends with the node, or
    after a kill when it starts again; that of a system goes on if the node is back before the system would be stale.

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
        self._components, self._systems = (Courses(self._told, self._admits) for _ in range(2))
        self._knows_systems = self._stopped = self._failing = self._is_full = False
        self._waiting: dict[str, HealthPeriod] = {}
        self._counted: Counter[str] = Counter()
        self._crowded: set[str] = set()
        self._flushing = asyncio.Lock()

    def on_period(self, listener: OnPeriod) -> None:
        """Call `listener` with every period that begins, grows worse, comes back or is over."""
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
        self._components.end_all(self._clock.now(), cut_off=True)
        await self.flush()

    def note_component(self, view: ComponentView) -> None:
        """How a part of the node does now."""
        if self._stopped:
            return
        name, at = view.name, view.since or self._clock.now()
        new = None
        if view.status not in WELL_STATUSES:
            new = self._period(view.status, at, view.message, component=name, remedy=view.remedy)
        self._components.note(name, new, at)

    def note_state(self, state: SystemState) -> None:
        """The newest state of a managed system."""
        system_id = state.system_id
        status = None if state.health_status in WELL_STATUSES else state.health_status
        if self._systems.says_nothing_new(system_id, status) or not self._takes_systems():
            return
        # What was kept back somewhere comes with the times at which it was taken: until now nobody knew of it.
        is_late = self._systems.is_silent(system_id) or CLOCK_AHEAD_KEY in state.metadata
        at = self._clock.now() if is_late else state.timestamp
        new = None if status is None else self._period(status, at, reasons_of(state), system=system_id)
        self._systems.note(system_id, new, at)

    def note_gap(self, system_id: str, until: datetime) -> None:
        """Nobody has looked at a managed system until now: what lasted before is cut off."""
        if self._takes_systems() and not self._systems.is_silent(system_id):
            self._systems.end(system_id, until, cut_off=True)

    def note_silence(self, system_id: str, since: datetime | None, message: str = "") -> None:
        """A managed system of which nothing has come since then; None when it was heard of lately."""
        if self._systems.is_silent(system_id) is (since is not None) or not self._takes_systems():
            return
        if since is None:
            self._systems.end(system_id, self._clock.now())
        else:
            new = self._period(HealthStatus.UNKNOWN, since, message, system=system_id, remedy=OF_SILENCE)
            self._systems.note(system_id, new, since)

    def _takes_systems(self) -> bool:
        return self._knows_systems and self._turn.is_held and not self._stopped

    def _period(
        self,
        status: HealthStatus,
        since: datetime,
        message: str,
        *,
        component: str | None = None,
        system: str | None = None,
        remedy: str = OF_SYSTEMS,
    ) -> HealthPeriod:
        if component is not None and component.startswith(CONNECTOR):
            system = component.removeprefix(CONNECTOR)
        return HealthPeriod(
            period_id=new_id(),
            component=component,
            system_id=system,
            node=self._node,
            status=status,
            message=redact_text(message)[:MESSAGE_CHARS_MAX],
            remedy=remedy,
            since=since,
        )

    def _admits(self, begun: HealthPeriod) -> bool:
        is_full = max(len(self._components), len(self._systems), len(self._waiting)) >= LASTING_MAX
        if is_full and not self._is_full:
            self._logger.warning("what begins not to be well is not noted: too much lasts", most=LASTING_MAX)
        self._is_full = is_full
        subject = subject_of(begun)
        self._counted[subject] += not is_full
        if self._counted[subject] >= OF_ONE_LOOK:
            del self._counted[subject]
            self._crowded.add(subject)
        return not is_full

    def _told(self, period: HealthPeriod) -> None:
        self._waiting[period.period_id] = period
        for listener in self._listeners:
            listener(period)

    async def _flush_for_ever(self) -> None:
        flushes = 0
        while True:
            await self._clock.sleep(FLUSH_EVERY_S)
            await self._follow_turn()
            await self.flush()
            for courses in (self._components, self._systems):
                courses.forget(self._clock.now())
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
        self._systems.forget()
        self._knows_systems = False
        if not self._turn.is_held:
            return
        query = {"until_us": LASTING_US, "component": None}
        for one in await self._documents.find_documents(PERIODS, query, LASTING_MAX, sort="since_us"):
            period = period_of(one)
            self._systems.go_on_with(period.system_id or "", period)
        self._knows_systems = True

    async def periods(
        self, wanted: PeriodFilter, *, limit: int, before: PeriodKey | None
    ) -> Sequence[tuple[PeriodKey, HealthPeriod]]:
        return await find_periods(self._documents, wanted, limit=limit, before=before)
