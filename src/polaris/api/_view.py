"""What the HTTP API asks of the running node: one protocol, and the plain values that it answers with.

Imports the domain only, so whoever assembles a node can implement it without loading a web framework.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import msgspec

from polaris._redaction import redact_fields
from polaris.api._bus_view import BusView
from polaris.api._history_view import HealthPeriod, KeptHealth
from polaris.domain import (
    AdaptationAction,
    ExecutionResult,
    ExecutionStatus,
    HealthStatus,
    MetricScalar,
    MetricValue,
    Quality,
    SystemDependency,
    SystemState,
)

if TYPE_CHECKING:
    from polaris.api._inspection_view import Inspection
    from polaris.api._live import LiveFeed
    from polaris.api._recollection_view import Recollections

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]

AggregationName = Literal[
    "avg", "sum", "min", "max", "count", "first", "last", "stddev", "median", "p90", "p95", "p99", "rate"
]


class NodeRates(msgspec.Struct, frozen=True, kw_only=True):
    """How much flows through the node right now, averaged over the last few seconds. None: not measured (yet)."""

    samples_per_s: float | None = None
    """System states stored."""
    values_per_s: float | None = None
    """Single metric values stored."""
    messages_per_s: float | None = None
    """Messages published on and delivered by the bus."""


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Who the node is. `addresses` (`page`, `metrics`, `bus` ...) hold no user, password or token."""

    name: str
    version: str
    started_at: Timestamp
    now: Timestamp
    """The node's clock, so that a client whose clock differs computes right ages."""
    health_status: HealthStatus
    message: str = ""
    """Why the node is not healthy, in words; empty when it is."""
    addresses: dict[str, str] = {}
    rates: NodeRates = NodeRates()
    systems: int = 0
    actions: int | None = None
    """Actions known to the store."""
    takes_changes: bool = False
    """Whether actions and dead letters can be dealt with over HTTP, with the node's token."""
    dead_letters: int | None = None
    """Messages that wait in the dead-letter stream; None when the bus cannot tell."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One component's part in a verdict; `reason` says in words why it is not ok."""

    component: str
    ok: bool
    reason: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to "are you alive?" and "are you ready?": ok only when every check is."""

    ok: bool
    checks: tuple[Check, ...] = ()

    @classmethod
    def of(cls, checks: Sequence[Check]) -> Verdict:
        """The verdict that the checks add up to."""
        return cls(ok=all(check.ok for check in checks), checks=tuple(checks))


class ComponentView(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the node (bus, store, connector, ...) and how it does. `details` are plain facts worth showing."""

    name: str
    status: HealthStatus
    message: str = ""
    since: Timestamp | None = None
    """When the status became what it is."""
    details: dict[str, MetricScalar] = {}
    essential: bool = False
    """Whether the node is not ready without it."""
    remedy: str = ""
    """What to do, while it is not well."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The latest value of one metric. Missing is None with the quality `missing`, never zero."""

    name: str
    value: MetricScalar
    unit: str | None = None
    quality: Quality = Quality.OK
    timestamp: Timestamp | None = None
    tags: dict[str, str] = {}

    @classmethod
    def of(cls, metric: MetricValue, timestamp: datetime | None = None) -> Reading:
        """The reading of a metric value; `timestamp` is that of its state, used when it has none of its own."""
        return cls(
            name=metric.name,
            value=metric.value,
            unit=metric.unit,
            quality=metric.quality,
            timestamp=metric.timestamp or timestamp,
            tags=metric.tags,
        )


class SampleBooks(msgspec.Struct, frozen=True, kw_only=True):
    """Where the samples are that the node took of a system: `sampled == confirmed + waiting + dropped`."""

    sampled: int
    confirmed: int
    """On file with the bus."""
    waiting: int
    dropped: int
    """Never to reach the bus: the buffer was full, the bus refused them, or the node stopped before."""


