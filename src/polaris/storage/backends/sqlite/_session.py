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

    def write_gathered(self) -> None:
        """Write what is gathered: see `SqliteTimeSeries.gathers`."""
        self.time_series.write_gathered()

    def commit(self) -> None:
        """Make the transaction last. When it raises, the transaction is still to be rolled back."""
        self.time_series.write_gathered()
        self.connection.execute("COMMIT")
        self.memory.committed()

    def roll_back(self) -> None:
        """Take the transaction back."""
        self.connection.execute("ROLLBACK")
        self.rolled_back()

    def rolled_back(self, mark: int = 0) -> None:
        """The transaction was taken back, or the part of it since the mark of the memory: forget what it brought."""
        self.memory.rolled_back(mark)
        self.time_series.forget_gathered()
