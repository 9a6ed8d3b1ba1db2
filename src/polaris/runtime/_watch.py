"""Keeps the board true: asks bus, consumers, store and the event loop how they do, and tells the bus what changed."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from polaris.api._view import ComponentView
from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import HealthEvent, HealthStatus
from polaris.exceptions import MessageBusError, PolarisException
from polaris.messaging import ConnectionState, health_topic
from polaris.resilience import Timeout
from polaris.runtime._absences import Absences
from polaris.runtime._consumers import ASK_TIMEOUT_S, ConsumerWatch
from polaris.runtime._health import HealthBoard
from polaris.runtime._storing import StorageWatch
from polaris.runtime._supervision import Supervisor

if TYPE_CHECKING:
    from polaris.messaging import MessageBroker, PolarisMessageBus, Subscription
    from polaris.observability import Instruments, StructuredLogger
    from polaris.runtime._actions import ActionService
    from polaris.runtime._ingest import TelemetryIngest
    from polaris.runtime._storing import PublishOutcomes
    from polaris.storage import PolarisDataStore

BUS, STORE, INGEST, ACTIONS = "bus", "store", "telemetry ingest", "action path"
LOOK_EVERY_S = 2.0
LAG_EVERY_S = 0.5
LAG_WARNING_S = 0.5
NEWS_MAX = 256
WRITE_CHECKS = "write_checks"
"""The collection of the one document that is written while the store is in trouble."""
LANES_AT_ONCE = 32
"""So many subscriptions of the action path are looked at every time: hundreds of systems must not become a load."""
NAME_CHARS_MAX = 256
"""Of an event's component."""

_OF_STATE = {
    ConnectionState.CONNECTED: (HealthStatus.HEALTHY, ""),
    ConnectionState.RECONNECTING: (HealthStatus.UNHEALTHY, "connection lost, reconnecting"),
    ConnectionState.DISCONNECTED: (HealthStatus.UNHEALTHY, "not connected"),
    ConnectionState.DRAINING: (HealthStatus.WARNING, "draining"),
    ConnectionState.CLOSED: (HealthStatus.UNHEALTHY, "closed"),
}