class SystemView(msgspec.Struct, frozen=True, kw_only=True):
    """One managed system with its latest state.

    `last_sample_at` None: no sample has ever come; `stale`: the last one is older than `stale_after_s` seconds.
    """

    system_id: str
    connector: str
    """The kind of connector (`host`, `gunicorn`, ...), `push` for systems that publish their own telemetry."""
    health_status: HealthStatus
    message: str = ""
    """What is wrong or waited for, in words; empty when all is well."""
    last_sample_at: Timestamp | None = None
    stale: bool = False
    stale_after_s: float | None = None
    metrics: dict[str, Reading] = {}
    metadata: dict[str, Any] = {}
    supported_actions: tuple[str, ...] = ()
    samples: SampleBooks | None = None
    """Since the node began; None for a system that it does not sample."""

    @classmethod
    def of(cls, system_id: str, connector: str, state: SystemState | None, **fields: Any) -> SystemView:
        """The view of a system by its latest state, None when there is none yet; `fields` override."""
        facts: dict[str, Any] = {"health_status": HealthStatus.UNKNOWN}
        if state is not None:
            facts = {
                "health_status": state.health_status,
                "message": reasons_of(state),
                "last_sample_at": state.timestamp,
                "metrics": {name: Reading.of(metric, state.timestamp) for name, metric in state.metrics.items()},
                "metadata": redact_fields(state.metadata) if state.metadata else {},
            }
        return cls(system_id=system_id, connector=connector, **{**facts, **fields})


def reasons_of(state: SystemState) -> str:
    """Why a system is not well: what its connector says in the metadata as `health.reasons`, a list of texts."""
    reasons = state.metadata.get("health.reasons", ())
    return "; ".join(map(str, reasons)) if isinstance(reasons, (list, tuple)) else str(reasons)


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Raw points of one metric in ascending order of time; `values[i]` was read at `timestamps[i]`, None is missing."""

    unit: str | None = None
    timestamps: tuple[Timestamp, ...] = ()
    values: tuple[MetricScalar, ...] = ()
    truncated: bool = False
    """Whether older points of the range were left out because of the limit."""


class Aggregates(msgspec.Struct, frozen=True, kw_only=True):
    """One value a bucket, ascending; `starts[i]` is where bucket i begins. A bucket without data is absent or None."""

    unit: str | None = None
    starts: tuple[Timestamp, ...] = ()
    values: tuple[float | None, ...] = ()


class ActionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An action and what came of it. Secrets in parameters and results are redacted."""

    action_id: str
    action_type: str
    target_system: str
    created_at: Timestamp
    status: ExecutionStatus
    parameters: dict[str, Any] = {}
    priority: int = 1
    timeout_seconds: float | None = None
    source: str | None = None
    """Who asked for it."""
    correlation_id: str | None = None
    """By which its traces and log records are found."""
    caused_at: Timestamp | None = None
    """When the sample was taken that led to it; None when that is not known, or there was none."""
    attempts: int | None = None
    result_data: dict[str, Any] = {}
    error_message: str | None = None
    started_at: Timestamp | None = None
    completed_at: Timestamp | None = None
    duration_s: float | None = None

    @classmethod
    def of(cls, action: AdaptationAction, result: ExecutionResult | None, **fields: Any) -> ActionRecord:
        """The record of an action and its result, None while there is none; `fields` override."""
        facts: dict[str, Any] = {
            "action_id": action.action_id,
            "action_type": action.action_type,
            "target_system": action.target_system,
            "created_at": action.created_at,
            "parameters": redact_fields(action.parameters) if action.parameters else {},
            "priority": action.priority,
            "timeout_seconds": action.timeout_seconds,
            "status": ExecutionStatus.PENDING,
        }
        if result is not None:
            facts |= {
                "status": result.status,
                "result_data": redact_fields(result.result_data) if result.result_data else {},
                "error_message": result.error_message,
                "started_at": result.started_at,
                "completed_at": result.completed_at,
                "duration_s": result.duration_s,
            }
        return cls(**{**facts, **fields})


class ActionKey(msgspec.Struct, frozen=True, array_like=True):
    """The place of an action in the listing: actions are ordered by `created_at`, then `action_id`, newest first."""

    created_at: Timestamp
    action_id: str


