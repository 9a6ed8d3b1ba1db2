"""What engines execute: small programs against a session, run directly or inside a transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from polaris.storage._documents import Document
from polaris.storage._filter import Filter
from polaris.storage._graph import Direction, GraphEdge, GraphNode, Subgraph
from polaris.storage._sorting import Page, SortBy
from polaris.storage._timeseries import AggregatedPoint, AggregationType, TimeSeriesPoint

T = TypeVar("T")
Micros = tuple[int, int]


class TimeSeriesSession(Protocol):
    """Time series inside one transaction; arguments are checked already."""

    def store_many(self, collection: str, points: Sequence[TimeSeriesPoint]) -> None: ...

    def query(
        self,
        collection: str,
        micros: Micros,
        tags: dict[str, str],
        *,
        limit: int,
        descending: bool,
        fields: frozenset[str] | None,
    ) -> list[TimeSeriesPoint]: ...

    def aggregate(self, collection: str, request: AggregateRequest) -> list[AggregatedPoint]: ...

    def latest(self, collection: str, tags: dict[str, str]) -> list[TimeSeriesPoint]: ...

    def delete_range(self, collection: str, micros: Micros, tags: dict[str, str]) -> int: ...

    def retain(self, collection: str, since_us: int, rows_max: int) -> int: ...

    def list_series(self, collection: str, tags: dict[str, str]) -> list[dict[str, str]]: ...


class AggregateRequest(msgspec.Struct, frozen=True):
    """An aggregate query, checked and in microseconds."""

    micros: Micros
    aggregation: AggregationType
    group_by: tuple[str, ...]
    bucket_us: int | None
    tags: dict[str, str]
    fields: tuple[str, ...] | None


class DocumentSession(Protocol):
    """Documents inside one transaction; arguments are checked already, `body` is the JSON text of a document."""

    def insert_many(self, collection: str, documents: Sequence[tuple[str, Document]]) -> None: ...

    def put(self, collection: str, document_id: str, document: Document, expected_version: int | None) -> None: ...

    def get(self, collection: str, document_id: str) -> Document | None: ...

    def find(
        self, collection: str, term: Filter, *, limit: int, order: tuple[SortBy, ...], page: Page | None
    ) -> list[Document]: ...

    def count(self, collection: str, term: Filter) -> int: ...

    def update(self, collection: str, document_id: str, updates: Document, expected_version: int | None) -> bool: ...

    def delete(self, collection: str, document_id: str) -> bool: ...

    def create_index(self, collection: str, paths: tuple[tuple[str, ...], ...], *, unique: bool) -> None: ...


class GraphSession(Protocol):
    """The graph inside one transaction; arguments are checked already."""

    def add_node(self, node_id: str, properties: dict[str, Any]) -> None: ...

    def get_node(self, node_id: str) -> GraphNode | None: ...

    def remove_node(self, node_id: str) -> bool: ...

    def add_edge(self, edge: GraphEdge) -> None: ...

    def get_edge(self, source: str, target: str, relationship_type: str) -> GraphEdge | None: ...

    def remove_edge(self, source: str, target: str, relationship_type: str | None) -> bool: ...

    def neighbors(self, node_id: str, direction: Direction, relationship_type: str | None) -> list[str]: ...

    def edges(
        self, node_id: str | None, direction: Direction, relationship_type: str | None, limit: int
    ) -> list[GraphEdge]: ...

    def path(
        self, source: str, target: str, max_depth: int, direction: Direction, relationship_type: str | None
    ) -> list[str] | None: ...

    def closure(
        self, node_id: str, direction: Direction, relationship_type: str | None, max_depth: int
    ) -> dict[str, int]: ...

    def subgraph(self, node_id: str, max_depth: int, direction: Direction) -> Subgraph: ...


class OutboxRow(msgspec.Struct, frozen=True):
    """An event to be published; `sequence` orders all of an engine and is given at the commit."""

    sequence: int
    topic: str
    event_type: str
    version: int
    payload: bytes
    created_at: datetime


class OutboxSession(Protocol):
    """The outbox inside one transaction."""

    def add(self, topic: str, event_type: str, version: int, payload: bytes, created_us: int) -> None: ...

    def pending(self, limit: int, after: int) -> list[OutboxRow]: ...

    def remove(self, sequences: Sequence[int]) -> int: ...

    def count(self) -> int: ...


class Session(Protocol):
    """One transaction's view of all models."""

    @property
    def time_series(self) -> TimeSeriesSession: ...

    @property
    def documents(self) -> DocumentSession: ...

    @property
    def graph(self) -> GraphSession: ...

    @property
    def outbox(self) -> OutboxSession: ...


class _Unknown:
    """The result of an operation that only running it can tell."""


UNKNOWN = _Unknown()


class Operation(Generic[T]):
    """A program and what is known of it.

    It calls one method of one model of a session. An engine whose sessions are asynchronous (those of a server) awaits
    what `run` gives; nothing else differs, so the ports are the same for all engines. It must be repeatable: run again
    on the same content it does the same, because transactions rehearse operations. `known` is its result where that
    does not depend on the content of the store. `weight` counts what it carries.
    """

    __slots__ = ("known", "mutates", "run", "weight")

    def __init__(
        self, run: Callable[[Session], T], *, mutates: bool, known: T | _Unknown = UNKNOWN, weight: int = 1
    ) -> None:
        self.run = run
        self.mutates = mutates
        self.known = known
        self.weight = weight


class Executor(Protocol):
    """Runs operations: an engine each in a transaction of its own, a transaction as a part of itself."""

    async def execute(self, operation: Operation[T]) -> T: ...
