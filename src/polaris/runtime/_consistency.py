"""What one key of the configuration alone cannot tell: whether the keys fit together."""

from __future__ import annotations

from urllib.parse import urlsplit

from polaris._redaction import redact_text
from polaris.api import is_loopback
from polaris.exceptions import ConfigurationError, InvalidValueError
from polaris.runtime._settings import Settings, StoreSettings, TlsSettings
from polaris.runtime._store import retention_policy, routed_store


def check_whole(settings: Settings, problems: list[str]) -> None:
    """What one key alone cannot tell."""
    nats = settings.nats
    if nats.servers and nats.port:
        problems.append("nats.port: is for the embedded server, but nats.servers names others; remove one of the two")
    problems.extend(
        f"nats.servers: {redact_text(server)!r} is no address (write nats://host:4222)"
        for server in nats.servers
        if not _is_address(server)
    )
    if nats.replicas > 1 and not nats.servers:
        problems.append("nats.replicas: is for a cluster, but the embedded server is one; name its nats.servers")
    if bool(nats.user) != bool(nats.password):
        problems.append("nats.user: user and password belong together; one of them is missing")
    if nats.tls != TlsSettings() and not nats.servers:
        problems.append("nats.tls: is for servers of your own, the embedded one is on loopback; name your nats.servers")
    if bool(nats.tls.cert_file) != bool(nats.tls.key_file):
        problems.append("nats.tls: cert_file and key_file belong together; one of them is missing")
    _check_store(settings.store, problems)
    _check_retention(settings, problems)
    if not is_loopback(settings.http.host) and settings.http.token is None:
        problems.append(
            f"http.host = {settings.http.host!r}: is more than this machine alone, which needs http.token or "
            'http.token_file; or take "127.0.0.1"'
        )
    for system_id, system in settings.systems.items():
        if not _is_id(system_id):
            problems.append(
                f"systems: {redact_text(repr(system_id), chars_max=80)} cannot be an id (1 to 256 characters)"
            )
        problems.extend(
            f"systems.{system_id}.depends_on: {redact_text(repr(other), chars_max=80)} cannot be another system"
            for other in system.depends_on
            if other == system_id or not _is_id(other)
        )
        if system.timeout_s > 3600:
            problems.append(f"systems.{system_id}.timeout_s = {system.timeout_s:g}: at most 3600")


def _is_id(text: str) -> bool:
    return 0 < len(text) <= 256 and text.isprintable()


def _check_store(store: StoreSettings, problems: list[str]) -> None:
    if store.engine == "postgresql":
        if store.routing.servers:
            _check_routing(store, problems)
        else:
            _check_dsn("store.dsn", store.dsn, problems)
        if store.path:
            problems.append('store.path: is for the engine "sqlite"; remove it')
        if store.limits.size_bytes_max is not None:
            problems.append('store.limits.size_bytes_max: is for the engine "sqlite"; bound the database at the server')
    elif store.routing.servers:
        problems.append('store.routing: is for the engine "postgresql", but store.engine is "sqlite"')
    elif store.dsn:
        problems.append(
            'store.dsn: is for the engine "postgresql", but store.engine is "sqlite"; remove one of the two'
        )


def _check_retention(settings: Settings, problems: list[str]) -> None:
    chosen = settings.store.retention
    if chosen.rollups and chosen.summary_s is not None:
        problems.append(
            "store.retention.summary_s: is for samples without rollups; remove it, or the rollups: "
            "the first of them gives the summaries their width"
        )
    try:
        retention_policy(settings)
    except InvalidValueError as error:
        problems.append(f"store.retention: {error}")


def _check_dsn(key: str, dsn: str | None, problems: list[str]) -> None:
    if not dsn:
        problems.append(f"{key}: is missing (write postgresql://user@host/database)")
    elif not dsn.startswith(("postgresql://", "postgres://")):
        problems.append(f"{key}: is no address of a database (write postgresql://user@host/database)")


def _check_routing(store: StoreSettings, problems: list[str]) -> None:
    if store.dsn:
        problems.append("store.dsn: is for one server, but store.routing.servers names others; remove one of the two")
    for name, server in store.routing.servers.items():
        _check_dsn(f"store.routing.servers.{name}.dsn", server.dsn, problems)
    if not problems:
        try:
            routed_store(store)
        except ConfigurationError as error:
            problems += [f"store.routing: {problem}" for problem in error.problems or (error.message,)]


def _is_address(server: str) -> bool:
    try:
        parts = urlsplit(server)
        return parts.scheme in ("nats", "tls") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
