"""What can be configured, with types, bounds and defaults: one struct per section of `polaris.toml`."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Days = Annotated[float, Meta(gt=0, le=365_000)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
SecretText = Annotated[str, Meta(min_length=1, max_length=4096)]

DATA_DIR_DEFAULT = "polaris-data"


def _this_machine() -> str:
    return platform.node() or "localhost"


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the configuration file. Unknown keys are refused."""


class NodeSettings(Section, frozen=True):
    """`[node]`: this process."""

    name: Annotated[str, Meta(min_length=1, max_length=128)] = msgspec.field(default_factory=_this_machine)
    data_dir: str = DATA_DIR_DEFAULT
    """Where the embedded bus and store keep their files; relative to the working directory. One node owns it."""
    shutdown_grace_s: Seconds = 10.0
    """How long a stop may take to drain work in flight; what is left then comes again at the next start."""


class TlsSettings(Section, frozen=True):
    """`[nats.tls]`: encryption of the connections to `nats.servers`; without anything here as each address asks."""

    required: bool = False
    """Refuse a server that offers no encryption, before any secret is sent; so does anything else set here."""
    ca_file: str | None = None
    """Certificate authorities to trust instead of the system's."""
    cert_file: str | None = None
    """The node's own certificate chain, for servers that ask for one."""
    key_file: str | None = None
    """The key to it."""
    hostname: str | None = None
    """The name to verify when it is not the host of the server's address."""
    handshake_first: bool = False
    """Encrypt before the server's greeting; the server must be set to the same."""


class NatsSettings(Section, frozen=True):
    """`[nats]`: the bus. Without `servers` an embedded server is started on loopback."""

    servers: list[Annotated[str, Meta(min_length=1, max_length=2048)]] = []
    token: SecretText | None = None
    token_file: str | None = None
    user: str | None = None
    password: SecretText | None = None
    password_file: str | None = None
    credentials_file: str | None = None
    nkey_file: str | None = None
    tls: TlsSettings = TlsSettings()
    connect_timeout_s: Seconds = 5.0
    port: Port = 0
    """Port of the embedded server; 0 takes the one of the last run when it is free, otherwise any."""
    max_payload_bytes: Annotated[int, Meta(ge=65_536, le=67_108_864)] = 1_048_576
    replicas: Annotated[int, Meta(ge=1, le=5)] = 1
    """How many servers of a cluster keep each stream; an odd number above 1 survives the loss of the minority."""


class RollupSettings(Section, frozen=True):
    """`[[store.retention.rollups]]`: summaries that are kept when the samples themselves are gone."""

    width_s: Annotated[int, Meta(ge=1, le=31_622_400)]
    """What one summary of a metric spans; a multiple of the width before."""
    kept_days: Days | None = None
    """None keeps them for ever."""


class RetentionSettings(Section, frozen=True):
    """`[store.retention]`: how long telemetry is kept, by its own timestamps; for ever unless something is set here.

    The newest sample of each system always stays. A replay of old telemetry is old when it comes.
    """

    enabled: bool = True
    """False leaves the policy alone that somebody else has set in the store."""
    raw_days: Days | None = None
    """Samples as they came; None keeps them for ever."""
    summary_s: Annotated[int, Meta(ge=0, le=86_400)] | None = None
    """What one of the summaries spans that make long ranges quick to read, and go with their samples; 0 makes none.

    None takes 5 minutes, in a file more when the systems report seldom. The first rollup, where there is one, gives the
    width instead.
    """
    rollups: list[RollupSettings] = []


class LimitSettings(Section, frozen=True):
    """`[store.limits]`: what the store refuses rather than grow without end. Samples over a limit are put aside."""

    series_max: Annotated[int, Meta(ge=1, le=1 << 40)] = 1_000_000
    """Time series of the whole store; what is there already is written as before."""
    collection_series_max: Annotated[int, Meta(ge=1, le=1 << 40)] = 250_000
    """Time series of one collection. Every managed system is a series of the collection `system_states`."""
    size_bytes_max: Annotated[int, Meta(ge=65_536)] | None = None
    """Of the embedded store's file, without its log; None bounds it by the disk alone."""


