"""The engine in memory: the semantics of the durable engines without their durability, for tests and short lives."""

from polaris.storage.backends.memory._backends import (
    InMemoryDocumentBackend,
    InMemoryGraphBackend,
    InMemoryTimeSeriesBackend,
)
from polaris.storage.backends.memory._engine import InMemoryEngine

__all__ = ["InMemoryDocumentBackend", "InMemoryEngine", "InMemoryGraphBackend", "InMemoryTimeSeriesBackend"]
