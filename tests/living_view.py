"""A node in memory for tests of the API and the page: systems that live, with history, actions and faults on demand."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import math
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from statistics import fmean
from typing import Any

import msgspec
from tests.living_inspection import LivingHealth, LivingInspection

from polaris.api import (
    ActionKey,
    ActionRecord,
    Aggregates,
    AggregationName,
    BusView,
    Check,
    ComponentView,
    DependencyKey,
    HealthPeriod,
    LiveFeed,
    NodeFacts,
    NodeRates,
    PublishedView,
    SampleUpdate,
    Series,
    SubscriptionView,
    SystemView,
    Verdict,
)
from polaris.api._recollection_view import (
    LogFilter,
    LogView,
    SpanView,
    TraceFilter,
    TraceKey,
    TraceSummary,
    TraceView,
)
from polaris.domain import (
    AdaptationAction,
    ExecutionResult,
    ExecutionStatus,
    HealthStatus,
    MetricValue,
    SystemDependency,
    SystemState,
)

WEIRD_ID = "lab/rack 7.*>ü"
GIB = 2**30


def host_metrics(at: float, dice: random.Random) -> list[MetricValue]:
    wave = 0.5 + 0.5 * math.sin(at / 47)
    busy = min(0.98, max(0.02, 0.12 + 0.45 * wave**3 + dice.gauss(0, 0.03)))
    disk: float | None = None if 540 < at % 600 < 570 else 3e6 * wave * abs(dice.gauss(1, 0.4))
    return [
        MetricValue("system.cpu.utilization", busy, "1"),
        MetricValue("system.memory.utilization", 0.61 + 0.02 * math.sin(at / 300), "1"),
        MetricValue("system.cpu.load_average.1m", 0.4 + 2 * wave, "{thread}"),
        MetricValue("system.network.io.receive.rate", 40_000 + 900_000 * wave * abs(dice.gauss(1, 0.2)), "By/s"),
        MetricValue("system.disk.io.write.rate", disk, "By/s"),
        MetricValue("system.memory.usage", 14.2 * GIB, "By"),
        MetricValue("system.boot_time", 1_790_000_000.0, "s"),
        MetricValue("system.uptime", 183_245.0 + at % 1000, "s"),
        MetricValue("system.cpu.logical.count", 8.0, "{cpu}"),
    ]


def service_metrics(at: float, dice: random.Random) -> list[MetricValue]:
    workers = 1 + int(3 * (0.5 + 0.5 * math.sin(at / 90)))
    rate = 22 + 14 * math.sin(at / 110) + dice.gauss(0, 1.2)
    slow = max(0.018, 0.05 + 0.9 * max(0.0, rate / 36 - workers / 3.4)) * abs(dice.gauss(1, 0.12))
    return [
        MetricValue("service.workers", float(workers), "{process}"),
        MetricValue("service.request.duration.p95", slow, "s"),
        MetricValue("service.request.rate", rate, "{request}/s"),
        MetricValue("service.request.errors.rate", 0.0, "{request}/s"),
    ]


METRICS = {"host": host_metrics, "web-shop": service_metrics}


def state_at(system_id: str, when: datetime, dice: random.Random) -> SystemState:
    make = METRICS.get(system_id, host_metrics)
    return SystemState(
        system_id, when, {metric.name: metric for metric in make(when.timestamp(), dice)}, HealthStatus.HEALTHY
    )


class Remembered:
    """Three traces and five log records."""

    def __init__(self, start: datetime) -> None:
        began = [start - timedelta(seconds=number) for number in range(5)]
        self.spans = [
            SpanView(span_id=f"{number + 1:016x}", name="execute action", kind="internal", start=at, duration_s=0.5)
            for number, at in enumerate(began)
        ]
        self.log = [
            LogView(
                log_id=f"log-{9 - number}",
                timestamp=at,
                level="INFO",
                logger="polaris.actions",
                message="action ended",
                correlation_id=f"c-{number}",
                fields={"action_id": "a-1"},
            )
            for number, at in enumerate(began)
        ]

    async def traces(
        self, wanted: TraceFilter, *, limit: int, before: TraceKey | None
    ) -> list[tuple[TraceKey, TraceSummary]]:
        found = [
            (
                TraceKey(1_000 - number, f"key-{number}"),
                TraceSummary(
                    trace_id=f"{number + 1:032x}",
                    name=span.name,
                    start=span.start,
                    duration_s=0.5,
                    spans=1,
                    errors=0,
                    correlation_ids=(f"c-{number}",),
                ),
            )
            for number, span in enumerate(self.spans[:3])
        ]
        return [
            one
            for one in found
            if (before is None or one[0].start_us < before.start_us)
            and wanted.correlation_id in (None, *one[1].correlation_ids)
            and wanted.about in (None, one[1].trace_id, *one[1].correlation_ids)
        ][:limit]

    async def trace(self, trace_id: str) -> TraceView | None:
        known = {f"{number + 1:032x}": span for number, span in enumerate(self.spans[:3])}
        return TraceView(trace_id=trace_id, spans=(known[trace_id],)) if trace_id in known else None

    async def logs(self, wanted: LogFilter, *, limit: int, before: str | None) -> list[LogView]:
        return [
            one
            for one in self.log
            if (before is None or one.log_id < before)
            and (wanted.after is None or one.log_id > wanted.after)
            and wanted.correlation_id in (None, one.correlation_id)
            and wanted.about in (None, one.correlation_id)
        ][:limit]


REFUSED = f"connection refused: /run/{'of_the_connector' * 6}"
"""With a word that is wider than a phone."""


def periods(start: datetime) -> list[HealthPeriod]:
    """A system that was ill and its connector, and a part of the node that is."""

    def period(period_id: str, status: HealthStatus, back_s: int, until_s: int | None, **facts: Any) -> HealthPeriod:
        until = None if until_s is None else start - timedelta(seconds=until_s)
        since = start - timedelta(seconds=back_s)
        return HealthPeriod(period_id=period_id, node="atlas", status=status, since=since, until=until, **facts)

    shop = {"system_id": "web-shop"}
    connector = {"component": "connector:web-shop", "remedy": "check that it runs", **shop}
    return [
        period("p-1", HealthStatus.WARNING, 500, 440, message="slow", remedy="add a worker", **shop),
        period("p-2", HealthStatus.UNHEALTHY, 300, 270, message=REFUSED, times=12, cut_off=True, **connector),
        period("p-3", HealthStatus.WARNING, 200, None, component="store", message="disk nearly full"),
    ]


class LivingView:
    """A `NodeView` over plain dictionaries. `live()` keeps it moving; attributes may be changed by a test at will."""

    def __init__(self, *, now: datetime | None = None, history_s: int = 900, seed: int = 7) -> None:
        self.dice = random.Random(seed)
        self.start = now or datetime.now(UTC)
        self.live = LiveFeed()
        self.recollections = Remembered(self.start)
        self.inspection = LivingInspection(self.components)
        self.kept_health = LivingHealth(*periods(self.start))
        self.states: dict[str, list[SystemState]] = {}
        self.connectors = {"host": "host", "web-shop": "gunicorn", WEIRD_ID: "push"}
        self.records: list[ActionRecord] = []
        self.failing: dict[str, str] = {}
        self.stale_after_s = 3.0
        self.document: dict[str, Any] | None = {"asyncapi": "3.0.0"}
        for system_id in self.connectors:
            moments = (self.start - timedelta(seconds=back) for back in range(history_s, 0, -1))
            self.states[system_id] = [state_at(system_id, moment, self.dice) for moment in moments]
        for index, back in enumerate((640, 410, 205, 64)):
            self._act(index, self.start - timedelta(seconds=back))

    def _act(self, index: int, when: datetime) -> ActionRecord:
        kind = ("add_worker", "remove_worker")[index % 2]
        action = AdaptationAction(
            f"action-{index:05d}", kind, "web-shop", {"count": 1}, timeout_seconds=10.0, created_at=when
        )
        status = ExecutionStatus.FAILED if index % 4 == 2 else ExecutionStatus.SUCCESS
        message = "the arbiter did not start a worker within 10 s" if status is ExecutionStatus.FAILED else None
        done = when + timedelta(milliseconds=38 + 7 * index)
        result = ExecutionResult(action.action_id, status, {"workers": 2}, message, when, done)
        record = ActionRecord.of(action, result, source="rule-controller", attempts=1)
        self.records.append(record)
        return record

    def sample(self, system_id: str, when: datetime | None = None) -> SystemState:
        """Add one sample and tell the live clients."""
        state = state_at(system_id, when or datetime.now(UTC), self.dice)
        self.states[system_id].append(state)
        self.live.publish(SampleUpdate.of(state))
        return state

    def act(self) -> ActionRecord:
        """Carry one more action out and tell the live clients."""
        record = self._act(len(self.records), datetime.now(UTC))
        self.live.publish(record)
        return record

    @contextlib.asynccontextmanager
    async def living(self, every_s: float = 0.25):
        """Sample every system again and again while the body runs."""

        async def beat() -> None:
            while True:
                for system_id in self.states:
                    await self.inspection.let_pass(self.sample(system_id))
                self.live.publish(self.node())
                await asyncio.sleep(every_s)

        await self.inspection.broker.connect()
        task = asyncio.create_task(beat())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.inspection.broker.disconnect()

    def node(self) -> NodeFacts:
        return NodeFacts(
            name="atlas",
            version="0.1.0",
            started_at=self.start - timedelta(hours=3, minutes=12),
            now=datetime.now(UTC),
            health_status=HealthStatus.WARNING if self.failing else HealthStatus.HEALTHY,
            message="; ".join(self.failing.values()),
            addresses={"bus": "nats://127.0.0.1:4222"},
            rates=NodeRates(samples_per_s=3.0, values_per_s=22.0, messages_per_s=6.4),
            systems=len(self.states),
            actions=len(self.records),
            dead_letters=0,
        )

    def liveness(self) -> Verdict:
        return Verdict.of([Check(component="loop", ok=True)])

    def readiness(self) -> Verdict:
        names = ("bus", "store", "connector host")
        return Verdict.of(
            [Check(component=name, ok=name not in self.failing, reason=self.failing.get(name, "")) for name in names]
        )

    def components(self) -> Sequence[ComponentView]:
        return [
            ComponentView(
                name=name,
                status=HealthStatus.UNHEALTHY if name in self.failing else HealthStatus.HEALTHY,
                message=self.failing.get(name, words),
                since=self.start - timedelta(hours=3),
            )
            for name, words in (
                ("bus", "connected, JetStream on"),
                ("store", "1.2 ms a commit"),
                ("connector host", ""),
                ("connector web-shop", ""),
                ("action executor", "idle"),
            )
        ]

    def render_metrics(self, accept: str = "") -> tuple[bytes, str]:
        return b"# HELP up Whether it runs.\n# TYPE up gauge\nup 1\n", "text/plain; version=0.0.4; charset=utf-8"

    def bus(self) -> BusView:
        readings = PublishedView(kind="telemetry", published=9, confirmed=5, waiting=1, dropped={"buffer_full": 3})
        store = SubscriptionView(
            name="store-telemetry",
            pattern="polaris.telemetry.>",
            delivery="at_least_once",
            paused=False,
            in_flight=2,
            counts={"received": 7, "handled": 5, "missed": 0},
        )
        return BusView(state="connected", published=(readings,), subscriptions=(store,))

    def asyncapi(self) -> Mapping[str, Any] | None:
        return self.document

    def _view(self, system_id: str) -> SystemView:
        states = self.states[system_id]
        actions = ("add_worker", "remove_worker") if self.connectors[system_id] == "gunicorn" else ()
        return SystemView.of(
            system_id,
            self.connectors[system_id],
            states[-1] if states else None,
            stale_after_s=self.stale_after_s,
            supported_actions=actions,
        )

    async def systems(self, *, limit: int, after: str | None) -> Sequence[SystemView]:
        wanted = sorted(system_id for system_id in self.states if after is None or system_id > after)
        return [self._view(system_id) for system_id in wanted[:limit]]

    async def system(self, system_id: str) -> SystemView | None:
        return self._view(system_id) if system_id in self.states else None

    def _within(self, system_id: str, start: datetime, end: datetime) -> list[SystemState]:
        states = self.states[system_id]
        first = bisect.bisect_left(states, start, key=lambda state: state.timestamp)
        last = bisect.bisect_left(states, end, key=lambda state: state.timestamp)
        return states[first:last]

    async def series(self, system_id: str, metric: str, *, start: datetime, end: datetime, limit: int) -> Series | None:
        if system_id not in self.states:
            return None
        found = [state for state in self._within(system_id, start, end) if metric in state.metrics]
        newest = found[-limit:]
        return Series(
            unit=newest[-1].metrics[metric].unit if newest else None,
            timestamps=tuple(state.timestamp for state in newest),
            values=tuple(state.value(metric) for state in newest),
            truncated=len(found) > limit,
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
        if system_id not in self.states:
            return None
        buckets: dict[float, list[float]] = {}
        for state in self._within(system_id, start, end):
            value = state.value(metric)
            if isinstance(value, (int, float)):
                buckets.setdefault(state.timestamp.timestamp() // bucket_s * bucket_s, []).append(value)
        folds: dict[str, Callable[[list[float]], float]] = {"avg": fmean, "max": max, "min": min, "count": len}
        return Aggregates(
            unit="1",
            starts=tuple(datetime.fromtimestamp(at, UTC) for at in buckets),
            values=tuple(float(folds[aggregation](values)) for values in buckets.values()),
        )

    async def actions(self, *, system_id: str | None, limit: int, before: ActionKey | None) -> Sequence[ActionRecord]:
        ordered = sorted(self.records, key=lambda record: (record.created_at, record.action_id), reverse=True)
        return [
            record
            for record in ordered
            if (system_id is None or record.target_system == system_id)
            and (before is None or (record.created_at, record.action_id) < (before.created_at, before.action_id))
        ][:limit]

    async def action(self, action_id: str) -> ActionRecord | None:
        return next((record for record in self.records if record.action_id == action_id), None)

    async def dependencies(self, *, limit: int, after: DependencyKey | None) -> Sequence[SystemDependency]:
        ends = [("web-shop", "database", "uses"), ("web-shop", "host", "runs_on"), ("web-shop", "host", "sends_to")]
        last = None if after is None else msgspec.structs.astuple(after)
        return [SystemDependency(*one) for one in ends if last is None or one > last][:limit]
