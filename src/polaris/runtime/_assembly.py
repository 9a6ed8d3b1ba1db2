"""The assembly of a node: the only place that names concrete classes. The container derives order and life from it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from polaris import __version__
from polaris.api import Access, HttpServer, create_app, hosts_for, is_loopback
from polaris.connectors import ConnectorSpec, ManagedSystemConnector
from polaris.dashboard import Page
from polaris.di import DIContainer, ServiceLifetime
from polaris.exceptions import ConfigurationError
from polaris.messaging import (
    STANDARD_STREAMS,
    EmbeddedNATSConfig,
    EmbeddedNATSServer,
    LoggingMiddleware,
    MessageBroker,
    MetricsMiddleware,
    MiddlewareChain,
    PolarisMessageBus,
    TracingMiddleware,
)
from polaris.observability import MetricsCollector, StructuredLogger
from polaris.resilience import SignalLog, SignalMetrics
from polaris.runtime._actions import ActionService
from polaris.runtime._brokers import broker, broker_of_host, source_of
from polaris.runtime._bus_host import COMPONENT as BUS_SERVER
from polaris.runtime._bus_host import BusHost, streams_on
from polaris.runtime._commands import RuntimeCommands
from polaris.runtime._connection import Connections
from polaris.runtime._data_folder import DataFolder
from polaris.runtime._dependencies import apply_dependencies
from polaris.runtime._effective import OF_A_PROGRAM, Origination
from polaris.runtime._execution import ActionExecution
from polaris.runtime._health import HealthBoard
from polaris.runtime._health_history import HealthHistory
from polaris.runtime._http_port import port_of, require_free_port
from polaris.runtime._ingest import TelemetryIngest
from polaris.runtime._inspecting import register_inspecting
from polaris.runtime._inspection import RuntimeInspection
from polaris.runtime._ledger import ActionLedger
from polaris.runtime._observing import register_observing
from polaris.runtime._place import Place, place_of_node
from polaris.runtime._recollection import Recollection
from polaris.runtime._relay import OutboxRelay
from polaris.runtime._retiring import Retiring
from polaris.runtime._sampling import Sampling, SystemSampler
from polaris.runtime._settings import Settings
from polaris.runtime._store import apply_retention, open_store
from polaris.runtime._storing import COMPONENT as BUS_STORAGE
from polaris.runtime._storing import PublishOutcomes
from polaris.runtime._supervision import Supervisor
from polaris.runtime._traces import Traces
from polaris.runtime._view import RuntimeView
from polaris.runtime._watch import ACTIONS, BUS, INGEST, STORE, Watch
from polaris.storage import PolarisDataStore

BREAK_OFF_S = 5.0
"""What a stop may take beyond the grace period, for ending what would not end."""
BUS_STOP_S = 5.0
"""What the embedded server may take to stop in order, which it does in a fraction of a second when it is well."""


class Connectors(NamedTuple):
    """The connectors of all enabled managed systems, by system id."""

    by_system: Mapping[str, ManagedSystemConnector]


def assemble(settings: Settings, origination: Origination = OF_A_PROGRAM) -> DIContainer:
    """A container that holds the whole node, proved complete; nothing is started.

    Raises `ConfigurationError` with every mistake in the connectors' options.
    """
    limit_s = settings.node.shutdown_grace_s + BREAK_OFF_S
    container = DIContainer(stop_timeout_s=limit_s, teardown_timeout_s=limit_s)
    container.register_instance(Settings, settings)
    container.register_instance(Origination, origination)
    container.register_instance(Connectors, build_connectors(settings))
    metrics = MetricsCollector()
    container.register_instance(MetricsCollector, metrics)
    container.register_instance(StructuredLogger, StructuredLogger("polaris.node"))
    # These two live from the building of the node to its teardown, round everything that is started and stopped.
    _singleton(container, DataFolder, data_folder, hosted=False)
    _singleton(container, PolarisDataStore, store, hosted=False)
    _singleton(container, HealthBoard, health_board)
    if settings.nats.servers:
        _singleton(container, MessageBroker, broker)
    else:
        _singleton(container, BusHost, bus_host, hosted=False)
        _singleton(container, MessageBroker, broker_of_host)
    container.register_instance(PublishOutcomes, PublishOutcomes())
    register_observing(container, metrics)
    _singleton(container, PolarisMessageBus, bus)
    _singleton(container, Place, place, hosted=False)
    _singleton(container, ActionLedger, ledger)
    _singleton(container, Connections, connections)
    register_inspecting(container, settings)
    _singleton(container, RuntimeView, view)
    _singleton(container, TelemetryIngest, ingest)
    _singleton(container, OutboxRelay, relay)
    _singleton(container, Retiring, retiring)
    _singleton(container, ActionService, actions)
    _singleton(container, Sampling, sampling)
    _singleton(container, Watch, watch)
    if settings.http.enabled:
        _singleton(container, HttpServer, http_server)
    container.validate()
    return container


def _singleton(container: DIContainer, interface: Any, factory: Any, *, hosted: bool | None = None) -> None:
    container.register_factory(interface, factory, lifetime=ServiceLifetime.SINGLETON, hosted=hosted)


def build_connectors(settings: Settings) -> Connectors:
    """The connectors, not connected. Raises `ConfigurationError` with the mistakes of all of them."""
    connectors: dict[str, ManagedSystemConnector] = {}
    problems: list[str] = []
    for system_id, system in settings.systems.items():
        if not system.enabled:
            continue
        try:
            spec = ConnectorSpec(system_id=system_id, connector=system.connector, options=system.options)
            connectors[system_id] = spec.build()
        except ConfigurationError as error:
            problems += [f"systems.{system_id}: {problem}" for problem in error.problems or (error.message,)]
    if problems:
        raise ConfigurationError(problems=problems)
    return Connectors(connectors)


def data_folder(settings: Settings) -> Iterator[DataFolder]:
    """Built first: what makes a start hopeless is found before anything has been started."""
    folder = DataFolder(settings.data_dir)
    folder.acquire()
    try:
        require_free_port(settings.http)
        yield folder
    finally:
        folder.release()


def health_board(settings: Settings, logger: StructuredLogger) -> HealthBoard:
    board = HealthBoard(logger=logger)
    board.expect([*([] if settings.nats.servers else [BUS_SERVER]), BUS, BUS_STORAGE, STORE, INGEST, ACTIONS])
    return board


async def store(settings: Settings, folder: DataFolder) -> AsyncIterator[PolarisDataStore]:
    opened = open_store(settings)
    await opened.connect()
    try:
        await apply_retention(opened, settings)
        await apply_dependencies(opened, settings)
        yield opened
    finally:
        await opened.disconnect()


async def bus_host(
    settings: Settings, folder: DataFolder, board: HealthBoard, logger: StructuredLogger
) -> AsyncIterator[BusHost]:
    config = EmbeddedNATSConfig(
        data_dir=folder.bus_dir,
        port=settings.nats.port,
        token=settings.nats.token,
        payload_bytes_max=settings.nats.max_payload_bytes,
        stop_grace_s=max(0.5, min(BUS_STOP_S, settings.node.shutdown_grace_s)),
    )
    host = BusHost(EmbeddedNATSServer(config), board, logger)
    await host.start()
    try:
        yield host
    finally:
        await host.stop()


def bus(
    settings: Settings,
    folder: DataFolder,
    broker: MessageBroker,
    metrics: MetricsCollector,
    outcomes: PublishOutcomes,
    traces: Traces,
) -> PolarisMessageBus:
    logger = StructuredLogger("polaris.bus")
    logging = LoggingMiddleware(logger)
    # Whoever takes a sample decides whether its trace is recorded, once for all that follows.
    tracing = TracingMiddleware(traces.recorder.tracer, 0.0, origin=traces.origin, on_error=traces.on_error)
    middlewares = [*([tracing] if traces.enabled else []), logging, MetricsMiddleware(metrics), outcomes]
    measure = metrics if settings.metrics.middleware_durations else None
    chain = MiddlewareChain(middlewares, measure=measure)
    streams = [msgspec.structs.replace(stream, replicas=settings.nats.replicas) for stream in STANDARD_STREAMS]
    if not settings.nats.servers:
        streams = streams_on(folder.bus_dir, streams, logger, payload_bytes_max=settings.nats.max_payload_bytes)
    return PolarisMessageBus(broker, chain, streams=streams, collector=metrics, grace_s=settings.node.shutdown_grace_s)


async def place(
    settings: Settings, folder: DataFolder, store: PolarisDataStore, board: HealthBoard, connectors: Connectors
) -> AsyncIterator[Place]:
    async with place_of_node(settings, folder, store, board, connectors.by_system) as taken:
        yield taken


def ledger(store: PolarisDataStore, place: Place) -> ActionLedger:
    return ActionLedger(store, boot_id=place.boot_id, place=place)


def connections(connectors: Connectors) -> Connections:
    return Connections(connectors.by_system, StructuredLogger("polaris.connections"))


async def view(
    settings: Settings,
    store: PolarisDataStore,
    ledger: ActionLedger,
    board: HealthBoard,
    metrics: MetricsCollector,
    connectors: Connectors,
    bus: PolarisMessageBus,
    place: Place,
    recollection: Recollection,
    inspection: RuntimeInspection,
    health_history: HealthHistory,
) -> RuntimeView:
    made = RuntimeView(
        settings,
        store,
        ledger,
        board,
        metrics,
        connectors.by_system,
        bus,
        version=__version__,
        recollections=recollection,
        inspection=inspection,
        health_history=health_history,
    )
    await made.load()
    place.beside_others("latest states of other nodes", made.catch_up_for_ever)
    return made


def ingest(
    settings: Settings,
    bus: PolarisMessageBus,
    store: PolarisDataStore,
    view: RuntimeView,
    metrics: MetricsCollector,
    place: Place,
    traces: Traces,
) -> TelemetryIngest:
    return TelemetryIngest(
        bus,
        store,
        settings.telemetry,
        metrics,
        StructuredLogger("polaris.ingest"),
        on_states=view.note_states,
        sees_everything=not place.has_others,
        traces=traces,
    )


def relay(
    settings: Settings, bus: PolarisMessageBus, store: PolarisDataStore, board: HealthBoard, place: Place
) -> OutboxRelay:
    logger = StructuredLogger("polaris.outbox")
    return OutboxRelay(store, bus, board, logger, turn=place.outbox, drain_s=settings.node.shutdown_grace_s / 4)


def retiring(store: PolarisDataStore, board: HealthBoard, place: Place) -> Retiring:
    return Retiring(store, board, StructuredLogger("polaris.retention"), turn=place.upkeep)


def actions(
    settings: Settings,
    bus: PolarisMessageBus,
    ledger: ActionLedger,
    connections: Connections,
    ingest: TelemetryIngest,
    relay: OutboxRelay,
    view: RuntimeView,
    inspection: RuntimeInspection,
    board: HealthBoard,
    metrics: MetricsCollector,
    traces: Traces,
) -> ActionService:
    logger = StructuredLogger("polaris.actions")
    signals = SignalMetrics(metrics.instruments)
    executions = {
        system_id: ActionExecution(
            connection, settings.actions, logger, listeners=(SignalLog(logger), signals), recorder=traces.recorder
        )
        for system_id, connection in connections.by_system.items()
    }
    for execution in executions.values():
        signals.watch(execution.breaker, execution.bulkhead)
        inspection.breakers.append(execution.breaker)
    service = ActionService(
        bus,
        ledger,
        executions,
        Supervisor(board, logger),
        metrics,
        logger,
        source=source_of(settings),
        caused_at=ingest.caused_at,
        on_action=view.note_action,
        traces=traces,
    )
    ledger.place.on_taken(service.stop)
    return service


def sampling(
    settings: Settings,
    connections: Connections,
    bus: PolarisMessageBus,
    actions: ActionService,
    board: HealthBoard,
    metrics: MetricsCollector,
    view: RuntimeView,
    place: Place,
    traces: Traces,
) -> Sampling:
    """What is sampled may call for an action: sampling starts after the action path and stops before it."""
    logger = StructuredLogger("polaris.sampling")
    samplers = [
        SystemSampler(
            connection,
            settings.systems[system_id],
            bus,
            board,
            metrics.instruments,
            logger,
            buffer_max=settings.telemetry.publish_buffer_max,
            source=source_of(settings),
            traces=traces,
        )
        for system_id, connection in connections.by_system.items()
    ]
    view.accounts.update({sampler.system_id: sampler.account for sampler in samplers})
    made = Sampling(samplers, board, logger, drain_s=settings.node.shutdown_grace_s / 4)
    place.on_taken(made.stop)
    return made


def watch(
    settings: Settings,
    broker: MessageBroker,
    bus: PolarisMessageBus,
    store: PolarisDataStore,
    ingest: TelemetryIngest,
    actions: ActionService,
    outcomes: PublishOutcomes,
    view: RuntimeView,
    board: HealthBoard,
    metrics: MetricsCollector,
) -> Watch:
    logger = StructuredLogger("polaris.watch")
    return Watch(
        broker,
        bus,
        store,
        board,
        metrics.instruments,
        logger,
        ingest=ingest,
        actions=actions,
        outcomes=outcomes,
        source=source_of(settings),
        on_look=view.publish_node,
    )


def http_server(
    settings: Settings,
    folder: DataFolder,
    view: RuntimeView,
    bus: PolarisMessageBus,
    broker: MessageBroker,
    sampling: Sampling,
    watch: Watch,
    metrics: MetricsCollector,
) -> HttpServer:
    """The front opens last and closes first, so nobody meets a node that is half there."""
    host = settings.http.host
    access = Access(folder.http_token(settings.http.token), everything=not is_loopback(host))
    commands = RuntimeCommands(bus, broker, source=source_of(settings))
    hosts = hosts_for(host, settings.http.names)
    app = create_app(view, page=Page(), hosts=hosts, commands=commands, access=access, metrics=metrics)
    return HttpServer(app, host, port_of(settings.http))
