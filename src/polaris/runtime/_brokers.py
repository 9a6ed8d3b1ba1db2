"""The connections of a node to its bus, by its settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from polaris.messaging import LanedMessageBroker, MessageBroker, NATSConfig, NATSMessageBroker, TLSConfig
from polaris.runtime._bus_host import BusHost
from polaris.runtime._settings import NatsSettings, Settings, TlsSettings


def source_of(settings: Settings) -> str:
    """How the node names itself as the source of events."""
    return f"polaris/{settings.node.name}"


def broker_of_host(settings: Settings, host: BusHost) -> MessageBroker:
    return _laned(settings, host.server.client_config)


def broker(settings: Settings) -> MessageBroker:
    return _laned(settings, lambda name: nats_config(settings.nats, name=name))


def broker_of_taps(settings: Settings, host: BusHost | None = None) -> MessageBroker:
    """A connection for those who look on, not connected: what they are sent must hold up nobody else."""
    name = f"{source_of(settings)} taps"
    return NATSMessageBroker(host.server.client_config(name) if host else nats_config(settings.nats, name=name))


def _laned(settings: Settings, config: Callable[[str], NATSConfig]) -> MessageBroker:
    """Telemetry has a connection of its own, so that no action and no result waits behind it."""
    name = source_of(settings)
    return LanedMessageBroker(NATSMessageBroker(config(name)), NATSMessageBroker(config(f"{name} telemetry")))


def nats_config(settings: NatsSettings, *, name: str) -> NATSConfig:
    """The client's view of the configured servers."""
    return NATSConfig(
        servers=tuple(settings.servers),
        name=name,
        token=settings.token,
        user=settings.user,
        password=settings.password,
        nkey=_path(settings.nkey_file),
        credentials=_path(settings.credentials_file),
        tls=_tls(settings.tls),
        connect_timeout_s=settings.connect_timeout_s,
    )


def _tls(settings: TlsSettings) -> TLSConfig | None:
    if settings == TlsSettings():
        return None
    return TLSConfig(
        ca_file=_path(settings.ca_file),
        cert_file=_path(settings.cert_file),
        key_file=_path(settings.key_file),
        hostname=settings.hostname,
        handshake_first=settings.handshake_first,
    )


def _path(name: str | None) -> str | None:
    return str(Path(name).expanduser()) if name else None
