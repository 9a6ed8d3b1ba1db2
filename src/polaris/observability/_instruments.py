"""Typed access to the metrics of the catalogue, for the rooms above."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from polaris.observability import _catalogue as catalogue
from polaris.observability._series import SlotCounter, SlotGauge, SlotHistogram

if TYPE_CHECKING:
    from polaris.observability._metrics import MetricsCollector


class Instruments:
    """Series of the catalogue's metrics for the components that feed them; bind them once and keep them.

    Reached as `collector.instruments`.
    """

    __slots__ = ("_collector",)

    def __init__(self, collector: MetricsCollector) -> None:
        self._collector = collector

    def breaker_state(self, breaker: str, state: str) -> SlotGauge:
        """1 while the breaker is in that state (closed, open, half_open, isolated), else 0."""
        return self._collector.gauge_of(catalogue.BREAKER_STATE).labels(breaker, state)

    def breaker_transitions(self, breaker: str, state: str) -> SlotCounter:
        """`state` is the state entered."""
        return self._collector.counter_of(catalogue.BREAKER_TRANSITIONS).labels(breaker, state)

    def breaker_rejected(self, breaker: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.BREAKER_REJECTED).labels(breaker)

    def breaker_probes_expired(self, breaker: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.BREAKER_PROBES_EXPIRED).labels(breaker)

    def bulkhead_in_use(self, bulkhead: str) -> SlotGauge:
        return self._collector.gauge_of(catalogue.BULKHEAD_IN_USE).labels(bulkhead)

    def bulkhead_queued(self, bulkhead: str) -> SlotGauge:
        return self._collector.gauge_of(catalogue.BULKHEAD_QUEUED).labels(bulkhead)

    def bulkhead_rejected(self, bulkhead: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.BULKHEAD_REJECTED).labels(bulkhead)

    def bulkhead_limit(self, bulkhead: str) -> SlotGauge:
        return self._collector.gauge_of(catalogue.BULKHEAD_LIMIT).labels(bulkhead)

    def retries(self, operation: str, outcome: Literal["retried", "recovered", "exhausted", "refused"]) -> SlotCounter:
        return self._collector.counter_of(catalogue.RETRIES).labels(operation, outcome)

    def deadlines_expired(self, operation: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.DEADLINES_EXPIRED).labels(operation)

    def rate_limited(self, limiter: str, reason: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.RATE_LIMITED).labels(limiter, reason)

    def fallbacks(self, operation: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.FALLBACKS).labels(operation)

    def hedges(self, operation: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.HEDGES).labels(operation)

    def chaos_injected(self, operation: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.CHAOS_INJECTED).labels(operation)

    def dead_letters(self, topic: str, reason: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.DEAD_LETTERS).labels(topic, reason)

    def messages_dropped(self, topic: str, subscription: str, reason: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.MESSAGES_DROPPED).labels(topic, subscription, reason)

    def redeliveries(self, topic: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.REDELIVERIES).labels(topic)

    def consumer_pending(self, consumer: str) -> SlotGauge:
        return self._collector.gauge_of(catalogue.CONSUMER_PENDING).labels(consumer)

    def consumer_unacked(self, consumer: str) -> SlotGauge:
        return self._collector.gauge_of(catalogue.CONSUMER_UNACKED).labels(consumer)

    def consumer_lag(self, consumer: str) -> SlotGauge:
        """In seconds."""
        return self._collector.gauge_of(catalogue.CONSUMER_LAG).labels(consumer)

    def store_writes(self, store: str, collection: str, status: Literal["committed", "failed"]) -> SlotCounter:
        return self._collector.counter_of(catalogue.STORE_WRITES).labels(store, collection, status)

    def store_write_seconds(self, store: str) -> SlotHistogram:
        return self._collector.histogram_of(catalogue.STORE_WRITE_SECONDS).labels(store)

    def loop_latency(self, action_type: str, status: str) -> SlotHistogram:
        """In seconds, from the telemetry's timestamp to the action's result."""
        return self._collector.histogram_of(catalogue.LOOP_LATENCY).labels(action_type, status)

    def connector_polls(self, system_id: str, status: Literal["success", "failure"]) -> SlotCounter:
        return self._collector.counter_of(catalogue.CONNECTOR_POLLS).labels(system_id, status)

    def connector_poll_seconds(self, connector: str) -> SlotHistogram:
        return self._collector.histogram_of(catalogue.CONNECTOR_POLL_SECONDS).labels(connector)

    def broker_connected(self, broker: str) -> SlotGauge:
        return self._collector.gauge_of(catalogue.BROKER_CONNECTED).labels(broker)

    def broker_reconnects(self, broker: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.BROKER_RECONNECTS).labels(broker)

    def broker_away_seconds(self, broker: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.BROKER_AWAY_SECONDS).labels(broker)

    def telemetry_sampled(self, system_id: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.TELEMETRY_SAMPLED).labels(system_id)

    def telemetry_confirmed(self, system_id: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.TELEMETRY_CONFIRMED).labels(system_id)

    def telemetry_waiting(self, system_id: str) -> SlotGauge:
        return self._collector.gauge_of(catalogue.TELEMETRY_WAITING).labels(system_id)

    def telemetry_dropped(self, system_id: str, reason: Literal["buffer_full", "refused", "stopped"]) -> SlotCounter:
        return self._collector.counter_of(catalogue.TELEMETRY_DROPPED).labels(system_id, reason)

    def events_published(self, kind: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.EVENTS_PUBLISHED).labels(kind)

    def events_confirmed(self, kind: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.EVENTS_CONFIRMED).labels(kind)

    def events_waiting(self, kind: str) -> SlotGauge:
        return self._collector.gauge_of(catalogue.EVENTS_WAITING).labels(kind)

    def events_dropped(self, kind: str, reason: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.EVENTS_DROPPED).labels(kind, reason)

    def sequence_missed(self, subscription: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.SEQUENCE_MISSED).labels(subscription)

    def sequence_late(self, subscription: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.SEQUENCE_LATE).labels(subscription)

    def telemetry_clock_ahead(self, system_id: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.TELEMETRY_CLOCK_AHEAD).labels(system_id)

    def event_loop_lag(self) -> SlotHistogram:
        """In seconds."""
        return self._collector.histogram_of(catalogue.EVENT_LOOP_LAG).labels()

    def health_score(self, system_id: str) -> SlotGauge:
        return self._collector.gauge_of(catalogue.HEALTH_SCORE).labels(system_id)

    def store_stat(self, name: str) -> SlotGauge:
        return self._collector.gauge_of(catalogue.STORE_STAT).labels(name)

    def lease_held(self, lease: str) -> SlotGauge:
        return self._collector.gauge_of(catalogue.LEASE_HELD).labels(lease)

    def outbox_waiting(self) -> SlotGauge:
        return self._collector.gauge_of(catalogue.OUTBOX_WAITING).labels()

    def bus_server_restarts(self) -> SlotCounter:
        return self._collector.counter_of(catalogue.BUS_SERVER_RESTARTS).labels()

    def points_retired(self) -> SlotCounter:
        return self._collector.counter_of(catalogue.POINTS_RETIRED).labels()

    def documents_expired(self) -> SlotCounter:
        return self._collector.counter_of(catalogue.DOCUMENTS_EXPIRED).labels()

    def component_health(self, component: str) -> SlotGauge:
        return self._collector.gauge_of(catalogue.COMPONENT_HEALTH).labels(component)

    def actions_running(self) -> SlotGauge:
        return self._collector.gauge_of(catalogue.ACTIONS_RUNNING).labels()

    def action_seconds(self, action_type: str, status: str) -> SlotHistogram:
        return self._collector.histogram_of(catalogue.ACTION_SECONDS).labels(action_type, status)

    def spans(self) -> SlotCounter:
        return self._collector.counter_of(catalogue.SPANS).labels()

    def spans_exported(self, sink: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.SPANS_EXPORTED).labels(sink)

    def spans_dropped(self, sink: str, reason: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.SPANS_DROPPED).labels(sink, reason)

    def log_records_kept(self) -> SlotCounter:
        return self._collector.counter_of(catalogue.LOG_RECORDS_KEPT).labels()

    def log_records_dropped(self, reason: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.LOG_RECORDS_DROPPED).labels(reason)

    def http_requests(self, route: str, method: str, status: str) -> SlotCounter:
        """`route` is a pattern, `status` a class of them such as 2xx."""
        return self._collector.counter_of(catalogue.HTTP_REQUESTS).labels(route, method, status)

    def http_request_seconds(self, route: str) -> SlotHistogram:
        return self._collector.histogram_of(catalogue.HTTP_REQUEST_SECONDS).labels(route)

    def http_refused(self, reason: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.HTTP_REFUSED).labels(reason)

    def http_streams(self, stream: str) -> SlotGauge:
        return self._collector.gauge_of(catalogue.HTTP_STREAMS).labels(stream)

    def http_stream_dropped(self, stream: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.HTTP_STREAM_DROPPED).labels(stream)

    def supervised_restarts(self, task: str) -> SlotCounter:
        return self._collector.counter_of(catalogue.SUPERVISED_RESTARTS).labels(task)

    def log_lines_dropped(self) -> SlotCounter:
        return self._collector.counter_of(catalogue.LOG_LINES_DROPPED).labels()
