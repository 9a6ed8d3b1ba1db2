"""What the parts of a node know of themselves as metrics, and the series that are there before anything happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import GCCollector, ProcessCollector

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import ExecutionStatus, HealthStatus
from polaris.exceptions import PolarisException
from polaris.messaging import DeadLetterReason
from polaris.observability import StructuredLogger
from polaris.runtime._supervision import Supervisor

if TYPE_CHECKING:
    from polaris.api._view import ComponentView
    from polaris.observability import MetricsCollector
    from polaris.runtime._actions import ActionService
    from polaris.runtime._bus_host import BusHost
    from polaris.runtime._connection import Connections
    from polaris.runtime._health import HealthBoard
    from polaris.runtime._place import Place
    from polaris.runtime._retiring import Retiring
    from polaris.storage import PolarisDataStore

LOOK_EVERY_S = 5.0
HEALTH = {HealthStatus.HEALTHY: 1.0, HealthStatus.WARNING: 0.5, HealthStatus.UNKNOWN: -1.0}
TOPICS = ("polaris.telemetry.*", "polaris.adaptations.*", "polaris.executions.*", "polaris.health.*")


class NodeMetrics:
    """Reads leases, outbox, restarts, retention, health and running actions for whoever scrapes.

    Every series that can be told before (systems and their actions by outcome, dead letters by reason) is there from
    the start with 0, so that a rate over the first event is a rate and no gap.
    """

    def __init__(
        self,
        metrics: MetricsCollector,
        board: HealthBoard,
        connections: Connections,
        store: PolarisDataStore,
        place: Place,
        retiring: Retiring,
        actions: ActionService,
        host: BusHost | None,
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._metrics = metrics
        self._instruments = instruments = metrics.instruments
        self._outbox = store.outbox
        self._engine = store.documents.engine
        self._clock = clock
        self._supervisor = Supervisor(board, StructuredLogger("polaris.metrics"), clock=clock)
        for collector in (ProcessCollector, GCCollector):
            collector(registry=metrics.registry)
        instruments.lease_held("place").set_function(lambda: place.is_held)
        instruments.lease_held("outbox").set_function(lambda: place.outbox.is_held)
        instruments.lease_held("upkeep").set_function(lambda: place.upkeep.is_held)
        instruments.points_retired().set_function(lambda: retiring.points_retired)
        instruments.documents_expired().set_function(lambda: retiring.documents_expired)
        instruments.actions_running().set_function(lambda: actions.running)
        if host is not None:
            instruments.bus_server_restarts().set_function(lambda: host.restarts_total)
        board.on_restart(lambda name, times: instruments.supervised_restarts(name).inc(times))
        board.on_change(self._note)
        for view in board.components():
            self._note(view)
        self._begin_at_nought(connections)

    def _note(self, view: ComponentView) -> None:
        self._instruments.component_health(view.name).set(HEALTH.get(view.status, 0.0))

    def _begin_at_nought(self, connections: Connections) -> None:
        instruments = self._instruments
        for system_id, connection in connections.by_system.items():
            instruments.connector_polls(system_id, "success")
            instruments.connector_polls(system_id, "failure")
            instruments.telemetry_dropped(system_id, "buffer_full")
            instruments.telemetry_dropped(system_id, "refused")
            instruments.telemetry_dropped(system_id, "stopped")
            for action in connection.connector.supported_actions():
                for outcome in ("success", "failure"):
                    self._metrics.adaptation_count.labels(system_id, action.name, outcome)
                for status in ExecutionStatus:
                    if status.is_final:
                        instruments.loop_latency(action.name, status.value)
                        instruments.action_seconds(action.name, status.value)
        for topic in TOPICS:
            instruments.redeliveries(topic)
            for cause in DeadLetterReason:
                instruments.dead_letters(topic, cause.value)
        instruments.spans_exported("otlp")
        for reason in ("queue_full", "failed", "stopped"):
            instruments.spans_dropped("otlp", reason)

    async def start(self) -> None:
        """Begin to look at what can only be asked for."""
        self._supervisor.run("outbox metrics", self._look_for_ever)

    async def stop(self) -> None:
        """Look no more."""
        await self._supervisor.stop()

    async def _look_for_ever(self) -> None:
        while True:
            await self._look()
            await self._clock.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        waiting = self._instruments.outbox_waiting()
        try:
            waiting.set(await self._outbox.count())
            for name, number in (await self._engine.stats()).items():
                self._instruments.store_stat(name).set(number)
        except PolarisException:
            waiting.set(-1)  # the store does not answer, which its own component tells
