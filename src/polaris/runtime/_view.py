"""The running node as the HTTP API sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from polaris._redaction import redact_text
from polaris.api._bus_view import BusView, PublishedView, SubscriptionView
from polaris.api._live import LiveFeed
from polaris.api._view import (
    ActionKey,
    ActionRecord,
    Aggregates,
    AggregationName,
    ComponentView,
    DependencyKey,
    NodeFacts,
    NodeRates,
    SampleBooks,
    SampleUpdate,
    Series,
    SystemView,
    Verdict,
)
from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import HealthStatus, SystemDependency, SystemState
from polaris.messaging import STANDARD_STREAMS, StreamSpec
from polaris.runtime._health import HealthBoard
from polaris.runtime._latest import LatestStates
from polaris.runtime._ledger import ActionLedger, LedgerEntry
from polaris.storage import AggregationType, TimeRange

if TYPE_CHECKING:
    from polaris.api._inspection_view import Inspection
    from polaris.api._recollection_view import Recollections
    from polaris.connectors import ManagedSystemConnector
    from polaris.messaging import PolarisMessageBus
    from polaris.observability import MetricsCollector
    from polaris.runtime._health_history import HealthHistory
    from polaris.runtime._sample_account import SampleAccount
    from polaris.runtime._settings import Settings
    from polaris.storage import PolarisDataStore

STALE_AFTER_INTERVALS = 3
STALE_AFTER_S_MIN = 3.0
PUSHED_STALE_AFTER_S = 60.0
CATCH_UP_S = 2.0
"""Between two looks at what other nodes have stored: less than the shortest time after which a system is stale."""
RATE_WINDOW_S = 5.0
SWEPT_MAX = 2_000
"""Systems of which is looked, every two seconds, whether anything comes still; the next ones each time."""
PUSHED = "push"


class RateMeter:
    """A rate over the last few seconds, from a counter that only grows."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._marks: list[tuple[float, int]] = []

    def rate(self, total: int) -> float | None:
        """Note the present total and give the rate since about `RATE_WINDOW_S` ago; None before that can be told."""
        now = self._clock.monotonic()
        if not self._marks or now - self._marks[-1][0] >= 0.5:
            self._marks.append((now, total))
        while len(self._marks) > 2 and now - self._marks[1][0] >= RATE_WINDOW_S:
            self._marks.pop(0)
        begun, base = self._marks[0]
        return (total - base) / (now - begun) if now - begun >= 0.5 else None


