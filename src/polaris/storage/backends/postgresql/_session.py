"""All models on one connection, while an operation or a transaction has it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar, cast

from polaris.clock import Clock
from polaris.storage._operation import Operation, Session
from polaris.storage._series_limits import SeriesLimits
from polaris.storage.backends.postgresql._catalog import Catalog
from polaris.storage.backends.postgresql._documents import PostgresDocuments
from polaris.storage.backends.postgresql._graph import PostgresGraph
from polaris.storage.backends.postgresql._link import Link
from polaris.storage.backends.postgresql._memory import Lessons
from polaris.storage.backends.postgresql._outbox import PostgresOutbox
from polaris.storage.backends.postgresql._timeseries import PostgresTimeSeries

T = TypeVar("T")


class PostgresSession:
    """The methods of `polaris.storage._operation.Session`, to be awaited. Used by one task at a time."""

    def __init__(self, link: Link, catalog: Catalog, schema: str, limits: SeriesLimits, clock: Clock) -> None:
        self.link = link
        self.lessons = Lessons(catalog.memory)
        self.time_series = PostgresTimeSeries(link, catalog, self.lessons, limits, clock)
        self.documents = PostgresDocuments(link, catalog, self.lessons)
        self.graph = PostgresGraph(link)
        self.outbox = PostgresOutbox(link, schema)


async def run_on(session: PostgresSession, operation: Operation[T]) -> T:
    """Run an operation on a session of this package.

    An operation calls one method and returns what it gives. The methods here are those of `Session`, but they give
    awaitables of its results: this is the one place that knows.
    """
    return await cast("Awaitable[T]", operation.run(cast("Session", session)))