class DependencyKey(msgspec.Struct, frozen=True, array_like=True):
    """The place of a dependency in the listing, which is ordered by source, target and type."""

    source_system: str
    target_system: str
    dependency_type: str


class SampleUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """One stored sample, as sent to live clients: values only; units come with the system."""

    system_id: str
    timestamp: Timestamp
    health_status: HealthStatus
    values: dict[str, MetricScalar] = {}
    qualities: dict[str, Quality] = {}
    """The quality of those metrics whose quality is not `ok`."""

    @classmethod
    def of(cls, state: SystemState) -> SampleUpdate:
        """The update that tells of `state`."""
        return cls(
            system_id=state.system_id,
            timestamp=state.timestamp,
            health_status=state.health_status,
            values={name: metric.value for name, metric in state.metrics.items()},
            qualities={
                name: metric.quality for name, metric in state.metrics.items() if metric.quality is not Quality.OK
            },
        )


LiveUpdate = SampleUpdate | ActionRecord | ComponentView | SystemView | NodeFacts | HealthPeriod
"""What `LiveFeed.publish` takes: a sample, a period, or the whole new value of an action, component, system, node."""


class NodeView(Protocol):
    """The running node as the API sees it.

    Plain methods answer from memory within a millisecond; `async` ones may ask the store. All raise `PolarisException`
    when they cannot answer, which becomes a problem response with the error's status. None of them changes anything.
    Arguments are checked and bounded by the API before they arrive.
    """

    @property
    def live(self) -> LiveFeed:
        """Where the node publishes updates; the API subscribes once for every connected client."""
        ...

    def node(self) -> NodeFacts:
        """Who the node is and how it does."""
        ...

    def liveness(self) -> Verdict:
        """Whether the process does its work; not ok means that only a restart can help."""
        ...

    def readiness(self) -> Verdict:
        """Whether the node does what it is for, with the reason for every component that does not."""
        ...

    def components(self) -> Sequence[ComponentView]:
        """Every part of the node, in a stable order."""
        ...

    def bus(self) -> BusView:
        """What becomes of everything that goes through the bus."""
        ...

    @property
    def recollections(self) -> Recollections:
        """Who keeps the last traces and log records."""
        ...

    @property
    def kept_health(self) -> KeptHealth:
        """Who keeps what was not well."""
        ...

    @property
    def inspection(self) -> Inspection:
        """Who looks into the node itself."""
        ...

    def render_metrics(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics and their content type: OpenMetrics if `accept` names it, else the text format of Prometheus.

        Called in a worker thread.
        """
        ...

    def asyncapi(self) -> Mapping[str, Any] | None:
        """The AsyncAPI document of the bus, None when there is none. Called in a worker thread."""
        ...

    async def systems(self, *, limit: int, after: str | None) -> Sequence[SystemView]:
        """At most `limit` systems in ascending order of their id, those after the id `after` when it is given."""
        ...

    async def system(self, system_id: str) -> SystemView | None:
        """One system, None when it is unknown."""
        ...

    async def series(self, system_id: str, metric: str, *, start: datetime, end: datetime, limit: int) -> Series | None:
        """The newest `limit` points in `[start, end)`, ascending; None when the system is unknown.

        A metric that was never seen has an empty series.
        """
        ...

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
        """One value for each bucket of `bucket_s` seconds in `[start, end)`; None when the system is unknown."""
        ...

    async def actions(self, *, system_id: str | None, limit: int, before: ActionKey | None) -> Sequence[ActionRecord]:
        """At most `limit` actions, newest first by (`created_at`, `action_id`), only those before the key if given."""
        ...

    async def action(self, action_id: str) -> ActionRecord | None:
        """One action, None when it is unknown."""
        ...

    async def dependencies(self, *, limit: int, after: DependencyKey | None) -> Sequence[SystemDependency]:
        """At most `limit` edges of the dependency graph behind `after`; none when the store keeps none."""
        ...