class ServerSettings(Section, frozen=True):
    """`[store.routing.servers.<name>]`: one of several PostgreSQL servers."""

    dsn: SecretText | None = None
    """Of its database: `postgresql://user@host1,host2/name`."""
    dsn_file: str | None = None
    weight: Annotated[int, Meta(ge=0, le=100)] = 1
    """Its share of new systems, beside the weights of the others; 0 gives it none."""


class RoutingSettings(Section, frozen=True):
    """`[store.routing]`: several servers that managed systems are spread over, in place of one `store.dsn`.

    For programs that use `open_routed_store`, and for `polaris store servers|move|moves`. `polaris run` keeps its store
    on one server, and refuses to start with several. All programs have to agree on everything here: the servers record
    it.
    """

    servers: dict[str, ServerSettings] = {}
    shared: str | None = None
    """The server of what belongs to no system; None takes the first by name."""
    series: list[Annotated[str, Meta(min_length=1, max_length=128)]] = []
    """Collections of points of one's own that belong to systems: each point has the tag `system_id`."""
    documents: dict[str, str] = {}
    """Collections of documents of one's own that belong to systems, and the path of the system's id in them."""


class StoreSettings(Section, frozen=True):
    """`[store]`: the data store: a file, which one node owns, or a schema of a PostgreSQL database.

    Nodes that share a schema have names, managed systems and folders of their own, and `nats.servers` in common.
    """

    engine: Literal["sqlite", "postgresql"] = "sqlite"
    path: str | None = None
    """The store's file; None puts `polaris.db` into the data folder."""
    dsn: SecretText | None = None
    """Of the database: `postgresql://user@host1,host2/name`; several hosts are tried until one takes writes."""
    dsn_file: str | None = None
    schema: Annotated[str, Meta(pattern="^[a-z_][a-z0-9_]{0,62}$")] = "polaris"
    """The schema of the database that belongs to POLARIS."""
    limits: LimitSettings = LimitSettings()
    retention: RetentionSettings = RetentionSettings()
    routing: RoutingSettings = RoutingSettings()


class HttpSettings(Section, frozen=True):
    """`[http]`: page, API and metrics. On loopback reading is open to every process of this machine."""

    enabled: bool = True
    host: Annotated[str, Meta(min_length=1, max_length=253)] = "127.0.0.1"
    """Anything but loopback needs a token, for everything; what travels is not encrypted, so put TLS in front."""
    port: Port | None = None
    """None prefers 8642 and takes any free port when that is in use; 0 takes any; a given port is taken or refused."""
    names: list[Annotated[str, Meta(min_length=1, max_length=253)]] = []
    """Further host names under which the node answers, such as that of a proxy in front of it."""
    token: Annotated[str, Meta(min_length=16, max_length=4096)] | None = None
    """What changes need. None makes one and keeps it in the data folder, readable by the node's user."""
    token_file: str | None = None


class LoggingSettings(Section, frozen=True):
    """`[logging]`: structured logs on standard error and in a file."""

    level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
    """auto: readable on a terminal, JSON lines otherwise."""
    console_level: Literal["debug", "info", "warning", "error", "critical"] | None = None
    """Only what is as severe goes to standard error; file and page have the rest. Without it: all that is logged."""
    file: str | None = None
    max_file_size: Annotated[int, Meta(ge=4096)] = 10_485_760
    backup_count: Annotated[int, Meta(ge=0, le=100)] = 5
    kept_max: Count = 10_000
    """Records that the store keeps for the page; the oldest go first."""
    kept_days: Days = 7.0


