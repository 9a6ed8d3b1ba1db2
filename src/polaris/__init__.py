"""POLARIS: infrastructure for self-adaptive systems. The names a newcomer needs first, each loaded at its first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polaris._lazy import lazy_names

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
    from polaris.runtime import bus_of_node
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
    "bus_of_node",
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
    "bus_of_node": "runtime",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