class Watch:
    """Looks after the essential components every two seconds; the connection to the bus reports by itself, at once.

    What changes is published as a `HealthEvent` when the bus can be reached. Of the bus itself there is nothing to
    publish while it is away: one event, a second or more after it is back, says how long it was.
    """

    def __init__(
        self,
        broker: MessageBroker,
        bus: PolarisMessageBus,
        store: PolarisDataStore,
        board: HealthBoard,
        instruments: Instruments,
        logger: StructuredLogger,
        *,
        ingest: TelemetryIngest,
        actions: ActionService,
        outcomes: PublishOutcomes,
        source: str,
        on_look: Callable[[], None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._broker = broker
        self._bus = bus
        self._store = store
        self._board = board
        self._instruments = instruments
        self._clock = clock
        self._source = source
        self._ingest = ingest
        self._supervisor = Supervisor(board, logger, clock=clock)
        self._limit = Timeout(ASK_TIMEOUT_S)
        self._news: deque[ComponentView] = deque(maxlen=NEWS_MAX)
        self._logger = logger
        self._storage = StorageWatch(broker, board, outcomes, clock=clock)
        self._actions = actions
        self._ingest_watch: ConsumerWatch | None = None
        self._lanes: dict[str, ConsumerWatch] = {}
        self._next_lane = 0
        self._troubled: dict[str, str] = {}
        self._stopped = False
        self._on_look = on_look
        self._absences = Absences(clock=clock)
        self._lag = instruments.event_loop_lag()
        broker.on_state(self._bus_state)
        board.on_change(self._note)

    async def start(self) -> None:
        """Take a first look, then keep looking."""
        self._stopped = False
        self._bus_state(self._broker.state)
        await asyncio.gather(self._look(), self._storage.look())
        self._supervisor.run("watch", self._look_for_ever)
        self._supervisor.run("bus storage watch", self._storage.look_for_ever)
        self._supervisor.run("event loop watch", self._measure_lag_for_ever)

    async def stop(self) -> None:
        """Stop looking; that the bus closes after this is no news."""
        self._stopped = True
        await self._supervisor.stop()

    def _bus_state(self, state: ConnectionState) -> None:
        if self._stopped:
            return
        self._absences.note(state)
        details = {"outages": self._absences.count, "last_outage_s": round(self._absences.last_s, 3)}
        self._board.report(BUS, *_OF_STATE[state], details=details)
        if state is ConnectionState.CONNECTED:
            self._storage.connected_anew()

    async def _look_for_ever(self) -> None:
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            await self._look()
            self._on_look()
            await self._tell_news()

    async def _look(self) -> None:
        await asyncio.gather(self._look_at_store(), self._look_at_ingest(), self._look_at_actions())

    async def _look_at_store(self) -> None:
        try:
            health = await self._limit.execute(self._store.health, "store health")
            if health.status is HealthStatus.UNHEALTHY:
                # It remembers its last write, and nothing may be left to write: without this it would never be well.
                await self._limit.execute(self._write_to_store, "store write")
                health = await self._limit.execute(self._store.health, "store health")
        except PolarisException as error:
            self._board.report(STORE, HealthStatus.UNHEALTHY, error.message)
            return
        self._board.report(STORE, health.status, health.message, details={"engine": health.engine})

    async def _write_to_store(self) -> None:
        await self._store.documents.put_document(WRITE_CHECKS, "watch", {"at": self._clock.now().isoformat()})

    async def _look_at_ingest(self) -> None:
        subscription = self._ingest.subscription
        if subscription is None:
            return
        if self._ingest_watch is None or self._ingest_watch.subscription is not subscription:
            self._ingest_watch = ConsumerWatch(subscription, self._instruments, clock=self._clock)
        found = await self._ingest_watch.look()
        details = {
            "waiting": found.waiting,
            "unacknowledged": found.unacknowledged,
            "handled": subscription.stats.handled,
        }
        status = HealthStatus.UNHEALTHY if found.problem else HealthStatus.HEALTHY
        self._board.report(INGEST, status, found.problem, details=details)

    async def _look_at_actions(self) -> None:
        """Look at some of the action path's subscriptions, the next ones each time, and at those in trouble."""
        subscriptions = {subscription.name: subscription for subscription in self._actions.subscriptions}
        if not subscriptions:
            return
        self._lanes = {name: self._lane(subscription) for name, subscription in subscriptions.items()}
        names = list(self._lanes)
        begin = self._next_lane % len(names)
        chosen = [*names[begin:], *names[:begin]][:LANES_AT_ONCE]
        self._next_lane = begin + len(chosen)
        chosen += [name for name in self._troubled if name in self._lanes and name not in chosen][:LANES_AT_ONCE]
        findings = await asyncio.gather(*(self._lanes[name].look() for name in chosen))
        for name, found in zip(chosen, findings, strict=True):
            if found.problem:
                self._troubled[name] = found.problem
            else:
                self._troubled.pop(name, None)
        self._troubled = {name: problem for name, problem in self._troubled.items() if name in self._lanes}
        problems = [f"{name}: {problem}" for name, problem in sorted(self._troubled.items())]
        message = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        status = HealthStatus.UNHEALTHY if problems else HealthStatus.HEALTHY
        self._board.report(ACTIONS, status, message, details={"subscriptions": len(names), "in trouble": len(problems)})

    def _lane(self, subscription: Subscription) -> ConsumerWatch:
        known = self._lanes.get(subscription.name)
        if known is not None and known.subscription is subscription:
            return known
        return ConsumerWatch(subscription, self._instruments, busy_is_progress=True, clock=self._clock)

    def _note(self, view: ComponentView) -> None:
        # That it is away cannot be told, and that it is back is told by `_tell_absences`.
        if view.name != BUS or (not self._absences.count and view.status is HealthStatus.HEALTHY):
            self._news.append(view)

    async def _tell_news(self) -> None:
        """Publish changes of health, as far as the bus takes them; the newest 256 wait while it is away."""
        outages = self._absences.untold()
        if outages is not None:
            if not await self._tell(BUS, HealthStatus.HEALTHY, str(outages)):
                return
            self._absences.told(outages)
        while self._news:
            view = self._news[0]
            if not await self._tell(view.name, view.status, view.message):
                return
            if self._news and self._news[0] is view:
                self._news.popleft()

    async def _tell(self, component: str, status: HealthStatus, message: str) -> bool:
        """Publish one event; False when the bus cannot take it now."""
        try:
            name = _telling_name(component)
            event = HealthEvent(name, status, message[:1000], source=self._source)
            await self._bus.publish(health_topic(name), event, timeout_s=ASK_TIMEOUT_S)
        except PolarisException as error:
            if isinstance(error, MessageBusError) and error.retryable is not False:
                return False
            # News that cannot be told must not keep back those behind it.
            self._logger.warning("a change of health cannot be published", component=component, exc_info=error)
        return True

    async def _measure_lag_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            lag_s = max(0.0, loop.time() - due)
            self._lag.observe(lag_s)
            if lag_s > LAG_WARNING_S:
                self._board.report("event loop", HealthStatus.WARNING, f"was blocked for {lag_s:.1f} s")
            else:
                self._board.report("event loop", HealthStatus.HEALTHY)


def _telling_name(component: str) -> str:
    """The name of a component in an event: itself, or its begin and a digest of the whole where that is too long."""
    if len(component) <= NAME_CHARS_MAX:
        return component
    digest = hashlib.sha256(component.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"{component[: NAME_CHARS_MAX - 17]}~{digest}"
