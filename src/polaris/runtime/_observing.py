"""Puts together what records traces: the recorder, the store's recollection, and the export to a collector."""

from __future__ import annotations

import asyncio

from polaris.di import DIContainer, ServiceLifetime
from polaris.observability import MetricsCollector, SpanRecorder, StructuredLogger
from polaris.observability._otlp import OtlpSink, otlp_wanted
from polaris.runtime._actions import ActionService
from polaris.runtime._bus_host import BusHost
from polaris.runtime._connection import Connections
from polaris.runtime._health import HealthBoard
from polaris.runtime._health_history import HealthHistory
from polaris.runtime._node_metrics import NodeMetrics
from polaris.runtime._place import Place
from polaris.runtime._recollection import LOGGER, Recollection
from polaris.runtime._retiring import Retiring
from polaris.runtime._settings import Settings
from polaris.runtime._traces import Traces
from polaris.storage import PolarisDataStore

SERVICE = "polaris"


class TraceExport:
    """Sends recorded spans to the collector that the standard variables name; without one it does nothing."""

    def __init__(self, metrics: MetricsCollector) -> None:
        instruments = metrics.instruments
        self.sink: OtlpSink | None = None
        if otlp_wanted():
            self.sink = OtlpSink(
                on_exported=instruments.spans_exported("otlp").inc,
                on_dropped=lambda reason, count: instruments.spans_dropped("otlp", reason).inc(count),
            )

    async def start(self) -> None:
        """Nothing: the first span starts the export."""

    async def stop(self) -> None:
        """Send what waits, for two seconds at most."""
        if self.sink is not None:
            await asyncio.to_thread(self.sink.stop)


def recollection(
    settings: Settings, store: PolarisDataStore, board: HealthBoard, metrics: MetricsCollector
) -> Recollection:
    return Recollection(
        store,
        board,
        metrics.instruments,
        StructuredLogger(LOGGER),
        traces_max=settings.tracing.kept_max,
        traces_days=settings.tracing.kept_days,
        logs_max=settings.logging.kept_max,
        logs_days=settings.logging.kept_days,
    )


def health_history(settings: Settings, store: PolarisDataStore, board: HealthBoard, place: Place) -> HealthHistory:
    return HealthHistory(
        store,
        board,
        StructuredLogger("polaris.health"),
        node=settings.node.name,
        kept_max=settings.health.kept_max,
        kept_days=settings.health.kept_days,
        is_alone=place.node is None,
        turn=place.upkeep,
    )


def traces(settings: Settings, recollection: Recollection, export: TraceExport, metrics: MetricsCollector) -> Traces:
    if not settings.tracing.enabled:
        return Traces()
    sinks = [recollection.put] if export.sink is None else [recollection.put, export.sink.put]
    recorder = SpanRecorder(SERVICE, settings.tracing.ratio, sinks, instance=settings.node.name)
    return Traces(recorder, on_dropped=metrics.instruments.spans_dropped("recorder", "rate").inc)


def node_metrics(
    metrics: MetricsCollector,
    board: HealthBoard,
    connections: Connections,
    store: PolarisDataStore,
    place: Place,
    retiring: Retiring,
    actions: ActionService,
    host: BusHost | None,
) -> NodeMetrics:
    return NodeMetrics(metrics, board, connections, store, place, retiring, actions, host)


def register_observing(container: DIContainer, metrics: MetricsCollector) -> None:
    """Add all of it to the container of a node. Raises `ConfigurationError` for an export that is not possible."""
    container.register_instance(TraceExport, TraceExport(metrics), hosted=True)
    container.register_factory(Recollection, recollection, lifetime=ServiceLifetime.SINGLETON)
    container.register_factory(HealthHistory, health_history, lifetime=ServiceLifetime.SINGLETON)
    container.register_factory(NodeMetrics, node_metrics, lifetime=ServiceLifetime.SINGLETON)
    container.register_factory(Traces, traces, lifetime=ServiceLifetime.SINGLETON)
