"""Keeps the board true: asks bus, consumers, store and the event loop how they do, and tells the bus what changed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from polaris.api._view import ComponentView
from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import HealthEvent, HealthStatus
from polaris.exceptions import MessageBusError, PolarisException
from polaris.messaging import ConnectionState, health_topic
from polaris.resilience import Timeout
from polaris.runtime._health import HealthBoard
from polaris.runtime._supervision import Supervisor

if TYPE_CHECKING:
    from polaris.messaging import MessageBroker, PolarisMessageBus
    from polaris.observability import Instruments, StructuredLogger
    from polaris.runtime._ingest import TelemetryIngest
    from polaris.storage import PolarisDataStore

BUS, STORE, INGEST = "bus", "store", "telemetry ingest"
LOOK_EVERY_S = 2.0
LAG_EVERY_S = 0.5
LAG_WARNING_S = 0.5
ASK_TIMEOUT_S = 5.0
NEWS_MAX = 256
# A consumer with messages waiting that has handled none for this many looks is deaf or stuck.
STILL_LOOKS_MAX = 5

_OF_STATE = {
    ConnectionState.CONNECTED: (HealthStatus.HEALTHY, ""),
    ConnectionState.RECONNECTING: (HealthStatus.UNHEALTHY, "connection lost, reconnecting"),
    ConnectionState.DISCONNECTED: (HealthStatus.UNHEALTHY, "not connected"),
    ConnectionState.DRAINING: (HealthStatus.WARNING, "draining"),
    ConnectionState.CLOSED: (HealthStatus.UNHEALTHY, "closed"),
}


class Watch:
    """Looks after the essential components every two seconds; the connection to the bus reports by itself, at once."""

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
        self._handled, self._still = -1, 0
        self._stopped = False
        self._on_look = on_look
        self._connected = instruments.broker_connected("nats")
        self._lag = instruments.event_loop_lag()
        broker.on_state(self._bus_state)
        board.on_change(self._news.append)

    async def start(self) -> None:
        """Take a first look, then keep looking."""
        self._stopped = False
        self._bus_state(self._broker.state)
        await self._look()
        self._supervisor.run("watch", self._look_for_ever)
        self._supervisor.run("event loop watch", self._measure_lag_for_ever)

    async def stop(self) -> None:
        """Stop looking; that the bus closes after this is no news."""
        self._stopped = True
        await self._supervisor.stop()

    def _bus_state(self, state: ConnectionState) -> None:
        if self._stopped:
            return
        self._connected.set(1.0 if state is ConnectionState.CONNECTED else 0.0)
        self._board.report(BUS, *_OF_STATE[state])

    async def _look_for_ever(self) -> None:
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            await self._look()
            self._on_look()
            await self._tell_news()

    async def _look(self) -> None:
        await self._look_at_store()
        await self._look_at_ingest()

    async def _look_at_store(self) -> None:
        try:
            health = await self._limit.execute(self._store.health, "store health")
        except PolarisException as error:
            self._board.report(STORE, HealthStatus.UNHEALTHY, error.message)
            return
        self._board.report(STORE, health.status, health.message, details={"engine": health.engine})

    async def _look_at_ingest(self) -> None:
        subscription = self._ingest.subscription
        if subscription is None:
            return
        try:
            info = await self._limit.execute(subscription.info, "consumer info")
        except PolarisException as error:
            self._board.report(INGEST, HealthStatus.UNHEALTHY, f"its consumer does not answer: {error.message}")
            return
        if info is None or not subscription.active:
            self._board.report(INGEST, HealthStatus.UNHEALTHY, "takes no messages")
            return
        self._instruments.consumer_pending(subscription.name).set(info.pending)
        self._instruments.consumer_unacked(subscription.name).set(info.ack_pending)
        handled = subscription.stats.handled
        waiting = info.pending + info.ack_pending
        self._still = self._still + 1 if waiting and handled == self._handled else 0
        self._handled = handled
        details = {"waiting": info.pending, "unacknowledged": info.ack_pending, "handled": handled}
        if self._still >= STILL_LOOKS_MAX:
            seconds = self._still * LOOK_EVERY_S
            message = f"{waiting} messages wait and none was handled for {seconds:.0f} s"
            self._board.report(INGEST, HealthStatus.UNHEALTHY, message, details=details)
        else:
            self._board.report(INGEST, HealthStatus.HEALTHY, details=details)

    async def _tell_news(self) -> None:
        """Publish changes of health, as far as the bus takes them; the newest 256 wait while it is away."""
        while self._news:
            view = self._news[0]
            event = HealthEvent(view.name, view.status, view.message[:1000], source=self._source)
            try:
                await self._bus.publish(health_topic(view.name), event, timeout_s=ASK_TIMEOUT_S)
            except MessageBusError:
                return
            if self._news and self._news[0] is view:
                self._news.popleft()

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
