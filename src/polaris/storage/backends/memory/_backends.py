"""One model of an engine in memory, for who needs no more than that."""

from __future__ import annotations

from polaris.storage.backends.local import LocalDocuments, LocalGraph, LocalTimeSeries
from polaris.storage.backends.memory._engine import InMemoryEngine


class InMemoryTimeSeriesBackend(LocalTimeSeries):
    """Time series in memory; those of the engine given, or of a new one."""

    def __init__(self, engine: InMemoryEngine | None = None) -> None:
        engine = engine or InMemoryEngine()
        super().__init__(engine, engine)


class InMemoryDocumentBackend(LocalDocuments):
    """Documents in memory; those of the engine given, or of a new one."""

    def __init__(self, engine: InMemoryEngine | None = None) -> None:
        engine = engine or InMemoryEngine()
        super().__init__(engine, engine)


class InMemoryGraphBackend(LocalGraph):
    """A graph in memory; that of the engine given, or of a new one."""

    def __init__(self, engine: InMemoryEngine | None = None) -> None:
        engine = engine or InMemoryEngine()
        super().__init__(engine, engine)
