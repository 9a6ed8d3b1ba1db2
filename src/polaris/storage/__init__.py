"""The data store: three models, one transaction, engines that behave alike.

The engines' drivers are imported when an engine is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polaris._lazy import lazy_names
from polaris.storage._backend import StorageBackend, StorageEngine, StorageModels, StorageTransaction, StoreHealth
from polaris.storage._data_store import PolarisDataStore
from polaris.storage._documents import Document, DocumentChanges, DocumentIndex, DocumentStorageBackend, Query
from polaris.storage._graph import (
    CycleList,
    Direction,
    GraphEdge,
    GraphFormat,
    GraphNode,
    GraphStorageBackend,
    PathList,
    Reach,
    RelationshipTypes,
    Subgraph,
    WeightedPath,
)
from polaris.storage._outbox import Outbox, OutboxEntry
from polaris.storage._ranges import TimeRange
from polaris.storage._repository import DocumentRepository, Repository
from polaris.storage._rollups import RetentionPolicy, RollupPolicy
from polaris.storage._series_limits import SeriesLimits
from polaris.storage._timeseries import (
    AggregatedPoint,
    AggregatedRow,
    AggregationType,
    CalendarUnit,
    FieldValue,
    Fill,
    Order,
    TagQuery,
    TimeSeriesPoint,
    TimeSeriesStorageBackend,
)
from polaris.storage._unit_of_work import PolarisUnitOfWork
from polaris.storage.repositories import (
    AdaptationActionRepository,
    ExecutionResultRepository,
    LearnedPatternRepository,
    LinkedSystem,
    SystemDependencyRepository,
    SystemStateRepository,
    SystemSummary,
)

if TYPE_CHECKING:
    from polaris.storage._export import ExportProgress, ExportReport, export_documents, export_time_series
    from polaris.storage._frames import to_arrow, to_pandas, to_polars
    from polaris.storage._routing import RoutedDataStore
    from polaris.storage._routing_work import RoutedUnitOfWork
    from polaris.storage.backends.memory import (
        InMemoryDocumentBackend,
        InMemoryEngine,
        InMemoryGraphBackend,
        InMemoryTimeSeriesBackend,
    )
    from polaris.storage.backends.postgresql import PostgresEngine
    from polaris.storage.backends.sqlite import SqliteEngine, restore_store, verify_store

_ENGINES = {
    "InMemoryEngine": "backends.memory",
    "InMemoryTimeSeriesBackend": "backends.memory",
    "InMemoryDocumentBackend": "backends.memory",
    "InMemoryGraphBackend": "backends.memory",
    "SqliteEngine": "backends.sqlite",
    "restore_store": "backends.sqlite",
    "verify_store": "backends.sqlite",
    "export_time_series": "_export",
    "export_documents": "_export",
    "ExportReport": "_export",
    "ExportProgress": "_export",
    "to_arrow": "_frames",
    "to_pandas": "_frames",
    "to_polars": "_frames",
    "PostgresEngine": "backends.postgresql",
    "RoutedDataStore": "_routing",
    "RoutedUnitOfWork": "_routing_work",
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
    "AggregatedRow",
    "AggregationType",
    "CalendarUnit",
    "Fill",
    "SeriesLimits",
    "RetentionPolicy",
    "RollupPolicy",
    "TagQuery",
    "FieldValue",
    "Order",
    "TimeRange",
    "DocumentStorageBackend",
    "Document",
    "DocumentChanges",
    "DocumentIndex",
    "Query",
    "GraphStorageBackend",
    "GraphNode",
    "GraphEdge",
    "Subgraph",
    "Direction",
    "RelationshipTypes",
    "Reach",
    "WeightedPath",
    "PathList",
    "CycleList",
    "GraphFormat",
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
    "LinkedSystem",
    "InMemoryEngine",
    "InMemoryTimeSeriesBackend",
    "InMemoryDocumentBackend",
    "InMemoryGraphBackend",
    "SqliteEngine",
    "restore_store",
    "verify_store",
    "export_time_series",
    "export_documents",
    "ExportReport",
    "ExportProgress",
    "to_arrow",
    "to_pandas",
    "to_polars",
    "PostgresEngine",
    "RoutedDataStore",
    "RoutedUnitOfWork",
]

__getattr__, __dir__ = lazy_names(__name__, _ENGINES)
