"""What engines execute: small programs against a session, run directly or inside a transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Generic, Protocol, TypeVar

import msgspec

from polaris.storage._aggregation import AggregatedRow
from polaris.storage._document_changes import Changes
from polaris.storage._documents import Document, DocumentIndex
from polaris.storage._filter import Filter, Path
from polaris.storage._graph_values import EdgeKey, GraphEdge, GraphNode
from polaris.storage._graph_view import GraphView
from polaris.storage._graph_walk import GraphReader, Walk
from polaris.storage._points import TimeSeriesPoint
from polaris.storage._projection import Wanted
from polaris.storage._rollups import RetentionPolicy
from polaris.storage._sorting import Page, SortBy
from polaris.storage._tag_filter import TagFilter
from polaris.storage._timeseries_requests import AggregateRequest, Micros, PointQuery, SeriesKey

T = TypeVar("T")


class TimeSeriesSession(Protocol):
    """Time series inside one transaction; arguments are checked already."""

    def store_many(self, collection: str, points: Sequence[TimeSeriesPoint]) -> None: ...

    def query(self, collection: str, query: PointQuery) -> list[TimeSeriesPoint]: ...

    def aggregate(self, collection: str, request: AggregateRequest) -> list[AggregatedRow]: ...

    def latest(self, collection: str, tags: TagFilter, fields: frozenset[str] | None) -> list[TimeSeriesPoint]: ...

    def delete_range(self, collection: str, micros: Micros, tags: TagFilter) -> int: ...

    def delete_series(self, collection: str, tags: TagFilter, rows_max: int) -> tuple[int, bool]: ...

    def set_policy(self, collection: str, policy: RetentionPolicy) -> None: ...

    def policy(self, collection: str) -> RetentionPolicy | None: ...

    def retain(self, collection: str, since_us: int, rows_max: int, under: RetentionPolicy | None = None) -> int: ...

    def thin(
        self,
        collection: str,
        since_us: int,
        into_us: int | None,
        rows_max: int,
        under: RetentionPolicy | None = None,
    ) -> int: ...

    def list_series(
        self, collection: str, tags: TagFilter, limit: int, after: SeriesKey | None
    ) -> list[dict[str, str]]: ...

    def count_series(self, collection: str | None, tags: TagFilter) -> int: ...

    def list_collections(self) -> list[str]: ...

    def list_fields(self, collection: str, tags: TagFilter) -> list[str]: ...

    def list_tag_keys(self, collection: str) -> list[str]: ...

    def list_tag_values(self, collection: str, key: str, tags: TagFilter) -> list[str]: ...


class DocumentSession(Protocol):
    """Documents inside one transaction; arguments are checked already.

    Documents come as pairs of id and JSON text without `_id` and `_version`. `now_us` is the instant of the call: what
    has expired by then is not there, and its id and unique values are free. `expires_us` of new content: None for
    never; of an update: None to leave it as it is.
    """

    def insert_many(
        self, collection: str, documents: Sequence[tuple[str, str]], *, now_us: int, expires_us: int | None
    ) -> None: ...

    def put_many(
        self,
        collection: str,
        documents: Sequence[tuple[str, str]],
        *,
        expected_version: int | None,
        now_us: int,
        expires_us: int | None,
    ) -> None: ...

    def get(self, collection: str, document_id: str, *, fields: Wanted | None, now_us: int) -> Document | None: ...

    def find(
        self,
        collection: str,
        term: Filter,
        *,
        limit: int,
        order: tuple[SortBy, ...],
        page: Page | None,
        fields: Wanted | None,
        now_us: int,
    ) -> list[Document]: ...

    def count(self, collection: str, term: Filter, *, now_us: int) -> int: ...

    def update(
        self,
        collection: str,
        document_id: str,
        changes: Changes,
        *,
        expected_version: int | None,
        now_us: int,
        expires_us: int | None,
    ) -> bool: ...

    def update_where(
        self,
        collection: str,
        term: Filter,
        changes: Changes,
        *,
        limit: int | None,
        now_us: int,
        expires_us: int | None,
    ) -> int: ...

    def delete(self, collection: str, document_id: str, *, expected_version: int | None, now_us: int) -> bool: ...

    def delete_where(self, collection: str, term: Filter, *, limit: int | None, now_us: int) -> int: ...

    def purge(self, collection: str | None, *, limit: int, now_us: int) -> int: ...

    def create_index(self, collection: str, paths: tuple[Path, ...], *, unique: bool) -> None: ...

    def drop_index(self, collection: str, paths: tuple[Path, ...]) -> bool: ...

    def list_indexes(self, collection: str) -> list[DocumentIndex]: ...


class GraphSession(GraphReader, Protocol):
    """The graph inside one transaction; arguments are checked already.

    A walk is made anew for each run and driven over the session itself: see `GraphReader`.
    """

    def add_nodes(self, nodes: Sequence[GraphNode]) -> None: ...

    def get_node(self, node_id: str) -> GraphNode | None: ...

    def find_nodes(self, term: Filter, limit: int, after: str | None) -> list[GraphNode]: ...

    def count_nodes(self, term: Filter) -> int: ...

    def remove_node(self, node_id: str) -> bool: ...

    def add_edges(self, edges: Sequence[GraphEdge]) -> None: ...

    def get_edge(self, source: str, target: str, relationship_type: str) -> GraphEdge | None: ...

    def remove_edge(self, source: str, target: str, relationship_type: str | None) -> bool: ...

    def edges(self, node_id: str | None, view: GraphView, limit: int, after: EdgeKey | None) -> list[GraphEdge]: ...

    def count_edges(self, node_id: str | None, view: GraphView) -> int: ...

    def neighbors(self, node_id: str, view: GraphView, limit: int, after: str | None) -> list[str]:
        """In order, each once; which nodes the view sees is not looked at."""
        ...

    def walk(self, make: Callable[[], Walk[T]]) -> T: ...


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
