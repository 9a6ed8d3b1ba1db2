"""The data store: three models, one transaction, engines that behave alike.

The engines' drivers are imported when an engine is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polaris._lazy import lazy_names
from polaris.storage._backend import StorageBackend, StorageEngine, StorageModels, StorageTransaction, StoreHealth
from polaris.storage._data_store import PolarisDataStore
from polaris.storage._documents import Document, DocumentStorageBackend, Query
from polaris.storage._graph import Direction, GraphEdge, GraphNode, GraphStorageBackend, Subgraph
from polaris.storage._outbox import Outbox, OutboxEntry
from polaris.storage._ranges import TimeRange
from polaris.storage._repository import DocumentRepository, Repository
from polaris.storage._timeseries import (
    AggregatedPoint,
    AggregationType,
    FieldValue,
    Order,
    TimeSeriesPoint,
    TimeSeriesStorageBackend,
)
from polaris.storage._unit_of_work import PolarisUnitOfWork
from polaris.storage.repositories import (
    AdaptationActionRepository,
    ExecutionResultRepository,
    LearnedPatternRepository,
    SystemDependencyRepository,
    SystemStateRepository,
    SystemSummary,
)

if TYPE_CHECKING:
    from polaris.storage.backends.memory import (
        InMemoryDocumentBackend,
        InMemoryEngine,
        InMemoryGraphBackend,
        InMemoryTimeSeriesBackend,
    )
    from polaris.storage.backends.sqlite import SqliteEngine

_ENGINES = {
    "InMemoryEngine": "backends.memory",
    "InMemoryTimeSeriesBackend": "backends.memory",
    "InMemoryDocumentBackend": "backends.memory",
    "InMemoryGraphBackend": "backends.memory",
    "SqliteEngine": "backends.sqlite",
}

__all__ = [
    "PolarisDataStore",
    "PolarisUnitOfWork",
    "StorageBackend",
    "StorageEngine",
    "StorageModels",
    "StorageTransaction",
    "StoreHealth",
    "TimeSeriesStorageBackend",
    "TimeSeriesPoint",
    "AggregatedPoint",
    "AggregationType",
    "FieldValue",
    "Order",
    "TimeRange",
    "DocumentStorageBackend",
    "Document",
    "Query",
    "GraphStorageBackend",
    "GraphNode",
    "GraphEdge",
    "Subgraph",
    "Direction",
    "Outbox",
    "OutboxEntry",
    "Repository",
    "DocumentRepository",
    "SystemStateRepository",
    "SystemSummary",
    "AdaptationActionRepository",
    "ExecutionResultRepository",
    "LearnedPatternRepository",
    "SystemDependencyRepository",
    "InMemoryEngine",
    "InMemoryTimeSeriesBackend",
    "InMemoryDocumentBackend",
    "InMemoryGraphBackend",
    "SqliteEngine",
]

__getattr__, __dir__ = lazy_names(__name__, _ENGINES)
