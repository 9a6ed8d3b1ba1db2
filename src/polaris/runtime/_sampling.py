"""Samples managed systems at their intervals and publishes what was read, also what was read while the bus was away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from polaris._correlation import new_correlation_id
from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import HealthStatus, SystemState, TelemetryEvent
from polaris.exceptions import ConnectorError, MessageBusError, PolarisException
from polaris.ids import new_id
from polaris.observability import TraceContext, trace_scope
from polaris.observability._conventions import COLLECT
from polaris.resilience import RetryConfig, RetryPolicy, Timeout
from polaris.runtime._connection import Connection
from polaris.runtime._health import HealthBoard
from polaris.runtime._sample_account import SampleAccount
from polaris.runtime._settings import SystemSettings
from polaris.runtime._supervision import Supervisor
from polaris.runtime._traces import Traces

if TYPE_CHECKING:
    from polaris.messaging import PolarisMessageBus
    from polaris.observability import Instruments, StructuredLogger

SCORES = {
    HealthStatus.HEALTHY: 1.0,
    HealthStatus.WARNING: 0.75,
    HealthStatus.CRITICAL: 0.25,
    HealthStatus.UNHEALTHY: 0.0,
}
"""The health score of a system that says how it does; what it does not know is no score."""
RECONNECT_AFTER_FAILURES = 3
PUBLISH_TIMEOUT_S = 60.0
"""Long: what waits inside the bus leaves the moment the broker is back, what sleeps here later."""
# A sample is published again, with its own id, until the bus confirms or refuses it.
UNTIL_CONFIRMED = RetryConfig(
    max_attempts=1_000_000_000,
    base_delay=0.25,
    max_delay=5.0,
    jitter="equal",
    retryable=(MessageBusError,),
)


class SystemSampler:
    """The pull side of one managed system.

    Ticks are fixed in time: a slow sample delays itself, not the ticks after it; ticks that passed meanwhile are left
    out. A sample that cannot be taken is a gap, never a repeated or zero value. Samples wait in a bounded buffer while
    the bus is away (the oldest go first, counted) and are repeated with their own event id, so none is stored twice.
    """

    def __init__(
        self,
        connection: Connection,
        settings: SystemSettings,
        bus: PolarisMessageBus,
        board: HealthBoard,
        instruments: Instruments,
        logger: StructuredLogger,
        *,
        buffer_max: int,
        source: str,
        traces: Traces | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._connection = connection
        self.system_id = connection.connector.system_id
        self.component = f"connector:{self.system_id}"
        self._settings = settings
        self._connector = settings.connector
        self._bus = bus
        self._board = board
        self._logger = logger.bind(system_id=self.system_id)
        self._clock = clock
        self._source = source
        self._traces = traces or Traces()
        self._timeout = Timeout(settings.timeout_s, name=f"sample {self.system_id}")
        self._until_confirmed = RetryPolicy(UNTIL_CONFIRMED, clock=clock)
        self._buffer: asyncio.Queue[tuple[TelemetryEvent, TraceContext | None]] = asyncio.Queue(buffer_max)
        self._failures = 0
        self._polled = instruments.connector_polls
        self._health_score = instruments.health_score
        self._seconds = instruments.connector_poll_seconds(settings.connector)
        self._on_its_way = 0
        self.account = SampleAccount(self.system_id, instruments, lambda: self._buffer.qsize() + self._on_its_way)

    async def sample_for_ever(self) -> None:
        """Take a sample at every tick until cancelled. The connection stays open: actions may still need it."""
        while True:
            begun = self._clock.monotonic()
            await self._tick()
            spent = self._clock.monotonic() - begun
            interval = self._settings.interval_s
            # The next tick of the fixed grid: ticks that a slow sample ran over are left out.
            await self._clock.sleep(interval - spent % interval)

    async def _tick(self) -> None:
        recorder, began_ns = self._traces.recorder, time.time_ns()
        position: TraceContext | None = None
        recorded = recorder.sampler.sample()
        try:
            if recorded:
                await recorder.prepare()
                with recorder.root_span(COLLECT, system_id=self.system_id, connector=self._connector) as position:
                    state = await self._sample()
            else:
                state = await self._sample()
        except PolarisException as error:
            await self._failed(error, None if recorded else began_ns)
            return
        except Exception as error:  # boundary: a connector may be anybody's code, and its failure is a gap
            failure = ConnectorError(f"{type(error).__name__}: {error}", cause=error)
            await self._failed(failure, None if recorded else began_ns)
            return
        if self._failures or self._board.get(self.component) is None:
            self._board.report(self.component, HealthStatus.HEALTHY)
        self._failures = 0
        self._polled(self.system_id, "success").inc()
        event = TelemetryEvent(state, source=self._source, correlation_id=new_correlation_id())
        self._traces.note_sample(event, position)
        self._keep(event, position)

    async def _sample(self) -> SystemState:
        begun = self._clock.monotonic()
        state = await self._timeout.execute(self._collect, f"sample {self.system_id}")
        if (score := SCORES.get(state.health_status)) is not None:
            self._health_score(self.system_id).set(score)
        self._seconds.observe(max(0.0, self._clock.monotonic() - begun))
        return state

    async def _collect(self) -> SystemState:
        connector = await self._connection.open()
        return await connector.collect_metrics()

    async def _failed(self, error: PolarisException, unrecorded_since_ns: int | None) -> None:
        self._failures += 1
        if unrecorded_since_ns is not None:
            self._traces.failed(COLLECT, new_id(), error, unrecorded_since_ns, system_id=self.system_id)
        self._polled(self.system_id, "failure").inc()
        self._board.report(self.component, HealthStatus.UNHEALTHY, f"no sample: {error.message}")
        if self._failures == 1:
            self._logger.warning("sample could not be taken", exc_info=error)
        if self._failures % RECONNECT_AFTER_FAILURES == 0:
            await self._connection.renew()

    def _keep(self, event: TelemetryEvent, position: TraceContext | None) -> None:
        if self._buffer.full():
            self._buffer.get_nowait()
            self._buffer.task_done()
            self.account.dropped("buffer_full")
        self.account.sampled()
        self._buffer.put_nowait((event, position))

    async def publish_for_ever(self) -> None:
        """Publish what was sampled, in order, until cancelled."""
        while True:
            event, position = await self._buffer.get()
            self._on_its_way = 1
            try:
                await self._until_confirmed.execute(partial(self._publish, event, position), "publish sample")
                self._on_its_way = 0
                self.account.confirmed()
            except PolarisException as error:
                self._on_its_way = 0
                self.account.dropped("refused")
                self._logger.exception("sample refused by the bus", reason=error.message)
            finally:
                self._buffer.task_done()

    async def _publish(self, event: TelemetryEvent, position: TraceContext | None) -> None:
        with nullcontext() if position is None else trace_scope(position):
            await self._bus.publish_telemetry(event, timeout_s=PUBLISH_TIMEOUT_S)

    async def published(self) -> None:
        """Wait until the bus has confirmed everything that was sampled."""
        await self._buffer.join()

    def give_up(self) -> None:
        """Count the samples that the bus has not confirmed: nobody will publish them any more."""
        lost = self.account.waiting
        while not self._buffer.empty():
            self._buffer.get_nowait()
        self._on_its_way = 0
        if lost:
            self.account.dropped("stopped", lost)
            self._logger.warning("samples were not confirmed before the stop", samples=lost)


class Sampling:
    """The samplers of all managed systems, as one service."""

    def __init__(
        self, samplers: Sequence[SystemSampler], board: HealthBoard, logger: StructuredLogger, *, drain_s: float
    ) -> None:
        self.samplers = tuple(samplers)
        self._taking = Supervisor(board, logger)
        self._publishing = Supervisor(board, logger)
        self._drain_s = drain_s

    async def start(self) -> None:
        """Begin to sample every system."""
        for sampler in self.samplers:
            self._publishing.run(f"publish samples of {sampler.system_id}", sampler.publish_for_ever)
            self._taking.run(f"sample {sampler.system_id}", sampler.sample_for_ever)

    async def stop(self) -> None:
        """Take no more samples, and give the bus a moment to confirm those taken."""
        await self._taking.stop()
        try:
            async with asyncio.timeout(self._drain_s):
                await asyncio.gather(*(sampler.published() for sampler in self.samplers))
        except TimeoutError:
            for sampler in self.samplers:
                sampler.give_up()
        finally:
            await self._publishing.stop()
