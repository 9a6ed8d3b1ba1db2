"""One model of an engine in memory, for who needs no more than that."""

from __future__ import annotations

from polaris.storage.backends.memory._engine import InMemoryEngine
from polaris.storage.backends.shared import DocumentPort, GraphPort, TimeSeriesPort


class InMemoryTimeSeriesBackend(TimeSeriesPort):
    """Time series in memory; those of the engine given, or of a new one."""

    def __init__(self, engine: InMemoryEngine | None = None) -> None:
        engine = engine or InMemoryEngine()
        super().__init__(engine, engine)


class InMemoryDocumentBackend(DocumentPort):
    """Documents in memory; those of the engine given, or of a new one."""

    def __init__(self, engine: InMemoryEngine | None = None) -> None:
        engine = engine or InMemoryEngine()
        super().__init__(engine, engine)


class InMemoryGraphBackend(GraphPort):
    """A graph in memory; that of the engine given, or of a new one."""

    def __init__(self, engine: InMemoryEngine | None = None) -> None:
        engine = engine or InMemoryEngine()
        super().__init__(engine, engine)
