"""Every metric of POLARIS: name, meaning and labels in one place.

`topic` is always a topic *pattern* (`polaris.telemetry.*`), never a concrete topic. Seconds are the unit of time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from polaris.observability._series import SERIES_MAX

OPERATION_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
MESSAGE_BUCKETS_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
LOOP_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

MetricKind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """The shape of one metric. `kept` are labels with few values, which survive when the series are too many."""

    kind: MetricKind
    name: str
    help_text: str
    labels: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    series_max: int = SERIES_MAX


ADAPTATIONS = MetricSpec(
    "counter",
    "polaris_adaptations_total",
    "Adaptation actions that ended, by outcome.",
    ("system_id", "action_type", "status"),
    ("status",),
)
HEALTH_SCORE = MetricSpec(
    "gauge", "polaris_system_health_score", "Last health score of a managed system.", ("system_id",)
)
MESSAGES = MetricSpec(
    "counter",
    "polaris_messages_total",
    "Messages through the bus, by what became of them.",
    ("topic", "status", "event_type"),
    ("status",),
)
MESSAGE_SECONDS = MetricSpec(
    "histogram",
    "polaris_message_processing_seconds",
    "Time to process one message.",
    ("topic", "event_type"),
    (),
    MESSAGE_BUCKETS_S,
)
OPERATION_SECONDS = MetricSpec(
    "histogram",
    "polaris_operation_duration_seconds",
    "Time of one operation of a component.",
    ("component", "operation"),
    (),
    OPERATION_BUCKETS_S,
)
ACTIVE_CONNECTIONS = MetricSpec(
    "gauge", "polaris_active_connections", "Connections that are open now.", ("connection_type",)
)
SERIES_OVERFLOW = MetricSpec(
    "counter",
    "polaris_metric_series_overflow_total",
    "Label sets that went to the series _other, because their metric has as many series as it may.",
    ("metric",),
)
METRIC_READ_ERRORS = MetricSpec(
    "counter",
    "polaris_metric_read_errors_total",
    "Series left out of a scrape, because the function that gives their value failed.",
    ("metric",),
)
BREAKER_STATE = MetricSpec(
    "gauge",
    "polaris_circuit_breaker_state",
    "1 for the state a circuit breaker is in, 0 for the others.",
    ("breaker", "state"),
    ("state",),
)
BREAKER_TRANSITIONS = MetricSpec(
    "counter",
    "polaris_circuit_breaker_transitions_total",
    "Changes of state of a circuit breaker, by the state entered.",
    ("breaker", "state"),
    ("state",),
)
BREAKER_REJECTED = MetricSpec(
    "counter",
    "polaris_circuit_breaker_rejected_total",
    "Calls that a circuit breaker did not let through.",
    ("breaker",),
)
BREAKER_PROBES_EXPIRED = MetricSpec(
    "counter",
    "polaris_circuit_breaker_probes_expired_total",
    "Probes of a half-open circuit breaker that held their permit longer than its lease.",
    ("breaker",),
)
BULKHEAD_IN_USE = MetricSpec(
    "gauge", "polaris_bulkhead_in_use", "Calls that hold a permit of a bulkhead now.", ("bulkhead",)
)
BULKHEAD_QUEUED = MetricSpec(
    "gauge", "polaris_bulkhead_queued", "Calls that wait for a permit of a bulkhead now.", ("bulkhead",)
)
BULKHEAD_REJECTED = MetricSpec(
    "counter", "polaris_bulkhead_rejected_total", "Calls that a bulkhead turned away.", ("bulkhead",)
)
BULKHEAD_LIMIT = MetricSpec(
    "gauge", "polaris_bulkhead_limit", "Calls that may hold a permit of a bulkhead at once.", ("bulkhead",)
)
RETRIES = MetricSpec(
    "counter",
    "polaris_retries_total",
    "Failed attempts by what followed: retried, exhausted (a bound forbade another), refused (no use); and recovered.",
    ("operation", "outcome"),
    ("outcome",),
)
DEADLINES_EXPIRED = MetricSpec(
    "counter", "polaris_deadlines_expired_total", "Operations that were cancelled at their deadline.", ("operation",)
)
RATE_LIMITED = MetricSpec(
    "counter",
    "polaris_rate_limited_total",
    "Calls that a rate limiter or throttle turned away.",
    ("limiter", "reason"),
    ("reason",),
)
FALLBACKS = MetricSpec(
    "counter", "polaris_fallbacks_total", "Operations that failed and whose fallback answered.", ("operation",)
)
HEDGES = MetricSpec("counter", "polaris_hedges_total", "Calls started beside a slow one.", ("operation",))
CHAOS_INJECTED = MetricSpec(
    "counter", "polaris_chaos_injected_total", "Operations delayed or failed on purpose.", ("operation",)
)
DEAD_LETTERS = MetricSpec(
    "counter", "polaris_dead_letters_total", "Messages put aside as undeliverable.", ("topic", "reason"), ("reason",)
)
MESSAGES_DROPPED = MetricSpec(
    "counter",
    "polaris_messages_dropped_total",
    "Messages that nobody will handle, by reason: conflated, stale, overflow, gone, unreadable, abandoned.",
    ("topic", "subscription", "reason"),
    ("reason",),
)
REDELIVERIES = MetricSpec(
    "counter", "polaris_redeliveries_total", "Deliveries of a message after its first.", ("topic",)
)
CONSUMER_PENDING = MetricSpec(
    "gauge", "polaris_consumer_pending_messages", "Messages that wait for a durable consumer.", ("consumer",)
)
CONSUMER_UNACKED = MetricSpec(
    "gauge", "polaris_consumer_unacked_messages", "Messages delivered and not yet acknowledged.", ("consumer",)
)
CONSUMER_LAG = MetricSpec(
    "gauge", "polaris_consumer_lag_seconds", "Age of the message a durable consumer handled last.", ("consumer",)
)
STORE_WRITES = MetricSpec(
    "counter",
    "polaris_store_writes_total",
    "Rows and points handed to a store, by outcome.",
    ("store", "collection", "status"),
    ("status",),
)
STORE_WRITE_SECONDS = MetricSpec(
    "histogram",
    "polaris_store_write_seconds",
    "Time from handing a batch to a store until it is committed.",
    ("store",),
    (),
    OPERATION_BUCKETS_S,
)
LOOP_LATENCY = MetricSpec(
    "histogram",
    "polaris_loop_latency_seconds",
    "Time from the telemetry that caused an action to the result of the action.",
    ("action_type", "status"),
    ("status",),
    LOOP_BUCKETS_S,
)
CONNECTOR_POLLS = MetricSpec(
    "counter",
    "polaris_connector_polls_total",
    "Times a managed system was asked for its metrics, by outcome.",
    ("system_id", "status"),
    ("status",),
)
CONNECTOR_POLL_SECONDS = MetricSpec(
    "histogram",
    "polaris_connector_poll_seconds",
    "Time to read the metrics of a managed system.",
    ("connector",),
    (),
    OPERATION_BUCKETS_S,
)
BROKER_CONNECTED = MetricSpec(
    "gauge", "polaris_broker_connected", "1 while the connection to the broker is up, else 0.", ("broker",)
)
BROKER_RECONNECTS = MetricSpec(
    "counter", "polaris_broker_reconnects_total", "Lost connections to the broker that were made again.", ("broker",)
)
BROKER_AWAY_SECONDS = MetricSpec(
    "counter", "polaris_broker_away_seconds_total", "Time in which a lost connection was not back.", ("broker",)
)
TELEMETRY_SAMPLED = MetricSpec(
    "counter", "polaris_telemetry_sampled_total", "Samples that were taken of a managed system.", ("system_id",)
)
TELEMETRY_CONFIRMED = MetricSpec(
    "counter", "polaris_telemetry_confirmed_total", "Samples that the bus has confirmed.", ("system_id",)
)
TELEMETRY_WAITING = MetricSpec(
    "gauge", "polaris_telemetry_waiting_samples", "Samples that wait to be confirmed by the bus.", ("system_id",)
)
TELEMETRY_DROPPED = MetricSpec(
    "counter",
    "polaris_telemetry_dropped_total",
    "Samples that never reached the bus, by reason: buffer_full, refused, stopped.",
    ("system_id", "reason"),
    ("reason",),
)
EVENTS_PUBLISHED = MetricSpec(
    "counter", "polaris_events_published_total", "Events that were given to the bus to publish.", ("kind",)
)
EVENTS_CONFIRMED = MetricSpec(
    "counter", "polaris_events_confirmed_total", "Events that got the guarantee they were published with.", ("kind",)
)
EVENTS_WAITING = MetricSpec("gauge", "polaris_events_waiting", "Events that are being published.", ("kind",))
EVENTS_DROPPED = MetricSpec(
    "counter",
    "polaris_events_dropped_total",
    "Events whose publisher got an error instead of a confirmation, by reason.",
    ("kind", "reason"),
    ("reason",),
)
SEQUENCE_MISSED = MetricSpec(
    "counter",
    "polaris_sequence_missed_total",
    "Events that were not there when a later one of their publisher came.",
    ("subscription",),
)
SEQUENCE_LATE = MetricSpec(
    "counter", "polaris_sequence_late_total", "Missed events that came after all.", ("subscription",)
)
TELEMETRY_CLOCK_AHEAD = MetricSpec(
    "counter",
    "polaris_telemetry_clock_ahead_total",
    "Samples stamped further ahead of this machine's clock than tolerated.",
    ("system_id",),
)
EVENT_LOOP_LAG = MetricSpec(
    "histogram",
    "polaris_event_loop_lag_seconds",
    "How late the event loop ran a timer.",
    (),
    (),
    OPERATION_BUCKETS_S,
)
LOG_LINES_DROPPED = MetricSpec(
    "counter", "polaris_log_lines_dropped_total", "Log lines of this process that could not be written."
)

LEASE_HELD = MetricSpec(
    "gauge",
    "polaris_lease_held",
    "1 while this node holds a lease (place: its own name; outbox; upkeep), else 0.",
    ("lease",),
)
OUTBOX_WAITING = MetricSpec(
    "gauge", "polaris_outbox_waiting_events", "Events of committed transactions that wait to be published."
)
BUS_SERVER_RESTARTS = MetricSpec(
    "counter", "polaris_bus_server_restarts_total", "Times the embedded bus server was started again."
)
STORE_STAT = MetricSpec(
    "gauge",
    "polaris_store_stat",
    "What the engine of the store counts and measures of itself; the unit is the last word of the name.",
    ("name",),
)
POINTS_RETIRED = MetricSpec(
    "counter", "polaris_store_points_retired_total", "Points that were deleted because they were too old to keep."
)
DOCUMENTS_EXPIRED = MetricSpec(
    "counter", "polaris_store_documents_expired_total", "Documents that were deleted because their time was over."
)
COMPONENT_HEALTH = MetricSpec(
    "gauge",
    "polaris_component_health",
    "How a part of the node does: 1 healthy, 0.5 warning, 0 not well, -1 not known.",
    ("component",),
)
ACTIONS_RUNNING = MetricSpec("gauge", "polaris_actions_running", "Actions that are being carried out now.")
ACTION_SECONDS = MetricSpec(
    "histogram",
    "polaris_action_seconds",
    "Time to carry an action out, all attempts included, until its result is stored.",
    ("action_type", "status"),
    ("status",),
    LOOP_BUCKETS_S,
)
SPANS = MetricSpec("counter", "polaris_spans_total", "Spans that were recorded and have ended.")
SPANS_EXPORTED = MetricSpec(
    "counter", "polaris_spans_exported_total", "Spans that arrived where they go: store or otlp.", ("sink",)
)
SPANS_DROPPED = MetricSpec(
    "counter",
    "polaris_spans_dropped_total",
    "Spans that did not arrive, by reason: queue_full, failed, stopped, trace_full, rate.",
    ("sink", "reason"),
    ("sink", "reason"),
)
LOG_RECORDS_KEPT = MetricSpec(
    "counter", "polaris_log_records_kept_total", "Log records that were put into the store for the page."
)
LOG_RECORDS_DROPPED = MetricSpec(
    "counter",
    "polaris_log_records_dropped_total",
    "Log records that are missing in the store, though written elsewhere, by reason: queue_full, stopped.",
    ("reason",),
)
HTTP_REQUESTS = MetricSpec(
    "counter",
    "polaris_http_requests_total",
    "HTTP requests, by the pattern of their path and the class of the answer's status.",
    ("route", "method", "status"),
    ("status",),
)
HTTP_REQUEST_SECONDS = MetricSpec(
    "histogram",
    "polaris_http_request_seconds",
    "Time from a HTTP request to the end of its answer; live streams are left out.",
    ("route",),
    (),
    OPERATION_BUCKETS_S,
)
HTTP_REFUSED = MetricSpec(
    "counter",
    "polaris_http_refused_total",
    "HTTP requests that were turned away, by reason: token, origin, host, too_large, rate, busy.",
    ("reason",),
)
HTTP_STREAMS = MetricSpec("gauge", "polaris_http_streams", "Live streams that clients follow now.", ("stream",))
HTTP_STREAM_DROPPED = MetricSpec(
    "counter",
    "polaris_http_stream_dropped_total",
    "Live updates that clients of a stream missed, because they read too slowly.",
    ("stream",),
)
SUPERVISED_RESTARTS = MetricSpec(
    "counter",
    "polaris_supervised_restarts_total",
    "Times a part of the node, the embedded bus server included, was started again after it failed, by its name.",
    ("task",),
)

CATALOGUE: tuple[MetricSpec, ...] = tuple(value for value in list(globals().values()) if isinstance(value, MetricSpec))
"""All of the above, in this order."""
