"""All models on one connection, and what they remember of its content."""

from __future__ import annotations

import apsw

from polaris.storage.backends.sqlite._documents import SqliteDocuments
from polaris.storage.backends.sqlite._graph import SqliteGraph
from polaris.storage.backends.sqlite._memory import Memory
from polaris.storage.backends.sqlite._outbox import SqliteOutbox
from polaris.storage.backends.sqlite._timeseries import SqliteTimeSeries


class SqliteSession:
    """One connection's view of the store. Used by one thread at a time, inside a transaction that its owner began."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self.memory = Memory()
        self.time_series = SqliteTimeSeries(connection, self.memory)
        self.documents = SqliteDocuments(connection, self.memory)
        self.graph = SqliteGraph(connection)
        self.outbox = SqliteOutbox(connection)