class RuntimeView:
    """Answers the API from board, store and what the services noted, and publishes live updates. Changes nothing."""

    def __init__(
        self,
        settings: Settings,
        store: PolarisDataStore,
        ledger: ActionLedger,
        board: HealthBoard,
        metrics: MetricsCollector,
        connectors: Mapping[str, ManagedSystemConnector],
        bus: PolarisMessageBus,
        *,
        version: str,
        recollections: Recollections,
        inspection: Inspection,
        health_history: HealthHistory,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.live = LiveFeed()
        self.recollections = recollections
        self.inspection = inspection
        self.kept_health = health_history
        self._settings = settings
        self._store = store
        self._ledger = ledger
        self._board = board
        self._metrics = metrics
        self._connectors = dict(connectors)
        self._bus = bus
        self._version = version
        self._clock = clock
        self._started_at, self._started_s = clock.now(), clock.monotonic()
        self._latest = LatestStates(self._connectors, clock=clock)
        self._samples, self._values = RateMeter(clock), RateMeter(clock)
        self._samples_total = self._values_total = 0
        self.addresses: dict[str, str] = {}
        self.accounts: dict[str, SampleAccount] = {}
        """Of the systems that are sampled here, by their ids."""
        self.streams: Sequence[StreamSpec] = STANDARD_STREAMS
        self._swept: str | None = None
        board.on_change(self.live.publish)
        health_history.on_period(self.live.publish)

    async def load(self) -> None:
        """Take the latest states from the store, so that the first page shows what was known before the start."""
        self._latest.load(await self._store.states.get_current_states())

    async def catch_up_for_ever(self) -> None:
        """Show what other nodes of the store have stored, some seconds later than what this one has."""
        while True:
            await self._clock.sleep(CATCH_UP_S)
            for state in await self._store.states.get_current_states():
                seen = self._latest.get(state.system_id)
                if seen is None or seen.state.timestamp < state.timestamp:
                    self._note(state)

    def note_states(self, states: Sequence[SystemState]) -> None:
        """Samples that were stored just now."""
        self._samples_total += len(states)
        for state in states:
            self._values_total += len(state.metrics)
            self._note(state)

    def _note(self, state: SystemState) -> None:
        former = self._latest.get(state.system_id)
        if self._latest.note(state):
            if former is not None and former.received_s is None:
                self._note_first(former.state, state)
            self.kept_health.note_state(state)
        self.live.publish(SampleUpdate.of(state))

    def _note_first(self, former: SystemState, state: SystemState) -> None:
        """The first state since the start, of a system that was known before."""
        if (state.timestamp - former.timestamp).total_seconds() > self._stale_after_s(state.system_id):
            self.kept_health.note_gap(state.system_id, state.timestamp)

    def note_action(self, entry: LedgerEntry) -> None:
        """An action that was taken or has ended just now."""
        self.live.publish(record_of(entry))

    def node(self) -> NodeFacts:
        status, message = self._board.overall()
        return NodeFacts(
            name=self._settings.node.name,
            version=self._version,
            started_at=self._started_at,
            now=self._clock.now(),
            health_status=status,
            message=message,
            addresses=dict(self.addresses),
            rates=NodeRates(
                samples_per_s=self._samples.rate(self._samples_total),
                values_per_s=self._values.rate(self._values_total),
            ),
            systems=len(self._latest),
            takes_changes=True,
            dead_letters=self.inspection.dead_letters,
        )

    def publish_node(self) -> None:
        """Tell live clients how the node does now, and note of which systems nothing comes any more."""
        self.live.publish(self.node())
        self._look_for_silence()

    def _look_for_silence(self) -> None:
        page = self._latest.page(SWEPT_MAX, self._swept)
        self._swept = page[-1] if len(page) == SWEPT_MAX else None
        begun_s_ago = self._clock.monotonic() - self._started_s
        for system_id in page:
            age_s = self._latest.age_s(system_id)
            stale_after_s = self._stale_after_s(system_id)
            if age_s is None or age_s <= stale_after_s:
                self.kept_health.note_silence(system_id, None)
            elif begun_s_ago > stale_after_s:
                since = self._clock.now() - timedelta(seconds=age_s)
                self.kept_health.note_silence(system_id, since, f"no sample for more than {stale_after_s:g} s")

    def _stale_after_s(self, system_id: str) -> float:
        configured = self._settings.systems.get(system_id)
        if configured is None:
            return PUSHED_STALE_AFTER_S
        return max(STALE_AFTER_S_MIN, STALE_AFTER_INTERVALS * configured.interval_s)

    def liveness(self) -> Verdict:
        # That this is answered at all shows that the event loop turns.
        return Verdict(ok=True)

    def readiness(self) -> Verdict:
        return self._board.readiness()

    def components(self) -> Sequence[ComponentView]:
        return self._board.components()

    def bus(self) -> BusView:
        return BusView(
            state=self._bus.state.value,
            published=tuple(
                PublishedView(
                    kind=kind.value,
                    published=account.published,
                    confirmed=account.confirmed,
                    waiting=account.waiting,
                    dropped=dict(account.dropped),
                )
                for kind, account in self._bus.published.items()
            ),
            subscriptions=tuple(
                SubscriptionView(
                    name=one.name,
                    pattern=one.pattern,
                    delivery=one.delivery.value,
                    paused=one.paused,
                    in_flight=one.in_flight,
                    counts=msgspec.structs.asdict(one.stats),
                )
                for one in self._bus.subscriptions
            ),
        )

    def render_metrics(self, accept: str = "") -> tuple[bytes, str]:
        return self._metrics.render(accept), self._metrics.content_type_for(accept)

    def asyncapi(self) -> Mapping[str, Any] | None:
        from polaris.messaging import asyncapi_document  # a node that nobody asks does not pay for it

        bus = self.addresses.get("bus")
        title = f"POLARIS node {self._settings.node.name}"
        return asyncapi_document(streams=self.streams, servers={"node": bus} if bus else None, title=title)

    async def systems(self, *, limit: int, after: str | None) -> Sequence[SystemView]:
        return [self._system(system_id) for system_id in self._latest.page(limit, after)]

    async def system(self, system_id: str) -> SystemView | None:
        return self._system(system_id) if system_id in self._latest else None

    def _system(self, system_id: str) -> SystemView:
        seen = self._latest.get(system_id)
        state = None if seen is None else seen.state
        connector = self._connectors.get(system_id)
        configured = self._settings.systems.get(system_id)
        stale_after_s = self._stale_after_s(system_id)
        age_s = self._latest.age_s(system_id)
        stale = age_s is not None and age_s > stale_after_s
        component = self._board.get(f"connector:{system_id}")
        facts: dict[str, Any] = {"stale": stale, "stale_after_s": stale_after_s}
        if component is not None and component.status is not HealthStatus.HEALTHY:
            facts["message"] = component.message
        if stale:
            # What nobody has seen lately is not known to be healthy.
            facts["health_status"] = HealthStatus.UNKNOWN
        if connector is not None:
            facts["supported_actions"] = tuple(action.name for action in connector.supported_actions())
        account = self.accounts.get(system_id)
        if account is not None:
            facts["samples"] = SampleBooks(
                sampled=account.sampled_total,
                confirmed=account.confirmed_total,
                waiting=account.waiting,
                dropped=account.dropped_total,
            )
        return SystemView.of(system_id, configured.connector if configured else PUSHED, state, **facts)

    async def series(self, system_id: str, metric: str, *, start: datetime, end: datetime, limit: int) -> Series | None:
        if system_id not in self._latest:
            return None
        points = await self._store.states.series(
            system_id, metric, TimeRange(start, end), limit=limit + 1, order="desc"
        )
        kept = points[:limit][::-1]
        return Series(
            unit=self._unit(system_id, metric),
            timestamps=tuple(timestamp for timestamp, _ in kept),
            values=tuple(value for _, value in kept),
            truncated=len(points) > limit,
        )

    async def aggregates(
        self,
        system_id: str,
        metric: str,
        *,
        aggregation: AggregationName,
        bucket_s: float,
        start: datetime,
        end: datetime,
    ) -> Aggregates | None:
        if system_id not in self._latest:
            return None
        points = await self._store.states.aggregate(
            system_id,
            metric,
            TimeRange(start, end),
            AggregationType(aggregation),
            bucket=timedelta(seconds=bucket_s),
        )
        return Aggregates(
            unit=AggregationType(aggregation).unit_of(self._unit(system_id, metric)),
            starts=tuple(point.timestamp for point in points),
            values=tuple(point.value for point in points),
        )

    def _unit(self, system_id: str, metric: str) -> str | None:
        seen = self._latest.get(system_id)
        reading = None if seen is None else seen.state.metrics.get(metric)
        return None if reading is None else reading.unit

    async def actions(self, *, system_id: str | None, limit: int, before: ActionKey | None) -> Sequence[ActionRecord]:
        key = None if before is None else (before.created_at, before.action_id)
        return [record_of(entry) for entry in await self._ledger.newest(limit=limit, system_id=system_id, before=key)]

    async def action(self, action_id: str) -> ActionRecord | None:
        entry = await self._ledger.get(action_id)
        return None if entry is None else record_of(entry)

    async def dependencies(self, *, limit: int, after: DependencyKey | None) -> Sequence[SystemDependency]:
        last = None
        if after is not None:
            last = SystemDependency(after.source_system, after.target_system, after.dependency_type)
        return await self._store.dependencies.find_all(limit=limit, after=last)


def record_of(entry: LedgerEntry) -> ActionRecord:
    """The entry as the API shows it."""
    fields: dict[str, Any] = {
        "status": entry.status,
        "source": entry.source and redact_text(entry.source),
        "correlation_id": entry.correlation_id and redact_text(entry.correlation_id),
        "caused_at": entry.caused_at,
    }
    if entry.result is None:
        fields["started_at"] = entry.taken_at
    return ActionRecord.of(entry.action, entry.result, **fields)