class TracingSettings(Section, frozen=True):
    """`[tracing]`: which traces are recorded. OTLP export follows the standard variables `OTEL_EXPORTER_OTLP_...`."""

    enabled: bool = True
    ratio: Annotated[float, Meta(ge=0, le=1)] = 0.01
    """Which share of the samples begins a recorded trace. Actions and errors are recorded always."""
    kept_max: Count = 1_000
    """Traces that the store keeps for the page; the oldest go first."""
    kept_days: Days = 7.0


class HealthSettings(Section, frozen=True):
    """`[health]`: what is remembered of parts of the node and systems that were not well."""

    kept_max: Count = 10_000
    """Periods that the store keeps; of those that are over the oldest go first."""
    kept_days: Days = 30.0


class MetricsSettings(Section, frozen=True):
    """`[metrics]`: what `/metrics` tells beyond what it always does."""

    middleware_durations: bool = False
    """How long each middleware of the bus takes: `polaris_operation_duration_seconds{component="middleware"}`.

    About doubles what a message costs on the bus, at the publisher and at the handler. The series are one a middleware.
    """


class TelemetrySettings(Section, frozen=True):
    """`[telemetry]`: the way of samples into the store."""

    batch_max: Annotated[int, Meta(ge=1, le=10_000)] = 500
    """Events written in one transaction at most."""
    batch_linger_s: Annotated[float, Meta(ge=0, le=5)] = 0.02
    """How long a batch waits for more events."""
    clock_ahead_tolerance_s: Annotated[float, Meta(ge=0, le=86_400)] = 5.0
    """A sample stamped further ahead of this machine's clock than this is accepted and marked."""
    publish_buffer_max: Count = 1000
    """Samples per managed system kept while the bus is away; the oldest go first, and are counted."""


class ActionSettings(Section, frozen=True):
    """`[actions]`: how adaptation actions are carried out."""

    timeout_s: Seconds = 30.0
    """For actions that name no timeout of their own."""
    attempts_max: Annotated[int, Meta(ge=1, le=10)] = 3
    """Attempts in all, when an error says that nothing was done."""
    breaker_failures: Count = 5
    breaker_open_s: Seconds = 30.0
    concurrent_max: Annotated[int, Meta(ge=1, le=64)] = 1
    """Actions of one managed system at a time."""


class SystemSettings(Section, frozen=True):
    """`[systems.<id>]`: one managed system."""

    connector: Annotated[str, Meta(min_length=1, max_length=128)]
    interval_s: Annotated[float, Meta(ge=0.05, le=86_400)] = 1.0
    """Seconds between two samples."""
    timeout_s: Seconds = 5.0
    """How long taking one sample may last."""
    enabled: bool = True
    depends_on: list[Annotated[str, Meta(min_length=1, max_length=256)]] = []
    """Ids of the systems that this one cannot do without: drawn on the page, listed by `polaris graph dependencies`."""
    options: dict[str, Any] = {}
    """What the connector wants to know; checked by the connector."""


class Settings(Section, frozen=True):
    """The whole configuration."""

    node: NodeSettings = NodeSettings()
    nats: NatsSettings = NatsSettings()
    store: StoreSettings = StoreSettings()
    http: HttpSettings = HttpSettings()
    logging: LoggingSettings = LoggingSettings()
    tracing: TracingSettings = TracingSettings()
    health: HealthSettings = HealthSettings()
    metrics: MetricsSettings = MetricsSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    actions: ActionSettings = ActionSettings()
    systems: dict[str, SystemSettings] = msgspec.field(
        default_factory=lambda: {"this-machine": SystemSettings(connector="host")}
    )

    @property
    def data_dir(self) -> Path:
        """The absolute data folder."""
        return Path(self.node.data_dir).expanduser().absolute()

    @property
    def store_path(self) -> Path:
        """The absolute path of the embedded store's file."""
        return Path(self.store.path).expanduser().absolute() if self.store.path else self.data_dir / "polaris.db"
