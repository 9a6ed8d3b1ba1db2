"""POLARIS: infrastructure for self-adaptive systems. The names a newcomer needs first, each loaded at its first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polaris.connectors import ManagedSystemConnector
    from polaris.di import DIContainer
    from polaris.domain import (
        AdaptationAction,
        AdaptationEvent,
        ExecutionResult,
        ExecutionResultEvent,
        MetricValue,
        SystemState,
        TelemetryEvent,
    )
    from polaris.exceptions import PolarisException
    from polaris.messaging import InMemoryMessageBroker, NATSConfig, NATSMessageBroker, PolarisMessageBus
    from polaris.storage import PolarisDataStore

__version__ = "0.1.0"

__all__ = [
    "PolarisMessageBus",
    "NATSMessageBroker",
    "NATSConfig",
    "InMemoryMessageBroker",
    "PolarisDataStore",
    "DIContainer",
    "ManagedSystemConnector",
    "SystemState",
    "MetricValue",
    "TelemetryEvent",
    "AdaptationAction",
    "AdaptationEvent",
    "ExecutionResult",
    "ExecutionResultEvent",
    "PolarisException",
]

_HOMES = {
    "PolarisMessageBus": "messaging",
    "NATSMessageBroker": "messaging",
    "NATSConfig": "messaging",
    "InMemoryMessageBroker": "messaging",
    "PolarisDataStore": "storage",
    "DIContainer": "di",
    "ManagedSystemConnector": "connectors",
    "SystemState": "domain",
    "MetricValue": "domain",
    "TelemetryEvent": "domain",
    "AdaptationAction": "domain",
    "AdaptationEvent": "domain",
    "ExecutionResult": "domain",
    "ExecutionResultEvent": "domain",
    "PolarisException": "exceptions",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module

    value: object = getattr(import_module(f"polaris.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
