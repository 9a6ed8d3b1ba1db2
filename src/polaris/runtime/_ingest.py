"""The telemetry path: from the bus into the store in batches, each sample once, acknowledged after the commit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from copy import copy
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import PolarisEvent, SystemState, TelemetryBatch, TelemetryEvent
from polaris.exceptions import SeriesLimitError
from polaris.messaging import RedeliveryPolicy
from polaris.observability._conventions import STORE_WRITE
from polaris.resilience import RetryPolicy
from polaris.runtime._patience import DELIVERIES_MAX, REDELIVERY_AFTER_S, UNTIL_STORED
from polaris.runtime._settings import TelemetrySettings
from polaris.runtime._traces import Traces

if TYPE_CHECKING:
    from polaris.messaging import PolarisMessageBus, Subscription
    from polaris.observability import MetricsCollector, StructuredLogger
    from polaris.storage import PolarisDataStore

OnStates = Callable[[Sequence[SystemState]], None]

CLOCK_AHEAD_KEY = "polaris.clock_ahead_s"
CAUSES_MAX = 10_000
DURABLE = "store-telemetry"


class TelemetryIngest:
    """Writes telemetry as it comes: many events in one transaction, acknowledged when that is durable.

    The write is idempotent (one row a system and timestamp), so a redelivered event changes nothing. A sample whose
    timestamp is ahead of this machine's clock by more than the tolerance is kept and marked with
    `metadata["polaris.clock_ahead_s"]`. While the store is away, what was taken waits for it, and the rest in the
    stream; nothing is put aside for that.

    An event that would make more series than the store may have is put aside as a dead letter, alone: the rest of its
    batch is stored. It can be replayed once there is room.
    """

    def __init__(
        self,
        bus: PolarisMessageBus,
        store: PolarisDataStore,
        settings: TelemetrySettings,
        metrics: MetricsCollector,
        logger: StructuredLogger,
        *,
        on_states: OnStates,
        sees_everything: bool = True,
        traces: Traces | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._bus = bus
        self._states = store.states
        self._engine = store.time_series.engine.name
        self._traces = traces or Traces()
        self._settings = settings
        self._metrics = metrics
        self._logger = logger
        self._on_states = on_states
        self._sees_everything = sees_everything
        self._clock = clock
        self._until_stored = RetryPolicy(UNTIL_STORED, clock=clock)
        self._tolerance = timedelta(seconds=settings.clock_ahead_tolerance_s)
        self._subscription: Subscription | None = None
        self._causes: OrderedDict[str, datetime] = OrderedDict()
        self._clocks_ahead: set[str] = set()
        # Of calls that were refused for some of their events: by their ids why, or None for those that are stored.
        self._sorted_out: dict[str, SeriesLimitError | None] = {}
        instruments = metrics.instruments
        self._committed = instruments.store_writes("telemetry", "system_states", "committed")
        self._failed = instruments.store_writes("telemetry", "system_states", "failed")
        self._seconds = instruments.store_write_seconds("telemetry")
        self.states_total = 0
        self.values_total = 0

    async def start(self) -> None:
        """Begin to store what comes on `polaris.telemetry.>`; whose it is says the event, not the topic."""
        self._subscription = await self._bus.subscribe(
            "polaris.telemetry.>",
            self._store,
            event_type=(TelemetryEvent, TelemetryBatch),
            durable=DURABLE,
            concurrency=1,
            ack_wait_s=REDELIVERY_AFTER_S,
            handler_timeout_s=None,
            batch_max=self._settings.batch_max,
            batch_linger_s=self._settings.batch_linger_s,
            redelivery=RedeliveryPolicy(max_deliveries=DELIVERIES_MAX),
            # One of several nodes sees only a part, which is full of gaps.
            detect_gaps=self._sees_everything,
        )

    async def stop(self) -> None:
        """Take no more events; what was taken is stored and acknowledged, or comes again."""
        if self._subscription is not None:
            await self._subscription.drain()
            self._subscription = None

    @property
    def subscription(self) -> Subscription | None:
        """The live subscription, None before the start and after the stop."""
        return self._subscription

    def caused_at(self, correlation_id: str | None) -> datetime | None:
        """The timestamp of the telemetry with this correlation id, as far as the last 10 000 are remembered."""
        return None if correlation_id is None else self._causes.get(correlation_id)

    async def _store(self, events: list[PolarisEvent]) -> None:
        # After a call that was refused, the bus asks for its messages one by one, and then for their events.
        known = {one.event_id: self._sorted_out.pop(one.event_id) for one in events if one.event_id in self._sorted_out}
        fresh = [event for event in events if event.event_id not in known]
        for event in fresh:
            self._traces.note_sample(event)
        states = [(event.event_id, self._marked(state)) for event in fresh for state in states_of(event)]
        refused: dict[str, SeriesLimitError] = {}
        stored = await self._store_what_fits(states, refused) if states or not known else []
        self.states_total += len(stored)
        self.values_total += sum(len(state.metrics) for state in stored)
        self._remember_causes([event for event in fresh if event.event_id not in refused])
        self._on_states(stored)
        outcomes = {**known, **{event.event_id: refused.get(event.event_id) for event in fresh}}
        error = next((error for error in outcomes.values() if error is not None), None)
        if error is None:
            return
        if len(events) > 1:
            self._sorted_out.update(outcomes)
            while len(self._sorted_out) > CAUSES_MAX:
                del self._sorted_out[next(iter(self._sorted_out))]
        raise copy(error)

    async def _store_what_fits(
        self, states: Sequence[tuple[str, SystemState]], refused: dict[str, SeriesLimitError]
    ) -> list[SystemState]:
        """Store all, in one transaction if there is room for their series, else in halves; what was stored.

        Notes in `refused` the ids of the events for which there is none.
        """
        chosen = [state for _, state in states]
        try:
            await self._until_stored.execute(lambda: self._write(chosen), "store telemetry")
        except SeriesLimitError as error:
            if len(states) == 1:
                refused[states[0][0]] = error
                self._failed.inc()
                return []
            half = len(states) // 2
            stored = await self._store_what_fits(states[:half], refused)
            return stored + await self._store_what_fits(states[half:], refused)
        return chosen

    async def _write(self, states: Sequence[SystemState]) -> None:
        begun = self._clock.monotonic()
        try:
            with self._traces.recorder.span(
                STORE_WRITE, engine=self._engine, operation="save", collection="system_states", rows=len(states)
            ):
                await self._states.save_many(states)
        except SeriesLimitError:
            raise  # those that are refused are counted when it is known which they are
        except BaseException:  # boundary: undone, then raised again
            self._failed.inc(len(states))
            raise
        self._committed.inc(len(states))
        self._seconds.observe(self._clock.monotonic() - begun)

    def _remember_causes(self, events: Sequence[PolarisEvent]) -> None:
        for event in events:
            if event.correlation_id is not None and isinstance(event, TelemetryEvent):
                self._causes[event.correlation_id] = event.system_state.timestamp
        while len(self._causes) > CAUSES_MAX:
            self._causes.popitem(last=False)

    def _marked(self, state: SystemState) -> SystemState:
        ahead = state.timestamp - self._clock.now()
        if ahead <= self._tolerance:
            self._clocks_ahead.discard(state.system_id)
            return state
        if state.system_id not in self._clocks_ahead and len(self._clocks_ahead) < CAUSES_MAX:
            self._clocks_ahead.add(state.system_id)
            self._logger.warning(
                "the clock of a managed system runs ahead", system_id=state.system_id, ahead_s=ahead.total_seconds()
            )
        self._metrics.instruments.telemetry_clock_ahead(state.system_id).inc()
        metadata = {**state.metadata, CLOCK_AHEAD_KEY: round(ahead.total_seconds(), 3)}
        return msgspec.structs.replace(state, metadata=metadata)


def states_of(event: PolarisEvent) -> Sequence[SystemState]:
    """The states that a telemetry event carries; none for an event of another kind."""
    if isinstance(event, TelemetryEvent):
        return (event.system_state,)
    if isinstance(event, TelemetryBatch):
        return tuple(event.states())
    return ()
